"""Finals that begin while the last trials of the search run: of winners that no open trial can displace any more."""

from __future__ import annotations

from collections.abc import Container

from search.budget import Spent
from search.decisions import Decisions
from search.final import Finals, certain
from search.orders import Orders
from search.settings.config import StudyConfig
from search.trials import Trials
from trainables.order import TrialOrder


class EarlyFinals:
    """For slots that would stand idle.

    Args:
        config: the study.
        orders: makes the orders; knows the study's folder.
        trials: those of the search.
    """

    def __init__(self, config: StudyConfig, orders: Orders, trials: Trials) -> None:
        self._config, self._orders, self._trials = config, orders, trials
        self._planned: tuple[int, Finals] | None = None
        """What was known when they were planned, and they."""

    def next(self, decisions: Decisions, spent: Spent, running: Container[str]) -> TrialOrder | None:
        """The next one; None while a trial may still begin. Of a budget in dollars the search has the first share."""
        if not decisions.no_more_begin or self._config.budget.max_usd is not None:
            return None
        position = decisions.known.position
        if self._planned is None or self._planned[0] != position:
            early = certain(self._trials, self._config)
            self._planned = (position, Finals(self._config, self._orders, self._trials, early))
        return self._planned[1].next(spent, running)
