"""train_epoch() and evaluate(): plain PyTorch, on one worker or several.

Batches are global: with W workers each takes a contiguous share of every batch. A worker's loss is the sum over its
images times W / (images of the global batch), so that the average of gradients that DDP makes is the gradient of the
mean over the global batch, with uneven shares too. With accumulation a share is processed in parts whose gradients
are added, by the same rule.

Shapes: N images of a split, B batch, H rows, W columns; S steps of an epoch.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainables.config import TrialConfig
from trainables.data import Samples
from trainables.step.augment import apply, draw
from trainables.step.losses import segmentation_loss
from trainables.step.metrics import MetricSums, hard_dice_iou
from trainables.step.optimisers import learning_rate_factor
from trainables.step.precision import DTYPES, Precision

ORDER_STREAM = 0
"""Keeps the draws of an epoch's order apart from others of the same seed and epoch."""
CHECK_EVERY_STEPS = 25
"""How often the losses are looked at: each look makes the CPU wait for the GPU."""
ON_DEVICE_SHARE = 0.25
"""Share of a GPU's free memory that samples may take; beyond it they stay in host memory."""


class NonFiniteLoss(ValueError):  # noqa: N818 - it is a result of training, and is called so in tables
    """The loss became NaN or infinite; the message says in which epoch and step."""


class Batches:
    """The samples of a split, ready to be indexed; on a GPU they are put there once if they fit.

    Args:
        samples: uint8 images and masks, e.g. memory maps shared by all trials of a machine.
        device: where batches are wanted.
    """

    def __init__(self, samples: Samples, device: torch.device) -> None:
        self._samples = samples
        self._device = device
        self._held: tuple[Tensor, Tensor] | None = None
        if device.type == "cuda":
            free_bytes, _ = torch.cuda.mem_get_info(device)
            if 2 * samples.images_NHW.nbytes <= ON_DEVICE_SHARE * free_bytes:
                self._held = (_to_device(samples.images_NHW, device), _to_device(samples.masks_NHW, device))

    def __len__(self) -> int:
        return len(self._samples.images_NHW)

    def take(self, indices_B: np.ndarray) -> tuple[Tensor, Tensor]:
        """Images (B, 1, H, W) in [0, 1] and masks (B, 1, H, W) of 0 and 1, float32, on the device."""
        if self._held is not None:
            index_B = torch.from_numpy(indices_B).to(self._device, non_blocking=True)
            image_BHW, mask_BHW = (held.index_select(0, index_B) for held in self._held)
        else:
            image_BHW, mask_BHW = (
                self._gather(a, indices_B) for a in (self._samples.images_NHW, self._samples.masks_NHW)
            )
        return image_BHW.unsqueeze(1).float().div_(255), mask_BHW.unsqueeze(1).float()

    def _gather(self, array_NHW: np.ndarray, indices_B: np.ndarray) -> Tensor:
        picked = torch.from_numpy(array_NHW[indices_B])
        if self._device.type == "cuda":
            return picked.pin_memory().to(self._device, non_blocking=True)
        return picked.to(self._device)


@dataclass(frozen=True, kw_only=True)
class Learner:
    """What a worker trains with."""

    model: nn.Module
    """The network itself, without a DDP wrapper."""
    wrapped: nn.Module
    """What is called in training: the network, or its DDP wrapper."""
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    precision: Precision
    rank: int
    world_size: int

    def autocast(self) -> contextlib.AbstractContextManager:
        """The number format of forward passes."""
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision], enabled=self.precision != "fp32")


