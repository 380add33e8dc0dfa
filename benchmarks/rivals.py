"""Stock ways of searching, as contestants of the replay: Optuna, Ray Tune and Syne Tune, each through its own objects.

They are used as their users do: the space as lists of choices, no baselines, and a configuration that is proposed
twice is trained twice, for none of them remembers. Ray is not started: its scheduler and searcher are driven by hand.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from benchmarks.replay import Contestant, World

Rival = Callable[[World, int], Contestant]
"""Makes a contestant for a world and a seed."""


class OptunaRival:
    """A sampler and a pruner of Optuna in an ordinary study."""

    def __init__(self, world: World, sampler: BaseSampler, pruner: BasePruner) -> None:
        self.world = world
        self.study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        self.space = {name: CategoricalDistribution(axis.choices) for name, axis in world.space.axes.items()}
        self.trials: list[optuna.Trial] = []

    def ask(self) -> tuple[int, int] | None:
        """Always a new trial."""
        self.trials.append(self.study.ask(self.space))
        return len(self.trials) - 1, self.world.cell(self.trials[-1].params)

    def tell(self, trial: int, epoch: int, value: float) -> bool:
        """Reported as it is trained; pruned where Optuna says so."""
        asked = self.trials[trial]
        asked.report(value, epoch)
        if epoch == self.world.epochs:
            self.study.tell(asked, value)
        elif asked.should_prune():
            self.study.tell(asked, state=TrialState.PRUNED)
            return False
        return epoch < self.world.epochs


class RayRival:
    """Ray Tune's ASHAScheduler with its OptunaSearch, as Tune's controller calls them."""

    def __init__(self, world: World, seed: int, *, grace_period: int, reduction_factor: int) -> None:
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        self.world, self.configs = world, []  # type: ignore[var-annotated]
        named = {"metric": "val_dice", "mode": "max"}
        space = {name: CategoricalDistribution(axis.choices) for name, axis in world.space.axes.items()}
        self.searcher = OptunaSearch(space, seed=seed, **named)
        self.scheduler = ASHAScheduler(
            time_attr="epoch", max_t=world.epochs, grace_period=grace_period, reduction_factor=reduction_factor, **named
        )

    def ask(self) -> tuple[int, int] | None:
        """Always a new trial."""
        number = len(self.configs)
        self.configs.append(self.searcher.suggest(str(number)))
        self.scheduler.on_trial_add(None, SimpleNamespace(trial_id=str(number)))
        return number, self.world.cell(self.configs[number])

    def tell(self, trial: int, epoch: int, value: float) -> bool:
        """The searcher hears of every result, the scheduler decides."""
        result = {"epoch": epoch, "training_iteration": epoch, "val_dice": value}
        if epoch < self.world.epochs:
            self.searcher.on_trial_result(str(trial), result)
            if self.scheduler.on_trial_result(None, SimpleNamespace(trial_id=str(trial)), result) != "STOP":
                return True
        self.searcher.on_trial_complete(str(trial), result)
        return False


class SyneRival:
    """Syne Tune's BOHB: asynchronous successive halving with kernel densities for each rung."""

    def __init__(self, world: World, seed: int) -> None:
        from syne_tune.backend.trial_status import Trial
        from syne_tune.config_space import choice
        from syne_tune.optimizer.baselines import BOHB

        np.random.seed(seed)  # its brackets are drawn from NumPy's own state
        self.world, self.trials, self._trial = world, [], Trial  # type: ignore[var-annotated]
        space = {name: choice(list(axis.choices or ())) for name, axis in world.space.axes.items()}
        self.scheduler = BOHB(
            space, metric="val_dice", time_attr="epoch", max_t=world.epochs, do_minimize=False, random_seed=seed
        )

    def ask(self) -> tuple[int, int] | None:
        """Always a new trial."""
        config = self.scheduler.suggest().config
        trial = self._trial(trial_id=len(self.trials), config=config, creation_time=datetime(2000, 1, 1))
        self.trials.append(trial)
        self.scheduler.on_trial_add(trial)
        return trial.trial_id, self.world.cell(config)

    def tell(self, trial: int, epoch: int, value: float) -> bool:
        """The scheduler decides."""
        result = {"epoch": epoch, "val_dice": value}
        if epoch == self.world.epochs:
            self.scheduler.on_trial_complete(self.trials[trial], result)
            return False
        return str(self.scheduler.on_trial_result(self.trials[trial], result)) != "STOP"


class Oracle:
    """Knows the winner, and tries it first: what no method can go below."""

    def __init__(self, world: World) -> None:
        order = [world.winner, *(i for i in range(len(world.cells)) if i != world.winner)]
        self.left = list(enumerate(order))

    def ask(self) -> tuple[int, int] | None:
        """The winner, then the rest."""
        return self.left.pop(0) if self.left else None

    def tell(self, trial: int, epoch: int, value: float) -> bool:
        """Every trial trains in full."""
        return True


def _optuna(sampler: Callable[[int], BaseSampler], pruner: Callable[[World], BasePruner]) -> Rival:
    return lambda world, seed: OptunaRival(world, sampler(seed), pruner(world))


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(seed=seed)


RIVALS: dict[str, Rival] = {
    "oracle": lambda world, seed: Oracle(world),
    "random (Optuna)": _optuna(lambda seed: RandomSampler(seed=seed), lambda _: NopPruner()),
    "TPE (Optuna)": _optuna(_tpe, lambda _: NopPruner()),
    "GP (Optuna)": _optuna(lambda seed: GPSampler(seed=seed, warn_independent_sampling=False), lambda _: NopPruner()),
    "TPE + Hyperband (Optuna)": _optuna(_tpe, lambda world: HyperbandPruner(max_resource=world.epochs)),
    "TPE + successive halving (Optuna)": _optuna(_tpe, lambda _: SuccessiveHalvingPruner()),
    "TPE + median (Optuna)": _optuna(_tpe, lambda _: MedianPruner()),
    "OptunaSearch + ASHA (Ray)": lambda world, seed: RayRival(world, seed, grace_period=1, reduction_factor=4),
    "OptunaSearch + ASHA, rungs 2 4 8 (Ray)": lambda world, seed: RayRival(
        world, seed, grace_period=2, reduction_factor=2
    ),
    "BOHB (Syne Tune)": SyneRival,
}
"""Every rival by name; the last word names whose it is."""


def quiet() -> None:
    """Let the rivals keep their remarks to themselves."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", module="optuna|ray|syne_tune")
