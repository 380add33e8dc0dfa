"""What the study does next, and what it makes of what comes back. Knows neither Ray nor torch.

    order = engine.next()                    # a trial to run, or WAIT, or FINISHED
    status = engine.on_report(trial_id, report)  # not None: the trial has ended, and is to stop

First the baselines, then the suggestions of the sampler until a budget is spent, then the winners in full. Everything
that is decided is written down before it is acted on, so an engine made anew with `resume=True` goes on as this one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from cluster.storage import Folder
from search.budget import Spent, trials_spent
from search.distributions import distributions
from search.final import winners
from search.ledger import JOURNAL, Ledger, load_ended_trials
from search.objectives import values
from search.orders import Orders, trial_id
from search.pruner import Direction, Rungs
from search.sampling import Sampling
from search.settings.config import StudyConfig
from search.views import Progress, Seen
from trainables.config import TrialConfig
from trainables.life import Ending, end_trial, ending_of, tidy
from trainables.order import Report, TrialOrder
from trainables.record import EpochRow, Role, Status, TrialInfo, TrialRecord, TrialStatus, now

LOG = logging.getLogger("mammosearch")
NOT_FINITE = "an objective is not finite"
ATTEMPTS = 32
"""How often a suggestion that was made before is replaced by another before it counts as a repeat."""


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
    """

    def __init__(
        self, config: StudyConfig, orders: Orders, *, lag: int, resume: bool = False, elapsed_s: float = 0.0
    ) -> None:
        self.config = config
        self.folder = folder = orders.folder
        self.space = config.search_space
        self.lag = lag
        self.running: dict[str, TrialOrder] = {}
        self.stop_reason: str | None = None
        """Why the search takes no further trials; None while it does."""
        self.failed: str | None = None
        """Why the study as a whole failed."""
        self._orders = orders
        self._rows: dict[str, list[EpochRow]] = {}
        self._parameters: dict[str, int | None] = {}
        self.seen: dict[str, Seen] = {}
        """Trials that ran in this session, by name."""
        self.ended: list[tuple[str, Status]] = []
        """Those of them that ended, in order."""
        self.spent = Spent(config.budget, elapsed_s=elapsed_s)
        self._queue: list[TrialOrder] = []
        self._finals: list[TrialOrder] | None = None
        self._best: str | None = None
        self._directions: list[Direction] = ["maximize" if o.maximise else "minimize" for o in config.objective]
        self.ledger = Ledger(folder, name=folder.name, directions=self._directions, resume=resume)
        self.rungs = Rungs(
            config.pruner.rungs(config.budget.epochs),
            reduction_factor=config.pruner.reduction_factor,
            directions=self._directions,
        )
        self._sampling = Sampling(config, lag=lag)
        if resume:
            self._recall()
        if not self.ledger.trials():
            self._warm_start()

    # -- what to do next ---------------------------------------------------------------------------------------------

    def next(self) -> TrialOrder | Nothing:
        """The next trial to run; it counts as running from now on."""
        order = self._next()
        if isinstance(order, TrialOrder):
            info = order.info
            self.running[info.trial_id] = order
            config = info.config
            self.seen[info.trial_id] = Seen(
                role=info.role, encoder=config.encoder, pool=info.pool, epochs=config.epochs
            )
            LOG.info("%s  %s of %s on %s, %d epochs", *_words(info), info.pool, config.epochs)
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
        if self._finals is None:
            self._finals = self._plan_finals() if self.failed is None else []
        if self._finals and self.spent.money_over() is None:
            return self._finals.pop(0)
        return WAIT if self.running else FINISHED

    def _next_of_search(self) -> TrialOrder | Nothing:
        if len(self.running) >= self.lag:
            return WAIT
        trials = self.ledger.trials()
        number = len(trials)
        done = {t.user_attrs.get("baseline") for t in trials}
        for encoder in self.config.baseline_encoders:
            if encoder not in done:
                params = self.space.baselines((encoder,))[0]
                return self._enter(number, params, role="baseline", attrs={"baseline": encoder})
        if not self._sampling.ready(number, lambda k: trials[k].state.is_finished()):
            return WAIT
        self._sampling.feed(number, lambda k: trials[k])
        return self._suggest(number, trials)

    def _suggest(self, number: int, trials: list[FrozenTrial]) -> TrialOrder | Nothing:
        """A configuration that was not trained yet; a repeat only if the sampler has nothing else to offer."""
        known = {t.user_attrs["key"]: t.number for t in trials}
        for attempt in range(ATTEMPTS):
            proposal = self._sampling.suggest(number, attempt)
            params = dict(proposal.params)
            if self.space.key(params) not in known:
                return self._enter(number, params, role="search", system_attrs=proposal.notes)
        if self.config.study.repeats == "new_seed":
            return self._enter(number, params, role="search", seed=self.config.study.seed + number)
        if (size := self.space.size()) is not None:
            left = [cell for cell in self.space.cells() if self.space.key(cell) not in known]
            if left:
                drawn = np.random.default_rng([self.config.sampler_seed, number]).integers(len(left))
                return self._enter(number, left[int(drawn)], role="search")
            self.stop_reason = f"all {size} configurations of the space are trained"
            return self._next()
        first = trials[known[self.space.key(params)]]
        if not first.state.is_finished():
            return WAIT
        if first.state == TrialState.FAIL:
            self.stop_reason = f"the sampler proposes nothing new, and trial {trial_id(first.number)} failed before"
            return self._next()
        self._repeat(number, first)
        return self._next()

    def _enter(
        self,
        number: int,
        params: Mapping[str, Any],
        *,
        role: Role,
        attrs: Mapping[str, Any] | None = None,
        system_attrs: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> TrialOrder:
        config = self.space.to_config(params, seed=seed)
        info = self._orders.info(trial_id(number), role, config, dict(params))
        entered = self.ledger.add_running(
            params,
            distributions(self.space, params),
            user_attrs={
                "role": role,
                "key": self.space.key(params) if seed is None else config.key(),
                "config": config.model_dump(mode="json"),
                **(attrs or {}),
            },
            system_attrs=system_attrs,
        )
        assert entered == number
        return self._orders.order(info)

    def _repeat(self, number: int, first: FrozenTrial) -> None:
        """Enter a repeat with the result that its configuration has: nothing is trained."""
        source = trial_id(first.number)
        attrs = {key: value for key, value in first.user_attrs.items() if key not in ("baseline", "warm_start")}
        self.ledger.add_ended(first, {**attrs, "repeat_of": source, "role": "search"})
        config = TrialConfig.model_validate(first.user_attrs["config"])
        record, repeated = self.record(trial_id(number)), self.record(source)
        record.write_info(self._orders.info(trial_id(number), "search", config, dict(first.params)))
        rows = repeated.metrics()
        record.write_metrics(rows)
        status: Status = "complete" if first.state == TrialState.COMPLETE else "pruned"
        known = {"status": status, "reason": f"repeat of {source}", "slot_s": 0.0, "usd": 0.0, "ended_at": now()}
        record.write_status(repeated.status().model_copy(update={**known, "epochs": len(rows)}))

    # -- what comes back ---------------------------------------------------------------------------------------------

    def on_report(self, name: str, report: Report) -> TrialStatus | None:
        """A trial finished an epoch, or failed. Gives its status if it has ended with that, or is to end, else None.

        Raises:
            OSError: it could not be written. The trial counts as running still, and is resumed with the study.
        """
        stop = self._learn(name, report.row, report.status) if report.row is not None else None
        ending = ending_of(report, stop)
        return None if ending is None else self._end(name, ending)

    def on_lost(self, name: str) -> TrialStatus:
        """A trial's slot is gone, and no other could be started for it."""
        reason = "the slot's process ended and could not be started again"
        return self._end(name, Ending(status="failed", reason=reason, failure="worker_died"))

    def _learn(self, name: str, row: EpochRow, status: TrialStatus) -> str | None:
        """Take in a finished epoch. Gives why the trial is to stop, or None if it goes on."""
        order = self.running[name]
        before = self._rows.get(name) or TrialRecord(Folder(order.folder)).metrics()  # a resumed trial has earlier rows
        self._rows[name] = [*(r for r in before if r.epoch < row.epoch), row]
        self._parameters[name] = status.parameters
        self.spent.usd_of[order.folder] = status.usd
        self._see(name, row, status.slot_s)
        if self.failed is not None:
            return self.failed
        if order.info.role == "final":
            return self.spent.money_over()
        number, epoch = int(name), row.epoch
        found = self._values(name, order.info)
        if not all(math.isfinite(v) for v in found):
            return NOT_FINITE  # `_end` makes it a failure
        self.ledger.report(number, epoch, found[0])
        self.rungs.record(number, epoch, found)
        known_below = max(0, number - self.lag + 1)
        if order.info.role == "search" and self.rungs.should_prune(number, epoch, known_below=known_below):
            return f"not among the best 1/{self.config.pruner.reduction_factor} after {epoch} epochs"
        return self.spent.search_over()

    def _end(self, name: str, ending: Ending) -> TrialStatus:
        """End a trial: its state is told to the study, its status written."""
        order = self.running.pop(name)
        final = order.info.role == "final"
        rows = self._rows.pop(name, None) or self.record(name, final=final).metrics()
        self._rows[name] = rows
        found = self._values(name, order.info) if rows else None
        ending = _truthful(ending, found)
        if not final:
            if ending.failure == "out_of_memory":  # no slot of its pool has the memory: the sampler is to stay away
                self.ledger.set_attr(int(name), "infeasible", ending.reason)
            self.ledger.end(int(name), ending.status, found, reason=ending.reason)
        status = end_trial(order, ending)
        self.spent.usd_of[order.folder] = status.usd
        self._tidy(order)
        self._rows.pop(name)
        self.ended.append((name, ending.status))
        told = f": {ending.reason}" if ending.reason else ""
        LOG.info("%s  %s after %d epochs, %.0f s%s", name, ending.status, len(rows), status.slot_s, told)
        if not final:
            self._count_failures(ending)
        return status

    def _see(self, name: str, row: EpochRow, slot_s: float) -> None:
        """Note an epoch for the console, with the best value so far, and for the log, with its own beside."""
        seen, objective = self.seen[name], self.config.objective[0].metric
        epoch = row.epoch
        best = self._values(name, self.running[name].info)[0]
        seen.epoch, seen.slot_s, seen.value = epoch, slot_s, best
        seen.rung = max((rung for rung in self.rungs.epochs if rung <= epoch), default=0)
        # Parameters, dollars and seconds an epoch are the trial's so far: no epoch has a better one.
        own = f"{getattr(row, objective):.4f}, best " if objective.startswith("val_") else ""
        LOG.info("%s  epoch %d/%d  %s %s%.4f  (%.1f s)", name, epoch, seen.epochs, objective, own, best, seen.slot_s)

    def _count_failures(self, ending: Ending) -> None:
        limit = self.config.failures.stop_after_consecutive
        ended = [t for t in self.trials() if t.state.is_finished()]
        last = sorted(ended, key=lambda t: t.datetime_complete or 0)[-limit:]  # type: ignore[arg-type,return-value]
        if len(last) == limit and all(t.state == TrialState.FAIL for t in last):
            self.failed = f"{limit} trials failed in a row, the last with: {ending.reason}"
            self.stop_reason = self.failed

    def _tidy(self, order: TrialOrder) -> None:
        """Leave of an ended trial's checkpoints the weights that are to be kept (`study.keep_checkpoints`)."""
        keep, name = self.config.study.keep_checkpoints, order.info.trial_id
        best = self.best_trial()
        is_best = order.info.role != "final" and best is not None and trial_id(best.number) == name
        tidy(
            TrialRecord(Folder(order.folder)),
            keep=order.info.role == "final" or keep == "all" or (keep == "best" and is_best),
        )
        if keep == "best" and is_best:
            if self._best not in (None, name):
                tidy(self.record(str(self._best)), keep=False)
            self._best = name

    def _values(self, name: str, info: TrialInfo) -> list[float]:
        """The objectives of a trial so far, made of its rows alone, so that a resumed study finds the same."""
        parameters = self._parameters.get(name)
        if parameters is None and any(objective.metric == "parameters" for objective in self.config.objective):
            parameters = self.record(name, final=info.role == "final").status().parameters
        return values(self.config.objective, self._rows[name], info, parameters=parameters)

    def progress(self) -> Progress:
        """Where the study stands."""
        trials = self.trials()
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        counts = {status: sum(t.state == state for t in trials) for status, state in states.items()}
        best = self.best_trial()
        ended = sum(t.state.is_finished() for t in trials)
        share = ended / self.config.budget.trials
        return Progress(
            entered=len(trials),
            trials=self.config.budget.trials,
            counts=counts,
            best=best.values[0] if best else None,
            best_trial=trial_id(best.number) if best else "",
            left_s=self.spent.elapsed_s * (1 / share - 1) if ended and self.stop_reason is None else None,
        )

    def _search_over(self) -> str | None:
        """Why the search takes no further trials, or None."""
        over = trials_spent(self.config.budget, self.trials(), maximise=self._directions[0] == "maximize")
        return over or self.spent.search_over()

    # -- winners -----------------------------------------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        """The study's own trials in order of number, without those of a warm start."""
        return [t for t in self.ledger.trials() if "warm_start" not in t.user_attrs]

    def complete_trials(self) -> list[FrozenTrial]:
        """The complete trials, best first by the first objective."""
        found = [t for t in self.trials() if t.state == TrialState.COMPLETE]
        sign = -1.0 if self._directions[0] == "maximize" else 1.0
        return sorted(found, key=lambda t: (sign * t.values[0], t.number))

    def best_trial(self) -> FrozenTrial | None:
        """The best complete trial, or None."""
        complete = self.complete_trials()
        return complete[0] if complete else None

    def _plan_finals(self) -> list[TrialOrder]:
        """The orders of the winners that are not trained yet."""
        final = self.config.final
        orders = []
        for name, trial in winners(self.complete_trials(), final).items():
            if self.record(name, final=True).status().status not in ("pending", "running"):
                continue
            config = self.space.to_config(trial.params, epochs=final.epochs, seed=trial.user_attrs["config"]["seed"])
            orders.append(self._orders.order(self._orders.info(name, "final", config, dict(trial.params), final.pool)))
        return orders

    # -- what was before ---------------------------------------------------------------------------------------------

    def _recall(self) -> None:
        """Rebuild rungs and queue from the folder: what was under way goes on first, in order of number."""
        for trial in self.trials():
            name = trial_id(trial.number)
            self.spent.usd_of[self.record(name).folder.uri] = self.record(name).status().usd
            rows = self._record_rungs(trial)
            if trial.state == TrialState.RUNNING:
                self._queue.append(self._order_again(trial))
            else:
                self._end_again(trial, len(rows))
        best = self.best_trial()
        self._best = trial_id(best.number) if best is not None else None
        for name in (self.folder / "final").names():
            record = self.record(name, final=True)
            self.spent.usd_of[record.folder.uri] = record.status().usd

    def _record_rungs(self, trial: FrozenTrial) -> list[EpochRow]:
        """Enter the rungs that a trial reached, from its own rows; returns these."""
        name = trial_id(trial.number)
        rows = self.record(name).metrics()
        if not rows:
            return rows
        info = self.record(name).info()
        for end in range(1, len(rows) + 1):
            self._rows[name] = rows[:end]
            found, epoch = self._values(name, info), rows[end - 1].epoch
            self.rungs.record(trial.number, epoch, found)
            if trial.state == TrialState.RUNNING and epoch not in trial.intermediate_values:
                self.ledger.report(trial.number, epoch, found[0])  # the journal's copy was older than the row
        self._rows.pop(name, None)
        return rows

    def _order_again(self, trial: FrozenTrial) -> TrialOrder:
        record = self.record(trial_id(trial.number))
        if record.folder.exists("trial.json"):  # it may train with its batch split by now
            return self._orders.order(record.info())
        config = TrialConfig.model_validate(trial.user_attrs["config"])
        return self._orders.order(
            self._orders.info(trial_id(trial.number), trial.user_attrs["role"], config, dict(trial.params))
        )

    def _end_again(self, trial: FrozenTrial, epochs: int) -> None:
        """Write the status of a trial whose end the study knows and whose folder does not: killed between the two."""
        record = self.record(trial_id(trial.number))
        before = record.status()
        if before.ended_at:
            return
        status: Status = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}.get(trial.state, "failed")  # type: ignore[assignment]
        reason = trial.user_attrs.get("reason", "")
        record.write_status(
            before.model_copy(update={"status": status, "reason": reason, "ended_at": now(), "epochs": epochs})
        )

    def _warm_start(self) -> None:
        """Enter the ended trials of earlier studies that lie in this space."""
        for source in self.config.warm_start:
            earlier = Folder(source)
            if not earlier.exists(JOURNAL):
                raise FileNotFoundError(f"warm_start: no {JOURNAL} in {source}; name the folder of an earlier study")
            for trial in load_ended_trials(earlier):
                if trial.state != TrialState.FAIL and self.space.contains(trial.params):
                    attrs = {**trial.user_attrs, "warm_start": source, "key": self.space.key(trial.params)}
                    self.ledger.add_ended(trial, attrs)

    def record(self, name: str, *, final: bool = False) -> TrialRecord:
        """The folder of a trial or of a final."""
        return self._orders.record(name, final=final)


def _truthful(ending: Ending, values: list[float] | None) -> Ending:
    """A trial whose objective is not finite has failed, even if it reported completion."""
    if ending.status == "failed":
        return ending
    if values is None:
        return Ending(status="failed", reason="ended without a finished epoch", failure="exception")
    if not all(map(math.isfinite, values)):
        return Ending(status="failed", reason=NOT_FINITE, failure="not_finite")
    return ending


def _words(info: TrialInfo) -> tuple[str, str, str]:
    return info.trial_id, info.role, info.config.encoder
