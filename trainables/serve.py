"""What each worker of a slot runs: commands from the mailbox, in order, until the group ends.                 [Ray]"""

from __future__ import annotations

import logging
import os
from typing import Any

import ray
import ray.train
import ray.train.torch
import ray.util

from cluster.pools import Pool
from trainables.crew import Member
from trainables.on_ray import JOIN, READY, STOP
from trainables.process_group import Meeting, join_group, leave_group, open_meeting
from trainables.step.worker import Worker


def serve(config: dict[str, Any]) -> None:
    """Obey until `stop`."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    pool, mailbox = Pool.model_validate(config["pool"]), config["mailbox"]
    rank = ray.train.get_context().get_world_rank()
    worker = Worker(
        rank=rank,
        world_size=ray.train.get_context().get_world_size(),
        device=ray.train.torch.get_device(),
        threads=None if pool.gpus_per_worker else pool.cpus_per_worker,
    )
    meeting = _meeting(worker)
    member, index = Member(worker), 0
    while True:
        command, payload = ray.get(mailbox.next.remote(index))
        answer: Any = None
        if command == STOP:
            member.end()
            leave_group(meeting)
            return
        if command == READY:
            node = ray.get_runtime_context().get_node_id()
            answer = {"pid": os.getpid(), "node": node, "meeting": meeting.place if meeting else None}
        elif command == JOIN:
            backend = "nccl" if pool.gpus_per_worker else "gloo"
            join_group(payload, rank=rank, world_size=worker.world_size, backend=backend, meeting=meeting)
        else:
            answer = member.obey(command, payload)
        ray.get(mailbox.answer.remote(index, rank, answer))
        index += 1


def _meeting(worker: Worker) -> Meeting | None:
    """Where the group meets, if this is the worker that opens it."""
    if worker.rank > 0 or worker.world_size == 1:
        return None
    one_machine = ray.train.get_context().get_local_world_size() == worker.world_size
    return open_meeting(one_machine=one_machine, address=ray.util.get_node_ip_address())
