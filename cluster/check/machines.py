"""The machines that a cluster file can start, and how many slots of a pool they hold.

Two kinds of file say it: Ray's own (`available_node_types`, or `metadata.worker_resources` for machines that stand
there already) and KubeRay's (`workerGroupSpecs`). Both are read into the same few words here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.pools import Pool
from cluster.settings.problems import KeyPath
from cluster.slots import TOKEN

ACCELERATOR = "accelerator_type:"
"""Ray's resource of a node that has the accelerator that follows."""

_RESOURCES_OPTION = re.compile(r"--resources[= ]'(\{.*?\})'")


@dataclass(frozen=True)
class NodeType:
    """A kind of machine, and how many of it there may be."""

    name: str
    path: KeyPath
    """Where the file describes it."""
    resources: Mapping[str, float]
    """CPU, GPU, `accelerator_type:X` and others of one machine."""
    max_nodes: int

    @property
    def accelerators(self) -> list[str]:
        """The types of its accelerators, as Ray calls them."""
        return [name.removeprefix(ACCELERATOR) for name in self.resources if name.startswith(ACCELERATOR)]

    def workers_of(self, pool: Pool) -> int:
        """Workers of a pool that one machine holds when it holds nothing else."""
        if pool.accelerator is not None and pool.accelerator not in self.accelerators:
            return 0
        held = self.resources.get("CPU", 0) // pool.cpus_per_worker
        if pool.gpus_per_worker:
            held = min(held, self.resources.get("GPU", 0) // pool.gpus_per_worker)
        return int(held)

    def slots_of(self, pool: Pool) -> int:
        """Slots of a pool that one machine holds: the workers of a slot with GPUs share a machine."""
        return self.workers_of(pool) // pool.workers


@dataclass(frozen=True)
class Machines:
    """The machines of a cluster file."""

    types: tuple[NodeType, ...]
    tokens: Mapping[str, int] = field(default_factory=dict)
    """Pool -> slots that the head declares."""
    tokens_path: KeyPath = ()
    """Where the file declares them."""
    max_nodes: int | None = None
    """Machines beside the head, of all types; None: as many as the types allow."""

    def slots_of(self, pool: Pool) -> int:
        """Slots of a pool that all machines hold when they hold nothing else."""
        if pool.gpus_per_worker or pool.workers == 1:
            return sum(t.max_nodes * t.slots_of(pool) for t in self.types)
        return sum(t.max_nodes * t.workers_of(pool) for t in self.types) // pool.workers


def of_ray(config: Mapping[str, Any]) -> Machines:
    """The machines of a file for `ray up` whose form is right."""
    if config["provider"]["type"] == "local":
        return _standing(config)
    head = config["head_node_type"]
    limit = int(config.get("max_workers", 2))
    types = tuple(
        NodeType(
            name, ("available_node_types", name), _numbers(described["resources"]), described.get("max_workers", limit)
        )
        for name, described in config["available_node_types"].items()
        if name != head
    )
    path = ("available_node_types", head, "resources")
    return Machines(types, _tokens(config["available_node_types"][head]["resources"]), path, limit)


def _standing(config: Mapping[str, Any]) -> Machines:
    """Machines that stand there already: the head says its tokens where it starts Ray."""
    resources = config.get("metadata", {}).get("worker_resources", {})
    count = len(config["provider"].get("worker_ips", ()))
    kind = NodeType("worker", ("metadata", "worker_resources"), _numbers(resources), count)
    tokens: dict[str, int] = {}
    for command in config.get("head_start_ray_commands", ()):
        for text in _RESOURCES_OPTION.findall(command):
            tokens |= _tokens(_json(text))
    return Machines((kind,), tokens, ("head_start_ray_commands",), count)


def of_rayjob(job: Mapping[str, Any]) -> Machines:
    """The machines (pods) of a RayJob whose form is right."""
    cluster = job["spec"]["rayClusterSpec"]
    path: KeyPath = ("spec", "rayClusterSpec")
    types = tuple(
        NodeType(
            group["groupName"],
            (*path, "workerGroupSpecs", i),
            _pod_resources(group),
            int(group.get("maxReplicas", group.get("replicas", 0))),
        )
        for i, group in enumerate(cluster["workerGroupSpecs"])
    )
    head = cluster["headGroupSpec"]
    where = (*path, "headGroupSpec", "rayStartParams", "resources")
    return Machines(types, _tokens(_start_resources(head)), where)


def _pod_resources(group: Mapping[str, Any]) -> dict[str, float]:
    """What a pod of a group has: what Ray is told, else what Kubernetes gives its first container."""
    limits = group["template"]["spec"]["containers"][0].get("resources", {}).get("limits", {})
    parameters = group.get("rayStartParams", {})
    found = {
        "CPU": float(parameters.get("num-cpus", _quantity(limits.get("cpu", 0)))),
        "GPU": float(parameters.get("num-gpus", _quantity(limits.get("nvidia.com/gpu", 0)))),
    }
    return found | _numbers(_start_resources(group)) | _numbers(group.get("resources", {}))


def _start_resources(group: Mapping[str, Any]) -> dict[str, Any]:
    """`rayStartParams.resources`: JSON in quotes, as KubeRay hands it to a shell."""
    text = group.get("rayStartParams", {}).get("resources", "{}").strip()
    if text[:1] == text[-1:] == "'":
        text = text[1:-1]
    value = _json(text)
    return _json(value) if isinstance(value, str) else value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {}  # the head then declares no slot tokens, which is what is said of it


def _quantity(value: Any) -> float:
    """Kubernetes' way to write a number of CPUs or devices."""
    text = str(value)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _numbers(resources: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in resources.items()}


def _tokens(resources: Mapping[str, Any]) -> dict[str, int]:
    return {name.removeprefix(TOKEN): int(v) for name, v in resources.items() if name.startswith(TOKEN)}


def describe(types: tuple[NodeType, ...]) -> Iterator[str]:
    """Each type in a few words, for a message."""
    for kind in types:
        have = ", ".join(f"{value:g} {name}" for name, value in kind.resources.items() if ACCELERATOR not in name)
        yield f"{kind.name}: {have}{''.join(f' {name}' for name in kind.accelerators)}"
