"""The workers' side of a warm group: commands in, answers out. `trainables/on_ray.py` is the slot's side.      [Ray]"""

from __future__ import annotations

import gc
import logging
import os
import traceback
from typing import Any, cast

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch

from cluster.pools import Pool
from cluster.storage import Folder
from data_prep import shards
from data_prep.schema import Normalisation
from trainables.config import TrialConfig
from trainables.order import DISK_FULL, SESSION, ErrorKind, TrialError, TrialOrder, short_reason
from trainables.record import Examples, TrialRecord
from trainables.score.tables import write_scores
from trainables.step.place import HOST_ALLOCATION_FAILED
from trainables.trial import Place, TrialData, TrialSession


def serve(config: dict[str, Any]) -> None:
    """What every worker of a group runs: commands in order until `stop`."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    worker = _Worker(Pool.model_validate(config["pool"]))
    rank = ray.train.get_context().get_world_rank()
    mailbox = config["mailbox"]
    index = 0
    while True:
        kind, payload = ray.get(mailbox.next.remote(index))
        if kind == "stop":
            worker.end(None)
            return
        try:
            answer = getattr(worker, kind)(payload)
        except Exception as error:
            answer = _trial_error(error)
        if isinstance(answer, TrialError):  # here the exception is gone, whose frames held the model
            worker.end(None)
        ray.get(mailbox.answer.remote(index, rank, answer))
        index += 1


OUT_OF_MEMORY = (
    *HOST_ALLOCATION_FAILED,
    "OutOfMemoryError",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What an exception of torch has in its type or text when an allocation failed, on a CPU or a GPU."""
EXAMPLES = 6
"""Test samples whose prediction is kept for the pictures of a final."""


class _Worker:
    """One rank's side of a trial: the session under way, and the samples that stay from trial to trial."""

    def __init__(self, pool: Pool) -> None:
        context = ray.train.get_context()
        self._place = Place(
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            device=ray.train.torch.get_device(),
            threads=None if pool.gpus_per_worker else pool.cpus_per_worker,
        )
        self._samples: dict[tuple[str, str], TrialData] = {}
        self._session: TrialSession | None = None
        self._order: TrialOrder | None = None

    def ready(self, _: None) -> dict[str, Any]:
        """Who answers; the first command of a group."""
        return {"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()}

    def begin(self, order: TrialOrder) -> dict[str, Any]:
        """Make the trial's session, from its newest checkpoint if there is one."""
        left = self.end(None)
        config = TrialConfig.model_validate(order.info.config)
        self._order = order
        self._session = TrialSession(config, self._data(order.shards, config.normalisation), place=self._place)
        self._live.restore(self._checkpoints)
        self._write_metrics()
        return {"history": self._live.history, "parameters": self._live.parameters, "left_gb": left}

    def epoch(self, _: None) -> dict[str, Any]:
        """Train one epoch, and write its checkpoint before its row: a row that is read can be resumed from."""
        row = self._live.train_epoch()
        self._check_in_charge()
        self._live.save(self._checkpoints)
        self._write_metrics()
        return row

    def test(self, _: None) -> dict[str, Any]:
        """Measure the best weights on the test split, and keep a few samples with what they predict there."""
        best_epoch = self._live.restore_best()
        measures = {**self._live.evaluate("test"), "best_epoch": best_epoch}
        if self._place.rank == 0:
            self._write_scores()
            self._record.write_test(measures)
            self._record.write_examples(self._examples())
        return measures

    def _write_scores(self) -> None:
        """Each image's measures, of the split that chose the epoch and of the one that no choice has seen."""
        assert self._order is not None
        data, config = self._samples[self._order.shards, self._live.config.normalisation], self._live.config
        for split in ("val", "test"):
            samples = cast(shards.Samples, data.split(split))
            batch = max(config.batch_size // config.accumulation, 1)
            write_scores(
                self._record.folder, self._live.predict, samples, split=split, threshold=config.threshold, batch=batch
            )

    def _examples(self) -> Examples:
        """Samples spread evenly over the test split, with the model's probabilities."""
        assert self._order is not None
        held = self._samples[self._order.shards, self._live.config.normalisation].split("test")
        samples = cast(shards.Samples, held)
        chosen = np.unique(np.linspace(0, len(samples.images_NHW) - 1, EXAMPLES).astype(int))
        return Examples(
            sample_ids=[str(samples.table["sample_id"].iloc[i]) for i in chosen],
            image_NHW=samples.images_NHW[chosen],
            mask_NHW=samples.masks_NHW[chosen],
            probability_NHW=self._live.predict(samples.images_NHW[chosen]),
        )

    def keep(self, _: None) -> None:
        """Write the best weights into the trial folder."""
        self._live.save_weights(self._record.folder)

    def end(self, _: None) -> float:
        """Free what the trial held; answers how much memory of the GPU stays allocated, in GB (1e9 bytes)."""
        if self._session is not None:
            self._session.close()
        self._session = None
        gc.collect()
        # What is alive now stays with the worker (torch and what it imports): no later search need look at it, which
        # makes one take 1 ms instead of 350.
        gc.freeze()
        return torch.cuda.memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0

    @property
    def _live(self) -> TrialSession:
        assert self._session is not None, "no trial was begun"
        return self._session

    @property
    def _record(self) -> TrialRecord:
        assert self._order is not None
        return TrialRecord(Folder(self._order.folder))

    @property
    def _checkpoints(self) -> Folder:
        assert self._order is not None
        return Folder(self._order.folder) / "checkpoint"

    def _check_in_charge(self) -> None:
        """Write nothing more once the study was resumed elsewhere: this worker's driver was killed, and it is late."""
        order = self._order
        if order is None or not order.study:
            return
        in_charge = Folder(order.study).read_json(SESSION)["session"]
        if in_charge != order.session:
            raise RuntimeError(f"the study goes on in session {in_charge}; this worker is of session {order.session}")

    def _write_metrics(self) -> None:
        if self._place.rank == 0 and self._live.history:
            self._record.write_metrics(self._live.history)

    def _data(self, folder: str, normalisation: Normalisation) -> TrialData:
        key = (folder, normalisation)
        if key not in self._samples:
            self._samples = {key: TrialData.open(folder, normalisation)}
        return self._samples[key]


def _trial_error(error: Exception) -> TrialError:
    """An exception of a worker, told apart by what can be done about it."""
    kind: ErrorKind = "exception"
    if type(error).__name__ == "NonFiniteLoss":
        kind = "not_finite"
    elif isinstance(error, OSError) and error.errno in DISK_FULL:
        kind = "disk_full"
    elif isinstance(error, MemoryError) or any(mark in f"{type(error).__name__}: {error}" for mark in OUT_OF_MEMORY):
        kind = "out_of_memory"
    return TrialError(kind, short_reason(error), traceback.format_exc())
