"""One image's measures from a pair of masks: Dice, IoU, Hausdorff distance, lesions found, false positives.

Empty masks, the rule everywhere: both empty agree (Dice and IoU 1, Hausdorff distance 0); if only one is empty, Dice
and IoU are 0 and there is no Hausdorff distance: NaN, never the image's diagonal. A table that has the mean of the
distance says over how many images.

Shapes: H rows, W columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

FOUND_SHARE = 0.1
"""Share of a lesion's pixels that must be covered for the lesion to be found."""
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """The measures of one image. A lesion is an 8-connected part of the true mask."""

    dice: float
    """Hard Dice, in [0, 1]."""
    iou: float
    """Hard IoU, in [0, 1]."""
    sensitivity: float
    """Share of the true pixels that were found; NaN where there are none."""
    hd95_px: float
    """95th percentile of the Hausdorff distance in pixels; NaN where one mask alone is empty."""
    hd95_mm: float
    """The same in millimetres on the film; NaN where the spacing is not known too."""
    truth_px: int
    found_px: int
    both_px: int
    """Pixels of the true mask, of the prediction, and of both: what pooled measures are made of."""
    lesions: int
    lesions_found: int
    """Lesions of which at least `FOUND_SHARE` is covered."""
    false_positives: int
    """8-connected parts of the prediction that touch no lesion."""
    lesion_px: int
    """Pixels of the largest lesion; 0 where there is none."""


def measure(truth_HW: Mask, found_HW: Mask, *, spacing_mm: float | None = None) -> ImageScore:
    """Measure one prediction.

    Args:
        truth_HW: the true mask.
        found_HW: the predicted mask, of the same shape.
        spacing_mm: side of one of these pixels on the film; None where it is not known.

    Raises:
        ValueError: the masks differ in shape.
    """
    if truth_HW.shape != found_HW.shape:
        raise ValueError(f"the masks differ in shape: {truth_HW.shape} and {found_HW.shape}")
    both, truth, found = (int(np.count_nonzero(mask)) for mask in (truth_HW & found_HW, truth_HW, found_HW))
    sizes, covered, false_positives = _lesions(truth_HW, found_HW)
    distance_px = hausdorff_95(truth_HW, found_HW)
    return ImageScore(
        dice=2 * both / (truth + found) if truth + found else 1.0,
        iou=both / (truth + found - both) if truth + found else 1.0,
        sensitivity=both / truth if truth else math.nan,
        hd95_px=distance_px,
        hd95_mm=distance_px * spacing_mm if spacing_mm else math.nan,
        truth_px=truth,
        found_px=found,
        both_px=both,
        lesions=len(sizes),
        lesions_found=int((covered >= FOUND_SHARE * sizes).sum()),
        false_positives=false_positives,
        lesion_px=int(sizes.max(initial=0)),
    )


def hausdorff_95(truth_HW: Mask, found_HW: Mask) -> float:
    """95th percentile of the distances between the borders of two masks, the larger of the two directions, in pixels.

    A border pixel is one of the mask with a 4-neighbour that is not; the image's frame counts as such a neighbour.
    Libraries differ in all of this: the definition is that of MONAI's `compute_hausdorff_distance(percentile=95)`.

    Returns:
        0 where both masks are empty, NaN where one of them is.
    """
    if not truth_HW.any() or not found_HW.any():
        return math.nan if truth_HW.any() or found_HW.any() else 0.0
    x, y, w, h = cv2.boundingRect((truth_HW | found_HW).astype(np.uint8))  # the same distances for far less work
    padded = [np.pad(mask[y : y + h, x : x + w].astype(np.uint8), 1) for mask in (truth_HW, found_HW)]
    borders = [mask & (1 - cv2.erode(mask, CROSS)) for mask in padded]
    truth_edge, found_edge = borders
    # DIST_MASK_PRECISE is exact; the masks of 3 and 5 pixels approximate.
    to_truth, to_found = (cv2.distanceTransform(1 - edge, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for edge in borders)
    there, back = to_found[truth_edge > 0], to_truth[found_edge > 0]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _lesions(truth_HW: Mask, found_HW: Mask) -> tuple[npt.NDArray, npt.NDArray, int]:
    """Pixels of each lesion, how many of them are covered, and the number of false positives."""
    count, lesions_HW = cv2.connectedComponents(truth_HW.astype(np.uint8), connectivity=8)
    parts, parts_HW = cv2.connectedComponents(found_HW.astype(np.uint8), connectivity=8)
    sizes = np.bincount(lesions_HW.ravel(), minlength=count)[1:]
    covered = np.bincount(lesions_HW[found_HW], minlength=count)[1:]
    touching = int(np.count_nonzero(np.unique(parts_HW[truth_HW & found_HW])))
    return sizes, covered, int(parts) - 1 - touching
