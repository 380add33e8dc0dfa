"""python -m pytest tests/search/test_interruptions.py: a study that is interrupted says how to go on, and goes on."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner, Result

from cluster.storage import Folder
from search.folder import in_charge
from search.job import _interruptible
from search.run import app
from tests.search.studies import (
    PATIENCE_S,
    epochs_of,
    finish,
    interrupt,
    kill_tree,
    spawn,
    started,
    trials_of,
    wait_until,
)
from tests.search.studies import write_settings as write

ENDLESS = {"trials": 1000, "epochs": 12}


def search(space: Path, out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--space", str(space), "--out", str(out), *arguments])


@contextmanager
def signalled(number: signal.Signals, out: Path, *, epochs: int) -> Iterator[None]:
    """Send this process a signal once so many more epochs stand in the study's folder; heeded though it was ignored."""
    before = {n: signal.signal(n, signal.SIG_DFL) for n in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    there = epochs_of(out)

    def send() -> None:
        wait_until(lambda: epochs_of(out) >= there + epochs)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        yield
        sender.join()
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.soak) for number in (signal.SIGTERM, signal.SIGHUP))],
)
def test_an_interrupt_says_how_to_go_on_shows_the_table_and_the_study_goes_on(
    tmp_path: Path, tiny_shards: Path, number: signal.Signals
) -> None:
    space, out = write(tmp_path / "small.yaml", tiny_shards, budget=ENDLESS), tmp_path / "study"
    with signalled(number, out, epochs=2):
        result = search(space, out, "--here")
    assert result.exit_code == 130, result.output
    assert "--resume" in result.output and "small.yaml" in result.output and "Traceback" not in result.output
    lines = result.output.splitlines()
    headline = next(number for number, line in enumerate(lines) if line.startswith("study: trial "))
    assert "of 1000" in lines[headline]
    assert any("search" in line and ("running" in line or "complete" in line) for line in lines[headline + 1 :])
    before = trials_of(out)
    write(space, tiny_shards, budget={**ENDLESS, "trials": len(before) + 1})
    result = search(space, out, "--here", "--resume")
    assert result.exit_code == 0, result.output
    after = trials_of(out)
    assert {t.state.name for t in after} == {"COMPLETE"} and len(after) == len(before) + 1
    assert all(len(t.intermediate_values) == 12 for t in after)
    for was, is_now in zip(before, after, strict=False):
        assert is_now.params == was.params
        assert was.intermediate_values.items() <= is_now.intermediate_values.items()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, tiny_shards: Path) -> tuple[Path, Path]:
    """A study of one trial that is over: (settings, folder)."""
    home = tmp_path_factory.mktemp("begun")
    space = write(home / "small.yaml", tiny_shards, budget={"trials": 1, "epochs": 1})
    assert search(space, home / "study", "--here").exit_code == 0
    return space, home / "study"


def test_a_second_driver_of_the_same_study_is_refused(begun: tuple[Path, Path]) -> None:
    space, out = begun
    with in_charge(Folder(out)):
        result = search(space, out, "--here", "--resume")
    assert result.exit_code == 2
    assert "another process runs the study" in result.output and "Traceback" not in result.output


def test_a_study_is_not_begun_over_another(begun: tuple[Path, Path]) -> None:
    result = search(*begun, "--here")
    assert result.exit_code == 2
    assert "already holds a study" in result.output and "--resume" in result.output and "Traceback" not in result.output


def test_other_settings_are_refused_with_every_difference_before_anything_starts(
    begun: tuple[Path, Path], tmp_path: Path, tiny_shards: Path
) -> None:
    changes = {"budget": {"trials": 9, "epochs": 5}, "sampler": {"name": "random"}, "study": {"seed": 7}}
    other = write(tmp_path / "other.yaml", tiny_shards, **changes)
    result = search(other, begun[1], "--resume")  # on Ray, which is not started
    assert result.exit_code == 2 and "Traceback" not in result.output
    for difference in ("sampler", "budget.epochs: was 1, is 5", "study.seed: was 0, is 7"):
        assert difference in result.output


