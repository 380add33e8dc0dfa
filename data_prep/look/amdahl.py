"""What more workers bring to a build, and what Amdahl's law says of it (the paper's equation 1).

    python -m data_prep.run amdahl --source cbis_ddsm --root /data/cbis --max-workers 8

The law: with a share p of the work parallel, N workers are 1 / ((1 - p) + p / N) times as fast as one. The paper takes
p = 0.85 and N = 4 and speaks of a gain of 392 %; the law gives 2.76.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.session import connect, machine_cpus

from data_prep.build import BuildProgress, Progress, build
from data_prep.on_ray import RayWorkers
from data_prep.schema import BuildSettings

PAPER_SHARE = 0.85
PAPER_WORKERS = 4


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One build with a number of workers."""

    workers: int
    seconds: float
    """From finding the samples to the card, without the start of Ray."""
    images_per_s: float


def amdahl(share: float, workers: int) -> float:
    """The speed-up of `workers` over one, by the paper's equation 1.

    Args:
        share: the parallel share p of the work, 0 to 1.
        workers: their number N.
    """
    return 1 / ((1 - share) + share / workers)


def fit_share(seconds: Mapping[int, float]) -> float:
    """The parallel share p that fits measured times best, by least squares.

    With T(N) the time of N workers, the law reads 1 - T(N) / T(1) = p (1 - 1 / N): a line through the origin.

    Args:
        seconds: number of workers -> time; 1 and at least one other must be there.

    Returns:
        p, cut to 0 to 1.

    Raises:
        ValueError: a time is missing.
    """
    if 1 not in seconds or len(seconds) < 2:
        raise ValueError(f"measured with {sorted(seconds)} workers; the fit needs 1 and at least one more")
    points = [(1 - 1 / workers, 1 - taken / seconds[1]) for workers, taken in seconds.items() if workers > 1]
    share = sum(x * y for x, y in points) / sum(x * x for x, _ in points)
    return min(max(share, 0.0), 1.0)


def measure(
    settings: BuildSettings, worker_counts: Sequence[int], *, progress: Progress | None = None
) -> list[Measured]:
    """Build the same shards once for each number of workers, in a scratch folder.

    Each build starts Ray with as many cores as workers and warms them up; only the build itself is timed. The source's
    index is made beforehand, so that all builds find it.

    Raises:
        ValueError: more workers than this machine has cores, or the settings cannot be built.
    """
    most = max(worker_counts)
    if most > machine_cpus():
        raise ValueError(f"{most} workers asked for, this machine has {machine_cpus()} cores; give --max-workers")
    measured = []
    with tempfile.TemporaryDirectory() as scratch:
        located = settings.model_copy(update={"root": settings.root or f"{scratch}/films"})
        _touch(located, scratch)
        for workers in worker_counts:
            measured.append(_measure_one(located, f"{scratch}/shards-{workers}", workers, progress))
    return measured


def worker_counts(most: int | None) -> list[int]:
    """1, 2, 4, ... up to `most` (by default the cores of this machine), and `most` itself."""
    most = most or machine_cpus()
    return sorted({1, most, *(2**k for k in range(most.bit_length()) if 2**k <= most)})


def to_text(measured: Sequence[Measured]) -> str:
    """The measurement as a table, with the fitted law beside it."""
    share = fit_share({m.workers: m.seconds for m in measured})
    alone = next(m.seconds for m in measured if m.workers == 1)
    limit = f"{1 / (1 - share):.1f}" if share < 1 else "none"
    papers = amdahl(PAPER_SHARE, PAPER_WORKERS)
    lines = ["workers   images/s   time, s   gain   the law's"]
    for m in measured:
        gains = f"{alone / m.seconds:6.2f} {amdahl(share, m.workers):11.2f}"
        lines.append(f"{m.workers:7d} {m.images_per_s:10.1f} {m.seconds:9.2f} {gains}")
    lines.append(f"parallel share p = {share:.3f} (least squares); the law's limit for many workers: {limit}")
    lines.append(f"the paper's p = {PAPER_SHARE} and N = {PAPER_WORKERS} give {papers:.2f}, not 3.92")
    return "\n".join(lines)


def _touch(settings: BuildSettings, scratch: str) -> None:
    """Make the source (phantoms) and its index, and bring its files into the page cache."""
    build(settings, f"{scratch}/first")


def _measure_one(settings: BuildSettings, out: str, workers: int, progress: Progress | None) -> Measured:
    tell = progress or (lambda _: None)
    last = BuildProgress(stage="find")

    def keep(state: BuildProgress) -> None:
        nonlocal last
        last = state if state.total else last
        tell(state)

    with connect(cpus=workers, object_store_gb=0.25, dashboard=False):
        ray_workers = RayWorkers(workers)
        ray_workers.warm_up(workers)
        begun = time.perf_counter()
        build(settings, out, workers=ray_workers, progress=keep)
        seconds = time.perf_counter() - begun
    return Measured(workers=workers, seconds=seconds, images_per_s=last.done / seconds)
