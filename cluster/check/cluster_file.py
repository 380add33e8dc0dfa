"""A cluster file, checked without a cloud: by Ray's own rules, and by what they let pass.                       [Ray]

    notes = check_file("cluster/files/gcp.yaml", pools=pools_of("configs/paper.yaml"))

Ray checks the form of its files when `ray up` reads them, but hands `node_config` on as it is, and lets numbers pass
that never fit: those mistakes show when machines do not start, or when a trial waits for ever. All are found here at
once, each with its line.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.session import PACKAGES

import ray.autoscaler
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.util import accelerators as ray_accelerators

from cluster.check import schema
from cluster.check.machines import ACCELERATOR, Machines, describe, of_ray, of_rayjob
from cluster.launch import REMOTE
from cluster.pools import SHIPPED, Pool, parse_pools
from cluster.settings.problems import KeyPath, Problem, not_one_of
from cluster.settings.source import Source, read_settings, read_text
from cluster.slots import slot_resource

AUTH = "RAY_AUTH_MODE=token"
NEEDED = (*PACKAGES, "mammosearch", "pyproject.toml", "setup.py", "constraints.txt", "README.md", "LICENSE")
"""What a node must have of the repository to install it."""
ACCELERATORS = {value for name, value in vars(ray_accelerators).items() if name.isupper() and isinstance(value, str)}
"""Ray's names of accelerators."""

_SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN|(?:secret|password|access_?key|auth_?token)[\"']?\s*[:=]\s*[\"']?[A-Za-z0-9+/_-]{8,}",
    re.IGNORECASE,
)


def check_file(path: str | Path, *, pools: Sequence[Pool] | None = None) -> list[str]:
    """Check a cluster file for `ray up`, or a RayJob.

    Args:
        path: the file.
        pools: those of a study, each of which some machine must be able to make; None: the tokens are checked alone.

    Returns:
        Notes: what must still be filled in, with its line.

    Raises:
        SettingsError: there is no such file, or it has mistakes; the text has all of them.
    """
    text, source = read_text(Path(path)), read_settings(Path(path))
    if problems := source.problems or [*_problems(source, pools), *_secrets(text)]:
        raise source.error(problems)
    return [
        f"{path}:{number}  fill in {found[0]}"
        for number, line in enumerate(text.splitlines(), 1)
        if (found := re.findall(r"YOUR-[A-Z0-9-]*[A-Z0-9]", line.split("#")[0]))
    ]


def pools_of(path: str | Path) -> list[Pool]:
    """The pools of a study's settings.

    Raises:
        SettingsError: there is no such file, or its pools have mistakes.
    """
    return parse_pools(read_settings(Path(path)))


def _problems(source: Source, pools: Sequence[Pool] | None) -> Iterator[Problem]:
    value = source.value
    if not isinstance(value, dict):
        yield Problem((), "holds no settings", "a cluster file of Ray, or a RayJob")
        return
    rayjob = "apiVersion" in value or "kind" in value
    form = schema.load("kuberay.schema.json") if rayjob else _rays_schema()
    found = list(schema.problems(value, form))
    if not found and not rayjob:
        found = list(_node_types(value))
    yield from found
    if found:  # what follows reads the file as one of the right form
        return
    machines = of_rayjob(value) if rayjob else of_ray(value)
    rules = [_numbers(machines, value), _devices(machines, value), _tokens(machines, pools)]
    rules += [_rayjob_safety(value)] if rayjob else [_safety(value)]
    found = [problem for rule in rules for problem in rule]
    yield from found
    if not rayjob and not found:
        yield from _rays_own(value)


def _rays_schema() -> dict[str, Any]:
    form: dict[str, Any] = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    return form


def _rays_own(config: dict[str, Any]) -> Iterator[Problem]:
    """Ray's word on the file as a whole, its defaults filled in."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            validate_config(prepare_config(copy.deepcopy(config)))
    except Exception as error:
        text = f"{error} {said.getvalue()}".strip()
        yield Problem((), f"Ray refuses the file: {text.splitlines()[0] if text else type(error).__name__}")


def _node_types(config: Mapping[str, Any]) -> Iterator[Problem]:
    """The parts of the file that Ray's schema leaves open."""
    provider = config["provider"]["type"]
    if provider == "local":
        wanted = ("head_ip", "worker_ips")
        yield from (Problem(("provider",), f"{key} is missing") for key in wanted if key not in config["provider"])
        return
    types = config.get("available_node_types")
    if not types:
        yield Problem((), "available_node_types is missing")
        return
    if config.get("head_node_type") not in types:
        yield Problem(("head_node_type",), "not one of available_node_types", ", ".join(types))
    known = schema.load("node_config.schema.json")["definitions"]
    if provider not in known:
        return
    for name, described in types.items():
        for problem in schema.problems(described["node_config"], known[provider]):
            yield problem.below("available_node_types", name, "node_config")


