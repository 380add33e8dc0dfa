"""The build: find samples, split them by patient, write one shard a task with Ray Data, then the card.      [Ray]

    card = build(BuildSettings(source="phantom"), "shards/phantom")

    find_samples --> assign_splits --> tasks --> Ray Data: one row, one shard --> rejected.csv repaired.csv card.json

A row of the Ray Data set is a whole shard, which its task writes itself: pixels never pass through the object store,
names and bytes are the same on any number of workers, and a build that was killed goes on where it was. A task takes
several rows at first and one at last (`share_out`). `card.json` is written last: a folder with a card is complete.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cluster.session import connect

import pyarrow as pa
import ray.data

from cluster.storage import Folder
from data_prep.find import cbis_ddsm, pairs
from data_prep.finish import Source, clean, finish
from data_prep.phantom import patients as phantom
from data_prep.plan import PLACES, plan, shaping_settings, source_sha256
from data_prep.schema import SPLITS, BuildSettings, DatasetCard, Found
from data_prep.shards import CARD, cache_root, read_card
from data_prep.split import assign_splits
from data_prep.write import BUILDING, REPORT, TASK, ShardReport, ShardTask, finished, import_row, write_row, write_shard

SOURCES: dict[str, Callable[..., Found]] = {
    "cbis_ddsm": cbis_ddsm.find_samples,
    "pairs": pairs.find_samples,
    "phantom": phantom.find_samples,
}


MOST_ROWS = 4
"""Shards of one task at most, so that machines that join later find work."""

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class BuildProgress:
    """How far a build is."""

    stage: str
    """`find`, `prepare` or `finish`."""
    done: int = 0
    """Samples tried so far, those of an earlier, killed build included."""
    total: int = 0
    """Samples to try."""
    built_here: int = 0
    """Samples tried by this build."""
    rejected: int = 0
    """Inputs left out so far."""
    seconds: float = 0.0
    """Time since the first shard was begun."""

    @property
    def images_per_s(self) -> float:
        """Speed of this build so far."""
        return self.built_here / self.seconds if self.seconds > 0 else 0.0


Progress = Callable[[BuildProgress], None]


def build(
    settings: BuildSettings,
    out: Folder | str,
    *,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> DatasetCard:
    """Build a shard folder, go on with one, or find that it is there.

    Args:
        settings: what to build.
        out: the shard folder, a path or URI. On a cluster all machines must see it.
        overwrite: remove what an earlier build of other settings has left there.
        workers: tasks at a time; None: one a CPU core; 0: in this process, without Ray.
        progress: called at each step.

    Returns:
        The card of the complete folder.

    Raises:
        ValueError: the source cannot be used, no sample is left, or `out` holds something else; the message says what
            to do.
    """
    out = out if isinstance(out, Folder) else Folder(out)
    tell = progress or (lambda _: None)
    if overwrite:
        remove_shards(out)
    tell(BuildProgress(stage="find"))
    located = settings.model_copy(update={"root": settings.root or _phantom_root(out)})
    found = SOURCES[settings.source](located, index_cache=_index_cache(located))
    samples, left_out = assign_splits(found.samples, located)
    rejected = [*found.rejected, *left_out]
    source = Source(
        sha256=source_sha256(samples, rejected, located.root), rejected=rejected, repaired=tuple(found.repaired)
    )
    card = _finished_card(out, settings, source.sha256)
    if card is not None:
        return card
    _claim(out, settings, source.sha256)
    tasks = plan(samples, located, source.sha256)
    reports = write_shards(tasks, out, workers=workers, rejected=len(rejected), tell=tell)
    tell(BuildProgress(stage="finish"))
    return finish(out, settings, source, reports)


def warm_up(workers: int) -> None:
    """Start the worker processes of a connected Ray and let them import, so that a measurement leaves that out."""
    list(_map_rows([{"wait_s": 1.0}] * workers, import_row, workers=workers))


def remove_shards(out: Folder) -> None:
    """Remove a shard folder, finished or not.

    Raises:
        ValueError: the folder holds files that no build makes; nothing was removed.
    """
    ours = {CARD, BUILDING, "rejected.csv", "repaired.csv", *SPLITS}
    others = [name for name in out.names() if name not in ours and ".tmp-" not in name]
    if others:
        raise ValueError(f"{out} holds {', '.join(others[:5])}, which no build makes; choose another folder")
    for name in [CARD, *out.names()]:  # the card first: a folder with a card is complete
        out.remove(name)


def _phantom_root(out: Folder) -> str:
    """Where phantoms are written when the settings do not say: beside the shards, or in this machine's cache."""
    return f"{out.path}-films" if out.local is not None else str(cache_root() / f"{out.name}-films")


def _index_cache(settings: BuildSettings) -> Path:
    """Where the headers of a source are remembered on this machine, by size and time of the files."""
    digest = hashlib.sha256(str(Folder(settings.root or "")).encode()).hexdigest()
    return cache_root() / "index" / f"{settings.source}-{digest[:16]}.json"


