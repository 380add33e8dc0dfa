"""Warm starts: ended trials of earlier studies, which the sampler is told of before the first of this one.

They are copied into `warm_start.json` when the study begins, so that it goes on alike wherever the earlier ones are by
then. They are no trials of this study: its baselines are trained all the same, its tables and winners are its own, and
a proposal that equals one of them is trained. Only what is comparable is taken: the same data, objectives and full
budget, or the study is refused; and of its trials those that would train here as they did there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cluster.settings.problems import Problem
from cluster.storage import Folder
from search.proof.provenance import StudyInfo, read_info
from search.settings.config import StudyConfig
from search.trials import Trial, read_trials
from trainables.record import TrialInfo, TrialStatus

WARM_START = "warm_start.json"


def problems(config: StudyConfig, fingerprint: str | None) -> Iterator[Problem]:
    """Earlier studies that are not there, or not comparable with this one.

    Args:
        config: the study.
        fingerprint: of its data; None: not known yet.
    """
    for i, source in enumerate(config.warm_start):
        try:
            earlier = read_info(Folder(source))
        except (OSError, ValueError) as error:
            yield Problem(("warm_start", i), f"no study can be read there: {error}", "the folder of an earlier study")
            continue
        if differences := _differences(config, earlier, fingerprint):
            yield Problem(
                ("warm_start", i), f"not comparable: {'; '.join(differences)}", "a study that agrees in these"
            )


def gather(config: StudyConfig) -> list[Trial]:
    """The ended trials of the earlier studies that would train here as they did there.

    Raises:
        ValueError: a record of an earlier study is damaged.
    """
    return [
        trial
        for source in config.warm_start
        for trial in read_trials(Folder(source), config.objective)
        if trial.ended and trial.values is not None and _trains_alike(config, trial)
    ]


def write_warm(folder: Folder, trials: list[Trial]) -> None:
    """Write `warm_start.json`."""
    folder.write_json(
        WARM_START,
        [
            {"info": t.info.model_dump(mode="json"), "status": t.status.model_dump(mode="json"), "curve": t.curve}
            for t in trials
        ],
    )


def read_warm(folder: Folder) -> list[Trial]:
    """What `write_warm` wrote, or nothing. Raises ValueError where it is damaged."""
    if not folder.exists(WARM_START):
        return []
    try:
        return [_trial(one) for one in folder.read_json(WARM_START)]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{folder}/{WARM_START} is damaged: {error}; put it back from a copy") from error


def _trial(one: dict[str, Any]) -> Trial:
    curve = {int(epoch): tuple(found) for epoch, found in one["curve"].items()}
    return Trial(
        info=TrialInfo.model_validate(one["info"]), status=TrialStatus.model_validate(one["status"]), curve=curve
    )


def _differences(config: StudyConfig, earlier: StudyInfo, fingerprint: str | None) -> list[str]:
    here = config.model_dump(mode="json")
    found = []
    if earlier.config.get("objective") != here["objective"]:
        found.append("another objective")
    if (epochs := earlier.config.get("budget", {}).get("epochs")) != config.budget.epochs:
        found.append(f"budget.epochs {epochs} there, {config.budget.epochs} here")
    if fingerprint is not None and earlier.dataset_fingerprint != fingerprint:
        found.append(f"data {earlier.dataset_fingerprint[:12]} there, {fingerprint[:12]} here")
    return found


def _trains_alike(config: StudyConfig, trial: Trial) -> bool:
    """Whether the trial's searched values are a point of this space, and make the configuration that it had."""
    space = config.search_space
    if not space.contains(trial.info.params):
        return False
    had = trial.info.config
    return space.to_config(trial.info.params, seed=had.seed).key() == had.key()
