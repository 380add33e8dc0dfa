"""What a person sees of a running study: one live table on a terminal, plain lines elsewhere, and `study.log`."""

from __future__ import annotations

import logging
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


class StudyView:
    """The live table of a study.

    Args:
        engine: whose trials are shown.
        console: where; without a terminal nothing is drawn (`study_log` prints lines there).
    """

    def __init__(self, engine: Engine, console: RichConsole) -> None:
        self._engine = engine
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._drawn_at = 0.0

    def __enter__(self) -> StudyView:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(self) -> None:
        """Draw again, at most four times a second."""
        if self._live and time.monotonic() - self._drawn_at > 0.25:
            self._drawn_at = time.monotonic()
            self._live.update(self.render(), refresh=True)

    def render(self) -> Group:
        """The table with its headline."""
        engine = self._engine
        objective = engine.config.objective[0].metric
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("trial", "role", "encoder", "pool", "status", "epoch", "rung", objective, "time"):
            table.add_column(title, justify="right" if title in ("epoch", "rung", objective, "time") else "left")
        for row in self._rows():
            table.add_row(*row)
        return Group(self._headline(), table)

    def _headline(self) -> Text:
        engine = self._engine
        progress = engine.progress()
        best = f"best {progress.best:.4f} ({progress.best_trial})" if progress.best is not None else "no result yet"
        left = f", about {_clock(progress.left_s)} left" if progress.left_s is not None else ""
        money = f", ${engine.usd:.2f}" if engine.usd else ""
        counts = " ".join(f"{count} {status}" for status, count in progress.counts.items() if count)
        return Text(
            f"{engine.folder.name}: trial {progress.entered} of {progress.trials} | {counts} | {best} | "
            f"{_clock(engine.elapsed_s)}{left}{money}",
            style="bold",
        )

    def _rows(self) -> list[tuple[str | Text, ...]]:
        engine = self._engine
        running = [self._row(name, "running") for name in engine.running]
        ended = engine.ended[-max(0, ROWS - len(running)) :]
        return running + [self._row(name, status) for name, status in reversed(ended)]

    def _row(self, name: str, status: str) -> tuple[str | Text, ...]:
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
