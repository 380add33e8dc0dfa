"""Pools: the kinds of hardware slot a trial can run on.

A pool's slot is one worker group: `workers` processes with `gpus_per_worker` GPUs and `cpus_per_worker` CPU cores
each. The batch size of a trial is global: it does not depend on the number of workers of its pool.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from cluster.settings.problems import Problem, not_one_of, raise_problems
from cluster.settings.source import Source
from cluster.settings.validate import validate

Precision = Literal["fp32", "bf16", "fp16"]

CONTEXT_GB = 0.8
"""What a GPU holds beside a trial's tensors: CUDA context, cuDNN, rounding of the allocator."""
PROCESS_GB = 0.6
"""Main memory of a worker process before its trial: Python, torch and Ray."""
TFLOPS_PER_CORE = 0.07
"""What one CPU core does in a training step, in fp32: measured, 0.071 (seresnet50) to 0.088 (vgg19)."""


class Pool(BaseModel):
    """A kind of hardware slot."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=40, pattern=r"^[a-z0-9][a-z0-9_]*$")
    """How `nas.yaml` and the tables call it."""
    accelerator: str | None = None
    """Ray's accelerator type (`ray.util.accelerators`), e.g. `P100`, `T4`; None for CPU or for any GPU."""
    workers: int = Field(default=1, ge=1, le=1024)
    """Processes of one slot; more than one train with DDP."""
    gpus_per_worker: int = Field(default=0, ge=0, le=1)
    """GPUs of each worker: 0 or 1 (a DDP worker drives one GPU)."""
    cpus_per_worker: int = Field(default=1, ge=1, le=1024)
    """CPU cores of each worker; also its number of torch threads on a CPU pool."""
    gpu_memory_gb: float | None = Field(default=None, gt=0, le=1e6)
    """Memory of one GPU in GB (1e9 bytes); None for a CPU pool."""
    memory_gb: float | None = Field(default=None, gt=0, le=1e6)
    """Main memory of one slot in GB, which is what a trial on a CPU pool must fit; None: not checked."""
    max_slots: int | None = Field(default=None, ge=1, le=100_000)
    """At most this many trials at once; None: as many as the cluster holds."""
    usd_per_hour: float = Field(default=0.0, ge=0, le=1e6)
    """Price of one slot for one hour, its machine included, on demand."""
    spot_usd_per_hour: float | None = Field(default=None, ge=0, le=1e6)
    """The same as a spot (preemptible) machine."""
    spot: bool = False
    """Whether the slots are spot machines, and so cost `spot_usd_per_hour`."""
    tflops: float | None = Field(default=None, gt=0, le=1e6)
    """Rate of one worker at `fast_precision` in a training step, in 1e12 operations a second, by which times are
    predicted. Far below the data sheet: batches are small, and much of a U-Net waits for memory."""
    fast_precision: Precision = "fp32"
    """The precision that `precision: auto` chooses on this hardware."""

    @property
    def price(self) -> float:
        """Dollars of one slot for one hour: the spot price where the slots are spot machines and it is known."""
        return self.spot_usd_per_hour if self.spot and self.spot_usd_per_hour is not None else self.usd_per_hour

    @property
    def rate_tflops(self) -> float | None:
        """`tflops`, or for a CPU pool that states none, what its cores were seen to do."""
        if self.tflops is None and self.gpus_per_worker == 0:
            return TFLOPS_PER_CORE * self.cpus_per_worker
        return self.tflops

    @property
    def memory_limit_gb(self) -> float | None:
        """What the trial of one worker may need: the GPU's memory less `CONTEXT_GB`, or its share of main memory."""
        if self.gpus_per_worker:
            return None if self.gpu_memory_gb is None else self.gpu_memory_gb - CONTEXT_GB
        return None if self.memory_gb is None else self.memory_gb / self.workers - PROCESS_GB

    @property
    def cpus(self) -> int:
        """CPU cores of one slot."""
        return self.workers * self.cpus_per_worker

    @property
    def gpus(self) -> int:
        """GPUs of one slot."""
        return self.workers * self.gpus_per_worker


