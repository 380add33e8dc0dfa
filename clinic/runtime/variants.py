"""Variants: the forms in which a model folder keeps one network, and which of them is used.

    variants.json     one entry a variant, with what was measured of it; `chosen` is used where none is named
    variants/<file>   the exported networks

`weights` needs no export: the safetensors file of the folder, built again with segmentation-models-pytorch.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.storage import Folder

VARIANTS = "variants.json"
WEIGHTS = "weights"

Kind = Literal["weights", "pt2", "onnx", "openvino"]


class Measured(BaseModel):
    """What a variant does on one machine, one image at a time; None: not measured."""

    model_config = ConfigDict(frozen=True)

    size_mb: float
    """Of its file, in MB (1e6 bytes)."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    threads: int | None = None
    peak_memory_mb: float | None = None
    """Of a process that loads it and predicts, in MB (1e6 bytes)."""
    val_dice: float | None = None
    test_dice: float | None = None


class Variant(BaseModel):
    """One form of the network."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")
    kind: Kind
    files: dict[str, str] = {}
    """Path below the model folder -> SHA-256. The first is what the runtime opens."""
    made: str = ""
    """How it was made, in words."""
    measured: Measured | None = None


class Variants(BaseModel):
    """`variants.json`."""

    model_config = ConfigDict(frozen=True)

    chosen: str = WEIGHTS
    machine: str = ""
    """Where it was measured."""
    variants: tuple[Variant, ...] = (Variant(name=WEIGHTS, kind="weights", made="float32, as trained"),)

    def named(self, name: str | None, where: str) -> Variant:
        """The variant of a name, or the chosen one. Raises ValueError that lists what is there."""
        wanted = name or self.chosen
        for variant in self.variants:
            if variant.name == wanted:
                return variant
        there = ", ".join(variant.name for variant in self.variants)
        raise ValueError(
            f"{where} has no variant {wanted!r}, only {there}; make it with "
            f"`python -m clinic.run export {where} --variants {wanted}`"
        )


def read_variants(folder: Folder) -> Variants:
    """The variants of a model folder; `weights` alone where nothing was exported. Raises ValueError."""
    try:
        return Variants.model_validate(folder.read_json(VARIANTS))
    except FileNotFoundError:
        return Variants()
    except ValidationError as error:
        raise ValueError(f"{folder}/{VARIANTS} cannot be read: {error}; export the model again") from error


def read_checked(folder: Folder, variant: Variant, file: str) -> bytes:
    """The content of one of a variant's files, if it is what was exported. Raises ValueError otherwise."""
    try:
        content = folder.read_bytes(file)
    except FileNotFoundError:
        raise ValueError(f"{folder} has no {file}; export the variant {variant.name!r} again") from None
    if hashlib.sha256(content).hexdigest() != variant.files[file]:
        raise ValueError(f"{folder}/{file} is damaged: its SHA-256 is not the one of {VARIANTS}; export it again")
    return content
