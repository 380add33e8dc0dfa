"""`Learner`: what a worker trains with, made from a configuration: network, optimiser, number format, average.

Shapes: B batch, H rows, W columns.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainables.config import TrialConfig
from trainables.net.architecture import Architecture
from trainables.net.models import build_model, unused_parameters
from trainables.net.vision_ops import ModelEmaV3
from trainables.step.optimisers import ENCODER, build_optimiser
from trainables.step.precision import DTYPES, Precision, best_precision, check_precision
from trainables.step.worker import Worker

_BUFFERS_OPTION = next(
    # torch 2.13 renamed it. The statistics are averaged after each epoch instead of overwritten before each step.
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel.__init__).parameters
)

T = TypeVar("T")


class Learner:
    """A network in training.

    Args:
        model: the network; put on the device.
        config: the trial's.
        worker: which one this is, and what `precision: auto` means for it.
        device: where it trains.

    Raises:
        ValueError: the device does not know the precision.
    """

    def __init__(self, model: nn.Module, config: TrialConfig, *, worker: Worker, device: torch.device) -> None:
        self.rank, self.world_size, self.device = worker.rank, worker.world_size, device
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        # torch's annotations do not know that `to` takes a memory format.
        self.model = cast(nn.Module, cast(Any, model).to(device, memory_format=layout))
        """The network itself, without a DDP wrapper."""
        self.optimiser = build_optimiser(config, self.model, device)
        self.average = ModelEmaV3(self.model, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None
        """The moving average of the network, where one is kept."""
        self.use_precision(_fastest(worker, device) if config.precision == "auto" else config.precision)
        self._encoder = [p for n, p in self.model.named_parameters() if n.startswith(ENCODER) and p.requires_grad]
        self._frozen = False
        self._wrapped = self._wrap()

    @property
    def judged(self) -> nn.Module:
        """The network that is measured and kept: the average, where there is one."""
        return self.average.module if self.average else self.model

    @property
    def networks(self) -> list[nn.Module]:
        """All of them."""
        return [self.model, *([self.average.module] if self.average else [])]

    def use_precision(self, precision: Precision) -> None:
        """Set the number format of forward passes. Raises ValueError if the device does not know it."""
        check_precision(precision, self.device)
        self.precision = precision
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")

    def autocast(self) -> contextlib.AbstractContextManager:
        """The number format of forward passes."""
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision], enabled=self.precision != "fp32")

    def begin_epoch(self, *, frozen_encoder: bool) -> None:
        """Set what trains in this epoch: all, or all but the encoder, whose statistics stay too."""
        if frozen_encoder != self._frozen:
            self._frozen = frozen_encoder
            self.optimiser.zero_grad(set_to_none=True)
            for parameter in self._encoder:
                parameter.requires_grad_(not frozen_encoder)
            self._wrapped = self._wrap()  # DDP knows once and for all which gradients to wait for
        self.model.train()
        if frozen_encoder:
            self.model.get_submodule(ENCODER.rstrip(".")).eval()

    @property
    def still(self) -> str:
        """How the names of modules begin whose batch-norm statistics stay as they are; empty: none do."""
        return ENCODER if self._frozen else ""

    def forward(self, image_B1HW: Tensor) -> Tensor:
        """Logits (B, 1, H, W) in training, through DDP where there are several workers."""
        with self.autocast():
            return self._wrapped(image_B1HW)

    def synchronised(self, *, last: bool) -> contextlib.AbstractContextManager:
        """Let DDP exchange gradients with the last part of a batch only."""
        if isinstance(self._wrapped, DistributedDataParallel) and not last:
            return self._wrapped.no_sync()
        return contextlib.nullcontext()

    def _wrap(self) -> nn.Module:
        """What is called in training: the network, or a DDP wrapper."""
        if self.world_size == 1:
            return self.model
        self._wrapped = self.model  # the old wrapper's hooks and the model hold each other
        gc.collect()
        options: dict[str, Any] = {"gradient_as_bucket_view": True, _BUFFERS_OPTION: False}
        return DistributedDataParallel(self.model, **options)


def build_learner(config: TrialConfig, *, image_size_px: int, worker: Worker, device: torch.device) -> Learner:
    """A configuration's network in training. Its weights come from torch's random state: seed it before.

    Args:
        config: the trial's.
        image_size_px: height and width of the samples.
        worker: which one this is, and what `precision: auto` means for it.
        device: where it trains.

    Raises:
        ValueError: the network cannot be built, or the device does not know the precision.
    """
    architecture = Architecture.of(config, image_size_px)
    model = build_model(architecture, encoder_weights=config.encoder_weights)
    if worker.world_size > 1:
        # DDP would wait for the gradients of parameters that nothing depends on.
        unused = set(unused_parameters(architecture))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name not in unused)
    return Learner(model, config, worker=worker, device=device)


def _fastest(worker: Worker, device: torch.device) -> Precision:
    """What `precision: auto` means, the same for all workers."""
    if worker.precision is not None:
        return worker.precision
    return agree(best_precision(device), worker.world_size, device)


def agree(value: T, world_size: int, device: torch.device) -> T:
    """Rank 0's value, on every worker."""
    if world_size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=device)
    return box[0]
