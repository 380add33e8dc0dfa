"""Where the breast lies on a film, and the way from the film to a square sample and back.

    geometry = find_geometry(image_HW, size_px=224)      # None: no breast on this film
    image_SS = geometry.apply_image(image_HW)
    mask_SS = geometry.apply_mask(mask_HW)
    mask_HW = geometry.undo(predicted_SS)                # in the film's own pixels

The steps, in order: cut out a box, mirror it so that the chest wall is on the left, shrink it with one factor for both
axes, pad it on the right and at the bottom to a square. The aspect ratio is kept: a lesion's shape is a sign of
malignancy, and stretching would change it.

Shapes in names: `H`, `W` rows and columns of the film, `h`, `w` of a part of it, `S` side of the sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from data_prep.shape.box import Box, bounding_box, whole_multiple
from data_prep.shape.breast import Breast, find_breast

WORKING_PX = 1024
"""Longer side of the copy on which films are normalised (the sample's side, where that is larger)."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a film became a sample: everything that is needed to go back."""

    rows: int
    columns: int
    """Size of the film in pixels."""
    box: Box
    """The part of the film that the sample shows."""
    flipped: bool
    """Whether the part was mirrored left to right."""
    size_px: int
    """Side S of the square sample."""

    def __post_init__(self) -> None:
        if self.box.rows < 1 or self.box.columns < 1 or not Box(0, 0, self.rows, self.columns).covers(self.box):
            raise ValueError(
                f"box {tuple(self.box)} is empty or leaves the film of {self.rows} x {self.columns} pixels"
            )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Geometry:
        """The geometry of a shard's row (columns `film_rows`, `film_columns`, `box`, `flipped`, `size_px`)."""
        return cls(
            rows=int(row["film_rows"]),
            columns=int(row["film_columns"]),
            box=Box(*(int(edge) for edge in row["box"])),
            flipped=bool(row["flipped"]),
            size_px=int(row["size_px"]),
        )

    @property
    def scale(self) -> float:
        """Pixels of the sample for one pixel of the film."""
        return self.size_px / max(self.box.rows, self.box.columns)

    @property
    def inner(self) -> tuple[int, int]:
        """Rows and columns of the sample that show the film; the rest is padding."""
        return self._shape(self.size_px)

    def cut(self, image_HW: np.ndarray, longer_px: int) -> np.ndarray:
        """The box, mirrored if need be, its longer side shrunk to `longer_px` (never enlarged).

        Args:
            image_HW: the film, of any dtype that OpenCV resizes.
            longer_px: wanted length of the longer side.

        Returns:
            An array of shape (h, w) and the film's dtype.
        """
        part = self._part(image_HW)
        if longer_px < max(part.shape):
            rows, columns = self._shape(longer_px)
            part = cv2.resize(_roughly(part, longer_px), (columns, rows), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(part[:, ::-1] if self.flipped else part)

    def square(self, image_hw: np.ndarray, fill: float) -> np.ndarray:
        """What `cut` returned, brought to the sample's size and padded with `fill` to (S, S)."""
        rows, columns = self.inner
        if image_hw.shape != (rows, columns):
            way = cv2.INTER_AREA if max(image_hw.shape) > self.size_px else cv2.INTER_LINEAR
            image_hw = cv2.resize(image_hw, (columns, rows), interpolation=way)
        square_SS = np.full((self.size_px, self.size_px), fill, image_hw.dtype)
        square_SS[:rows, :columns] = image_hw
        return square_SS

    def apply_image(self, image_HW: np.ndarray) -> np.ndarray:
        """The sample's image (S, S) in the film's dtype, padded with the darkest value inside the box."""
        small = self.cut(image_HW, self.size_px)
        return self.square(small, small.min())

    def coverage(self, patch_hw: np.ndarray, at: Box) -> np.ndarray:
        """The share of each sample pixel that a lesion covers, exactly.

        Args:
            patch_hw: the lesion's mask inside its own box `at`; above 0 where the lesion is.
            at: where on the film the patch lies.

        Returns:
            (S, S) float32 in 0 to 1. Its sum is the area in sample pixels of the lesion's part inside `box`.
        """
        rows, columns = self.inner
        first_row, by_rows = _area_shares(patch_hw > 0, at.top - self.box.top, self.box.rows, rows)
        first_column, shares = _area_shares(by_rows.T, at.left - self.box.left, self.box.columns, columns)
        inner = np.zeros((rows, columns), np.float32)
        inner[first_row : first_row + shares.shape[1], first_column : first_column + shares.shape[0]] = shares.T
        return self.square(np.ascontiguousarray(inner[:, ::-1]) if self.flipped else inner, 0)

    def apply_mask(self, mask_HW: np.ndarray) -> np.ndarray:
        """One lesion's mask as (S, S) uint8 of 0 and 1, its area kept (`keep_area`).

        Args:
            mask_HW: of the film's size; above 0 where the lesion is.
        """
        if mask_HW.shape != (self.rows, self.columns):
            raise ValueError(f"a mask of shape {mask_HW.shape} is not of the film of {self.rows} x {self.columns}")
        at = bounding_box(mask_HW)
        return keep_area(self.coverage(mask_HW[at.top : at.bottom, at.left : at.right], at))

    def undo(self, mask_SS: np.ndarray) -> np.ndarray:
        """Put a sample's mask back into the film.

        Args:
            mask_SS: (S, S); booleans or integers are a mask of 0 and not 0, floats a map of probabilities.

        Returns:
            (H, W): uint8 of 0 and 1 for a mask, float32 for a map; 0 outside the box.

        Raises:
            ValueError: `mask_SS` is not of shape (S, S).
        """
        if mask_SS.shape != (self.size_px, self.size_px):
            raise ValueError(f"a mask of shape {mask_SS.shape} does not fit samples of {self.size_px} x {self.size_px}")
        is_map = np.issubdtype(mask_SS.dtype, np.floating)
        rows, columns = self.inner
        small = (mask_SS if is_map else mask_SS != 0)[:rows, :columns].astype(np.float32)
        small = np.ascontiguousarray(small[:, ::-1]) if self.flipped else small
        large = cv2.resize(small, (self.box.columns, self.box.rows), interpolation=cv2.INTER_LINEAR)
        film_HW = np.zeros((self.rows, self.columns), np.float32 if is_map else np.uint8)
        self._part(film_HW)[:] = large if is_map else large >= 0.5
        return film_HW

    def _part(self, image_HW: np.ndarray) -> np.ndarray:
        if image_HW.shape != (self.rows, self.columns):
            raise ValueError(f"an image of shape {image_HW.shape} is not the film of {self.rows} x {self.columns}")
        return image_HW[self.box.top : self.box.bottom, self.box.left : self.box.right]

    def _shape(self, longer_px: int) -> tuple[int, int]:
        scale = longer_px / max(self.box.rows, self.box.columns)
        return max(1, round(self.box.rows * scale)), max(1, round(self.box.columns * scale))


def _roughly(part: np.ndarray, longer_px: int) -> np.ndarray:
    """The part shrunk by the whole factor that leaves at least `longer_px`, where its sides are multiples of that.

    Means over whole cells are exact and cheap; the rest of the way is then short. In one step OpenCV is 2.5 times as
    slow on films of 16 bits.
    """
    factor = max(part.shape) // longer_px
    if factor < 2 or part.shape[0] % factor or part.shape[1] % factor:
        return part
    size = (part.shape[1] // factor, part.shape[0] // factor)
    return cv2.resize(part, size, interpolation=cv2.INTER_AREA)


def find_geometry(
    image_HW: np.ndarray, *, size_px: int, crop_to_breast: bool = True, orient: bool = True
) -> Geometry | None:
    """The geometry of a whole view; None where no breast is found.

    Args:
        image_HW: the film, bright tissue on dark ground.
        size_px: side of the sample.
        crop_to_breast: show the breast's box; otherwise the whole film.
        orient: mirror so that the chest wall is on the left.
    """
    breast = find_breast(image_HW)
    if breast is None:
        return None
    return geometry_of(breast, size_px=size_px, crop_to_breast=crop_to_breast, orient=orient)


def geometry_of(breast: Breast, *, size_px: int, crop_to_breast: bool = True, orient: bool = True) -> Geometry:
    """The geometry of a whole view by its breast; the settings are those of `find_geometry`."""
    rows, columns = breast.film_shape
    box = breast.box if crop_to_breast else Box(0, 0, rows, columns)
    return Geometry(
        rows=rows,
        columns=columns,
        box=whole_multiple(box, rows=rows, columns=columns, longest_px=max(WORKING_PX, size_px)),
        flipped=orient and breast.chest_wall == "right",
        size_px=size_px,
    )


def keep_area(coverage_SS: np.ndarray) -> np.ndarray:
    """The mask of one lesion, of the area the lesion has.

    A pixel is lesion where at least half of it is covered. That alone would lose what is thin or small, so where the
    area comes out more than 5 % wrong, the threshold is the coverage that brings the number of pixels nearest to the
    true area, and never to zero.

    Args:
        coverage_SS: float32 in 0 to 1 (`Geometry.coverage`).

    Returns:
        (S, S) uint8 of 0 and 1; all 0 only where nothing is covered.
    """
    true_area = float(coverage_SS.sum(dtype=np.float64))
    mask_SS = (coverage_SS >= 0.5).astype(np.uint8)
    if abs(int(mask_SS.sum()) - true_area) <= 0.05 * true_area:
        return mask_SS
    levels, counts = np.unique(coverage_SS[coverage_SS > 0], return_counts=True)
    areas = np.cumsum(counts[::-1])[::-1]
    level = levels[np.argmin(np.abs(areas - true_area))]
    return (coverage_SS >= level).astype(np.uint8)


def _area_shares(patch: np.ndarray, offset: int, length: int, cells: int) -> tuple[int, np.ndarray]:
    """Shrink the first axis of a patch by areas: the mean of the patch over each cell that it touches.

    The axis is one of `length` pixels cut into `cells` equal cells; the patch begins at pixel `offset`, perhaps
    outside. Sums over cells with fractional edges are differences of the running sum, interpolated at the edges.

    Returns:
        The first cell touched, and an array of shape (cells touched, ...).
    """
    pixels = length / cells
    first = min(max(int(offset / pixels), 0), cells)
    last = min(max(int(np.ceil((offset + len(patch)) / pixels)), first), cells)
    running = np.zeros((len(patch) + 1, *patch.shape[1:]))
    np.cumsum(patch, axis=0, dtype=np.float64, out=running[1:])
    edges = np.clip(np.arange(first, last + 1) * pixels - offset, 0, len(patch))
    below = np.minimum(edges.astype(int), len(patch) - 1)
    share = (edges - below)[:, None]
    sums = np.diff(running[below] * (1 - share) + running[below + 1] * share, axis=0)
    return first, np.round(sums / pixels, 6)  # differences of sums leave dust where there is nothing
