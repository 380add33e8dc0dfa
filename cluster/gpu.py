"""Whether the torch that is installed has kernels for the GPUs that are there, and what to install if not.

A wheel of torch carries machine code (`sm_75`) for some GPUs and, for some, code that the driver can still translate
(`compute_90`). Machine code runs on its own generation, from its own revision up; the translatable kind on everything
newer. Current wheels have dropped the P100 (sm_60): the last that have it are built for CUDA 12.6.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

Capability = tuple[int, int]

_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")

LEGACY = "torch==2.13.0 torchvision==0.28.0 of PyTorch's CUDA 12.6 index (pip install --index-url $TORCH_INDEX_URL ...)"
"""The newest pinned torch that has Maxwell, Pascal and Volta (sm_50 to sm_70); no torch from 2.15 on has them."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch sees it."""

    name: str
    capability: Capability
    """Major and minor, as `torch.cuda.get_device_capability` gives it."""


def supports(architectures: Sequence[str], capability: Capability) -> bool:
    """Whether one of torch's architectures (`torch.cuda.get_arch_list()`) runs on a GPU."""
    for text in architectures:
        found = _ARCHITECTURE.fullmatch(text)
        if found is None:
            continue
        kind, built, exact = found[1], (int(found[2]), int(found[3])), bool(found[4])
        if built == capability or (not exact and kind == "compute" and built <= capability):
            return True
        if not exact and kind == "sm" and built[0] == capability[0] and built[1] <= capability[1]:
            return True
    return False


def advice(gpu: Gpu, architectures: Sequence[str], torch_version: str) -> str | None:
    """What to install for a GPU that torch has no kernels for, or None if it has.

    Args:
        gpu: the device.
        architectures: `torch.cuda.get_arch_list()`; empty for a torch without CUDA.
        torch_version: `torch.__version__`.
    """
    if supports(architectures, gpu.capability):
        return None
    wanted = f"sm_{gpu.capability[0]}{gpu.capability[1]}"
    if not architectures:
        return f"{gpu.name} ({wanted}): torch {torch_version} is built without CUDA; install a CUDA build of it"
    has = f"{gpu.name} is {wanted}, and torch {torch_version} has {', '.join(architectures)}"
    if gpu.capability < (7, 5):
        return f"{has}; install {LEGACY}"
    return f"{has}; install a newer torch, built for a newer CUDA"
