"""`study.json`: what is needed to make a study, or a row of it, again."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import uuid
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.storage import Folder
from data_prep.schema import BuildSettings, DatasetCard
from search.settings.config import StudyConfig
from trainables.record import now, read_model

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

    id: str = ""
    """What identifies the study, wherever its folder lies and whatever that is called."""
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
    lag: int | None
    """Of a repeatable study, how far behind a decision lies what it knows (`search.decisions`); kept on a resume."""
    seed: int
    versions: dict[str, str]
    commit: str
    """Of the checkout the code came from, with `+changes` if it had uncommitted ones; empty outside a checkout."""
    created_at: str


def describe(
    config: StudyConfig, *, name: str, shards: str, card: DatasetCard, slots: dict[str, int], lag: int | None
) -> StudyInfo:
    """What `study.json` says of a study that begins now."""
    return StudyInfo(
        id=str(uuid.uuid4()),
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
    """Read `study.json`. Raises FileNotFoundError, or ValueError that names the file and what is wrong with it."""
    return read_model(folder, STUDY, StudyInfo)


def check_same_settings(before: StudyInfo, config: StudyConfig) -> None:
    """Refuse to resume a study with settings that would make its trials incomparable.

    Raises:
        ValueError: with every difference that matters.
    """
    was, is_now = _with_defaults(before.config), config.model_dump(mode="json")
    differences = [
        f"{section}: was {was.get(section)!r}, is {is_now[section]!r}"
        for section in is_now
        if section not in (*FREE_TO_CHANGE, "data", "study") and was.get(section) != is_now[section]
    ]
    pairs = {
        "budget.epochs": (was.get("budget", {}).get("epochs"), config.budget.epochs),
        "study.seed": (before.seed, config.study.seed),
        "study.repeatable": (before.lag is not None, config.study.repeatable),
        "data.build": (_shaping(was), _shaping(is_now)),
    }
    differences += [f"{key}: was {a!r}, is {b!r}" for key, (a, b) in pairs.items() if a != b]
    _refuse(before, differences)


def check_same_data(before: StudyInfo, card: DatasetCard) -> None:
    """Refuse to resume a study on other samples. Raises ValueError."""
    was, is_now = before.dataset_fingerprint, card.fingerprint
    _refuse(before, [f"the data: fingerprint was {was[:12]}, is {is_now[:12]}"] if was != is_now else [])


def _refuse(before: StudyInfo, differences: list[str]) -> None:
    if differences:
        told = "\n  ".join(differences)
        raise ValueError(
            f"study {before.name!r} cannot be resumed, because it differs:\n  {told}\nGive it another --out"
        )


def _with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """Settings that an earlier version wrote, with the defaults of what has come since; as they are if unreadable."""
    try:
        return StudyConfig.model_validate(config).model_dump(mode="json")
    except ValidationError:
        return config


def _shaping(config: dict[str, Any]) -> dict[str, Any] | None:
    """What shapes the samples that a study builds; None: they were there."""
    build = config.get("data", {}).get("build")
    return BuildSettings.model_validate(build).shaping() if build else None


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
