"""The study's trials as an ordinary Optuna study in one file: `study.journal` in the study folder.

`optuna.load_study(study_name=<folder's name>, storage=JournalStorage(JournalFileBackend("runs/x/study.journal")))` and
`optuna-dashboard runs/x/study.journal` open it while it runs. A trial enters it whole, by one appended line, with its
parameters; it never stays RUNNING once its trial has ended: complete is COMPLETE, pruned is PRUNED with its last rung
and all intermediate values, failed is FAIL with its reason.

An object store cannot append: of a study there, the journal lies on the driver's disk, and the whole of it is put into
the study's folder whenever a trial is entered or ends, and at most `SAVE_EVERY_S` after an intermediate value.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from cluster.storage import Folder
from search.pruner import Direction

JOURNAL = "study.journal"
SAVE_EVERY_S = 10.0
"""How long an intermediate value may wait for the next copy into an object store. A resumed study finds it again in its
trial's own rows."""

STATE_OF_STATUS = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class Ledger:
    """The Optuna study of one study folder. One process writes it (the driver); any number may read it.

    Args:
        folder: the study's folder.
        name: the study's name, which is its folder's.
        directions: `maximize` or `minimize` per objective.
        resume: continue the study that is in the file.

    Raises:
        FileExistsError: the file holds a study and `resume` is False: two studies never merge by accident.
        ValueError: the file's study has other directions.
    """

    def __init__(self, folder: Folder, *, name: str, directions: Sequence[Direction], resume: bool) -> None:
        self._copy = JournalCopy(folder)
        self._saved_at = 0.0
        file = self.file = self._copy.file
        if file.exists() and file.stat().st_size and not resume:
            raise FileExistsError(
                f"{folder} already holds a study; continue it with --resume, or choose another folder"
            )
        if resume:
            drop_half_line(file)
            _drop_stale_lock(file)
        self.storage = open_journal(file)
        self.study = optuna.create_study(
            study_name=name, storage=self.storage, directions=list(directions), load_if_exists=resume
        )
        found = [direction.name.lower() for direction in self.study.directions]
        if found != list(directions):
            raise ValueError(f"{folder} holds a study with directions {found}, not {list(directions)}")

    def trials(self) -> list[FrozenTrial]:
        """Every trial, in order of number."""
        return self.study.get_trials(deepcopy=False)

    def add_running(
        self,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        *,
        user_attrs: Mapping[str, Any],
        system_attrs: Mapping[str, Any] | None = None,
    ) -> int:
        """Enter a trial that is about to run, by one atomic line. Returns its number.

        `system_attrs` are what the sampler noted of its suggestion (NSGA-II its generation).
        """
        template = _template(TrialState.RUNNING, params, distributions, user_attrs)
        template.system_attrs = dict(system_attrs or {})
        return self._enter(template)

    def add_ended(self, trial: FrozenTrial, user_attrs: Mapping[str, Any]) -> int:
        """Enter an ended trial of another study, or a repeat of this one, as it is."""
        template = _template(trial.state, trial.params, trial.distributions, user_attrs)
        template.values = trial.values
        template.intermediate_values = dict(trial.intermediate_values)
        return self._enter(template)

    def report(self, number: int, epoch: int, value: float) -> None:
        """Enter an intermediate value. A NaN is not entered: the trial is about to fail with it as the reason."""
        if math.isfinite(value):
            self.storage.set_trial_intermediate_value(self._id(number), epoch, value)
            if time.monotonic() - self._saved_at > SAVE_EVERY_S:
                self._save()

    def set_attr(self, number: int, key: str, value: Any) -> None:
        """Set a user attribute of a running trial."""
        self.storage.set_trial_user_attr(self._id(number), key, value)
        self._save()

    def end(self, number: int, status: str, values: Sequence[float] | None, *, reason: str = "") -> None:
        """A trial ended. Of no effect if the study knows that already (a resumed driver says it again).

        Args:
            number: the trial.
            status: `complete`, `pruned` or `failed`.
            values: its objective values; None for a failed trial.
            reason: one line for a pruned or failed trial.
        """
        if self.trials()[number].state.is_finished():
            return
        if reason:
            self.set_attr(number, "reason", reason)
        self.storage.set_trial_state_values(
            self._id(number), state=STATE_OF_STATUS[status], values=None if status == "failed" else list(values or ())
        )
        self._save()

    def _save(self) -> None:
        self._copy.save()
        self._saved_at = time.monotonic()

    def _id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)

    def _enter(self, template: FrozenTrial) -> int:
        trial_id = self.storage.create_new_trial(self.study._study_id, template_trial=template)
        self._save()
        return self.storage.get_trial(trial_id).number


def _template(
    state: TrialState,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    user_attrs: Mapping[str, Any],
) -> FrozenTrial:
    began = datetime.now()
    return FrozenTrial(
        number=-1,  # the storage sets number and id
        trial_id=-1,
        state=state,
        value=None,
        values=None,
        datetime_start=began,
        datetime_complete=began if state.is_finished() else None,
        params=dict(params),
        distributions=dict(distributions),
        user_attrs=dict(user_attrs),
        system_attrs={},
        intermediate_values={},
    )


def open_journal(file: Path) -> JournalStorage:
    """The storage in a journal file, for the driver and for readers."""
    return JournalStorage(JournalFileBackend(str(file), lock_obj=JournalFileOpenLock(str(file))))


class JournalCopy:
    """The journal of a study's folder as a file on this machine: itself, or a copy if the folder is in an object store.

    Args:
        folder: the study's folder.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._scratch = tempfile.TemporaryDirectory(prefix="mammosearch-journal-") if folder.local is None else None
        self.file = (folder.local or Path(self._scratch.name if self._scratch else "")) / JOURNAL
        if self._scratch is not None and folder.exists(JOURNAL):
            self.file.write_bytes(folder.read_bytes(JOURNAL))

    def save(self) -> None:
        """Put the copy into the folder."""
        if self._scratch is not None:
            self._folder.write_bytes(JOURNAL, self.file.read_bytes())


def load_ended_trials(folder: Folder) -> list[FrozenTrial]:
    """The ended trials of the one study in a folder, for a warm start.

    Raises:
        FileNotFoundError: the folder has no journal.
        ValueError: the journal holds no study, or more than one.
    """
    if not folder.exists(JOURNAL):
        raise FileNotFoundError(f"no {JOURNAL} in {folder}")
    copy = JournalCopy(folder)
    storage = open_journal(copy.file)
    summaries = optuna.get_all_study_names(storage)
    if len(summaries) != 1:
        raise ValueError(f"{folder} holds {len(summaries)} studies; a warm start needs one")
    study = optuna.load_study(study_name=summaries[0], storage=storage)
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]


def drop_half_line(file: Path) -> None:
    """Cut off what a killed writer left behind the journal's last whole line."""
    if not file.exists():
        return
    content = file.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with file.open("r+b") as journal:
            journal.truncate(whole)


def _drop_stale_lock(file: Path) -> None:
    """Remove the lock of a killed writer: one driver writes a study, and it is the one that now resumes."""
    file.with_name(file.name + ".lock").unlink(missing_ok=True)
