"""Checkpoints: everything that a trial needs to go on as if it had never stopped.

<folder>/epoch_0003/   weights.safetensors  optimiser.pt (read with weights_only)  checkpoint.json  complete

A checkpoint is put in place whole and says what size and CRC-32 its files and its card must have; one that was cut off
or damaged is passed over for the one before. The newest two are kept, and the one of the best epoch. Random states need
no saving: they are set at the start of each epoch from (seed, epoch, rank).
"""

from __future__ import annotations

import io
import json
import logging
import re
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from cluster.storage import Folder
from trainables.record import WEIGHTS, checkpoint_name

log = logging.getLogger(__name__)

KEPT = 2
OPTIMISER = "optimiser.pt"
CARD = "checkpoint.json"
FORMAT = 2

_ASIDE = re.compile(r"(^|\.)tmp-")
_NAME = re.compile(r"epoch_(\d{4,})")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trial's state after an epoch."""

    epoch: int
    """Finished epochs."""
    weights: dict[str, Tensor]
    """The state of the network that is measured, buffers included."""
    config: dict[str, Any]
    """`TrialConfig.model_dump(mode="json")`."""
    history: list[dict[str, Any]]
    """One row per finished epoch."""
    optimiser: dict[str, Any]
    """States of the optimiser (`optimiser`) and of the loss scaler (`scaler`); where `weights` are a moving average,
    also the weights that train (`weights`)."""
    precision: str
    """The number format it trains in."""


def save(folder: Folder, checkpoint: Checkpoint, *, best_epoch: int | None = None) -> None:
    """Put `epoch_NNNN` in place and remove what is older, but for the one before it and the best epoch's."""
    if folder.local is not None:
        folder.local.mkdir(parents=True, exist_ok=True)
    for name in folder.names():
        if _ASIDE.search(name):  # Of a writer that was killed: a trial has only one.
            folder.remove(name)
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=folder.local, ignore_cleanup_errors=True) as aside:
        source = Path(aside) / "checkpoint"
        source.mkdir()
        _write(source, checkpoint)
        folder.put_folder(source, checkpoint_name(checkpoint.epoch), move=True)
    for name in _newest_first(folder)[KEPT:]:
        if best_epoch is None or name != checkpoint_name(best_epoch):
            folder.remove(name)


def newest(folder: Folder) -> str | None:
    """The name of the newest checkpoint that is whole, or None."""
    return next(whole(folder), None)


def whole(folder: Folder) -> Iterator[str]:
    """The names of the checkpoints that are whole, the newest first."""
    for name in _newest_first(folder):
        if problem := _damage(folder, name):
            log.warning("%s/%s is passed over: %s", folder, name, problem)
        else:
            yield name


def history(folder: Folder, name: str) -> list[dict[str, Any]]:
    """The rows of a checkpoint that is whole."""
    return (folder / name).read_json(CARD)["history"]


def load(folder: Folder, name: str) -> Checkpoint:
    """Read a checkpoint, on the CPU. Raises ValueError if it is damaged."""
    if not folder.complete(name):
        raise ValueError(f"{folder}/{name} is no whole checkpoint: it was cut off, or was never there")
    with _local(folder, name) as path:
        if problem := _damage_at(path):
            raise ValueError(f"{folder}/{name} is no whole checkpoint: {problem}")
        card = json.loads((path / CARD).read_text())
        weights = safetensors.torch.load_file(path / WEIGHTS)
        optimiser = torch.load(path / OPTIMISER, map_location="cpu", weights_only=True)
    facts = {name: card[name] for name in ("epoch", "config", "history", "precision")}
    return Checkpoint(**facts, weights=weights, optimiser=optimiser)


def weights_bytes(weights: dict[str, Tensor]) -> bytes:
    """A model's state as the content of a safetensors file."""
    return safetensors.torch.save(_plain(weights))


def _write(target: Path, checkpoint: Checkpoint) -> None:
    """Write the files. Raises OSError, where torch and safetensors have errors of their own for a full disk."""
    optimiser = io.BytesIO()
    # The card's CRC serves; torch's own for every tensor would take as long as the writing.
    torch.serialization.set_crc32_options(False)
    torch.save(checkpoint.optimiser, optimiser)
    torch.serialization.set_crc32_options(True)
    contents: dict[str, bytes | memoryview] = {
        WEIGHTS: weights_bytes(checkpoint.weights),
        OPTIMISER: optimiser.getbuffer(),
    }
    for name, content in contents.items():
        (target / name).write_bytes(content)
    card = {
        "format": FORMAT,
        "epoch": checkpoint.epoch,
        "config": checkpoint.config,
        "history": checkpoint.history,
        "precision": checkpoint.precision,
        "files": {name: {"bytes": len(part), "crc32": zlib.crc32(part)} for name, part in contents.items()},
    }
    (target / CARD).write_text(json.dumps({**card, "crc32": _card_crc32(card)}, indent=1))


def _plain(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU and laid out plainly: safetensors holds no strides, and channels-last tensors have their own."""
    return {key: value.detach().cpu().contiguous() for key, value in weights.items()}


def _damage(folder: Folder, name: str) -> str:
    """What is wrong with a checkpoint, or an empty string."""
    if not folder.complete(name):
        return "it was cut off"
    try:
        with _local(folder, name) as path:
            return _damage_at(path)
    except OSError as error:
        return f"{type(error).__name__}: {error}"


def _damage_at(path: Path) -> str:
    """What is wrong with the files of a checkpoint on this machine's disk, or an empty string."""
    try:
        card = json.loads((path / CARD).read_text())
        if card.pop("crc32") != _card_crc32(card):
            return f"{CARD} is not as it was written"
        expected = {file: (facts["bytes"], facts["crc32"]) for file, facts in card["files"].items()}
        found = {file: ((path / file).stat().st_size, _crc32(path / file)) for file in expected}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return (
        "" if found == expected and {WEIGHTS, OPTIMISER} <= found.keys() else "its files are not as they were written"
    )


def _card_crc32(card: dict[str, Any]) -> int:
    """Of the card's values, however they are laid out in the file."""
    return zlib.crc32(json.dumps(card, sort_keys=True).encode())


class _local:  # noqa: N801 - used like a function
    """A checkpoint's folder on this machine's disk; fetched from an object store for as long as it is used."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        self._fetched: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Path:
        if self._folder.local is not None:
            return self._folder.local / self._name
        self._fetched = tempfile.TemporaryDirectory()
        self._folder.get_folder(self._name, Path(self._fetched.name))
        return Path(self._fetched.name)

    def __exit__(self, *_: object) -> None:
        if self._fetched is not None:
            self._fetched.cleanup()


def _newest_first(folder: Folder) -> list[str]:
    numbered = [(int(match[1]), name) for name in folder.names() if (match := _NAME.fullmatch(name))]
    return [name for _, name in sorted(numbered, reverse=True)]


def _crc32(file: Path) -> int:
    value = 0
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 24):
            value = zlib.crc32(chunk, value)
    return value
