"""The end of a build: no film twice, the lists of what was left out and put right, the card.

Everything here is a function of the finished shards' reports, and doing it twice changes nothing: a build that is
killed in the middle of it goes on.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage import Folder
from data_prep.plan import versions
from data_prep.remarks import empty_splits, incomplete_remark, size_remarks
from data_prep.schema import SCHEMA_VERSION, SPLITS, BuildSettings, DatasetCard, Rejected, Repaired
from data_prep.shape.prepare import image_columns
from data_prep.shards import CARD, LEAK_COLUMNS, REJECTED, REPAIRED, check_leaks, fingerprint
from data_prep.write import (
    BUILDING,
    SampleReport,
    ShardReport,
    describe_file,
    move_in,
    scratch_folder,
    shard_schema,
    write_rows,
)  # fmt: skip

SHARD_FILE = re.compile(r"(train|val|test)/\d{5}\.parquet(\.tmp-[0-9a-f]{8})?")
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is known of the source when the shards are done."""

    sha256: str
    rejected: Sequence[Rejected]
    repaired: Sequence[Repaired]
    warnings: tuple[str, ...] = ()
    """What is remarkable of it."""
    planned: Mapping[str, int] = field(default_factory=dict)
    """Split -> samples that were to be built."""


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
    samples = [(report.file.split("/")[0], sample) for report in reports for sample in report.samples]
    write_lists(out, rejected, repaired)
    refuse_empty(samples, rejected, out)
    counts = {split: sum(s == split for s, _ in samples) for split in SPLITS}
    _refuse_empty_splits(empty_splits(source.planned, counts), rejected, out)
    check_leaks(_leak_table(samples))
    listed = _Lists(rejected=sorted(set(rejected), key=str), repaired=sorted(set(repaired), key=str))
    card = _card(out, settings, source, reports, samples, listed)
    out.write_text(CARD, card.model_dump_json(indent=2) + "\n")
    clean(out, card)
    return card


def refuse_empty(samples: Sequence[object], rejected: Sequence[Rejected], out: Folder, looked_for: str = "") -> None:
    """Refuse a build without samples; it leaves no claim on the folder.

    Args:
        samples: what there is.
        rejected: what was left out.
        out: the shard folder.
        looked_for: what the source looked for and what there is, if it found nothing.

    Raises:
        ValueError: there is no sample; the message says why inputs were left out.
    """
    if not samples:
        out.remove(BUILDING)
        words = "; ".join(word for word in (looked_for, _reasons(rejected)) if word)
        raise ValueError(f"no sample could be built: {words}; see {out}/{REJECTED}")


def _refuse_empty_splits(empty: Sequence[str], rejected: Sequence[Rejected], out: Folder) -> None:
    """Refuse a data set that cannot be trained on; it leaves no claim and no shard."""
    if not empty:
        return
    for file, _ in list(out.walk()):
        if SHARD_FILE.fullmatch(file):
            out.remove(file)
    out.remove(BUILDING)
    raise ValueError(
        f"{' and '.join(empty)} would hold no sample: {_reasons(rejected)}; see {out}/{REJECTED}. Give more data, "
        "another --split-seed, or settings that leave out less (incomplete, healthy)"
    )


@dataclass(frozen=True, kw_only=True)
class _Lists:
    """What was left out and put right, each once."""

    rejected: Sequence[Rejected]
    repaired: Sequence[Repaired]


def write_lists(out: Folder, rejected: Iterable[Rejected], repaired: Iterable[Repaired]) -> None:
    """Write the lists of what was left out, and of what was put right."""
    _write_csv(out, REJECTED, "reason", ((r.path, r.sample_id, r.reason) for r in rejected))
    _write_csv(out, REPAIRED, "repair", ((r.path, r.sample_id, r.repair) for r in repaired))


def clean(out: Folder, card: DatasetCard) -> None:
    """Remove what builds that were killed have left behind: their own files, and no other."""
    out.remove(BUILDING)
    for file, _ in list(out.walk()):
        if SHARD_FILE.fullmatch(file) and file not in card.files:
            out.remove(file)


