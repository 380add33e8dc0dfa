"""The worker's side of a life: what each command does; and a crew of one worker in this process. Knows no Ray.

crew = LocalCrew(Worker(device="cuda"))
run_trial(order, crew)                     # a breakpoint stops in the training step
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from cluster.storage import Folder
from data_prep.schema import Normalisation
from trainables.data import TrialData
from trainables.order import DISK_FULL, Begun, Command, Tested, TrialError, TrialOrder, short_reason
from trainables.record import CHECKPOINTS, EpochRow, ErrorKind, Examples
from trainables.score.tables import write_scores
from trainables.step.loop import NonFiniteLoss
from trainables.step.worker import HOST_ALLOCATION_FAILED, Worker
from trainables.trial import TrialSession

OUT_OF_MEMORY = (
    *HOST_ALLOCATION_FAILED,
    "OutOfMemoryError",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What an exception of torch has in its type or text when an allocation failed, on a CPU or a GPU."""
EXAMPLES = 6
"""Test samples whose prediction is kept for the pictures of a final."""

OpenData = Callable[[str, Normalisation], TrialData]
"""Shard folder and normalisation -> the samples."""


class LocalCrew:
    """One worker in this process.

    Args:
        worker: its device and threads.
        data: where the samples come from; None: the shard folder that a trial names.
    """

    name = "here"

    def __init__(self, worker: Worker | None = None, *, data: OpenData | None = None) -> None:
        self._member = Member(worker or Worker(), data)

    def call(self, command: Command, payload: Any = None) -> dict[int, Any]:
        """The answer of the one worker (`trainables.life.Crew`)."""
        return {0: self._member.obey(command, payload)}


class Member:
    """One worker of a crew: the session under way, and the samples that stay from trial to trial.

    Args:
        worker: which one of how many, on what.
        data: where the samples come from; None: the shard folder that a trial names.
    """

    def __init__(self, worker: Worker, data: OpenData | None = None) -> None:
        self._worker = worker
        self._open = data or TrialData.open
        self._samples: dict[tuple[str, Normalisation], TrialData] = {}
        self._session: TrialSession | None = None
        self._order: TrialOrder | None = None

    def obey(self, command: Command, payload: Any = None) -> Any:
        """Do what a command says: the answer of `trainables.life.Crew`, or a `TrialError`, which ends the trial."""
        try:
            answer = getattr(self, command)(payload)
        except Exception as error:
            answer = _trial_error(error)
        if isinstance(answer, TrialError):  # here the exception is gone, whose frames held the model
            self.end()
        return answer

    def begin(self, order: TrialOrder) -> Begun:
        """Make the trial's session, from its newest checkpoint if there is one."""
        left_gb = self.end()
        worker = replace(self._worker, precision=order.precision or self._worker.precision)
        self._order = order
        self._session = TrialSession(order.info.config, self._data(order), worker=worker)
        self._session.restore(self._checkpoints)
        return Begun(
            history=self._session.history,
            parameters=self._session.parameters,
            precision=self._session.precision,
            left_gb=left_gb,
        )

    def epoch(self, _: None = None) -> EpochRow:
        """Train one epoch, and write its checkpoint: an epoch that is told can be resumed from."""
        row = self._live.train_epoch()
        self._ordered.check_in_charge()
        self._live.save(self._checkpoints)
        return row

    def test(self, _: None = None) -> Tested | None:
        """Measure the best weights on the test split, and show a few samples with what they predict there."""
        samples = self._data(self._ordered).test
        if samples is None or len(samples.images_NHW) == 0:
            return None
        best_epoch = self._live.restore_best()
        measures = {**self._live.evaluate("test"), "best_epoch": best_epoch}
        if self._worker.rank > 0:
            return Tested(measures=measures, examples=None)
        self._write_scores()
        return Tested(measures=measures, examples=self._examples())

    def end(self, _: None = None) -> float:
        """Free what the trial held; how much memory of the GPU stays allocated, in GB (1e9 bytes)."""
        if self._session is not None:
            self._session.close()
        self._session = None
        gc.collect()
        # What is alive now stays with the worker (torch and what it imports): no later search need look at it, which
        # makes one take 1 ms instead of 350.
        gc.freeze()
        return torch.cuda.memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0

    def _write_scores(self) -> None:
        """Each image's measures, of the split that chose the epoch and of the one that no choice has seen."""
        data, config, folder = self._data(self._ordered), self._live.config, Folder(self._ordered.folder)
        batch = max(config.batch_size // config.accumulation, 1)
        for split in ("val", "test"):
            samples = data.split(split)
            write_scores(folder, self._live.predict, samples, split=split, threshold=self._live.threshold, batch=batch)

    def _examples(self) -> Examples:
        """Samples spread evenly over the test split, with the model's probabilities."""
        samples = self._data(self._ordered).split("test")
        chosen = np.unique(np.linspace(0, len(samples.images_NHW) - 1, EXAMPLES).astype(int))
        return Examples(
            sample_ids=[str(samples.table["sample_id"].iloc[i]) for i in chosen],
            image_NHW=samples.images_NHW[chosen],
            mask_NHW=samples.masks_NHW[chosen],
            probability_NHW=self._live.predict(samples.images_NHW[chosen]),
        )

    @property
    def _live(self) -> TrialSession:
        assert self._session is not None, "no trial was begun"
        return self._session

    @property
    def _ordered(self) -> TrialOrder:
        assert self._order is not None, "no trial was begun"
        return self._order

    @property
    def _checkpoints(self) -> Folder:
        return Folder(self._ordered.folder) / CHECKPOINTS

    def _data(self, order: TrialOrder) -> TrialData:
        key = (order.info.shards, order.info.config.normalisation)
        if key not in self._samples:
            self._samples = {key: self._open(*key)}
        return self._samples[key]


def _trial_error(error: Exception) -> TrialError:
    """An exception of a worker, told apart by what can be done about it."""
    kind: ErrorKind = "exception"
    if isinstance(error, NonFiniteLoss):
        kind = "not_finite"
    elif isinstance(error, OSError) and error.errno in DISK_FULL:
        kind = "disk_full"
    elif isinstance(error, MemoryError) or any(mark in f"{type(error).__name__}: {error}" for mark in OUT_OF_MEMORY):
        kind = "out_of_memory"
    return TrialError(kind, short_reason(error), traceback.format_exc())
