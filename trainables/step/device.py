"""The device that a person asked for, checked before anything is read."""

from __future__ import annotations

import torch


def usable_device(name: str | None) -> str:
    """A device to train on.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, ...; None: the GPU if there is one.

    Raises:
        ValueError: there is no such device here.
    """
    count = torch.cuda.device_count()
    if name is None:
        return "cuda" if count else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name!r} is no device; give cpu, cuda, or cuda:1") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {name}: trials are trained on cpu and cuda only")
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(f"--device {name}: torch {torch.__version__} sees {count} GPUs here")
    return name
