"""Every command ends with one message and the status that says whose turn it is."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner, Result

from cluster.cli import exits, printable
from tests.file_tree import ROOT


def ended(error: BaseException | None, go_on: str = "") -> Result:
    """How a command ends whose work raises `error`."""
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def work() -> None:
        with exits("work", go_on=go_on):
            print("begun")
            if error is not None:
                raise error

    return CliRunner().invoke(app, [])


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 0, ""),
        (ValueError("nas.yaml:3  trials: too small"), 2, "work: nas.yaml:3  trials: too small\n"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.yaml"), 2, "work: x.yaml: No such file or "),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "/dev/full/x"),
            2,
            "work: /dev/full/x: Not a directory\n",
        ),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "runs"), 2, "work: runs: Is a directory\n"),
        (FileExistsError(errno.EEXIST, "File exists", "a", None, "b"), 2, "work: a: b: File exists\n"),
        (ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib"), 2, "matplotlib"),
        (
            ImportError("figures need matplotlib: pip install 'mammosearch[figures]'"),
            2,
            "work: figures need matplotlib",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "work: x: Permission denied\n"),
        (OSError("a store that does not answer"), 1, "work: a store that does not answer\n"),
        (RuntimeError("training failed"), 1, "work: training failed\n"),
        (MemoryError(), 1, "work: not enough memory\n"),
        (EOFError(), 1, "work: EOFError\n"),
        (KeyboardInterrupt(), 130, "work: interrupted\n"),
        (typer.Exit(7), 7, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_a_command_raises_decides_how_it_ends(error: BaseException | None, status: int, said: str) -> None:
    result = ended(error)
    assert result.exit_code == status
    assert said in result.stderr if said else result.stderr == ""
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "bug",
    [
        KeyError("x"),
        TypeError("x"),
        ModuleNotFoundError("No module named 'search.gone'", name="search.gone"),
        ImportError("cannot import name 'gone' from 'search.job'", name="search.job"),
    ],
)
def test_a_bug_keeps_its_traceback(bug: Exception) -> None:
    assert ended(bug).exception is bug


def test_ctrl_c_and_a_full_disk_say_how_to_go_on() -> None:
    assert ended(KeyboardInterrupt(), "go on with: X").stderr == "work: interrupted; go on with: X\n"
    full = ended(OSError(errno.ENOSPC, "No space left on device"), "go on with: X")
    assert full.stderr == "work: No space left on device\nwork: once there is room, go on with: X\n"
    assert "go on" not in ended(OSError(errno.EIO, "Input/output error"), "go on with: X").stderr


def test_a_message_cannot_steer_a_terminal() -> None:
    assert printable("a\nb\x1b[31m\x00\udcffé") == "a\nb\\x1b[31m\\x00\\udcffé"
    assert "\x1b" not in ended(ValueError("\x1b]0;owned\x07")).stderr


SCRIPT = """
    import sys, typer
    from cluster.cli import exits
    app = typer.Typer(pretty_exceptions_enable=False)
    @app.command()
    def work(out: str) -> None:
        with exits("work"):
            for number in range(100_000):
                print("line", number, "\\u2013")
            open(out, "w").write("the work went on")
    app()
"""


def script(tmp_path: Path, shell: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell line in which `$WORK` is a command that prints much and then writes the file `done`."""
    (tmp_path / "work.py").write_text(textwrap.dedent(SCRIPT))
    command = shell.replace("$WORK", f"{sys.executable} {tmp_path}/work.py {tmp_path}/done")
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "ascii"}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("shell", ["$WORK | head -1", "$WORK 2>&1 | head -1", "$WORK >&-", "$WORK > /dev/null"])
def test_the_work_goes_on_when_nobody_reads_what_it_prints(tmp_path: Path, shell: str) -> None:
    done = script(tmp_path, shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "done").read_text() == "the work went on"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here, which is a disk that is full")
def test_an_output_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    done = script(tmp_path, "$WORK > /dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "work: No space left on device"


def test_help_lists_the_settings_of_the_model() -> None:
    from data_prep.run import app

    shown = CliRunner().invoke(app, ["build", "--help"], env={"COLUMNS": "80"}).output
    assert "phantom.visibility=1.0" in shown
    assert "a multiple of" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_options_that_are_wrong_end_with_status_two() -> None:
    app = typer.Typer()

    @app.command()
    def work(count: Annotated[int, typer.Option(min=1)] = 1) -> None:
        raise AssertionError

    assert CliRunner().invoke(app, ["--count", "0"]).exit_code == 2
