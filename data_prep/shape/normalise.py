"""Grey values of a film to 8 bits, in the three ways the paper compares (its figure 1): min-max, z-score, CLAHE.

    small = geometry.cut(image_HW, WORKING_PX)
    sample_SS = normalised_sample(image_HW, geometry, "clahe")

CLAHE on a film of 15 million pixels costs more than reading it. So the film is first shrunk to a working copy of 1,024
pixels, normalised there, and then brought to the sample's size: docs/formats.md gives the difference in grey levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.schema import Normalisation
from data_prep.shape.breast import Breast
from data_prep.shape.geometry import WORKING_PX, Geometry

WINDOW = (0.0, 99.9)
"""Percentiles that become black and white. Film labels and skin markers shine at full brightness: with the plain
maximum as white, a marker of a few pixels would darken all tissue."""
CLAHE_CLIP = 2.0
CLAHE_TILES = (8, 8)
SIGMAS = 3.0


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The grey values that a film is normalised by."""

    low: float
    high: float
    """What min-max makes black and white."""
    mean: float
    sigma: float
    """What z-score subtracts, and divides by."""


def breast_levels(image_HW: np.ndarray, breast: Breast) -> Levels:
    """The levels of the breast alone, whatever lies around it: one set for all crops of a film."""
    grey = breast.grey_values(image_HW)
    low, high = percentiles(grey, WINDOW)
    return Levels(low=low, high=high, mean=float(grey.mean(dtype=np.float64)), sigma=float(grey.std(dtype=np.float64)))


def minmax(image: np.ndarray, *, window: tuple[float, float] = WINDOW, levels: Levels | None = None) -> np.ndarray:
    """Stretch grey values linearly to 0-255.

    Args:
        image: grey values of any real dtype and shape.
        window: percentiles that become 0 and 255, values beyond them are clipped; (0, 100) is the plain
            (x - min) / (max - min).
        levels: grey values that become 0 and 255, instead of the image's own percentiles.

    Returns:
        uint8 of the same shape; all 0 for a flat image.
    """
    low, high = (levels.low, levels.high) if levels else percentiles(image, window)
    if high <= low:
        low, high = float(image.min()), float(image.max())
    return _to_bytes(image, low, high)


def zscore(image: np.ndarray, *, levels: Levels | None = None) -> np.ndarray:
    """(x - mean) / standard deviation, clipped at -3 and +3, which become 0 and 255.

    Args:
        image: grey values of any real dtype and shape.
        levels: mean and deviation, instead of the image's own.

    Returns:
        uint8 of the same shape; all 0 for a flat image.
    """
    if levels:
        mean, sigma = levels.mean, levels.sigma
    else:
        mean, sigma = float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))
    return _to_bytes(image, mean - SIGMAS * sigma, mean + SIGMAS * sigma)


def clahe(image: np.ndarray, *, window: tuple[float, float] = WINDOW, levels: Levels | None = None) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation (clip 2.0, 8 x 8 tiles) of the min-max image.

    Args:
        image: grey values of shape (h, w).
        window: as for `minmax`.
        levels: as for `minmax`.

    Returns:
        uint8 of the same shape.
    """
    return cv2.createCLAHE(CLAHE_CLIP, CLAHE_TILES).apply(minmax(image, window=window, levels=levels))


NORMALISATIONS: dict[Normalisation, Callable[..., np.ndarray]] = {"minmax": minmax, "zscore": zscore, "clahe": clahe}


def normalised_sample(
    image_HW: np.ndarray, geometry: Geometry, normalisation: Normalisation, levels: Levels | None = None
) -> np.ndarray:
    """The image of a sample, as shards hold it and as a model wants it.

    Args:
        image_HW: the film, uint8 or uint16, bright tissue on dark ground.
        geometry: of this film.
        normalisation: `clahe`, `minmax` or `zscore`.
        levels: grey values to normalise by; None: those of the part that is shown.

    Returns:
        (S, S) uint8, padded with its darkest value.
    """
    return normalised_samples(image_HW, geometry, (normalisation,), levels)[normalisation]


def normalised_samples(
    image_HW: np.ndarray,
    geometry: Geometry,
    normalisations: tuple[Normalisation, ...],
    levels: Levels | None = None,
) -> dict[Normalisation, np.ndarray]:
    """`normalised_sample` for several normalisations from one working copy."""
    working = geometry.cut(image_HW, max(WORKING_PX, geometry.size_px))
    samples: dict[Normalisation, np.ndarray] = {}
    for name in normalisations:
        grey = NORMALISATIONS[name](working, levels=levels)
        samples[name] = geometry.square(grey, int(grey.min()))
    return samples


def percentiles(image: np.ndarray, wanted: tuple[float, float]) -> tuple[float, float]:
    """Two percentiles, by linear interpolation as `numpy.percentile`: the same values, from a histogram of integers.

    Args:
        image: grey values of any real dtype and shape, not empty.
        wanted: 0 to 100.
    """
    if image.dtype not in (np.uint8, np.uint16):
        low, high = np.percentile(image, wanted)
        return float(low), float(high)
    below = np.cumsum(np.bincount(image.ravel()))
    low, high = (_percentile(below, share / 100 * (image.size - 1)) for share in wanted)
    return low, high


def _percentile(below: np.ndarray, at: float) -> float:
    """The value at a fractional place among sorted values, of which `below[v]` are at most v."""
    place = int(at)
    first = int(np.searchsorted(below, place, side="right"))
    second = int(np.searchsorted(below, min(place + 1, int(below[-1]) - 1), side="right"))
    share = at - place
    step = second - first
    return second - step * (1 - share) if share >= 0.5 else first + step * share  # as numpy rounds


def _to_bytes(image: np.ndarray, low: float, high: float) -> np.ndarray:
    if high <= low:
        return np.zeros(image.shape, np.uint8)
    factor = 255.0 / (high - low)
    return np.rint(np.clip((image.astype(np.float32) - np.float32(low)) * np.float32(factor), 0, 255)).astype(np.uint8)
