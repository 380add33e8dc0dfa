"""python -m pytest -m soak tests/search/test_soak.py: kills by the dozen, a full disk, Ray without a dashboard."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.search.studies import epochs_of, finish, run, spawn, started, trials_of, wait_until, write_settings

pytestmark = [pytest.mark.soak, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = int(os.environ.get("KILLS", "30"))


@pytest.mark.parametrize("where", [["--here"], []], ids=["in this process", "on Ray"])
def test_a_study_that_is_killed_by_the_dozen_equals_an_undisturbed_one(
    tmp_path: Path, tiny_shards: Path, where: list[str]
) -> None:
    space = write_settings(
        tmp_path / "small.yaml",
        tiny_shards,
        budget={"trials": 5, "epochs": 4},
        pruner={"grace_epochs": 1, "reduction_factor": 2},
        final={"top": 1, "epochs": 3, "seeds": 2},
    )
    status, output = run(space, "--verify-resume", str(KILLS), *where, timeout_s=3500)
    assert status == 0, output[-3000:]
    assert "the killed study equals the undisturbed one" in output


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


@pytest.mark.parametrize("where", [["--here"], []], ids=["in this process", "on Ray"])
def test_a_full_disk_ends_the_study_with_a_message_and_resume_works_once_there_is_room(
    tmp_path: Path, small_disk: Path, tiny_shards: Path, where: list[str]
) -> None:
    space = write_settings(tmp_path / "small.yaml", tiny_shards, budget={"trials": 3, "epochs": 30})
    out = small_disk / "study"
    with started(space, "--out", str(out), *where) as driver:
        wait_until(lambda: epochs_of(out) >= 3, driver)
        fill(small_disk / "someone_elses")
        output = finish(driver)
        status = driver.returncode
    assert status == 1, output[-3000:]
    assert "No space left on device" in output and "--resume" in output
    assert "Traceback" not in output
    (small_disk / "someone_elses").unlink()
    status, output = run(space, "--out", str(out), "--resume", *where)
    assert status == 0, output[-3000:]
    trials = trials_of(out)
    assert [t.state.name for t in trials] == ["COMPLETE"] * 3
    assert all(len(t.intermediate_values) == 30 for t in trials)


def fill(file: Path) -> None:
    """Write until there is no room left."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as junk:
        for size in (2**20, 2**12):
            with contextlib.suppress(OSError):
                while junk.write(bytes(size)) == size:
                    pass


def test_stopped_trials_leave_no_hardware_taken_where_ray_has_no_dashboard(tmp_path: Path, tiny_shards: Path) -> None:
    """Train's cleaner of placement groups asks the dashboard who is alive, so without one it cleans nothing."""
    driver = spawn([sys.executable, "-m", "tests.search.no_dashboard", str(tmp_path / "study"), str(tiny_shards)])
    output = finish(driver)
    assert driver.returncode == 0, output[-3000:]
    assert [t.state.name for t in trials_of(tmp_path / "study")] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert json.loads((tmp_path / "study" / "left.json").read_text()) == {"placement_groups": 0, "cpus_free": 2.0}
