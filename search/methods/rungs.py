"""Successive halving: trials are compared at rungs, and the best 1/eta go on.

    asha         Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, in the stopping
                 variant: a trial at a rung goes on at once if it is among the best 1/eta there, else it ends
    promotion    algorithm 2 as printed: each trial pauses at its rung, and the best 1/eta are taken up again whenever
                 enough others have reached it
    hyperband    Li et al., JMLR 2018: brackets whose first rungs lie ever higher, each compared within itself
    ladder       the stopping variant with a ladder for each encoder, so that slow encoders meet slow ones
    corrected    the stopping variant on a trial's value plus what complete trials of its encoder still gained from that
                 rung on

With several objectives a trial's rank is the number of others that dominate it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from search.methods.known import Known, Seen, Values
from search.methods.steps import Propose, Resume, Start, Step, Stop

Direction = Literal["maximize", "minimize"]


def rung_epochs(*, grace_epochs: int, reduction_factor: int, epochs: int) -> tuple[int, ...]:
    """The epochs at which trials are compared: grace, grace * eta, ... below the full budget.

    >>> rung_epochs(grace_epochs=1, reduction_factor=3, epochs=20)
    (1, 3, 9)
    """
    rungs = []
    at = grace_epochs
    while at < epochs:
        rungs.append(at)
        at *= reduction_factor
    return tuple(rungs)


class Halving:
    """Successive halving over rungs.

    Args:
        rungs: ascending epochs below `epochs`; none: every trial trains in full.
        epochs: the full budget.
        reduction_factor: eta, at least 2.
        directions: one per objective.
        promotes: whether trials pause at rungs (algorithm 2 as printed) instead of being stopped there.
        by_encoder: whether trials are compared with those of their encoder alone.
        corrected: whether what the encoder's complete trials gained after a rung is added.
        brackets: how many; bracket s lacks the first s rungs.
    """

    def __init__(
        self,
        rungs: Sequence[int],
        *,
        epochs: int,
        reduction_factor: int,
        directions: Sequence[Direction],
        promotes: bool = False,
        by_encoder: bool = False,
        corrected: bool = False,
        brackets: int = 1,
    ) -> None:
        self.rungs, self.epochs, self.reduction_factor = tuple(rungs), epochs, reduction_factor
        self.signs = [1.0 if direction == "maximize" else -1.0 for direction in directions]
        self.promotes, self.by_encoder, self.corrected = promotes, by_encoder, corrected
        self.cycle = [s for s in range(brackets) for _ in range(_share(s, brackets, reduction_factor))]

    def choose(self, known: Known, propose: Propose) -> Step | None:
        """What a free slot does: go on with a trial that has passed its rung, stop one that has not, or start one."""
        step = self._promotion(known) if self.promotes else self._verdict(known)
        if step is not None:
            return step
        number = len(known.trials)
        if (proposal := propose()) is not None:
            return Start(proposal=proposal, until=self._next_rung(number, 0))
        return self._leftover(known)

    def _leftover(self, known: Known) -> Stop | None:
        """Once nothing new may begin and nothing runs that could change it: a paused trial that was not promoted."""
        paused = known.paused()
        if not paused or len(paused) < len(known.open):
            return None
        return Stop(number=paused[0].number, reason=self._reason(paused[0]))

    def _verdict(self, known: Known) -> Step | None:
        """The first paused trial, by number: stopped, or sent on to its next rung."""
        for trial in known.paused():
            if not trial.baseline and self._rank(known, trial) is not None:
                return Stop(number=trial.number, reason=self._reason(trial))
            return Resume(number=trial.number, until=self._next_rung(trial.number, trial.epoch))
        return None

    def _promotion(self, known: Known) -> Step | None:
        """The paused trial at the highest rung that is among the best 1/eta there; baselines always go on."""
        for trial in sorted(known.paused(), key=lambda t: (not t.baseline, -t.epoch, t.number)):
            if trial.baseline or self._is_promotable(known, trial):
                return Resume(number=trial.number, until=self._next_rung(trial.number, trial.epoch))
        return None

    def _is_promotable(self, known: Known, trial: Seen) -> bool:
        others = self._others(known, trial)
        better = sum(self._better(values, self._score(known, trial, trial.epoch)) for values in others)
        return better < (len(others) + 1) // self.reduction_factor

    def _rank(self, known: Known, trial: Seen) -> int | None:
        """How many at the rung are better, if these are too many to go on; else None."""
        others = self._others(known, trial)
        size = len(others) + 1
        if size < self.reduction_factor:  # too few to tell a best 1/eta
            return None
        own = self._score(known, trial, trial.epoch)
        better = sum(self._better(values, own) for values in others)
        return better if better >= max(1, math.floor(size / self.reduction_factor)) else None

    def _others(self, known: Known, trial: Seen) -> list[Values]:
        """The scores of those that a trial is compared with at its epoch."""
        return [
            self._score(known, other, trial.epoch)
            for other, _ in known.at(trial.epoch)
            if other.number != trial.number
            and self._bracket(other.number) == self._bracket(trial.number)
            and (not self.by_encoder or _encoder(other) == _encoder(trial))
        ]

    def _score(self, known: Known, trial: Seen, epoch: int) -> Values:
        values = trial.values[epoch]
        if not self.corrected:
            return values
        gains = [
            tuple(b - a for a, b in zip(t.values[epoch], t.final, strict=True))
            for t in known
            if t.state == "complete" and t.final is not None and _encoder(t) == _encoder(trial) and epoch in t.values
        ]
        if not gains:
            return values
        return tuple(v + sum(g[i] for g in gains) / len(gains) for i, v in enumerate(values))

    def _better(self, first: Values, second: Values) -> bool:
        """Whether `first` is better than `second`; with several objectives, whether it dominates it."""
        gains = [sign * (a - b) for sign, a, b in zip(self.signs, first, second, strict=True)]
        return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)

    def _reason(self, trial: Seen) -> str:
        return f"not among the best 1/{self.reduction_factor} after {trial.epoch} epochs"

    def _bracket(self, number: int) -> int:
        return self.cycle[number % len(self.cycle)]

    def _next_rung(self, number: int, epoch: int) -> int:
        return next((rung for rung in self.rungs[self._bracket(number) :] if rung > epoch), self.epochs)


def _share(bracket: int, brackets: int, eta: int) -> int:
    """How many of a round's trials a bracket gets: as Hyperband's, so that brackets cost about the same."""
    return math.ceil(brackets / (brackets - bracket) * eta ** (brackets - 1 - bracket))


def _encoder(trial: Seen) -> object:
    return trial.params.get("encoder")
