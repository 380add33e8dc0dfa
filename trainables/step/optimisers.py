"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from trainables.config import Schedule, TrialConfig

FUSED = ("adam", "adamw", "sgd")
"""Those that torch can run as one kernel, on CUDA and on a CPU."""


ENCODER = "net.encoder."
"""How the names of a network's encoder parameters begin."""


def build_optimiser(config: TrialConfig, model: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """The configuration's optimiser over a model; torch's default values for all that it does not name.

    Each group of parameters has its `rate_factor`, by which `set_learning_rate` multiplies.
    """
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
    return classes[config.optimiser](_groups(config, model), **arguments)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group: the encoder's is its share of the decoder's."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["rate_factor"]


def _groups(config: TrialConfig, model: nn.Module) -> list[dict[str, Any]]:
    """One group where all parameters have one rate, else the encoder's and the rest."""
    if config.encoder_rate_factor == 1:
        return [{"params": list(model.parameters()), "rate_factor": 1.0}]
    encoder = [parameter for name, parameter in model.named_parameters() if name.startswith(ENCODER)]
    rest = [parameter for name, parameter in model.named_parameters() if not name.startswith(ENCODER)]
    return [
        {"params": rest, "rate_factor": 1.0},
        {"params": encoder, "rate_factor": config.encoder_rate_factor},
    ]


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
