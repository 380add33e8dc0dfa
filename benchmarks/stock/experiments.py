"""A small experiment on plain Ray Tune with OptunaSearch and ASHA, used as documented; and its driver killed.

    python -m benchmarks.stock.experiments FOLDER [ended=5]

No trial trains: a trainable makes up the learning curve of its configuration and writes each epoch into a diary, so
that what Tune says of a trial can be held against what happened.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.session import connect

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

EPOCHS = 4
DIARY = "diary.jsonl"


@dataclass(frozen=True)
class Experiment:
    """What is asked for: a space, a number of trials, one or two objectives; one trial at a time."""

    space: dict[str, Any]
    """Axis -> list of choices, or (low, high)."""
    trials: int
    objectives: tuple[str, ...] = ("val_dice",)
    poisoned_above: float = math.inf
    """Trials with a higher learning rate report NaN."""


@dataclass(frozen=True)
class Outcome:
    """What is left of an experiment."""

    trials: list[FrozenTrial]
    """As Optuna has them."""
    diary: list[tuple[str, int]]
    """(configuration as text, epoch) for every epoch that was run."""

    def epochs_of(self, trial: FrozenTrial) -> int:
        """Epochs that the trial's configuration was run."""
        return Counter(key for key, _ in self.diary)[key_of(trial.params)]

    def runs(self) -> Counter[str]:
        """How often each configuration was begun."""
        return Counter(key for key, epoch in self.diary if epoch == 1)


def key_of(params: dict[str, Any]) -> str:
    """A configuration as text."""
    return json.dumps({name: params[name] for name in sorted(params)})


def curve_row(params: dict[str, Any], epoch: int, poisoned_above: float) -> dict[str, Any]:
    """The made-up measures of an epoch."""
    full = {"learning_rate": 1e-3, "dice_weight": 0.4, **params}
    gap = abs(math.log10(full["learning_rate"]) + 3) / 3 + 0.2 * abs(full["dice_weight"] - 0.3)
    value = 1 / (1 + gap) * (1 - 0.6**epoch) * (0.5 if epoch % 4 == 0 else 1)  # the last epoch is not the best
    # The loss prefers another learning rate than Dice does, so that two objectives are at odds.
    loss = abs(math.log10(full["learning_rate"]) + 1.5) + 1 / epoch
    row = {"epoch": epoch, "val_dice": value, "val_loss": loss}
    return {**row, **({"val_dice": math.nan} if full["learning_rate"] > poisoned_above else {})}


def write_diary(folder: Path, params: dict[str, Any], epoch: int) -> None:
    with (folder / DIARY).open("a") as diary:
        diary.write(json.dumps([key_of(params), epoch]) + "\n")


def read_diary(folder: Path) -> list[tuple[str, int]]:
    return [(key, epoch) for key, epoch in map(json.loads, (folder / DIARY).read_text().splitlines())]


class StockTrial(tune.Trainable):
    """A trial as Tune has it: the configuration is the axes' values."""

    def setup(self, config: dict[str, Any], *, folder: str, poisoned_above: float, epoch_s: float = 0.0) -> None:
        self._folder, self._poisoned_above, self._epoch_s = Path(folder), poisoned_above, epoch_s
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._params, self._epoch = new_config, 0
        return True

    def step(self) -> dict[str, Any]:
        time.sleep(self._epoch_s)
        self._epoch += 1
        write_diary(self._folder, self._params, self._epoch)
        row = curve_row(self._params, self._epoch, self._poisoned_above)
        return {**row, "done": self._epoch >= EPOCHS}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "state.json").write_text(json.dumps([self._params, self._epoch]))

    def load_checkpoint(self, checkpoint: str) -> None:
        self._params, self._epoch = json.loads((Path(checkpoint) / "state.json").read_text())


def run_stock(experiment: Experiment, folder: Path, *, storage: Path | None = None) -> Outcome:
    """The experiment on plain Ray Tune, with OptunaSearch and ASHA as their documentation has them."""
    folder.mkdir(parents=True, exist_ok=True)
    journal = storage or folder / "optuna.journal"
    results = stock_tuner(experiment, folder, open_journal(journal)).fit()
    if results.errors:  # a trial that Tune could not run shows nothing of the engine
        raise RuntimeError(results.errors[0])
    return Outcome(stock_study(journal).trials, read_diary(folder))


def open_journal(file: Path) -> JournalStorage:
    """Optuna's storage in a file."""
    return JournalStorage(JournalFileBackend(str(file)))


def stock_study(journal: Path) -> optuna.Study:
    """The study under the name that OptunaSearch gives it."""
    return optuna.load_study(study_name="optuna", storage=open_journal(journal))


