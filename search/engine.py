"""What the study does next, and what it makes of what comes back: decisions alone. Knows neither Ray nor torch.

    order = engine.next()                          # a trial to run, or WAIT, or FINISHED
    status = engine.on_report(order.info.path, r)  # not None: the trial has ended, and is to stop

First the baselines, then the suggestions of the sampler until a budget is spent, then the winners in full. A decision
is made from the trials' records (search/trials.py), and written into the trial's folder before it is acted on: an
engine made anew with `resume=True` goes on as this one. Then it is told to the listeners (console, journal, trackers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np

from search.budget import Spent, trials_spent
from search.events import Event, Kind, Listener
from search.final import Finals, to_be_kept
from search.orders import Orders, trial_id
from search.pruner import Direction, Rungs
from search.sampling import Sampling
from search.settings.config import StudyConfig
from search.trials import Trial, Trials, read_trial, read_trials
from trainables.life import Ending, end_trial, ending_of, tidy
from trainables.order import Report, TrialOrder
from trainables.record import EpochRow, Role, TrialRecord, TrialStatus, final_paths

NOT_FINITE = "an objective is not finite"
ATTEMPTS = 32
"""How often a suggestion that was made before is replaced by another before the space counts as exhausted."""


class Nothing(Enum):
    """Why there is no trial to run now."""

    WAIT = "wait"
    FINISHED = "finished"


WAIT, FINISHED = Nothing.WAIT, Nothing.FINISHED


class StudyFailedError(RuntimeError):
    """So many trials failed in a row that the study was ended; the message says why."""


class Engine:
    """The decisions of one study.

    Args:
        config: the study.
        orders: makes its orders; knows its folder.
        lag: `sampling.lag_of` the number of slots, as `study.json` has it.
        resume: go on with what the folder holds.
        elapsed_s: seconds that earlier sessions of this study took.
        warm: ended trials of earlier studies, which the sampler is told of.
        listeners: told of each event, in order.

    Raises:
        ValueError: a trial of the folder is missing or damaged; the message names the file.
    """

    def __init__(
        self,
        config: StudyConfig,
        orders: Orders,
        *,
        lag: int,
        resume: bool = False,
        elapsed_s: float = 0.0,
        warm: Sequence[Trial] = (),
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.config, self.folder, self.space, self.lag = config, orders.folder, config.search_space, lag
        self.trials = Trials(read_trials(self.folder, config.objective) if resume else [], config.objective)
        self.running: dict[str, TrialOrder] = {}
        """By the paths of their folders."""
        self.stop_reason: str | None = None
        """Why the search takes no further trials; None while it does."""
        self.failed: str | None = None
        """Why the study as a whole failed."""
        self.spent = Spent(config.budget, elapsed_s=elapsed_s)
        self.listeners = list(listeners)
        self._orders = orders
        self._under_way: dict[str, Trial] = {}
        self._queue: list[TrialOrder] = []
        self._finals: Finals | None = None
        self._for_finals: set[int] = set()
        """Numbers of the trials whose checkpoints are kept, as a final may go on from them."""
        self._keys = {self._key(trial): trial.number for trial in self.trials}
        directions: list[Direction] = ["maximize" if o.maximise else "minimize" for o in config.objective]
        self.rungs = Rungs(
            config.pruner.rungs(config.budget.epochs),
            reduction_factor=config.pruner.reduction_factor,
            directions=directions,
        )
        self._sampling = Sampling(config, lag=lag)
        self._sampling.warm(warm)
        self._recall()

    # -- what to do next ---------------------------------------------------------------------------------------------

    def next(self) -> TrialOrder | Nothing:
        """The next trial to run; it counts as running from now on."""
        order = self._next()
        if isinstance(order, TrialOrder):
            info = order.info
            trial = Trial(info=info) if info.role == "final" else self.trials[int(info.trial_id)]
            self.running[info.path], self._under_way[info.path] = order, trial
            self._tell("ordered", trial)
        return order

    def _next(self) -> TrialOrder | Nothing:
        if self._queue:
            return self._queue.pop(0)
        if self.stop_reason is None:
            self.stop_reason = self._search_over()
        if self.stop_reason is None:
            return self._next_of_search()
        if any(order.info.role != "final" for order in self.running.values()):
            return WAIT
        if (final := self._next_final()) is not None:
            return final
        if self.running:
            return WAIT
        self._keep_for_finals(set())
        return FINISHED

    def _search_over(self) -> str | None:
        """Why the search takes no further trials, or None."""
        over = trials_spent(self.config.budget, self.trials, maximise=self.config.objective[0].maximise)
        return over or self.spent.search_over()

    def _next_of_search(self) -> TrialOrder | Nothing:
        if len(self.running) >= self.lag:
            return WAIT
        number = len(self.trials)
        if number < len(encoders := self.config.baseline_encoders):
            return self._enter(self.space.baselines((encoders[number],))[0], role="baseline")
        if not self._sampling.ready(number, lambda k: self.trials[k].ended):
            return WAIT
        self._sampling.feed(number, lambda k: self.trials[k])
        return self._suggest(number)

    def _suggest(self, number: int) -> TrialOrder | Nothing:
        """A configuration that was not trained yet; where there is none, the search is over."""
        for attempt in range(ATTEMPTS):
            proposal = self._sampling.suggest(number, attempt)
            params = dict(proposal.params)
            if self.space.key(params) not in self._keys:
                return self._enter(params, role="search", notes=proposal.notes)
        if self.config.study.repeats == "new_seed":
            return self._enter(params, role="search", seed=self.config.study.seed + number)
        left = (
            [] if self.space.size() is None else [c for c in self.space.cells() if self.space.key(c) not in self._keys]
        )
        if left:
            drawn = np.random.default_rng([self.config.sampler_seed, number]).integers(len(left))
            return self._enter(left[int(drawn)], role="search")
        size = self.space.size()
        self.stop_reason = f"all {size} configurations of the space are trained" if size else "nothing new is proposed"
        return self._next()

    def _enter(
        self, params: Mapping[str, Any], *, role: Role, notes: Mapping[str, Any] | None = None, seed: int | None = None
    ) -> TrialOrder:
        """A new trial: written down, so that it will be trained."""
        config = self.space.to_config(params, seed=seed)
        info = self._orders.info(trial_id(len(self.trials)), role, config, dict(params), notes=dict(notes or {}))
        order = self._orders.order(info, self.trials)
        trial = Trial(info=info)
        self.trials.append(trial)
        self._keys.setdefault(self._key(trial), trial.number)
        return order

    def _key(self, trial: Trial) -> str:
        """What identifies a configuration; with another seed than the study's it is another one."""
        config = trial.info.config
        return self.space.key(trial.info.params) if config.seed == self.config.study.seed else config.key()

    def _next_final(self) -> TrialOrder | None:
        """The next final that is not trained yet, once the search is over."""
        if self.failed is not None:
            return None
        if self._finals is None:
            self._finals = Finals(self.config, self._orders, self.trials)
        return self._finals.next(self.spent, self.running)

    # -- what comes back ---------------------------------------------------------------------------------------------

    def on_report(self, path: str, report: Report) -> TrialStatus | None:
        """A trial finished an epoch, or failed. Gives its status if it has ended with that, or is to end, else None.

        Raises:
            OSError: it could not be written. The trial counts as running still, and is resumed with the study.
        """
        trial = self._under_way[path]
        stop = self._learn(trial, report.row, report.status) if report.row is not None else None
        ending = ending_of(report, stop)
        return None if ending is None else self._end(trial, ending)

    def on_lost(self, path: str) -> TrialStatus:
        """A trial's slot is gone, and no other could be started for it."""
        reason = "the slot's process ended and could not be started again"
        return self._end(self._under_way[path], Ending(status="failed", reason=reason, failure="worker_died"))

    def _learn(self, trial: Trial, row: EpochRow, status: TrialStatus) -> str | None:
        """Take in a finished epoch. Gives why the trial is to stop, or None if it goes on."""
        self._catch_up(trial, row, status)
        self._tell("epoch", trial)
        if self.failed is not None:
            return self.failed
        if trial.info.role == "final":
            return self.spent.money_over()
        if not trial.finite:
            return NOT_FINITE  # `_end` makes it a failure
        known_below = max(0, trial.number - self.lag + 1)
        if trial.info.role == "search" and self.rungs.should_prune(trial.number, row.epoch, known_below=known_below):
            return f"not among the best 1/{self.config.pruner.reduction_factor} after {row.epoch} epochs"
        return self.spent.search_over()

    def _catch_up(self, trial: Trial, row: EpochRow, status: TrialStatus) -> None:
        """Bring what is known of a trial up to this epoch, by its folder where it did not follow the one before."""
        record = TrialRecord(self.folder / trial.info.path)
        trial.status = status
        if row.epoch == 1 or row.epoch != len(trial.rows) + 1:
            trial.info = record.info()  # its batch may have been split
            trial.rows, trial.curve = [], {}
            for earlier in record.metrics()[: row.epoch - 1]:
                trial.take(earlier, self.config.objective)
        trial.take(row, self.config.objective)
        self.spent.charge(trial.info.path, status.usd)
        if trial.info.role != "final":
            self._record_rungs(trial)

    def _record_rungs(self, trial: Trial) -> None:
        for epoch, reached in self.rungs.records.items():
            reached.pop(trial.number, None)
            if epoch in trial.curve:
                self.rungs.record(trial.number, epoch, trial.curve[epoch])

    def _end(self, trial: Trial, ending: Ending) -> TrialStatus:
        """End a trial: written first, then told."""
        order = self.running.pop(trial.info.path)
        del self._under_way[trial.info.path]
        trial.status = end_trial(order, _truthful(ending, trial))
        self.spent.charge(trial.info.path, trial.status.usd)
        bettered = None if trial.info.role == "final" else self.trials.note_end(trial)
        self._tidy(trial, bettered)
        if (failures := self.trials.failures) >= self.config.failures.stop_after_consecutive and self.failed is None:
            self.stop_reason = self.failed = f"{failures} trials failed in a row, the last with: {trial.status.reason}"
        self._tell("ended", trial)
        trial.rows = []
        return trial.status

    def _tidy(self, trial: Trial, bettered: Trial | None) -> None:
        """Leave of an ended trial's checkpoints the weights that are to be kept (`study.keep_checkpoints`)."""
        if trial.info.role == "final":
            tidy(TrialRecord(self.folder / trial.info.path), keep=True)
            return
        before, self._for_finals = self._for_finals, to_be_kept(self.trials, self.config)
        numbers = {trial.number, *(before - self._for_finals), *({bettered.number} if bettered else ())}
        for number in numbers:
            self._tidy_one(self.trials[number])

    def _tidy_one(self, trial: Trial) -> None:
        kept = self.config.study.keep_checkpoints
        keep = kept == "all" or (kept == "best" and trial is self.trials.best)
        tidy(TrialRecord(self.folder / trial.info.path), keep=keep, checkpoints=trial.number in self._for_finals)

    def _keep_for_finals(self, numbers: set[int]) -> None:
        """Keep the checkpoints of these trials, and of no others."""
        before, self._for_finals = self._for_finals, numbers
        for number in before - numbers:
            self._tidy_one(self.trials[number])

    def _tell(self, kind: Kind, trial: Trial) -> None:
        for listener in self.listeners:
            listener(Event(kind, trial))

    # -- what was before ---------------------------------------------------------------------------------------------

    def _recall(self) -> None:
        """What follows from the trials that are there. Those that were under way go on first, in order of number."""
        for trial in self.trials:
            self.spent.charge(trial.info.path, trial.status.usd)
            self._record_rungs(trial)
            if not trial.ended:
                self._queue.append(self._orders.order(trial.info, self.trials))
        bettered, ended = None, sorted((t for t in self.trials if t.ended), key=lambda t: t.status.ended_at)
        for trial in ended:
            bettered = self.trials.note_end(trial)
        if ended:  # its driver may have died before this was done
            earlier = Trials([t for t in self.trials if t is not ended[-1]], self.config.objective)
            self._for_finals = to_be_kept(earlier, self.config)
            self._tidy(ended[-1], bettered)
        for path in final_paths(self.folder) if self.trials else ():
            record = TrialRecord(self.folder / path)
            if not record.folder.exists("trial.json"):
                continue  # its driver died before it was entered
            final = read_trial(record, ())
            self.spent.charge(final.info.path, final.status.usd)
            if final.ended:
                self._tidy(final, None)

    def record(self, name: str, *, final: bool = False) -> TrialRecord:
        """The folder of a trial or of a final."""
        return self._orders.record(name, final=final)


def _truthful(ending: Ending, trial: Trial) -> Ending:
    """A trial whose objective is not finite has failed, even if it reported completion."""
    if ending.status == "failed":
        return ending
    if not trial.curve:
        return Ending(status="failed", reason="ended without a finished epoch", failure="exception")
    return ending if trial.finite else Ending(status="failed", reason=NOT_FINITE, failure="not_finite")
