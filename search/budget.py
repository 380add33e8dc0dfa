"""When a study has had enough: budgets counted in trials and epochs, in hours, and in dollars."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from search.settings.sections import Budget


def trials_spent(budget: Budget, trials: Sequence[FrozenTrial], *, maximise: bool) -> str | None:
    """Why no further trial is to begin, or None.

    Args:
        budget: the study's.
        trials: its own trials, in order of number, without those of a warm start.
        maximise: whether more of the first objective is better.
    """
    if len(trials) >= budget.trials:
        return f"{budget.trials} trials"
    epochs = sum(len(t.intermediate_values) for t in trials if "repeat_of" not in t.user_attrs)
    if budget.total_epochs is not None and epochs >= budget.total_epochs:
        return f"{epochs} epochs of {budget.total_epochs}"
    if budget.no_gain_trials is not None and without_gain(trials, maximise=maximise) >= budget.no_gain_trials:
        return f"no gain in {budget.no_gain_trials} trials"
    return None


def without_gain(trials: Sequence[FrozenTrial], *, maximise: bool) -> int:
    """How many ended trials in a row, in order of number and up to the first that runs, did not better the best."""
    best, since = -math.inf, 0
    sign = 1.0 if maximise else -1.0
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            break
        value = sign * trial.values[0] if trial.values and trial.state == TrialState.COMPLETE else -math.inf
        best, since = (value, 0) if value > best else (best, since + 1)
    return since


class Spent:
    """The time and the money that a study has taken.

    Args:
        budget: the study's.
        elapsed_s: seconds that its earlier sessions took.
    """

    def __init__(self, budget: Budget, *, elapsed_s: float = 0.0) -> None:
        self.usd_of: dict[str, float] = {}
        """Dollars that each trial and each final has cost so far, by its folder."""
        self._budget = budget
        self._began = time.monotonic() - elapsed_s

    @property
    def elapsed_s(self) -> float:
        """Seconds that the study has taken, in all its sessions."""
        return time.monotonic() - self._began

    @property
    def usd(self) -> float:
        """Dollars that the trials have cost so far, finals and those under way included."""
        return sum(self.usd_of.values())

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