def _numbers(machines: Machines, config: Mapping[str, Any]) -> Iterator[Problem]:
    """Counts that Ray takes and that cannot hold."""
    for name, described in config.get("available_node_types", {}).items():
        path: KeyPath = ("available_node_types", name)
        low, high = described.get("min_workers", 0), described.get("max_workers")
        if high is not None and machines.max_nodes is not None and high > machines.max_nodes:
            yield Problem(
                (*path, "max_workers"), "more than the cluster's max_workers", f"at most {machines.max_nodes}"
            )
        if high is not None and low > high:
            yield Problem((*path, "min_workers"), "more than max_workers", f"at most {high}")
    groups = config.get("spec", {}).get("rayClusterSpec", {}).get("workerGroupSpecs", ())
    for i, group in enumerate(groups):
        path = ("spec", "rayClusterSpec", "workerGroupSpecs", i)
        low, high = group.get("minReplicas", 0), group.get("maxReplicas", math.inf)
        if low > high:
            yield Problem((*path, "minReplicas"), "more than maxReplicas", f"at most {high}")
        if not low <= group.get("replicas", low) <= high:
            yield Problem((*path, "replicas"), "outside of minReplicas and maxReplicas", f"{low} to {high}")


def _devices(machines: Machines, config: Mapping[str, Any]) -> Iterator[Problem]:
    """Machines with a GPU whose kind the autoscaler cannot know."""
    for kind in machines.types:
        place = kind.path if kind.path[0] != "available_node_types" else (*kind.path, "resources")
        if kind.resources.get("GPU", 0) and not kind.accelerators:
            text = "has GPUs and does not say which, so no trial that asks for a kind ever starts it"
            yield Problem(place, text, f'"{ACCELERATOR}P100": 1, or another of Ray\'s names')
        for name in kind.accelerators:
            if name not in ACCELERATORS:
                path = (*place, ACCELERATOR + name)
                yield not_one_of(path, "not an accelerator of Ray's", name, sorted(ACCELERATORS))
    for name, described in config.get("available_node_types", {}).items():
        attached = described["node_config"].get("guestAccelerators", ())
        yield from _attached(name, described["resources"], attached)


