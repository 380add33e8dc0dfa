"""What a person sees of a running study: one live table on a terminal, plain lines elsewhere, and `study.log`."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.storage import Folder
from search.engine import Engine

LOG = logging.getLogger("mammosearch")
LOG_FILE = "study.log"
SAVE_LOG_EVERY_S = 30.0
"""How often the log is put into an object store."""
ROWS = 12
"""Trials shown at once: those that run, then the last that ended."""
COLOURS = {"running": "cyan", "complete": "green", "pruned": "yellow", "failed": "red"}


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
        print(record.getMessage(), flush=True)


Row = tuple[str | Text, ...]


class StudyView:
    """The live table of a study.

    The engine is read only in `update`, by the thread that drives the study; the clock ticks between updates.

    Args:
        engine: whose trials are shown.
        console: where; without a terminal nothing is drawn (`study_log` prints lines there).
    """

    def __init__(self, engine: Engine, console: RichConsole) -> None:
        self._engine = engine
        self._read()
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=1, transient=True)
        self._draws = console.is_terminal

    def __enter__(self) -> StudyView:
        if self._draws:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._read()  # drawn or not: an interrupted study shows its table once more
        if self._draws:
            self._live.stop()

    def update(self) -> None:
        """Look at the engine again."""
        if self._draws:
            self._read()

    def render(self) -> Group:
        """The table with its headline, as of the last update."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        objective = self._engine.config.objective[0].metric
        for title in ("trial", "role", "encoder", "pool", "status", "epoch", "rung", objective, "time"):
            table.add_column(title, justify="right" if title in ("epoch", "rung", objective, "time") else "left")
        for row in self._rows:
            table.add_row(*row)
        return Group(self._headline(), table)

    def _read(self) -> None:
        engine = self._engine
        self._progress, self._usd = engine.progress(), engine.spent.usd
        under_way = {name: self._status(name) for name in engine.running}
        states = list(under_way.values())
        self._counts = {s: states.count(s) for s in ("running", "pending")} | self._progress.counts
        running = [self._row(name, status) for name, status in under_way.items()]
        ended = engine.ended[-max(1, ROWS - len(running)) :]
        self._rows: list[Row] = running + [self._row(name, status) for name, status in reversed(ended)]

    def _headline(self) -> Text:
        progress = self._progress
        best = f"best {progress.best:.4f} ({progress.best_trial})" if progress.best is not None else "no result yet"
        left = f", about {_clock(progress.left_s)} left" if progress.left_s is not None else ""
        money = f", ${self._usd:.2f}" if self._usd else ""
        counts = " ".join(f"{count} {status}" for status, count in self._counts.items() if count)
        return Text(
            f"{self._engine.folder.name}: trial {progress.entered} of {progress.trials} | {counts} | {best} | "
            f"{_clock(self._engine.spent.elapsed_s)}{left}{money}",
            style="bold",
        )

    def _status(self, name: str) -> str:
        """A trial that no slot has taken yet is pending, though it is under way for the study."""
        if self._engine.seen[name].epoch:
            return "running"
        final = self._engine.seen[name].role == "final"
        return self._engine.record(name, final=final).status().status

    def _row(self, name: str, status: str) -> Row:
        seen = self._engine.seen[name]
        return (
            name,
            seen.role,
            seen.encoder,
            seen.pool,
            Text(status, style=COLOURS.get(status, "")),
            f"{seen.epoch}/{seen.epochs}",
            str(seen.rung or ""),
            "" if seen.value is None else f"{seen.value:.4f}",
            _clock(seen.slot_s),
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
