"""Structured pruning: channels taken out for good, the batch statistics made anew, and a short fine-tuning.

Of the paper's five U-Nets (torch-pruning 1.6): the last two decoder blocks must be spared, numbers of channels are not
rounded, and a network that is cut looks dead until its batch norm statistics are made anew.

Shapes: N samples, S side of the sample in pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
import torch_pruning
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.data import TrialData
from trainables.step import loop
from trainables.step.batches import Batches
from trainables.step.learner import Learner
from trainables.step.worker import Worker, seed_everything

SPARED_BLOCKS = 2
"""Decoder blocks at the end that are not cut: they have 16 to 32 channels."""
RECALIBRATION_BATCH = 16
FINE_TUNING_RATE = 0.5
"""Of the learning rate that the network was trained with."""


def prune(network: nn.Module, share: float, size_px: int) -> nn.Module:
    """A copy of a network with a share of the channels of each layer taken out, the weakest by the L2 norm of groups.

    Args:
        network: a `Segmenter`.
        share: of the channels that go, above 0 and below 1.
        size_px: side S of the images.

    Raises:
        ValueError: the network's layers cannot be followed.
    """
    smaller = copy.deepcopy(network).train()
    for parameter in smaller.parameters():
        parameter.requires_grad_(True)  # the pruner follows gradients
    net = smaller.get_submodule("net")
    blocks = list(getattr(net.get_submodule("decoder"), "blocks", []))[-SPARED_BLOCKS:]
    spared = [net.get_submodule("segmentation_head"), *(part for block in blocks for part in block.modules())]
    try:
        torch_pruning.pruner.MetaPruner(
            smaller,
            torch.rand(2, 1, size_px, size_px),
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=share,
            ignored_layers=spared,
        ).step()
        with torch.inference_mode():
            smaller.eval()(torch.rand(1, 1, size_px, size_px))
    except Exception as error:  # whatever the tracer meets
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"pruned: the layers of this network cannot be followed: {reason}") from error
    return smaller


@torch.no_grad()
def recalibrate(network: nn.Module, images_NSS: np.ndarray) -> nn.Module:
    """A copy of a network with the statistics of its batch norms taken over images, as plain means.

    In training they are running means that lag behind the weights; after few steps, or after pruning, they are wrong.

    Args:
        network: images (B, 1, S, S) in [0, 1] to logits.
        images_NSS: uint8 training images.
    """
    fresh = copy.deepcopy(network)
    norms = [part for part in fresh.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches (torch.nn.BatchNorm2d)
    fresh.train()
    for start in range(0, len(images_NSS) - 1, RECALIBRATION_BATCH):
        fresh(to_input(images_NSS[start : start + RECALIBRATION_BATCH]))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return fresh.eval()


def fine_tune(
    network: nn.Module,
    data: TrialData,
    config: TrialConfig,
    *,
    epochs: int,
    val_dice: Callable[[nn.Module], float],
    tell: Callable[[str], None],
) -> nn.Module:
    """Train a network on for a few epochs, at a lower rate that goes down to zero; the best on `val` is kept.

    It is judged with batch statistics made anew: those of training lag far behind its weights.

    Args:
        network: the start; changed.
        data: the study's samples.
        config: that the network was trained with.
        epochs: how many.
        val_dice: what a network scores on `val`.
        tell: given a line after each epoch.
    """
    rate = FINE_TUNING_RATE * config.learning_rate
    changes = {"epochs": epochs, "learning_rate": rate, "schedule": "cosine", "warmup_epochs": 0}
    changes |= {"frozen_encoder_epochs": 0, "ema_decay": 0.0, "precision": "fp32"}
    short = config.model_copy(update=changes)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learner = Learner(network, short, worker=Worker(precision="fp32"), device=device)
    network = learner.model
    train = Batches(data.split("train"), device)
    best, best_dice = copy.deepcopy(network).cpu().eval(), 0.0
    for epoch in range(epochs):
        seed_everything(short.seed, epoch, 0)
        loop.train_epoch(learner, train, short, epoch)
        judged = recalibrate(copy.deepcopy(network).cpu(), data.split("train").images_NHW)
        dice = val_dice(judged)
        tell(f"fine-tuning, epoch {epoch + 1} of {epochs}: val Dice {dice:.4f}")
        if dice > best_dice:
            best, best_dice = judged, dice
    return best


def to_input(images_NSS: np.ndarray) -> Tensor:
    """uint8 images as a network takes them: (N, 1, S, S) float32 in [0, 1]."""
    return torch.from_numpy(np.array(images_NSS)).unsqueeze(1).float() / 255
