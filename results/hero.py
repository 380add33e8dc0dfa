"""The report's first screen: the verdict, its finals on one axis of test Dice, and the groups in which one works.

Positions are per cent of an axis, so that the page draws them by HTML and CSS alone.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from results.palette import colour_numbers
from results.per_image import scores
from results.show import duration, millions, usd
from results.verdict import Verdict
from trainables.score.groups import GROUPS


def forest(verdict: Verdict, trials: pd.DataFrame) -> dict[str, Any] | None:
    """The finals of a verdict, best first, each with its mean, its seeds and its interval; None without finals."""
    finals = verdict.finals.to_dict("records")
    if not finals:
        return None
    ends = [value for row in finals for value in (row["dice"], row["low"], row["high"], *row["network_dice"])]
    ticks = axis_ticks(min(filter(math.isfinite, ends)), max(filter(math.isfinite, ends)))
    numbers = colour_numbers(trials.encoder.dropna())
    rows = [_final(row, verdict, ticks) | {"colour": numbers.get(row["encoder"])} for row in finals]
    return {
        "rows": rows,
        "ticks": [{"at": percent(tick, ticks), "label": f"{tick:.2f}"} for tick in ticks],
        "intervals": any(row["width"] for row in rows),
        "tested": any(row["p"] for row in rows),
        "seeds": any(row["seeds_at"] for row in rows),
    }


def _final(row: dict[Any, Any], verdict: Verdict, ticks: list[float]) -> dict[str, Any]:
    """One line of the forest."""
    known = math.isfinite(row["low"]) and math.isfinite(row["high"])
    low, high = (percent(row[end], ticks) if known else 0 for end in ("low", "high"))
    tied = int(verdict.finals.tied.eq(True).sum())
    return {
        "name": row["final"],
        "tied": row["tied"] is True,
        "cheapest": "cheapest tie" if row["final"] == verdict.cheapest and tied > 1 else "",
        "at": percent(row["dice"], ticks),
        "low_at": low,
        "width": round(high - low, 2),
        "seeds_at": [percent(dice, ticks) for dice in row["network_dice"]] if len(row["network_dice"]) > 1 else [],
        "dice": f"{row['dice']:.3f}",
        "interval": f"{row['low']:.3f}–{row['high']:.3f}" if known else "",
        "p": _p_value(row["p"]),
        "parameters": millions(row["parameters"]),
        "time": duration(row["seconds"]),
        "usd": usd(row["dollars"]),
    }


def _p_value(p: float) -> str:
    """As a table has it; empty where nothing was compared, a dash for the last that is left, whose p is 1."""
    if math.isnan(p):
        return ""
    return "–" if p >= 1 else "< 0.001" if p < 0.001 else f"{p:.3f}"


def groups(images: pd.DataFrame, final: str) -> dict[str, Any] | None:
    """Test Dice and lesions found of one final, by every way to divide the images that divides them.

    Args:
        images: from `results.load_images`.
        final: its name.
    """
    of_final = images[images.final == final]
    parts = []
    for name in GROUPS if len(of_final) else ():
        table = scores(of_final, by=name, names=("dice", "lesions_found"))
        if table.group.nunique() > 1:
            rows = [_group(str(group), part) for group, part in table.groupby("group", sort=False)]
            parts.append({"name": name[0].upper() + name[1:], "rows": rows})
    return {"final": final, "parts": parts} if parts else None


def _group(label: str, rows: pd.DataFrame) -> dict[str, Any]:
    """One line: the group's mean Dice with its interval, the share of its lesions found, its images."""
    dice, found = (rows[rows.measure == name].iloc[0] for name in ("dice", "lesions_found"))
    known = math.isfinite(dice.low) and math.isfinite(dice.high)
    return {
        "label": label,
        "dice": "–" if math.isnan(dice.value) else f"{dice.value:.2f}",
        "at": 0 if math.isnan(dice.value) else round(100 * dice.value, 1),
        "low_at": round(100 * dice.low, 1) if known else 0,
        "width": round(100 * (dice.high - dice.low), 1) if known else 0,
        "found": "–" if math.isnan(found.value) else f"{found.value:.0%}",
        "images": int(dice.images),
    }


def axis_ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers from below `low` to above `high`."""
    width = max(high - low, 0.02)
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if width / step <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 4) for n in range(first, max(last, first + 2) + 1)]


def percent(value: float, ticks: list[float]) -> float:
    """Where a value lies between the first and the last tick, in per cent."""
    return round(100 * (value - ticks[0]) / (ticks[-1] - ticks[0]), 2)
