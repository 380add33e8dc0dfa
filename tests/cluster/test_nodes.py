"""A study on separate nodes, simulated on this machine: each pool on its own, and a node that dies in mid-trial."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.session import slot_resource

import pytest

import results
from tests.file_tree import ROOT

SPACE = """
data:
  shards: {folder}/shards
  build:
    source: phantom
    phantom: {{ patients: 24, rows: 256, seed: 0 }}
    field_of_view: lesion
    size_px: 32
space:
  encoder: [resnet18, resnet34]
  learning_rate: {{ low: 1.0e-4, high: 1.0e-2, log: true }}
fixed: {{ batch_size: 4 }}
budget: {{ trials: 2, epochs: 12 }}
pruner: {{ name: none }}
pools: # the accelerators of the paper, without their GPUs
  - {{ name: p100, accelerator: P100, gpus_per_worker: 0, cpus_per_worker: 1, gpu_memory_gb: null, spot: true }}
  - {{ name: t4x2, accelerator: T4, gpus_per_worker: 0, cpus_per_worker: 1, gpu_memory_gb: null, spot: true }}
placement: {{ rule: by_size, up_to_million: {{ p100: 20, t4x2: null }} }}
final: {{ top: 1, epochs: 2, seeds: 1 }}
failures: {{ retries: 0 }}
study: {{ out: {folder}/study }}
"""


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that trains nothing and declares a slot of each pool, and one node of either kind."""
    from ray.cluster_utils import Cluster

    tokens = {slot_resource("p100"): 1, slot_resource("t4x2"): 1}
    head = {"num_cpus": 0, "num_gpus": 0, "resources": tokens, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        add_node(cluster, "P100", cpus=1)
        add_node(cluster, "T4", cpus=2)
        add_node(cluster, "", cpus=1)  # prepares the data
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Any, accelerator: str, *, cpus: int) -> Any:
    resources = {f"accelerator_type:{accelerator}": 1} if accelerator else {}
    return cluster.add_node(num_cpus=cpus, num_gpus=0, resources=resources, object_store_memory=100_000_000)


def rows(study: Path, trial: str) -> int:
    file = study / "trials" / trial / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def wait_until(process: subprocess.Popen[str], said: Path, condition: Any) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.1)


@pytest.mark.soak
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("notice_s", [None, 4], ids=["lost", "taken back with notice"])
def test_each_pool_trains_on_its_own_nodes_and_a_node_that_goes_costs_no_epoch_and_no_retry(
    cluster: Any, tmp_path: Path, notice_s: int | None
) -> None:
    space, study, said = tmp_path / "nodes.yaml", tmp_path / "study", tmp_path / "said.txt"
    space.write_text(SPACE.format(folder=tmp_path))
    lost = next(node for node in cluster.worker_nodes if "accelerator_type:P100" in node._ray_params.resources)
    environment = {**os.environ, "RAY_ADDRESS": cluster.address, "OMP_NUM_THREADS": "1"}
    with said.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "search.run", "--space", str(space)],
            cwd=ROOT,
            env={**environment, "MAMMOSEARCH_CACHE": str(tmp_path / "cache")},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        wait_until(process, said, lambda: rows(study, "0000") >= 2 and rows(study, "0001") >= 1)
        assert rows(study, "0000") < 12, "both kinds of node are to be busy at the same time"
        assert rows(study, "0001") < 12
        kept = take_away(cluster, lost, study, notice_s)
        add_node(cluster, "P100", cpus=1)
        process.wait(timeout=300)
        assert process.returncode == 0, said.read_text()
    finally:
        process.kill()
        process.wait()
    check_table(study, kept)


def take_away(cluster: Any, node: Any, study: Path, notice_s: int | None) -> int:
    """Remove a node, after the notice that a cloud gives of a spot machine; the epochs trained until then."""
    if notice_s is not None:
        drain = f"drain-node --address={cluster.address} --node-id={node.node_id} --reason-message=spot"
        drain += f" --reason=DRAIN_NODE_REASON_PREEMPTION --deadline-remaining-seconds={notice_s}"
        ray = Path(sys.executable).with_name("ray")
        subprocess.run([str(ray), *drain.split()], check=True, timeout=60, capture_output=True)
        time.sleep(notice_s)
    kept = rows(study, "0000")
    cluster.remove_node(node, allow_graceful=False)
    return kept


def check_table(study: Path, kept: int) -> None:
    table = results.load(str(study)).set_index("trial_id")
    searched = table[table.role != "final"]
    assert dict(zip(searched.encoder, searched.pool, strict=True)) == {"resnet18": "p100", "resnet34": "t4x2"}
    assert list(searched.status) == ["complete", "complete"]
    assert list(searched.epochs) == [12, 12]
    assert list(searched.retries) == [0, 0]
    assert (searched.usd > 0).all()
    log = (study / "trials" / "0000" / "log.txt").read_text()
    assert "lost or taken back" in log
    begun_again = [int(line.rsplit(" ", 1)[1]) for line in log.splitlines() if "begins after epoch" in line]
    assert begun_again, log
    assert begun_again[-1] >= kept
