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

import bisect
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Ladder:
    """Where trials pause on their way to the full budget."""

    rungs: tuple[int, ...]
    """Ascending epochs below `epochs`; none: every trial trains in full at once."""
    epochs: int
    """The full budget."""

    @classmethod
    def of(cls, *, grace_epochs: int, reduction_factor: int, epochs: int) -> Ladder:
        """Rungs at grace, grace * eta, ..."""
        rungs = rung_epochs(grace_epochs=grace_epochs, reduction_factor=reduction_factor, epochs=epochs)
        return cls(rungs, epochs)

    def after(self, epoch: int, *, skipped: int = 0) -> int:
        """The next rung above an epoch, without the first `skipped`; the full budget above the last."""
        return next((rung for rung in self.rungs[skipped:] if rung > epoch), self.epochs)


class Halving:
    """Successive halving over the rungs of a ladder.

    Args:
        known: the trials; told on by others.
        ladder: the rungs.
        reduction_factor: eta, at least 2.
        directions: one per objective.
        promotes: whether trials pause at rungs (algorithm 2 as printed) instead of being stopped there.
        by_encoder: whether trials are compared with those of their encoder alone.
        corrected: whether what the encoder's complete trials gained after a rung is added.
        brackets: how many; bracket s lacks the first s rungs.
    """

    def __init__(
        self,
        known: Known,
        ladder: Ladder,
        *,
        reduction_factor: int,
        directions: Sequence[Direction],
        promotes: bool = False,
        by_encoder: bool = False,
        corrected: bool = False,
        brackets: int = 1,
    ) -> None:
        self.known, self.ladder = known, ladder
        self.reduction_factor = reduction_factor
        self.signs = [1.0 if direction == "maximize" else -1.0 for direction in directions]
        self.promotes, self.by_encoder, self.corrected = promotes, by_encoder, corrected
        self._memory: dict[int, tuple[int, defaultdict[object, list[float]]]] = {}
        self.cycle = [s for s in range(brackets) for _ in range(_share(s, brackets, reduction_factor))]

    def choose(self, propose: Propose) -> Step | None:
        """What a free slot does: go on with a trial that has passed its rung, stop one that has not, or start one."""
        step = self._promotion() if self.promotes else self._verdict()
        if step is not None:
            return step
        if (proposal := propose()) is not None:
            return Start(proposal=proposal, until=self._next_rung(self.known.entered, 0))
        return self._leftover()

    def _leftover(self) -> Stop | None:
        """Once nothing new may begin and nothing runs that could change it: a paused trial that was not promoted."""
        paused = self.known.paused()
        if not paused or len(paused) < len(self.known.open):
            return None
        return Stop(number=paused[0].number, reason=self._reason(paused[0]))

    def _verdict(self) -> Step | None:
        """The first paused trial, by number: stopped, or sent on to its next rung."""
        for trial in self.known.paused():
            better, size = self._ahead(trial)
            enough = size >= self.reduction_factor  # else too few to tell a best 1/eta
            if enough and better >= max(1, size // self.reduction_factor) and not trial.baseline:
                return Stop(number=trial.number, reason=self._reason(trial))
            return self._resume(trial)
        return None

    def _promotion(self) -> Step | None:
        """The paused trial at the highest rung that is among the best 1/eta there; baselines always go on."""
        for trial in sorted(self.known.paused(), key=lambda t: (not t.baseline, -t.epoch, t.number)):
            better, size = self._ahead(trial)
            if trial.baseline or better < size // self.reduction_factor:
                return self._resume(trial)
        return None

    def _ahead(self, trial: Seen) -> tuple[int, int]:
        """How many at its rung are better than a trial, and how many are there, itself included."""
        if self.corrected or len(self.signs) > 1:
            own = self._score(trial, trial.epoch)
            there = [other for other in self.known.reached[trial.epoch] if self._class(other) == self._class(trial)]
            return sum(self._better(self._score(other, trial.epoch), own) for other in there), len(there)
        ranked = self._ranked(trial.epoch)[self._class(trial)]
        return len(ranked) - bisect.bisect_right(ranked, self.signs[0] * trial.values[trial.epoch][0]), len(ranked)

    def _ranked(self, epoch: int) -> dict[object, list[float]]:
        """Of each class the values at a rung, ascending, more is better; read on from where it was read last."""
        read, ranked = self._memory.setdefault(epoch, (0, defaultdict(list)))
        reached = self.known.reached[epoch]
        for trial in reached[read:]:
            bisect.insort(ranked[self._class(trial)], self.signs[0] * trial.values[epoch][0])
        self._memory[epoch] = (len(reached), ranked)
        return ranked

    def _class(self, trial: Seen) -> object:
        """With whom a trial is compared: those of its bracket, and of its encoder if so asked."""
        return self._bracket(trial.number), _encoder(trial) if self.by_encoder else None

    def _score(self, trial: Seen, epoch: int) -> Values:
        values = trial.values[epoch]
        if not self.corrected:
            return values
        gains = [
            tuple(b - a for a, b in zip(t.values[epoch], t.final, strict=True))
            for t in self.known
            if t.state == "complete" and t.final is not None and _encoder(t) == _encoder(trial) and epoch in t.values
        ]
        if not gains:
            return values
        return tuple(v + sum(g[i] for g in gains) / len(gains) for i, v in enumerate(values))

    def _better(self, first: Values, second: Values) -> bool:
        """Whether `first` is better than `second`; with several objectives, whether it dominates it."""
        gains = [sign * (a - b) for sign, a, b in zip(self.signs, first, second, strict=True)]
        return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)

    def _resume(self, trial: Seen) -> Resume:
        return Resume(number=trial.number, until=self._next_rung(trial.number, trial.epoch))

    def _reason(self, trial: Seen) -> str:
        return f"not among the best 1/{self.reduction_factor} after {trial.epoch} epochs"

    def _bracket(self, number: int) -> int:
        return self.cycle[number % len(self.cycle)]

    def _next_rung(self, number: int, epoch: int) -> int:
        return self.ladder.after(epoch, skipped=self._bracket(number))


def _share(bracket: int, brackets: int, eta: int) -> int:
    """How many of a round's trials a bracket gets: as Hyperband's, so that brackets cost about the same."""
    return math.ceil(brackets / (brackets - bracket) * eta ** (brackets - 1 - bracket))


def _encoder(trial: Seen) -> object:
    return trial.params.get("encoder")
