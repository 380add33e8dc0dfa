"""The trials of a study as their folders have them: what every decision is made from. Knows neither Ray nor Optuna.

    trials = read_trials(folder, objectives)       # trials/0000, trials/0001, ...

A trial folder is the truth about its trial. All else that tells of it (`study.journal`, the sampler's own study, the
pruner's rungs) is made from these records and can be made again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

from cluster.storage import Folder
from search.objectives import values
from search.settings.sections import Objective
from trainables.record import ENDED, BrokenRecordError, EpochRow, TrialInfo, TrialRecord, TrialStatus, final_paths

NUMBER = re.compile(r"\d{4,}")


@dataclass(kw_only=True)
class Trial:
    """One trial, or one final."""

    info: TrialInfo
    status: TrialStatus = field(default_factory=TrialStatus)
    rows: list[EpochRow] = field(default_factory=list)
    """Its finished epochs, while it is under way."""
    curve: dict[int, tuple[float, ...]] = field(default_factory=dict)
    """Epoch -> its objectives then: those of its best epoch so far."""

    @property
    def number(self) -> int:
        """Its number in the study; finals have none."""
        return int(self.info.trial_id)

    @property
    def ended(self) -> bool:
        """Whether nothing more will be trained of it."""
        return self.status.status in ENDED

    @property
    def complete(self) -> bool:
        """Whether it had its whole budget."""
        return self.status.status == "complete"

    @property
    def values(self) -> tuple[float, ...] | None:
        """Its objectives so far; None before its first epoch, and of a failed trial."""
        return self.curve[max(self.curve)] if self.curve and self.status.status != "failed" else None

    @property
    def finite(self) -> bool:
        """Whether its objectives so far are numbers."""
        return all(map(math.isfinite, self.curve[max(self.curve)])) if self.curve else True

    def take(self, row: EpochRow, objectives: Sequence[Objective]) -> None:
        """A finished epoch; what stood at it and after it, in an earlier attempt, is gone."""
        self.rows = [*(before for before in self.rows if before.epoch < row.epoch), row]
        self.curve = {epoch: found for epoch, found in self.curve.items() if epoch < row.epoch}
        self.curve[row.epoch] = tuple(values(objectives, self.rows, self.info, parameters=self.status.parameters))


class Trials(Sequence[Trial]):
    """A study's trials in order of number; the best of the complete ones; how many failed last.

    Args:
        trials: those that are there.
        objectives: the study's; the first one ranks.
    """

    def __init__(self, trials: Sequence[Trial], objectives: Sequence[Objective]) -> None:
        self._trials = list(trials)
        self._sign = -1.0 if objectives[0].maximise else 1.0
        self.best: Trial | None = None
        self.failures = 0
        """Trials that failed in a row, by the order in which they ended."""

    def __len__(self) -> int:
        return len(self._trials)

    @overload
    def __getitem__(self, number: int) -> Trial: ...
    @overload
    def __getitem__(self, number: slice) -> list[Trial]: ...
    def __getitem__(self, number: int | slice) -> Trial | list[Trial]:
        return self._trials[number]

    def append(self, trial: Trial) -> None:
        """A new trial, of the next number."""
        self._trials.append(trial)

    def complete(self) -> list[Trial]:
        """The complete trials, best first."""
        return sorted((trial for trial in self if trial.complete), key=self._rank)

    def note_end(self, trial: Trial) -> Trial | None:
        """A trial has ended; gives the trial that was the best until now, if this one is better."""
        self.failures = self.failures + 1 if trial.status.status == "failed" else 0
        before = self.best
        if not trial.complete or (before is not None and self._rank(before) < self._rank(trial)):
            return None
        self.best = trial
        return before

    def _rank(self, trial: Trial) -> tuple[float, int]:
        assert trial.values is not None
        return self._sign * trial.values[0], trial.number


def read_trial(record: TrialRecord, objectives: Sequence[Objective]) -> Trial:
    """A trial as its folder has it. Of one that goes on from its checkpoint, rows that cannot be read do not count.

    Raises:
        BrokenRecordError: a file is damaged; the message names it and what can be done.
    """
    info, status = record.info(), record.status()
    trial = Trial(info=info, status=status)
    try:
        rows = record.metrics()
    except BrokenRecordError:
        if trial.ended:
            raise
        rows = []  # the trial's checkpoint has them
    for row in rows:
        trial.take(row, objectives)
    if trial.ended:
        trial.rows = []
    return trial


def read_finals(folder: Folder) -> Iterator[Trial]:
    """The finals of a study's folder that were begun.

    Raises:
        BrokenRecordError: a file is damaged; the message names it and what can be done.
    """
    for path in final_paths(folder):
        record = TrialRecord(folder / path)
        if record.folder.exists("trial.json"):  # else its driver died before it was entered
            yield read_trial(record, ())


def read_trials(folder: Folder, objectives: Sequence[Objective]) -> list[Trial]:
    """The trials of a study's folder, in order of number; the finals are not among them.

    Raises:
        ValueError: one is missing, or a file is damaged; the message names it and what can be done.
    """
    names = [name for name in (folder / "trials").names() if NUMBER.fullmatch(name)]
    trials = []
    for number, name in enumerate(sorted(names, key=int)):
        record = TrialRecord(folder / f"trials/{name}")
        if int(name) != number:
            raise ValueError(f"{folder}/trials/{number:04d} is missing, though there is {name}; {RESTORE}")
        if not record.folder.exists("trial.json"):
            if number + 1 == len(names) and not record.metrics():
                break  # its driver died before it was entered
            raise ValueError(f"{record.folder}/trial.json is missing; {RESTORE}")
        try:
            trials.append(read_trial(record, objectives))
        except BrokenRecordError as error:
            raise ValueError(f"{error}. {RESTORE}") from error
    return trials


RESTORE = (
    "nothing was changed. Put it back from a copy; or, to have the study go on without it, take out this trial's "
    "folder and those of all later numbers, whose proposals rest on it"
)
