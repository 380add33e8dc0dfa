"""A trial's life, from its order to its end. The file to read first.

    crew = LocalCrew()                 who does the work: this process, or the workers of one slot (on_ray.py)
    status = run_trial(order, crew)    trained, measured, and written down in the trial's folder

A study does the same with many trials: in this process (search/here.py), or on Ray, where a step of a slot is one
`Life.epoch`. A trial folder has one writer at a time: the driver that gives the order, then the life, and after its
last report the driver again. Nothing but this module writes `status.json`. It knows neither Ray nor torch.
"""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from cluster.storage import Folder
from trainables.order import DISK_FULL, Begun, Command, Report, Tested, TrialError, TrialOrder, short_reason
from trainables.record import (
    CHECKPOINTS,
    WEIGHTS,
    EpochRow,
    ErrorKind,
    Status,
    TrialRecord,
    TrialStatus,
    best_epoch,
    checkpoint_name,
    now,
)

SHOWN = ("train_loss", "val_loss", "val_dice", "val_iou")
"""What a line of `log.txt` tells of an epoch."""

Judge = Callable[[Report], TrialStatus | None]
"""Told of each epoch. Gives the status of a trial that has ended, None while it goes on."""


class CrewLostError(RuntimeError):
    """The workers are gone; the message says why. The next `begin` finds new ones."""

    def __init__(self, reason: str, cause: Literal["died", "out_of_memory", "machine_lost"] = "died") -> None:
        super().__init__(reason)
        self.cause = cause


class Crew(Protocol):
    """Who does a life's work: one worker, or several that follow the same commands in step."""

    @property
    def name(self) -> str:
        """Which slot it is, for people."""

    def call(self, command: Command, payload: Any = None) -> dict[int, Any]:
        """Give a command to every worker; their answers by rank, each a `TrialError` if the command failed there.

        `begin` with a `TrialOrder` is answered by `Begun`, `epoch` by its `EpochRow` once the checkpoint is written,
        `test` by `Tested` or None, `end` by None.

        Raises:
            CrewLostError: the workers are gone.
        """


def run_trial(order: TrialOrder, crew: Crew, judge: Judge | None = None) -> TrialStatus:
    """Train what was ordered, from its checkpoint if it has one, to its end; gives how it ended.

    Args:
        order: the trial.
        crew: who trains.
        judge: ends the trial by `end_trial`, when it is to; None: it ends with its last epoch.

    Raises:
        ValueError: the folder holds another trial.
        OSError: the folder cannot be written; the trial can be resumed.
    """
    judge = judge or (lambda report: conclude(order, report))
    enter(order)
    life = Life(order, crew)
    while (status := judge(life.epoch())) is None:
        continue
    return status


def enter(order: TrialOrder) -> None:
    """Write a trial's `trial.json` where there is none; one of the same trial stays, for its batch may be split by now.

    Raises:
        ValueError: the folder holds another trial.
    """
    record, wanted = TrialRecord(Folder(order.folder)), order.info.config
    if not record.folder.exists("trial.json"):
        record.write_info(order.info)
        return
    held = record.info().config
    if held.model_copy(update={"accumulation": wanted.accumulation}) != wanted:
        names = [name for name, value in wanted if getattr(held, name) != value]
        differences = ", ".join(
            f"{name} {getattr(held, name)!r} there, {getattr(wanted, name)!r} here" for name in names
        )
        raise ValueError(f"{order.folder} is of another configuration ({differences}); use another folder for this one")


