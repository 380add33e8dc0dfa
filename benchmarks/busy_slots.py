"""How long a search takes on ever more slots, against an ideal list scheduler; and what large studies cost.

    python -m benchmarks.busy_slots                              # 60 trials on 4, 8, 16, 64 slots, simulated time
    python -m benchmarks.busy_slots --trials 10000 --slots 256   # the driver's CPU per trial, memory, resume, load
    python -m benchmarks.busy_slots --ray 8                      # on Ray, slots that sleep in the place of training

The study is the product's own: engine, orders, trial folders (in memory, /dev/shm), log. Only the crew makes up its
epochs: five encoders with their own asymptote, speed and seconds an epoch. The ideal scheduler has the same method and
the same curves and nothing else: a slot that is free begins the next decision at the same moment.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import resource
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cluster.pools import Pool
from cluster.storage import Folder
from search.decisions import lag_of
from search.engine import FINISHED, WAIT, Engine
from search.methods.known import Known
from search.methods.names import Setup
from search.methods.steps import Resume, Start, Stop
from search.orders import Orders
from search.settings.config import StudyConfig
from trainables.config import TrialConfig
from trainables.life import Life
from trainables.order import SESSION, Begun, Command, TrialOrder
from trainables.record import EpochRow, TrialRecord

ENCODERS = ("seresnet50", "inceptionv3", "densenet121", "mobilenet", "vgg19")
DRAW = np.random.default_rng(11)
END = dict(zip(ENCODERS, 0.75 + 0.03 * DRAW.normal(size=5), strict=True))
SPEED = dict(zip(ENCODERS, 3 * np.exp(0.6 * DRAW.normal(size=5)), strict=True))
SECONDS = dict(zip(ENCODERS, np.exp(0.4 * DRAW.normal(size=5)), strict=True))
POOL = Pool(name="cpu", cpus_per_worker=1)


def study(trials: int, *, repeatable: bool = False, sampler: str = "tpe", pruner: str = "asha") -> StudyConfig:
    """The study that is run: 27 epochs, rungs at 3 and 9."""
    return StudyConfig.model_validate(
        {
            "data": {"shards": "none"},
            "space": {
                "encoder": list(ENCODERS),
                "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
                "dice_weight": {"low": 0.0, "high": 1.0},
                "batch_size": [4, 8, 16],
            },
            "budget": {"trials": trials, "epochs": 27},
            "sampler": {"name": sampler},
            "pruner": {"name": pruner, "grace_epochs": 3, "reduction_factor": 3},
            "final": {"top": 0},
            "pools": [POOL.model_dump()],
            "study": {"repeatable": repeatable, "keep_checkpoints": "none"},
        }
    )


def dice(config: TrialConfig, epoch: int) -> float:
    """The best Dice of a configuration up to an epoch."""
    steps, weight = math.log10(config.learning_rate) + 3, config.dice_weight - 0.4
    end = END[config.encoder] - 0.06 * steps**2 - 0.06 * weight**2
    return float(max(0.0, end * (1 - math.exp(-(epoch + 0.3) / SPEED[config.encoder]))))


def seconds(config: TrialConfig) -> float:
    """Seconds of one of its epochs."""
    return float(SECONDS[config.encoder] * (1.2 if config.batch_size == 4 else 1.0))


class MadeUp:
    """A crew that trains nothing.

    Args:
        wait: called with the seconds that an epoch takes.
    """

    name = "made up"

    def __init__(self, wait: Any = lambda seconds: None) -> None:
        self._wait = wait

    def call(self, command: Command, payload: Any = None) -> dict[int, Any]:
        """The answer of the one worker."""
        if command == "begin":
            self._order, self._rows = payload, TrialRecord(Folder(payload.folder)).metrics()
            return {0: Begun(history=self._rows, parameters=1000, precision="fp32", left_gb=0.0)}
        if command != "epoch":
            return {0: None}
        config, epoch = self._order.info.config, len(self._rows) + 1
        self._wait(seconds(config))
        found = dict.fromkeys(EpochRow.model_fields, 0.5) | {"epoch": epoch, "val_dice": dice(config, epoch)}
        self._rows = [*self._rows, EpochRow.model_validate(found)]
        return {0: self._rows[-1]}


@dataclass
class Told:
    """What a search took."""

    time_s: float = 0.0
    """Of the study's clock."""
    busy_s: float = 0.0
    """Of all slots."""
    epochs: int = 0
    driver_s: float = 0.0
    """CPU seconds of the engine."""
    driver_by_trial: dict[int, float] = field(default_factory=dict)
    """Trials begun -> CPU seconds until then."""

    def __str__(self) -> str:
        return f"{self.time_s:8.1f} s, {self.epochs:6d} epochs"


