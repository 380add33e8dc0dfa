"""What the study does next, and what it makes of what comes back: decisions alone. Knows neither Ray nor torch.

    order = engine.next()                          # a trial to run, or WAIT, or FINISHED
    status = engine.on_report(order.info.path, r)  # not None: the trial has ended, and is to stop

First the search: a free slot gets at once what its method decides from all that is known (search/decisions.py), until a
budget is spent. Then the winners in full. A decision is written down before it is acted on: an engine made anew with
`resume=True` goes on as this one. What became of a trial is told to the listeners (console, journal, trackers).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum

from search.budget import Spent
from search.decisions import Decisions, state_of
from search.early import EarlyFinals
from search.events import Event, Kind, Listener
from search.final import Finals
from search.kept import Kept
from search.log import LOG, PUT_BACK, Log
from search.methods.known import ENDED
from search.methods.method import REPEAT
from search.methods.steps import Resume, Start, Stop
from search.orders import Orders, trial_id
from search.recall import NOT_FINITE, take_up, truthful
from search.settings.config import StudyConfig
from search.trials import Trial, Trials, read_finals, read_trials
from trainables.life import Ending, end_trial, ending_of, pause_trial
from trainables.order import Report, TrialOrder
from trainables.record import EpochRow, Role, TrialRecord, TrialStatus


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
        slots: how many each pool has; one entry: all pools share them.
        lag: of a repeatable study (`search.decisions`), as `study.json` has it; None: decisions know all there is.
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
        slots: Mapping[str, int],
        lag: int | None = None,
        resume: bool = False,
        elapsed_s: float = 0.0,
        warm: Sequence[Trial] = (),
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.config, self.folder, self.space, self.slots = config, orders.folder, config.search_space, dict(slots)
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
        self._early = EarlyFinals(config, orders, self.trials)
        self._kept = Kept(config, self.folder, self.trials)
        self.decisions = Decisions(config, Log(self.folder), lag=lag, warm=warm)
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
        if self.stop_reason is None and (found := self._next_of_search()) is not None:
            return found
        if any(order.info.role != "final" for order in self.running.values()):
            return WAIT
        if self._finals is None:
            self._end_the_open(self.stop_reason or "")
        if (final := self._next_final()) is not None:
            return final
        if self.running:
            return WAIT
        self._kept.for_no_final()
        return FINISHED

    def _next_of_search(self) -> TrialOrder | Nothing | None:
        """None: the search is over."""
        self.stop_reason = self.spent.search_over()
        if self.stop_reason is not None:
            return None
        if self._is_full():
            return WAIT
        order = self._decide()
        if order is None and not self.decisions.known.open:
            self.stop_reason = self.stop_reason or self.decisions.over()
            return None
        return order or self._early.next(self.decisions, self.spent, self.running) or WAIT

    def _is_full(self) -> bool:
        """Whether no slot is free. A trial may wait for a slot of its pool while those of another one are."""
        total, busy = sum(self.slots.values()), len(self.running)
        if len(self.slots) == 1 or busy >= 2 * total - 1:
            return busy >= total
        on_pool = Counter(order.pool.name for order in self.running.values())
        return all(on_pool[pool] >= slots for pool, slots in self.slots.items())

    def _decide(self) -> TrialOrder | None:
        """The next order that the method decides; None if there is none now. Trials that it stops are ended."""
        while (step := self.decisions.next()) is not None:
            match step:
                case Start():
                    return self._enter(len(self.trials))
                case Resume(number=number):
                    return self._orders.order(self.trials[number].info, self.trials)
                case Stop(number=number, reason=reason):
                    self._end(self.trials[number], Ending(status="pruned", reason=reason))
        return None

    def _enter(self, number: int) -> TrialOrder:
        """A trial that was decided: written down as one that is to be trained."""
        seen = self.decisions.known.trials[number]
        seed = self.config.study.seed + number if seen.notes.get(REPEAT) else None
        config = self.space.to_config(seen.params, seed=seed)
        role: Role = "baseline" if seen.baseline else "search"
        info = self._orders.info(trial_id(number), role, config, dict(seen.params), notes=dict(seen.notes))
        order = self._orders.order(info, self.trials)
        self.trials.append(Trial(info=info))
        return order

    def _end_the_open(self, reason: str) -> None:
        """End the trials that lie paused when the search is over before its method has decided about them."""
        for trial in self.trials:
            if not trial.ended:
                self._end(trial, Ending(status="pruned", reason=reason))

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
        if ending is not None:
            return self._end(trial, ending)
        return None if trial.info.role == "final" else self._at_rung(trial)

    def _at_rung(self, trial: Trial) -> TrialStatus | None:
        """At a rung, decide what the slot does next: go on with the trial (None), or let it go."""
        if max(trial.curve) < self.decisions.until(trial.number):
            return None
        path = trial.info.path
        self.decisions.pause(trial.number)
        order = self._decide()
        if order is not None and order.info.path == path:
            return None
        if order is not None:
            self._queue.append(order)
        if not trial.ended:
            trial.status = pause_trial(self.running.pop(path))
            del self._under_way[path]
            self._tell("paused", trial)
            trial.rows = []
        return trial.status

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
        assert trial.values is not None
        self.decisions.report(trial.number, row.epoch, trial.values)
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

    def _end(self, trial: Trial, ending: Ending) -> TrialStatus:
        """End a trial: written first, then told."""
        order = self.running.pop(trial.info.path, None) or self._orders.order(trial.info)
        self._under_way.pop(trial.info.path, None)
        trial.status = end_trial(order, truthful(ending, trial))
        if trial.info.role != "final":
            self._note_end(trial)
        self.spent.charge(trial.info.path, trial.status.usd)
        bettered = None if trial.info.role == "final" else self.trials.note_end(trial)
        self._kept.tidy(trial, bettered)
        if (failures := self.trials.failures) >= self.config.failures.stop_after_consecutive and self.failed is None:
            self.stop_reason = self.failed = f"{failures} trials failed in a row, the last with: {trial.status.reason}"
        self._tell("ended", trial)
        trial.rows = []
        return trial.status

    def _note_end(self, trial: Trial) -> None:
        """Tell the method of an end that it has not decided itself."""
        if self.decisions.known.trials[trial.number].state not in ENDED:
            self.decisions.end(trial.number, state_of(trial), trial.values)

    def _tell(self, kind: Kind, trial: Trial) -> None:
        for listener in self.listeners:
            listener(Event(kind, trial))

    # -- what was before ---------------------------------------------------------------------------------------------

    def _recall(self) -> None:
        """What follows from the trials that are there. Those that were under way go on first, in order of number."""
        for number in range(len(self.trials), self.decisions.known.entered):  # its driver died before it was written
            self._enter(number)
        if len(self.trials) > self.decisions.known.entered:
            raise ValueError(
                f"{self.folder}/{LOG} does not tell of trial {self.decisions.known.entered:04d}; {PUT_BACK}"
            )
        for trial in self.trials:
            self.spent.charge(trial.info.path, trial.status.usd)
            if (order := take_up(trial, self.decisions, self._orders, self.trials)) is not None:
                self._queue.append(order)
        place = {number: place for place, number in enumerate(self.decisions.known.ended)}  # clocks may be set back
        ended = sorted((t for t in self.trials if t.ended), key=lambda t: place.get(t.number, len(place) + t.number))
        bettered = [self.trials.note_end(trial) for trial in ended]
        if ended:  # its driver may have died before this was done
            self._kept.tidy_again(ended[-1], bettered[-1])
        for final in read_finals(self.folder) if self.trials else ():
            self.spent.charge(final.info.path, final.status.usd)
            if final.ended:
                self._kept.tidy(final, None)

    def record(self, name: str, *, final: bool = False) -> TrialRecord:
        """The folder of a trial or of a final."""
        return self._orders.record(name, final=final)
