"""Which number format trains fast and safely on a device, found out before use."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import platform
import time
import uuid
from pathlib import Path
from typing import Any, Literal, cast

import torch
from filelock import FileLock
from torch import nn

from data_prep.cache import cache_root

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ROUNDS = 2
"""How often each format's step is timed, by turns; the fastest of each counts."""
WORTH = 0.9
"""bf16 is chosen where its step takes less than this share of fp32's: a tie is not worth the lost digits."""


def best_precision(device: torch.device) -> Precision:
    """What `precision: auto` means on a device.

    CUDA: bf16 from compute capability 8.0 (A100 and later), fp16 with loss scaling on 7.x (V100, T4), fp32 before
    (P100: half precision has no tensor cores there). CPU: fp32, and where the CPU has instructions for bf16 the faster
    of the two. They must be measured: with AMX bf16 takes half the time of fp32, with AVX512-BF16 alone nearly twice.
    That takes some 80 ms, once for each machine; the result is kept in the cache folder.
    """
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return "bf16" if major >= 8 else "fp16" if major == 7 else "fp32"
    return _best_on_cpu() if device.type == "cpu" and _cpu_has_bf16() else "fp32"


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse what a device cannot do. Raises ValueError."""
    if precision == "fp16" and device.type != "cuda":
        raise ValueError(f"precision: fp16 needs a CUDA device, and this is {device}; set auto, bf16 or fp32")


def _best_on_cpu() -> Precision:
    """The faster of fp32 and bf16, from the cache or measured; all processes of a machine use one measurement."""
    machine = _machine()
    digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:16]
    file = cache_root() / "precision" / f"{digest}.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if (step_s := _read(file)) is None:
                step_s = _step_seconds()
                _write(file, {**machine, "step_s": step_s})
    except OSError:  # a cache that cannot be written costs the 50 ms each time
        step_s = _step_seconds()
    return "bf16" if step_s["bf16"] < WORTH * step_s["fp32"] else "fp32"


def _machine() -> dict[str, Any]:
    """What a measurement holds for."""
    cpu = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = "; ".join(dict.fromkeys(line for line in lines if line.startswith(("model name", "flags"))))
    return {"node": platform.node(), "cpu": cpu, "torch": torch.__version__}


def _read(file: Path) -> dict[str, float] | None:
    """A measurement that is there and is one."""
    try:
        step_s = json.loads(file.read_text())["step_s"]
        return {name: float(step_s[name]) for name in ("fp32", "bf16")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(file: Path, content: dict[str, Any]) -> None:
    aside = file.with_suffix(f".tmp-{uuid.uuid4().hex[:8]}")
    aside.write_text(json.dumps(content, indent=1) + "\n")
    aside.replace(file)


def _step_seconds() -> dict[str, float]:
    """CPU seconds of forward and backward through two blocks of convolution and batch norm, for each format.

    By one thread's CPU time: by the clock, or with threads that wait for each other, what else the machine does would
    decide.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):  # a trial's random states do not depend on whether this was measured
            net, image_BCHW = _two_blocks()
        seconds = {"fp32": float("inf"), "bf16": float("inf")}
        for turn in range(ROUNDS + 1):
            for name in seconds:
                started = time.process_time()
                with torch.autocast("cpu", dtype=DTYPES[name], enabled=name != "fp32"):
                    out_BCHW = net(image_BCHW)
                out_BCHW.float().mean().backward()
                if turn:  # the first of each chooses kernels
                    seconds[name] = min(seconds[name], time.process_time() - started)
        return seconds
    finally:
        torch.set_num_threads(threads)


def _two_blocks() -> tuple[nn.Module, torch.Tensor]:
    """A network of the kind that is trained, and a batch for it."""
    blocks = [
        nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())
        for a, b in itertools.pairwise((64, 128, 128))
    ]
    image_BCHW = torch.rand(2, 64, 20, 20).contiguous(memory_format=torch.channels_last)
    net = nn.Sequential(*blocks)
    return cast(Any, net).to(memory_format=torch.channels_last), image_BCHW


def _cpu_has_bf16() -> bool:
    # torch has no public question for this; where an older or newer one lacks these, fp32 is the safe answer.
    looks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, look, bool)() for look in looks)
    return native and torch.ops.mkldnn._is_mkldnn_bf16_supported()
