"""One configuration under way, in plain PyTorch: what a worker does for a life (trainables/life.py).

    session = TrialSession(config, data)      model, optimiser and random states, from the seed
    session.restore(checkpoints)              goes on from the newest checkpoint, if there is one
    session.train_epoch()  -> a row           train on `train`, measure on `val`
    session.save(checkpoints)                 the very state after this epoch
    session.restore_best()                    the weights of the best epoch
    session.evaluate("test")                  measures of a split

With torch.distributed initialised and a `Worker` of several the same calls, made by every one of them, train one model
together; the batch of the configuration is global.
"""

from __future__ import annotations

import gc
import inspect
import time
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cluster.storage import Folder
from trainables.config import TrialConfig
from trainables.data import Samples, Split, TrialData
from trainables.net.architecture import Architecture
from trainables.net.models import build_model, parameter_count, unused_parameters
from trainables.record import VAL_MEASURES, EpochRow, best_epoch, checkpoint_name
from trainables.step import checkpoint, loop
from trainables.step.checkpoint import Checkpoint
from trainables.step.loop import Batches, NonFiniteLoss
from trainables.step.optimisers import build_optimiser
from trainables.step.precision import Precision, best_precision, check_precision
from trainables.step.worker import Worker, host_memory_errors, peak_memory_gb, prepare_process, seed_everything

__all__ = ["NonFiniteLoss", "Samples", "TrialData", "TrialSession", "Worker", "untrained_measures"]

MAY_DIFFER = ("accumulation",)
"""Settings that may change between a checkpoint and the trial that goes on from it."""
_BUFFERS_OPTION = next(
    # torch 2.13 renamed it. The statistics are averaged after each epoch instead of overwritten before each step.
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel.__init__).parameters
)
INIT_STREAM = 2**31
"""Stands for the epoch for the random states that a model is initialised with."""