def stock_tuner(
    experiment: Experiment,
    folder: Path,
    storage: Any,
    *,
    epoch_s: float = 0.0,
    scheduler: type[ASHAScheduler] = ASHAScheduler,
    callbacks: list[tune.Callback] | None = None,
) -> tune.Tuner:
    """Tune, set up for the experiment."""
    metric: Any = list(experiment.objectives) if len(experiment.objectives) > 1 else experiment.objectives[0]
    modes = ["min" if name == "val_loss" else "max" for name in experiment.objectives]
    searcher = OptunaSearch(
        space={name: _distribution(axis) for name, axis in experiment.space.items()},
        metric=metric,
        mode=modes if len(modes) > 1 else modes[0],
        seed=0,
        storage=storage,
    )
    asha = scheduler(
        time_attr="epoch", metric=experiment.objectives[0], mode=modes[0], max_t=EPOCHS, reduction_factor=2
    )
    fixed = {"folder": str(folder), "poisoned_above": experiment.poisoned_above, "epoch_s": epoch_s}
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(StockTrial, **fixed), {"CPU": 1}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=asha,
            num_samples=experiment.trials,
            max_concurrent_trials=1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0, callbacks=callbacks),
    )


def _distribution(axis: Any) -> optuna.distributions.BaseDistribution:
    if isinstance(axis, list):
        return optuna.distributions.CategoricalDistribution(axis)
    return optuna.distributions.FloatDistribution(*axis, log=True)


# -- experiments whose driver is killed, each in a process of its own -------------------------------------------------

LONG = Experiment(space={"learning_rate": (1e-5, 1e-1)}, trials=8)
RUNGS_BEFORE, RUNGS_AFTER = "rungs_before.json", "rungs_after.json"


def run_killed(folder: Path, ended: int | None = None) -> None:
    """Begin `LONG` in `folder`, SIGKILL to this very process once `ended` trials have ended; or, if None, restore it.

    At the start of a restore, before the first result counts, and before the kill the pruner's rungs are written down:
    epoch -> the values that are recorded there, sorted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with connect(cpus=1):
        _run_killed(folder, ended)


class NotingASHA(ASHAScheduler):
    """ASHA that writes its rungs down before the first result counts."""

    noted: Path | None = None

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if self.noted is not None:
            _write(self.noted, self.rungs())
            self.noted = None
        return super().on_trial_result(tune_controller, trial, result)

    def rungs(self) -> dict[int, list[float]]:
        return {int(rung[0]): sorted(rung[1].values()) for rung in self._brackets[0]._rungs}


class KillAfter(tune.Callback):
    """SIGKILL to the driver once so many trials have ended."""

    def __init__(self, ended: int, folder: Path) -> None:
        self._left, self._folder = ended, folder
        self.scheduler: NotingASHA | None = None

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._left -= 1
        if self._left == 0:
            assert SCHEDULERS
            _die(self._folder, SCHEDULERS[-1].rungs())


SCHEDULERS: list[NotingASHA] = []
"""Tune copies a scheduler when it takes it; the one that is asked is the one that counts."""


class ListedASHA(NotingASHA):
    """Enters itself in `SCHEDULERS` when it is first asked."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if self not in SCHEDULERS:
            SCHEDULERS.append(self)
        super().on_trial_add(tune_controller, trial)


def _run_killed(folder: Path, ended: int | None) -> None:
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1"  # as often as can be, to be fair
    if ended is not None:
        callbacks: list[tune.Callback] = [KillAfter(ended, folder)]
        storage = open_journal(folder / "optuna.journal")
        stock_tuner(LONG, folder, storage, epoch_s=0.7, scheduler=ListedASHA, callbacks=callbacks).fit()
        return
    fixed = {"folder": str(folder), "poisoned_above": math.inf, "epoch_s": 0.7}
    NotingASHA.noted = folder / RUNGS_AFTER
    trainable = tune.with_resources(tune.with_parameters(StockTrial, **fixed), {"CPU": 1})
    tune.Tuner.restore(str(folder / "tune"), trainable, resume_errored=True).fit()


def _die(folder: Path, rungs: dict[int, list[float]]) -> None:
    _write(folder / RUNGS_BEFORE, rungs)
    os.kill(os.getpid(), 9)


def _write(file: Path, rungs: dict[int, list[float]]) -> None:
    file.write_text(json.dumps(rungs))


def read_rungs(file: Path) -> dict[int, list[float]]:
    return {int(epoch): values for epoch, values in json.loads(file.read_text()).items() if values}


if __name__ == "__main__":
    from benchmarks.stock import experiments  # so that Ray's workers find the classes under their real name

    experiments.run_killed(Path(sys.argv[1]), *(int(word.removeprefix("ended=")) for word in sys.argv[2:]))
