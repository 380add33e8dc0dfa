"""What the images of a split come to: every measure with its interval, over all images and by group.

    table = summary(read_images(folder))                       # one row a measure
    table = summary(images, by=lesion_size(images))            # one row a group and measure

Two ways to average stand side by side. `dice` and `iou` are per image, then averaged: each image counts alike, a small
lesion as much as a large one. `dice_pooled` and `iou_pooled` are of all pixels together: large lesions decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from trainables.score.interval import Interval, median_interval, ratio_interval

Part = Callable[[pd.DataFrame], pd.Series]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A measure of a split as a ratio of two sums over its images."""

    above: Part
    below: Part
    highest: float = 1.0
    column: str | None = None
    """The column that it is the mean of, over the images that have a value."""


def _mean(column: str, *, highest: float = 1.0) -> Measure:
    return Measure(
        above=lambda images: images[column].fillna(0.0),
        below=lambda images: images[column].notna().astype(float),
        highest=highest,
        column=column,
    )


MEASURES: dict[str, Measure] = {
    "dice": _mean("dice"),
    "iou": _mean("iou"),
    "dice_pooled": Measure(above=lambda i: 2 * i.both_px, below=lambda i: i.truth_px + i.found_px),
    "iou_pooled": Measure(above=lambda i: i.both_px, below=lambda i: i.truth_px + i.found_px - i.both_px),
    "sensitivity": _mean("sensitivity"),
    "hd95_px": _mean("hd95_px", highest=np.inf),
    "hd95_mm": _mean("hd95_mm", highest=np.inf),
    "lesions_found": Measure(above=lambda i: i.lesions_found, below=lambda i: i.lesions),
    "false_positives": _mean("false_positives", highest=np.inf),
}
"""By name; `lesions_found` is the share of all lesions, `false_positives` a number per image."""
MEDIANS = {"dice_median": "dice", "iou_median": "iou", "hd95_px_median": "hd95_px", "hd95_mm_median": "hd95_mm"}
"""Medians over the images, of all seeds together."""
NAMES = (*MEASURES, *MEDIANS)

SIZE_EDGES_MM = (10.0, 20.0)
"""Lesion sizes in millimetres: up to 10, to 20, above; the edges of the T1 stages of the TNM classification."""


def summary(images: pd.DataFrame, *, by: pd.Series | None = None, names: tuple[str, ...] = NAMES) -> pd.DataFrame:
    """Every measure with its interval.

    Args:
        images: rows of `read_images`; of several networks of one configuration with a column `trial_id`.
        by: the group of each row; None: all are one.
        names: the measures wanted, of `NAMES`.

    Returns:
        One row a group and measure: `group`, `images`, `patients`, `lesions` (of one network), `measure`, `value`,
        `low`, `high`, `counted` (rows that have a value, of all networks). `low` and `high` are NaN where no interval
        is given.
    """
    parts = [("all", images)] if by is None else list(images.groupby(by, sort=True, observed=True))
    rows = [row for group, part in parts for row in _rows(str(group), part, names)]
    columns = ["group", "images", "patients", "lesions", "measure", "value", "low", "high", "counted"]
    return pd.DataFrame(rows, columns=columns)


def interval_of(images: pd.DataFrame, name: str) -> Interval:
    """One measure of `NAMES` with its interval."""
    patient_N = np.unique(images.patient_id.astype(str), return_inverse=True)[1]
    if name in MEDIANS:
        return median_interval(images[MEDIANS[name]].to_numpy(float), patient_N)
    measure = MEASURES[name]
    above_PS, below_PS = (patient_sums(part(images), images) for part in (measure.above, measure.below))
    return ratio_interval(above_PS, below_PS, highest=measure.highest)


def patient_sums(values: pd.Series, images: pd.DataFrame) -> np.ndarray:
    """The sum of a value over each patient's images, (patients, networks), float64; patients in order of their ids."""
    patient_N = np.unique(images.patient_id.astype(str), return_inverse=True)[1]
    networks = images["trial_id"] if "trial_id" in images else pd.Series("", images.index)
    network_N = np.unique(networks, return_inverse=True)[1]
    sums_PS = np.zeros((patient_N.max() + 1, network_N.max() + 1))
    np.add.at(sums_PS, (patient_N, network_N), values.to_numpy(float))
    return sums_PS


def diameter(images: pd.DataFrame) -> tuple[pd.Series, str]:
    """Diameter of a circle of the largest lesion's area, and its unit: `mm` where all spacings are known, or `px`."""
    px = 2 * np.sqrt(images.lesion_px / np.pi)
    known = len(images) > 0 and images.spacing_mm.notna().all()
    return (px * images.spacing_mm, "mm") if known else (px, "px")


def lesion_size(images: pd.DataFrame) -> pd.Series:
    """The size group of each image, ordered: fixed edges in millimetres, or thirds of the images in pixels."""
    size, unit = diameter(images)
    some = size[size > 0]
    if some.empty:
        return pd.Series(pd.Categorical(["no lesion"] * len(images)), index=images.index)
    edges = SIZE_EDGES_MM if unit == "mm" else tuple(np.unique(np.round(np.quantile(some, [1 / 3, 2 / 3]), 1)))
    bounds = [-np.inf, 0.0, *edges, np.inf]
    labels = ["no lesion", f"up to {edges[0]:g} {unit}"]
    labels += [f"{low:g} to {high:g} {unit}" for low, high in pairwise(edges)]
    labels += [f"over {edges[-1]:g} {unit}"]
    return pd.cut(size, bounds, labels=labels)


GROUPS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "lesion size": lesion_size,
    "density": lambda images: _named(images.density),
    "view": lambda images: _named(images.view),
    "pathology": lambda images: _named(images.pathology),
    "kind": lambda images: _named(images.kind),
}
"""The ways to divide the images, by what a table calls them."""


def _named(values: pd.Series) -> pd.Series:
    """A column as text, what is missing or empty as `unknown`."""
    whole = values.map(lambda value: "" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value))
    return whole.replace("", "unknown")


def _rows(group: str, images: pd.DataFrame, names: tuple[str, ...]) -> list[dict[str, Any]]:
    once = images.drop_duplicates("sample_id")
    counts = {"images": len(once), "patients": once.patient_id.nunique(), "lesions": int(once.lesions.sum())}
    rows = []
    for name in names:
        found = interval_of(images, name)
        column = MEDIANS[name] if name in MEDIANS else MEASURES[name].column
        counted = int(images[column].notna().sum()) if column else len(images)
        estimate = {"value": found.value, "low": found.low, "high": found.high, "counted": counted}
        rows.append({"group": group, **counts, "measure": name, **estimate})
    return rows
