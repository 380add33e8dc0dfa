"""Grey values of a film to 8 bits, in the three ways the paper compares (its figure 1): min-max, z-score, CLAHE.

    small = geometry.cut(image_HW, WORKING_PX)
    sample_SS = normalised_sample(image_HW, geometry, "clahe")

CLAHE on a film of 15 million pixels costs more than reading it. So the film is first shrunk to a working copy of 1,024
pixels, normalised there, and then brought to the sample's size: docs/formats.md gives the difference in grey levels.
"""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.schema import Normalisation
from data_prep.shape.geometry import Geometry

WORKING_PX = 1024
"""Longer side of the copy on which films are normalised (the sample's side, where that is larger)."""
WINDOW = (0.0, 99.9)
"""Percentiles that become black and white. Film labels and skin markers shine at full brightness: with the plain
maximum as white, a marker of a few pixels would darken all tissue."""
CLAHE_CLIP = 2.0
CLAHE_TILES = (8, 8)
SIGMAS = 3.0


def minmax(image: np.ndarray, *, window: tuple[float, float] = WINDOW) -> np.ndarray:
    """Stretch grey values linearly to 0-255.

    Args:
        image: grey values of any real dtype and shape.
        window: percentiles that become 0 and 255, values beyond them are clipped; (0, 100) is the plain
            (x - min) / (max - min).

    Returns:
        uint8 of the same shape; all 0 for a flat image.
    """
    low, high = np.percentile(image, window)
    if high <= low:
        low, high = float(image.min()), float(image.max())
    return _to_bytes(image, low, high)


def zscore(image: np.ndarray) -> np.ndarray:
    """(x - mean) / standard deviation, clipped at -3 and +3, which become 0 and 255.

    Returns:
        uint8 of the same shape; all 0 for a flat image.
    """
    mean, sigma = float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))
    return _to_bytes(image, mean - SIGMAS * sigma, mean + SIGMAS * sigma)


def clahe(image: np.ndarray, *, window: tuple[float, float] = WINDOW) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation (clip 2.0, 8 x 8 tiles) of the min-max image.

    Args:
        image: grey values of shape (h, w).
        window: as for `minmax`.

    Returns:
        uint8 of the same shape.
    """
    return cv2.createCLAHE(CLAHE_CLIP, CLAHE_TILES).apply(minmax(image, window=window))


NORMALISATIONS = {"minmax": minmax, "zscore": zscore, "clahe": clahe}


def normalised_sample(image_HW: np.ndarray, geometry: Geometry, normalisation: Normalisation) -> np.ndarray:
    """The image of a sample, as shards hold it and as a model wants it.

    Args:
        image_HW: the film, uint8 or uint16, bright tissue on dark ground.
        geometry: of this film.
        normalisation: `clahe`, `minmax` or `zscore`.

    Returns:
        (S, S) uint8, padded with its darkest value.
    """
    return normalised_samples(image_HW, geometry, (normalisation,))[normalisation]


def normalised_samples(
    image_HW: np.ndarray, geometry: Geometry, normalisations: tuple[Normalisation, ...]
) -> dict[Normalisation, np.ndarray]:
    """`normalised_sample` for several normalisations from one working copy."""
    working = geometry.cut(image_HW, max(WORKING_PX, geometry.size_px))
    samples: dict[Normalisation, np.ndarray] = {}
    for name in normalisations:
        grey = NORMALISATIONS[name](working)
        samples[name] = geometry.square(grey, int(grey.min()))
    return samples


def _to_bytes(image: np.ndarray, low: float, high: float) -> np.ndarray:
    if high <= low:
        return np.zeros(image.shape, np.uint8)
    factor = 255.0 / (high - low)
    return np.rint(np.clip((image.astype(np.float32) - np.float32(low)) * np.float32(factor), 0, 255)).astype(np.uint8)
