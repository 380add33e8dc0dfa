"""What a person sees of a running study: one live table on a terminal, plain lines elsewhere, and `study.log`."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.storage import Folder
from search.events import Event
from search.settings.config import StudyConfig
from search.standing import Standing, clock
from search.trials import Trial
from trainables.record import VAL_MEASURES

LOG = logging.getLogger("mammosearch")
LOG_FILE = "study.log"
SAVE_LOG_EVERY_S = 30.0
"""How often the log is put into an object store."""
ROWS = 12
"""Trials shown at once: those that run, then the last that ended."""
COLOURS = {"running": "cyan", "paused": "blue", "complete": "green", "pruned": "yellow", "failed": "red"}


@contextmanager
def study_log(folder: Folder | None, *, to_terminal: bool) -> Iterator[None]:
    """Write the study's events to `study.log` in its folder and, without a live table, to standard output."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    handlers: list[logging.Handler] = []
    if folder is not None:
        handlers.append(_StudyLog(folder))
        handlers[-1].setFormatter(logging.Formatter("%(asctime)s  %(message)s"))
    if to_terminal:
        handlers.append(_PrintHandler())
    for handler in handlers:
        LOG.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            LOG.removeHandler(handler)
            handler.close()


class _StudyLog(logging.FileHandler):
    """Writes `study.log`: on a disk line by line; into an object store the whole of it, now and then and at the end."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._scratch = tempfile.TemporaryDirectory(prefix="mammosearch-log-") if folder.local is None else None
        file = (folder.local or Path(self._scratch.name if self._scratch else "")) / LOG_FILE
        if self._scratch is not None and folder.exists(LOG_FILE):
            file.write_bytes(folder.read_bytes(LOG_FILE))
        super().__init__(file)
        self._saved_at = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if time.monotonic() - self._saved_at > SAVE_LOG_EVERY_S:
            self._save()

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing, where logging prints a traceback: a full disk ends the study by a file that matters more."""

    def close(self) -> None:
        with contextlib.suppress(OSError):  # its last lines may not fit
            super().close()
        self._save()

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self._scratch is not None:
            self._folder.write_bytes(LOG_FILE, Path(self.baseFilename).read_bytes())


class _PrintHandler(logging.Handler):
    """Prints each event as a line, at once."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # a pipe that is closed ends no study, and study.log has the line
            print(record.getMessage(), flush=True)


Cells = tuple[str | Text, ...]


@dataclass
class Shown:
    """A line of the table: a trial that ran in this session."""

    trial: Trial
    budget: int
    """Epochs that it may train."""
    rung: int = 0
    """The highest rung it has reached, in epochs."""


class StudyView:
    """The live table of a study: it listens to events, and draws what it was told.

    Args:
        name: of the study.
        config: the study.
        standing: told of each event before this is.
        console: where; without a terminal nothing is drawn (`study_log` prints lines there).
    """

    def __init__(self, name: str, config: StudyConfig, standing: Standing, console: RichConsole) -> None:
        self._name, self._config, self._standing = name, config, standing
        self._rungs = config.pruner.rungs(config.budget.epochs)
        self._running: dict[str, Shown] = {}
        self._ended: list[Shown] = []
        self._lock = threading.Lock()
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=1, transient=True)
        self._draws = console.is_terminal

    def __enter__(self) -> StudyView:
        if self._draws:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._draws:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Note an event."""
        info = event.trial.info
        with self._lock:  # the table is drawn by a thread of its own
            shown = self._running.setdefault(info.path, Shown(event.trial, info.config.epochs))
            epoch = max(event.trial.curve, default=0)
            shown.rung = max((rung for rung in self._rungs if rung <= epoch), default=0)
            if event.kind in ("paused", "ended"):
                del self._running[info.path]
            if event.kind == "ended":
                self._ended.append(shown)

    def render(self) -> Group:
        """The table with its headline: those that run, then the last that ended."""
        with self._lock:
            return self._table([*self._running.values(), *reversed(self._ended[-max(1, ROWS - len(self._running)) :])])

    def whole(self) -> Group:
        """The table of all trials that ended in this session."""
        with self._lock:
            return self._table([*self._running.values(), *self._ended])

    def _table(self, lines: Sequence[Shown]) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        objective = self._config.objective[0].metric
        for title in ("trial", "role", "encoder", "pool", "status", "epoch", "rung", objective, "time"):
            numeric = title in ("epoch", "rung", objective, "time")
            # Where the terminal is narrow, names are folded: figures stay whole.
            table.add_column(title, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
        for shown in lines:
            table.add_row(*_cells(shown))
        return Group(self._headline(), table)

    def _headline(self) -> Text:
        under_way = [_status(shown.trial) for shown in self._running.values()]
        counts: dict[str, int] = {status: under_way.count(status) for status in ("running", "pending")}
        counts |= {"paused": len(self._standing.paused)} | {**self._standing.counts}
        told = " ".join(f"{count} {status}" for status, count in counts.items() if count)
        return Text(f"{self._name}: {self._standing.headline(told)}", style="bold")


def log_event(config: StudyConfig, standing: Standing, event: Event) -> None:
    """Write an event as a line of `study.log`."""
    trial, info = event.trial, event.trial.info
    name, epochs = info.trial_id, info.config.epochs
    if event.kind == "ordered":
        on = f", goes on from {info.taken_from} after {info.taken_epochs}" if info.taken_from else ""
        LOG.info("%s  %s of %s on %s, %d epochs%s", name, info.role, info.config.encoder, info.pool, epochs, on)
    elif event.kind == "epoch":
        row, objective = trial.rows[-1], config.objective[0].metric
        assert trial.values is not None
        # Parameters, dollars and seconds an epoch are the trial's so far: no epoch has a better one.
        own = f"{getattr(row, objective):.4f}, best " if objective in VAL_MEASURES else ""
        told = (name, row.epoch, epochs, objective, own, trial.values[0], trial.status.slot_s)
        LOG.info("%s  epoch %d/%d  %s %s%.4f  (%.1f s)", *told)
    elif event.kind == "paused":
        LOG.info("%s  paused after %d epochs", name, max(trial.curve))
    else:
        status, reason = trial.status, f": {trial.status.reason}" if trial.status.reason else ""
        LOG.info("%s  %s after %d epochs, %.0f s%s", name, status.status, status.epochs, status.slot_s, reason)
        LOG.info("      %s", standing.headline())
        if trial.complete and info.role != "final" and (front := standing.front()):
            LOG.info("      %s", front)


def _cells(shown: Shown) -> Cells:
    trial, info = shown.trial, shown.trial.info
    value = trial.curve[max(trial.curve)][0] if trial.curve else None
    status = _status(trial)
    return (
        info.trial_id,
        info.role,
        info.config.encoder,
        info.pool,
        Text(status, style=COLOURS.get(status, "")),
        f"{max(trial.curve, default=0)}/{shown.budget}",
        str(shown.rung or ""),
        "" if value is None else f"{value:.4f}",
        clock(trial.status.slot_s),
    )


def _status(trial: Trial) -> str:
    """A trial that has not reported yet is pending: it waits for a slot, or its workers start."""
    return trial.status.status if trial.ended or trial.curve else "pending"
