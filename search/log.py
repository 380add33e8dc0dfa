"""The study's log, `decisions/`: every decision, and every event that one was made from, in the order they were known.

    {"what": "start", "trial": 7, "until": 1, "params": {...}, "known": 31, "sum": "..."}    decisions: start, resume,
    {"what": "report", "trial": 7, "epoch": 1, "values": [0.41], "sum": "..."}               stop; events: report,
    {"what": "pause", "trial": 7, "sum": "..."}                                              pause, end, limit

`known` is how many events were known when the decision was made. A line's `sum` is made of the line and of the sum
before it, so that a line that was changed, or is missing, shows. The lines lie in parts of `PART_LINES`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from cluster.storage import Folder

LOG = "decisions"
PART_LINES = 2000
Line = dict[str, Any]


class Log:
    """The log of one study, read whole and added to.

    Args:
        folder: the study's folder.

    Raises:
        ValueError: a line does not follow from the one before. A last line that was cut off by a kill is left out.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder / LOG
        self.lines: list[Line] = []
        """What was there when it was opened."""
        self._sum, self._count = "", 0
        self._waiting: list[str] = []
        self._part: list[str] = []
        """The lines of the part that is written now, where a part is written as a whole."""
        self._read()

    def add(self, line: Line) -> None:
        """A line; it is there for good once `flush` was called."""
        self._sum, text = _summed(self._sum, line)
        self._waiting.append(text)

    def flush(self) -> None:
        """Write what was added."""
        while self._waiting:
            room = PART_LINES - self._count % PART_LINES
            self._write(self._waiting[:room])
            self._count += len(self._waiting[:room])
            del self._waiting[:room]

    def _write(self, texts: list[str]) -> None:
        name, content = _part_name(self._count // PART_LINES), "".join(texts)
        if (local := self._folder.local) is not None:
            local.mkdir(exist_ok=True)
            with (local / name).open("a") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            return
        kept = self._part if self._count % PART_LINES else []
        self._part = [*kept, *texts]
        self._folder.write_text(name, "".join(self._part))

    def _read(self) -> None:
        texts: list[str] = []
        for where, text in _texts(self._folder):
            if not text.endswith("\n"):
                break  # cut off by a kill, and never acted on
            self._sum, line = _checked(self._sum, text, where)
            self.lines.append(line)
            texts.append(text)
        self._count = len(texts)
        self._part = texts[self._count // PART_LINES * PART_LINES :]
        if self._folder.exists(name := _part_name(self._count // PART_LINES)):
            self._folder.write_text(name, "".join(self._part))


def read_log(folder: Folder) -> Iterator[tuple[str, Line]]:
    """The lines of a study's log with where each stands, for reading alone; stops where a line does not follow.

    Raises:
        ValueError: there is a line that does not follow from the one before; the message says where.
    """
    before = ""
    for where, text in _texts(folder / LOG):
        before, line = _checked(before, text, where)
        yield where, line


def _texts(folder: Folder) -> Iterator[tuple[str, str]]:
    for part in sorted(name for name in folder.names() if name.endswith(".jsonl")):
        for number, text in enumerate(folder.read_text(part).splitlines(keepends=True), start=1):
            yield f"{LOG}/{part}, line {number}", text


def _checked(before: str, text: str, where: str) -> tuple[str, Line]:
    try:
        line = json.loads(text)
        told = line.pop("sum")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{where}: not a line of the log: {error!r}; put it back from a copy") from error
    found, _ = _summed(before, line)
    if told != found:
        raise ValueError(f"{where}: does not follow from the line before: changed, or lines are missing; {PUT_BACK}")
    return found, line


def _summed(before: str, line: Line) -> tuple[str, str]:
    """The sum of a line that stands after the sum `before`, and its text with it."""
    body = json.dumps(line, ensure_ascii=False)
    found = hashlib.sha256(f"{before}{body}".encode()).hexdigest()[:16]
    return found, f'{body[:-1]}, "sum": "{found}"}}\n'


def _part_name(part: int) -> str:
    return f"{part:06d}.jsonl"


PUT_BACK = "nothing was changed; put it back from a copy"
