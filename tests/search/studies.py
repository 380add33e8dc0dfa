"""Studies as a user runs them: `python -m search.run` in a process of its own, with a network of hardly any cost."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from search.journal import JOURNAL

ROOT = Path(__file__).resolve().parents[2]
ENCODER = "tu-test_efficientnet"
"""timm's smallest: with the linknet decoder 95,000 parameters."""
STEADY = "tu-test_convnext"
"""timm's smallest without batch norm: nothing keeps it from diverging, and two workers train it as one does."""
PATIENCE_S = 500
"""How long a study of these tests may take on a busy machine before it counts as stuck."""


def settings(shards: Path, **changes: Any) -> dict[str, Any]:
    """A study of four trials on one slot of one core: the baseline, then three of the sampler."""
    return {
        "data": {"shards": str(shards)},
        "space": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
        "fixed": {"encoder": ENCODER, "decoder": "linknet", "batch_size": 4, "precision": "fp32"},
        "baselines": False,
        "budget": {"trials": 4, "epochs": 3},
        "pruner": {"name": "none"},
        "pools": [{"name": "cpu", "cpus_per_worker": 1, "max_slots": 1}],
        "final": {"top": 0},
        **changes,
    }


def write_settings(file: Path, shards: Path, **changes: Any) -> Path:
    """`settings` as a file for `--space`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(settings(shards, **changes)))
    return file


def start(space: Path, *arguments: str, module: str = "search.run") -> subprocess.Popen[str]:
    """`python -m search.run --space SPACE ...` with its output in one pipe, leader of its own session."""
    command = [sys.executable, "-m", module, "--space", str(space), *arguments]
    return spawn(command)


def spawn(command: list[str], *, terminal: int | None = None) -> subprocess.Popen[str]:
    """A command that leads its own session, so that no signal of ours reaches it.

    Args:
        command: its words.
        terminal: the file descriptor of a terminal, which becomes the session's; None: its output goes into one pipe.
    """
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TERM": "xterm"}
    common: dict[str, Any] = {"text": True, "env": environment, "start_new_session": True}
    if terminal is None:
        ends: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    else:
        ends = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    return subprocess.Popen(command, preexec_fn=lambda: _begin_afresh(terminal), **ends, **common)


def _begin_afresh(terminal: int | None) -> None:
    """In the child: heed the signals that its parent may ignore (under `nohup`), and take the terminal."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if terminal is not None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def finish(process: subprocess.Popen[str], *, timeout_s: float = PATIENCE_S) -> str:
    """Wait for the process; its output. A process that is stuck is killed, and the test fails."""
    try:
        return process.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        kill_tree(process)
        output = process.communicate()[0]
        raise AssertionError(f"stuck for {timeout_s:.0f} s; its output ends with\n{output[-3000:]}") from None


def run(space: Path, *arguments: str, timeout_s: float = PATIENCE_S) -> tuple[int, str]:
    """Exit status and output of `python -m search.run --space SPACE ...`."""
    process = start(space, *arguments)
    output = finish(process, timeout_s=timeout_s)
    return process.returncode, output


@contextlib.contextmanager
def started(space: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A study under way, whose processes are gone afterwards whatever happens."""
    process = start(space, *arguments)
    try:
        yield process
    finally:
        kill_tree(process)


def kill_tree(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a process and all below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    if process.poll() is None:
        process.kill()


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    """Poll until the condition holds; its value. Fails when the process ends before, or patience does."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode} too early:\n{finish(process)[-3000:]}")
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


def epochs_of(folder: Path) -> int:
    """Epochs that stand in the trials' folders."""
    return sum(len(file.read_text().splitlines()) for file in folder.glob("trials/*/metrics.jsonl"))


def journal_of(folder: Path) -> optuna.Study:
    """The study's journal, as plain Optuna opens it."""
    return optuna.load_study(study_name=None, storage=storage_in(folder / JOURNAL))


def storage_in(file: Path) -> JournalStorage:
    """Optuna's storage in a file."""
    return JournalStorage(JournalFileBackend(str(file)))


def trials_of(folder: Path) -> list[FrozenTrial]:
    """The trials as plain Optuna reads them."""
    return journal_of(folder).trials


def processes_below(pid: int, name: str) -> list[psutil.Process]:
    """Living processes below `pid` whose command line has `name` in it (Ray names its actors so)."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(name in word for word in child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


def interrupt(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
    """Send the signal to the driver; its exit status and output."""
    process.send_signal(number)
    output = finish(process)
    return process.returncode, output
