"""`study.json`: what is needed to make a study, or a row of it, again."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cluster.storage import Folder
from data_prep.schema import DatasetCard
from search.settings.config import StudyConfig
from trainables.record import now

PACKAGES = (
    "mammosearch",
    "torch",
    "segmentation-models-pytorch",
    "timm",
    "optuna",
    "ray",
    "numpy",
    "opencv-python-headless",
)
STUDY = "study.json"
FREE_TO_CHANGE = ("budget", "final", "failures", "pools", "placement", "track")
"""Sections of the settings that may differ when a study is resumed: they decide how much is done, not what."""


class StudyInfo(BaseModel):
    """`study.json`."""

    model_config = ConfigDict(frozen=True)

    name: str
    config: dict[str, Any]
    """The settings, with every default."""
    dataset: str
    """Path or URI of the shard folder."""
    dataset_fingerprint: str
    field_of_view: str
    size_px: int
    samples: dict[str, int]
    slots: dict[str, int]
    lag: int
    """How far behind a suggestion its newest result lies (`search.sampling`); kept when a study is resumed."""
    seed: int
    versions: dict[str, str]
    commit: str
    """Of the checkout the code came from, with `+changes` if it had uncommitted ones; empty outside a checkout."""
    created_at: str


def describe(
    config: StudyConfig, *, name: str, shards: str, card: DatasetCard, slots: dict[str, int], lag: int
) -> StudyInfo:
    """What `study.json` says of a study that begins now."""
    return StudyInfo(
        name=name,
        config=config.model_dump(mode="json"),
        dataset=shards,
        dataset_fingerprint=card.fingerprint,
        field_of_view=card.settings.field_of_view,
        size_px=card.settings.size_px,
        samples=card.samples,
        slots=slots,
        lag=lag,
        seed=config.study.seed,
        versions=versions(),
        commit=commit(),
        created_at=now(),
    )


def read_info(folder: Folder) -> StudyInfo:
    """Read `study.json`. Raises FileNotFoundError."""
    return StudyInfo.model_validate(folder.read_json(STUDY))


def check_same_study(before: StudyInfo, config: StudyConfig, card: DatasetCard) -> None:
    """Refuse to resume a study with settings or data that would make its trials incomparable.

    Raises:
        ValueError: with every difference that matters.
    """
    after = config.model_dump(mode="json")
    differences = [
        f"{section}: was {before.config.get(section)!r}, is {after[section]!r}"
        for section in after
        if section not in (*FREE_TO_CHANGE, "data", "study") and before.config.get(section) != after[section]
    ]
    if before.config["budget"]["epochs"] != after["budget"]["epochs"]:
        differences.append(f"budget.epochs: was {before.config['budget']['epochs']}, is {after['budget']['epochs']}")
    if before.seed != config.study.seed:
        differences.append(f"study.seed: was {before.seed}, is {config.study.seed}")
    if before.dataset_fingerprint != card.fingerprint:
        differences.append(f"the data: fingerprint was {before.dataset_fingerprint[:12]}, is {card.fingerprint[:12]}")
    if differences:
        told = "\n  ".join(differences)
        raise ValueError(
            f"study {before.name!r} cannot be resumed, because it differs:\n  {told}\nGive it another --out"
        )


def versions() -> dict[str, str]:
    """Python and the packages that shape a trial."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of the checkout that this code lies in."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "HEAD")
    return f"{head}+changes" if head and git("status", "--porcelain", "--untracked-files=no") else head
