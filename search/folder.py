"""A study's folder: whether a study may begin or go on there, and which run of the driver is in charge of it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.storage import Folder
from search.budget import Spent
from search.events import Event
from search.proof.provenance import STUDY, StudyInfo, read_info
from trainables.order import SESSION
from trainables.record import now, trial_paths

LOG = logging.getLogger("mammosearch")
PROGRESS = "progress.json"
SAVE_EVERY_S = 5.0


def begun(folder: Folder, *, resume: bool) -> StudyInfo | None:
    """What `study.json` says of the study to go on with; None where one is to begin.

    A study whose data were still prepared when it was interrupted has none yet, and begins, with `resume` or without.

    Raises:
        ValueError: a study is there and is not to be resumed, or none is and one is; or its `study.json` is gone or
            damaged. Nothing was changed.
    """
    if folder.exists(STUDY):
        if not resume:
            raise ValueError(f"{folder} already holds a study; go on with it by --resume, or choose another --out")
        return read_info(folder)
    if trials := list(trial_paths(folder)):
        raise ValueError(
            f"{folder} holds {len(trials)} trials, but its {STUDY} is missing; put it back from a copy, or choose "
            "another --out. Nothing was changed"
        )
    if resume and not folder.exists(SESSION):
        raise ValueError(f"{folder} holds no study to resume; begin it without --resume")
    return None


@contextmanager
def in_charge(folder: Folder) -> Iterator[str]:
    """Be the one driver of the study; gives this session's name.

    On this machine a lock keeps a second driver out, and is gone with the process that held it. `session.json` tells
    workers of an earlier driver, wherever they are, to write nothing more.

    Raises:
        ValueError: another process on this machine runs the study.
    """
    session = uuid.uuid4().hex[:12]
    with contextlib.ExitStack() as stack:
        if folder.local is not None:
            folder.local.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder.local / "driver.lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(f"another process runs the study in {folder}; wait for it or end it") from error
        folder.write_json(SESSION, {"session": session, "began_at": now()})
        yield session


class Clock:
    """`progress.json`: the seconds that a study has taken, for the sessions after this one. It is a listener."""

    def __init__(self, folder: Folder, spent: Spent) -> None:
        self._folder, self._spent = folder, spent
        self._saved_at = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Write it now and then."""
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write it."""
        self._saved_at = time.monotonic()
        self._folder.write_json(PROGRESS, {"elapsed_s": round(self._spent.elapsed_s, 1)})


def elapsed_s(folder: Folder) -> float:
    """The seconds that earlier sessions took; 0, and a line that says so, where the file cannot be read."""
    if not folder.exists(PROGRESS):
        return 0.0
    try:
        return float(folder.read_json(PROGRESS)["elapsed_s"])
    except (ValueError, KeyError, TypeError) as error:
        LOG.warning("%s/%s cannot be read (%r): the study's time is counted from 0", folder, PROGRESS, error)
        return 0.0
