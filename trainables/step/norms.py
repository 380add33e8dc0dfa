"""The statistics by which batch norms normalise when nothing is trained.

They are running averages that follow the weights late: the decoder's momentum of 0.01, which is Keras' and the paper's,
needs hundreds of steps, and a short trial would be judged by statistics of weights that it no longer has (docs/log.md:
hard Dice 0.19 instead of 0.86 after three epochs). What is learnt does not depend on them, so they can be made anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def recalibrate(model: nn.Module, images: Iterable[Tensor], *, still: str = "") -> None:
    """Set the statistics of a model's batch norms to their averages over some batches, by the weights as they are.

    All but the norms stays in evaluation mode: no dropout, no random number is drawn (`torch.optim.swa_utils.update_bn`
    has both, which would make a trial depend on whether it was measured).

    Args:
        model: batch norms without running statistics are left alone.
        images: batches as the model takes them, each of two images at least.
        still: modules whose name begins so keep their statistics: those of a frozen encoder.
    """
    norms = [
        module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and not (still and name.startswith(still))
    ]
    if not norms:
        return
    model.eval()
    with _averaging(norms):
        for batch in images:
            model(batch)


@contextlib.contextmanager
def _averaging(norms: list[_BatchNorm]) -> Iterator[None]:
    """Let norms begin anew and give every batch the same weight."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
