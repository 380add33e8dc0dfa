"""What a trial costs beside its training: stock Ray Tune + Train + OptunaSearch, a bare Tune function, and warm slots.

    python benchmarks/trial_overhead.py                 # all, in one run; about 5 minutes on two idle cores
    python benchmarks/trial_overhead.py --trials 5      # fewer stock trials

Every trial trains the same tiny network for one epoch on 16 random images of 32 px (`TrialSession`); the figure is the
time from one trial's end to the next one's end, less the seconds that training itself took (`train_s` and `val_s` of
its row), as the median over the trials after the first. Building the model and writing the checkpoint count as
overhead, on every side. Absolute times differ from machine to machine: compare the ratios of one run.

Aims: one worker at most 0.02 of stock, two workers at most 0.05, the first start at most 1.2 of a stock start, and at
least 20 recorded trials (no training) a second over 1,000 of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from cluster.session import connect

import numpy as np
import ray.train
import ray.train.torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.search.optuna import OptunaSearch

from cluster.pools import Pool
from cluster.storage import Folder
from search.console import study_log
from search.engine import Engine
from search.orders import Orders
from search.settings.config import StudyConfig
from search.study import run_trials
from trainables.config import TrialConfig
from trainables.on_ray import Slot
from trainables.order import Report
from trainables.record import EpochRow, TrialStatus
from trainables.trial import TrialData, TrialSession

TINY = {"encoder": "tu-mobilenetv3_small_050", "batch_size": 8, "rotation_degrees": 0.0}
IMAGES = 16


class Arrays:
    """Random samples of 32 px."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.images_NHW = rng.integers(0, 255, (IMAGES, 32, 32), dtype=np.uint8)
        self.masks_NHW = (rng.random((IMAGES, 32, 32)) > 0.8).astype(np.uint8)


def train_tiny(config: dict[str, Any]) -> float:
    """Train one epoch; the seconds that training took."""
    trial = TrialConfig(**TINY, epochs=1, learning_rate=config["learning_rate"])
    session = TrialSession(trial, TrialData(train=Arrays(0), val=Arrays(1)))
    row = session.train_epoch()
    session.close()
    return float(row.train_s + row.val_s)


def stock_loop(config: dict[str, Any]) -> None:
    """What a Train worker of the stock structure runs."""
    spent = train_tiny(config)
    with tempfile.TemporaryDirectory() as folder:
        ray.train.report({"spent_s": spent}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def stock_driver(config: dict[str, Any]) -> None:
    """The documented structure: a Tune function that runs a TorchTrainer."""
    name = f"train-{tune.get_context().get_trial_id()}"
    ray.train.torch.TorchTrainer(
        stock_loop,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(name=name, storage_path=config["storage"], callbacks=[TuneReportCallback()]),
    ).fit()


def bare_function(config: dict[str, Any]) -> None:
    """A Tune function that trains in its own process."""
    tune.report({"spent_s": train_tiny(config)})


class Ends(tune.Callback):
    """Notes when each trial ended and how long it trained."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Add a line to the file."""
        spent = (trial.last_result or {}).get("spent_s", 0.0)
        with self.path.open("a") as file:
            file.write(f"{time.time()} {spent}\n")


def run_stock(function: Any, *, trials: int, resources: dict[str, float]) -> tuple[float, list[float]]:
    """Seconds to the first end, and the overhead of each later trial, of a stock Tune run."""
    with tempfile.TemporaryDirectory() as scratch:
        ends = Path(scratch) / "ends.txt"
        began = time.time()
        tune.Tuner(
            tune.with_resources(function, resources),
            param_space={"learning_rate": tune.loguniform(1e-4, 1e-2), "storage": scratch},
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(seed=0),
                metric="spent_s",
                mode="min",
                num_samples=trials,
                max_concurrent_trials=1,
            ),
            run_config=tune.RunConfig(name="stock", storage_path=scratch, verbose=0, callbacks=[Ends(ends)]),
        ).fit()
        rows = [tuple(map(float, line.split())) for line in ends.read_text().splitlines()]
    return _cycles(began, rows)


