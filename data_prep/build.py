"""The build: find samples, split them by patient, write the shards, then the card. Knows no Ray.

    card = build(BuildSettings(source="phantom"), "shards/phantom")                            in this process
    card = build(BuildSettings(source="phantom"), "shards/phantom", workers=RayWorkers(4))     data_prep.on_ray

    find_samples --> assign_splits --> tasks, one a shard --> workers --> lists, card

A worker writes a whole shard itself: pixels never pass from process to process, names and bytes are the same on any
number of workers, and a build that was killed goes on where it was. The card is written last: a folder with a card is
complete.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from cluster.storage import Folder
from data_prep.cache import INDEX, cache_folder, cache_root
from data_prep.claim import Claim, check_place, check_source, claim, locked, only_builder, refuse_other, remove_shards
from data_prep.find import cbis_ddsm, pairs
from data_prep.find.index import ReadBatch
from data_prep.find.listing import FileRecord
from data_prep.finish import Source, clean, finish, refuse_empty, write_lists
from data_prep.phantom import patients as phantom
from data_prep.plan import plan, source_sha256
from data_prep.schema import SPLITS, BuildSettings, DatasetCard, Found, Sample
from data_prep.shards import CARD, read_card
from data_prep.split import assign_splits, drop_incomplete
from data_prep.write import ShardReport, ShardTask, finished, write_shard

SOURCES: dict[str, Callable[..., Found]] = {
    "cbis_ddsm": cbis_ddsm.find_samples,
    "pairs": pairs.find_samples,
    "phantom": phantom.find_samples,
}


INDEX_ON_WORKERS = 1000
"""As many headers are read by the workers; fewer by this process, which need then not start any."""

T = TypeVar("T")
R = TypeVar("R")


class Workers(Protocol):
    """Who does a build's work. A context: workers that had to be started end with it."""

    def __enter__(self) -> Workers:
        """Take the workers."""

    def __exit__(self, *error: object) -> None:
        """End those that were started."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Apply a function that can be pickled to each item; the results as they come, in any order.

        Raises:
            OSError: the function raised one.
        """


class InProcess:
    """This process."""

    def __enter__(self) -> InProcess:
        """Nothing to take."""
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to end."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """One after the other."""
        yield from map(function, items)


@dataclass(frozen=True, kw_only=True)
class BuildProgress:
    """How far a build is."""

    stage: str
    """`wait` (for another build), `find`, `prepare` or `finish`."""
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
    workers: Workers | Literal[0] = 0,
    progress: Progress | None = None,
) -> DatasetCard:
    """Build a shard folder, go on with one, or find that it is there.

    Args:
        settings: what to build.
        out: the shard folder, a path or URI. On a cluster all machines must see it.
        overwrite: remove what an earlier build of other settings has left there.
        workers: who does the work; 0: this process.
        progress: called at each step.

    Returns:
        The card of the complete folder.

    Raises:
        ValueError: the source cannot be used, no sample is left, or `out` holds something else; the message says what
            to do.
    """
    out = out if isinstance(out, Folder) else Folder(out)
    tell = progress or (lambda _: None)
    located = settings.model_copy(update={"root": settings.root or _phantom_root(out)})
    check_source(located)
    check_place(out, located.root)
    with _alone(out, located, lambda: tell(BuildProgress(stage="wait"))), workers or InProcess() as crew:
        if overwrite:
            remove_shards(out)
        tell(BuildProgress(stage="find"))
        source, samples = _find(out, located, crew)
        mine = Claim(settings=settings, source_sha256=source.sha256)
        card = _finished_card(out, mine)
        if card is not None:
            return card
        claim(out, mine)
        tasks = plan(samples, located, source.sha256)
        reports = write_shards(tasks, out, crew, rejected=len(source.rejected), tell=tell)
        tell(BuildProgress(stage="finish"))
        return finish(out, settings, source, reports)


def _find(out: Folder, settings: BuildSettings, workers: Workers) -> tuple[Source, list[Sample]]:
    """What the source holds, with the samples' splits. What was left out is written before anything is refused."""

    def read_on_workers(read: ReadBatch, batches: Sequence[list[FileRecord]]) -> Iterator[list[FileRecord]]:
        here = sum(map(len, batches)) < INDEX_ON_WORKERS
        return (InProcess() if here else workers).map(read, batches)

    found = SOURCES[settings.source](settings, index_cache=_index_cache(settings), map_batches=read_on_workers)
    try:
        samples, left_out = assign_splits(found.samples, settings)
        samples, incomplete = drop_incomplete(samples, settings)
        rejected = [*found.rejected, *left_out, *incomplete]
        refuse_empty(samples, rejected, out, found.looked_for)
    except ValueError:
        write_lists(out, found.rejected, found.repaired)
        raise
    sha256 = source_sha256(samples, rejected, settings.root, found.sizes)
    planned = {split: sum(sample.split == split for sample in samples) for split in SPLITS}
    source = Source(sha256=sha256, rejected=rejected, repaired=found.repaired, warnings=found.warnings, planned=planned)
    return source, samples


