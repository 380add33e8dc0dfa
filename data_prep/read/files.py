"""Files at paths or URIs, opened once and with limits: nothing that is no file, empty, or larger than any film.

What is wrong with a file itself is a `ReadError`, a row of the list of what was left out. What is wrong with the disk
or the network is none: such an error passes, or the build ends and says so (`patiently`).
"""

from __future__ import annotations

import errno
import functools
import io
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from data_prep.read.remote import RemoteFile
from data_prep.schema import ReadError

LOG = logging.getLogger(__name__)
MAX_FILE_BYTES = 208 * 1024 * 1024
"""Room for the largest image that is read (images.MAX_PIXELS) at 16 bits, with its header."""
HEAD_BYTES = 16 * 1024
"""Enough for most headers; what is read of a remote file at first."""
OWN_FAULTS = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO}
)
"""What the system says of the file asked for. Anything else (EIO, ESTALE, ETIMEDOUT, EMFILE ...) it says of itself."""
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""How long to wait before a file is read again after a passing error."""

P = ParamSpec("P")
T = TypeVar("T")
PathT = TypeVar("PathT", bound="FilePath")
FilePath = str | os.PathLike[str] | bytes
"""Where a file is: its path or URI; or its whole content, of a file that is on no disk."""


def patiently(
    read: Callable[Concatenate[PathT, P], T],
) -> Callable[Concatenate[PathT, P], T]:
    """Let a function that reads a file try again after an error of the disk or the network.

    The function then raises OSError if the error did not pass; its message names the file and says what to do.
    """

    @functools.wraps(read)
    def reading(path: PathT, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for wait_s in WAITS_S:
            try:
                return read(path, *args, **kwargs)
            except OSError as error:
                if error.errno in OWN_FAULTS:
                    raise
                LOG.warning("%s cannot be read now (%s), tried again in %g s", _shown(path), error, wait_s)
                time.sleep(wait_s)
        try:
            return read(path, *args, **kwargs)
        except OSError as error:
            if error.errno in OWN_FAULTS:
                raise
            text = (
                f"{_shown(path)} could not be read {len(WAITS_S) + 1} times in {sum(WAITS_S):g} s: "
                f"{error.strerror or error}. The fault is the disk's or the network's, not the file's; when it is "
                "mended, the same command goes on"
            )
            raise OSError(error.errno or errno.EIO, text) from error

    return reading


def _shown(path: FilePath) -> str:
    return f"a file of {len(path)} bytes" if isinstance(path, bytes) else os.fspath(path)


@contextmanager
def open_file(path: FilePath, *, whole: bool = False) -> Iterator[tuple[Any, int]]:
    """An open binary file and its size.

    Args:
        path: a path or URI, or a file's whole content.
        whole: whether all of it will be read; a remote file is then fetched by one request, else its first
            `HEAD_BYTES` are, and what else is wanted by further ones.

    Raises:
        ReadError: it is no file, cannot be opened, is empty, or too large.
        OSError: the disk or the network does not answer.
    """
    try:
        file, size = _open(path, whole)
    except OSError as error:
        if error.errno in OWN_FAULTS:
            raise ReadError("unreadable", f"cannot be opened: {error.strerror or error}") from error
        raise
    with file:
        if size == 0:
            raise ReadError("empty_file", "the file has no bytes")
        if size > MAX_FILE_BYTES:
            raise ReadError("absurd_size", f"the file has {size} bytes; at most {MAX_FILE_BYTES} are read")
        yield file, size


def _open(path: FilePath, whole: bool) -> tuple[Any, int]:
    if isinstance(path, bytes):
        return io.BytesIO(path), len(path)
    text = os.fspath(path)
    return _open_remote(text, whole) if "://" in text else _open_local(text)


def _open_local(path: str) -> tuple[Any, int]:
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise ReadError("unreadable", "not a regular file")
    return Path(path).open("rb", buffering=0), status.st_size


def is_remote(path: str) -> bool:
    """Whether a path is the URI of something that is not on this machine's disks."""
    return "://" in path and not path.startswith("file://")


def _open_remote(uri: str, whole: bool) -> tuple[Any, int]:
    if not is_remote(uri):
        return _open_local(uri.removeprefix("file://"))
    file = RemoteFile(uri, first=MAX_FILE_BYTES if whole else HEAD_BYTES)
    return file, file.size


def read_at(file: Any, start: int, count: int) -> bytes:
    """Up to `count` bytes of an open file from `start` on."""
    file.seek(start)
    parts = []
    while count > 0 and (part := file.read(count)):  # an unbuffered read may return less
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


@patiently
def read_all(path: FilePath) -> bytes:
    """The content of a file. Raises as `open_file`."""
    with open_file(path, whole=True) as (file, size):
        return read_at(file, 0, size)


def read_into(file: Any, start: int, target: memoryview) -> int:
    """Fill `target` with an open file's bytes from `start` on; how many there were."""
    file.seek(start)
    at = 0
    while at < len(target) and (count := file.readinto(target[at:])):
        at += count
    return at