class Life:
    """One trial under way.

    Args:
        order: the trial, entered in its folder. Where its status says that it runs in this very session, a slot died
            with it: that is a retry.
        crew: who trains.
        clock: tells seconds.
    """

    def __init__(self, order: TrialOrder, crew: Crew, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._record = TrialRecord(Folder(order.folder))
        self._order = order.model_copy(update={"info": self._record.info()})
        self._crew = crew
        self._clock = clock
        self._begun = False
        self._rows: list[EpochRow] = []
        before = self._record.status()
        died = before.status == "running" and before.session == order.session
        ended = TrialStatus().model_dump(include={"reason", "traceback", "failure", "ended_at"})
        taken = {"status": "running", "session": order.session, "retries": before.retries + died, "slot": crew.name}
        self._status = before.model_copy(update={**ended, **taken})

    def epoch(self) -> Report:
        """Train one epoch, or say why none can be. The first of a resumed trial is its last one, told once more.

        Whatever was decided after that epoch is decided again: who was to decide may have died before.

        Raises:
            OSError: the folder cannot be written, and the disk is not full.
            NotInChargeError: the study goes on elsewhere.
        """
        began = self._clock()
        try:
            outcome = self._attempt()
            self._spend(self._clock() - began)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            outcome = TrialError("disk_full", short_reason(error), traceback.format_exc())
        if isinstance(outcome, TrialError):
            return Report(failure=outcome, done=True, status=self._status)
        return Report(row=outcome, done=self._is_last(outcome), status=self._status)

    def _attempt(self) -> EpochRow | TrialError:
        """One epoch, again from the checkpoint as often as the trial may be retried."""
        why = "the slot's process died"
        while self._status.retries <= self._order.retries:
            try:
                return self._advance()
            except CrewLostError as lost:
                why = str(lost)
                if (failed := self._mourn(lost)) is not None:
                    return failed
        return TrialError("worker_died", f"worker died {self._status.retries} times: {why}", "")

    def _advance(self) -> EpochRow | TrialError:
        """The next epoch; begins the trial if need be, and anew in smaller parts if memory is short."""
        while True:
            answer = self._ask("epoch") if self._begun else self._begin()
            if isinstance(answer, TrialError):
                self._begun = False
                if not self._split(answer):
                    return answer
            elif answer is not None:
                return self._finish(answer) if self._is_last(answer) else answer

    def _begin(self) -> EpochRow | TrialError | None:
        """Begin the trial; the last row that its checkpoint has, None of a new trial."""
        self._write()
        begun: Begun | TrialError = self._ask("begin", self._order)
        if isinstance(begun, TrialError):
            return begun
        self._begun = True
        self._rows = begun.history
        self._record.write_metrics(self._rows)
        self._record.log(f"begins after epoch {self._rows[-1].epoch}" if self._rows else "begins")
        started_at = self._status.started_at or now()
        self._write(parameters=begun.parameters, precision=begun.precision, started_at=started_at)
        return self._rows[-1] if self._rows else None

    def _finish(self, row: EpochRow) -> EpochRow | TrialError:
        """After the last epoch: the test split, where it is to be measured."""
        if not self._order.measure_test:
            return row
        tested: Tested | TrialError | None = self._ask("test")
        if isinstance(tested, TrialError):
            return tested
        if tested is None:
            self._record.log("the data has no test split to measure on")
            return row
        if tested.examples is not None:
            self._record.write_examples(tested.examples)
        self._record.write_test(tested.measures)
        return row

    def _ask(self, command: Command, payload: Any = None) -> Any:
        """Rank 0's answer, or the first error of any rank. A new epoch is written down."""
        answers = self._crew.call(command, payload)
        errors = [answer for _, answer in sorted(answers.items()) if isinstance(answer, TrialError)]
        answer = errors[0] if errors else answers[0]
        if isinstance(answer, TrialError):
            if answer.kind != "disk_full":
                self._record.log(f"{answer.kind}: {answer.reason}\n{answer.traceback}")
        elif command == "epoch":
            self._note(answer)
        return answer

    def _note(self, row: EpochRow) -> None:
        """Write down an epoch whose checkpoint is there."""
        self._order.check_in_charge()
        self._rows = [*(before for before in self._rows if before.epoch < row.epoch), row]
        self._record.write_metrics(self._rows)
        shown = ", ".join(f"{name} {getattr(row, name):.4f}" for name in SHOWN)
        self._record.log(f"epoch {row.epoch}: {shown}, {row.train_s:.1f} s")

    def _mourn(self, lost: CrewLostError) -> TrialError | None:
        """Count a loss of the workers; gives the failure that it is, None if the trial can go on."""
        self._begun = False
        self._record.log(f"the workers are gone: {lost}")
        if lost.cause == "out_of_memory":
            failed = TrialError("out_of_memory", f"out of host memory: {lost}", traceback.format_exc())
            return None if self._split(failed) else failed
        if lost.cause == "machine_lost":
            self._record.log("a machine was lost or taken back: this does not count as a retry")
        else:
            self._write(retries=self._status.retries + 1)
        return None

    def _split(self, error: TrialError) -> bool:
        """Where memory was short, have the trial begin anew with each batch in more parts; False if it cannot.

        Anew, for batch norm sees the parts: what was trained so far is of another configuration.
        """
        info = self._order.info
        parts = info.config.next_accumulation(info.workers)
        if error.kind != "out_of_memory" or not self._order.accumulate_on_oom or parts is None:
            return False
        self._record.folder.remove(CHECKPOINTS)
        self._record.write_metrics([])
        config = info.config.model_copy(update={"accumulation": parts})
        info = info.model_copy(update={"config": config, "taken_from": "", "taken_epochs": 0})
        self._record.write_info(info)
        self._record.log(f"begins anew with each batch in {parts} parts")
        self._order = self._order.model_copy(update={"info": info})
        return True

    def _is_last(self, row: EpochRow) -> bool:
        return row.epoch >= self._order.info.config.epochs

    def _spend(self, seconds: float) -> None:
        """Add to the time that slots were held."""
        self._write(slot_s=self._status.slot_s + seconds)

    def _write(self, **changes: Any) -> None:
        """Write the status, with changes."""
        self._order.check_in_charge()
        status = self._status.model_copy(update=changes)
        epochs = self._rows[-1].epoch if self._rows else status.epochs
        usd = round(self._order.info.usd(status.slot_s), 6)
        self._status = status.model_copy(update={"epochs": epochs, "slot_s": round(status.slot_s, 3), "usd": usd})
        self._record.write_status(self._status)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a trial ended."""

    status: Status
    reason: str = ""
    traceback: str = ""
    failure: ErrorKind | None = None


def ending_of(report: Report, stop: str | None = None) -> Ending | None:
    """How a trial ends with this report; None: it goes on.

    Args:
        report: a life's.
        stop: why it is to end though it could go on.

    Raises:
        OSError: the disk was full. The trial counts as running still, and is resumed once there is room.
    """
    if (failure := report.failure) is not None:
        if failure.kind == "disk_full":
            raise OSError(errno.ENOSPC, f"a trial could not be written: {failure.reason}")
        return Ending(status="failed", reason=failure.reason, traceback=failure.traceback, failure=failure.kind)
    if report.done:
        return Ending(status="complete")
    return Ending(status="pruned", reason=stop) if stop is not None else None


def end_trial(order: TrialOrder, ending: Ending) -> TrialStatus:
    """Write how a trial ended. The life of the trial is over: the folder is its driver's again."""
    record = TrialRecord(Folder(order.folder))
    changes = {**vars(ending), "session": order.session, "ended_at": now()}
    status = record.status().model_copy(update=changes)
    record.write_status(status)
    return status


def pause_trial(order: TrialOrder) -> TrialStatus:
    """Write that a trial lies with its checkpoint until it is taken up again. Its life is over for now, as above."""
    record = TrialRecord(Folder(order.folder))
    status = record.status().model_copy(update={"status": "paused", "session": order.session})
    record.write_status(status)
    return status


def conclude(order: TrialOrder, report: Report, *, stop: str | None = None) -> TrialStatus | None:
    """End a trial with this report if it is its last, or to stop; its status, or None if it goes on. A `Judge`."""
    ending = ending_of(report, stop)
    return None if ending is None else end_trial(order, ending)


def tidy(record: TrialRecord, *, keep: bool, checkpoints: bool = False) -> None:
    """Leave of an ended trial the weights of its best epoch, or nothing. May be done again.

    Args:
        record: the trial's folder.
        keep: whether its weights stay.
        checkpoints: whether its checkpoints stay as they are too, for a final that goes on from them.
    """
    folder = record.folder
    if not keep:
        folder.remove(WEIGHTS)
    elif folder.exists(CHECKPOINTS) and (best := best_epoch(record.metrics())) is not None:
        weights = f"{CHECKPOINTS}/{checkpoint_name(best.epoch)}/{WEIGHTS}"
        if checkpoints and not folder.exists(WEIGHTS):
            folder.write_bytes(WEIGHTS, folder.read_bytes(weights))
        elif not checkpoints and folder.exists(weights):
            folder.move(weights, WEIGHTS)
    if not checkpoints:
        folder.remove(CHECKPOINTS)
