"""Folders that may lie on a disk or in an object store, through pyarrow's file systems.

Every folder of the project (shards, studies, trials, models) is reached as a `Folder`, made from a path or from a
URI (`file://`, `s3://`, `gs://`). A file is written aside and moved into place, so nobody ever reads half of one: on
a disk by `os.replace`, in an object store because an object appears only when its upload has ended.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrow import fs


class Folder:
    """A folder at a local path or at a URI.

    Args:
        root: a path (made absolute) or a URI of a scheme that pyarrow knows: `file`, `s3`, `gs`.

    Raises:
        ValueError: the URI's scheme is unknown.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        text = os.fspath(root)
        if "://" in text:
            try:
                self._fs, self._path = fs.FileSystem.from_uri(text)
            except Exception as error:
                raise ValueError(
                    f"cannot use {text!r} as a folder: {error}; give a path or a file://, s3:// or gs:// URI"
                ) from error
            self._path = self._path.rstrip("/")
            self.uri = text.rstrip("/")
            if isinstance(self._fs, fs.LocalFileSystem):
                self.uri = self._path
        else:
            self._fs = fs.LocalFileSystem()
            self._path = str(Path(text).expanduser().absolute())
            self.uri = self._path

    def __str__(self) -> str:
        return self.uri

    def __repr__(self) -> str:
        return f"Folder({self.uri!r})"

    def __truediv__(self, name: str) -> Folder:
        """The folder `name` inside this one; it need not exist yet."""
        return Folder(f"{self.uri}/{name}")

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
        return self._fs.get_file_info(self._at(name)).type != fs.FileType.NotFound

    def read_bytes(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""
        with self._fs.open_input_stream(self._at(name)) as stream:
            return stream.read()

    def read_text(self, name: str) -> str:
        """The content of a UTF-8 file. Raises FileNotFoundError."""
        return self.read_bytes(name).decode()

    def read_json(self, name: str) -> Any:
        """The value in a JSON file. Raises FileNotFoundError, or ValueError that names the file."""
        try:
            return json.loads(self.read_text(name))
        except json.JSONDecodeError as error:
            raise ValueError(f"{self.uri}/{name} is not JSON: {error}") from error

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file as a whole: readers see the old content or the new, never a part."""
        target = self._at(name)
        if self.local is None:
            with self._fs.open_output_stream(target) as stream:
                stream.write(content)
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
        return sorted(info.base_name for info in self._fs.get_file_info(selector))

    def walk(self) -> Iterator[tuple[str, int]]:
        """Every file below the folder, as (path relative to it, size in bytes), in sorted order."""
        selector = fs.FileSelector(self._path, recursive=True, allow_not_found=True)
        infos = self._fs.get_file_info(selector)
        skip = len(self._path) + 1
        yield from sorted((info.path[skip:], info.size) for info in infos if info.type == fs.FileType.File)

    def remove(self, name: str = "") -> None:
        """Remove a file, or a folder with all it holds; nothing happens if it does not exist."""
        target = self._at(name)
        kind = self._fs.get_file_info(target).type
        if kind == fs.FileType.File:
            self._fs.delete_file(target)
        elif kind == fs.FileType.Directory:
            self._fs.delete_dir(target)

    def put_folder(self, source: Path, name: str, *, move: bool = False) -> None:
        """Copy a local folder here as `name`, whole or not at all on a disk; file by file in an object store.

        In an object store the file `complete` is written last: a folder without it was cut off (see `complete`).
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

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path
