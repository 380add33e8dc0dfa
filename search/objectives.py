"""The value of a trial: what its rows come to by each objective."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.settings.sections import Objective


def objective_values(
    objectives: Sequence[Objective], rows: Sequence[Mapping[str, Any]], *, usd_per_hour: float, parameters: int | None
) -> list[float]:
    """One value per objective, of the trial so far.

    Of a measure it is the best epoch's, for that is the model one would keep; NaN if any epoch's is not finite, or if
    the number of parameters is wanted and not known.

    Args:
        objectives: the study's.
        rows: the trial's epochs, at least one.
        usd_per_hour: what an hour on its pool costs.
        parameters: trainable parameters of its model.
    """
    return [_value(objective, rows, usd_per_hour, parameters) for objective in objectives]


def _value(
    objective: Objective, rows: Sequence[Mapping[str, Any]], usd_per_hour: float, parameters: int | None
) -> float:
    train_s = [row["train_s"] for row in rows]
    match objective.metric:
        case "usd":
            return float(sum(train_s) / 3600 * usd_per_hour)
        case "epoch_s":
            return float(sum(train_s) / len(train_s))
        case "parameters":
            return float(parameters or math.nan)
    measured = [float(row[objective.metric]) for row in rows]
    best = max(measured) if objective.maximise else min(measured)
    return best if all(map(math.isfinite, measured)) else math.nan
