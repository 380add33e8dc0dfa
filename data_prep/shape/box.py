"""Rectangles in pixels of a film."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ASPECT_TOLERANCE = 0.01
"""A mask whose aspect ratio differs from the film's by no more than this is a rescaled one; beyond it, a wrong one."""
SMALLEST_CROP_PX = 64
"""A crop around a lesion is at least this wide, in pixels of the film."""


class Box(NamedTuple):
    """A rectangle in pixels of the film: rows `top` to `bottom - 1`, columns `left` to `right - 1`."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def rows(self) -> int:
        """Height in pixels."""
        return self.bottom - self.top

    @property
    def columns(self) -> int:
        """Width in pixels."""
        return self.right - self.left

    def covers(self, other: Box) -> bool:
        """Whether `other` lies inside this box."""
        return (
            self.top <= other.top
            and self.left <= other.left
            and self.bottom >= other.bottom
            and self.right >= other.right
        )


def bounding_box(mask_HW: np.ndarray) -> Box:
    """The box of all that is above 0, of unsigned pixels; of no rows and columns where nothing is."""
    rows = np.flatnonzero(mask_HW.any(axis=1))
    if not len(rows):
        return Box(0, 0, 0, 0)
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask_HW[top:bottom].any(axis=0))
    return Box(top, int(columns[0]), bottom, int(columns[-1]) + 1)


def same_aspect(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two sizes (rows, columns) differ by scale alone, within `ASPECT_TOLERANCE`."""
    return abs((shape[0] / shape[1]) / (other[0] / other[1]) - 1) <= ASPECT_TOLERANCE


def lesion_box(lesion: Box, *, rows: int, columns: int, margin: float) -> Box:
    """A square around a lesion, moved into the film where it would leave it.

    Args:
        lesion: the lesion's own box.
        rows: height of the film in pixels.
        columns: width of the film in pixels.
        margin: margin on each side, as a share of the box's longer side.
    """
    side = max(round(max(lesion.rows, lesion.columns) * (1 + 2 * margin)), SMALLEST_CROP_PX)
    height, width = min(side, rows), min(side, columns)
    top = min(max((lesion.top + lesion.bottom - height) // 2, 0), rows - height)
    left = min(max((lesion.left + lesion.right - width) // 2, 0), columns - width)
    return Box(top, left, top + height, left + width)


def whole_multiple(box: Box, *, rows: int, columns: int, longest_px: int) -> Box:
    """A box whose sides can be shrunk by a whole factor to about `longest_px`: it grows by a few pixels, or shrinks.

    Args:
        box: to be fitted; one not twice as long as `longest_px` is returned as it is.
        rows: height of the film in pixels, which the box does not leave.
        columns: width of the film in pixels.
        longest_px: wanted length of the longer side.
    """
    factor = max(box.rows, box.columns) // longest_px
    if factor < 2:
        return box
    top, bottom = _multiple(box.top, box.bottom, rows, factor)
    left, right = _multiple(box.left, box.right, columns, factor)
    return Box(top, left, bottom, right)


def _multiple(begin: int, end: int, length: int, factor: int) -> tuple[int, int]:
    wanted = -(-(end - begin) // factor) * factor
    if wanted > length:
        wanted -= factor
    begin = min(begin, length - wanted)
    return begin, begin + wanted
