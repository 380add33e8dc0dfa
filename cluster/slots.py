"""How many slots of each pool fit at the same time, so that no two of them wait for each other's hardware."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.pools import Pool

TOKEN = "slot_"
"""A resource of a cluster's head that begins so counts the slots of the pool that follows."""


def slot_resource(pool: str) -> str:
    """The custom resource of which a trial of `pool` takes one (declared on the head only)."""
    return TOKEN + pool


class UnplaceableError(ValueError):
    """A pool of which not one slot fits; the message names what it needs and what there is."""


def slots_on_machine(pools: Sequence[Pool], *, cpus: int, gpus: int) -> dict[str, int]:
    """Share one machine among the pools: one slot each, then more in turn while they fit.

    The worker group of a slot keeps its hardware between trials, so slots of different pools must fit side by side.

    Raises:
        UnplaceableError: the pools do not fit side by side even with one slot each.
    """
    slots = dict.fromkeys((pool.name for pool in pools), 0)
    left_cpus, left_gpus = cpus, gpus
    grew = True
    while grew:
        grew = False
        for pool in pools:
            full = pool.max_slots is not None and slots[pool.name] >= pool.max_slots
            if full or pool.cpus > left_cpus or pool.gpus > left_gpus:
                continue
            slots[pool.name] += 1
            left_cpus, left_gpus, grew = left_cpus - pool.cpus, left_gpus - pool.gpus, True
    if missing := [pool for pool in pools if not slots[pool.name]]:
        raise UnplaceableError(_why(missing, pools, f"this machine has {cpus} CPU cores and {gpus} GPUs"))
    return slots


def slots_of_cluster(pools: Sequence[Pool], resources: Mapping[str, float]) -> dict[str, int]:
    """The slots that the cluster's head declares as `slot_<pool>`.

    Raises:
        UnplaceableError: a pool has none.
    """
    slots = {pool.name: int(resources.get(slot_resource(pool.name), 0)) for pool in pools}
    slots = {p.name: min(slots[p.name], p.max_slots) if p.max_slots else slots[p.name] for p in pools}
    if missing := [pool for pool in pools if not slots[pool.name]]:
        declared = sorted(name for name in resources if name.startswith(TOKEN)) or ["none"]
        raise UnplaceableError(_why(missing, pools, f"the cluster's head declares {', '.join(declared)}"))
    return slots


def _why(missing: Sequence[Pool], pools: Sequence[Pool], there_is: str) -> str:
    needs = "; ".join(f"{p.name}: {p.cpus} CPU cores and {p.gpus} GPUs a slot" for p in pools)
    names = ", ".join(p.name for p in missing)
    return (
        f"pools: no slot of {names} can ever be placed beside the others. They need {needs}; {there_is}. "
        "Take a pool out, or lower its workers or cpus_per_worker"
    )
