"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from trainables.config import Schedule, TrialConfig

FUSED = ("adam", "adamw", "sgd")
"""Those that torch can run as one kernel, on CUDA and on a CPU."""


def build_optimiser(
    config: TrialConfig, parameters: Iterable[nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """The configuration's optimiser over these parameters; torch's default values for all that it does not name."""
    arguments: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimiser in FUSED and device.type in ("cpu", "cuda"):
        arguments["fused"] = True
    if config.optimiser in ("sgd", "rmsprop"):
        arguments["momentum"] = config.momentum
    classes = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "nadam": torch.optim.NAdam,
        "radam": torch.optim.RAdam,
        "rmsprop": torch.optim.RMSprop,
        "sgd": torch.optim.SGD,
    }
    return classes[config.optimiser](parameters, **arguments)


def learning_rate_factor(schedule: Schedule, *, epochs_done: float, epochs: int, warmup_epochs: int = 0) -> float:
    """The share of the configured learning rate that applies after `epochs_done` epochs, in [0, 1].

    A function of the position alone, so that there is no state to save. During warm-up it rises linearly from 0;
    the schedule is stretched over what is left of the full budget.

    Args:
        schedule: constant; cosine and linear to 0; polynomial (1 - t)^0.9 to 0; step: a tenth from 1/2, a hundredth
            from 3/4 of the way.
        epochs_done: position, a fraction inside an epoch.
        epochs: the full budget.
        warmup_epochs: less than `epochs`.
    """
    if epochs_done < warmup_epochs:
        return epochs_done / warmup_epochs
    t = min((epochs_done - warmup_epochs) / (epochs - warmup_epochs), 1.0)
    match schedule:
        case "constant":
            return 1.0
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * t))
        case "linear":
            return 1 - t
        case "polynomial":
            return (1 - t) ** 0.9
        case "step":
            return 1.0 if t < 0.5 else 0.1 if t < 0.75 else 0.01
