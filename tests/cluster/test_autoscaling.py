"""Machines that start when a trial waits for them and go when idle: Ray's autoscaler with its simulated provider."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from cluster.session import free_port, slot_resource

import pytest

import results
from tests.file_tree import ROOT

HEAD_ID = "f" * 51 + "0" * 5
SPACE = """
data: {{ shards: {folder}/shards }}
space:
  encoder: [tu-lcnet_050, resnet18]
  learning_rate: {{ low: 1.0e-4, high: 1.0e-2, log: true }}
fixed: {{ batch_size: 4 }}
budget: {{ trials: 6, epochs: 8 }}
sampler: {{ name: random }}
pruner: {{ name: none }}
pools: # the accelerators of the paper, without their GPUs
  - {{ name: p100, accelerator: P100, gpus_per_worker: 0, cpus_per_worker: 1, gpu_memory_gb: null }}
  - {{ name: t4x2, accelerator: T4, gpus_per_worker: 0, cpus_per_worker: 1, gpu_memory_gb: null }}
placement: {{ rule: by_size, up_to_million: {{ p100: 5, t4x2: null }} }}
final: {{ top: 0 }}
study: {{ out: {folder}/study }}
"""
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
IDLE_MINUTES = 0.2
COMMANDS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")


def config_of(port: int) -> dict[str, Any]:
    """A cluster file whose machines are processes here: a P100, two T4 on one machine, both from zero."""
    tokens = {slot_resource("p100"): 1, slot_resource("t4x2"): 1}
    types = {"p100": {"CPU": 1, "accelerator_type:P100": 1}, "t4x2": {"CPU": 2, "accelerator_type:T4": 1}}
    provider = {
        "type": "external",
        "module": PROVIDER,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "launch_multiple": True,
        "head_node_id": HEAD_ID,
        "gcs_address": f"127.0.0.1:{port}",
    }
    nodes = {
        name: {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": 1}
        for name, resources in types.items()
    }
    return {
        "cluster_name": "simulated",
        "max_workers": 2,
        "idle_timeout_minutes": IDLE_MINUTES,
        "upscaling_speed": 10.0,
        "provider": provider,
        "auth": {},
        "docker": {},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0, **tokens}, "node_config": {}, "max_workers": 0},
            **nodes,
        },
        "head_node_type": "ray.head.default",
        **{f"{name}_commands": [] for name in COMMANDS},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }


@pytest.fixture
def address() -> Iterator[str]:
    """A head with Ray's autoscaler, and no machine beside it."""
    folder, port, dashboard = Path(tempfile.mkdtemp(prefix="as-", dir="/tmp")), free_port(), free_port()
    file = folder / "cluster.json"
    config = config_of(port)
    file.write_text(json.dumps(config))
    head = dict(config["available_node_types"]["ray.head.default"]["resources"])
    environment = {
        **os.environ,
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    }
    command = f"start --head --block --port={port} --temp-dir={folder}/ray --autoscaling-config={file} --num-gpus=0"
    command += f" --num-cpus={head.pop('CPU')} --dashboard-host=127.0.0.1 --dashboard-port={dashboard}"
    command += " --object-store-memory=100000000 --disable-usage-stats"
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("ray")), *command.split(), f"--resources={json.dumps(head)}"],
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: is_open(port), process, folder / "said.txt", 60)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[Any], said: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.5)


def machines() -> set[str]:
    """The kinds of machine beside the head that are alive."""
    import ray

    kinds = {"accelerator_type:P100": "p100", "accelerator_type:T4": "t4x2"}
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return {kind for resources in alive for resource, kind in kinds.items() if resource in resources}


def pools_of_trials(study: Path, status: str) -> set[str]:
    """Pools of the trials with this status; `pending` are those that no slot has taken yet."""
    found = set()
    for folder in (study / "trials").glob("*"):
        file = folder / "status.json"
        if (json.loads(file.read_text())["status"] if file.exists() else "pending") == status:
            found.add(str(json.loads((folder / "trial.json").read_text())["pool"]))
    return found


@dataclass(frozen=True)
class Seen:
    """One look at the cluster: kinds of machine that are there, and pools by what their trials do."""

    machines: set[str]
    running: set[str]
    waiting: set[str]
    idle_beside_waiting: set[str]
    """Pools of which a slot is free while a trial waits for one."""


def look(study: Path) -> Seen:
    import ray

    free = ray.available_resources()
    waiting = pools_of_trials(study, "pending")
    idle = {pool for pool in waiting if free.get(slot_resource(pool), 0) >= 1}
    return Seen(machines(), pools_of_trials(study, "running"), waiting, idle)


@pytest.mark.soak
@pytest.mark.ray
@pytest.mark.slow
def test_machines_come_with_the_trials_of_their_pool_and_go_when_idle(address: str, tmp_path: Path) -> None:
    import ray

    from data_prep.build import build
    from data_prep.schema import BuildSettings, PhantomSettings

    phantom = PhantomSettings(patients=24, rows=256)
    build(
        BuildSettings(source="phantom", phantom=phantom, field_of_view="lesion", size_px=32),
        str(tmp_path / "shards"),
        workers=0,
    )
    (tmp_path / "scale.yaml").write_text(SPACE.format(folder=tmp_path))
    said = tmp_path / "said.txt"
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        assert machines() == set(), "nothing is to run before there is a trial"
        with said.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "search.run", "--space", str(tmp_path / "scale.yaml")],
                cwd=ROOT,
                env={**os.environ, "RAY_ADDRESS": address, "OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        samples = watch(process, tmp_path / "study")
        assert process.returncode == 0, said.read_text()
        began = time.monotonic()
        while machines():
            assert time.monotonic() - began < 120, "machines stay when idle"
            time.sleep(1)
        print(f"machines gone after {time.monotonic() - began:.0f} s; {len(samples)} samples")
    finally:
        ray.shutdown()
    check(samples, tmp_path / "study")


def watch(process: subprocess.Popen[Any], study: Path) -> list[Seen]:
    """A look a second until the study ends."""
    samples = []
    deadline = time.monotonic() + 420
    while process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
        samples.append(look(study))
        time.sleep(1)
    return samples


def check(samples: list[Seen], study: Path) -> None:
    both = {"p100", "t4x2"}
    assert any(seen.running == seen.machines == both for seen in samples), samples
    assert any(seen.waiting for seen in samples), "no trial ever waited: the next line would say nothing"
    longest = {pool: longest_run([pool in seen.idle_beside_waiting for seen in samples]) for pool in both}
    print(f"longest wait beside a free slot, in samples: {longest}")
    assert max(longest.values()) <= 5, longest
    table = results.load(str(study))
    assert list(table.status) == ["complete"] * 6
    pools = table.groupby("encoder").pool.unique()
    assert list(pools["tu-lcnet_050"]) == ["p100"]
    assert list(pools["resnet18"]) == ["t4x2"]


def longest_run(flags: list[bool]) -> int:
    """The longest row of true ones."""
    return max((len(list(group)) for flag, group in groupby(flags) if flag), default=0)
