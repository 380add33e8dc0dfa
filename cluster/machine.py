"""The machine: its cores, and what Ray needs of it and tells badly where it is missing."""

from __future__ import annotations

import os
import resource
import socket
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

FEWEST_FILES, ENOUGH_FILES = 256, 4096
"""Open files of a process: with fewer than the first Ray's servers die; so many are asked for."""
LONGEST_TEMP = 40
"""Characters of the folder of Ray's sessions. The system takes 107 for a socket, of which Ray's names need some 65."""
ANSWER_S = 5.0


def machine_cpus() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def check_machine() -> None:
    """What starting Ray here needs.

    Raises:
        RuntimeError: too few files may be open, or the loopback interface does not work.
    """
    _allow_files()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        try:
            socket.create_connection(listener.getsockname(), timeout=ANSWER_S).close()
        except OSError as error:
            raise RuntimeError(f"127.0.0.1 does not answer ({error.strerror or error}): `ip link set lo up`") from error


def check_address(address: str) -> None:
    """Whether something answers where a cluster is said to be; Ray itself would go on asking.

    Args:
        address: what `RAY_ADDRESS` says: `host:port`, `ray://host:port`; `auto` and `local` are left to Ray.

    Raises:
        ValueError: the address has no host and port.
        ConnectionError: nothing answers there.
    """
    if address in ("auto", "local"):
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise ValueError(f"RAY_ADDRESS is {address!r}; it must be host:port, or unset to start Ray here")
    try:
        socket.create_connection((host, port), timeout=ANSWER_S).close()
    except OSError as error:
        raise ConnectionError(
            f"RAY_ADDRESS is {address}, where no cluster answers ({error.strerror or error}); start one, or unset it"
        ) from error


def session_folder() -> str | None:
    """A folder for Ray's sessions if the usual one has too long a name for sockets, else None."""
    usual = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(usual)) <= LONGEST_TEMP:
        return None
    short = next((path for path in ("/tmp", "/var/tmp", "/dev/shm") if os.access(path, os.W_OK | os.X_OK)), None)
    return None if short is None else str(Path(short) / f"ray-{os.getuid()}")


def _allow_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft != resource.RLIM_INFINITY and soft < FEWEST_FILES:
        raise RuntimeError(
            f"only {soft} files may be open at once, and Ray needs {FEWEST_FILES}: `ulimit -n {ENOUGH_FILES}`"
        )
