"""What a person should know of a data set though it was built: on its card, in what `build` prints, in the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.schema import SPLITS

LARGEST_DISTANCE = 0.2
"""Two splits' lesion sizes may differ by this Kolmogorov-Smirnov distance whatever the number of lesions."""
CHANCE = 1.36
"""c(0.05) of the two-sample Kolmogorov-Smirnov test: beyond c sqrt((n + m) / (n m)) is more than chance."""


def empty_splits(planned: Mapping[str, int], samples: Mapping[str, int]) -> list[str]:
    """The splits that were to hold samples, or that training needs, and hold none."""
    return [split for split in SPLITS if not samples[split] and (planned.get(split, 0) or split != "test")]


def size_remarks(diameters_px: Mapping[str, Sequence[float]]) -> list[str]:
    """Which splits' lesions differ in size from those of train by more than chance.

    Args:
        diameters_px: split -> diameters of its lesions.

    Returns:
        A sentence for each.
    """
    train = diameters_px.get("train", ())
    found = []
    for split in SPLITS[1:]:
        other = diameters_px.get(split, ())
        if not train or not other:
            continue
        distance = ks_distance(train, other)
        if distance > max(LARGEST_DISTANCE, CHANCE * math.sqrt(1 / len(train) + 1 / len(other))):
            medians = f"median {np.median(other):.1f} px against {np.median(train):.1f} px"
            found.append(
                f"lesions of {split} are of other sizes than those of train ({medians}): measures of the two cannot "
                "be compared; another --split-seed may help"
            )
    return found


def incomplete_remark(kept: int, left_out: int) -> list[str]:
    """A word on films that have lost lesions."""
    if not kept + left_out:
        return []
    counts = f"{kept} kept and marked (column repairs), {left_out} left out"
    return [f"{kept + left_out} films lack lesions whose masks are missing or broken: {counts}; see `incomplete`"]


def ks_distance(first: Sequence[float], second: Sequence[float]) -> float:
    """The two-sample Kolmogorov-Smirnov distance: how far two distribution functions are apart at most, 0 to 1."""
    a, b = np.sort(np.asarray(first, float)), np.sort(np.asarray(second, float))
    at = np.concatenate([a, b])
    return float(np.abs(np.searchsorted(a, at, "right") / len(a) - np.searchsorted(b, at, "right") / len(b)).max())
