"""Suggestions of today's engine: they depend on the seed and on what is known, never on timing.

Trial n is suggested from the results of trials 0 ... n - lag, with the trials between known as running. The lag is
2 * slots - 1: enough to keep every slot busy while trials take unequal time, and 1 with one slot. Before trial n is
suggested all of those earlier trials must have ended; otherwise the caller waits. So the same seed and the same number
of slots give the same configurations, killed and resumed or not. `search.methods` has the samplers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from search.methods.known import ENDED, Known, State
from search.methods.names import Setup
from search.methods.steps import Proposal
from search.settings.config import StudyConfig
from search.trials import Trial


def lag_of(slots: int) -> int:
    """How many numbers before its own the newest result lies that a suggestion may use."""
    return 2 * slots - 1


class Sampling:
    """A study's sampler, told of the results in order of number.

    Args:
        config: the study.
        lag: `lag_of` the number of slots.
    """

    def __init__(self, config: StudyConfig, *, lag: int) -> None:
        self.lag = lag
        self.epochs = config.budget.epochs
        self.known = Known()
        self._sampler = Setup.of(config, self.known).sampler(config.sampler.name)
        self._fed = 0
        """Trials below this number have been fed with their result."""

    def warm(self, trials: Sequence[Trial]) -> None:
        """Tell of ended trials of earlier studies, before any of this one: they get the numbers ..., -2, -1."""
        for number, trial in enumerate(trials, start=-len(trials)):
            self._enter(number, trial)
            self._end(number, trial)

    def ready(self, number: int, ended: Callable[[int], bool]) -> bool:
        """Whether every trial that the suggestion for `number` may use has ended."""
        return all(ended(k) for k in range(self._fed, max(0, number - self.lag + 1)))

    def feed(self, number: int, trial_of: Callable[[int], Trial]) -> None:
        """Tell the results that the suggestion for `number` may use; `trial_of` gives each trial."""
        for k in range(self.known.entered, number):
            self._enter(k, trial_of(k))
        for k in range(self._fed, max(0, number - self.lag + 1)):
            self._end(k, trial_of(k))
        self._fed = max(self._fed, number - self.lag + 1)

    def suggest(self, number: int, attempt: int) -> Proposal:
        """One suggestion for trial `number`, which must have been prepared by `feed`.

        Args:
            number: the trial.
            attempt: 0 for the first suggestion of this number; counts up when a suggestion was a repeat.
        """
        return self._sampler.propose(number, attempt)

    def _enter(self, number: int, trial: Trial) -> None:
        info = trial.info
        baseline = number >= 0 and info.role == "baseline"
        self.known.enter(number, info.params, until=self.epochs, baseline=baseline, notes=info.notes)

    def _end(self, number: int, trial: Trial) -> None:
        for epoch, values in sorted(trial.curve.items()):
            if all(map(math.isfinite, values)):
                self.known.report(number, epoch, values)
        self.known.end(number, ending_of(trial), trial.values)


def ending_of(trial: Trial) -> State:
    """How a trial ended, as methods know it: infeasible where no slot has the memory for it."""
    if trial.status.failure == "out_of_memory":
        return "infeasible"
    found = [state for state in ENDED if state == trial.status.status]
    assert found, f"trial {trial.info.trial_id} has not ended"
    return found[0]
