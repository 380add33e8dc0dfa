"""The lesions of a mask: connected regions, each with its box, area, diameter, probability and contour.

Shapes in names: `H`, `W` rows and columns of the film; `K` points of a contour, each (column, row).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.shape.box import Box, bounding_box


@dataclass(frozen=True, kw_only=True)
class Region:
    """One connected region of a mask."""

    number: int
    """From 1, the largest first."""
    box: Box
    """In pixels of the film."""
    mask_hw: np.ndarray
    """Inside the box: uint8 of 0 and 1."""
    area_px: int
    diameter_px: float
    """The longest distance across, from pixel edge to pixel edge."""
    area_mm2: float | None
    """None where the film's spacing is not known."""
    diameter_mm: float | None
    mean_probability: float
    max_probability: float

    def contours(self) -> list[np.ndarray]:
        """Outlines in the film's pixels, int32 (K, 2) of (column, row); the outer ones and those of holes."""
        outlines, _ = cv2.findContours(self.mask_hw, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        return [outline[:, 0, :] + np.array([self.box.left, self.box.top], np.int32) for outline in outlines]

    def outline(self) -> np.ndarray:
        """The longest of the contours."""
        return max(self.contours(), key=len)


def find_regions(
    mask_HW: np.ndarray, probability_HW: np.ndarray, spacing_mm: tuple[float, float] | None = None
) -> list[Region]:
    """The regions of a mask that hang together (by sides or corners), the largest first.

    Args:
        mask_HW: uint8 of 0 and 1.
        probability_HW: float32, of the same shape.
        spacing_mm: of the film's rows and columns; None where it is not known.
    """
    whole = bounding_box(mask_HW)
    if whole.rows == 0:
        return []
    inside = np.s_[whole.top : whole.bottom, whole.left : whole.right]
    part_hw, part_probability_hw = np.ascontiguousarray(mask_HW[inside]), probability_HW[inside]
    count, labels_hw, statistics, _ = cv2.connectedComponentsWithStats(part_hw, connectivity=8)
    order = 1 + np.argsort(-statistics[1:, cv2.CC_STAT_AREA], kind="stable")
    regions = []
    for number, label in enumerate(order, start=1):
        left, top, width, height, area_px = (int(value) for value in statistics[label])
        here = np.s_[top : top + height, left : left + width]
        mask_hw = (labels_hw[here] == label).astype(np.uint8)
        probabilities = part_probability_hw[here][mask_hw > 0]
        regions.append(
            Region(
                number=number,
                box=Box(whole.top + top, whole.left + left, whole.top + top + height, whole.left + left + width),
                mask_hw=mask_hw,
                area_px=area_px,
                diameter_px=_diameter(mask_hw, (1.0, 1.0)),
                area_mm2=area_px * spacing_mm[0] * spacing_mm[1] if spacing_mm else None,
                diameter_mm=_diameter(mask_hw, spacing_mm) if spacing_mm else None,
                mean_probability=float(probabilities.mean(dtype=np.float64)),
                max_probability=float(probabilities.max()),
            )
        )
    assert len(regions) == count - 1
    return regions


def _diameter(mask_hw: np.ndarray, spacing: tuple[float, float]) -> float:
    """The longest distance between two corners of pixels of the region (its largest Feret diameter)."""
    outlines, _ = cv2.findContours(mask_hw, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    pixels = np.concatenate([outline[:, 0, :] for outline in outlines])
    corners = np.concatenate([pixels + np.array(corner, np.int32) for corner in ((0, 0), (0, 1), (1, 0), (1, 1))])
    hull = cv2.convexHull(corners.astype(np.int32))[:, 0, :] * np.array([spacing[1], spacing[0]])
    return float(np.sqrt(max(((hull - point) ** 2).sum(axis=1).max() for point in hull)))
