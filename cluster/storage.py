"""Folders that may lie on a disk or in an object store, through pyarrow's file systems.

Every folder of the project (shards, studies, trials, models) is reached as a `Folder`, made from a path or from a
URI (`file://`, `s3://`, `gs://`). A file is written aside and moved into place, so nobody ever reads half of one: on
a disk by `os.replace`, in an object store because an object appears only when its upload has ended. A line that breaks
loses nothing: what an object store did not answer is asked again until `PATIENCE_S` have passed.

A server of one's own that speaks S3 is named by the environment (AWS_ENDPOINT_URL) or by the URI
(`s3://bucket/folder?endpoint_override=host:port&scheme=http`). Who may come in, the environment, a profile or the
machine's own account says, never the URI.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

import pyarrow.parquet as pq
from pyarrow import fs

LOG = logging.getLogger(__name__)
PATIENCE_S = 300.0
"""How long an object store that does not answer is asked again before that is an error."""
REFUSALS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "PERMISSION_DENIED")
"""What an object store says that asking again does not change."""

READ_AHEAD_BYTES = 1 << 20
"""What one request to an object store fetches at least, where a file is read piece by piece."""

_HALF_A_URI = re.compile(r"(s3|gs|gcs|file|https?|ftp|hdfs|abfs):(?!//)")

T = TypeVar("T")


class FileInfo(NamedTuple):
    """A file below a folder."""

    path: str
    """Relative to the folder."""
    size: int
    """Bytes."""
    mtime_ns: int
    """When it was last changed; 0 where the storage does not say."""


class Folder:
    """A folder at a local path or at a URI.

    Args:
        root: a path (made absolute) or a URI of a scheme that pyarrow knows: `file`, `s3`, `gs`.

    Raises:
        ValueError: the path is empty or names an unknown user's home; the URI's scheme is unknown.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        text = os.fspath(root)
        if not text:
            raise ValueError("an empty path is no folder; name one, or `.` for the present one")
        if _HALF_A_URI.match(text):
            raise ValueError(f"{text!r} is no folder: a URI begins with two slashes, as in s3://bucket/folder")
        if "://" in text:
            try:
                self._fs, self._path = fs.FileSystem.from_uri(text)
            except Exception as error:
                raise ValueError(
                    f"cannot use {text!r} as a folder: {error}; give a path or a file://, s3:// or gs:// URI"
                ) from error
            self._path = self._path.rstrip("/")
            if not self._path and not isinstance(self._fs, fs.LocalFileSystem):
                raise ValueError(f"{text!r} names no bucket: s3://bucket/folder")
            place, mark, options = text.partition("?")
            self._base, self._options = place.rstrip("/"), mark + options
            if isinstance(self._fs, fs.LocalFileSystem):
                self._base, self._options = self._path, ""
        else:
            self._fs = fs.LocalFileSystem()
            self._path = str(_expanded(text).absolute())
            self._base, self._options = self._path, ""

    @property
    def uri(self) -> str:
        """The path or URI that opens this folder again, wherever it is the same storage."""
        return self._base + self._options

    def __str__(self) -> str:
        return self._base

    def __repr__(self) -> str:
        return f"Folder({self.uri!r})"

    def __truediv__(self, name: str) -> Folder:
        """The folder `name` inside this one; it need not exist yet."""
        return Folder(f"{self._base}/{name}{self._options}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._path.rsplit("/", 1)[-1]

    @property
    def local(self) -> Path | None:
        """The path on this machine's disk, or None where the folder is in an object store."""
        return Path(self._path) if isinstance(self._fs, fs.LocalFileSystem) else None

    @property
    def filesystem(self) -> fs.FileSystem:
        """The pyarrow file system that holds the folder, for readers that take one."""
        return self._fs

    @property
    def path(self) -> str:
        """The folder's path inside `filesystem`."""
        return self._path

    def exists(self, name: str = "") -> bool:
        """Whether the file or folder `name` exists."""
        return self._kind(name) != fs.FileType.NotFound

    def read_bytes(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""

        def read() -> bytes:
            with self._fs.open_input_stream(self._at(name)) as stream:
                return bytes(stream.read())

        return self._patiently(read)

    def open_input(self, name: str) -> BinaryIO:
        """A file to read from at any place, buffered; each read is asked again as all else here.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the store refused, or did not answer for `PATIENCE_S`.
        """
        if self.local is not None:
            return Path(self._at(name)).open("rb")
        return cast(BinaryIO, io.BufferedReader(_PatientFile(self, name), READ_AHEAD_BYTES))

    def parquet(self, name: str) -> pq.ParquetFile:
        """A Parquet file, its footer read. Raises FileNotFoundError, or ValueError that names what is no Parquet."""
        try:
            return pq.ParquetFile(self.open_input(name))
        except (ValueError, EOFError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise ValueError(f"{self}/{name} is not Parquet: {error}") from error

    def read_text(self, name: str) -> str:
        """The content of a UTF-8 file. Raises FileNotFoundError, or ValueError that names the file."""
        try:
            return self.read_bytes(name).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{self}/{name} is not UTF-8 text: {error}") from error

    def read_json(self, name: str) -> Any:
        """The value in a JSON file. Raises FileNotFoundError, or ValueError that names the file."""
        try:
            return json.loads(self.read_text(name))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{self}/{name} is not JSON: {error}") from error

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file as a whole: readers see the old content or the new, never a part."""
        target = self._at(name)
        if self.local is None:
            self._patiently(lambda: self._upload(target, content))
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        aside = f"{target}.tmp-{uuid.uuid4().hex[:8]}"
        try:
            with Path(aside).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(aside).replace(target)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise

    def write_text(self, name: str, content: str) -> None:
        """`write_bytes` of UTF-8 text."""
        self.write_bytes(name, content.encode())

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as indented JSON that ends with a newline."""
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def names(self) -> list[str]:
        """The names of the files and folders directly inside, sorted; empty if the folder does not exist."""
        selector = fs.FileSelector(self._path, allow_not_found=True)
        return sorted(info.base_name for info in self._patiently(lambda: self._fs.get_file_info(selector)))

    def folders(self) -> list[str]:
        """The names of the folders directly inside, sorted; empty if the folder does not exist."""
        selector = fs.FileSelector(self._path, allow_not_found=True)
        infos = self._patiently(lambda: self._fs.get_file_info(selector))
        return sorted(info.base_name for info in infos if info.type == fs.FileType.Directory)

    def infos(self) -> list[FileInfo]:
        """Every file below the folder, in sorted order: one listing, wherever it lies."""
        selector = fs.FileSelector(self._path, recursive=True, allow_not_found=True)
        infos = self._patiently(lambda: self._fs.get_file_info(selector))
        skip = len(self._path.rstrip("/")) + 1
        files = (info for info in infos if info.type == fs.FileType.File)
        return sorted(FileInfo(info.path[skip:], info.size or 0, info.mtime_ns or 0) for info in files)

    def walk(self) -> Iterator[tuple[str, int]]:
        """Every file below the folder, as (path relative to it, size in bytes), in sorted order."""
        yield from ((info.path, info.size) for info in self.infos())

    def remove(self, name: str = "") -> None:
        """Remove a file, or a folder with all it holds; nothing happens if it does not exist."""
        self._patiently(lambda: self._remove(name))

    def move(self, name: str, target: str) -> None:
        """Move a file inside the folder, over one that is there. Raises FileNotFoundError."""
        if self.local is not None:
            Path(self._at(name)).replace(self._at(target))
        else:
            self._patiently(lambda: self._fs.move(self._at(name), self._at(target)))

    def put_folder(self, source: Path, name: str, *, move: bool = False) -> None:
        """Copy a local folder here as `name`, whole or not at all on a disk; file by file in an object store.

        In an object store the file `complete` is removed first and written last: a folder without it was cut off (see
        `complete`).
        With `move` a folder that lies on the same disk is moved instead of copied.
        """
        if self.local is not None:
            target = Path(self._at(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f"{target.name}.tmp-{uuid.uuid4().hex[:8]}")
            if move:
                source.replace(aside)
            else:
                shutil.copytree(source, aside)
            (aside / "complete").touch()
            if target.exists():
                shutil.rmtree(target)
            aside.replace(target)
            return
        self.remove(f"{name}/complete")
        self.remove(name)
        for file in sorted(p for p in source.rglob("*") if p.is_file()):
            self.write_bytes(f"{name}/{file.relative_to(source).as_posix()}", file.read_bytes())
        self.write_bytes(f"{name}/complete", b"")

    def complete(self, name: str) -> bool:
        """Whether the folder `name` was put here whole by `put_folder`."""
        return self.exists(f"{name}/complete")

    def get_folder(self, name: str, target: Path) -> None:
        """Copy the folder `name` from here to a local path."""
        inside = self / name
        for relative, _ in inside.walk():
            file = target / relative
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(inside.read_bytes(relative))

    def _kind(self, name: str) -> fs.FileType:
        return self._patiently(lambda: self._fs.get_file_info(self._at(name))).type

    def _remove(self, name: str) -> None:
        kind = self._kind(name)
        if kind == fs.FileType.File:
            self._fs.delete_file(self._at(name))
        elif kind == fs.FileType.Directory:
            self._fs.delete_dir(self._at(name))

    def _upload(self, target: str, content: bytes) -> None:
        with self._fs.open_output_stream(target) as stream:
            stream.write(content)

    def _patiently(self, action: Callable[[], T]) -> T:
        """What the action gives; asked again where an object store did not answer.

        Raises:
            OSError: the store refused, or did not answer for `PATIENCE_S`.
        """
        if self.local is not None:
            return action()
        began, pause_s = time.monotonic(), 0.5
        while True:
            try:
                return action()
            except FileNotFoundError:
                raise
            except OSError as error:
                if any(word in str(error) for word in REFUSALS) or time.monotonic() - began > PATIENCE_S:
                    raise
                LOG.warning("%s does not answer, and is asked again: %s", self, error)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 10.0)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path


class _PatientFile(io.RawIOBase):
    """A file of an object store: opened again and read on from its place where a read was not answered."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name, self._at = folder, name, 0
        self._file = folder._patiently(self._open)
        self._size = self._file.size()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), max(0, self._size - self._at))
        content = self._folder._patiently(lambda: self._read(count)) if count else b""
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _open(self) -> Any:
        return self._folder._fs.open_input_file(self._folder._at(self._name))

    def _read(self, count: int) -> bytes:
        try:
            return bytes(self._file.read_at(count, self._at))
        except OSError:
            self._file = self._open()
            raise


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"cannot use {text!r} as a folder: {error}") from error
