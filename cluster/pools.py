"""Pools: the kinds of hardware slot a trial can run on.

A pool's slot is one worker group: `workers` processes with `gpus_per_worker` GPUs and `cpus_per_worker` CPU cores
each. The batch size of a trial is global: it does not depend on the number of workers of its pool.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["fp32", "bf16", "fp16"]


class Pool(BaseModel):
    """A kind of hardware slot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, pattern=r"^[a-z0-9][a-z0-9_]*$")
    """How `nas.yaml` and the tables call it."""
    accelerator: str | None = None
    """Ray's accelerator type (`ray.util.accelerators`), e.g. `P100`, `T4`; None for CPU or for any GPU."""
    workers: int = Field(default=1, ge=1)
    """Processes of one slot; more than one train with DDP."""
    gpus_per_worker: int = Field(default=0, ge=0, le=1)
    """GPUs of each worker: 0 or 1 (a DDP worker drives one GPU)."""
    cpus_per_worker: int = Field(default=1, ge=1)
    """CPU cores of each worker; also its number of torch threads on a CPU pool."""
    gpu_memory_gb: float | None = Field(default=None, gt=0)
    """Memory of one GPU in GB (1e9 bytes); None for a CPU pool."""
    max_slots: int | None = Field(default=None, ge=1)
    """At most this many trials at once; None: as many as the cluster holds."""
    usd_per_hour: float = Field(default=0.0, ge=0)
    """Price of one slot for one hour."""
    fast_precision: Precision = "fp32"
    """The precision that `precision: auto` chooses on this hardware."""

    @property
    def cpus(self) -> int:
        """CPU cores of one slot."""
        return self.workers * self.cpus_per_worker

    @property
    def gpus(self) -> int:
        """GPUs of one slot."""
        return self.workers * self.gpus_per_worker
