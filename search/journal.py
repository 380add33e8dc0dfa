"""`study.journal`: the trials as an ordinary Optuna study in one file, for Optuna's own readers.

    study = optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend("runs/x/study.journal")))

An export: it is made from the trial folders when a study begins, goes on and ends, and is added to in between; nothing
of ours reads it. So one that is damaged or gone is made anew. A trial is WAITING until its first epoch, and never stays
RUNNING once it has ended: complete is COMPLETE, pruned is PRUNED, failed is FAIL with its reason.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from cluster.storage import Folder
from search.distributions import distributions
from search.events import Event
from search.settings.sections import Objective
from search.settings.space import Space
from search.trials import Trial
from trainables.record import TrialRecord, best_epoch

JOURNAL = "study.journal"
SAVE_EVERY_S = 10.0
"""How often the journal is put into an object store while epochs are reported."""
STATE_OF_STATUS = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True, kw_only=True)
class About:
    """What the journal says of its study."""

    name: str
    objectives: Sequence[Objective]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """User attributes of the study."""


class Journal:
    """The export of one study. Call `rewrite` first; then it listens to the engine's events.

    Args:
        folder: the study's folder.
        about: what is said of the study.
        space: whose axes the parameters are of.
    """

    def __init__(self, folder: Folder, about: About, space: Space) -> None:
        self._folder, self._about, self._space = folder, about, space
        self._saved_at = -math.inf
        self._lines = _Lines()
        self._storage = JournalStorage(self._lines)

    def rewrite(self, trials: Iterable[Trial]) -> None:
        """Make the file anew, of trials in order of number; their rows are read where they are not at hand."""
        self._lines = _Lines()
        self._storage = storage = JournalStorage(self._lines)
        directions = [_direction(objective) for objective in self._about.objectives]
        self._study_id = storage.create_new_study(directions, self._about.name)
        with warnings.catch_warnings():  # metric names have been experimental for years
            warnings.simplefilter("ignore", ExperimentalWarning)
            study = optuna.load_study(study_name=self._about.name, storage=storage)
            study.set_metric_names([objective.metric for objective in self._about.objectives])
        for key, value in self._about.attrs.items():
            storage.set_study_user_attr(self._study_id, key, value)
        for trial in trials:
            storage.create_new_trial(self._study_id, template_trial=self._template(trial))
        self._folder.write_bytes(JOURNAL, self._lines.taken())

    def __call__(self, event: Event) -> None:
        """Add what happened to a trial; finals are none of the study's."""
        trial = event.trial
        if trial.info.role == "final":
            return
        if event.kind == "ordered":
            known = len(self._storage.get_all_trials(self._study_id, deepcopy=False))
            if trial.number >= known:
                self._storage.create_new_trial(self._study_id, template_trial=self._template(trial))
        else:
            self._note(trial, ended=event.kind == "ended")
        self._save(now=event.kind != "epoch")

    def _note(self, trial: Trial, *, ended: bool) -> None:
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)
        held = self._storage.get_trial(trial_id)
        if held.state == TrialState.WAITING and trial.rows:
            self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        for epoch, value in _own_values(trial, self._about.objectives[0]).items():
            if epoch not in held.intermediate_values:
                self._storage.set_trial_intermediate_value(trial_id, epoch, value)
        if ended and not held.state.is_finished():
            for key, said in _said_of(trial).items():
                self._storage.set_trial_user_attr(trial_id, key, said)
            values = _rounded(trial.values) if trial.status.status != "failed" else None
            self._storage.set_trial_state_values(trial_id, STATE_OF_STATUS[trial.status.status], values)

    def _template(self, trial: Trial) -> FrozenTrial:
        """A trial as it stands, for entering it at once."""
        rows = trial.rows or TrialRecord(self._folder / trial.info.path).metrics() if trial.curve else []
        whole = Trial(info=trial.info, status=trial.status, rows=rows, curve=trial.curve)
        frozen = as_optuna(trial, self._space)
        if not trial.ended and not trial.curve:
            frozen.state, frozen.datetime_start = TrialState.WAITING, None
        frozen.user_attrs = _said_of(whole)
        frozen.system_attrs = {"mammosearch:key": self._space.key(trial.info.params)}
        frozen.intermediate_values = _own_values(whole, self._about.objectives[0])
        frozen.values = _rounded(frozen.values)
        return frozen

    def _save(self, *, now: bool) -> None:
        """Put what is new into the file; into an object store the whole of it, now and then."""
        if (local := self._folder.local) is not None:
            with (local / JOURNAL).open("ab") as file:
                file.write(self._lines.taken())
        elif now or time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self._lines.taken()
            self._folder.write_bytes(JOURNAL, self._lines.all())
            self._saved_at = time.monotonic()


