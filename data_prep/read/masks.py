"""One mask file -> the lesion in it: its box on the film, and the pixels inside that box.

A film-sized mask is nearly all background. Only the lesion's box is looked at and kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.read.dicom import read_film
from data_prep.read.files import FilePath
from data_prep.schema import ReadError
from data_prep.shape.box import Box, bounding_box

MOST_LABELS = 8
"""A lossless label map has at most so many values beside 0; a mask with more is grey."""
LARGEST_SURE_LABEL = 32
"""A mask that gets no brighter than this is a label map: a grey mask would be invisible."""
BACKGROUND_SHARE = 1 / 16
"""What is darker than this share of the brightest value is background that a JPEG has stirred."""


@dataclass(frozen=True, kw_only=True)
class Mask:
    """A lesion's mask."""

    shape: tuple[int, int]
    """(rows, columns) of the file."""
    box: Box
    """Where the lesion lies."""
    patch_hw: np.ndarray
    """uint8 of 0 and 1: the pixels in `box`."""

    @property
    def area_px(self) -> int:
        """Pixels that are marked."""
        return int(np.count_nonzero(self.patch_hw))

    def full(self) -> np.ndarray:
        """The mask as (H, W) uint8 of 0 and 1."""
        mask_HW = np.zeros(self.shape, np.uint8)
        mask_HW[self.box.top : self.box.bottom, self.box.left : self.box.right] = self.patch_hw
        return mask_HW

    def resized(self, shape: tuple[int, int]) -> Mask:
        """The mask at another size, by the nearest pixel."""
        size = (shape[1], shape[0])
        return mask_of(cv2.resize(self.full(), size, interpolation=cv2.INTER_NEAREST_EXACT))


def mask_of(marked_HW: np.ndarray) -> Mask:
    """The mask of a film-sized array, above 0 where the lesion is. Raises ReadError `mask_black` if nothing is."""
    box = bounding_box(marked_HW)
    if box.rows == 0:
        raise ReadError("mask_black", "no pixel is marked")
    patch_hw = marked_HW[box.top : box.bottom, box.left : box.right] > 0
    return Mask(shape=marked_HW.shape[:2], box=box, patch_hw=patch_hw.astype(np.uint8))


def read_mask(path: FilePath) -> Mask:
    """Read a mask of any format that `read_film` reads. A window in its header does not count.

    - Of two values (0 and 255, 0 and 1) the upper one is the lesion.
    - A label map (no value above 32; or at most eight values beside 0, two or more of which fill areas) marks a lesion
      wherever it is not background, whatever the label: 0, 1, 2 and 0, 100, 200 alike.
    - Any other mask is grey (resized, JPEG) and is cut at half of its range: above 127, or above 32767 where 16 bits
      are used, that is where the brightest pixel is above a sum of seven 8-bit masks.

    Raises:
        ReadError: as `read_film`; `mask_black` if no pixel is marked.
        OSError: the disk or the network does not answer.
    """
    image_HW = read_film(path, "none").image_HW
    box = bounding_box(image_HW)
    lesion_hw = image_HW[box.top : box.bottom, box.left : box.right]  # all else is 0, and that is most of a film
    if not lesion_hw.size:
        raise ReadError("mask_black", "no pixel is marked")
    cut = _cut(lesion_hw, filled=lesion_hw.shape == image_HW.shape)
    marked_hw = lesion_hw > cut
    inner = bounding_box(marked_hw.view(np.uint8))
    if inner.rows == 0:
        raise ReadError("mask_black", f"no pixel above {cut}, the brightest is {int(lesion_hw.max())}")
    return Mask(
        shape=(image_HW.shape[0], image_HW.shape[1]),
        box=Box(box.top + inner.top, box.left + inner.left, box.top + inner.bottom, box.left + inner.right),
        patch_hw=marked_hw[inner.top : inner.bottom, inner.left : inner.right].astype(np.uint8),
    )


def _cut(lesion_hw: np.ndarray, *, filled: bool) -> int:
    """The value above which a pixel is lesion. `filled`: the box is the whole file, so nothing is known to be 0."""
    top, bottom = int(lesion_hw.max()), int(lesion_hw.min()) if filled else 0
    if bool(((lesion_hw == top) | (lesion_hw == bottom)).all()):
        return (top + bottom) // 2
    if top <= LARGEST_SURE_LABEL:
        return 0
    labels = _labels(lesion_hw, top)
    if len(labels) > 1:
        return labels[0] // 2
    return 127 if top <= 7 * 255 else 32767


def _labels(lesion_hw: np.ndarray, top: int) -> list[int]:
    """The values of a label map that fill areas, in order; empty if there are too many values for one."""
    values = [int(v) for v in np.flatnonzero(np.bincount(lesion_hw.ravel(), minlength=top + 1)) if v > 0]
    if len(values) > MOST_LABELS:
        return []
    around = np.ones((3, 3), np.uint8)
    filled = [v for v in values if v > top * BACKGROUND_SHARE]
    return [v for v in filled if cv2.erode((lesion_hw == v).view(np.uint8), around, borderValue=0).any()]
