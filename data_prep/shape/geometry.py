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
from typing import Any, NamedTuple

import cv2
import numpy as np

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
        """The geometry of a shard's row (columns `rows`, `columns`, `box`, `flipped`, `shape`)."""
        return cls(
            rows=int(row["rows"]),
            columns=int(row["columns"]),
            box=Box(*(int(edge) for edge in row["box"])),
            flipped=bool(row["flipped"]),
            size_px=int(row["shape"][0]),
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
            part = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
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


def bounding_box(mask_HW: np.ndarray) -> Box:
    """The box of all that is above 0, of unsigned pixels; of no rows and columns where nothing is."""
    left, top, width, height = cv2.boundingRect(mask_HW if mask_HW.dtype == np.uint8 else (mask_HW > 0).view(np.uint8))
    return Box(top, left, top + height, left + width)


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
    breast = _find_breast(image_HW)
    if breast is None:
        return None
    rows, columns = image_HW.shape
    return Geometry(
        rows=rows,
        columns=columns,
        box=_box_on_film(breast, rows, columns) if crop_to_breast else Box(0, 0, rows, columns),
        flipped=orient and _chest_wall_side(breast) == "right",
        size_px=size_px,
    )


def find_breast_box(image_HW: np.ndarray) -> Box | None:
    """The breast's box on a film, free of labels, strips and film edges; None where there is no breast.

    The largest blob of tissue on a copy of 256 pixels, as in the published CBIS-DDSM pipelines (K. Wong, "Can you find
    the breast tumours?"; K. Pintaric's SegFormer): brighter than a low level, gaps closed, holes filled, then opened,
    which removes letters and strips and cuts them from the breast where they touch it. No copy of the film is made.
    """
    breast = _find_breast(image_HW)
    return None if breast is None else _box_on_film(breast, *image_HW.shape)


def chest_wall_side(image_HW: np.ndarray) -> str:
    """`left` or `right`: where the chest wall is, decided from the pixels.

    The header cannot be trusted: P_00444_LEFT_CC of CBIS-DDSM, for one, is mirrored. The breast ends at the chest wall
    in a straight line and elsewhere in a curve, so the side on which more rows reach the blob's end is the chest wall.
    `left` where there is no breast.
    """
    breast = _find_breast(image_HW)
    return "left" if breast is None else _chest_wall_side(breast)


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


def _find_breast(image_HW: np.ndarray) -> np.ndarray | None:
    """The breast on the reduced copy: (h, w) uint8 of 0 and 1, or None."""
    small = _reduced(image_HW).astype(np.float32)
    dark, bright = np.percentile(small, [1, 99])
    tissue = (small > dark + TISSUE_LEVEL * (bright - dark)).astype(np.uint8)
    edge = BORDER_PX + 1  # air on all sides: a strip along the film's edge is as thin as it looks
    tissue = cv2.copyMakeBorder(tissue, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=0)
    tissue = _filled(cv2.morphologyEx(tissue, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)))
    opener = np.ones((BORDER_PX, BORDER_PX), np.uint8)
    core = _largest_blob(cv2.morphologyEx(tissue, cv2.MORPH_OPEN, opener))
    breast = _largest_blob(cv2.dilate(core, opener) & tissue)[edge:-edge, edge:-edge]
    return breast if breast.mean() >= SMALLEST_BREAST else None


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


def _box_on_film(breast: np.ndarray, rows: int, columns: int) -> Box:
    left, top, width, height = cv2.boundingRect(breast)
    down, across = rows / breast.shape[0], columns / breast.shape[1]
    margin = MARGIN * max(rows, columns)
    return Box(
        max(0, int(top * down - margin)),
        max(0, int(left * across - margin)),
        min(rows, int(np.ceil((top + height) * down + margin))),
        min(columns, int(np.ceil((left + width) * across + margin))),
    )


def _chest_wall_side(breast: np.ndarray) -> str:
    left, top, width, height = cv2.boundingRect(breast)
    part = breast[top : top + height, left : left + width]
    strip = max(1, round(0.04 * width))
    reaching_left, reaching_right = (int(side.any(axis=1).sum()) for side in (part[:, :strip], part[:, -strip:]))
    return "left" if reaching_left >= reaching_right else "right"
