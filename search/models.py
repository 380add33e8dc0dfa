"""The finals as model folders, `<study>/models/<final>-<seed>/`: what a network needs to be used without its study."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cluster.storage import Folder
from data_prep.schema import DatasetCard
from trainables.model.folder import WEIGHTS, write_model
from trainables.model.info import INFO
from trainables.record import TrialRecord, final_paths

MODELS = "models"


def write_models(study: Folder, card: DatasetCard, name: str, *, tell: Callable[[str], None]) -> None:
    """Make a model folder of each final that has its weights and none yet. What cannot be made is told, no more.

    Args:
        study: its folder.
        card: of the shards that the finals were trained on.
        name: the study's.
        tell: given a line where something went wrong.
    """
    for final, folder in finals_of(study):
        target = study / MODELS / final
        if target.exists(INFO):
            continue
        try:
            write_model(target, TrialRecord(folder), card, study=name)
        except (ValueError, OSError) as error:  # a study that is done does not fail by what is made of it
            tell(f"no model folder of {final}: {error}")


def finals_of(study: Folder) -> Iterator[tuple[str, Folder]]:
    """(name, folder) of each final that keeps weights: `final/<name>/<seed>` as `<name>-<seed>`."""
    for path in final_paths(study):
        folder = study / path
        if folder.exists(WEIGHTS):
            yield "-".join(path.split("/")[1:]), folder
