"""Trials on warm worker groups.                                                                             [Ray]

A `Slot` is a Tune trainable that is kept from trial to trial. It owns one `WorkerGroup`: the workers of one
`TorchTrainer`, started once, whose `fit()` stays in a thread of the slot. The workers run `group_loop`: they take
commands (begin a trial, train an epoch, measure, end) from a `Mailbox` actor, in order and without a gap, and answer.
torch, the CUDA context, the process group and the samples stay from trial to trial; model and optimiser are made anew.

Started the usual way, each trial would start seven or eight processes that import torch (17-20 s on two idle cores).

    Slot.step()  --post-->  Mailbox  --next-->  group_loop on every rank  --answer-->  Mailbox  -->  Slot.step()
"""

from __future__ import annotations

import importlib
import math
import os
import tempfile
import threading
import time
import traceback
from typing import Any

from cluster.session import slot_resource

import ray
import ray.train
import ray.train.torch
from ray import tune
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import PreemptionError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.pools import Pool
from cluster.storage import Folder
from trainables.mailbox import Mailbox
from trainables.order import DISK_FULL, TrialError, TrialOrder, short_reason
from trainables.record import TrialRecord, TrialStatus, now

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

LOW_ON_MEMORY = "running low on memory"
"""What Ray says of a worker that it killed for want of memory. That the kernel may have done so it says of every worker
that died, so that alone tells nothing."""
TAKEN_BACK = "a machine was taken back"


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
            ray.get(self._mailbox.post.remote("stop", None))
            self._thread.join(timeout_s)
        ray.kill(self._mailbox)
        self._scratch.cleanup()

    def _fit(self) -> None:
        """Run the trainer until the group ends. In a thread of the slot."""
        pool = self.pool
        resources = {"CPU": float(pool.cpus_per_worker), **({"GPU": 1.0} if pool.gpus_per_worker else {})}
        trainer = ray.train.torch.TorchTrainer(
            group_loop,
            train_loop_config={"mailbox": self._mailbox, "pool": pool.model_dump()},
            torch_config=ray.train.torch.TorchConfig(backend="nccl" if pool.gpus_per_worker else "gloo"),
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
    importlib.import_module("trainables.worker").serve(config)


class Slot(tune.Trainable):
    """One hardware slot as Tune sees it: `step()` is one epoch of the trial that it was given last."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first trial; the worker group starts with its first step."""
        self._group: WorkerGroup | None = None
        self._nodes: set[str] = set()
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in the same place."""
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch. The result has the metrics, or `failed`, and `done` when the trial has ended."""
        started = time.monotonic()
        try:
            result = self._attempt()
            self._slot_s += time.monotonic() - started
            self._write_status()
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            result = _failure(TrialError("disk_full", short_reason(error), traceback.format_exc()))
        return {**result, "slot_s": self._slot_s, "retries": self._retries}

    def cleanup(self) -> None:
        """End the worker group."""
        self._drop_group()

    def _take(self, config: dict[str, Any]) -> None:
        self._order = TrialOrder.model_validate(config["order"])
        self._record = TrialRecord(Folder(self._order.folder))
        before = self._record.status()
        self._started_at = before.started_at or now()
        self._slot_s = before.slot_s
        died = before.status == "running" and before.session == self._order.session  # this slot's predecessor
        self._retries = before.retries + died
        self._epochs_before = before.epochs
        self._begun = False
        self._last: dict[str, Any] = {}
        self._parameters: int | None = before.parameters
        self._write_status()

    def _attempt(self) -> dict[str, Any]:
        """One epoch, again from the checkpoint as often as the trial may be retried."""
        why = "the slot's process died"
        while self._retries <= self._order.retries:
            try:
                return self._epoch()
            except GroupEndedError as error:
                why = str(error)
                self._record.log(f"the workers are gone: {why}")
                if error.out_of_memory:
                    failed = TrialError("out_of_memory", f"out of host memory: {why}", traceback.format_exc())
                    if (answer := self._fail(failed)) is not None:
                        return answer
                elif self._machine_lost(error):
                    self._record.log("a machine was lost or taken back: this does not count as a retry")
                else:
                    self._retries += 1
            self._drop_group()
        reason = f"worker died {self._retries} times: {why}"
        return _failure(TrialError("worker_died", reason, ""))

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

    def _epoch(self) -> dict[str, Any]:
        """One epoch, or the last one again of a trial that was resumed; begins the trial if need be."""
        while True:
            answer = self._begin() if not self._begun else self._ask("epoch", None)
            if isinstance(answer, TrialError):
                if (failed := self._fail(answer)) is not None:
                    return failed
            elif answer:
                return self._result(answer)

    def _begin(self) -> dict[str, Any] | TrialError:
        """Begin the trial; the last row of its history, which is empty for a new trial."""
        self._group_or_start()
        begun = self._ask("begin", self._order)
        if isinstance(begun, TrialError):
            return begun
        if begun["left_gb"] > CLEAN_GB:
            raise GroupEndedError(f"the trial before left {begun['left_gb']:.2f} GB allocated on the GPU")
        self._begun = True
        self._parameters = begun["parameters"]
        history = begun["history"]
        self._record.log(f"begins after epoch {history[-1]['epoch']}" if history else "begins")
        # What was decided after the last epoch is decided again: whoever was to decide may have died before.
        return history[-1] if history else {}

    def _result(self, row: dict[str, Any]) -> dict[str, Any]:
        self._last = row
        done = row["epoch"] >= self._order.info.config["epochs"]
        shown = ", ".join(f"{name} {row[name]:.4f}" for name in ("train_loss", "val_loss", "val_dice", "val_iou"))
        self._record.log(f"epoch {row['epoch']}: {shown}, {row['train_s']:.1f} s")
        for wanted, kind in ((self._order.keep_weights, "keep"), (self._order.measure_test, "test")):
            if done and wanted and isinstance(error := self._ask(kind, None), TrialError):
                return _failure(error)
        return {**row, "parameters": self._parameters, "done": done}

    def _fail(self, error: TrialError) -> dict[str, Any] | None:
        """The failure as a result, or None if the trial can be begun again with its batch in smaller parts."""
        if error.kind == "disk_full":
            return _failure(error)
        self._record.log(f"{error.kind}: {error.reason}\n{error.traceback}")
        config = self._order.info.config
        parts = 2 * config["accumulation"]
        if error.kind != "out_of_memory" or not self._order.accumulate_on_oom or config["batch_size"] % parts:
            return _failure(error)
        info = self._order.info.model_copy(update={"config": {**config, "accumulation": parts}})
        self._order = self._order.model_copy(update={"info": info})
        self._record.write_info(info)
        self._record.log(f"goes on with each batch in {parts} parts")
        self._begun = False
        return None

    def _ask(self, kind: str, payload: Any) -> Any:
        """Rank 0's answer, or the first error of any rank; a group that is stuck is replaced.

        Raises:
            GroupEndedError: the group is gone.
        """
        if self._group is None or not self._group.alive:
            raise GroupEndedError("the worker group ended between two commands")
        answers = self._group.call(kind, payload)
        errors = [a for _, a in sorted(answers.items()) if isinstance(a, TrialError)]
        if len(answers) < self._order.pool.workers:
            self._drop_group()
        return errors[0] if errors else answers[0]

    def _group_or_start(self) -> None:
        if self._group is not None and self._group.alive:
            return
        self._drop_group()
        name = f"slot-{self._order.pool.name}-{os.getpid()}-{time.monotonic_ns()}"
        self._group = WorkerGroup(self._order.pool, name)
        answers = self._group.call("ready", timeout_s=START_TIMEOUT_S)
        self._nodes = {answer["node"] for answer in answers.values()}

    def _drop_group(self) -> None:
        self._begun = False
        if self._group is not None:
            self._group.stop()
            self._group = None

    def _write_status(self) -> None:
        self._record.write_status(
            TrialStatus(
                status="running",
                epochs=int(self._last.get("epoch", self._epochs_before)),
                parameters=self._parameters,
                slot_s=round(self._slot_s, 3),
                usd=round(self._slot_s / 3600 * self._order.pool.price, 6),
                retries=self._retries,
                session=self._order.session,
                started_at=self._started_at,
            )
        )


def slot_request(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial: one slot of its pool. The workers' hardware is asked for by Train."""
    return tune.PlacementGroupFactory([{slot_resource(config["order"]["pool"]["name"]): 1.0}])


def _failure(error: TrialError) -> dict[str, Any]:
    return {"done": True, "failed": error.kind, "reason": error.reason, "traceback": error.traceback}
