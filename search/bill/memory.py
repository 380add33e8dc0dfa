"""What a training step needs, known before anything is trained: memory, operations, parameters.

The model is run forward and backward without its numbers (torch's meta device; fake tensors where precision is mixed),
while every tensor's storage is counted from its making to its end. The pass has a large prime as its batch, so that a
size that it divides grows with the batch and every other does not: each moment's memory is a straight line in the
batch, and the peak at any batch is the highest of these lines. Everything is cached, so a space of many batch sizes
costs one pass for each model, in full precision and in mixed.

The figures are those of torch's allocator. What a process or a CUDA context holds beside them is in `cluster.pools`.
`benchmarks/memory.py` compares prediction and measurement.

Shapes: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from trainables.config import TrialConfig
from trainables.net.architecture import Architecture
from trainables.net.models import meta_model, parameter_count
from trainables.step.optimisers import FUSED

PROBE_BATCH = 1009
"""Prime, and no layer has a multiple of it."""
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Memory:
    """Bytes of one worker's trial at its fullest."""

    weights: int
    """Parameters and buffers."""
    gradients: int
    """Gradients; with several workers DDP's buckets, of which the gradients are views."""
    optimiser: int
    """Running averages of the gradients."""
    average: int
    """The moving average of the weights, where one is kept."""
    step: int
    """Peak of forward and backward beyond the weights: activations, and the gradients that exist by then."""
    update: int
    """What the optimiser's update holds for a moment."""

    @property
    def peak(self) -> int:
        """Bytes at the fullest moment: in the backward pass, or in the optimiser's update if that is fuller."""
        return self.weights + self.optimiser + self.average + max(self.step, self.gradients + self.update)

    @property
    def peak_gb(self) -> float:
        """The same in GB (1e9 bytes)."""
        return self.peak / 1e9


def predict_memory(config: TrialConfig, *, image_size_px: int, workers: int = 1, precision: str = "fp32") -> Memory:
    """The memory that each worker of a trial needs.

    Args:
        config: the trial; its global batch is split over workers and accumulation steps.
        image_size_px: height and width of the samples.
        workers: workers of the pool.
        precision: `fp32`, `bf16` or `fp16`; used where the configuration says `auto`.
    """
    chosen = precision if config.precision == "auto" else config.precision
    architecture = Architecture.of(config, image_size_px)
    gradients_stay = config.accumulation > 1 or workers > 1  # from part to part, or in DDP's buckets
    lines = _memory_lines(architecture, chosen != "fp32", gradients_stay)
    batch = max(1, config.batch_size // (workers * config.accumulation))
    weights, trainable = _weight_bytes(architecture)
    return Memory(
        weights=weights,
        gradients=trainable,
        optimiser=_running_averages(config) * trainable,
        average=weights if config.ema_decay else 0,
        step=int(np.max(lines[:, 0] + lines[:, 1] * batch)),
        update=0 if config.optimiser in FUSED else trainable,
    )


@lru_cache(maxsize=256)
def parameters(architecture: Architecture) -> int:
    """Trainable parameters of a model."""
    return parameter_count(meta_model(architecture))


@lru_cache(maxsize=256)
def flops_per_image(architecture: Architecture) -> tuple[int, int]:
    """Operations for one image: (forward alone, forward and backward), a multiply-add being two."""
    model = meta_model(architecture)
    image_BCHW = _blank(2, architecture.size_px, torch.device("meta"))
    with FlopCounterMode(display=False) as counter:
        logits_BCHW = model(image_BCHW)
        forward = counter.get_total_flops()
        torch.autograd.grad(logits_BCHW.sum(), list(model.parameters()), allow_unused=True)
    return forward // 2, counter.get_total_flops() // 2


def _running_averages(config: TrialConfig) -> int:
    """How many tensors of a parameter's size the optimiser keeps for each."""
    if config.optimiser == "sgd":
        return int(config.momentum > 0)
    if config.optimiser == "rmsprop":
        return 1 + int(config.momentum > 0)
    return 2  # adam and its kin: first and second moment


@lru_cache(maxsize=256)
def _weight_bytes(architecture: Architecture) -> tuple[int, int]:
    """Bytes of all weights and buffers, and of the trainable ones."""
    model = meta_model(architecture)
    tensors = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors), FLOAT_BYTES * parameter_count(model)


@lru_cache(maxsize=256)
def _memory_lines(architecture: Architecture, mixed: bool, gradients_stay: bool) -> np.ndarray:
    """Live bytes beyond the weights at each event of a step, as lines: (events, 2), bytes at batch 0 and per image."""
    model = copy.deepcopy(meta_model(architecture))
    # Autocast knows no meta device; fake tensors say they are on the CPU, where the same operations are narrowed.
    with FakeTensorMode(allow_non_fake_inputs=True) if mixed else contextlib.nullcontext():
        model = model.to_empty(device="cpu") if mixed else model
        image_BCHW = _blank(PROBE_BATCH, architecture.size_px, torch.device("cpu" if mixed else "meta"))
        counter = _LiveBytes(known=[*model.parameters(), *model.buffers()])
        _step(model, image_BCHW, counter, parts=2 if gradients_stay else 1, mixed=mixed)
    return np.unique(np.array(counter.trace, dtype=float), axis=0)


def _step(model: nn.Module, image_BCHW: Tensor, counter: _LiveBytes, *, parts: int, mixed: bool) -> None:
    """Forward and backward as in training; the gradients stay from part to part."""
    for _ in range(parts):
        with counter, torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            loss = _loss(model(image_BCHW), image_BCHW)
        with counter:
            loss.backward()
        del loss


def _loss(logits_BCHW: Tensor, mask_BCHW: Tensor) -> Tensor:
    """A loss of the shape of ours: Dice and IoU of probabilities, in fp32."""
    p_BCHW = torch.sigmoid(logits_BCHW.float())
    both, total = (p_BCHW * mask_BCHW).sum(), p_BCHW.sum() + mask_BCHW.sum()
    return 1 - (2 * both + 1) / (total + 1) - (both + 1) / (total - both + 1)


def _blank(batch: int, size_px: int, device: torch.device) -> Tensor:
    return torch.zeros(batch, 1, size_px, size_px, device=device)


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of every storage that an operation makes, until it is freed; `known` ones are left out."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.trace: list[tuple[int, int]] = []
        """After each operation: (bytes whatever the batch, bytes per image)."""
        self._fixed = 0
        self._per_image = 0
        self._known = {t.untyped_storage()._cdata for t in known}
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        self.trace.append((self._fixed, self._per_image))
        return out

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or key in self._alive:
            return
        self._count(size, 1)
        self._alive[key] = weakref.ref(storage, lambda _: self._free(key, size))

    def _free(self, key: int, size: int) -> None:
        self._count(size, -1)
        del self._alive[key]

    def _count(self, size: int, sign: int) -> None:
        if size % PROBE_BATCH == 0:
            self._per_image += sign * (size // PROBE_BATCH)
        else:
            self._fixed += sign * size
