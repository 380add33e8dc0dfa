"""When a study has had enough: budgets counted in trials and epochs, in hours, and in dollars."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from search.settings.sections import Budget
from search.trials import Trial


def trials_spent(budget: Budget, trials: Sequence[Trial], *, maximise: bool) -> str | None:
    """Why no further trial is to begin, or None.

    Args:
        budget: the study's.
        trials: its trials, in order of number.
        maximise: whether more of the first objective is better.
    """
    if len(trials) >= budget.trials:
        return f"{budget.trials} trials"
    if budget.total_epochs is not None:
        epochs = sum(len(trial.curve) for trial in trials)
        if epochs >= budget.total_epochs:
            return f"{epochs} epochs of {budget.total_epochs}"
    if budget.no_gain_trials is not None and without_gain(trials, maximise=maximise) >= budget.no_gain_trials:
        return f"no gain in {budget.no_gain_trials} trials"
    return None


def without_gain(trials: Sequence[Trial], *, maximise: bool) -> int:
    """How many ended trials in a row, in order of number and up to the first that runs, did not better the best."""
    best, since = -math.inf, 0
    sign = 1.0 if maximise else -1.0
    for trial in trials:
        if not trial.ended:
            break
        value = sign * trial.values[0] if trial.values and trial.complete else -math.inf
        best, since = (value, 0) if value > best else (best, since + 1)
    return since


class Spent:
    """The time and the money that a study has taken.

    Args:
        budget: the study's.
        elapsed_s: seconds that its earlier sessions took.
    """

    def __init__(self, budget: Budget, *, elapsed_s: float = 0.0) -> None:
        self.usd = 0.0
        """Dollars that the trials have cost so far, finals and those under way included."""
        self._usd_of: dict[str, float] = {}
        self._budget = budget
        self._began = time.monotonic() - elapsed_s

    @property
    def elapsed_s(self) -> float:
        """Seconds that the study has taken, in all its sessions."""
        return time.monotonic() - self._began

    def charge(self, path: str, usd: float) -> None:
        """The trial of this folder has cost so many dollars by now."""
        self.usd += usd - self._usd_of.get(path, 0.0)
        self._usd_of[path] = usd

    def usd_of(self, path: str) -> float:
        """What the trial of this folder has cost so far."""
        return self._usd_of.get(path, 0.0)

    def pays(self, usd: float) -> bool:
        """Whether so many dollars are left."""
        return self._budget.max_usd is None or self.usd + usd <= self._budget.max_usd

    def search_over(self) -> str | None:
        """Why the search is to end, or None."""
        hours = self._budget.hours
        if hours is not None and self.elapsed_s > hours * 3600:
            return f"budget.hours {hours:g} spent"
        return self.money_over()

    def money_over(self) -> str | None:
        """Why the search and the finals are to end, or None."""
        limit = self._budget.max_usd
        return f"budget.max_usd {limit:g} spent ({self.usd:.4f})" if limit is not None and self.usd >= limit else None
