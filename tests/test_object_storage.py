"""The main job with shards and study in an object store, over a line that is cut, killed and resumed on the way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import results
from cluster.storage import Folder
from search.journal import JOURNAL
from tests.cluster.object_store import BUCKET, ENVIRONMENT, Line, server
from tests.file_tree import ROOT
from tests.search.studies import journal_of

SPACE = f"""
data:
  shards: s3://{BUCKET}/shards/tiny
  build:
    source: phantom
    phantom: {{ patients: 12, rows: 256, seed: 0 }}
    field_of_view: lesion
    size_px: 32
space:
  encoder: [tu-lcnet_050]
  learning_rate: {{ low: 1.0e-4, high: 1.0e-2, log: true }}
budget: {{ trials: 3, epochs: 3 }}
baselines: false
pruner: {{ name: none }}
pools: [{{ name: cpu, cpus_per_worker: 1, max_slots: 1 }}]
final: {{ top: 1, epochs: 2, seeds: 1 }}
study: {{ out: "s3://{BUCKET}/runs/tiny" }}
"""


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """A line to an object store, which every process of the test takes."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with server() as (host, port):
        line = Line(host, port)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{line.port}")
        yield line
        line.close()


def begin(space: Path, cache: Path, *options: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "MAMMOSEARCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "search.run", "--space", str(space), *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(folder: Folder, name: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not folder.exists(name):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"no {name}"
        time.sleep(0.3)


@pytest.mark.soak
@pytest.mark.ray
@pytest.mark.slow
def test_a_study_in_an_object_store_survives_cuts_and_a_kill(line: Line, tmp_path: Path) -> None:
    space = tmp_path / "tiny.yaml"
    space.write_text(SPACE)
    study = Folder(f"s3://{BUCKET}/runs/tiny")
    killed = begin(space, tmp_path / "cache")
    wait_for(study, "trials/0001/metrics.jsonl", killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    before = results.load(study.uri)
    assert next(iter(before.status)) == "complete"
    line.after_bytes, line.cuts = 2_000_000, 20
    resumed = begin(space, tmp_path / "cache-of-another-machine", "--resume")
    printed, _ = resumed.communicate(timeout=420)
    assert resumed.returncode == 0, printed
    assert line.cut >= 3
    check_whole(study, printed, tmp_path)


def check_whole(study: Folder, printed: str, tmp_path: Path) -> None:
    table = results.load(study.uri)
    assert list(table[table.role != "final"].status) == ["complete"] * 3
    assert list(table[table.role == "final"].status) == ["complete"]
    assert list(table.epochs) == [3, 3, 3, 2]
    assert "tu-lcnet_050" in printed
    copy = tmp_path / JOURNAL
    copy.write_bytes(study.read_bytes(JOURNAL))
    loaded = journal_of(tmp_path)
    assert [trial.state.name for trial in loaded.trials] == ["COMPLETE"] * 3
    assert [len(trial.intermediate_values) for trial in loaded.trials] == [3] * 3
    assert "search over" in study.read_text("study.log")
    assert (study / "final/tu-lcnet_050/0").exists("test.json")
    assert not any(".tmp-" in name for name, _ in study.walk())
