"""The product's own methods, and candidates that were tried beside them, as contestants of the replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.candidates import EveryEpoch, below_median, hopeless_alone
from benchmarks.replay import Contestant, World
from search.methods.known import Known
from search.methods.method import Chooses, Method
from search.methods.names import PRUNERS, Setup
from search.methods.steps import Resume, Start, Stop


@dataclass(frozen=True, kw_only=True)
class Ours:
    """A method by the names of its sampler and its pruner. Called with a world and a seed it makes a contestant."""

    sampler: str
    pruner: str
    grace_epochs: int = 1
    reduction_factor: int = 2
    baselines: bool = True
    """Whether the paper's setting of every encoder is trained first, in full."""

    def __call__(self, world: World, seed: int) -> Contestant:
        """The contestant."""
        known = Known()
        setup = Setup(
            world.space,
            known,
            seed=seed,
            epochs=world.epochs,
            directions=["maximize"],
            grace_epochs=self.grace_epochs,
            reduction_factor=self.reduction_factor,
        )
        pruner = (PRUNERS | CANDIDATES)[self.pruner](setup)
        method = Method(
            world.space,
            known,
            sampler=setup.sampler(self.sampler),
            pruner=pruner,
            seed=seed,
            trials=len(world.cells),
        )
        return _Study(world, known, method, baselines=self.baselines)


CANDIDATES: dict[str, Callable[[Setup], Chooses]] = {
    "median": lambda setup: EveryEpoch(setup.known, below_median, grace_epochs=setup.grace_epochs, epochs=setup.epochs),
    "extrapolation": lambda setup: EveryEpoch(
        setup.known, hopeless_alone(setup.epochs), grace_epochs=setup.grace_epochs, epochs=setup.epochs
    ),
}


class _Study:
    """What an engine does with a method: it tells what happens, and does what the method says."""

    def __init__(self, world: World, known: Known, method: Method, *, baselines: bool) -> None:
        self.world, self.known, self.method = world, known, method
        self._baselines = list(world.space.baselines()) if baselines else []

    def ask(self) -> tuple[int, int] | None:
        """Work for a free slot."""
        number = len(self.known.trials)
        if self._baselines:
            params = self._baselines.pop(0)
            self.known.enter(number, params, until=self.world.epochs, baseline=True)
            return number, self.world.cell(params)
        while (step := self.method.next()) is not None:
            match step:
                case Start(proposal=proposal, until=until):
                    self.known.enter(number, proposal.params, until=until, notes=proposal.notes)
                    return number, self.world.cell(proposal.params)
                case Resume(number=paused, until=until):
                    self.known.resume(paused, until=until)
                    return paused, self.world.cell(self.known.trials[paused].params)
                case Stop(number=paused):
                    self.known.end(paused, "pruned", self.known.trials[paused].last)
        return None

    def tell(self, trial: int, epoch: int, value: float) -> bool:
        """An epoch has ended. At its rung a trial pauses, and its slot asks anew."""
        self.known.report(trial, epoch, (value,))
        if epoch == self.world.epochs:
            self.known.end(trial, "complete", (value,))
        elif epoch == self.known.trials[trial].until:
            self.known.pause(trial)
            return False
        return epoch < self.world.epochs


OURS: dict[str, Ours] = {
    "forecast + freeze": Ours(sampler="forecast", pruner="freeze"),
    "forecast + freeze, no baselines": Ours(sampler="forecast", pruner="freeze", baselines=False),
    "random + freeze": Ours(sampler="random", pruner="freeze"),
    "tpe + freeze": Ours(sampler="tpe", pruner="freeze"),
    "forecast, no pruning": Ours(sampler="forecast", pruner="none"),
    "random, no pruning": Ours(sampler="random", pruner="none"),
    "tpe, no pruning": Ours(sampler="tpe", pruner="none"),
    "gp, no pruning": Ours(sampler="gp", pruner="none"),
    "random + asha": Ours(sampler="random", pruner="asha"),
    "tpe + asha": Ours(sampler="tpe", pruner="asha"),
    "tpe + asha, first rung 4": Ours(sampler="tpe", pruner="asha", grace_epochs=4),
    "tpe + asha by promotion": Ours(sampler="tpe", pruner="promotion"),
    "tpe + hyperband": Ours(sampler="tpe", pruner="hyperband"),
    "tpe + ladder per encoder": Ours(sampler="tpe", pruner="ladder"),
    "tpe + corrected rungs": Ours(sampler="tpe", pruner="corrected", grace_epochs=2),
    "forecast + corrected rungs": Ours(sampler="forecast", pruner="corrected", grace_epochs=2),
    "tpe + median": Ours(sampler="tpe", pruner="median"),
    "tpe + extrapolation": Ours(sampler="tpe", pruner="extrapolation"),
}
"""Every method of ours by name."""
