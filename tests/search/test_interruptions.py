"""python -m pytest tests/search/test_interruptions.py: a study that is interrupted says how to go on, and goes on."""

import contextlib
import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

pytest.importorskip("ray")

from cluster.storage import Folder
from search import job
from search.job import _interruptible
from tests.search.studies import (
    PATIENCE_S,
    epochs_of,
    finish,
    interrupt,
    kill_tree,
    run,
    spawn,
    started,
    trials_of,
    wait_until,
    write_settings,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def course(tmp_path_factory, tiny_shards):
    """One study: begun, taken for another's twice, interrupted by Ctrl-C and by a closed terminal, resumed to its end.

    Step -> (exit status, output), with the trials as they stood after it.
    """
    home = tmp_path_factory.mktemp("interrupted")
    out = home / "study"
    endless = {"trials": 1000, "epochs": 12}
    space = write_settings(home / "small.yaml", tiny_shards, budget=endless)
    other = write_settings(
        home / "other.yaml",
        tiny_shards,
        budget={"trials": 1000, "epochs": 5},
        sampler={"name": "random"},
        study={"seed": 7},
    )
    arguments = ("--out", str(out))
    told = {}
    with started(space, *arguments) as driver:
        wait_until(lambda: epochs_of(out) >= 2, driver)
        told["second driver"] = run(space, *arguments, "--resume")
        told["Ctrl-C"] = interrupt(driver)
    told["trials after Ctrl-C"] = trials_of(out)
    told["begun again"] = run(space, *arguments)
    told["other settings"] = run(other, *arguments, "--resume")
    with started(space, *arguments, "--resume") as driver:
        before = epochs_of(out)
        wait_until(lambda: epochs_of(out) > before, driver)
        told["hang-up"] = interrupt(driver, signal.SIGHUP)
    told["terminal closed"] = close_terminal(space, out, "--resume")
    write_settings(space, tiny_shards, budget={**endless, "trials": len(trials_of(out)) + 1})
    told["resumed"] = run(space, *arguments, "--resume")
    told["folder"] = out
    return told


def close_terminal(space, out, *arguments):
    """Go on in a terminal that is closed once another epoch was trained and a trial was shown running.

    The exit status, and what was shown.
    """
    terminal, other_end = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    command = [sys.executable, "-m", "search.run", "--space", str(space), "--out", str(out), *arguments]
    driver = spawn(command, terminal=other_end)
    os.close(other_end)
    before, shown = epochs_of(out), b""

    def trained():
        nonlocal shown
        while select.select([terminal], [], [], 0)[0]:
            shown += os.read(terminal, 65536)
        return epochs_of(out) > before and b"running" in shown

    try:
        wait_until(trained, driver)
        os.close(terminal)
        driver.wait(PATIENCE_S)
        return driver.returncode, shown.decode()
    finally:
        kill_tree(driver)


def test_interrupt_ends_cleanly_and_says_how_to_go_on(course):
    for step in ("Ctrl-C", "hang-up"):
        status, output = course[step]
        assert status == 130, output
        assert "--resume" in output and "small.yaml" in output
        assert "Traceback" not in output


def test_study_ends_with_its_terminal_which_showed_a_live_table(course):
    status, shown = course["terminal closed"]
    assert status != 0
    assert "of 1000" in shown and "running" in shown and "val_dice" in shown and "Traceback" not in shown


def test_interrupt_shows_the_table_so_far(course):
    lines = course["Ctrl-C"][1].splitlines()
    headline = next(number for number, line in enumerate(lines) if line.startswith("study: trial "))
    assert "of 1000" in lines[headline]
    states = ("running", "pending", "complete")  # between two trials none is running
    assert any("search" in line and any(state in line for state in states) for line in lines[headline + 1 :])


def test_interrupted_study_is_resumed_to_its_end(course):
    status, output = course["resumed"]
    assert status == 0, output
    trials = trials_of(course["folder"])
    assert len(trials) > len(course["trials after Ctrl-C"])
    assert {t.state.name for t in trials} == {"COMPLETE"}
    assert all(len(t.intermediate_values) == 12 for t in trials)


def test_trials_that_were_under_way_keep_their_values(course):
    after = {t.number: t for t in trials_of(course["folder"])}
    for before in course["trials after Ctrl-C"]:
        assert after[before.number].params == before.params
        assert before.intermediate_values.items() <= after[before.number].intermediate_values.items()


def test_second_driver_of_the_same_study_is_refused(course):
    status, output = course["second driver"]
    assert status == 2
    assert "another process runs the study" in output and "Traceback" not in output


def test_study_is_not_begun_over_another(course):
    status, output = course["begun again"]
    assert status == 2
    assert "already holds a study" in output and "--resume" in output and "Traceback" not in output


def test_other_settings_are_refused_with_every_difference(course):
    status, output = course["other settings"]
    assert status == 2 and "Traceback" not in output
    for difference in ("sampler", "budget.epochs: was 12, is 5", "study.seed: was 0, is 7"):
        assert difference in output


def test_hang_up_that_nohup_ignores_does_not_end_a_study():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture
def small_disk(tmp_path):
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


def test_study_that_was_interrupted_before_its_first_trial_is_one_to_resume(tmp_path):
    begun, nothing = Folder(tmp_path / "begun"), Folder(tmp_path / "nothing")
    with job._in_charge(begun), pytest.raises(ValueError, match="another process runs"), job._in_charge(begun):
        pass
    job._check_folder(begun, resume=True)
    job._check_folder(begun, resume=False)
    with pytest.raises(ValueError, match="no study to resume"):
        job._check_folder(nothing, resume=True)


def test_full_disk_ends_the_study_with_a_message_and_resume_works_once_there_is_room(tmp_path, small_disk, tiny_shards):
    space = write_settings(tmp_path / "small.yaml", tiny_shards, budget={"trials": 3, "epochs": 30})
    out = small_disk / "study"
    with started(space, "--out", str(out)) as driver:
        wait_until(lambda: epochs_of(out) >= 3, driver)
        fill(small_disk / "someone_elses")
        output = finish(driver)
        status = driver.returncode
    assert status == 1, output[-3000:]
    assert "No space left on device" in output and "--resume" in output
    assert "Traceback" not in output
    (small_disk / "someone_elses").unlink()
    status, output = run(space, "--out", str(out), "--resume")
    assert status == 0, output[-3000:]
    trials = trials_of(out)
    assert [t.state.name for t in trials] == ["COMPLETE"] * 3
    assert all(len(t.intermediate_values) == 30 for t in trials)


def fill(file):
    """Write until there is no room left."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as junk:
        for size in (2**20, 2**12):
            with contextlib.suppress(OSError):
                while junk.write(bytes(size)) == size:
                    pass
