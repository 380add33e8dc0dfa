"""The Pareto front of a study: the trials that no other beats in every objective, and its hypervolume.

A trial's values are those of one model, that of its best epoch by `val_dice`, whose weights are kept; parameters,
seconds an epoch and dollars are the trial's. A study of one objective gets the front of that objective against the
number of parameters, which answers what a smaller network costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cluster.storage import Folder
from results.summary import complete, trials_of
from trainables.pareto import hypervolume, pareto_front

SMALLER_IS_BETTER = ("parameters", "epoch_s", "usd", "val_loss")
"""Objectives that are minimised where `nas.yaml` does not say."""


@dataclass(frozen=True)
class Aim:
    """One objective of a study."""

    metric: str
    maximise: bool


def aims_of(trials: pd.DataFrame) -> list[Aim]:
    """The objectives of the study, from `study.json`; of a study of one, `parameters` besides."""
    listed = trials.attrs.get("study", {}).get("config", {}).get("objective")
    given = [one for one in listed if isinstance(one, dict) and "metric" in one] if isinstance(listed, list) else []
    aims = [_aim(one) for one in given] or [Aim("val_dice", maximise=True)]
    return aims if len(aims) > 1 else [*aims, Aim("parameters", maximise=False)]


def aim_values(trials: pd.DataFrame, aims: list[Aim]) -> pd.DataFrame:
    """The value of every aim in every trial, NaN where it has none: one column an aim, by its metric's name."""
    epochs = trials.epochs.where(trials.epochs > 0).astype(float)
    price = trials["usd_per_hour"].astype(float) if "usd_per_hour" in trials else math.nan
    trained_s = trials.train_s.astype(float)
    made = {"epoch_s": trained_s / epochs, "usd": trained_s / 3600 * price}
    return pd.DataFrame({aim.metric: made.get(aim.metric, trials.get(aim.metric)) for aim in aims}, index=trials.index)


def front_table(study: str | Folder | pd.DataFrame) -> pd.DataFrame:
    """The trials on the front, best by the first objective first: `trial_id`, `encoder`, and a column an objective.

    `attrs["aims"]` are the objectives, `attrs["hypervolume"]` that of `trainables.pareto`.
    """
    trials = trials_of(study)
    aims = aims_of(trials)
    done = complete(trials)
    values = aim_values(done, aims).astype(float)
    known = values.notna().all(axis=1)
    done, values = done[known], values[known]
    on_front = pareto_front(_signed(values, aims))
    columns = dict.fromkeys(["trial_id", "encoder", "val_dice", "parameters", "train_s"])
    table = pd.concat([done[[name for name in columns if name not in values]], values], axis=1)[on_front]
    table = table.sort_values(aims[0].metric, ascending=not aims[0].maximise, kind="stable", ignore_index=True)
    table.attrs = {**trials.attrs, "aims": aims, "hypervolume": hypervolume(_signed(values, aims)), "of": len(values)}
    return table[
        [name for name in columns if name in table] + [aim.metric for aim in aims if aim.metric not in columns]
    ]


def _signed(values: pd.DataFrame, aims: list[Aim]) -> npt.NDArray[np.float64]:
    """Values of which more is better."""
    signs = np.array([1.0 if aim.maximise else -1.0 for aim in aims])
    return values[[aim.metric for aim in aims]].to_numpy(float) * signs


def _aim(given: dict[str, Any]) -> Aim:
    metric, direction = str(given["metric"]), given.get("direction")
    return Aim(metric, maximise=direction == "max" if direction else metric not in SMALLER_IS_BETTER)
