"""Who proposes: Optuna's samplers, each proposal made anew from the seed and from what is known.

A sampler of Optuna keeps its state in the study, in itself and in its random generator. Here it gets a study that shows
exactly what is known, is made for one proposal, and is seeded by (seed, number, attempt). So a proposal depends on
nothing else, and a study that was killed proposes as one that was not.

    tpe      Bergstra et al. 2011; multivariate with groups for one objective (Falkner et al. 2018), independent for
             several, as Optuna has it
    nsga2    Deb et al. 2002
    gp       Optuna's Gaussian process with log expected improvement
    random, grid
"""

from __future__ import annotations

import bisect
import logging
import warnings
from collections.abc import Callable, Container, Sequence
from datetime import datetime

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, BruteForceSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.distributions import distributions, suggest
from search.methods.known import Known, Seen
from search.methods.steps import Proposal
from search.settings.space import Space

STATES = {
    "running": TrialState.RUNNING,
    "paused": TrialState.PRUNED,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "infeasible": TrialState.PRUNED,
}
GENERATION = NSGAIISampler._get_generation_key()
logging.getLogger("optuna.storages._in_memory").setLevel(logging.WARNING)  # it tells of every study, one a proposal
BEGAN = datetime(2000, 1, 1)
"""Optuna wants a time in every trial and draws nothing from it."""
BEST_SHOWN, NEWEST_SHOWN = 100, 400
"""How many ended trials a sampler is shown at most: the best, and the newest. TPE's cost per proposal grows with what
it is shown, and its model of good trials holds 25 at most."""


class Sampler:
    """Proposals of one of Optuna's samplers.

    Args:
        name: a key of `SAMPLERS`.
        space: what is searched.
        known: what it proposes from; told on by others.
        seed: of the study.
        directions: `maximize` or `minimize` per objective.
        startup_trials: TPE and GP draw this many at random first.
        population: NSGA-II's generation.
    """

    def __init__(
        self,
        name: str,
        space: Space,
        known: Known,
        *,
        seed: int,
        directions: Sequence[str],
        startup_trials: int = 10,
        population: int = 20,
    ) -> None:
        self.name, self.space, self.known, self.seed = name, space, known, seed
        self.directions = list(directions)
        self.startup_trials, self.population = startup_trials, population
        self._frozen: dict[int, tuple[int, FrozenTrial]] = {}
        self._parents: list[list[int]] = [[]]
        """NSGA-II: the parents of each generation that has begun, by number; a memory of `_parents_of` alone."""
        self._ranked: list[tuple[float, int]] = []
        """Complete trials, best first: the negated or plain value, and the number; a memory of `_best`."""
        self._ranked_upto = 0

    def propose(self, number: int, attempt: int) -> Proposal:
        """The proposal for trial `number`; `attempt` counts up when one was known already."""
        with warnings.catch_warnings():  # `group` and BruteForce, experimental for years; the first a condition needs
            warnings.simplefilter("ignore", ExperimentalWarning)
            sampler = SAMPLERS[self.name](self, _seed(self.seed, number, attempt))
        shown = [self._freeze(trial) for trial in self._shown()]
        study = _study(shown, number, sampler, self.directions)
        if isinstance(sampler, NSGAIISampler):
            self._show_parents(study)
        trial = study.ask()
        suggest(self.space, trial)
        frozen = study._storage.get_trial(trial._trial_id)
        kept = {GENERATION: frozen.system_attrs[GENERATION]} if GENERATION in frozen.system_attrs else {}
        return Proposal(params=self.space.active(frozen.params), notes=kept)

    def _shown(self) -> list[Seen]:
        """What the sampler is shown, in order of number: all that is open, and of the ended the newest and the best."""
        known = self.known
        if self.name == "random":
            return []
        if self.name == "grid":  # a cell that an earlier study trained is trained here as well
            return [known.trials[number] for number in range(known.entered)]
        if len(known.ended) <= BEST_SHOWN + NEWEST_SHOWN:
            return [known.trials[number] for number in sorted(known.trials)]
        kept = {*known.ended[-NEWEST_SHOWN:], *self._best(), *known.open}
        return [known.trials[number] for number in sorted(kept)]

    def _best(self) -> list[int]:
        """The best complete trials by the first objective."""
        sign = -1.0 if self.directions[0] == "maximize" else 1.0
        for number in self.known.ended[self._ranked_upto :]:
            trial = self.known.trials[number]
            if trial.state == "complete" and trial.final is not None:
                bisect.insort(self._ranked, (sign * trial.final[0], number))
        self._ranked_upto = len(self.known.ended)
        return [number for _, number in self._ranked[:BEST_SHOWN]]

    def _freeze(self, trial: Seen) -> FrozenTrial:
        """A trial as Optuna knows it; made once for each change."""
        made = self._frozen.get(trial.number)
        if made is None or made[0] != trial.changes:
            made = self._frozen[trial.number] = (trial.changes, self._as_frozen(trial))
        return made[1]

    def _as_frozen(self, trial: Seen) -> FrozenTrial:
        """An infeasible trial is shown as pruned before its first report, with a violated constraint.

        With several objectives Optuna ranks a pruned trial's early values by one direction, so they are not shown.
        """
        state = STATES[trial.state]
        several, infeasible = len(self.directions) > 1, trial.state == "infeasible"
        early = {} if several or infeasible else {epoch: values[0] for epoch, values in trial.values.items()}
        notes = dict(trial.notes)
        if self.name == "nsga2":
            notes.setdefault(GENERATION, 0)  # baselines and earlier studies are of the first generation
        if infeasible:
            notes["constraints:memory"] = 1.0
        return FrozenTrial(
            number=trial.number,
            trial_id=_id(trial.number),
            state=state,
            value=None,
            values=list(trial.final or ()) if state == TrialState.COMPLETE else None,
            datetime_start=BEGAN,
            datetime_complete=BEGAN if state.is_finished() else None,
            params=dict(trial.params),
            distributions=distributions(self.space, trial.params),
            user_attrs={},
            system_attrs=notes,
            intermediate_values={} if state == TrialState.RUNNING else early,
        )

    def _show_parents(self, study: Study) -> None:
        """Write the parents of every generation where NSGA-II looks for them.

        Left to itself it would choose them when it is first asked, from whatever has ended by then, and once more,
        from other trials and in another order, in a study that resumes.
        """
        for generation, parents in enumerate(self._parents_of()):
            key = NSGAIISampler._get_parent_cache_key_prefix() + str(generation)
            study._storage.set_study_system_attr(study._study_id, key, [_id(number) for number in parents])

    def _parents_of(self) -> list[list[int]]:
        """The parents of each generation: the elite of the first `population` trials that completed the one before."""
        generations: dict[int, list[int]] = {}
        for number in self.known.ended:
            trial = self.known.trials[number]
            if trial.state == "complete":
                generations.setdefault(int(trial.notes.get(GENERATION, 0)), []).append(number)
        while len(full := generations.get(len(self._parents) - 1, [])) >= self.population:
            candidates = sorted({*full[: self.population], *self._parents[-1]})
            self._parents.append(self._elite(candidates))
        return self._parents

    def _elite(self, candidates: Sequence[int]) -> list[int]:
        shown = [self._as_frozen(self.known.trials[number]) for number in candidates]
        for trial in shown:
            trial.system_attrs[GENERATION] = 0
        sampler = NSGAIISampler(population_size=self.population, seed=0)
        study = _study(shown, self.known.entered, sampler, self.directions)
        return [trial.number for trial in sampler.select_parent(study, 1)]


