"""What each worker of a slot runs: commands from the mailbox, in order, until the group ends.                 [Ray]"""

from __future__ import annotations

import logging
import os
from typing import Any

import ray
import ray.train
import ray.train.torch

from cluster.pools import Pool
from trainables.crew import Member
from trainables.on_ray import READY, STOP
from trainables.step.worker import Worker


def serve(config: dict[str, Any]) -> None:
    """Obey until `stop`."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    pool, mailbox = Pool.model_validate(config["pool"]), config["mailbox"]
    context = ray.train.get_context()
    rank = context.get_world_rank()
    worker = Worker(
        rank=rank,
        world_size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        threads=None if pool.gpus_per_worker else pool.cpus_per_worker,
    )
    member, index = Member(worker), 0
    while True:
        command, payload = ray.get(mailbox.next.remote(index))
        if command == STOP:
            member.end()
            return
        answer = _whoami() if command == READY else member.obey(command, payload)
        ray.get(mailbox.answer.remote(index, rank, answer))
        index += 1


def _whoami() -> dict[str, Any]:
    return {"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()}
