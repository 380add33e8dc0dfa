"""The encoders that can be asked for, known without the libraries that have them, which take seconds to import.

The list was made from certain versions of segmentation-models-pytorch and timm. Where others are installed it says
nothing, and `trainables.net.models.check_model` decides.

    python -m trainables.net.list_encoders    writes it anew, after a change of versions
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cluster.settings.problems import Problem, not_one_of
from trainables.config import DECODERS, TrialConfig

FILE = Path(__file__).with_name("encoders.json")
PACKAGES = ("segmentation-models-pytorch", "timm")


def installed_versions() -> dict[str, str]:
    """Version of each package that has encoders; without those that are not installed."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@cache
def known_encoders() -> tuple[str, ...]:
    """Every encoder's name, the paper's first; empty where the list is of other versions than those installed."""
    listed = json.loads(FILE.read_text())
    return tuple(listed["names"]) if listed["versions"] == installed_versions() else ()


def encoder_problems(encoder: Any, path: tuple[str | int, ...]) -> Iterator[Problem]:
    """Whether an encoder's name is unknown for certain, told at `path`; timm's may end in the tag of its weights."""
    name = str(encoder)
    names = known_encoders()
    if names and name not in names and not (name.startswith("tu-") and name.split(".")[0] in names):
        unknown = not_one_of(path, "unknown encoder", name, names)
        yield replace(unknown, meant=f"tu-{name}") if f"tu-{name}" in names else unknown


def name_problems(config: TrialConfig) -> Iterator[Problem]:
    """What of a configuration's encoder and decoder is no name of any."""
    yield from encoder_problems(config.encoder, ("encoder",))
    if config.decoder not in DECODERS:
        yield not_one_of(("decoder",), "unknown decoder", config.decoder, DECODERS)
