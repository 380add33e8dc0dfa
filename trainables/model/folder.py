"""Write and read a model folder. No pickle, no Ray.

<folder>/model.json           what it is (info.py); written last: with it the folder is complete
         weights.safetensors  the best epoch's weights, under the names that segmentation-models-pytorch gives them
         metrics.json         measures on `val` and `test` (measures.py)
         MODEL_CARD.md        the same for people, with the block that Hugging Face reads
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from typing import Any

import safetensors.torch
from pydantic import ValidationError
from torch import Tensor, nn

from cluster.storage import Folder
from data_prep.schema import DatasetCard
from trainables.config import TrialConfig
from trainables.model.describe import model_card
from trainables.model.info import INFO, ModelInfo, Network, Preprocessing, TrainedOn
from trainables.model.measures import measures_of
from trainables.net.architecture import Architecture
from trainables.net.models import Segmenter, build_model, input_normalisation, parameter_count
from trainables.record import TrialRecord, best_epoch, now

WEIGHTS = "weights.safetensors"
METRICS = "metrics.json"
MODEL_CARD = "MODEL_CARD.md"
BUILT_OF = ("encoder", "decoder", "decoder_norm", "encoder_depth", "decoder_width", "decoder_attention")
"""Settings that decide the network's layers."""
PREFIX = "net."
"""Before each key in a trial's weights: the network inside `Segmenter`."""
PACKAGES = ("mammosearch", "torch", "segmentation-models-pytorch", "timm", "opencv-python-headless", "numpy", "pydicom")


def write_model(
    folder: Folder, record: TrialRecord, card: DatasetCard, *, name: str | None = None, study: str = ""
) -> ModelInfo:
    """Make a model folder of a finished trial.

    Args:
        folder: where to write it.
        record: the trial's folder, with `weights.safetensors` (a final's, or one of `trainables.run`).
        card: of the shards that it was trained on.
        name: the model's name; None: the folder's.
        study: name of the study that the trial is of.

    Returns:
        What `model.json` says.

    Raises:
        ValueError: the trial has no weights, or they do not fit its configuration, or the name cannot be used.
    """
    config = record.info().config
    weights = _weights_of(record)
    network = _network(config, card.settings.size_px, weights, str(record.folder))
    content = safetensors.torch.save(weights)
    measures = measures_of(record)
    mean, std = input_normalisation(config.encoder)
    info = _checked(
        name=name or folder.name,
        network=Network(
            **{name: getattr(config, name) for name in BUILT_OF},
            mean=mean,
            std=std,
            parameters=parameter_count(network),
        ),
        preprocessing=Preprocessing.of(card.settings, config.normalisation),
        threshold=_threshold(record),
        data=TrainedOn.of(card),
        config=config.model_dump(mode="json"),
        study=study,
        trial=record.info().trial_id,
        epoch=measures.get("val", {}).get("epoch"),
        weights_sha256=hashlib.sha256(content).hexdigest(),
        versions=_versions(),
        created_at=now(),
    )
    folder.remove(INFO)  # from here on the folder is not complete
    folder.write_bytes(WEIGHTS, content)
    folder.write_json(METRICS, measures)
    folder.write_text(MODEL_CARD, model_card(info, measures))
    folder.write_json(INFO, info.model_dump(mode="json"))
    return info


def read_weights(folder: Folder, info: ModelInfo) -> dict[str, Tensor]:
    """The weights, if they are the ones that `model.json` was written for. Raises ValueError otherwise."""
    try:
        content = folder.read_bytes(WEIGHTS)
    except FileNotFoundError:
        raise ValueError(f"{folder} has no {WEIGHTS}; pack the model again") from None
    if hashlib.sha256(content).hexdigest() != info.weights_sha256:
        raise ValueError(f"{folder}/{WEIGHTS} is damaged or of another model: its SHA-256 is not that of {INFO}")
    return safetensors.torch.load(content)


def load_network(folder: Folder, info: ModelInfo, content: bytes | None = None) -> nn.Module:
    """The network with its weights, in eval mode, on the CPU: images (B, 1, S, S) in [0, 1] to logits (B, 1, S, S).

    Args:
        folder: the model's.
        info: what its model.json says.
        content: of a safetensors file with other weights for the same network; None: the folder's own.

    Raises:
        ValueError: the weights are damaged, or do not fit.
    """
    config = TrialConfig.model_validate(info.config)
    weights = read_weights(folder, info) if content is None else safetensors.torch.load(content)
    return _network(config, info.preprocessing.size_px, weights, str(folder))


def _weights_of(record: TrialRecord) -> dict[str, Tensor]:
    try:
        content = record.folder.read_bytes(WEIGHTS)
    except FileNotFoundError:
        raise ValueError(
            f"{record.folder} has no {WEIGHTS}; finished finals of a study have it, and `trainables.run`'s trials"
        ) from None
    try:
        state = safetensors.torch.load(content)
    except Exception as error:  # safetensors has an exception of its own
        raise ValueError(f"{record.folder}/{WEIGHTS} is damaged: {error}") from error
    return {key.removeprefix(PREFIX): value for key, value in state.items()}


def _threshold(record: TrialRecord) -> float:
    """Where the best epoch, whose weights these are, was cut."""
    best, asked = best_epoch(record.metrics()), record.info().config.threshold
    if best is not None:
        return best.cut_at
    return 0.5 if isinstance(asked, str) else asked


def _network(config: TrialConfig, size_px: int, weights: dict[str, Tensor], where: str) -> nn.Module:
    model = build_model(Architecture.of(config, size_px))
    assert isinstance(model, Segmenter)
    try:
        model.net.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{where}: the weights do not fit {config.encoder} with {config.decoder}: {reason}") from error
    return model.eval()


def _checked(**values: Any) -> ModelInfo:
    try:
        return ModelInfo(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"model: {place} {first['input']!r} cannot be used: {first['msg']}") from error


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
