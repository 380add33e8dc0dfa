"""train_epoch() and evaluate(): plain PyTorch, on one worker or several.

Batches are global: with W workers each takes a contiguous share of every batch. A worker's loss is the sum over its
images times W / (images of the global batch), so that the average of gradients that DDP makes is the gradient of the
mean over the global batch, with uneven shares too. With accumulation a share is processed in parts whose gradients
are added, by the same rule.

Shapes: N images of a split, B batch, H rows, W columns; S steps of an epoch.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.step.augment import apply, draw
from trainables.step.batches import Batches, epoch_order, parts_of, share
from trainables.step.learner import Learner
from trainables.step.losses import segmentation_loss
from trainables.step.metrics import THRESHOLDS, MetricSums
from trainables.step.norms import recalibrate
from trainables.step.optimisers import learning_rate_factor, set_learning_rate

CHECK_EVERY_STEPS = 25
"""How often the losses are looked at: each look makes the CPU wait for the GPU."""
STATISTICS_IMAGES = 512
"""Training images, evenly spread over the split, on which the statistics of batch norms are made anew."""


class NonFiniteLoss(ValueError):  # noqa: N818 - it is a result of training, and is called so in tables
    """The loss became NaN or infinite; the message says in which epoch and step."""


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
    order_SB = epoch_order(batches, config, epoch)
    steps, batch = order_SB.shape
    mine = share(batch, learner.rank, learner.world_size)
    augmentation = draw(config, epoch=epoch, images=order_SB.size, device=learner.device)
    losses_S = torch.zeros(steps, device=learner.device)
    learner.begin_epoch(frozen_encoder=epoch < config.frozen_encoder_epochs)
    rate = config.learning_rate
    for step in range(steps):
        rate = _learning_rate(config, epoch + step / steps, 1 / steps)
        set_learning_rate(learner.optimiser, rate)
        image_B1HW, mask_B1HW = batches.take(order_SB[step, mine])
        picked = slice(step * batch + mine.start, step * batch + mine.stop)
        image_B1HW, mask_B1HW = apply(image_B1HW, mask_B1HW, augmentation[picked])
        losses_S[step] = _train_step(learner, image_B1HW, mask_B1HW, config, batch)
        if learner.average is not None:
            learner.average.update(learner.model, step=epoch * steps + step + 1)
        if (step + 1) % CHECK_EVERY_STEPS == 0 or step + 1 == steps:
            _check_finite(losses_S[: step + 1], epoch, learner.world_size)
    _all_reduce(losses_S, learner.world_size)
    return {"train_loss": losses_S.double().mean().item(), "learning_rate": rate, "images": float(order_SB.size)}


def settle_statistics(learner: Learner, batches: Batches, config: TrialConfig) -> None:
    """Give the batch norms the statistics that a network is judged by, the same on every worker.

    Args:
        learner: as `train_epoch` left it.
        batches: the training split.
        config: the trial's.
    """
    some = np.unique(np.linspace(0, len(batches) - 1, min(len(batches), STATISTICS_IMAGES)).astype(int))
    mine = some[share(len(some), learner.rank, learner.world_size)]
    parts = np.array_split(mine, max(len(mine) // _images_per_part(config, learner.world_size), 1))
    for network in learner.networks:
        if config.norm_statistics == "recalibrated":
            with learner.autocast():
                recalibrate(network, (batches.take(part)[0] for part in parts), still=learner.still)
        _average_statistics(network, learner.world_size)


@torch.inference_mode()
def evaluate(
    learner: Learner, batches: Batches, config: TrialConfig, *, thresholds: tuple[float, ...], network: nn.Module
) -> dict[str, float]:
    """Measure a network on a split: each worker takes its share, the sums are added before they are averaged.

    Args:
        learner: whose number format and share of the work it is.
        batches: the split.
        config: the trial's.
        thresholds: where probabilities are cut; of several the best one counts.
        network: the one to be measured.

    Returns:
        `loss`, `dice`, `iou` (hard, per image), `dice_soft`, `iou_soft`, averaged over images, and `cut_at`; the same
        on every worker.
    """
    network.eval()
    mine = share(len(batches), learner.rank, learner.world_size)
    size = _images_per_part(config, learner.world_size)
    total = MetricSums.none(thresholds, learner.device)
    for start in range(mine.start, mine.stop, size):
        image_B1HW, mask_B1HW = batches.take(np.arange(start, min(start + size, mine.stop)))
        with learner.autocast():
            logits_B1HW = network(image_B1HW).float()
        total = total.plus(logits_B1HW, mask_B1HW, segmentation_loss(logits_B1HW, mask_B1HW, config))
    _all_reduce(total.sums, learner.world_size)
    return total.means()


def thresholds_of(config: TrialConfig) -> tuple[float, ...]:
    """The thresholds that a validation chooses from: the configuration's own, or all of `THRESHOLDS`."""
    return THRESHOLDS if isinstance(config.threshold, str) else (config.threshold,)


def _train_step(learner: Learner, image_B1HW: Tensor, mask_B1HW: Tensor, config: TrialConfig, batch: int) -> Tensor:
    """One optimiser step; gives this worker's part of the batch's mean loss, as a tensor on the device."""
    learner.optimiser.zero_grad(set_to_none=True)
    parts = parts_of(len(image_B1HW), config.accumulation)
    images, masks = image_B1HW.tensor_split(parts), mask_B1HW.tensor_split(parts)
    loss = torch.zeros((), device=learner.device)
    for part, (image, mask) in enumerate(zip(images, masks, strict=True)):
        with learner.synchronised(last=part + 1 == parts):
            logits = learner.forward(image)
            part_loss = segmentation_loss(logits, mask, config)[0].sum() / batch
            # DDP divides the sum of the workers' gradients by their number.
            learner.scaler.scale(part_loss * learner.world_size).backward()
        loss += part_loss.detach()
    if config.gradient_clip_norm is not None:
        learner.scaler.unscale_(learner.optimiser)
        nn.utils.clip_grad_norm_(learner.model.parameters(), config.gradient_clip_norm)
    learner.scaler.step(learner.optimiser)
    learner.scaler.update()
    return loss


def _learning_rate(config: TrialConfig, epochs_done: float, step_epochs: float) -> float:
    """The rate of the step that begins at `epochs_done`; warm-up counts the step itself, never 0."""
    position = epochs_done + step_epochs if epochs_done < config.warmup_epochs else epochs_done
    return config.learning_rate * learning_rate_factor(
        config.schedule, epochs_done=position, epochs=config.epochs, warmup_epochs=config.warmup_epochs
    )


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


def _images_per_part(config: TrialConfig, world_size: int) -> int:
    """Images that a worker has in memory at once."""
    return max(config.batch_size // config.accumulation // world_size, 1)


@torch.no_grad()
def _average_statistics(network: nn.Module, world_size: int) -> None:
    """Make the batch-norm statistics the workers' average: each has gathered them over its own shares."""
    if world_size == 1:
        return
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([buffer.reshape(-1).float() for buffer in buffers])
    dist.all_reduce(flat)
    parts = (flat / world_size).split([buffer.numel() for buffer in buffers])
    for buffer, part in zip(buffers, parts, strict=True):
        buffer.copy_(part.view_as(buffer))


def _all_reduce(tensor: Tensor, world_size: int) -> None:
    """Add up a tensor over the workers, in place."""
    if world_size > 1:
        dist.all_reduce(tensor)
