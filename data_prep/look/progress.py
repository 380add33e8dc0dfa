"""What a person sees of a build: one moving line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from data_prep.build import BuildProgress, Progress

EVERY_S = 5.0
STAGES = {
    "wait": "waiting for another build of the same folder",
    "find": "finding samples",
    "prepare": "preparing",
    "finish": "writing the card",
}


@contextmanager
def console_progress(console: Console | None = None) -> Iterator[Progress]:
    """A `progress` for `build` that prints.

    Args:
        console: where; standard error by default.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines(console)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with RichProgress(*columns, console=console, transient=True) as bar:
        yield _MovingLine(bar)


class _MovingLine:
    def __init__(self, bar: RichProgress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, speed="")

    def __call__(self, state: BuildProgress) -> None:
        self._bar.update(
            self._task,
            description=STAGES[state.stage],
            total=state.total or None,
            completed=state.done,
            speed=_speed(state) if state.built_here else "",
        )


class _PlainLines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ("", 0.0)

    def __call__(self, state: BuildProgress) -> None:
        stage, at = self._last
        ended = state.total > 0 and state.done == state.total
        if state.stage == stage and not ended and time.monotonic() - at < EVERY_S:
            return
        self._last = (state.stage, time.monotonic())
        counts = f": {state.done} of {state.total} images" if state.total else ""
        speed = f", {_speed(state)}" if state.built_here else ""
        self._console.print(f"{STAGES[state.stage]}{counts}{speed}", highlight=False, soft_wrap=True)


def _speed(state: BuildProgress) -> str:
    return f"{state.images_per_s:.1f} images/s, {state.rejected} left out"
