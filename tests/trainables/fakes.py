"""Small samples and a small configuration, with which a trial takes parts of a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trainables.config import TrialConfig
from trainables.trial import TrialData

SIZE_PX = 32


@dataclass(frozen=True)
class ArraySamples:
    """Samples that are just arrays."""

    images_NHW: np.ndarray
    masks_NHW: np.ndarray


def discs(images: int, *, seed: int, size_px: int = SIZE_PX) -> ArraySamples:
    """Bright discs, the lesions, on a dark noisy ground."""
    generator = np.random.default_rng(seed)
    image_NHW = generator.integers(0, 60, (images, size_px, size_px)).astype(np.uint8)
    y_HW, x_HW = np.mgrid[:size_px, :size_px] / size_px
    centre_N2 = generator.uniform(0.3, 0.7, (images, 2))
    radius_N = generator.uniform(0.12, 0.28, images)
    distance_NHW = np.hypot(y_HW - centre_N2[:, :1, None], x_HW - centre_N2[:, 1:, None])
    mask_NHW = (distance_NHW < radius_N[:, None, None]).astype(np.uint8)
    return ArraySamples(image_NHW + 120 * mask_NHW, mask_NHW)


def disc_data(*, train: int = 12, val: int = 5, test: int = 4, size_px: int = SIZE_PX) -> TrialData:
    """Three splits of discs."""
    return TrialData(
        discs(train, seed=1, size_px=size_px),
        discs(val, seed=2, size_px=size_px),
        discs(test, seed=3, size_px=size_px),
    )


def small_config(**changes: Any) -> TrialConfig:
    """A configuration with a network of 95,000 parameters, in float32."""
    defaults = {
        "encoder": "tu-test_efficientnet",
        "decoder": "linknet",
        "batch_size": 4,
        "epochs": 3,
        "precision": "fp32",
        "flip_horizontal": True,
        "brightness": 0.1,
        "contrast": 0.1,
    }
    return TrialConfig(**{**defaults, **changes})


def steady_config(**changes: Any) -> TrialConfig:
    """A configuration whose network has no batch statistics and no dropout: its result does not depend on shares."""
    return small_config(encoder="tu-test_convnext", decoder_norm="layernorm", **changes)


TIMES = ("train_s", "val_s", "images_per_s", "peak_memory_gb")


def without_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without what differs from run to run."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in history]