def run_ours(pool: Pool, *, trials: int, shards: str) -> tuple[float, list[float]]:
    """The same of our engine on one slot of `pool`."""
    engine = _engine(pool, trials=trials, shards=shards)
    rows: list[tuple[float, float]] = []
    tell = engine.on_report

    def on_report(name: str, report: Report) -> TrialStatus | None:
        status = tell(name, report)
        assert status is not None and status.status == "complete", status
        rows.append((time.time(), sum(r.train_s + r.val_s for r in engine.record(name).metrics())))
        return status

    engine.on_report = on_report  # type: ignore[method-assign]
    began = time.time()
    with study_log(None, to_terminal=False):
        run_trials(engine, trainable=Slot)
    return _cycles(began, rows)


class Recorded(tune.Trainable):
    """A slot that trains nothing: what is left is Tune's and the engine's bookkeeping."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first trial."""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        self._order, self._epoch = new_config["order"], 0
        return True

    def step(self) -> dict[str, Any]:
        """A row that depends on the configuration alone."""
        self._epoch += 1
        rate = self._order["info"]["config"]["learning_rate"]
        row = EpochRow.model_validate({**dict.fromkeys(EpochRow.model_fields, rate), "epoch": self._epoch})
        return {"report": Report(row=row, done=True), "done": True}


def recorded_per_second(trials: int) -> float:
    """Trials a second when nothing is trained."""
    engine = _engine(Pool(name="cpu", cpus_per_worker=1), trials=trials, shards="none")
    with study_log(None, to_terminal=False):
        began = time.time()
        run_trials(engine, trainable=Recorded)
        return trials / (time.time() - began)


def _engine(pool: Pool, *, trials: int, shards: str) -> Engine:
    config = StudyConfig.model_validate(
        {
            "data": {"shards": shards},
            "space": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
            "fixed": TINY,
            "baselines": False,
            "budget": {"trials": trials, "epochs": 1},
            "final": {"top": 0},
            "pools": [pool.model_dump()],
            "study": {"keep_checkpoints": "none"},
        }
    )
    folder = Path(tempfile.mkdtemp(prefix="overhead-")) / "study"
    folder.mkdir()
    orders = Orders(config, folder=Folder(folder), shards=shards, pool_for=lambda _: pool)
    return Engine(config, orders, slots={"cpu": 1})


def _cycles(began: float, rows: list[tuple[float, ...]]) -> tuple[float, list[float]]:
    first = rows[0][0] - began - rows[0][1]
    return first, [after[0] - before[0] - after[1] for before, after in pairwise(rows)]


def tiny_shards(folder: Path) -> str:
    """A shard folder of the phantom source, as small as it can be."""
    from data_prep.build import build
    from data_prep.schema import BuildSettings, PhantomSettings

    settings = BuildSettings(
        phantom=PhantomSettings(patients=8, rows=128), field_of_view="lesion", size_px=32, samples_per_shard=8
    )
    build(settings, Folder(folder))
    return str(folder)


def main() -> None:
    """Run all and print the ratios."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--trials", type=int, default=5, help="stock trials; ours are five times as many")
    ask.add_argument("--recorded", type=int, default=1000, help="trials of the bookkeeping part; 0 leaves it out")
    args = ask.parse_args()
    one, two = Pool(name="cpu", cpus_per_worker=1), Pool(name="cpu2", workers=2, cpus_per_worker=1)
    figures: dict[str, tuple[float, list[float]]] = {}
    with connect(slots={"cpu": 1}), tempfile.TemporaryDirectory() as scratch:
        shards = tiny_shards(Path(scratch) / "shards")
        figures["bare Tune function"] = run_stock(bare_function, trials=args.trials, resources={"CPU": 1})
        figures["stock Tune + Train"] = run_stock(stock_driver, trials=args.trials, resources={"slot_cpu": 1})
        figures["ours, one worker"] = run_ours(one, trials=5 * args.trials, shards=shards)
    with connect(slots={"cpu2": 1}), tempfile.TemporaryDirectory() as scratch:
        shards = tiny_shards(Path(scratch) / "shards")
        figures["ours, two workers"] = run_ours(two, trials=5 * args.trials, shards=shards)
    start, stock = figures["stock Tune + Train"][0], statistics.median(figures["stock Tune + Train"][1])
    print(f"{'':22}{'first start':>12}{'of stock':>10}{'each later':>12}{'of stock':>10}")
    for name, (first, later) in figures.items():
        median = statistics.median(later)
        print(f"{name:22}{first:10.2f} s{first / start:10.2f}{median:10.3f} s{median / stock:10.4f}")
    if args.recorded:
        with connect(slots={"cpu": 1}):
            print(f"recorded trials, no training: {recorded_per_second(args.recorded):.1f} a second")


if __name__ == "__main__":
    main()
