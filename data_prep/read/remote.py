"""Objects of a store (`s3://`, `gs://`), read by as few requests as can be: one for a header, one for a whole film.

pyarrow asks for an object's size before it reads, which doubles the requests. obstore (the extra `stores`) does not, so
it reads where it is installed and finds its credentials in the environment or by the machine's account; pyarrow, which
also reads profiles, does otherwise.
"""

from __future__ import annotations

import errno
import io
import os
from datetime import timedelta
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs

from pyarrow import fs


class Store(Protocol):
    """A bucket, as far as reading needs it."""

    def read(self, path: str, start: int, count: int) -> tuple[Any, int]:
        """At most `count` bytes of an object from `start` on, and the object's size.

        Raises:
            FileNotFoundError: there is no such object.
            PermissionError: it may not be read.
            OSError: the store does not answer.
        """


class RemoteFile(io.RawIOBase):
    """An object as a file for reading: what was fetched last is kept, the rest is asked for when it is wanted.

    Args:
        uri: of the object.
        first: bytes to fetch at once.

    Raises:
        OSError: as `Store.read`.
    """

    def __init__(self, uri: str, *, first: int) -> None:
        super().__init__()
        bare, _, options = uri.partition("?")
        scheme, _, rest = bare.partition("://")
        bucket, _, self._path = rest.partition("/")
        if not bucket or not self._path:  # pyarrow says that the store does not answer
            raise FileNotFoundError(errno.ENOENT, f"{uri} names no object")
        self._store = _open_store(f"{scheme}://{bucket}", options)
        content, self.size = self._store.read(self._path, 0, first)
        self._window, self._from, self._at = memoryview(content), 0, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position; nothing is asked for yet."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, target: Any) -> int:
        """Fill `target` from the position on, by at most one request."""
        view = memoryview(target).cast("B")
        count = min(len(view), max(self.size - self._at, 0))
        if not count:
            return 0
        if not self._from <= self._at < self._from + len(self._window):
            content, _ = self._store.read(self._path, self._at, count)
            self._window, self._from = memoryview(content), self._at
        start = self._at - self._from
        count = min(count, len(self._window) - start)
        view[:count] = self._window[start : start + count]
        self._at += count
        return count


@lru_cache(maxsize=16)
def _open_store(bucket: str, options: str) -> Store:
    """A client per bucket, not per file."""
    fast = bucket.startswith(("s3://", "gs://")) and find_spec("obstore") is not None and not _uses_profile(bucket)
    return _OneRequest(bucket, options) if fast else _Arrow(bucket, options)


def _uses_profile(bucket: str) -> bool:
    """Whether only a profile of the AWS configuration says who asks."""
    if not bucket.startswith("s3://") or "AWS_ACCESS_KEY_ID" in os.environ:
        return False
    named = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    return "AWS_PROFILE" in os.environ or Path(named).expanduser().exists()


class _OneRequest:
    """Through obstore."""

    def __init__(self, bucket: str, options: str) -> None:
        from obstore.exceptions import BaseError  # noqa: PLC0415 - an extra
        from obstore.store import from_url  # noqa: PLC0415

        said = {name: values[-1] for name, values in parse_qs(options).items()}
        config: dict[str, Any] = {}
        if "endpoint_override" in said:
            config["endpoint"] = f"{said.get('scheme', 'https')}://{said['endpoint_override']}"
        if "region" in said:
            config["region"] = said["region"]
        patience: Any = {"max_retries": 30, "retry_timeout": timedelta(seconds=60)}
        try:
            self._store = from_url(bucket, client_options={"allow_http": True}, retry_config=patience, **config)
        except (BaseError, ValueError) as error:
            raise FileNotFoundError(errno.ENOENT, f"{bucket} is no object store") from error

    def read(self, path: str, start: int, count: int) -> tuple[Any, int]:
        import obstore  # noqa: PLC0415
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError  # noqa: PLC0415

        try:
            answer = obstore.get(self._store, path, options={"range": (start, start + count)})
            return answer.bytes(), int(answer.meta["size"])
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "no such object") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise PermissionError(errno.EACCES, f"the store does not let it be read: {_short(error)}") from error
        except BaseError as error:
            if "InvalidRange" in str(error) and start == 0:  # there is not a byte to give
                return b"", 0
            raise OSError(errno.EIO, f"the store does not answer: {_short(error)}") from error


class _Arrow:
    """Through pyarrow, one request for the size and one for the bytes."""

    def __init__(self, bucket: str, options: str) -> None:
        self._fs, base = fs.FileSystem.from_uri(f"{bucket}?{options}" if options else bucket)
        self._base = base.strip("/")

    def read(self, path: str, start: int, count: int) -> tuple[Any, int]:
        try:
            with self._fs.open_input_file(f"{self._base}/{path}" if self._base else path) as file:
                return file.read_at(min(count, max(file.size() - start, 0)), start), file.size()
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "no such object") from error
        except OSError as error:
            if "ACCESS_DENIED" in str(error):
                raise PermissionError(errno.EACCES, f"the store does not let it be read: {_short(error)}") from error
            raise OSError(errno.EIO, f"the store does not answer: {_short(error)}") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
