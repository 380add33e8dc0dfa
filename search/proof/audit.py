"""Make every decision of a study again from its log: `python -m search.run --audit STUDY`.

Each proposal, stop and resumption is asked for again, from the seed and what the log says was known then, and compared
with what was decided. Then the log is compared with the trial folders. Not asked again: why a trial failed, and what
the clock, the money or a budget ended.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from cluster.storage import Folder
from search.decisions import line_of, tell, tell_warm
from search.log import Line, read_log
from search.methods.known import ENDED, Known
from search.methods.names import Setup
from search.proof.provenance import StudyInfo, read_info
from search.settings.config import StudyConfig
from search.trials import Trial, read_trials
from search.warm import read_warm

DECIDED = ("start", "resume", "stop")


def audit(folder: Folder) -> Iterator[str]:
    """Every difference between a study's decisions and those made again.

    Raises:
        ValueError: there is no study, or its settings cannot be read.
    """
    config = _config(folder, read_info(folder))
    known = Known()
    tell_warm(known, read_warm(folder))
    method = Setup.of(config, known).method_of(config)
    lines = read_log(folder)
    while True:
        try:
            where, line = next(lines)
        except StopIteration:
            break
        except ValueError as error:
            yield str(error).split(";")[0]
            return
        if line["what"] in DECIDED:
            yield from _decision(where, line, line_of(step, known.entered) if (step := method.next()) else None, known)
        if line["what"] == "limit":
            method.trials = line["trials"]
        try:
            tell(known, line)
        except (KeyError, TypeError, AssertionError) as error:
            yield f"{where}: {line} cannot follow: {error!r}"
            return
    yield from _folders(folder, config, known)


def show_audit(study: str) -> bool:
    """Print every difference, and what was looked at; whether there is none."""
    folder = Folder(study)
    found = 0
    for difference in audit(folder):
        print(difference, flush=True)
        found += 1
    if not found:
        made = sum(line["what"] in DECIDED for _, line in read_log(folder))
        print(f"{folder}: {made} decisions made again, 0 differences")
    else:
        print(f"{folder}: {found} differences")
    return not found


def _config(folder: Folder, info: StudyInfo) -> StudyConfig:
    try:
        return StudyConfig.model_validate(info.config)
    except ValidationError as error:
        raise ValueError(f"the settings in {folder}/study.json are of another version: {error}") from error


def _decision(where: str, line: Line, again: Line | None, known: Known) -> Iterator[str]:
    """How a decision differs from the one made again."""
    if line["known"] != known.position:
        yield f"{where}: was made knowing {line['known']} events, but stands after {known.position}"
    if again is None:
        yield f"{where}: {_short(line)} was decided; again, nothing is"
        return
    for key in line.keys() | again.keys():
        if key != "known" and line.get(key) != again.get(key):
            yield f"{where}: {_short(line)}: {key} is {line.get(key)!r}; made again, {again.get(key)!r}"


def _folders(folder: Folder, config: StudyConfig, known: Known) -> Iterator[str]:
    """How the trial folders differ from what the log says of them."""
    trials = read_trials(folder, config.objective)
    if len(trials) != known.entered:
        yield f"{len(trials)} trial folders, {known.entered} trials in the log"
    for trial in trials[: known.entered]:
        seen = known.trials[trial.number]
        found = {name: value for name, value in trial.info.params.items() if seen.params.get(name, math.nan) != value}
        if found:
            yield f"trials/{trial.info.trial_id}: searched {found}, in the log {dict(seen.params)}"
        if _began_anew(config, trial):
            continue  # its epochs before were told, and lie in no folder
        for epoch, values in seen.values.items():
            if trial.curve.get(epoch) != tuple(values):
                yield f"trials/{trial.info.trial_id}: epoch {epoch} has {trial.curve.get(epoch)}, in the log {values}"
        if seen.state in ENDED and not trial.ended:
            yield f"trials/{trial.info.trial_id}: is {trial.status.status}, in the log {seen.state}"


def _began_anew(config: StudyConfig, trial: Trial) -> bool:
    """Whether its batch was split after some epochs."""
    planned: Any = config.search_space.to_config(trial.info.params)
    return bool(trial.info.config.accumulation != planned.accumulation)


def _short(line: Line) -> str:
    return f"{line['what']} of trial {line['trial']}"