class TrialSession:
    """One configuration under way: its model, optimiser, epoch and history. See the module for the order of calls.

    Args:
        config: the trial's.
        data: square images whose side is a multiple of 32.
        worker: which one this is; with several, every method is called by all of them.

    Raises:
        ValueError: the model cannot be built, or configuration, data and workers do not go together.
        torch.OutOfMemoryError, MemoryError: from any method, for want of GPU or host memory.
    """

    def __init__(self, config: TrialConfig, data: TrialData, *, worker: Worker | None = None) -> None:
        worker = worker or Worker()
        self.config = config
        self.epoch = 0
        """Finished epochs."""
        self.history: list[EpochRow] = []
        """One row per finished epoch, as `train_epoch` gave them."""
        self._data, self._me = data, worker
        check_fits(config, data, worker)
        self._device = prepare_process(worker)
        self._best: tuple[int, dict[str, Tensor]] | None = None
        self._batches: dict[Split, Batches] = {}
        with host_memory_errors():
            self._learner = self._begin()

    @property
    def parameters(self) -> int:
        """Trainable parameters of the model, as the paper counts them."""
        return self._parameters

    @property
    def precision(self) -> Precision:
        """The number format of the forward pass; of `auto`, what was chosen."""
        return self._learner.precision

    @property
    def best_epoch(self) -> int | None:
        """The epoch, from 1, with the highest hard validation Dice so far; None before the first."""
        best = best_epoch(self.history)
        return best.epoch if best else None

    def train_epoch(self) -> EpochRow:
        """Train one epoch on `train` and measure on `val`.

        Returns:
            The epoch's row, the same on every worker.

        Raises:
            NonFiniteLoss: the loss became NaN or infinite; on every worker at once.
        """
        seed_everything(self.config.seed, self.epoch, self._me.rank)
        started = time.perf_counter()
        with host_memory_errors():
            trained = loop.train_epoch(self._learner, self._of("train"), self.config, self.epoch)
        trained_at = time.perf_counter()
        measures = self.evaluate("val")
        if not all(map(_finite, measures.values())):
            raise NonFiniteLoss(f"the validation loss is not finite after epoch {self.epoch + 1}: {measures['loss']}")
        train_s, val_s, memory_gb = self._largest(
            trained_at - started, time.perf_counter() - trained_at, peak_memory_gb(self._device)
        )
        row = EpochRow(
            epoch=self.epoch + 1,
            learning_rate=trained["learning_rate"],
            train_loss=trained["train_loss"],
            **{name: measures[name.removeprefix("val_")] for name in VAL_MEASURES},
            train_s=train_s,
            val_s=val_s,
            images_per_s=trained["images"] / train_s,
            peak_memory_gb=memory_gb,
        )
        self.epoch += 1
        self.history.append(row)
        if self.best_epoch == self.epoch:
            self._best = (self.epoch, _copy_to_cpu(self._learner.model))
        return row

    def evaluate(self, split: Split) -> dict[str, float]:
        """Measure the model on a split, as it stands.

        Returns:
            `loss`, `dice`, `iou` (hard, per image), `dice_soft`, `iou_soft`, averaged over the images, and
            `images`, their number; the same on every worker.

        Raises:
            ValueError: there is no such split.
        """
        batches = self._of(split)
        with host_memory_errors():
            return {**loop.evaluate(self._learner, batches, self.config), "images": len(batches)}

    @torch.no_grad()
    def predict(self, images_NHW: np.ndarray) -> np.ndarray:
        """The lesion's probability in each pixel of a few images, by the model as it stands.

        Args:
            images_NHW: uint8, of the size the model was trained at; few enough for one batch.

        Returns:
            float32 in [0, 1], (N, H, W).
        """
        self._learner.model.eval()
        image_N1HW = torch.from_numpy(np.array(images_NHW)).unsqueeze(1).to(self._device).float() / 255
        with self._learner.autocast():
            logits_N1HW = self._learner.model(image_N1HW)
        return logits_N1HW.float().sigmoid().squeeze(1).cpu().numpy()

    def save(self, folder: Folder) -> None:
        """Write the state after the last epoch, so that `restore` goes on as if nothing had happened. Rank 0 writes."""
        if self._me.rank == 0:
            state = Checkpoint(
                epoch=self.epoch,
                weights=self._learner.model.state_dict(),
                config=self.config.model_dump(mode="json"),
                history=[row.model_dump() for row in self.history],
                optimiser={
                    "optimiser": self._learner.optimiser.state_dict(),
                    "scaler": self._learner.scaler.state_dict(),
                },
            )
            checkpoint.save(folder, state, best_epoch=self.best_epoch)

    def restore(self, folder: Folder) -> bool:
        """Take the state of the newest checkpoint that is whole; False, and nothing changed, if there is none.

        Raises:
            ValueError: the checkpoint is of another configuration.
        """
        name = self._agree(checkpoint.newest(folder) if self._me.rank == 0 else None)
        if name is None:
            return False
        state = checkpoint.load(folder, name)
        self._check_same(state.config, f"{folder}/{name}")
        self._learner.model.load_state_dict(state.weights)
        self._learner.optimiser.load_state_dict(state.optimiser["optimiser"])
        self._learner.scaler.load_state_dict(state.optimiser["scaler"])
        self.epoch, self.history = state.epoch, [EpochRow.model_validate(row) for row in state.history]
        best = self.best_epoch or self.epoch
        self._best = (best, state.weights)
        if best != self.epoch:
            self._best = (best, checkpoint.load(folder, checkpoint_name(best)).weights)
        return True

    def restore_best(self) -> int:
        """Put the weights of the best epoch into the model; gives that epoch. Training on from there is not meant.

        Raises:
            ValueError: no epoch has been trained.
        """
        if self._best is None:
            raise ValueError("no epoch has been trained, so there are no best weights")
        epoch, weights = self._best
        self._learner.model.load_state_dict(weights)
        return epoch

    def close(self) -> None:
        """Free everything, GPU memory too. The session cannot be used afterwards."""
        self.__dict__.pop("_learner", None)
        self._batches, self._best = {}, None
        if self._me.world_size > 1:
            gc.collect()  # DDP's hooks and its model hold each other; a plain model is freed without a search.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _begin(self) -> loop.Learner:
        """Model and optimiser from the seed, the same on every worker."""
        config, worker = self.config, self._me
        size_px = self._data.train.images_NHW.shape[1]
        seed_everything(config.seed, INIT_STREAM)
        architecture = Architecture.of(config, size_px)
        model = build_model(architecture, encoder_weights=config.encoder_weights)
        self._parameters = parameter_count(model)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        # torch's annotations do not know that `to` takes a memory format.
        model = cast(nn.Module, cast(Any, model).to(self._device, memory_format=layout))
        wrapped = model
        if worker.world_size > 1:
            # DDP would wait for the gradients of parameters that nothing depends on.
            unused = set(unused_parameters(architecture))
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name not in unused)
            options: dict[str, Any] = {"gradient_as_bucket_view": True, _BUFFERS_OPTION: False}
            wrapped = DistributedDataParallel(model, **options)
        auto = worker.precision or best_precision(self._device)
        precision = auto if config.precision == "auto" else config.precision
        check_precision(precision, self._device)
        return loop.Learner(
            model=model,
            wrapped=wrapped,
            optimiser=build_optimiser(config, model.parameters(), self._device),
            scaler=torch.amp.GradScaler(self._device.type, enabled=precision == "fp16"),
            device=self._device,
            precision=precision,
            rank=worker.rank,
            world_size=worker.world_size,
        )

    def _of(self, split: Split) -> Batches:
        if split not in self._batches:
            self._batches[split] = Batches(self._data.split(split), self._device)
        return self._batches[split]

    def _largest(self, *values: float) -> list[float]:
        """The largest of each value over the workers."""
        if self._me.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor.tolist()

    def _agree(self, value: str | None) -> str | None:
        """Rank 0's value, on every worker."""
        if self._me.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self._device)
        return box[0]

    def _check_same(self, saved: dict[str, Any], where: str) -> None:
        mine = self.config.model_dump(mode="json")
        other = {
            key: (saved.get(key), mine[key]) for key in mine if saved.get(key) != mine[key] and key not in MAY_DIFFER
        }
        if other:
            differences = ", ".join(f"{key} {was!r} there, {now!r} here" for key, (was, now) in other.items())
            raise ValueError(f"{where} is of another configuration ({differences}); use another folder for this one")