def epoch_order(images: int, config: TrialConfig, epoch: int) -> np.ndarray:
    """The images of each global batch of an epoch, from (seed, epoch) alone: int64 (S, batch).

    An incomplete last batch is left out, unless it is the only one.
    """
    order_N = np.random.default_rng([config.seed, epoch, ORDER_STREAM]).permutation(images)
    batch = min(config.batch_size, images)
    return order_N[: images // batch * batch].reshape(-1, batch)


def share(images: int, rank: int, world_size: int) -> slice:
    """The contiguous part of `images` that is this worker's; sizes differ by one at most, the first are larger."""
    even, left = divmod(images, world_size)
    start = rank * even + min(rank, left)
    return slice(start, start + even + (rank < left))


def train_epoch(learner: Learner, batches: Batches, config: TrialConfig, epoch: int) -> dict[str, float]:
    """Train one epoch.

    Args:
        learner: this worker's model, optimiser and share of the work.
        batches: the training split.
        config: the trial's.
        epoch: from 0.

    Returns:
        `train_loss` (mean over the epoch's images, with augmentation and dropout), `learning_rate` (of the last
        step), `images`; the same on every worker.

    Raises:
        NonFiniteLoss: on every worker at once.
    """
    order_SB = epoch_order(len(batches), config, epoch)
    steps, batch = order_SB.shape
    mine = share(batch, learner.rank, learner.world_size)
    augmentation = draw(config, epoch=epoch, images=order_SB.size, device=learner.device)
    losses_S = torch.zeros(steps, device=learner.device)
    learner.model.train()
    rate = config.learning_rate
    for step in range(steps):
        rate = _set_learning_rate(learner.optimiser, config, epoch + step / steps, 1 / steps)
        image_B1HW, mask_B1HW = batches.take(order_SB[step, mine])
        picked = slice(step * batch + mine.start, step * batch + mine.stop)
        image_B1HW, mask_B1HW = apply(image_B1HW, mask_B1HW, augmentation[picked])
        losses_S[step] = _train_step(learner, image_B1HW, mask_B1HW, config, batch)
        if (step + 1) % CHECK_EVERY_STEPS == 0 or step + 1 == steps:
            _check_finite(losses_S[: step + 1], epoch, learner.world_size)
    _all_reduce(losses_S, learner.world_size)
    _average_statistics(learner)
    return {"train_loss": losses_S.double().mean().item(), "learning_rate": rate, "images": float(order_SB.size)}


@torch.inference_mode()
def evaluate(learner: Learner, batches: Batches, config: TrialConfig) -> dict[str, float]:
    """Measure the model on a split: each worker takes its share, the sums are added before they are averaged.

    Returns:
        `loss`, `dice`, `iou` (hard, per image), `dice_soft`, `iou_soft`, averaged over images; the same on every
        worker.
    """
    learner.model.eval()
    mine = share(len(batches), learner.rank, learner.world_size)
    size = max(config.batch_size // config.accumulation // learner.world_size, 1)
    total = MetricSums.none(learner.device)
    for start in range(mine.start, mine.stop, size):
        image_B1HW, mask_B1HW = batches.take(np.arange(start, min(start + size, mine.stop)))
        with learner.autocast():
            logits_B1HW = learner.model(image_B1HW)
        total = total + MetricSums.of(_measures(logits_B1HW.float(), mask_B1HW, config))
    _all_reduce(total.sums, learner.world_size)
    return total.means()


def _train_step(learner: Learner, image_B1HW: Tensor, mask_B1HW: Tensor, config: TrialConfig, batch: int) -> Tensor:
    """One optimiser step; gives this worker's part of the batch's mean loss, as a tensor on the device."""
    learner.optimiser.zero_grad(set_to_none=True)
    images, masks = image_B1HW.chunk(config.accumulation), mask_B1HW.chunk(config.accumulation)
    loss = torch.zeros((), device=learner.device)
    for part, (image, mask) in enumerate(zip(images, masks, strict=True)):
        with _synchronised(learner, last=part + 1 == len(images)):
            with learner.autocast():
                logits = learner.wrapped(image)
            part_loss = _loss(logits, mask, config)[0].sum() / batch
            # DDP divides the sum of the workers' gradients by their number.
            learner.scaler.scale(part_loss * learner.world_size).backward()
        loss += part_loss.detach()
    if config.gradient_clip_norm is not None:
        learner.scaler.unscale_(learner.optimiser)
        nn.utils.clip_grad_norm_(learner.model.parameters(), config.gradient_clip_norm)
    learner.scaler.step(learner.optimiser)
    learner.scaler.update()
    return loss


def _loss(logits_B1HW: Tensor, mask_B1HW: Tensor, config: TrialConfig) -> tuple[Tensor, Tensor, Tensor]:
    return segmentation_loss(
        logits_B1HW,
        mask_B1HW,
        dice_weight=config.dice_weight,
        iou_weight=config.iou_weight,
        bce_weight=config.bce_weight,
    )


def _measures(logits_B1HW: Tensor, mask_B1HW: Tensor, config: TrialConfig) -> dict[str, Tensor]:
    loss_B, dice_soft_B, iou_soft_B = _loss(logits_B1HW, mask_B1HW, config)
    dice_B, iou_B = hard_dice_iou(torch.sigmoid(logits_B1HW), mask_B1HW, threshold=config.threshold)
    return {"loss": loss_B, "dice": dice_B, "iou": iou_B, "dice_soft": dice_soft_B, "iou_soft": iou_soft_B}


def _set_learning_rate(
    optimiser: torch.optim.Optimizer, config: TrialConfig, epochs_done: float, step_epochs: float
) -> float:
    """Set and give the rate of the step that begins at `epochs_done`; warm-up counts the step itself, never 0."""
    position = epochs_done + step_epochs if epochs_done < config.warmup_epochs else epochs_done
    rate = config.learning_rate * learning_rate_factor(
        config.schedule, epochs_done=position, epochs=config.epochs, warmup_epochs=config.warmup_epochs
    )
    for group in optimiser.param_groups:
        group["lr"] = rate
    return rate


def _synchronised(learner: Learner, *, last: bool) -> contextlib.AbstractContextManager:
    """Let DDP exchange gradients with the last part of a batch only."""
    if isinstance(learner.wrapped, DistributedDataParallel) and not last:
        return learner.wrapped.no_sync()
    return contextlib.nullcontext()


def _check_finite(losses_S: Tensor, epoch: int, world_size: int) -> None:
    """Raise NonFiniteLoss on every worker if one of them met a loss that is not finite."""
    bad_S = ~torch.isfinite(losses_S)
    first = torch.where(bad_S.any(), bad_S.float().argmax(), len(losses_S))
    if world_size > 1:
        dist.all_reduce(first, op=dist.ReduceOp.MIN)
    step = int(first)
    if step < len(losses_S):
        raise NonFiniteLoss(
            f"the loss is not finite in epoch {epoch + 1}, step {step + 1}; a lower learning_rate, a "
            "gradient_clip_norm or precision: fp32 may cure it"
        )


@torch.no_grad()
def _average_statistics(learner: Learner) -> None:
    """Make the batch-norm statistics the workers' average: each has gathered them over its own shares."""
    if learner.world_size == 1:
        return
    buffers = [buffer for buffer in learner.model.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([buffer.reshape(-1).float() for buffer in buffers])
    dist.all_reduce(flat)
    parts = (flat / learner.world_size).split([buffer.numel() for buffer in buffers])
    for buffer, part in zip(buffers, parts, strict=True):
        buffer.copy_(part.view_as(buffer))


def _all_reduce(tensor: Tensor, world_size: int) -> None:
    """Add up a tensor over the workers, in place."""
    if world_size > 1:
        dist.all_reduce(tensor)


def _to_device(array: np.ndarray, device: torch.device) -> Tensor:
    # A memory map is read-only, which torch warns of: a copy in host memory is needed for the transfer anyway.
    return torch.from_numpy(np.array(array)).to(device)
