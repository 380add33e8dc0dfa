"""What settings name outside of their file, looked up before anything starts: encoders, folders and files of this disk.

Nothing heavy is imported and no network is asked for it; what lies behind a URI is looked up by
`search.bill.dry_run.check_beforehand`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.settings.problems import Problem
from search.settings.config import StudyConfig
from trainables.net.known import encoder_problems

STUDY_FILES = ("study.json",)
"""What a folder with a study holds."""


def outside(config: StudyConfig) -> Iterator[Problem]:
    """What is named and is not there."""
    yield from encoders(config)
    yield from folders(config)


def encoders(config: StudyConfig) -> Iterator[Problem]:
    """Encoders that no library has, as far as that is known without importing them."""
    for path, encoder in _values(config, "encoder"):
        yield from encoder_problems(encoder, path)


def folders(config: StudyConfig) -> Iterator[Problem]:
    """Files and folders that are not there. A dry run tells them after its tables: a bill needs no data."""
    for path, weights in _values(config, "encoder_weights"):
        if isinstance(weights, str) and "/" in weights and not _is_there(weights):
            yield Problem(path, "there is no such file", "a file of weights, imagenet, or null")
    build, prepared = config.data.build, _is_there(config.data.folder)
    if build is None and not prepared:
        yield Problem(("data", "shards"), "there is no such folder", "a folder of shards, or add data.build")
    for key in ("root", "index_csv") if not prepared and build is not None and build.source != "phantom" else ():
        if (named := getattr(build, key)) is not None and not _is_there(named):
            yield Problem(("data", "build", key), "there is no such file or folder", "one that exists")
    for i, study in enumerate(config.warm_start):
        if "://" not in study and not any(_is_there(f"{study}/{name}") for name in STUDY_FILES):
            yield Problem(("warm_start", i), "holds no study", "the folder of an earlier study")


def _values(config: StudyConfig, name: str) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The values that a setting can have by the file, with the path of each."""
    if axis := config.space.get(name):
        yield from ((("space", name, "choices", i), value) for i, value in enumerate(axis.choices or ()))
    if name in config.fixed:
        yield ("fixed", name), config.fixed[name]


def _is_there(path: str) -> bool:
    """Whether a path of this disk exists; a URI is taken on trust, and a home that nobody has is not there."""
    if "://" in path:
        return True
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False
