"""Asynchronous successive halving (ASHA), as a record of rungs that can be rebuilt from the trials' own metrics.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, algorithm 2, in the stopping variant:
a trial that reaches a rung goes on if it is among the best 1/eta of those that reached the rung before it. The rungs
lie at `grace_epochs * eta^k` below the full budget.

A decision for trial n counts only trials numbered up to n - lag, all of which have ended before n began (see
search/sampling.py). So decisions do not depend on which of two running trials happened to report first, and a study
that was killed and resumed decides as an undisturbed one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from search.methods.rungs import Direction, rung_epochs

__all__ = ["Direction", "Rungs", "rung_epochs"]


class Rungs:
    """Which trial had which value at which rung, and whether a trial may go on.

    Args:
        epochs: the rungs, ascending (`rung_epochs`); empty: nothing is ever pruned.
        reduction_factor: eta, at least 2.
        directions: one per objective. With several, trials are ranked by non-domination: a trial's rank is how many
            others dominate it.
    """

    def __init__(self, epochs: Sequence[int], *, reduction_factor: int, directions: Sequence[Direction]) -> None:
        self.epochs = tuple(epochs)
        self.reduction_factor = reduction_factor
        self.directions = tuple(directions)
        self.records: dict[int, dict[int, tuple[float, ...]]] = {epoch: {} for epoch in self.epochs}

    def record(self, number: int, epoch: int, values: Sequence[float]) -> None:
        """Trial `number` had `values` after `epoch` epochs; of no effect if no rung lies there."""
        if epoch in self.records:
            self.records[epoch][number] = tuple(values)

    def rebuild(self, trials: Iterable[tuple[int, Mapping[int, Sequence[float]]]]) -> None:
        """Record every (number, epoch -> values) again, as found in the trials' folders."""
        for number, values_by_epoch in trials:
            for epoch, values in values_by_epoch.items():
                self.record(number, epoch, values)

    def should_prune(self, number: int, epoch: int, *, known_below: int) -> bool:
        """Whether trial `number`, just recorded at `epoch`, is not among the best 1/eta of its rung.

        Args:
            number: the trial.
            epoch: its finished epochs.
            known_below: only trials with numbers below this are counted beside it.
        """
        rung = self.records.get(epoch)
        if not rung or number not in rung:
            return False
        others = [values for other, values in rung.items() if other < known_below and other != number]
        size = len(others) + 1
        if size < self.reduction_factor:  # too few to tell a best 1/eta
            return False
        better = sum(self._better(values, rung[number]) for values in others)
        return better >= max(1, math.floor(size / self.reduction_factor))

    def _better(self, first: Sequence[float], second: Sequence[float]) -> bool:
        """Whether `first` is better than `second`; with several objectives, whether it dominates it."""
        signs = [1.0 if d == "maximize" else -1.0 for d in self.directions]
        gains = [sign * (a - b) for sign, a, b in zip(signs, first, second, strict=True)]
        return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)
