"""What one has once a study is over, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator

from cluster.storage import Folder
from data_prep.schema import FieldOfView
from search.journal import JOURNAL
from search.models import MODELS, finals_of
from trainables.model.info import INFO
from trainables.record import WEIGHTS, TrialRecord, best_epoch


def closing(folder: Folder, field_of_view: FieldOfView) -> Iterator[str]:
    """Lines for the end of a study: where its weights and models are, and the commands that use them and show more.

    Args:
        folder: the study's.
        field_of_view: of the shards: a network of crops needs a lesion's box beside a film.
    """
    yield f"\n{folder} holds the study:"
    if weights := sorted(name for name, _ in (folder / "final").walk() if name.endswith(WEIGHTS)):
        yield f"  final/{weights[0]}{_and_more(weights)}: the winners' weights"
    models = {name: final for name, final in finals_of(folder) if (folder / MODELS / name).exists(INFO)}
    best = max(models, key=lambda name: _val_dice(models[name]), default=None)
    if best:
        yield f"  {MODELS}/{best}{_and_more(models)}: the winners as folders that segment films alone"
    yield f"  {JOURNAL}: all trials, for Optuna's own tools"
    yield "next:"
    study = shlex.quote(folder.uri)
    commands = {}
    if best:
        box = "" if field_of_view == "whole" else " --box TOP,LEFT,BOTTOM,RIGHT"
        model = shlex.quote((folder / MODELS / best).uri)
        commands[f"python -m clinic.run predict {model} FILM.dcm{box} --out masks"] = "the lesion on a film"
    commands |= {
        f"python -m results.run report {study}": "one HTML page about it",
        f"python -m results.run figures {study}": "figures for print",
    }
    if folder.local is not None:
        commands[f"optuna-dashboard {shlex.quote(str(folder.local / JOURNAL))}"] = "the trials in a browser"
    for command, what in commands.items():
        yield f"  {command}    # {what}"


def _and_more(names: Collection[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _val_dice(final: Folder) -> float:
    best = best_epoch(TrialRecord(final).metrics())
    return best.val_dice if best else 0.0
