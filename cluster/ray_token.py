"""The token by which Ray's servers know their user: whoever can read it can run code as this user.

Ray makes `~/.ray/auth_token` by the umask, so mostly readable for everyone. Here it is made for its owner alone, and
one that others can read is not used: on this machine another takes its place for the session, and to join a cluster is
refused until the file is private.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATH_VARIABLE = "RAY_AUTH_TOKEN_PATH"
TOKEN_VARIABLE = "RAY_AUTH_TOKEN"


class OpenTokenError(ValueError):
    """A token file that others can read; the message says how to close it."""


@contextmanager
def private_token(*, joins: bool) -> Iterator[None]:
    """Have Ray use a token that no other user can read.

    Args:
        joins: whether a cluster is joined, whose token must be the given one; else any will do.

    Raises:
        OpenTokenError: the token that must be used can be read by others.
    """
    named = os.environ.get(PATH_VARIABLE)
    if os.environ.get(TOKEN_VARIABLE):
        yield
    elif named or joins:
        file = Path(named) if named else _default()
        if file is not None and (others := _others_may(file)):
            raise OpenTokenError(
                f"{file}, the token of Ray's cluster, can be {others} by other users: `chmod 600 {file}`, and have a "
                "new one made if they may have seen it"
            )
        yield
    else:
        with tempfile.TemporaryDirectory(prefix="mammosearch-") as folder:
            os.environ[PATH_VARIABLE] = str(_own() or _made(Path(folder) / "auth_token"))
            try:
                yield
            finally:
                del os.environ[PATH_VARIABLE]


def _own() -> Path | None:
    """`~/.ray/auth_token`, made if there is none; None if it cannot be made or others can read it."""
    file = _default()
    if file is None or (file.exists() and _others_may(file)):
        return None
    try:
        return file if file.exists() else _made(file)
    except OSError:
        return None


def _made(file: Path) -> Path:
    """A new token, in a file and a folder for the owner alone."""
    if not file.parent.exists():
        file.parent.mkdir(mode=0o700, parents=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(secrets.token_hex(32))
    return file


def _default() -> Path | None:
    """Where Ray looks; None for a user without a home."""
    try:
        return Path.home() / ".ray" / "auth_token"
    except RuntimeError:
        return None


def _others_may(file: Path) -> str:
    """What others may do with a file; empty if nothing, or if it is not there."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return ""
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        return "read"
    return "written" if mode & (stat.S_IWGRP | stat.S_IWOTH) else ""
