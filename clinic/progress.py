"""What a person sees of films being worked through: a moving line on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EVERY_S = 10.0
Tell = Callable[[int, int, int], None]
"""Films done, films in all, films that could not be used."""


@contextmanager
def film_progress(console: Console | None = None) -> Iterator[Tell]:
    """A `progress` that prints, to standard error by default."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines(console)
        return
    columns = (TextColumn("films"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[bad]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=None, bad="")
        yield lambda done, total, bad: bar.update(task, completed=done, total=total, bad=_bad(bad))


def _plain_lines(console: Console) -> Tell:
    began = last = time.monotonic()

    def tell(done: int, total: int, bad: int) -> None:
        nonlocal last
        if time.monotonic() - last < EVERY_S:
            return
        last = time.monotonic()
        speed = done / (last - began)
        console.print(f"films: {done} of {total}, {speed:.1f}/s{_bad(bad)}", highlight=False, soft_wrap=True)

    return tell


def _bad(count: int) -> str:
    return f", {count} not usable" if count else ""
