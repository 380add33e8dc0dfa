"""A worker: one process that trains, its rank and its device; and what the process must set for a trial."""

from __future__ import annotations

import contextlib
import random
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from trainables.step.precision import Precision

HOST_ALLOCATION_FAILED = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "std::bad_alloc",
)
"""What the text of an exception of torch has in it when host memory was refused; its type is a plain RuntimeError."""
RANDOM_STREAM = 2
"""Keeps the libraries' random states apart from other draws of the same seed and epoch."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One process of those that train a model together; the default is one alone, on a CPU.

    With `world_size` above 1 torch.distributed must be initialised, with these very rank and world size.
    """

    rank: int = 0
    world_size: int = 1
    device: str | torch.device = "cpu"
    """`cpu`, `cuda`, `cuda:1`, ..."""
    threads: int | None = None
    """torch's CPU threads; None leaves them as they are. More than the cores at hand is many times slower."""
    precision: Precision | None = None
    """What `precision: auto` means here; None: what is fast on the device."""


def default_device() -> str:
    """`cuda` if there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(name: str) -> None:
    """Refuse a device that is not there. Raises ValueError."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r}: no such kind; give cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r}: there are {torch.cuda.device_count()} GPUs here; give cpu, or one of them")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r}: trials train on cpu or cuda")


def prepare_process(worker: Worker) -> torch.device:
    """Set threads, device and convolution search of this process for a trial, and start counting its memory."""
    device = torch.device(worker.device)
    if worker.threads is not None:
        torch.set_num_threads(worker.threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True  # Batches of a trial have one shape: the search for kernels pays.
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _reset_peak_memory()
    return device


def seed_everything(*parts: int) -> None:
    """Seed Python's, NumPy's and torch's random states from some numbers, whatever ran in the process before."""
    state = np.random.SeedSequence([*parts, RANDOM_STREAM]).generate_state(3, dtype=np.uint32)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    torch.manual_seed(int(state[2]))


def peak_memory_gb(device: torch.device) -> float:
    """The most memory since `prepare_process`, in GB (1e9 bytes): of the GPU's allocator, or of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    status = Path("/proc/self/status")
    if status.exists():
        peak_kib = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak_kib) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # macOS counts bytes here.


@contextlib.contextmanager
def host_memory_errors() -> Iterator[None]:
    """Turn torch's plain RuntimeError of a CPU allocation that failed into MemoryError, as Python's own are."""
    try:
        yield
    except RuntimeError as error:
        if any(mark in str(error) for mark in HOST_ALLOCATION_FAILED):
            raise MemoryError(str(error)) from error
        raise


def _reset_peak_memory() -> None:
    """Let Linux count the process's peak anew; where it cannot, the peak is that of all trials so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