def _finished_card(out: Folder, settings: BuildSettings, source: str) -> DatasetCard | None:
    if not out.exists(CARD):
        return None
    card = read_card(out)
    _refuse_other(out, card.settings, card.source_sha256, settings, source)
    lost = [file for file in card.files if not out.exists(file)]
    if lost:
        raise ValueError(f"{out} has lost {', '.join(lost[:5])}; build it again with --overwrite")
    clean(out, card)
    return card


def _claim(out: Folder, settings: BuildSettings, source: str) -> None:
    """Say in the folder what is being built, or make sure that a killed build began the same."""
    name = f"{BUILDING}/settings.json"
    if out.exists(name):
        begun: Any = out.read_json(name)
        earlier = BuildSettings.model_validate(begun["settings"])
        _refuse_other(out, earlier, begun["source_sha256"], settings, source)
    else:
        out.write_json(name, {"settings": settings.model_dump(mode="json"), "source_sha256": source})


def _refuse_other(
    out: Folder, earlier: BuildSettings, earlier_source: str, settings: BuildSettings, source: str
) -> None:
    before, now = shaping_settings(earlier), shaping_settings(settings)
    differences = [f"{key}: {before[key]} there, {now[key]} now" for key in now if before[key] != now[key]]
    if not differences and earlier_source != source:
        places = " ".join(str(getattr(settings, name)) for name in PLACES if getattr(settings, name))
        differences = [f"the source's files have changed {f'({places})' if places else ''}".rstrip()]
    if differences:
        raise ValueError(
            f"{out} was built differently: {'; '.join(differences)}. Choose another folder, or build this one again "
            "with --overwrite"
        )


def write_shards(
    tasks: Sequence[ShardTask], out: Folder, *, workers: int | None, rejected: int = 0, tell: Progress = lambda _: None
) -> list[ShardReport]:
    """Write the shards that are not there yet, all workers at once.

    Args:
        tasks: of a plan.
        out: the shard folder.
        workers: as for `build`.
        rejected: inputs left out before, for `tell`.
        tell: called after each shard.

    Returns:
        The reports of all shards, in no order.
    """
    reports = [report for task in tasks if (report := finished(task, out))]
    ready = {report.file for report in reports}
    left = [task for task in tasks if task.file not in ready]
    before, total = sum(report.read for report in reports), sum(len(task.samples) for task in tasks)
    begun = time.perf_counter()

    def now() -> BuildProgress:
        done = sum(report.read for report in reports)
        return BuildProgress(
            stage="prepare",
            done=done,
            total=total,
            built_here=done - before,
            rejected=rejected + sum(len(report.rejected) for report in reports),
            seconds=time.perf_counter() - begun,
        )

    tell(now())
    if left and workers == 0:
        for task in left:
            reports.append(write_shard(task, out))
            tell(now())
    elif left:
        with connect(cpus=workers, object_store_gb=0.25, dashboard=False):
            begun = time.perf_counter()
            for report in _on_ray(left, out, workers):
                reports.append(report)
                tell(now())
    missing = [report.file for report in reports if not out.exists(report.file)]
    if missing:
        raise ValueError(f"{missing[0]} is not in {out} as seen from here: all machines must see the same folder")
    return reports


def _on_ray(tasks: Sequence[ShardTask], out: Folder, workers: int | None) -> Iterator[ShardReport]:
    """Write shards on all workers; their reports as they come."""
    rows = [{"task": TASK.dump_json(task).decode()} for task in tasks]
    for row in _map_rows(rows, write_row, workers=workers, out=out.uri):
        yield REPORT.validate_json(row["report"])


def _map_rows(
    rows: list[dict[str, Any]], function: Callable[..., dict[str, Any]], *, workers: int | None, **kwargs: Any
) -> Iterator[dict[str, Any]]:
    """Call `function` for each row on Ray Data, each task on one CPU; the results as they come."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # each result on its way at once, not with the last of its task
    with ray.data.DataContext.current(context):
        cores = workers or int(ray.cluster_resources().get("CPU", 1))
        parts = ray.data.from_arrow([pa.Table.from_pylist(part) for part in share_out(rows, cores)])
        pool = ray.data.TaskPoolStrategy(size=workers)
        yield from parts.map(function, fn_kwargs=kwargs, num_cpus=1, compute=pool).iter_rows()


def share_out(rows: Sequence[Row], workers: int) -> list[Sequence[Row]]:
    """Rows for one task after the other: more at first, for a core idles between two tasks, and one at last.

    That is guided self-scheduling (Polychronopoulos and Kuck 1987, doi:10.1109/TC.1987.5009495): cores end together.

    Args:
        rows: in order.
        workers: tasks at a time.

    Returns:
        Parts of the rows in order, none empty: half of a worker's share of what is left, at most `MOST_ROWS`.
    """
    parts, begin = [], 0
    while begin < len(rows):
        size = min(-(-(len(rows) - begin) // (2 * max(workers, 1))), MOST_ROWS)
        parts.append(rows[begin : begin + size])
        begin += size
    return parts
