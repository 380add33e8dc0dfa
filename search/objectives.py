"""The value of a trial: what its rows come to by each objective."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.settings.sections import Objective
from trainables.record import EpochRow, TrialInfo, best_epoch


def values(
    objectives: Sequence[Objective], rows: Sequence[EpochRow], info: TrialInfo, *, parameters: int | None = None
) -> list[float]:
    """One value per objective, of the trial so far.

    Every measure is that of one epoch, the one with the best `BEST_BY`, for its weights are kept; seconds and dollars
    are the whole trial's. NaN if any epoch's is not finite, or if the number of parameters is wanted and not known.

    Args:
        objectives: the study's.
        rows: the trial's epochs, at least one.
        info: what was to be trained; its pool has the price.
        parameters: trainable parameters of its model.
    """
    return [_value(objective, rows, info.usd_per_hour, parameters) for objective in objectives]


def _value(objective: Objective, rows: Sequence[EpochRow], usd_per_hour: float, parameters: int | None) -> float:
    train_s = sum(row.train_s for row in rows)
    match objective.metric:
        case "usd":
            return train_s / 3600 * usd_per_hour
        case "epoch_s":
            return train_s / len(rows)
        case "parameters":
            return float(parameters or math.nan)
    best = best_epoch(rows)
    finite = all(math.isfinite(getattr(row, objective.metric)) for row in rows)
    return float(getattr(best, objective.metric)) if best is not None and finite else math.nan
