"""When a study has had enough: budgets counted in trials and epochs, in hours, and in dollars."""

from __future__ import annotations

import math
import time

from search.methods.known import ENDED, Known
from search.settings.config import StudyConfig
from search.settings.sections import Budget


class Limit:
    """How many trials may begin, by the budgets that count trials and epochs: a function of what is known.

    Args:
        config: the study.
        known: its trials; told on by others.
    """

    def __init__(self, config: StudyConfig, known: Known) -> None:
        self._budget, self._known = config.budget, known
        self._sign = 1.0 if config.objective[0].maximise else -1.0
        self.reason = ""
        """Why no further trial may begin, when `trials` was asked last; empty: one may."""
        self._best, self._since, self._looked_at = -math.inf, 0, 0
        """Of the trials below a number, all of which have ended: the best, and how many came after it."""

    @property
    def is_final(self) -> bool:
        """Whether no further trial may begin whatever those under way come to."""
        return self._counted() is not None

    def trials(self) -> int:
        """How many trials may have begun in all; those that have, where a budget is spent."""
        self.reason = self._spent() or ""
        return self._known.entered if self.reason else self._budget.trials

    def _spent(self) -> str | None:
        most = self._budget.no_gain_trials
        if (counted := self._counted()) is not None or most is None or self._without_gain() < most:
            return counted
        return f"no gain in {most} trials"

    def _counted(self) -> str | None:
        """Which of the budgets that only grow is spent."""
        budget, known = self._budget, self._known
        if known.entered >= budget.trials:
            return f"{budget.trials} trials"
        if budget.total_epochs is not None and known.epochs >= budget.total_epochs:
            return f"{known.epochs} epochs of {budget.total_epochs}"
        return None

    def _without_gain(self) -> int:
        """How many ended trials in a row, in order of number and up to the first that runs, did not better the best."""
        trials = self._known.trials
        while self._looked_at < self._known.entered and trials[self._looked_at].state in ENDED:
            trial = trials[self._looked_at]
            value = self._sign * trial.final[0] if trial.final and trial.state == "complete" else -math.inf
            self._best, self._since = (value, 0) if value > self._best else (self._best, self._since + 1)
            self._looked_at += 1
        return self._since


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