def engine_on(config: StudyConfig, folder: Folder, *, slots: int, resume: bool = False) -> Engine:
    """The product's engine."""
    folder.write_json(SESSION, {"session": (session := uuid.uuid4().hex)})
    orders = Orders(config, folder=folder, shards="none", pool_for=lambda _: POOL, session=session)
    lag = lag_of(slots) if config.study.repeatable else None
    return Engine(config, orders, slots={"cpu": slots}, lag=lag, resume=resume)


def simulated(engine: Engine, *, slots: int) -> Told:
    """Run it on slots whose time is simulated."""
    told, counter = Told(), itertools.count()
    running: list[tuple[float, int, str, Life, float]] = []  # (when its epoch ends, a counter, path, life, seconds)
    while True:
        while len(running) < slots:
            with _counted(told):
                order = engine.next()
            if order is WAIT or order is FINISHED:
                break
            assert isinstance(order, TrialOrder)
            told.driver_by_trial[len(engine.trials)] = told.driver_s
            life = Life(order, MadeUp(), clock=lambda: 0.0)
            _train(running, told.time_s, next(counter), order.info.path, life, order.info.config)
        if not running:
            return told
        told.time_s, _, path, life, took_s = heapq.heappop(running)
        report = life.epoch()
        if report.row is not None and report.row.epoch <= len(engine.trials[int(path[-4:])].curve):
            report = life.epoch()  # the first of a trial that is taken up again: its last one, told once more
        told.busy_s, told.epochs = told.busy_s + took_s, told.epochs + 1
        with _counted(told):
            status = engine.on_report(path, report)
        if status is None:
            _train(running, told.time_s, next(counter), path, life, engine.trials[int(path[-4:])].info.config)


def _train(running: list[Any], now_s: float, count: int, path: str, life: Life, config: TrialConfig) -> None:
    heapq.heappush(running, (now_s + seconds(config), count, path, life, seconds(config)))


@contextmanager
def _counted(told: Told) -> Iterator[None]:
    began = time.process_time()
    yield
    told.driver_s += time.process_time() - began


def ideal(config: StudyConfig, *, slots: int) -> Told:  # noqa: C901 - one loop, to be read as a whole
    """The same method and curves on an ideal asynchronous list scheduler."""
    known, told, counter = Known(), Told(), itertools.count()
    method = Setup.of(config, known).method_of(config)
    method.trials = config.budget.trials
    made: dict[int, TrialConfig] = {}
    running: list[tuple[float, int, int]] = []

    def train(number: int) -> None:
        heapq.heappush(running, (told.time_s + seconds(made[number]), next(counter), number))

    def decide() -> None:
        while len(running) < slots and (step := method.next()) is not None:
            match step:
                case Start(proposal=proposal, until=until):
                    number = known.entered
                    made[number] = config.search_space.to_config(proposal.params)
                    known.enter(number, proposal.params, until=until, baseline=proposal.baseline, notes=proposal.notes)
                    train(number)
                case Resume(number=number, until=until):
                    known.resume(number, until=until)
                    train(number)
                case Stop(number=number):
                    known.end(number, "pruned", known.trials[number].last)

    while True:
        decide()
        if not running:
            return told
        told.time_s, _, number = heapq.heappop(running)
        told.epochs, told.busy_s = told.epochs + 1, told.busy_s + seconds(made[number])
        trial, epoch = known.trials[number], known.trials[number].epoch + 1
        known.report(number, epoch, (dice(made[number], epoch),))
        if epoch == config.budget.epochs:
            known.end(number, "complete", trial.last)
        elif epoch == trial.until:
            known.pause(number)
        else:
            train(number)