def untrained_measures(
    config: TrialConfig, data: TrialData, split: Split = "val", *, worker: Worker | None = None
) -> dict[str, float]:
    """What a configuration's network scores on a split before any training, as `TrialSession.evaluate` gives it."""
    session = TrialSession(config, data, worker=worker)
    try:
        return session.evaluate(split)
    finally:
        session.close()


def check_fits(config: TrialConfig, data: TrialData, worker: Worker) -> None:
    """Refuse what cannot train, all mistakes at once. Raises ValueError."""
    mistakes = []
    train, val = data.split("train"), data.split("val")
    if train.images_NHW.shape[1:] != val.images_NHW.shape[1:] or train.images_NHW.shape[1] != train.images_NHW.shape[2]:
        mistakes.append(f"images must be square and of one size: {train.images_NHW.shape}, {val.images_NHW.shape}")
    smallest = min(config.batch_size, len(train.images_NHW)) // worker.world_size
    if smallest == 0:
        mistakes.append(
            f"batch_size {config.batch_size} with {len(train.images_NHW)} training images leaves nothing for some of "
            f"{worker.world_size} workers"
        )
    if mistakes:
        raise ValueError("; ".join(mistakes))


def _copy_to_cpu(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().to("cpu", copy=True) for key, value in model.state_dict().items()}


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")
