"""What one has once a study is over, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from cluster.storage import Folder
from search.journal import JOURNAL
from trainables.record import WEIGHTS


def closing(folder: Folder) -> Iterator[str]:
    """Lines for the end of a study: where its weights are, and the commands that show more.

    Args:
        folder: the study's.
    """
    yield f"\n{folder} holds the study:"
    if weights := sorted(name for name, _ in (folder / "final").walk() if name.endswith(WEIGHTS)):
        yield f"  final/{weights[0]}{f' and {len(weights) - 1} more' if len(weights) > 1 else ''}: the winners' weights"
    yield f"  {JOURNAL}: all trials, for Optuna's own tools"
    yield "next:"
    study = shlex.quote(folder.uri)
    commands = {
        f"python -m results.run report {study}": "one HTML page about it",
        f"python -m results.run figures {study}": "figures for print",
    }
    if folder.local is not None:
        commands[f"optuna-dashboard {shlex.quote(str(folder.local / JOURNAL))}"] = "the trials in a browser"
    for command, what in commands.items():
        yield f"  {command}    # {what}"
