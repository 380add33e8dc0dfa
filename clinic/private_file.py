"""A file that its owner alone may read: a secret, a token. Made of mode 0600, refused if others may read it."""

from __future__ import annotations

import os
from pathlib import Path


def read_private(file: Path, *, make: bytes | None = None) -> bytes:
    """The content of a private file.

    Args:
        file: where it is.
        make: its content, where there is none yet; None: it must be there.

    Raises:
        ValueError: it is not there, is empty, or others on this machine may read it.
    """
    if make is not None and not file.exists():
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as new:
            new.write(make)
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    if file.stat().st_mode & 0o077:
        raise ValueError(f"others on this machine may read {file}; `chmod 600 {file}`")
    content = file.read_bytes()
    if not content.strip():
        raise ValueError(f"{file} is empty")
    return content
