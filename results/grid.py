"""What a grid over the study's space would have cost, beside what the search did.

Every choice of the space, and `LEVELS` values of each range, each trained to the full budget: an exhaustive search of
the coarsest kind. An encoder's trial is priced by what its own trials took per epoch in this study.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

LEVELS = 3
"""Values of a range in the grid: low, middle, high."""


@dataclass(frozen=True)
class GridCost:
    """Cost of the search's part of a study, and of what it stands beside; hours are slot hours."""

    grid_trials: int
    grid_hours: float
    grid_usd: float
    unpruned_hours: float
    """Of the same trials, each trained to its full budget."""
    unpruned_usd: float
    search_trials: int
    search_hours: float
    search_usd: float


def grid_cost(trials: pd.DataFrame) -> GridCost | None:
    """From `results.load`; None where the space is not known, or no trial has finished an epoch."""
    space = trials.attrs.get("study", {}).get("config", {}).get("space")
    ran = trials[(trials.role != "final") & trials.repeat_of.isna() & (trials.epochs > 0)]
    if not isinstance(space, dict) or not space or ran.empty:
        return None
    epochs, seconds, dollars = (ran[name].astype(float) for name in ("epochs", "slot_s", "usd"))
    by_encoder = pd.DataFrame({"encoder": ran.encoder, "epochs": epochs, "s": seconds, "usd": dollars})
    sums = by_encoder.groupby("encoder").sum()
    rates = sums.div(sums.epochs, axis=0).to_dict("index")
    mean_rate = (sums.sum() / sums.epochs.sum()).to_dict()
    budget = float(ran.budget.max())
    points = grid_points(space)
    priced = {name: rates.get(name, mean_rate) for name in points}
    unpruned = (ran.budget.astype(float) / epochs).where(ran.status == "pruned", 1.0)
    return GridCost(
        grid_trials=sum(points.values()),
        grid_hours=sum(count * float(priced[name]["s"]) * budget for name, count in points.items()) / 3600,
        grid_usd=sum(count * float(priced[name]["usd"]) * budget for name, count in points.items()),
        unpruned_hours=float((seconds * unpruned).sum() / 3600),
        unpruned_usd=float((dollars * unpruned).sum()),
        search_trials=len(ran),
        search_hours=float(seconds.sum() / 3600),
        search_usd=float(dollars.sum()),
    )


def grid_points(space: dict[str, Any]) -> dict[str, int]:
    """Encoder -> points of the grid with it; a space without encoders has one named by the empty text.

    Args:
        space: as `study.json` has it: a list of choices, or a mapping with `choices`, or `low`, `high` and perhaps
            `step`; with `when`, a setting counts only where its condition holds.
    """
    levels = {name: _levels(axis) for name, axis in space.items()}
    conditions = {name: axis["when"] for name, axis in space.items() if isinstance(axis, dict) and axis.get("when")}
    deciding = [name for name in space if name == "encoder" or any(name in when for when in conditions.values())]
    free = math.prod(len(levels[name]) for name in space if name not in deciding and name not in conditions)
    points: dict[str, int] = {}
    for values in itertools.product(*(levels[name] for name in deciding)):
        chosen = dict(zip(deciding, values, strict=True))
        idle = [name for name in deciding if name in conditions and not _holds(conditions[name], chosen)]
        if any(chosen[name] != levels[name][0] for name in idle):
            continue  # a setting that is not searched here has one value
        inner = [
            len(levels[name]) for name, when in conditions.items() if name not in deciding and _holds(when, chosen)
        ]
        encoder = str(chosen.get("encoder", ""))
        points[encoder] = points.get(encoder, 0) + free * math.prod(inner)
    return points


def _levels(axis: Any) -> list[Any]:
    """The values of an axis in the grid."""
    if isinstance(axis, list):
        return axis
    if "choices" in axis:
        return list(axis["choices"])
    low, high, step = axis["low"], axis["high"], axis.get("step")
    count = min(LEVELS, int((high - low) / step) + 1) if step else LEVELS
    return list(range(count))


def _holds(when: dict[str, Any], chosen: dict[str, Any]) -> bool:
    allowed = {name: values if isinstance(values, list) else [values] for name, values in when.items()}
    return all(chosen[name] in values for name, values in allowed.items() if name in chosen)
