"""`metrics.json` of a model folder: how good the network is, how sure that is, and for whom.

    measures_of(record)["test"]["intervals"]["dice"]     # [0.712, 0.781]
    measures_of(record)["test"]["groups"]["density"]     # one entry a group: images, patients, dice, low, high

Knows no torch.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from trainables.record import VAL_MEASURES, TrialRecord, best_epoch
from trainables.score.groups import GROUPS, summary
from trainables.score.tables import read_images

MEASURED = ("dice", "iou", "dice_pooled", "sensitivity", "hd95_px", "hd95_mm", "lesions_found", "false_positives")
"""Measures of the test images that a model folder tells, with their intervals (`trainables.score.groups`)."""
BY_GROUP = "dice"


def measures_of(record: TrialRecord) -> dict[str, dict[str, Any]]:
    """`val` of the best epoch, and `test` where it was measured; with `test.parquet`, intervals and groups as well.

    Raises:
        ValueError: `test.parquet` is damaged.
    """
    measures: dict[str, dict[str, Any]] = {}
    if (best := best_epoch(record.metrics())) is not None:
        found = {name.removeprefix("val_"): getattr(best, name) for name in VAL_MEASURES}
        measures["val"] = {"epoch": best.epoch, **found}
    if test := record.test():
        measures["test"] = test
        if (images := read_images(record.folder)) is not None and len(images):
            measures["test"] = {**test, **_of_images(images)}
    return measures


def _of_images(images: pd.DataFrame) -> dict[str, Any]:
    """Each measure with its interval, and the mean Dice of each group where there are at least two."""
    over_all = [row for row in summary(images, names=MEASURED).to_dict("records") if not math.isnan(row["value"])]
    groups = {name: _groups(images, name) for name in GROUPS}
    return {
        "patients": int(images.patient_id.nunique()),
        "measures": {row["measure"]: _plain(row["value"]) for row in over_all},
        "intervals": {row["measure"]: [_plain(row["low"]), _plain(row["high"])] for row in over_all if _sure(row)},
        "groups": {name: rows for name, rows in groups.items() if len(rows) > 1},
    }


def _groups(images: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    table = summary(images, by=GROUPS[name](images), names=(BY_GROUP,))
    return [
        {
            "group": row["group"],
            "images": row["images"],
            "patients": row["patients"],
            BY_GROUP: _plain(row["value"]),
            "low": _plain(row["low"]),
            "high": _plain(row["high"]),
        }
        for row in table.to_dict("records")
    ]


def _sure(row: dict[Any, Any]) -> bool:
    return not math.isnan(row["low"])


def _plain(value: float) -> float | None:
    """A figure as JSON has it: 6 digits, and nothing in the place of NaN."""
    return None if math.isnan(value) else round(float(value), 6)
