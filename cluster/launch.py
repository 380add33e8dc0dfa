"""Send a study to a cluster that `ray up` has started: copy the code, submit, follow, bring the tables back.

The study runs as a Ray job on the head: it goes on if the connection is lost, and whoever calls again may follow it.
"""

from __future__ import annotations

import math
import shlex
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

REMOTE = "~/mammosearch"
"""Where cluster files mount the code."""
DASHBOARD = "http://127.0.0.1:8265"
"""The head's dashboard as the head sees it: it listens to nobody else."""
ENTER = (
    f"export RAY_AUTH_MODE=token PATH=~/mammosearch-venv/bin:$PATH; set -a; . {REMOTE}/cluster.env; set +a; cd {REMOTE}"
)

Runner = Callable[[Sequence[str]], int]
"""Runs a command to its end, with its output on the terminal; its exit status."""


class LaunchError(RuntimeError):
    """A step of a launch failed; the message says which, and how to go on."""


def launch(
    file: Path,
    *,
    space: Path,
    out: str,
    resume: bool = False,
    max_usd: float | None = None,
    run: Runner = subprocess.call,
) -> None:
    """Run a study on a running cluster, to its end.

    Args:
        file: the cluster file.
        space: the study's settings.
        out: path or URI of the study's folder; a path must be the same on every machine.
        resume: go on with the study in its folder.
        max_usd: ends the study at the first report at which its slots have cost this much.
        run: runs the commands.

    Raises:
        ValueError: `max_usd` is no amount of money.
        LaunchError: a step failed.
    """
    if max_usd is not None and not 0 < max_usd < math.inf:
        raise ValueError(f"--max-usd {max_usd:g} is no amount of money; give one above 0")
    ray = rays_command()
    job = f"{space.stem}-{uuid.uuid4().hex[:8]}"
    up = f"the code could not be copied to the head; is the cluster up (`{ray} up {file}`)?"
    _step(run, [ray, "rsync-up", str(file)], up)
    _step(run, [ray, "rsync-up", str(file), str(space), f"{REMOTE}/{space.name}"], "the settings could not be copied")
    follow = [ray, "exec", str(file), f"{ENTER} && ray job logs --follow --address={DASHBOARD} {job}"]
    _step(
        run,
        [ray, "exec", str(file), f"{ENTER} && {submission(job, space.name, out, resume=resume, max_usd=max_usd)}"],
        f"the study failed, or the connection was lost. To watch it again:\n  {shlex.join(follow)}\nTo restart it, "
        "repeat this command with --resume",
    )
    folder = out
    if "://" not in out:
        folder = f"runs/{Path(out).name}"
        Path(folder).mkdir(parents=True, exist_ok=True)
        _step(run, [ray, "rsync-down", str(file), f"{out}/", f"{folder}/"], f"{out} could not be copied to {folder}")
    _step(run, [sys.executable, "-m", "results.run", "table", folder], f"no tables could be made of {folder}")


def rays_command() -> str:
    """Ray's command of this very environment, activated or not.

    Raises:
        LaunchError: it is not there.
    """
    command = Path(sys.executable).with_name("ray")
    if not command.exists():
        raise LaunchError(f"there is no {command}; install Ray into this environment: pip install 'mammosearch[study]'")
    return str(command)


def submission(job: str, space: str, out: str, *, resume: bool = False, max_usd: float | None = None) -> str:
    """What submits a study on the head, follows it, and has its exit status."""
    study = study_command(space, out=out, max_usd=max_usd, resume=resume)
    words = ["ray", "job", "submit", f"--address={DASHBOARD}", f"--submission-id={job}", "--working-dir=.", "--"]
    return shlex.join([*words, *study])


def study_command(space: str, *, out: str | None, max_usd: float | None, resume: bool) -> list[str]:
    """The words of the command that runs a study."""
    words = ["python", "-m", "search.run", "--space", space]
    words += ["--out", out] if out else []
    words += ["--max-usd", f"{max_usd:g}"] if max_usd is not None else []
    return [*words, "--resume"] if resume else words


def _step(run: Runner, command: Sequence[str], failed: str) -> None:
    print("$ " + shlex.join(command), flush=True)
    if status := run(command):
        raise LaunchError(f"{failed} (exit status {status})")
