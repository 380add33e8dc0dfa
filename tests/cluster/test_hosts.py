"""A head and two workers that share nothing but an object store: data, code, trials and a DDP group across both."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.session import PACKAGES, slot_resource

import pytest

import results
from cluster.storage import Folder
from data_prep.build import build
from data_prep.schema import BuildSettings, PhantomSettings
from tests.cluster.object_store import BUCKET, ENVIRONMENT, server
from tests.file_tree import ROOT

SPACE = f"""
data: {{ shards: "s3://{BUCKET}/shards" }}
space:
  encoder: [tu-lcnet_050]
  learning_rate: {{ low: 1.0e-4, high: 1.0e-2, log: true }}
fixed: {{ batch_size: 4 }}
budget: {{ trials: 2, epochs: 2 }}
baselines: false
pools: [{{ name: cpu, workers: 2, cpus_per_worker: 1 }}]
final: {{ top: 1, epochs: 2, seeds: 1 }}
study: {{ out: "s3://{BUCKET}/runs/hosts" }}
"""
MARK = """
import os as _os, pathlib as _pathlib
if "HOST_FOLDER" in _os.environ:
    _pathlib.Path(_os.environ["HOST_FOLDER"], f"import-{_os.getpid()}").write_text(__file__)
"""
"""Added to a copy of the code: every process that imports it says from where."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with server() as (host, port):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        yield


@pytest.fixture
def hosts(store: None, tmp_path: Path) -> Iterator[Any]:
    """A head that trains nothing and two workers of one core, each with folders of its own."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for name, cpus in (("head", 0), ("first", 1), ("second", 1)):
            own = tmp_path / name
            (own / "tmp").mkdir(parents=True)
            variables = {"HOST_FOLDER": str(own), "MAMMOSEARCH_CACHE": str(own / "cache"), "TMPDIR": str(own / "tmp")}
            resources = {slot_resource("cpu"): 1} if name == "head" else {}
            cluster.add_node(
                num_cpus=cpus, num_gpus=0, resources=resources, env_vars=variables, object_store_memory=100_000_000
            )
        yield cluster
    finally:
        cluster.shutdown()


def copy_of_the_code(target: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (target / "trainables" / "step" / "worker.py").open("r+") as module:  # fails where the module has moved
        module.seek(0, os.SEEK_END)
        module.write(MARK)
    return target


@pytest.mark.soak
@pytest.mark.ray
@pytest.mark.slow
def test_hosts_that_share_nothing_but_the_store_run_a_study(hosts: Any, tmp_path: Path) -> None:
    settings = BuildSettings(
        source="phantom", phantom=PhantomSettings(patients=12, rows=256), field_of_view="lesion", size_px=32
    )
    build(settings, f"s3://{BUCKET}/shards", workers=0)
    code = copy_of_the_code(tmp_path / "code")
    (tmp_path / "hosts.yaml").write_text(SPACE)
    done = subprocess.run(
        [sys.executable, "-m", "search.run", "--space", str(tmp_path / "hosts.yaml")],
        cwd=code,
        env={
            **os.environ,
            "RAY_ADDRESS": hosts.address,
            "MAMMOSEARCH_CACHE": str(tmp_path / "driver"),
            "PYTHONPATH": "",
        },
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = results.load(f"s3://{BUCKET}/runs/hosts")
    assert list(table.status) == ["complete"] * 3
    assert set(table.workers) == {2}
    for host in ("first", "second"):
        imported = [file.read_text() for file in (tmp_path / host).glob("import-*")]
        assert imported, f"no worker on {host}"
        assert all(not Path(file).is_relative_to(ROOT) for file in imported), imported
        assert list((tmp_path / host / "cache").glob("*/train-*.npy")), f"{host} fetched no samples"
    assert not any((tmp_path / name / "cache").exists() for name in ("head",))
    assert Folder(f"s3://{BUCKET}/runs/hosts/final/tu-lcnet_050/0").exists("test.json")
