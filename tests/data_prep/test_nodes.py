"""Two machines that share nothing but an object store build CBIS-DDSM, and one of them dies in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Folder
from data_prep.build import BuildProgress, build
from data_prep.on_ray import RayWorkers
from data_prep.phantom.patients import write_phantoms
from data_prep.schema import BuildSettings, PhantomSettings
from tests.cluster.object_store import BUCKET, ENVIRONMENT, server


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """A bucket that holds a CBIS-DDSM download."""
    with server() as (host, port):
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            monkeypatch.setenv(name, value)
        yield Folder(f"s3://{BUCKET}")


@pytest.fixture
def machines(store: Folder, tmp_path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A Ray whose head builds nothing, and its two machines of one core, each with folders of its own."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000})
    try:
        nodes = {}
        for name in ("first", "second"):
            (tmp_path / name / "tmp").mkdir(parents=True)
            own = {"MAMMOSEARCH_CACHE": str(tmp_path / name / "cache"), "TMPDIR": str(tmp_path / name / "tmp")}
            nodes[name] = cluster.add_node(num_cpus=1, env_vars=own, object_store_memory=100_000_000)
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster, nodes
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.soak
@pytest.mark.ray
@pytest.mark.slow
def test_a_machine_that_dies_in_mid_build_changes_no_byte(
    store: Folder, machines: tuple[Any, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, nodes = machines
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    write_phantoms(PhantomSettings(patients=12, rows=192, seed=2), tmp_path / "films")
    store.put_folder(tmp_path / "films", "films")
    settings = BuildSettings.model_validate(
        {"source": "cbis_ddsm", "root": (store / "films").uri, "size_px": 64, "samples_per_shard": 2}
    )
    alone = build(settings, (store / "alone" / "out").uri, workers=0)
    killed_after: list[int] = []

    def kill_one(now: BuildProgress) -> None:
        if now.stage == "prepare" and now.built_here >= 6 and not killed_after:
            killed_after.append(now.built_here)
            cluster.remove_node(nodes["second"], allow_graceful=False)

    card = build(settings, (store / "two" / "out").uri, workers=RayWorkers(2), progress=kill_one)
    assert killed_after and killed_after[0] < sum(card.samples.values()) - 6, "it died too late to be missed"
    assert card == alone and sum(card.samples.values()) > 20
    built, expected = store / "two", store / "alone"
    assert [info.path for info in built.infos()] == [info.path for info in expected.infos()]
    assert all(built.read_bytes(info.path) == expected.read_bytes(info.path) for info in expected.infos())
