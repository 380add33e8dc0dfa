"""The lesions of a film by their masks: read, checked against the film, brought to its size.

A mask that cannot be right costs its lesion and is named: black, inverted, larger than half of the breast, of another
aspect than the film.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data_prep.read.masks import Mask, read_mask
from data_prep.schema import Lesion, ReadError, Rejected, Repaired, Sample
from data_prep.shape.box import Box, same_aspect
from data_prep.shape.breast import Breast

LARGEST_SHARE = 0.5
"""A mask that marks more than this share of the breast is none of a lesion."""


@dataclass(frozen=True)
class Mark:
    """A lesion and its mask."""

    lesion: Lesion
    mask: Mask

    def share_outside(self, box: Box) -> float:
        """The share of the lesion's pixels that lie outside `box`."""
        own = self.mask.box
        if box.covers(own):
            return 0.0
        top, left = max(box.top - own.top, 0), max(box.left - own.left, 0)
        bottom, right = max(box.bottom - own.top, 0), max(box.right - own.left, 0)
        inside = np.count_nonzero(self.mask.patch_hw[top:bottom, left:right])
        return 1 - inside / np.count_nonzero(self.mask.patch_hw)


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What became of a film's masks."""

    marks: list[Mark]
    rejected: list[Rejected]
    repaired: list[Repaired]
    all_black: bool
    """Whether there were masks, and none of them marks anything."""


def read_marks(sample: Sample, breast: Breast, fetched: Mapping[str, bytes], *, is_whole_breast: bool) -> Marks:
    """Read the masks of a sample's lesions.

    Args:
        sample: whose lesions' masks are read.
        breast: on its film.
        fetched: path -> content of files that need not be read again.
        is_whole_breast: whether films show a whole breast, of which a lesion is a part; else they may be crops, and a
            mask may fill them.

    Raises:
        OSError: the disk or the network does not answer.
    """
    marks, rejected, repaired = [], [], []
    for lesion in sample.lesions:
        try:
            mask, repair = _fitted(read_mask(fetched.get(lesion.mask, lesion.mask)), breast.film_shape)
            _refuse_improbable(mask, breast, is_whole_breast=is_whole_breast)
            marks.append(Mark(lesion, mask))
        except ReadError as error:
            rejected.append(Rejected(path=lesion.mask, sample_id=sample.sample_id, reason=str(error)))
            continue
        if repair and not any(text.startswith(repair) for text in sample.repairs):  # the header had the wrong size
            repaired.append(Repaired(path=lesion.mask, sample_id=sample.sample_id, repair=repair))
    black = bool(rejected) and all(item.reason.startswith("mask_black") for item in rejected)
    return Marks(marks=marks, rejected=rejected, repaired=repaired, all_black=black and not marks)


def _fitted(mask: Mask, shape: tuple[int, int]) -> tuple[Mask, str]:
    """The mask at the film's size, and what was put right."""
    if mask.shape == shape:
        return mask, ""
    sizes = f"mask {mask.shape[0]} x {mask.shape[1]}, image {shape[0]} x {shape[1]}"
    if not same_aspect(mask.shape, shape):
        raise ReadError("mask_other_aspect", sizes)
    return mask.resized(shape), f"mask_rescaled: {sizes}"


def _refuse_improbable(mask: Mask, breast: Breast, *, is_whole_breast: bool) -> None:
    """Refuse what marks air, or most of the breast. Raises ReadError."""
    if _frame_share(mask) > LARGEST_SHARE:
        raise ReadError("mask_inverted", f"it marks {_frame_share(mask):.0%} of the film's edge")
    share = mask.area_px / breast.area_px
    if is_whole_breast and share > LARGEST_SHARE:
        raise ReadError("mask_too_large", f"it marks as much as {share:.0%} of the breast")


def _frame_share(mask: Mask) -> float:
    """The share of the film's outermost pixels that are marked."""
    rows, columns = mask.shape
    box, patch_hw = mask.box, mask.patch_hw
    marked = sum(
        int(np.count_nonzero(line))
        for line, touches in (
            (patch_hw[0], box.top == 0),
            (patch_hw[-1], box.bottom == rows),
            (patch_hw[:, 0], box.left == 0),
            (patch_hw[:, -1], box.right == columns),
        )
        if touches
    )
    return marked / (2 * (rows + columns))
