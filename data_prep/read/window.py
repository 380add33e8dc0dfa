"""Grey values as the header wants them shown: modality rescale or LUT, then VOI window or LUT; odd ones are ignored.

Both go through a table of all stored values, so that no float image is made.
"""

from __future__ import annotations

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from data_prep.schema import ReadError

TISSUE_LEVEL = 0.03
"""Tissue differs from air by at least this share of the brightness range, as in `shape.geometry`."""
MOST_CLIPPED = 0.5
"""A window that makes more than this share of the tissue black, or white, was not made for the film."""
SAMPLE_STEP = 8


def display_table(
    stored_HW: np.ndarray, dataset: pydicom.Dataset, *, windowed: bool, inverted: bool
) -> tuple[np.ndarray | None, int, str]:
    """How stored values are shown.

    Args:
        stored_HW: right-justified stored values, signed or not.
        dataset: with the tags of modality and VOI transforms.
        windowed: whether the VOI window or LUT counts.
        inverted: whether air is bright (MONOCHROME1).

    Returns:
        uint16 grey values of the stored values from the lowest on, or None where they are shown as they are; the lowest
        stored value; a note that begins with `window_ignored` if the header's window was left out, else empty.

    Raises:
        ReadError: `unreadable`, where the rescale tags give no finite values.
    """
    rescaled = _is_rescaled(dataset)
    windowed = windowed and ("VOILUTSequence" in dataset or "WindowCenter" in dataset)
    if not rescaled and not windowed:
        return None, 0, ""
    low, high = int(stored_HW.min()), int(stored_HW.max())
    values = apply_modality_lut(np.arange(low, high + 1, dtype=stored_HW.dtype), dataset)
    if not np.isfinite(np.asarray(values, np.float64)).all():
        raise ReadError("unreadable", "the rescale tags give no finite values")
    shown, note = values, ""
    if windowed:
        try:
            applied = apply_voi_lut(values, dataset)
            shown = np.asarray(applied, np.float64)
            odd = "half of it is missing" if applied is values else _oddness(shown, stored_HW, low, inverted)
        except Exception as error:  # nonsense in the tags may raise anything
            odd = f"{type(error).__name__}: {error}"
        if odd:
            shown, note = values, f"window_ignored: {odd}"
    if shown is values and not rescaled:
        return None, 0, note
    return _spread(np.asarray(shown, np.float64)), low, note


def look_up(table: np.ndarray, stored_HW: np.ndarray, low: int) -> np.ndarray:
    """The grey values of an image by its table."""
    return table[stored_HW.astype(np.int32) - low] if low < 0 else table[stored_HW - low]


def _is_rescaled(dataset: pydicom.Dataset) -> bool:
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    return "ModalityLUTSequence" in dataset or (slope is not None and (slope, intercept or 0) != (1, 0))


def _oddness(shown: np.ndarray, stored_HW: np.ndarray, low: int, inverted: bool) -> str:
    """What is wrong with a window, or empty."""
    if not np.isfinite(shown).all():
        return "it gives no finite values"
    if len(shown) > 1 and np.ptp(shown) == 0:
        return "it shows one grey for all values"
    some = stored_HW[::SAMPLE_STEP, ::SAMPLE_STEP].astype(np.int64)
    dark, bright = np.percentile(some, [1, 99])
    edge = TISSUE_LEVEL * (bright - dark)
    tissue = some[some < bright - edge] if inverted else some[some > dark + edge]
    grey = shown[tissue - low]
    for end, word in ((shown.max(), "white"), (shown.min(), "black")):
        share = float(np.mean(grey == end)) if len(grey) else 0.0
        if share > MOST_CLIPPED:
            return f"it makes {share:.0%} of the tissue {word}"
    return ""


def _spread(shown: np.ndarray) -> np.ndarray:
    """To 16 bits."""
    floor, span = shown.min(), np.ptp(shown)
    return np.round((shown - floor) * (65535 / span if span else 0)).astype(np.uint16)
