"""Trials on warm worker groups.                                                                             [Ray]

A `Slot` is a Tune trainable that is kept from trial to trial: its step is one epoch of a `Life`. Its `RayCrew` owns one
`WorkerGroup`: the workers of one Train trainer, started once, whose `fit()` stays in a thread of the slot. The workers
run `group_loop`: they take a life's commands from a `Mailbox` actor, in order and without a gap, and answer. torch, the
CUDA context, the process group and the samples stay from trial to trial; model and optimiser are made anew.

Started the usual way, each trial would start seven or eight processes that import torch (17-20 s on two idle cores).

    Life.epoch()  --post-->  Mailbox  --next-->  group_loop on every rank  --answer-->  Mailbox  -->  Life.epoch()
"""

from __future__ import annotations

import importlib
import math
import os
import tempfile
import threading
import time
from typing import Any

from cluster.session import slot_resource

import ray
import ray.train
from ray import tune
from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import PreemptionError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.pools import Pool
from trainables.life import CrewLostError, Life
from trainables.mailbox import Mailbox
from trainables.order import Command, TrialError, TrialOrder, short_reason

ANSWER_GRACE_S = 20.0
"""After one rank failed, how long the others may take to answer before the group counts as stuck."""
POLL_S = 2.0
"""How often a slot that waits for an answer looks whether its group still lives."""
NODE_DEATH_S = 60.0
"""How long Ray may take to know that a machine is gone, whose workers it cannot reach."""
CLEAN_GB = 0.05
"""GPU memory that may stay allocated when a slot is handed on, in GB (1e9 bytes)."""
START_TIMEOUT_S = 3600.0
"""How long a worker group may take to start: a cluster may start machines for it, and wait for spot ones."""
JOIN_TIMEOUT_S = 600.0
"""How long the workers of a group may take to connect with each other."""

LOW_ON_MEMORY = "running low on memory"
"""What Ray says of a worker that it killed for want of memory. That the kernel may have done so it says of every worker
that died, so that alone tells nothing."""
TAKEN_BACK = "a machine was taken back"
READY, JOIN, STOP = "ready", "join", "stop"
"""Commands to the group itself, beside those of a life: say who you are; join the process group; end."""


class SharedDevices(Backend):
    """The workers of one machine see each other's GPUs, which NCCL needs. Train sets no process group up."""

    share_cuda_visible_devices = True


class NoGroup(BackendConfig):
    """No process group of Train's, which would listen on all interfaces (trainables/process_group.py)."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Train asks for."""
        return SharedDevices


class GroupEndedError(RuntimeError):
    """A worker group ended while it was needed; the message says why."""

    @property
    def out_of_memory(self) -> bool:
        """Whether Ray ended it because the machine was running out of memory."""
        return LOW_ON_MEMORY in str(self)

    @property
    def preempted(self) -> bool:
        """Whether Ray had been told that a machine would be taken back."""
        return TAKEN_BACK in str(self)

    @property
    def unreachable(self) -> bool:
        """Whether a worker did not die by itself but could no longer be reached."""
        return "unavailable" in str(self).lower()


class WorkerGroup:
    """The workers of one slot: started once, used for many trials.

    Args:
        pool: how many workers, and on what.
        name: unique among the groups that live at the same time.
    """

    def __init__(self, pool: Pool, name: str) -> None:
        self.pool = pool
        self.name = name
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "max_concurrency": 1000, "scheduling_strategy": here}  # to live as long as the slot
        self._mailbox = ray.remote(**options)(Mailbox).remote()
        self._scratch = tempfile.TemporaryDirectory(prefix="mammosearch-train-")
        self._ended: str | None = None
        self._thread = threading.Thread(target=self._fit, name=f"fit-{name}", daemon=True)
        self._thread.start()

    def call(self, kind: str, payload: Any = None, *, timeout_s: float = math.inf) -> dict[int, Any]:
        """Send a command to every rank and wait for all answers, by rank.

        A rank that fails answers with a `TrialError`; if the others then stay silent the group is stuck in a
        collective operation.

        Raises:
            GroupEndedError: the group ended, is stuck, or did not answer in `timeout_s`.
        """
        index = ray.get(self._mailbox.post.remote(kind, payload))
        deadline = time.monotonic() + timeout_s
        failed_at = math.inf
        while True:
            answers = ray.get(self._mailbox.answers.remote(index, self.pool.workers, POLL_S))
            if len(answers) >= self.pool.workers:
                return answers
            if self._ended is not None:
                raise GroupEndedError(self._ended)
            if any(isinstance(a, TrialError) for a in answers.values()):
                failed_at = min(failed_at, time.monotonic())
            if time.monotonic() > failed_at + ANSWER_GRACE_S:
                return answers
            if time.monotonic() > deadline:
                raise GroupEndedError(f"no answer to {kind!r} in {timeout_s:.0f} s")

    @property
    def alive(self) -> bool:
        """Whether the group's `fit()` still runs."""
        return self._ended is None

    def stop(self, timeout_s: float = 15.0) -> None:
        """End the group; its hardware is free afterwards."""
        if self.alive:
            ray.get(self._mailbox.post.remote(STOP, None))
            self._thread.join(timeout_s)
        ray.kill(self._mailbox)
        self._scratch.cleanup()

    def _fit(self) -> None:
        """Run the trainer until the group ends. In a thread of the slot."""
        pool = self.pool
        resources = {"CPU": float(pool.cpus_per_worker), **({"GPU": 1.0} if pool.gpus_per_worker else {})}
        trainer = DataParallelTrainer(
            group_loop,
            train_loop_config={"mailbox": self._mailbox, "pool": pool.model_dump()},
            backend_config=NoGroup(),
            scaling_config=ScalingConfig(
                num_workers=pool.workers,
                use_gpu=pool.gpus_per_worker > 0,
                resources_per_worker=resources,
                accelerator_type=pool.accelerator,
                placement_strategy="STRICT_PACK" if pool.workers > 1 and pool.gpus_per_worker else "PACK",
            ),
            run_config=RunConfig(
                name=self.name,
                storage_path=self._scratch.name,
                # Each restart is the slot's: workers that Train restarts would take all commands once more.
                failure_config=FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=0),
            ),
        )
        try:
            trainer.fit()
            self._ended = "the worker group ended"
        except BaseException as error:  # whatever ends the group is told to the slot, which lives on
            self._ended = _why_ended(error)


