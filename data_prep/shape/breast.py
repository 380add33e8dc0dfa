"""The breast on a film: where it lies, how large it is, on which side the chest wall is.

The largest blob of tissue on a copy of 256 pixels, as in the published CBIS-DDSM pipelines (K. Wong, "Can you find the
breast tumours?"; K. Pintaric's SegFormer): brighter than a low level, gaps closed, holes filled, then opened, which
removes letters and strips and cuts them from the breast where they touch it. No copy of the film is made.

Shapes in names: `H`, `W` rows and columns of the film, `h`, `w` of the reduced copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np

from data_prep.shape.box import Box

SEARCH_PX = 256
"""Longer side of the copy on which the breast is searched."""
TISSUE_LEVEL = 0.03
"""Tissue is brighter than the background by this share of the brightness range. Higher levels lose the skin line and
the dark fat of processed digital images, lower ones take in the glow along the edges of films."""
BORDER_PX = 15
"""Strips, letters and film edges that are narrower than this (6 % of SEARCH_PX) are no breast."""
MARGIN = 0.01
"""Added around the breast, as a share of the film's longer side."""
SMALLEST_BREAST = 0.01
"""Share of the film that a breast covers at least."""


@dataclass(frozen=True, kw_only=True)
class Breast:
    """A breast as it is seen on a reduced copy of the film."""

    tissue_hw: np.ndarray
    """uint8 of 0 and 1: the breast on the copy."""
    film_shape: tuple[int, int]
    """Rows and columns of the film."""

    @cached_property
    def box(self) -> Box:
        """The breast with a margin, in pixels of the film, free of labels, strips and film edges."""
        rows, columns = self.film_shape
        left, top, width, height = cv2.boundingRect(self.tissue_hw)
        down, across = rows / self.tissue_hw.shape[0], columns / self.tissue_hw.shape[1]
        margin = MARGIN * max(rows, columns)
        return Box(
            max(0, int(top * down - margin)),
            max(0, int(left * across - margin)),
            min(rows, int(np.ceil((top + height) * down + margin))),
            min(columns, int(np.ceil((left + width) * across + margin))),
        )

    @property
    def area_px(self) -> float:
        """About how many pixels of the film it covers."""
        return float(self.tissue_hw.mean()) * self.film_shape[0] * self.film_shape[1]

    @property
    def chest_wall(self) -> Literal["left", "right"]:
        """Where the chest wall is, decided from the pixels.

        The header cannot be trusted: P_00444_LEFT_CC of CBIS-DDSM, for one, is mirrored. The breast ends at the chest
        wall in a straight line and elsewhere in a curve: the side on which more rows reach the blob's end is the chest
        wall.
        """
        left, top, width, height = cv2.boundingRect(self.tissue_hw)
        part = self.tissue_hw[top : top + height, left : left + width]
        strip = max(1, round(0.04 * width))
        reaching_left, reaching_right = (int(side.any(axis=1).sum()) for side in (part[:, :strip], part[:, -strip:]))
        return "left" if reaching_left >= reaching_right else "right"

    def grey_values(self, image_HW: np.ndarray) -> np.ndarray:
        """Grey values of the breast's pixels, sampled about as densely as the copy is."""
        step = max(1, max(image_HW.shape) // (2 * SEARCH_PX))
        some = image_HW[::step, ::step]
        size = (some.shape[1], some.shape[0])
        return some[cv2.resize(self.tissue_hw, size, interpolation=cv2.INTER_NEAREST_EXACT) > 0]


def find_breast(image_HW: np.ndarray) -> Breast | None:
    """The breast on a film of bright tissue on dark ground; None where there is none."""
    small = _reduced(image_HW).astype(np.float32)
    dark, bright = np.percentile(small, [1, 99])
    tissue = (small > dark + TISSUE_LEVEL * (bright - dark)).astype(np.uint8)
    edge = BORDER_PX + 1  # air on all sides: a strip along the film's edge is as thin as it looks
    tissue = cv2.copyMakeBorder(tissue, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=0)
    tissue = _filled(cv2.morphologyEx(tissue, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)))
    opener = np.ones((BORDER_PX, BORDER_PX), np.uint8)
    core = _largest_blob(cv2.morphologyEx(tissue, cv2.MORPH_OPEN, opener))
    breast_hw = _largest_blob(cv2.dilate(core, opener) & tissue)[edge:-edge, edge:-edge]
    if breast_hw.mean() < SMALLEST_BREAST:
        return None
    return Breast(tissue_hw=breast_hw, film_shape=(image_HW.shape[0], image_HW.shape[1]))


def _reduced(image_HW: np.ndarray) -> np.ndarray:
    step = max(1, max(image_HW.shape) // (2 * SEARCH_PX))
    some = np.ascontiguousarray(image_HW[::step, ::step])
    scale = SEARCH_PX / max(some.shape)
    size = (max(1, round(some.shape[1] * scale)), max(1, round(some.shape[0] * scale)))
    return cv2.resize(some, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _filled(tissue: np.ndarray) -> np.ndarray:
    """Holes filled: everything that the air at the corner does not reach."""
    _, labels = cv2.connectedComponents(1 - tissue, connectivity=4)
    return (labels != labels[0, 0]).astype(np.uint8)


def _largest_blob(tissue: np.ndarray) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(tissue, connectivity=4)
    if count < 2:
        return np.zeros_like(tissue)
    return (labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])).astype(np.uint8)
