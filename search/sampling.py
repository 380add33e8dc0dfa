"""Suggestions of today's engine: they depend on the seed and on what is known, never on timing.

Trial n is suggested from the results of trials 0 ... n - lag, with the trials between known as running. The lag is
2 * slots - 1: enough to keep every slot busy while trials take unequal time, and 1 with one slot. Before trial n is
suggested all of those earlier trials must have ended; otherwise the caller waits. So the same seed and the same number
of slots give the same configurations, killed and resumed or not. `search.methods` has the samplers.
"""

from __future__ import annotations

from collections.abc import Callable

from optuna.trial import FrozenTrial, TrialState

from search.methods.known import Known, State
from search.methods.names import Setup
from search.methods.steps import Proposal
from search.settings.config import StudyConfig

STATE: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


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

    def ready(self, number: int, ended: Callable[[int], bool]) -> bool:
        """Whether every trial that the suggestion for `number` may use has ended."""
        return all(ended(k) for k in range(self._fed, max(0, number - self.lag + 1)))

    def feed(self, number: int, trial_of: Callable[[int], FrozenTrial]) -> None:
        """Tell the results that the suggestion for `number` may use; `trial_of` gives the ledger's trial."""
        for k in range(len(self.known.trials), number):
            trial = trial_of(k)
            baseline = "baseline" in trial.user_attrs
            self.known.enter(k, trial.params, until=self.epochs, baseline=baseline, notes=trial.system_attrs)
        for k in range(self._fed, max(0, number - self.lag + 1)):
            self._end(trial_of(k))
        self._fed = max(self._fed, number - self.lag + 1)

    def suggest(self, number: int, attempt: int) -> Proposal:
        """One suggestion for trial `number`, which must have been prepared by `feed`.

        Args:
            number: the trial.
            attempt: 0 for the first suggestion of this number; counts up when a suggestion was a repeat.
        """
        return self._sampler.propose(number, attempt)

    def _end(self, trial: FrozenTrial) -> None:
        if trial.values is not None and len(trial.values) > 1:  # the ledger's early values are of one objective
            self.known.report(trial.number, max(trial.intermediate_values, default=self.epochs), trial.values)
        else:
            for epoch, value in sorted(trial.intermediate_values.items()):
                self.known.report(trial.number, epoch, (value,))
        state = "infeasible" if "infeasible" in trial.user_attrs else STATE[trial.state]
        self.known.end(trial.number, state, trial.values)
