"""Work on many films: a job that can be sent to other processes, and where it is done.

job.open() -> a function from one film to its outcome        (a predictor, an archivist)
here(job, films)                                             one film after the other in this process
clinic.on_ray.over(workers)(job, films)                      on many cores, GPUs or machines
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from clinic.films import FilmFile


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one film: plain values, so that it can be sent and written."""

    row: dict[str, Any]
    """One line of a table of films."""
    lesions: list[dict[str, Any]] = field(default_factory=list)
    """Lines of a table of lesions."""


class Job(Protocol):
    """What is to be done with each film."""

    def open(self) -> Callable[[FilmFile], Outcome]:
        """Load what it takes, once in each process; gives the function that does it."""


Spread = Callable[[Job, Sequence[FilmFile]], Iterator[tuple[FilmFile, Outcome]]]
"""Where a job is done: yields each film with its outcome, in any order."""


def here(job: Job, films: Sequence[FilmFile]) -> Iterator[tuple[FilmFile, Outcome]]:
    """One film after the other in this process."""
    work = job.open()
    for film in films:
        yield film, work(film)
