"""Suggestions that depend on the seed and on what is known, never on timing.

Trial n is suggested from the results of trials 0 ... n - lag, with the trials between entered as running (TPE's
constant liar, NSGA-II and brute force see them so). The lag is 2 * slots - 1: enough to keep every slot busy while
trials take unequal time, and 1 with one slot. Before trial n is suggested all of those earlier trials must have ended;
otherwise the caller waits. Every suggestion draws from a random state made of (seed, n) alone. So the same seed and
the same number of slots give the same configurations, killed and resumed or not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, BruteForceSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

SAMPLERS: dict[str, Callable[..., BaseSampler]] = {
    "tpe": lambda seed, startup_trials, population: TPESampler(
        seed=seed, n_startup_trials=startup_trials, multivariate=True, group=True, constant_liar=True
    ),
    "random": lambda seed, startup_trials, population: RandomSampler(seed=seed),
    "grid": lambda seed, startup_trials, population: BruteForceSampler(seed=seed),
    "nsga2": lambda seed, startup_trials, population: NSGAIISampler(seed=seed, population_size=population),
}


def lag_of(slots: int) -> int:
    """How many numbers before its own the newest result lies that a suggestion may use."""
    return 2 * slots - 1


class Sampling:
    """The sampler on a study in memory, to which the results are fed in order of number.

    Args:
        name: a key of `SAMPLERS`.
        seed: of the study.
        lag: `lag_of` the number of slots.
        directions: as Optuna names them.
        startup_trials: TPE draws this many at random first.
        population: NSGA-II's generation.
    """

    def __init__(
        self, name: str, *, seed: int, lag: int, directions: list[str], startup_trials: int = 10, population: int = 20
    ) -> None:
        self.seed = seed
        self.lag = lag
        with (
            warnings.catch_warnings()
        ):  # TPE's `group` has been experimental for years, and a conditional space needs it
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._sampler = SAMPLERS[name](seed, startup_trials, population)
        self._study = optuna.create_study(directions=directions, sampler=self._sampler)
        self._fed = 0
        """Trials below this number have been fed with their result."""
        self._ids: list[int] = []
        """Number -> id in the memory study, of the trials that are in it, ended or running."""

    def ready(self, number: int, ended: Callable[[int], bool]) -> bool:
        """Whether every trial that the suggestion for `number` may use has ended."""
        return all(ended(k) for k in range(self._fed, max(0, number - self.lag + 1)))

    def feed(self, number: int, trial_of: Callable[[int], FrozenTrial]) -> None:
        """Enter the results that the suggestion for `number` may use; `trial_of` gives the ledger's trial."""
        storage, study_id = self._study._storage, self._study._study_id
        upto = max(0, number - self.lag + 1)
        for k in range(len(self._ids), number):
            trial = trial_of(k)
            template = self._as_fed(trial) if k < upto else _as_running(trial)
            self._ids.append(storage.create_new_trial(study_id, template_trial=template))
        for k in range(self._fed, upto):
            self._end(self._ids[k], self._as_fed(trial_of(k)))
        self._fed = max(self._fed, upto)

    def suggest(self, number: int, attempt: int, define: Callable[[Any], dict[str, Any]]) -> FrozenTrial:
        """One suggestion for trial `number`; `attempt` counts up when a suggestion was a repeat.

        Args:
            number: the trial; its suggestion must have been prepared by `feed`.
            attempt: 0 for the first suggestion of this number.
            define: `Space.suggest`, run on an Optuna trial.
        """
        self._reseed(number, attempt)
        trial = self._study.ask()
        define(trial)
        frozen = self._study._storage.get_trial(trial._trial_id)
        # The memory study's own copy ends at once; the ledger's, with the same parameters, is entered by `feed`.
        self._study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
        return frozen

    def _end(self, memory_id: int, trial: FrozenTrial) -> None:
        """Give a trial that stands as running in the memory study its result."""
        storage = self._study._storage
        if storage.get_trial(memory_id).state.is_finished():
            return
        for epoch, value in trial.intermediate_values.items():
            storage.set_trial_intermediate_value(memory_id, epoch, value)
        for key, value in trial.system_attrs.items():
            storage.set_trial_system_attr(memory_id, key, value)
        storage.set_trial_state_values(memory_id, state=trial.state, values=trial.values)

    def _as_fed(self, trial: FrozenTrial) -> FrozenTrial:
        """What the sampler learns of an ended trial.

        A failed trial says nothing (samplers pass over FAIL), but one that was out of memory is infeasible: it enters
        as pruned before its first report, with a violated constraint (`optuna.trial.Trial.set_constraint`). With
        several objectives a pruned trial enters without its early values: Optuna ranks those by a single direction.
        """
        infeasible = "infeasible" in trial.user_attrs
        several = len(self._study.directions) > 1 and trial.state == TrialState.PRUNED
        if not infeasible and not several:
            return trial
        fed = _as_running(trial)
        fed.state = TrialState.PRUNED
        fed.datetime_complete = trial.datetime_complete
        if infeasible:
            fed.system_attrs = {**trial.system_attrs, "constraints:memory": 1.0}
        return fed

    def _reseed(self, number: int, attempt: int) -> None:
        """Make every random state of the sampler a function of (seed, number, attempt)."""
        sequence = np.random.SeedSequence([self.seed, number, attempt])
        for holder in (self._sampler, getattr(self._sampler, "_random_sampler", None)):
            lazy = getattr(holder, "_rng", None)
            if lazy is not None:
                lazy.rng.seed(sequence.generate_state(4))


def _as_running(trial: FrozenTrial) -> FrozenTrial:
    return FrozenTrial(
        number=trial.number,
        trial_id=trial._trial_id,
        state=TrialState.RUNNING,
        value=None,
        values=None,
        datetime_start=trial.datetime_start,
        datetime_complete=None,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
        intermediate_values={},
    )
