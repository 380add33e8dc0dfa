"""What a person sees of a running study: one live table on a terminal, plain lines elsewhere, and `study.log`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.engine import Engine

LOG = logging.getLogger("mammosearch")
ROWS = 12
"""Trials shown at once: those that run, then the last that ended."""
COLOURS = {"running": "cyan", "complete": "green", "pruned": "yellow", "failed": "red"}


@contextmanager
def study_log(folder: Path | None, *, to_terminal: bool) -> Iterator[None]:
    """Write the study's events to `study.log` in its folder and, without a live table, to standard output."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    handlers: list[logging.Handler] = []
    if folder is not None:
        handlers.append(logging.FileHandler(folder / "study.log"))
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
        self.update()
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
        self._progress, self._usd = engine.progress(), engine.usd
        running = [self._row(name, self._status(name)) for name in engine.running]
        ended = engine.ended[-max(1, ROWS - len(running)) :]
        self._rows: list[Row] = running + [self._row(name, status) for name, status in reversed(ended)]

    def _headline(self) -> Text:
        progress = self._progress
        best = f"best {progress.best:.4f} ({progress.best_trial})" if progress.best is not None else "no result yet"
        left = f", about {_clock(progress.left_s)} left" if progress.left_s is not None else ""
        money = f", ${self._usd:.2f}" if self._usd else ""
        counts = " ".join(f"{count} {status}" for status, count in progress.counts.items() if count)
        return Text(
            f"{self._engine.folder.name}: trial {progress.entered} of {progress.trials} | {counts} | {best} | "
            f"{_clock(self._engine.elapsed_s)}{left}{money}",
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