@contextmanager
def scratch() -> Iterator[Folder]:
    """A folder in memory, where there is one."""
    root = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="busy-slots-", dir=root) as folder:
        yield Folder(folder)


def table(trials: int, slots: list[int]) -> None:
    """Print the time of the search on ever more slots."""
    for count in slots:
        best = ideal(study(trials), slots=count)
        print(f"{count:4d} slots  ideal {best}", end="", flush=True)
        for repeatable in (False, True):
            with scratch() as folder:
                config = study(trials, repeatable=repeatable)
                told = simulated(engine_on(config, folder, slots=count), slots=count)
            share = told.busy_s / (count * told.time_s)
            print(f" | {'repeatable' if repeatable else 'ours'} {told}, {told.time_s / best.time_s:.3f} times", end="")
            print(f", busy {share:.2f}", end="", flush=True)
        print()


def scale(trials: int, slots: int) -> None:
    """Print what a large study costs its driver."""
    from results.table import load

    with scratch() as folder:
        config = study(trials)
        told = simulated(engine_on(config, folder, slots=slots), slots=slots)
        at = [n for n in (250, 500, 1000, 2000, 5000, trials) if n <= trials]
        costs = {n: (told.driver_by_trial[n] - told.driver_by_trial[n - 200]) / 200 * 1e3 for n in at}
        print(
            f"{trials} trials, {slots} slots: {told}; driver's CPU ms a trial",
            {n: round(c, 1) for n, c in costs.items()},
        )
        began = time.perf_counter()
        engine_on(config, folder, slots=slots, resume=True)
        print(f"resume {time.perf_counter() - began:.1f} s", flush=True)
        began = time.perf_counter()
        load(folder.uri)
        print(f"results.load {time.perf_counter() - began:.1f} s")
    print(f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def on_ray(trials: int, slots: int, *, shorter: float) -> None:
    """Print the busy share on Ray, with slots that sleep, beside that of simulated time."""
    from cluster.session import connect

    from search.study import run_trials

    with scratch() as folder, connect(slots={"cpu": slots}):
        engine, config = engine_on(study(trials), folder, slots=slots), study(trials)
        began: list[float] = []
        engine.listeners.append(lambda event: began.append(time.time()) if event.kind == "epoch" else None)
        run_trials(engine, trainable=sleeping(shorter))
        took_s = time.time() - began[0]
        slept_s = sum(seconds(t.info.config) * shorter * len(t.curve) for t in engine.trials)
    with scratch() as folder:
        told = simulated(engine_on(config, folder, slots=slots), slots=slots)
    there, here = slept_s / (slots * took_s), told.busy_s / (slots * told.time_s)
    print(f"{slots} slots on Ray: busy {there:.3f}; simulated {here:.3f}")


def sleeping(shorter: float) -> Any:
    """A slot of Tune that sleeps in the place of training."""
    from ray import tune

    class Sleeping(tune.Trainable):
        def setup(self, config: Mapping[str, Any]) -> None:
            self.reset_config(dict(config))

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            crew = MadeUp(lambda seconds: time.sleep(seconds * shorter))
            self._life = Life(TrialOrder.model_validate(new_config["order"]), crew)
            return True

        def step(self) -> dict[str, Any]:
            report = self._life.epoch()
            return {"report": report, "done": report.done}

    return Sleeping


def main() -> None:
    """What the command line asks for."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--trials", type=int, default=60)
    ask.add_argument("--slots", type=int, nargs="+", default=[4, 8, 16, 64])
    ask.add_argument("--ray", type=int, default=0, help="slots on Ray, which sleep")
    ask.add_argument("--shorter", type=float, default=1.0, help="on Ray: seconds slept for a second of an epoch")
    args = ask.parse_args()
    if args.ray:
        on_ray(args.trials, args.ray, shorter=args.shorter)
    elif args.trials >= 1000:
        scale(args.trials, args.slots[0])
    else:
        table(args.trials, args.slots)


if __name__ == "__main__":
    main()