class _Lines(BaseJournalBackend):
    """Optuna's log as lines, in memory. One process writes: no lock is needed."""

    def __init__(self) -> None:
        self._logs: list[dict[str, Any]] = []
        self._taken = 0

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """The entries from this one on."""
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries."""
        self._logs += [json.loads(json.dumps(log)) for log in logs]

    def taken(self) -> bytes:
        """What was added since this was last asked."""
        new, self._taken = self._logs[self._taken :], len(self._logs)
        return _as_lines(new)

    def all(self) -> bytes:
        """Everything."""
        return _as_lines(self._logs)


def _as_lines(logs: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()


def as_optuna(trial: Trial, space: Space) -> FrozenTrial:
    """A trial as Optuna's samplers know one: its objectives of each epoch so far, and what its sampler noted."""
    state = STATE_OF_STATUS[trial.status.status] if trial.ended else TrialState.RUNNING
    began, ended = (_local_time(stamp) for stamp in (trial.status.started_at, trial.status.ended_at))
    attrs: dict[str, Any] = {"role": trial.info.role}
    if trial.info.role == "baseline":
        attrs["baseline"] = trial.info.config.encoder
    if trial.status.failure == "out_of_memory":  # no slot of its pool has the memory: the sampler is to stay away
        attrs["infeasible"] = trial.status.reason
    return FrozenTrial(
        number=-1,  # the storage sets number and id
        trial_id=-1,
        state=state,
        value=None,
        values=list(trial.values) if trial.ended and trial.values is not None else None,
        datetime_start=began or ended or datetime.now(),
        datetime_complete=ended or datetime.now() if state.is_finished() else None,
        params=dict(trial.info.params),
        distributions=distributions(space, trial.info.params),
        user_attrs=attrs,
        system_attrs=dict(trial.info.notes),
        intermediate_values={epoch: found[0] for epoch, found in trial.curve.items() if math.isfinite(found[0])},
    )


def _own_values(trial: Trial, objective: Objective) -> dict[int, float]:
    """Epoch -> its own value of a measure, not the best so far; of what is the trial's as a whole, the value so far."""
    own = {row.epoch: getattr(row, objective.metric, None) for row in trial.rows}
    so_far = {epoch: found[0] for epoch, found in trial.curve.items()}
    found = {epoch: so_far[epoch] if value is None else value for epoch, value in own.items() if epoch in so_far}
    return {epoch: round(value, 6) for epoch, value in found.items() if math.isfinite(value)}


def _said_of(trial: Trial) -> dict[str, Any]:
    """What a person reads of a trial in Optuna's tools."""
    info, status, best = trial.info, trial.status, best_epoch(trial.rows)
    said: dict[str, Any] = {
        **{"trial": info.trial_id, "role": info.role, "encoder": info.config.encoder},
        **{"pool": info.pool, "workers": info.workers},
    }
    if best is not None:
        said |= {"val_dice": round(best.val_dice, 6), "val_iou": round(best.val_iou, 6), "best_epoch": best.epoch}
        said |= {"train_s": round(sum(row.train_s for row in trial.rows), 1)}
    if status.parameters is not None:
        said["parameters_millions"] = round(status.parameters / 1e6, 2)
    if trial.ended:
        said |= {"epochs": status.epochs, "slot_s": round(status.slot_s, 1), "usd": round(status.usd, 4)}
        said |= {"retries": status.retries, "reason": status.reason}
    return said


def _direction(objective: Objective) -> optuna.study.StudyDirection:
    kind = optuna.study.StudyDirection
    return kind.MAXIMIZE if objective.maximise else kind.MINIMIZE


def _rounded(values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else [round(value, 6) for value in values]


def _local_time(stamp: str) -> datetime | None:
    """A record's time as Optuna has them: local, without a zone."""
    return datetime.fromisoformat(stamp).astimezone().replace(tzinfo=None) if stamp else None