def _tpe(own: Sampler, seed: int) -> BaseSampler:
    one = len(own.directions) == 1  # for several Optuna's own choice, without both, finds more
    return TPESampler(seed=seed, n_startup_trials=own.startup_trials, multivariate=one, group=one, constant_liar=True)


SAMPLERS: dict[str, Callable[[Sampler, int], BaseSampler]] = {
    "tpe": _tpe,
    "random": lambda own, seed: RandomSampler(seed=seed),
    "grid": lambda own, seed: BruteForceSampler(seed=seed),
    "nsga2": lambda own, seed: NSGAIISampler(seed=seed, population_size=own.population),
    "gp": lambda own, seed: GPSampler(seed=seed, n_startup_trials=own.startup_trials, warn_independent_sampling=False),
}


class _View(InMemoryStorage):
    """A storage that shows given trials, as they are, beside the one that is being proposed."""

    def __init__(self, shown: Sequence[FrozenTrial], number: int) -> None:
        super().__init__()
        self._shown, self._number = list(shown), number

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As in memory, under the number that the study gives it."""
        trial_id: int = super().create_new_trial(study_id, template_trial)
        self._get_trial(trial_id).number = self._number
        return trial_id

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The shown trials and the proposed one; never copied, for nobody changes them."""
        own = super().get_all_trials(study_id, deepcopy=False)
        return [trial for trial in (*self._shown, *own) if states is None or trial.state in states]


def _id(number: int) -> int:
    """The id of a shown trial; 0 is the one that is being proposed. Those of earlier studies have negative ones."""
    return number + 1 if number >= 0 else number


def _study(shown: Sequence[FrozenTrial], number: int, sampler: BaseSampler, directions: list[str]) -> Study:
    return optuna.create_study(storage=_View(shown, number), sampler=sampler, directions=directions)


def _seed(seed: int, number: int, attempt: int) -> int:
    """A random state made of (seed, number, attempt) alone."""
    return int(np.random.SeedSequence([seed, number, attempt]).generate_state(1)[0])