def _card(
    out: Folder,
    settings: BuildSettings,
    source: Source,
    reports: Sequence[ShardReport],
    built: Sequence[tuple[str, SampleReport]],
    lists: _Lists,
) -> DatasetCard:
    files = {report.file: report.content for report in reports}
    diameters_px = {split: [px for s, sample in built if s == split for px in sample.diameters_px] for split in SPLITS}
    left_out = sum(item.reason.startswith("incomplete:") for item in lists.rejected)
    incomplete = incomplete_remark(sum(sample.incomplete for _, sample in built), left_out)
    return DatasetCard(
        schema_version=SCHEMA_VERSION,
        name=out.name,
        settings=settings,
        source_sha256=source.sha256,
        columns=shard_schema(settings).names,
        image_columns=image_columns(settings),
        samples={split: sum(s == split for s, _ in built) for split in SPLITS},
        patients={split: len({sample.patient_id for s, sample in built if s == split}) for split in SPLITS},
        lesions={split: len(sizes) for split, sizes in diameters_px.items()},
        rejected=len(lists.rejected),
        repaired=len(lists.repaired),
        warnings=[*source.warnings, *incomplete, *size_remarks(diameters_px)],
        files=files,
        fingerprint=fingerprint(files, settings),
        versions=versions(),
        created_at=_now(),
    )


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
        drop = {sample.sample_id for sample in report.samples} & unwanted.keys()
        kept.append(_without(out, settings, report, drop) if drop else report)
    rejected = [Rejected(path="", sample_id=name, reason=f"duplicate: {why}") for name, why in sorted(unwanted.items())]
    return kept, rejected


def _duplicates(reports: Sequence[ShardReport], *, whole: bool) -> dict[str, str]:
    """Sample id -> which sample shows the same film."""
    rank = {split: number for number, split in enumerate(reversed(SPLITS))}
    samples = [(rank[report.file.split("/")[0]], sample) for report in reports for sample in report.samples]
    samples.sort(key=lambda item: (item[0], item[1].sample_id))
    holder: dict[str, tuple[int, SampleReport]] = {}
    masks: dict[tuple[str, str], SampleReport] = {}
    unwanted = {}
    for split, sample in samples:
        first_split, first = holder.setdefault(sample.pixel_hash, (split, sample))
        twin = masks.setdefault((sample.pixel_hash, sample.mask_hash), sample)
        if first_split != split:
            unwanted[sample.sample_id] = f"the same film as {first.sample_id} in {SPLITS[::-1][first_split]}"
        elif whole and twin is not sample:
            unwanted[sample.sample_id] = f"the same film and mask as {twin.sample_id}"
    return unwanted


def _without(out: Folder, settings: BuildSettings, report: ShardReport, drop: set[str]) -> ShardReport:
    """Write a shard again without some of its rows. Its report stays as it is: killed here, the shard is made anew."""
    source = out.parquet(report.file)

    def batches() -> Iterator[pa.RecordBatch]:
        for group in range(source.num_row_groups):
            batch = source.read_row_group(group).combine_chunks().to_batches()[0]
            wanted = pc.invert(pc.is_in(batch.column("sample_id"), pa.array(sorted(drop))))
            yield batch.filter(wanted)

    with scratch_folder(out) as folder:
        file = Path(folder) / "shard.parquet"
        rows = write_rows(file, batches(), shard_schema(settings))
        content = describe_file(file, rows)
        move_in(file, out, report.file)
    return replace(report, content=content, samples=[s for s in report.samples if s.sample_id not in drop])


def _leak_table(built: Iterable[tuple[str, SampleReport]]) -> pd.DataFrame:
    rows = [(sample.sample_id, sample.patient_id, split, sample.pixel_hash) for split, sample in built]
    return pd.DataFrame(rows, columns=LEAK_COLUMNS)


def _write_csv(out: Folder, name: str, last: str, rows: Iterable[tuple[str, str, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "sample_id", last))
    in_order: list[tuple[str, str, str]] = sorted(set(rows), key=lambda row: (row[1], row[0], row[2]))
    writer.writerows(tuple(map(_as_text, row)) for row in in_order)
    out.write_text(name, text.getvalue())


def _as_text(cell: str) -> str:
    """A cell that a spreadsheet takes for text: one that begins as a formula does is quoted (OWASP, CSV injection)."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def _reasons(rejected: Sequence[Rejected]) -> str:
    counts = Counter(item.reason.split(":")[0] for item in rejected)
    listed = ", ".join(f"{count} x {reason}" for reason, count in counts.most_common(5))
    return f"{len(rejected)} inputs were left out ({listed})" if rejected else "the source holds none"
