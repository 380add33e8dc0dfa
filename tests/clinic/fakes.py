"""Films whose lesion is known, and models that find it by its brightness: what the tests of the clinic share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from clinic.runtime.model import Model
from clinic.runtime.variants import Variant
from cluster.storage import Folder
from data_prep.schema import BuildSettings, DatasetCard
from tests.data_prep.trees import write_dicom
from trainables.config import TrialConfig
from trainables.model.folder import write_model
from trainables.model.info import ModelInfo, Network, Preprocessing, TrainedOn
from trainables.net.architecture import Architecture
from trainables.net.models import build_model
from trainables.record import EpochRow, TrialInfo, TrialRecord
from trainables.step.checkpoint import weights_bytes

SMALL = {"encoder": "tu-test_efficientnet", "decoder": "linknet"}
"""A network of 95,000 parameters."""


def draw_film(
    rows: int = 480,
    columns: int = 320,
    *,
    discs: tuple[tuple[int, int, int], ...] = ((240, 90, 60),),
    side: str = "left",
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """A breast with bright discs, 16 bit, and the mask of the discs, 0 and 1; discs are (row, column, diameter)."""
    film_HW = np.zeros((rows, columns), np.uint16)
    cv2.ellipse(film_HW, (0, rows // 2), (int(columns * 0.75), int(rows * 0.42)), 0, -90, 90, 20000, -1)
    noise_HW = np.random.default_rng(seed).integers(0, 3000, film_HW.shape).astype(np.uint16)
    film_HW[film_HW > 0] += noise_HW[film_HW > 0]
    mask_HW = np.zeros((rows, columns), np.uint8)
    y_HW, x_HW = np.ogrid[:rows, :columns]
    for row, column, diameter in discs:
        mask_HW[(y_HW - row) ** 2 + (x_HW - column) ** 2 <= (diameter / 2) ** 2] = 1
    film_HW[mask_HW > 0] = 62000
    if side == "right":
        film_HW, mask_HW = np.ascontiguousarray(film_HW[:, ::-1]), np.ascontiguousarray(mask_HW[:, ::-1])
    return film_HW, mask_HW


def film_file(folder: Path, name: str = "film", image_HW: np.ndarray | None = None, **tags: Any) -> Path:
    """A DICOM of `draw_film`, with UIDs of its own."""
    uid = "2.25." + "".join(str(ord(letter)) for letter in name)
    uids = {"SOPInstanceUID": uid, "StudyInstanceUID": f"{uid}.1", "SeriesInstanceUID": f"{uid}.2"}
    image_HW = draw_film()[0] if image_HW is None else image_HW
    return write_dicom(folder / f"{name}.dcm", image_HW, **{**uids, "Modality": "MG", **tags})


def model_info(*, field_of_view: str = "whole", size_px: int = 96, **changes: Any) -> ModelInfo:
    """What the model.json of a fake says."""
    settings = BuildSettings(field_of_view=field_of_view, size_px=size_px, normalisations=("minmax",))
    values: dict[str, Any] = {
        "name": f"bright-{field_of_view}",
        "network": Network(
            **SMALL,
            decoder_norm="batchnorm",
            encoder_depth=5,
            decoder_width=1.0,
            decoder_attention="none",
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            parameters=95_000,
        ),
        "preprocessing": Preprocessing.of(settings, "minmax"),
        "threshold": 0.75,
        "data": TrainedOn(source="phantom", fingerprint="0" * 64, samples={"train": 8}, patients={}),
        "config": TrialConfig(**SMALL).model_dump(mode="json"),
        "trial": "0000",
        "epoch": 1,
        "weights_sha256": "0" * 64,
        "versions": {},
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    return ModelInfo(**{**values, **changes})


def bright_model(**changes: Any) -> Model:
    """A model for which brightness is probability: it marks what is brighter than its threshold."""
    return Model(model_info(**changes), Variant(name="fake", kind="onnx"), lambda image_B1SS: image_B1SS)


CHOSEN_CUT = 0.35
"""Of a trial whose threshold is chosen on validation."""


def write_trial(folder: Path, *, test: bool = True, **config: Any) -> TrialRecord:
    """A finished trial of a small network with random weights."""
    settings = TrialConfig(**{**SMALL, "normalisation": "minmax", **config})
    record = TrialRecord(Folder(folder))
    record.write_info(TrialInfo(trial_id=folder.name, role="final", config=settings))
    dice = (0.2, 0.6, 0.5)
    cut_at = CHOSEN_CUT if isinstance(settings.threshold, str) else settings.threshold
    rows = [
        {**dict.fromkeys(EpochRow.model_fields, value), "epoch": n, "cut_at": cut_at}
        for n, value in enumerate(dice, start=1)
    ]
    record.write_metrics([EpochRow.model_validate(row) for row in rows])
    if test:
        record.write_test({"dice": 0.55, "iou": 0.4, "dice_soft": 0.5, "iou_soft": 0.4, "loss": 0.5, "images": 12})
    torch.manual_seed(0)
    model = build_model(Architecture.of(settings, 64))
    record.folder.write_bytes("weights.safetensors", weights_bytes(model.state_dict()))
    return record


def card(**settings: Any) -> DatasetCard:
    """The card of shards that a fake trial was trained on."""
    built = BuildSettings(**{"size_px": 64, "normalisations": ("minmax",), **settings})
    return DatasetCard(
        name="fake",
        settings=built,
        source_sha256="1" * 64,
        columns=[],
        image_columns={"minmax": "image"},
        samples={"train": 30, "val": 6, "test": 12},
        patients={"train": 10, "val": 2, "test": 4},
        lesions={"train": 30, "val": 6, "test": 12},
        rejected=0,
        repaired=0,
        files={},
        fingerprint="2" * 64,
        versions={},
        created_at="2026-01-01T00:00:00+00:00",
    )


def write_small_model(folder: Path, **settings: Any) -> Path:
    """A model folder of a small network with random weights; `settings` are of its shards."""
    write_model(Folder(folder), write_trial(folder.parent / f"{folder.name}-trial"), card(**settings))
    return folder
