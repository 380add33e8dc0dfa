"""A trained trial -> a model folder.

python -m clinic.run pack runs/nas/final/seresnet50 models/seresnet50
"""

from __future__ import annotations

from typing import Any

from cluster.storage import Folder
from data_prep.schema import DatasetCard
from data_prep.shards import read_card
from trainables.model.folder import write_model
from trainables.model.info import INFO, ModelInfo
from trainables.record import WEIGHTS, TrialRecord, best_epoch

STUDY = "study.json"
LEVELS = 4
"""A trial's folder lies at most so deep below its study's: `final/<name>/<seed>`."""


def pack(trial: str, out: str, *, shards: str | None = None, overwrite: bool = False) -> ModelInfo:
    """Make a model folder of a trial.

    Args:
        trial: path or URI of a trial folder with weights: a final, or one of `trainables.run`; or of a final's folder
            with one of these a seed, of which `best_seed` is taken.
        out: path or URI of the model folder; its last part is the model's name.
        shards: the shard folder that it was trained on; None: the one that the trial or its study names.
        overwrite: whether a model that is there is replaced.

    Raises:
        ValueError: there is no such trial, its weights or data are not to be found, or a model is there already.
    """
    trial = best_seed(trial) or trial
    record, target = TrialRecord(Folder(trial)), Folder(out)
    if not record.folder.exists("trial.json"):
        raise ValueError(
            f"{trial} is no trial folder (it has no trial.json); name a final, as runs/nas/final/seresnet50/1"
        )
    if target.exists(INFO) and not overwrite:
        raise ValueError(f"{out} holds a model already; give another folder, or --overwrite")
    study, info = _study_of(trial), record.info()
    where = shards or info.shards or (study["dataset"] if study else "")
    card = _card(where, trial, named=bool(shards))
    expected = info.fingerprint or (study["dataset_fingerprint"] if study else card.fingerprint)
    if card.fingerprint != expected:
        raise ValueError(
            f"{where} is not what the trial was trained on: its fingerprint is {card.fingerprint[:16]}, the trial's "
            f"{expected[:16]}; name the right folder with --shards"
        )
    return write_model(target, record, card, study=study.get("name", "") if study else "")


def best_seed(final: str) -> str | None:
    """Of a final that was trained with several seeds, the folder of the one with the highest validation Dice.

    Not that of the test split: it would no longer be one that no choice has seen. Of equal ones the first. None: it is
    no such final.
    """
    folder = Folder(final)
    if folder.exists("trial.json"):
        return None
    records = {f"{final.rstrip('/')}/{seed}": TrialRecord(folder / seed) for seed in folder.folders()}
    best = {path: best_epoch(record.metrics()) for path, record in records.items() if record.folder.exists(WEIGHTS)}
    scored = {path: row.val_dice for path, row in best.items() if row is not None}
    return max(scored, key=lambda path: scored[path]) if scored else None


def _study_of(trial: str) -> dict[str, Any] | None:
    """`study.json` of the study that a trial folder lies in, or None."""
    place = trial.rstrip("/")
    for _ in range(LEVELS):
        place = place.rpartition("/")[0] or "."
        if place.endswith(":/"):
            return None
        folder = Folder(place)
        if folder.exists(STUDY):
            return dict(folder.read_json(STUDY))
        if place == ".":
            return None
    return None


def _card(where: str, trial: str, *, named: bool) -> DatasetCard:
    if not where:
        raise ValueError(f"{trial} does not say what it was trained on; name the shard folder with --shards")
    try:
        return read_card(Folder(where))
    except ValueError as error:
        hint = "" if named else "; if the shards lie elsewhere now, name them with --shards"
        raise ValueError(f"{error}{hint}") from error