def _why_ended(error: BaseException) -> str:
    """What ended a group, in one line, in words that `GroupEndedError` knows."""
    if LOW_ON_MEMORY in str(error):
        return f"a worker was killed, for its machine was {LOW_ON_MEMORY}"
    deaths = [getattr(e, "health_check_failure", e) for e in getattr(error, "worker_failures", {}).values()]
    if isinstance(error, PreemptionError) or any(getattr(death, "preempted", False) for death in deaths):
        return f"{TAKEN_BACK}: {short_reason(error)}"
    return short_reason(error)


def group_loop(config: dict[str, Any]) -> None:
    """What every worker of a group runs. The slot, which sends it there, need not import what it needs."""
    importlib.import_module("trainables.serve").serve(config)


class RayCrew:
    """The workers of one slot (`trainables.life.Crew`): started by a trial's `begin`, and again after they were lost.

    Args:
        pool: how many workers, and on what.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.name = f"{pool.name}-{os.getpid()}"
        self._group: WorkerGroup | None = None
        self._nodes: set[str] = set()

    def call(self, command: Command, payload: Any = None) -> dict[int, Any]:
        """The answers of the workers by rank; those of a group that is stuck after a failure are not all there.

        Raises:
            CrewLostError: the group is gone.
        """
        try:
            if command != "begin":
                return self._call(command, payload)
            self._start()
            answers = self._call(command, payload)
            if any(getattr(answer, "left_gb", 0.0) > CLEAN_GB for answer in answers.values()):
                self.stop()  # the trial before left memory of the GPU allocated, which this one may need
                self._start()
                answers = self._call(command, payload)
            return answers
        except GroupEndedError as error:
            lost = self._lost(error)
            self.stop()
            raise lost from error

    def stop(self) -> None:
        """End the workers; their hardware is free afterwards."""
        if self._group is not None:
            self._group.stop()
            self._group = None

    def _call(self, command: Command, payload: Any) -> dict[int, Any]:
        if self._group is None or not self._group.alive:
            raise GroupEndedError("the worker group ended between two commands")
        answers = self._group.call(command, payload)
        if len(answers) < self.pool.workers:
            self.stop()
        return answers

    def _start(self) -> None:
        """Have a group that lives."""
        if self._group is not None and self._group.alive:
            return
        self.stop()
        self._group = WorkerGroup(self.pool, f"slot-{self.pool.name}-{os.getpid()}-{time.monotonic_ns()}")
        answers = self._group.call(READY, timeout_s=START_TIMEOUT_S)
        self._nodes = {answer["node"] for answer in answers.values()}
        if self.pool.workers > 1:
            self._group.call(JOIN, answers[0]["meeting"], timeout_s=JOIN_TIMEOUT_S)

    def _lost(self, error: GroupEndedError) -> CrewLostError:
        if error.out_of_memory:
            return CrewLostError(str(error), "out_of_memory")
        return CrewLostError(str(error), "machine_lost" if self._machine_lost(error) else "died")

    def _machine_lost(self, error: GroupEndedError) -> bool:
        """Whether a node that the workers ran on is gone. Ray may know that a while later than the loss of a worker."""
        if error.preempted:
            return True
        deadline = time.monotonic() + (NODE_DEATH_S if error.unreachable else 0.0)
        while True:
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            if not self._nodes <= alive:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)


class Slot(tune.Trainable):
    """One hardware slot as Tune sees it: `step()` is one epoch of the trial that it was given last."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first trial; the worker group starts with its first step."""
        self._crew = RayCrew(TrialOrder.model_validate(config["order"]).pool)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in the same place."""
        self._life = Life(TrialOrder.model_validate(new_config["order"]), self._crew)
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch. The result has the `Report`, and `done` when the trial has ended."""
        report = self._life.epoch()
        return {"report": report, "done": report.done}  # an object, for Tune flattens a dict inside a result

    def cleanup(self) -> None:
        """End the worker group."""
        self._crew.stop()


def slot_request(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial: one slot of its pool. The workers' hardware is asked for by Train."""
    return tune.PlacementGroupFactory([{slot_resource(config["order"]["pool"]["name"]): 1.0}])
