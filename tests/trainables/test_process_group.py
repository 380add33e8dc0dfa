"""python -m pytest tests/trainables/test_process_group.py: workers meet, and nobody else can come."""

import multiprocessing
import socket
import stat
from pathlib import Path

import psutil
import pytest

from trainables.process_group import FILE, join_group, leave_group, open_meeting

ADDRESS = "127.0.0.1"


def train(rank, one_machine, place, answers):
    """A worker of two: it meets the other, and adds its number to the other's."""
    import torch
    import torch.distributed as dist

    meeting = open_meeting(one_machine=one_machine, address=ADDRESS) if rank == 0 else None
    if meeting is not None:
        for _ in range(2):
            place.put(meeting.place)
    join_group(place.get(timeout=120), rank=rank, world_size=2, backend="gloo", meeting=meeting)
    total = torch.tensor([1.0 + rank])
    dist.all_reduce(total)
    found = psutil.Process().net_connections(kind="tcp")
    dist.barrier()
    leave_group(meeting)
    answers.put((rank, float(total), {c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN}))


@pytest.mark.slow
@pytest.mark.parametrize("one_machine", [True, False])
def test_two_workers_meet_at_one_address_alone(one_machine):
    context = multiprocessing.get_context("spawn")
    place, answers = context.Queue(), context.Queue()
    workers = [context.Process(target=train, args=(rank, one_machine, place, answers)) for rank in range(2)]
    for worker in workers:
        worker.start()
    told = [answers.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert sorted(rank for rank, _, _ in told) == [0, 1]
    for _, total, listening in told:
        assert total == 3.0 and listening == {ADDRESS}


def test_where_workers_of_one_machine_meet_nobody_else_may_look():
    meeting = open_meeting(one_machine=True, address=ADDRESS)
    folder = Path(meeting.place.removeprefix(FILE)).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and meeting.listening is None
    leave_group(meeting)
    assert not folder.exists()


def test_across_machines_the_store_is_bound_to_the_one_address():
    meeting = open_meeting(one_machine=False, address=ADDRESS)
    with meeting.listening as bound:
        assert bound.getsockname()[0] == ADDRESS
        assert meeting.place == f"{ADDRESS}:{bound.getsockname()[1]}"
        assert isinstance(bound, socket.socket)
