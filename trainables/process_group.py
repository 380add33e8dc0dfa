"""The process group of several workers that train one model together. It listens to nobody else.

    meeting = open_meeting(one_machine=True, address="10.0.0.7")               # rank 0
    join_group(meeting.place, rank=2, world_size=4, backend="gloo")            # every rank; rank 0 with its `meeting`

torch's usual store is a TCP server on all interfaces that serves whoever connects, without a secret. Workers on one
machine meet in a file that only their user can read, and talk over loopback. Across machines the store is bound to the
one address that the cluster uses (docs/cluster.md says what must not reach it). One worker alone needs no group at all.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

FILE = "file:"
TIMEOUT = timedelta(minutes=30)
"""How long a collective operation may take, as torch and Ray have it."""


@dataclass
class Meeting:
    """Where the workers of a group meet; held by rank 0, which opened it."""

    place: str
    """`file:/path`, or `host:port`."""
    listening: socket.socket | None = None


def open_meeting(*, one_machine: bool, address: str) -> Meeting:
    """Open a place to meet.

    Args:
        one_machine: whether all workers run on this one.
        address: of this machine, by which the others reach it.
    """
    if one_machine:
        folder = Path(tempfile.mkdtemp(prefix="mammosearch-group-"))  # for this user alone
        return Meeting(f"{FILE}{folder / 'store'}")
    listening = socket.create_server((address, 0), family=_family(address))
    return Meeting(f"{address}:{listening.getsockname()[1]}", listening)


def join_group(place: str, *, rank: int, world_size: int, backend: str, meeting: Meeting | None = None) -> None:
    """Make this process one of the group; returns once all have come.

    Args:
        place: where they meet.
        rank: of this process.
        world_size: how many they are.
        backend: `gloo` or `nccl`.
        meeting: what `open_meeting` gave; rank 0 alone has it.
    """
    store: dist.Store
    if place.startswith(FILE):
        for library in ("GLOO", "NCCL"):  # their own connections
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", _loopback())
        store = dist.FileStore(place.removeprefix(FILE), world_size)
    else:
        host, _, port = place.rpartition(":")
        own = meeting.listening.detach() if meeting is not None and meeting.listening is not None else None
        store = dist.TCPStore(
            host,
            int(port),
            world_size,
            is_master=own is not None,
            timeout=TIMEOUT,
            wait_for_workers=False,  # rank 0 would wait in its constructor, for no one to connect to yet
            master_listen_fd=own,
        )
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=TIMEOUT)


def leave_group(meeting: Meeting | None) -> None:
    """End the group in this process, and clear the place away."""
    if dist.is_initialized():
        dist.destroy_process_group()
    if meeting is not None and meeting.place.startswith(FILE):
        shutil.rmtree(Path(meeting.place.removeprefix(FILE)).parent, ignore_errors=True)


def _loopback() -> str:
    """The name of this machine's loopback interface: `lo`, `lo0`."""
    return next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
