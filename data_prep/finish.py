"""The end of a build: no film twice, the lists of what was left out and put right, the card.

Everything here is a function of the finished shards' reports, and doing it twice changes nothing: a build that is
killed in the middle of it goes on.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.storage import Folder
from data_prep.plan import shaping_settings, versions
from data_prep.schema import SCHEMA_VERSION, SPLITS, BuildSettings, DatasetCard, Rejected, Repaired, ShardFile
from data_prep.shape.prepare import image_columns
from data_prep.shards import CARD, check_leaks
from data_prep.write import BUILDING, Film, ShardReport, describe_file, place, scratch_folder, shard_schema, write_rows


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is known of the source when the shards are done."""

    sha256: str
    rejected: Sequence[Rejected]
    repaired: Sequence[Repaired]


def finish(out: Folder, settings: BuildSettings, source: Source, reports: Sequence[ShardReport]) -> DatasetCard:
    """Complete a shard folder.

    Args:
        out: the folder, in which every shard of `reports` lies.
        settings: of the build, as the user gave them.
        source: its identity, and what was left out or put right before the shards were written.
        reports: of all shards.

    Returns:
        The card, which is also in the folder now.

    Raises:
        ValueError: no sample could be built, or the splits leak.
    """
    reports, twice = _drop_duplicates(out, settings, sorted(reports, key=lambda r: r.file))
    rejected = [*source.rejected, *(item for report in reports for item in report.rejected), *twice]
    repaired = [*source.repaired, *(item for report in reports for item in report.repaired)]
    films = [(report.file.split("/")[0], film) for report in reports for film in report.films]
    if not films:
        raise ValueError(f"no sample could be built: {_reasons(rejected)}; see {out}/rejected.csv")
    check_leaks(_film_table(films))
    _write_csv(out, "rejected.csv", "reason", ((r.path, r.sample_id, r.reason) for r in rejected))
    _write_csv(out, "repaired.csv", "repair", ((r.path, r.sample_id, r.repair) for r in repaired))
    card = _card(out, settings, source, reports, films, len(set(rejected)), len(set(repaired)))
    out.write_text(CARD, card.model_dump_json(indent=2) + "\n")
    clean(out, card)
    return card


def clean(out: Folder, card: DatasetCard) -> None:
    """Remove what builds that were killed have left behind."""
    out.remove(BUILDING)
    for file, _ in list(out.walk()):
        if file.split("/")[0] in SPLITS and file not in card.files:
            out.remove(file)


def _card(
    out: Folder,
    settings: BuildSettings,
    source: Source,
    reports: Sequence[ShardReport],
    films: Sequence[tuple[str, Film]],
    *counts: int,
) -> DatasetCard:
    files = {report.file: report.content for report in reports}
    return DatasetCard(
        schema_version=SCHEMA_VERSION,
        name=out.name,
        settings=settings,
        source_sha256=source.sha256,
        columns=shard_schema(settings).names,
        image_columns={str(name): column for name, column in image_columns(settings).items()},
        samples={split: sum(s == split for s, _ in films) for split in SPLITS},
        patients={split: len({film.patient_id for s, film in films if s == split}) for split in SPLITS},
        lesions={split: sum(film.lesions for s, film in films if s == split) for split in SPLITS},
        rejected=counts[0],
        repaired=counts[1],
        files=files,
        fingerprint=_fingerprint(files, settings),
        versions=versions(),
        created_at=_now(),
    )


def _fingerprint(files: dict[str, ShardFile], settings: BuildSettings) -> str:
    identity = [{file: content.sha256 for file, content in files.items()}, shaping_settings(settings)]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _now() -> str:
    """The time, or that of SOURCE_DATE_EPOCH, by which reproducible builds agree on one."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.isoformat(timespec="seconds")


def _drop_duplicates(
    out: Folder, settings: BuildSettings, reports: Sequence[ShardReport]
) -> tuple[list[ShardReport], list[Rejected]]:
    """Remove rows whose film is in a split that matters more, or that are there twice with the same mask.

    Of one film in two splits the test split keeps it, then the validation split. In one split the same film may
    appear with different masks: a mass and a calcification in CBIS-DDSM, the lesions of one film in the lesion view.
    """
    unwanted = _duplicates(reports, whole=settings.field_of_view == "whole")
    if not unwanted:
        return list(reports), []
    kept: list[ShardReport] = []
    for report in reports:
        drop = {film.sample_id for film in report.films} & unwanted.keys()
        kept.append(_without(out, settings, report, drop) if drop else report)
    rejected = [Rejected(path="", sample_id=name, reason=f"duplicate: {why}") for name, why in sorted(unwanted.items())]
    return kept, rejected


def _duplicates(reports: Sequence[ShardReport], *, whole: bool) -> dict[str, str]:
    """Sample id -> which sample shows the same film."""
    rank = {split: number for number, split in enumerate(reversed(SPLITS))}
    films = [(rank[report.file.split("/")[0]], film) for report in reports for film in report.films]
    films.sort(key=lambda item: (item[0], item[1].sample_id))
    holder: dict[str, tuple[int, Film]] = {}
    masks: dict[tuple[str, str], Film] = {}
    unwanted = {}
    for split, film in films:
        first_split, first = holder.setdefault(film.pixel_sha256, (split, film))
        twin = masks.setdefault((film.pixel_sha256, film.mask_sha256), film)
        if first_split != split:
            unwanted[film.sample_id] = f"the same film as {first.sample_id} in {SPLITS[::-1][first_split]}"
        elif whole and twin is not film:
            unwanted[film.sample_id] = f"the same film and mask as {twin.sample_id}"
    return unwanted


def _without(out: Folder, settings: BuildSettings, report: ShardReport, drop: set[str]) -> ShardReport:
    """Write a shard again without some of its rows. Its report stays as it is: killed here, the shard is made anew."""
    source = pq.ParquetFile(f"{out.path}/{report.file}", filesystem=out.filesystem)

    def batches() -> Iterator[pa.RecordBatch]:
        for group in range(source.num_row_groups):
            batch = source.read_row_group(group).combine_chunks().to_batches()[0]
            wanted = pc.invert(pc.is_in(batch.column("sample_id"), pa.array(sorted(drop))))
            yield batch.filter(wanted)

    with scratch_folder(out) as folder:
        file = Path(folder) / "shard.parquet"
        rows = write_rows(file, batches(), shard_schema(settings))
        content = describe_file(file, rows)
        place(file, out, report.file)
    return replace(report, content=content, films=[film for film in report.films if film.sample_id not in drop])


def _film_table(films: Iterable[tuple[str, Film]]) -> pd.DataFrame:
    rows = [(film.sample_id, film.patient_id, film.pixel_sha256, split) for split, film in films]
    return pd.DataFrame(rows, columns=["sample_id", "patient_id", "pixel_sha256", "split"])


def _write_csv(out: Folder, name: str, last: str, rows: Iterable[tuple[str, str, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "sample_id", last))
    in_order: list[tuple[str, str, str]] = sorted(set(rows), key=lambda row: (row[1], row[0], row[2]))
    writer.writerows(in_order)
    out.write_text(name, text.getvalue())


def _reasons(rejected: Sequence[Rejected]) -> str:
    counts = Counter(item.reason.split(":")[0] for item in rejected)
    listed = ", ".join(f"{count} x {reason}" for reason, count in counts.most_common(5))
    return f"{len(rejected)} inputs were left out ({listed})" if rejected else "the source holds none"
