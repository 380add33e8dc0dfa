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
import time
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from cluster.storage import Folder
from trainables.config import TrialConfig
from trainables.data import Samples, Split, TrialData
from trainables.net.architecture import Architecture
from trainables.net.models import parameter_count, trains_on_one_image
from trainables.record import VAL_MEASURES, EpochRow, best_epoch, checkpoint_name
from trainables.step import checkpoint, loop
from trainables.step.batches import Batches, parts_of
from trainables.step.checkpoint import Checkpoint
from trainables.step.learner import agree, build_learner
from trainables.step.loop import NonFiniteLoss
from trainables.step.precision import Precision
from trainables.step.worker import Worker, host_memory_errors, peak_memory_gb, prepare_process, seed_everything

__all__ = ["NonFiniteLoss", "Samples", "TrialData", "TrialSession", "Worker", "untrained_measures"]

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
            size_px = data.train.images_NHW.shape[1]
            seed_everything(config.seed, INIT_STREAM)
            self._learner = build_learner(config, image_size_px=size_px, worker=worker, device=self._device)
            self._parameters = parameter_count(self._learner.model)

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

    @property
    def threshold(self) -> float:
        """The probability above which a pixel is lesion: where the best epoch was cut."""
        best = best_epoch(self.history)
        if best is not None:
            return best.cut_at
        return 0.5 if isinstance(self.config.threshold, str) else self.config.threshold

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
        with host_memory_errors():
            loop.settle_statistics(self._learner, self._of("train"), self.config)
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
            cut_at=measures["cut_at"],
            raw_val_dice=self._raw_dice(measures["dice"]),
            train_s=train_s,
            val_s=val_s,
            images_per_s=trained["images"] / train_s,
            peak_memory_gb=memory_gb,
        )
        self.epoch += 1
        self.history.append(row)
        if self.best_epoch == self.epoch:
            self._best = (self.epoch, _copy_to_cpu(self._learner.judged))
        return row

    def evaluate(self, split: Split) -> dict[str, float]:
        """Measure the model on a split, as it stands, at the size of the samples.

        Probabilities are cut at the configuration's threshold. Where that is to be chosen on validation, `val` chooses,
        and other splits are cut where the best epoch was.

        Returns:
            `loss`, `dice`, `iou` (hard, per image), `dice_soft`, `iou_soft`, averaged over the images, `cut_at`, and
            `images`, their number; the same on every worker.

        Raises:
            ValueError: there is no such split.
        """
        thresholds = loop.thresholds_of(self.config) if split == "val" else (self.threshold,)
        return self._measured(self._learner.judged, split, thresholds)

    @torch.no_grad()
    def predict(self, images_NHW: np.ndarray) -> np.ndarray:
        """The lesion's probability in each pixel of a few images, by the model as it stands.

        Args:
            images_NHW: uint8, of the size of the samples; few enough for one batch.

        Returns:
            float32 in [0, 1], (N, H, W).
        """
        network = self._learner.judged.eval()
        image_N1HW = torch.from_numpy(np.array(images_NHW)).unsqueeze(1).to(self._device).float() / 255
        with self._learner.autocast():
            logits_N1HW = network(image_N1HW)
        return logits_N1HW.float().sigmoid().squeeze(1).cpu().numpy()

    def save(self, folder: Folder) -> None:
        """Write the state after the last epoch, so that `restore` goes on as if nothing had happened. Rank 0 writes."""
        if self._me.rank == 0:
            learner = self._learner
            trains = {} if learner.average is None else {"weights": learner.model.state_dict()}
            state = Checkpoint(
                epoch=self.epoch,
                weights=learner.judged.state_dict(),
                config=self.config.model_dump(mode="json"),
                history=[row.model_dump() for row in self.history],
                optimiser={
                    "optimiser": learner.optimiser.state_dict(),
                    "scaler": learner.scaler.state_dict(),
                    **trains,
                },
                precision=learner.precision,
            )
            checkpoint.save(folder, state, best_epoch=self.best_epoch)

    def restore(self, folder: Folder) -> bool:
        """Take the state of the newest checkpoint that can be gone on from; False, and nothing changed, if none can.

        That is one which is whole, and whose best epoch's weights are: without them what follows would not be what an
        undisturbed trial gives. The number format is the checkpoint's.

        Raises:
            ValueError: the checkpoint is of another configuration.
        """
        found = agree(_usable(folder) if self._me.rank == 0 else None, self._me.world_size, self._device)
        if found is None:
            return False
        name, best_name = found
        state, learner = checkpoint.load(folder, name), self._learner
        self._check_same(state.config, f"{folder}/{name}")
        learner.use_precision(cast(Precision, state.precision))
        learner.judged.load_state_dict(state.weights)
        learner.model.load_state_dict(state.optimiser.get("weights", state.weights))
        learner.optimiser.load_state_dict(state.optimiser["optimiser"])
        learner.scaler.load_state_dict(state.optimiser["scaler"])
        self.epoch, self.history = state.epoch, [EpochRow.model_validate(row) for row in state.history]
        best = state if best_name == name else checkpoint.load(folder, best_name)
        self._best = (best.epoch, best.weights)
        return True

    def restore_best(self) -> int:
        """Put the weights of the best epoch into the model; gives that epoch. Training on from there is not meant.

        Raises:
            ValueError: no epoch has been trained.
        """
        if self._best is None:
            raise ValueError("no epoch has been trained, so there are no best weights")
        epoch, weights = self._best
        self._learner.judged.load_state_dict(weights)
        return epoch

    def close(self) -> None:
        """Free everything, GPU memory too. The session cannot be used afterwards."""
        self.__dict__.pop("_learner", None)
        self._batches, self._best = {}, None
        if self._me.world_size > 1:
            gc.collect()  # DDP's hooks and its model hold each other; a plain model is freed without a search.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _of(self, split: Split) -> Batches:
        if split not in self._batches:
            self._batches[split] = Batches(self._data.split(split), self._device)
        return self._batches[split]

    def _measured(self, network: nn.Module, split: Split, thresholds: tuple[float, ...]) -> dict[str, float]:
        batches = self._of(split)
        with host_memory_errors():
            measures = loop.evaluate(self._learner, batches, self.config, thresholds=thresholds, network=network)
        return {**measures, "images": len(batches)}

    def _raw_dice(self, judged_dice: float) -> float:
        """The validation Dice of the weights that train: the one that was measured, unless that is of their average."""
        if self._learner.average is None:
            return judged_dice
        return self._measured(self._learner.model, "val", loop.thresholds_of(self.config))["dice"]

    def _largest(self, *values: float) -> list[float]:
        """The largest of each value over the workers."""
        if self._me.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor.tolist()

    def _check_same(self, saved: dict[str, Any], where: str) -> None:
        mine = self.config.model_dump(mode="json")
        may_differ = ("epochs",) if self.config.open_ended else ()
        other = {
            key: (saved.get(key), mine[key]) for key in mine if saved.get(key) != mine[key] and key not in may_differ
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


def _usable(folder: Folder) -> tuple[str, str] | None:
    """The newest whole checkpoint whose best epoch is whole too, and that epoch's; None if there is none."""
    whole = list(checkpoint.whole(folder))
    for name in whole:
        best = best_epoch([EpochRow.model_validate(row) for row in checkpoint.history(folder, name)])
        best_name = checkpoint_name(best.epoch) if best else name
        if best_name in whole:
            return name, best_name
    return None


def check_fits(config: TrialConfig, data: TrialData, worker: Worker) -> None:
    """Refuse what cannot train, all mistakes at once. Raises ValueError."""
    mistakes = []
    train_NHW, val_NHW = data.split("train").images_NHW, data.split("val").images_NHW
    size_px = train_NHW.shape[1]
    if train_NHW.shape[1:] != val_NHW.shape[1:] or size_px != train_NHW.shape[2]:
        mistakes.append(f"images must be square and of one size: {train_NHW.shape}, {val_NHW.shape}")
    if config.image_size_px is not None and config.image_size_px > size_px:
        mistakes.append(f"image_size_px {config.image_size_px} is above the samples' {size_px} px; build larger ones")
    batch = min(config.batch_size, len(train_NHW))
    if batch < worker.world_size:
        mistakes.append(
            f"batch_size {config.batch_size} with {len(train_NHW)} training images leaves nothing for some of "
            f"{worker.world_size} workers"
        )
    if mistakes:
        raise ValueError("; ".join(mistakes))
    share = batch // worker.world_size
    if share // parts_of(share, config.accumulation) < 2 and not trains_on_one_image(Architecture.of(config, size_px)):
        raise ValueError(
            f"batch_size {config.batch_size} leaves one image in a part of a batch, and batch norm one pixel of it; "
            f"give a larger batch_size (workers: {worker.world_size}, accumulation: {config.accumulation})"
        )


def _copy_to_cpu(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().to("cpu", copy=True) for key, value in model.state_dict().items()}


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")
