"""How every command ends: with one message, and an exit status that says whose turn it is.

    with exits("search", go_on="go on with: python -m search.run --resume"):
        ...

| status | means | what raises it |
|---|---|---|
| 0 | done | |
| 1 | it failed | any other OSError, RuntimeError, MemoryError |
| 2 | a mistake in what was asked for | ValueError; a file, folder or package that is not there, or another kind |
| 130 | interrupted | Ctrl-C |

Any other exception is a bug of ours and keeps its traceback. Imports neither Ray nor torch nor pyarrow.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

if TYPE_CHECKING:
    from cluster.settings.listing import Key

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""The numbers of an `OSError` by which nothing more can be written."""

EXTRA_OF = {
    "matplotlib": "figures",
    "ray": "study",
    "jsonschema": "study",
    "torch": "train",
    "torchvision": "train",
    "segmentation_models_pytorch": "train",
    "timm": "train",
    "safetensors": "train",
    "highdicom": "clinic",
    "pyjpegls": "clinic",
    "onnx": "clinic",
    "onnxruntime": "clinic",
    "torch_pruning": "clinic",
    "fastapi": "clinic",
    "uvicorn": "clinic",
    "python_multipart": "clinic",
    "prometheus_client": "clinic",
    "grpc_reflection": "replicas",
    "openvino": "openvino",
    "nncf": "openvino",
}
"""Package -> the extra of pyproject.toml that installs it."""
OURS = ("cluster", "data_prep", "trainables", "search", "results", "clinic", "mammosearch")
"""Our own packages."""
SAME_COMMAND = "the same command goes on where it stopped"

FAILED, ASKED_WRONGLY, INTERRUPTED = 1, 2, 130
_NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP)
"""The numbers of an `OSError` that say that what was named is no path."""
_MISTAKES = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, ImportError)


class BrokenOffError(RuntimeError):
    """What was under way broke off, by no fault of its own, and can go on from where it stopped."""


@contextmanager
def exits(command: str, *, go_on: str = "") -> Iterator[None]:
    """Turn what a command raises into one message on standard error and an exit status.

    A reader of our output that goes away (`| head`) ends nothing: the work goes on, and its output goes nowhere.

    Args:
        command: begins the message, as the name of a program does.
        go_on: how to go on after an interruption or a full disk, e.g. "the same command goes on where it stopped";
            empty: nothing was begun that could go on.

    Raises:
        typer.Exit: with the status of the table above.
    """
    with _lasting_output():
        try:
            yield
            sys.stdout.flush()
        except (typer.Exit, typer.Abort):  # RuntimeErrors of typer's, which are no failures
            raise
        except KeyboardInterrupt as error:
            _say(command, f"interrupted; {go_on}" if go_on else "interrupted")
            raise typer.Exit(INTERRUPTED) from error
        except _MISTAKES as error:
            if isinstance(error, ImportError) and not _is_a_missing_package(error):
                raise
            _say(command, text_of(error))
            raise typer.Exit(ASKED_WRONGLY) from error
        except (OSError, RuntimeError, MemoryError, EOFError) as error:
            _say(command, text_of(error))
            if isinstance(error, OSError) and error.errno in _NO_PATH:
                raise typer.Exit(ASKED_WRONGLY) from error
            if go_on and isinstance(error, BrokenOffError):
                _say(command, go_on)
            if go_on and isinstance(error, OSError) and error.errno in DISK_FULL:
                _say(command, f"once there is room, {go_on}")
            raise typer.Exit(FAILED) from error


def lists_settings(keys: Callable[[], Iterable[Key]]) -> type[TyperCommand]:
    """A command whose `--help` ends with the settings that its `--set KEY=VALUE` takes.

    Args:
        keys: gives them (`cluster.settings.listing.leaves`); called for `--help` alone, as models take time to import.
    """

    class Command(TyperCommand):
        def format_help(self, ctx: Any, formatter: Any) -> None:
            super().format_help(ctx, formatter)
            table = Table.grid(padding=(0, 2))
            for key in keys():
                table.add_row(f"{key.path}={key.default}".replace("`", ""), Text(f"{key.meaning} [{key.values}]"))
            Console().print(Panel(table, title="Settings: --set KEY=VALUE", title_align="left", border_style="dim"))

    return Command


def _is_a_missing_package(error: ImportError) -> bool:
    """Whether something must be installed; a name that one of our own modules lacks is a bug."""
    if error.name is None:
        return True
    return isinstance(error, ModuleNotFoundError) and error.name.split(".")[0] not in OURS


def text_of(error: BaseException) -> str:
    """What an exception says, in words that name the file: `nas.yaml: No such file or directory`."""
    if isinstance(error, OSError) and error.strerror:
        files = [str(file) for file in (error.filename, error.filename2) if file is not None]
        return ": ".join([*files, error.strerror])
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.split(".")[0]
        wanted = f"'mammosearch[{EXTRA_OF[package]}]'" if package in EXTRA_OF else package
        return f"this needs {package}: pip install {wanted}"
    if isinstance(error, MemoryError):
        return f"not enough memory{f': {error}' if str(error) else ''}"
    return str(error) or type(error).__name__


def printable(text: str) -> str:
    """The text with control characters and broken Unicode written out, so that it cannot steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _say(command: str, text: str) -> None:
    text = re.sub(r"\[Errno \d+\] ", "", text)
    print(f"{command}: {printable(text)}", file=sys.stderr, flush=True)


@contextmanager
def _lasting_output() -> Iterator[None]:
    """Standard output and error that outlive their readers, and write what their encoding lacks as an escape."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Lasting.over(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _Lasting:
    """A text stream that writes into nothing once its reader has gone; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @classmethod
    def over(cls, stream: TextIO | None) -> Any:
        """The stream made lasting; None, which Python has where a stream is closed from the start, too."""
        if stream is None:
            return cls(open(os.devnull, "w"))  # noqa: PTH123 - as long as the command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        return cls(stream)

    def write(self, text: str) -> int:
        """As the stream's own."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        """As the stream's own."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
