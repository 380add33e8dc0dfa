"""What the report's charts and its list of trials are drawn from: one JSON value, small for a thousand trials too."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pandas as pd

from results.importance import importance, is_logarithmic, searched_values
from results.palette import colour_numbers, encoder_order
from results.table import SETTINGS
from trainables.score.groups import diameter

STATUSES = ("complete", "pruned", "failed", "running", "paused", "pending")
MOST_RUNGS = 6
"""Epochs at which trials were pruned that the chart marks, those with the most pruned trials first."""
HIDDEN = ("seed", "channels_last", "iou_weight")
"""Settings that are no column where they are not searched; `iou_weight` is what `dice_weight` leaves of 1."""


def page_data(trials: pd.DataFrame, epochs: pd.DataFrame) -> dict[str, Any]:
    """Trials, curves, settings, rungs, importance and colours as plain values without NaN.

    Args:
        trials: what `results.load` gives.
        epochs: what `results.load_epochs` gives.
    """
    encoders = encoder_order(trials.encoder.dropna())
    numbers = colour_numbers(encoders)
    settings = settings_columns(trials)
    curves = _curves(epochs)
    return {
        "encoders": [{"name": name, "colour": numbers[name]} for name in encoders],
        "settings": settings,
        "log": [name for name in settings if is_logarithmic(trials, name)],
        "trials": [_entry(row, curves, settings) for row in trials.to_dict("records")],
        "rungs": rungs(trials),
        "importance": importance_data(trials),
        "budget": _whole(trials.budget[trials.role != "final"].max()) if len(trials) else None,
    }


def settings_columns(trials: pd.DataFrame) -> list[str]:
    """The settings that were searched, then those that differ between trials for another reason."""
    searched = [name for name in searched_values(trials)[0] if name in SETTINGS]
    shown = [name for name in SETTINGS if name in trials and name not in searched and name not in HIDDEN]
    return searched + [name for name in shown if trials[name].astype(str).nunique() > 1]


def common_settings(trials: pd.DataFrame) -> dict[str, str]:
    """The settings that all trials share, as text."""
    same = [name for name in SETTINGS if name in trials and trials[name].astype(str).nunique() == 1]
    return {name: str(trials[name].iloc[0]) for name in same}


def rungs(trials: pd.DataFrame) -> list[dict[str, int]]:
    """Where trials were pruned: the epoch, how many trials reached it, and how many went on, in order of epochs."""
    searched = trials[(trials.role == "search") & trials.repeat_of.isna() & trials.status.isin(("complete", "pruned"))]
    stopped = Counter(int(epoch) for epoch in searched.epochs[searched.status == "pruned"])
    marked = sorted(epoch for epoch, _ in stopped.most_common(MOST_RUNGS))
    reached = {epoch: int((searched.epochs >= epoch).sum()) for epoch in marked}
    return [{"epoch": epoch, "in": reached[epoch], "kept": reached[epoch] - stopped[epoch]} for epoch in marked]


def importance_data(trials: pd.DataFrame) -> dict[str, Any]:
    """`importance` for its chart; where Optuna is not installed, the chart says what to install."""
    try:
        table = importance(trials)
    except ImportError:
        return {"rows": [], "why_empty": "importance needs Optuna: pip install optuna"}
    rows = [[row[0], *(_number(value, 3) for value in row[1:])] for row in table.itertuples(index=False)]
    return {"rows": rows, **{str(key): value for key, value in table.attrs.items()}}


def sizes(images: pd.DataFrame) -> dict[str, Any]:
    """Lesion size against Dice, for the chart of it: per final the test images with a lesion, means over its seeds.

    Args:
        images: what `results.load_images` gives.

    Returns:
        `sizes`: per final its name and (sample, diameter, Dice) of each image; `size_unit`: mm or px.
    """
    size, unit = diameter(images)
    with_lesion = images.assign(size=size)[size > 0] if len(images) else images
    finals = [
        {
            "name": str(final),
            "points": [[str(sample), _number(row["size"], 1), _number(row["dice"], 3)] for sample, row in means],
        }
        for final, rows in with_lesion.groupby("final", sort=False)
        for means in [rows.groupby("sample_id")[["size", "dice"]].mean().iterrows()]
    ]
    return {"sizes": finals, "size_unit": unit}


def _entry(row: dict[Any, Any], curves: dict[str, list[Any]], settings: list[str]) -> dict[str, Any]:
    """One trial; keys are short because there are a thousand of them."""
    return {
        "id": str(row["trial_id"]),
        "enc": _text(row["encoder"]),
        "role": row["role"],
        "status": row["status"],
        "dice": _number(row["val_dice"], 4),
        "iou": _number(row["val_iou"], 4),
        "test": _number(row.get("test_dice"), 4),
        "best": _whole(row["best_epoch"]),
        "epochs": _whole(row["epochs"]),
        "budget": _whole(row["budget"]),
        "params": _millions(row["parameters"]),
        "slot_s": _number(row["slot_s"], 1),
        "usd": _number(row["usd"], 4),
        "pool": _text(row["pool"]),
        "slot": _text(row.get("slot")),
        "from": _seconds(row["started_at"]),
        "to": _seconds(row["ended_at"]),
        "retries": _whole(row["retries"]),
        "repeat": _text(row["repeat_of"]),
        "why": " ".join(filter(None, (_text(row["reason"]), _text(row["problem"])))),
        "trace": _text(row["traceback"]),
        "set": [_plain(row.get(name)) for name in settings],
        "curve": curves.get(f"{row['role']} {row['trial_id']}", []),
    }


def _curves(epochs: pd.DataFrame) -> dict[str, list[Any]]:
    """Validation Dice by epoch, by role and trial; an epoch without one is None."""
    if epochs.empty or "val_dice" not in epochs:
        return {}
    key = epochs.role.astype(str) + " " + epochs.trial_id.astype(str)
    rows = zip(key, epochs.epoch, epochs.val_dice, strict=True)
    curves: dict[str, list[Any]] = {}
    for name, epoch, dice in rows:
        curve = curves.setdefault(name, [])
        curve += [None] * (int(epoch) - 1 - len(curve)) + [_number(dice, 4)]
    return curves


def _number(value: Any, digits: int) -> float | None:
    if value is None or isinstance(value, str) or pd.isna(value) or not math.isfinite(value):
        return None
    return round(float(value), digits)


def _whole(value: Any) -> int | None:
    number = _number(value, 0)
    return None if number is None else int(number)


def _millions(value: Any) -> float | None:
    number = _number(value, 0)
    return None if number is None else round(number / 1e6, 2)


def _text(value: Any) -> str:
    return "" if value is None or (not isinstance(value, str) and pd.isna(value)) else str(value)


def _plain(value: Any) -> Any:
    """A setting as JSON has it: a number of six digits, a truth value, or text."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return float(f"{value:.6g}") if isinstance(value, float) else value
    return value.item() if hasattr(value, "item") else str(value)


def _seconds(value: Any) -> int | None:
    """Seconds since 1970 of a time, given as one or as ISO 8601 text; None where there is none."""
    if not value or pd.isna(value):
        return None
    time = pd.to_datetime(value, utc=True, errors="coerce")
    return None if pd.isna(time) else round(time.timestamp())
