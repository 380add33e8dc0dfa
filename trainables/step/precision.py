"""Which number format trains fast and safely on a device, looked up before use."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def best_precision(device: torch.device) -> Precision:
    """What `precision: auto` means on a device.

    CUDA: bf16 from compute capability 8.0 (A100 and later), fp16 with loss scaling on 7.x (V100, T4), fp32 before
    (P100: half precision has no tensor cores there). CPU: bf16 with AVX512-BF16 or AMX, where it is about twice as
    fast; elsewhere it would be emulated.
    """
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return "bf16" if major >= 8 else "fp16" if major == 7 else "fp32"
    return "bf16" if device.type == "cpu" and _cpu_has_bf16() else "fp32"


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse what a device cannot do. Raises ValueError."""
    if precision == "fp16" and device.type != "cuda":
        raise ValueError(f"precision: fp16 needs a CUDA device, and this is {device}; set auto, bf16 or fp32")


def _cpu_has_bf16() -> bool:
    # torch has no public question for this; where an older or newer one lacks these, fp32 is the safe answer.
    looks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, look, bool)() for look in looks)
    return native and torch.ops.mkldnn._is_mkldnn_bf16_supported()
