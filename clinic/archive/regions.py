"""Which parts of a film are kept: around lesions, inside the breast's box, each pixel once."""

from __future__ import annotations

from collections.abc import Sequence

from data_prep.shape.box import Box

SMALLEST_PX = 128
"""A region is at least this high and wide, where the breast's box allows it."""


def regions_to_keep(lesions: Sequence[Box], breast: Box, *, margin: float) -> list[Box]:
    """Boxes around lesions; those that overlap become one.

    A film's labels, with names and dates, lie outside of the breast's box. So no region leaves it.

    Args:
        lesions: boxes in pixels of the film, inside `breast`.
        breast: the breast's box.
        margin: on each side, as a share of the lesion's longer side.
    """
    grown = [_grown(lesion, breast, margin) for lesion in lesions]
    merged: list[Box] = []
    for box in grown:
        touching = [other for other in merged if _overlap(box, other)]
        while touching:  # the union may reach a further one
            for other in touching:
                merged.remove(other)
                box = _union(box, other)
            touching = [other for other in merged if _overlap(box, other)]
        merged.append(box)
    return sorted(merged)


def _grown(lesion: Box, breast: Box, margin: float) -> Box:
    more = round(max(lesion.rows, lesion.columns) * margin)
    down = max(more, -(-(SMALLEST_PX - lesion.rows) // 2))
    across = max(more, -(-(SMALLEST_PX - lesion.columns) // 2))
    return Box(
        max(lesion.top - down, breast.top),
        max(lesion.left - across, breast.left),
        min(lesion.bottom + down, breast.bottom),
        min(lesion.right + across, breast.right),
    )


def _overlap(one: Box, other: Box) -> bool:
    down = one.top < other.bottom and other.top < one.bottom
    return down and one.left < other.right and other.left < one.right


def _union(one: Box, other: Box) -> Box:
    return Box(
        min(one.top, other.top), min(one.left, other.left), max(one.bottom, other.bottom), max(one.right, other.right)
    )
