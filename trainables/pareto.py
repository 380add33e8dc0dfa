"""Several objectives at once: which points no other beats, and how much of the room between them these cover.

N points, A aims; larger is better in every column.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt


def pareto_front(gain_NA: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which points no other beats. Of equal points all stay."""
    at_least_NN = np.all(gain_NA[None, :] >= gain_NA[:, None], axis=2)
    better_NN = np.any(gain_NA[None, :] > gain_NA[:, None], axis=2)
    return np.asarray(~np.any(at_least_NN & better_NN, axis=1))


def hypervolume(gain_NA: npt.NDArray[np.float64]) -> float:
    """The share of the box between the worst and the best value of every aim that the points cover.

    A number in [0, 1] that only rises as points are added within the same box; NaN where there is no such box: fewer
    than two points, or an aim that does not vary.
    """
    if len(gain_NA) < 2 or not np.ptp(gain_NA, axis=0).all():
        return math.nan
    return covered(scaled(gain_NA))


def scaled(gain_NA: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Every aim from 0, the worst of the points, to 1, the best; 0 where it does not vary."""
    width = np.ptp(gain_NA, axis=0)
    return (gain_NA - gain_NA.min(axis=0)) / np.where(width > 0, width, 1.0)


def covered(gain_NA: npt.NDArray[np.float64]) -> float:
    """The volume between 0 and the points: slice by slice along the last aim, each slice a volume of one aim less.

    Args:
        gain_NA: not below 0.
    """
    if not len(gain_NA):
        return 0.0
    if gain_NA.shape[1] == 1:
        return float(gain_NA.max())
    levels = np.unique(np.append(0.0, gain_NA[:, -1]))
    slices = itertools.pairwise(levels)
    return sum((above - below) * covered(gain_NA[gain_NA[:, -1] >= above, :-1]) for below, above in slices)


def spread(gain_NA: npt.NDArray[np.float64], *, most: int, kinds: list[str] | None = None) -> list[int]:
    """Points of the front that stand for it: the best by the first aim, then always the one that adds most volume.

    Args:
        gain_NA: all points.
        most: how many at most.
        kinds: of each point; of a kind one is taken. None: each is of its own.

    Returns:
        Their indices, in the order in which they were taken.
    """
    if not len(gain_NA):
        return []
    kinds = kinds or [str(index) for index in range(len(gain_NA))]
    by_first = sorted(np.flatnonzero(pareto_front(gain_NA)), key=lambda index: -gain_NA[index, 0])
    share_NA, taken = scaled(gain_NA), list[int]()
    while len(taken) < most:
        free = [int(index) for index in by_first if kinds[index] not in {kinds[one] for one in taken}]
        if not free:
            break
        # The first of equals: of what adds nothing, the best by the first aim.
        taken.append(max(free, key=lambda index: covered(share_NA[[*taken, index]])) if taken else free[0])
    return taken