def test_a_pool_that_can_never_be_placed_is_refused_before_anything_starts(tmp_path: Path, tiny_shards: Path) -> None:
    pools = [{"name": "cpu"}, {"name": "giant", "cpus_per_worker": 1024}]
    space = write(tmp_path / "small.yaml", tiny_shards, pools=pools, placement="cpu")
    result = search(space, tmp_path / "study")
    assert result.exit_code == 2
    assert "giant: 1024 CPU cores" in result.output and "Traceback" not in result.output
    assert not (tmp_path / "study" / "study.json").exists()


def test_a_hang_up_that_nohup_ignores_does_not_end_a_study() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    terminated = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with _interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1)
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, terminated)


@pytest.mark.slow
def test_a_study_ends_with_its_terminal_which_showed_a_live_table(tmp_path: Path, tiny_shards: Path) -> None:
    space, out = write(tmp_path / "small.yaml", tiny_shards, budget=ENDLESS), tmp_path / "study"
    status, shown = close_terminal(space, out, "--here")
    assert status != 0
    assert "of 1000" in shown and "running" in shown and "val_dice" in shown and "Traceback" not in shown


def close_terminal(space: Path, out: Path, *arguments: str) -> tuple[int, str]:
    """Run in a terminal that is closed once an epoch was trained and a trial was shown running; what was shown."""
    terminal, other_end = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    command = [sys.executable, "-m", "search.run", "--space", str(space), "--out", str(out), *arguments]
    driver = spawn(command, terminal=other_end)
    os.close(other_end)
    shown = b""

    def trained() -> bool:
        nonlocal shown
        while select.select([terminal], [], [], 0)[0]:
            shown += os.read(terminal, 65536)
        return epochs_of(out) > 0 and b"running" in shown

    try:
        wait_until(trained, driver)
        os.close(terminal)
        driver.wait(PATIENCE_S)
        return driver.returncode, shown.decode()
    finally:
        kill_tree(driver)


@pytest.mark.ray
@pytest.mark.own_ray
@pytest.mark.slow
def test_ctrl_c_ends_a_study_on_ray_too(tmp_path: Path, tiny_shards: Path) -> None:
    space, out = write(tmp_path / "small.yaml", tiny_shards, budget=ENDLESS), tmp_path / "study"
    with started(space, "--out", str(out)) as driver:
        wait_until(lambda: epochs_of(out) >= 2, driver)
        status, output = interrupt(driver)
    assert status == 130, output
    assert "--resume" in output and "study: trial " in output and "Traceback" not in output


@pytest.mark.ray
@pytest.mark.own_ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "number"),
    [
        ("raylet", signal.SIGKILL),
        pytest.param("raylet", signal.SIGSTOP, marks=pytest.mark.soak),
        pytest.param("gcs_server", signal.SIGKILL, marks=pytest.mark.soak),
        pytest.param("gcs_server", signal.SIGSTOP, marks=pytest.mark.soak),
    ],
    ids=str,
)
def test_a_study_whose_ray_is_gone_or_stands_still_ends_and_says_how_to_go_on(
    tmp_path: Path, tiny_shards: Path, server: str, number: signal.Signals
) -> None:
    space, out = write(tmp_path / "small.yaml", tiny_shards, budget=ENDLESS), tmp_path / "study"
    with started(space, "--out", str(out)) as driver:
        wait_until(lambda: epochs_of(out) >= 2, driver)
        victims = [p for p in psutil.Process(driver.pid).children(recursive=True) if p.name() == server]
        for victim in victims:
            victim.send_signal(number)
        output = finish(driver)
        for victim in victims:  # those that were stopped
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
    assert driver.returncode == 1, output
    assert "--resume" in output and "Traceback" not in output
    assert (f"Ray's {server} is gone" if number == signal.SIGKILL else "Ray has not answered for 30 s") in output
    before = epochs_of(out)
    write(space, tiny_shards, budget={**ENDLESS, "trials": 1})
    result = search(space, out, "--here", "--resume")
    assert result.exit_code == 0, result.output
    assert epochs_of(out) >= before