def _attached(name: str, resources: Mapping[str, Any], attached: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """What Google attaches to a machine, and what the file tells Ray that it has."""
    place = ("available_node_types", name, "resources")
    count = sum(int(one["acceleratorCount"]) for one in attached)
    if attached and count != resources.get("GPU", 0):
        yield Problem((*place, "GPU"), f"not the number of guestAccelerators, which is {count}")
    for one in attached:
        kind = str(one["acceleratorType"]).rsplit("-", 1)[-1].upper()
        told = [key.removeprefix(ACCELERATOR) for key in resources if key.startswith(ACCELERATOR)]
        if told and kind in ACCELERATORS and kind not in told:
            yield Problem(place, f"says {', '.join(told)}, and guestAccelerators attaches {one['acceleratorType']}")


def _tokens(machines: Machines, pools: Sequence[Pool] | None) -> Iterator[Problem]:
    """Slot tokens: one for each slot that the machines hold, of every pool of the study."""
    place, known = machines.tokens_path, {**SHIPPED, **{pool.name: pool for pool in pools or ()}}
    for pool in pools or ():
        if pool.name not in machines.tokens and not machines.slots_of(pool):
            yield _unmakeable(pool, machines)
        elif pool.name not in machines.tokens:
            token = f"{slot_resource(pool.name)}: {machines.slots_of(pool)}"
            yield Problem(place, f"the head declares no slots of pool {pool.name}", token)
    if not machines.tokens:
        yield Problem(place, "the head declares no slots, so no trial ever starts", f"{slot_resource('p100')}: 4, ...")
    for name, count in machines.tokens.items():
        token = slot_resource(name)
        where = (*place, token) if place[-1] == "resources" else place
        if name not in known:
            yield Problem(where, f"{token}: no such pool", "; ".join((", ".join(SHIPPED), "others by --space")))
        elif not machines.slots_of(known[name]):
            yield _unmakeable(known[name], machines)
        elif count > machines.slots_of(known[name]):
            yield Problem(where, f"{token}: more than the machines hold", f"at most {machines.slots_of(known[name])}")
    yield from _nodes_needed(machines, known)


def _nodes_needed(machines: Machines, known: Mapping[str, Pool]) -> Iterator[Problem]:
    """GPUs are given to one trial alone: the tokens of all pools together must fit the machines side by side."""
    for accelerator in sorted({name for kind in machines.types for name in kind.accelerators}):
        there = sum(t.max_nodes * t.resources.get("GPU", 0) for t in machines.types if accelerator in t.accelerators)
        wanted = {n: c * known[n].gpus for n, c in machines.tokens.items() if n in known}
        wanted = {n: gpus for n, gpus in wanted.items() if known[n].accelerator == accelerator}
        if sum(wanted.values()) > there:
            text = f"the slots of {', '.join(wanted)} take {sum(wanted.values())} {accelerator} together"
            yield Problem(machines.tokens_path, text, f"at most {there:g}, which the machines have")
    if machines.max_nodes is None:
        return
    least = sum(
        math.ceil(count / max(t.slots_of(known[n]) for t in machines.types))
        for n, count in machines.tokens.items()
        if n in known and known[n].gpus and machines.slots_of(known[n])
    )
    if least > machines.max_nodes:
        yield Problem(("max_workers",), f"too few: the slot tokens need {least} machines", f"at least {least}")


def _unmakeable(pool: Pool, machines: Machines) -> Problem:
    device = f", {pool.gpus} GPUs {pool.accelerator or ''}".rstrip() if pool.gpus else ""
    need = f"{pool.cpus} CPUs{device}" + (" on one machine" if pool.workers > 1 and pool.gpus else "")
    have = "; ".join(describe(machines.types)) or "none"
    near = [kind.path for kind in machines.types if pool.accelerator in kind.accelerators]
    near += [kind.path[:-1] for kind in machines.types]
    return Problem(
        near[0] if near else (), f"no machine can make a slot of pool {pool.name}, which takes {need}; there are {have}"
    )


def _safety(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Every node wants the token, and the dashboard is not open to the network."""
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        commands = config.get(key)
        starts = [command for command in commands or () if "ray start" in command]
        if not starts:
            yield Problem((key,), f"{key} must start Ray with its token", f"{AUTH} ray start ...")
        elif not all(AUTH in command for command in starts):
            yield Problem((key,), "Ray starts without its token: whoever reaches a port may run anything", AUTH)
        for command in starts:
            host = re.search(r"--dashboard-host[= ](\S+)", command)
            if host and host[1] not in ("127.0.0.1", "localhost"):
                yield Problem((key,), f"the dashboard listens to {host[1]}", "--dashboard-host=127.0.0.1, through ssh")
    mounts = config.get("file_mounts", {})
    if not any(str(target).endswith(".ray/auth_token") for target in mounts):
        yield Problem(("file_mounts",), "the nodes get no token", "~/.ray/auth_token: ~/.ray/auth_token")
    lacking = [name for name in NEEDED if f"{REMOTE}/{name}" not in mounts]
    if lacking and f"{REMOTE}/cluster" in mounts:  # it is our code that is mounted, and not all of it
        text = f"the nodes get no {', '.join(lacking)}"
        yield Problem(("file_mounts",), text, "; ".join(f"{REMOTE}/{name}: {name}" for name in lacking))


def _rayjob_safety(job: Mapping[str, Any]) -> Iterator[Problem]:
    cluster = job["spec"]["rayClusterSpec"]
    if cluster.get("authOptions", {}).get("mode") != "token":
        yield Problem(("spec", "rayClusterSpec", "authOptions"), "Ray starts without its token", "{mode: token}")
    if cluster["headGroupSpec"].get("rayStartParams", {}).get("num-cpus") != "0":
        path = ("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus")
        yield Problem(path, "the head would train, and die of it", 'num-cpus: "0"')


def _secrets(text: str) -> Iterator[Problem]:
    for number, line in enumerate(text.splitlines(), 1):
        if _SECRETS.search(line):
            yield Problem((), "looks like a secret", "service accounts, profiles, or file_mounts", line=number)
