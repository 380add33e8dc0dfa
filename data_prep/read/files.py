"""Files at paths or URIs, opened with limits: nothing that is no file, empty, or larger than any film."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from pyarrow import fs

from data_prep.schema import ReadError

MAX_FILE_BYTES = 208 * 1024 * 1024
"""Room for the largest image that is read (images.MAX_PIXELS) at 16 bits, with its header."""


FilePath = str | os.PathLike[str] | bytes
"""Where a file is: its path or URI; or its whole content, of a file that is on no disk."""


@contextmanager
def open_file(path: FilePath) -> Iterator[tuple[Any, int]]:
    """An open binary file and its size. Raises ReadError for what is no file, is empty, or too large."""
    try:
        text = "" if isinstance(path, bytes) else os.fspath(path)
        file: Any
        if isinstance(path, bytes):
            file, size = io.BytesIO(path), len(path)
        elif "://" in text:
            filesystem, inside = _remote(text)
            file = filesystem.open_input_file(inside)
            size = file.size()
        else:
            status = Path(text).stat()
            if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
                raise ReadError("unreadable", "not a regular file")
            file = Path(text).open("rb", buffering=0)  # noqa: SIM115 - closed below
            size = status.st_size
    except OSError as error:
        raise ReadError("unreadable", f"cannot be opened: {error}") from error
    with file:
        if size == 0:
            raise ReadError("empty_file", "the file has no bytes")
        if size > MAX_FILE_BYTES:
            raise ReadError("absurd_size", f"the file has {size} bytes; at most {MAX_FILE_BYTES} are read")
        yield file, size


def _remote(uri: str) -> tuple[fs.FileSystem, str]:
    scheme, _, rest = uri.partition("://")
    bucket, _, inside = rest.partition("/")
    filesystem, base = _bucket(f"{scheme}://{bucket}")
    return filesystem, f"{base}/{inside}" if base else f"/{inside}"


@lru_cache(maxsize=16)
def _bucket(uri: str) -> tuple[fs.FileSystem, str]:
    """A client per bucket, not per file: making one asks the store for its region."""
    filesystem, base = fs.FileSystem.from_uri(uri if not uri.startswith("file://") else "file:///")
    return filesystem, base.strip("/")


def read_at(file: Any, start: int, count: int) -> bytes:
    """Up to `count` bytes of an open file from `start` on."""
    file.seek(start)
    parts = []
    while count > 0 and (part := file.read(count)):  # an unbuffered read may return less
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def read_all(path: FilePath) -> bytes:
    """The content of a file. Raises ReadError as `open_file`."""
    with open_file(path) as (file, size):
        return read_at(file, 0, size)