def find_again(out: Folder, settings: BuildSettings) -> list[Sample]:
    """The samples of the source of a finished folder, which is neither changed nor made; empty if it is not at hand.

    Args:
        out: the shard folder.
        settings: as its card has them.

    Raises:
        ValueError: what is there now is no such source.
    """
    located = settings.model_copy(update={"root": settings.root or _phantom_root(out)})
    root = Folder(located.root or "")
    if not root.exists() or (settings.source == "phantom" and not phantom.is_made(settings.phantom, Path(str(root)))):
        return []
    return SOURCES[settings.source](located, index_cache=_index_cache(located)).samples


@contextmanager
def _alone(out: Folder, settings: BuildSettings, waiting: Callable[[], None]) -> Iterator[None]:
    """No other build of this folder, and of these phantoms, at the same time."""
    with ExitStack() as stack:
        if settings.source == "phantom":
            stack.enter_context(locked(phantom.lock_file(settings), waiting))
        stack.enter_context(only_builder(out, waiting))
        yield


def _phantom_root(out: Folder) -> str:
    """Where phantoms are written when the settings do not say: beside the shards, or in this machine's cache."""
    return f"{out.path}-films" if out.local is not None else str(cache_root() / f"{out.name}-films")


def _index_cache(settings: BuildSettings) -> Path:
    """Where the headers of a source are remembered on this machine, by size and time of the files."""
    digest = hashlib.sha256(str(Folder(settings.root or "")).encode()).hexdigest()
    return cache_folder(INDEX) / f"{settings.source}-{digest[:16]}.parquet"


def _finished_card(out: Folder, mine: Claim) -> DatasetCard | None:
    if not out.exists(CARD):
        return None
    card = read_card(out)
    refuse_other(out, Claim(settings=card.settings, source_sha256=card.source_sha256), mine)
    lost = [file for file in card.files if not out.exists(file)]
    if lost:
        raise ValueError(f"{out} has lost {', '.join(lost[:5])}; build it again with --overwrite")
    clean(out, card)
    return card


def write_shards(
    tasks: Sequence[ShardTask], out: Folder, workers: Workers, *, rejected: int = 0, tell: Progress = lambda _: None
) -> list[ShardReport]:
    """Write the shards that are not there yet, all workers at once.

    Args:
        tasks: of a plan.
        out: the shard folder.
        workers: who writes them.
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
    for report in workers.map(partial(write_shard, out=out.uri), left):
        reports.append(report)
        tell(now())
    missing = [report.file for report in reports if not out.exists(report.file)]
    if missing:
        raise ValueError(f"{missing[0]} is not in {out} as seen from here: all machines must see the same folder")
    return reports
