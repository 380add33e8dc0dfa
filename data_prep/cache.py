"""What this machine remembers of films: their headers and their decoded samples, for nobody's eyes but the owner's.

    cache_root()/index/<source>-<...>.parquet    headers of a source's files (`data_prep.find.index`)
    cache_root()/<fingerprint>/*.npy             decoded samples of a shard folder (`data_prep.decoded`)

Folders have mode 0700 and files 0600. Everything here may be deleted at any time: `python -m data_prep.run forget`.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
INDEX = "index"
DECODED = re.compile(r"[0-9a-f]{32}")
"""Name of a folder of decoded samples: the first half of a card's fingerprint."""


def cache_root() -> Path:
    """MAMMOSEARCH_CACHE, or `mammosearch` in the user's cache folder."""
    named = os.environ.get("MAMMOSEARCH_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "mammosearch"


def cache_folder(name: str) -> Path:
    """The folder `name` of the cache, made if it is not there, into which only its owner can look.

    Raises:
        OSError: it cannot be made; the message names the setting that moves it.
    """
    path = cache_root() / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
        path.mkdir(exist_ok=True, mode=PRIVATE_FOLDER)
        status = path.stat()
        if status.st_mode & 0o077 and status.st_uid == os.getuid():
            path.chmod(PRIVATE_FOLDER)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; MAMMOSEARCH_CACHE names another place", str(path)) from error
    return path


@contextmanager
def private_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be written that only its owner can read: aside first, in its place when all is written."""
    aside = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE), "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def remembered() -> list[Path]:
    """The folders that `forget` removes."""
    root = cache_root()
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.is_dir() and (p.name == INDEX or DECODED.fullmatch(p.name)))


def forget() -> int:
    """Remove all that this machine remembers of films. Returns the bytes that were freed."""
    freed = 0
    for folder in remembered():
        freed += sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())
        shutil.rmtree(folder)
    return freed