SHIPPED = {
    pool.name: pool
    for pool in (
        Pool(name="cpu", cpus_per_worker=2),
        Pool(
            name="p100",
            accelerator="P100",
            gpus_per_worker=1,
            cpus_per_worker=4,
            gpu_memory_gb=16,
            tflops=4.0,
            usd_per_hour=1.65,
            spot_usd_per_hour=0.50,
        ),
        Pool(
            name="t4",
            accelerator="T4",
            gpus_per_worker=1,
            cpus_per_worker=4,
            gpu_memory_gb=15.8,
            tflops=5.0,
            fast_precision="fp16",
            usd_per_hour=0.54,
            spot_usd_per_hour=0.19,
        ),
        Pool(
            name="t4x2",
            accelerator="T4",
            workers=2,
            gpus_per_worker=1,
            cpus_per_worker=4,
            gpu_memory_gb=15.8,
            tflops=5.0,
            fast_precision="fp16",
            usd_per_hour=1.08,
            spot_usd_per_hour=0.38,
        ),
        Pool(
            name="l4",
            accelerator="L4",
            gpus_per_worker=1,
            cpus_per_worker=4,
            gpu_memory_gb=24,
            tflops=11.0,
            fast_precision="bf16",
            usd_per_hour=0.85,
            spot_usd_per_hour=0.35,
        ),
        Pool(
            name="a100",
            accelerator="A100",
            gpus_per_worker=1,
            cpus_per_worker=12,
            gpu_memory_gb=40,
            tflops=30.0,
            fast_precision="bf16",
            usd_per_hour=3.67,
            spot_usd_per_hour=1.80,
        ),
        Pool(
            name="h100",
            accelerator="H100",
            gpus_per_worker=1,
            cpus_per_worker=24,
            gpu_memory_gb=80,
            tflops=55.0,
            fast_precision="bf16",
            usd_per_hour=11.0,
            spot_usd_per_hour=4.0,
        ),
    )
}
"""The pools that `nas.yaml` may call by name.

The prices are rough figures of the size that clouds ask for the GPU with the machine around it, not taken from a price
list; spot prices change from day to day and by region. Give your own before you trust a bill:
`{name: t4, usd_per_hour: 0.60}`. The rates of GPUs are estimates, a third to a half of what data sheets say, and were
not measured; the CPU's was.
"""


def _over_shipped(value: Any) -> Any:
    """A shipped pool's name, or what changes or makes one laid over the shipped pool of that name, if there is one."""
    value = {"name": value} if isinstance(value, str) else value
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return value
    if value["name"] not in SHIPPED and set(value) == {"name"}:
        unknown = not_one_of((), "unknown pool", value["name"], list(SHIPPED))
        raise_problems(replace(unknown, allowed=f"{unknown.allowed}, or a mapping that describes one"))
    shipped = SHIPPED.get(value["name"])
    return {**(shipped.model_dump() if shipped else {}), **value}


def _each_once(pools: list[Pool]) -> list[Pool]:
    names = [pool.name for pool in pools]
    raise_problems(*(Problem((i,), "listed twice", "each name once") for i, n in enumerate(names) if n in names[:i]))
    return pools


Pools = Annotated[
    list[Annotated[Pool, BeforeValidator(_over_shipped)]],
    Field(min_length=1, max_length=64),
    AfterValidator(_each_once),
]
"""`pools` of `nas.yaml`: names of shipped pools, or mappings that change or describe one."""


class _PoolsOfStudy(BaseModel):
    """A study's settings, of which nothing but the pools is looked at."""

    model_config = ConfigDict(extra="ignore")

    pools: Pools = Field(default=[SHIPPED["cpu"]])


def parse_pools(source: Source) -> list[Pool]:
    """The pools of a study's settings. Whether the rest is right, `search.run --dry-run` says.

    Raises:
        SettingsError: with every mistake in them.
    """
    return validate(_PoolsOfStudy, source).pools
