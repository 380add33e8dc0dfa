"""Figures of the search: Pareto front, importance, parallel coordinates, slots over time, cost beside a grid's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from results.figures.style import (
    FAINT,
    INK,
    SOFT,
    drawn,
    light_grid,
    marks_of,
    narrow,
    new_figure,
)
from results.front import aim_values, aims_of, pareto_front
from results.grid import LEVELS, grid_cost
from results.importance import importance as importance_of
from results.lanes import lanes_of
from results.palette import encoder_order
from results.read import Read
from results.summary import complete, trial_table
from results.table import rows_of

WORDS = {"val_dice": "validation Dice", "val_iou": "validation IoU", "parameters": "million parameters"}
WORDS |= {"usd": "dollars of training", "epoch_s": "seconds an epoch", "train_s": "training time, minutes"}
"""What axes say."""
SCALES = {"parameters": 1e-6, "train_s": 1 / 60}
ABSENT_AT, NOT_SEARCHED = -0.09, "not searched"
"""Where a line passes an axis whose setting the trial did not search."""
BEST_SHARE = 0.1
"""Trials that are drawn in ink among the parallel coordinates."""


@drawn
def front(read: Read, width: float) -> Figure | None:
    """Complete trials by Dice and by what they cost, and the front that no trial beats in both."""
    done = complete(read.trials)
    aims = aims_of(read.trials)
    first = aims[0]
    costs = list(dict.fromkeys([*(aim.metric for aim in aims[1:]), "parameters", "train_s"]))[:2]
    values = aim_values(done, aims).assign(parameters=done.parameters, train_s=done.train_s).astype(float)
    values = values.dropna(subset=[first.metric, *costs])
    if values.empty:
        return None
    encoders = done.encoder[values.index]
    marks = marks_of(encoders)
    figure = new_figure(width, 5.4 if narrow(width) else 3.0)
    panels = figure.subplots(2, 1) if narrow(width) else figure.subplots(1, 2, sharey=True)
    for axis, cost in zip(np.ravel(panels), costs, strict=True):
        smaller = next((not aim.maximise for aim in aims if aim.metric == cost), True)
        x, y = values[cost] * SCALES.get(cost, 1), values[first.metric]
        for name in encoder_order(encoders):
            of_it = encoders == name
            axis.plot(
                x[of_it],
                y[of_it],
                marks[name].symbol,
                color=marks[name].colour,
                ms=4,
                alpha=0.6,
                mec="none",
                label=name,
            )
        _draw_front(axis, x, y, smaller=smaller, maximise=first.maximise)
        axis.set(xlabel=WORDS.get(cost, cost), ylabel=WORDS.get(first.metric, first.metric))
        light_grid(axis)
    np.ravel(panels)[-1].set_ylabel(WORDS.get(first.metric, first.metric) if narrow(width) else "")
    handles = [
        Line2D([], [], ls="", marker=marks[n].symbol, color=marks[n].colour, ms=4.5, label=n)
        for n in encoder_order(encoders)
    ]
    handles.append(Line2D([], [], color=INK, lw=1, marker="o", mfc="none", ms=6, label="front"))
    figure.legend(
        handles=handles, loc="outside upper left", ncols=3 if narrow(width) else 6, handletextpad=0.3, columnspacing=1
    )
    return figure


def _draw_front(axis: Axes, x: pd.Series, y: pd.Series, *, smaller: bool, maximise: bool) -> None:
    gain = np.column_stack([y * (1 if maximise else -1), x * (-1 if smaller else 1)]).astype(float)
    points = pd.DataFrame({"x": x, "y": y})[pareto_front(gain)].sort_values("x")
    axis.plot(points.x, points.y, drawstyle="steps-post" if smaller else "steps-pre", color=INK, lw=0.9, zorder=3)
    axis.plot(points.x, points.y, "o", mfc="none", mec=INK, ms=6.5, mew=0.9, zorder=4)


@drawn
def importance(read: Read, width: float) -> Figure | None:
    """Which searched settings decide whether a trial is among the best, with intervals."""
    table = importance_of(read.trials)
    if table.empty:
        return None
    figure = new_figure(width, 0.8 + 0.24 * len(table))
    axis = figure.add_subplot()
    places = np.arange(len(table))
    axis.barh(places, table.share, height=0.62, color="#8fa3b5", zorder=2)
    axis.hlines(places, table.low, table.high, color=INK, lw=1, zorder=3)
    axis.set_yticks(places, [name.replace("_", " ") for name in table.name])
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    axis.set_ylim(len(table) - 0.4, -0.6)
    axis.set_xlim(0, min(1.0, max(table.high.max(), table.share.max()) * 1.08))
    axis.set_xlabel(
        f"share of importance ({table.attrs['method']}, {table.attrs['trials']} complete trials; line: 90 % of redraws)"
    )
    if narrow(width):
        axis.set_xlabel(f"share ({table.attrs['method']}, {table.attrs['trials']} trials; line: 90 %)")
    light_grid(axis, "x")
    return figure


@drawn
def settings(read: Read, width: float) -> Figure | None:
    """Parallel coordinates: a line a trial through its searched settings to its Dice; the best tenth in ink."""
    table = trial_table(read.trials)
    table = table[table.val_dice.notna() & (table.status == "complete")].iloc[::-1]
    names = [name for name in read.trials.attrs["searched"] if name in table and table[name].nunique() > 1]
    if len(table) < 3 or not names:
        return None
    axes_of = [*names, "val_dice"]
    rng = np.random.default_rng(0)
    scaled = [_scaled(table[name], rng, log=_is_log(read.trials, name)) for name in axes_of]
    points_TA = np.column_stack([values for values, _ in scaled])
    turned = narrow(width)
    figure = new_figure(width, 1.0 + 0.62 * len(axes_of) if turned else 3.3)
    axis = figure.add_subplot()
    best = table.val_dice.rank(pct=True).to_numpy() > 1 - max(BEST_SHARE, 1.01 / len(table))
    encoders = table.encoder.to_numpy()
    marks = marks_of(table.encoder)
    for chosen, look in ((~best, {"linewidths": 0.5, "alpha": 0.5}), (best, {"linewidths": 1.3, "alpha": 0.95})):
        lines = [_line(row, turned) for row in points_TA[chosen]]
        colours = [marks[name].colour if chosen is best else FAINT for name in encoders[chosen]]
        axis.add_collection(LineCollection(lines, colors=colours, zorder=3 if chosen is best else 2, **look))
    for place, (name, (_, ticks)) in enumerate(zip(axes_of, scaled, strict=True)):
        _parallel_axis(axis, place, name, ticks, turned=turned)
    long = (-0.45, len(axes_of) - 0.55)
    axis.set(xlim=(-0.12, 1.12) if turned else long, ylim=long[::-1] if turned else (-0.12, 1.14))
    axis.set_axis_off()
    shown = encoder_order(encoders[best])
    handles = [Line2D([], [], color=marks[name].colour, lw=1.6, label=name) for name in shown]
    handles.append(Line2D([], [], color=FAINT, lw=1, label="other complete trials"))
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=2 if turned else 6,
        title="best tenth of the trials, by encoder",
        alignment="left",
        title_fontsize=7,
    )
    return figure


def _is_log(trials: pd.DataFrame, name: str) -> bool:
    """Whether the study searched the setting by ratio."""
    axis = trials.attrs["study"].get("config", {}).get("space", {}).get(name)
    return isinstance(axis, dict) and bool(axis.get("log"))


def _scaled(
    values: pd.Series, rng: np.random.Generator, *, log: bool
) -> tuple[npt.NDArray[np.float64], list[tuple[float, str]]]:
    """Values in [0, 1] and the ticks of their axis; a trial in which the setting was not searched lies below it."""
    numbers = pd.to_numeric(values, errors="coerce")
    few = values.nunique() <= 4 and bool((numbers.dropna() % 1 == 0).all())
    choices = numbers.notna().sum() < values.notna().sum() or few
    at, ticks = _choices(values, rng) if choices else _numbers(numbers, log=log)
    absent = [(ABSENT_AT, NOT_SEARCHED)] if np.isnan(at).any() else []
    return np.where(np.isnan(at), ABSENT_AT, at), [*ticks, *absent]


def _choices(values: pd.Series, rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], list[tuple[float, str]]]:
    """Spread a little, so that lines do not hide each other."""
    known = encoder_order(values.dropna().astype(str)) if values.name == "encoder" else None
    levels = known or sorted(values.dropna().unique(), key=lambda value: (isinstance(value, str), value))
    place = {str(level): n / max(len(levels) - 1, 1) for n, level in enumerate(levels)}
    at = values.map(lambda value: place.get(str(value), np.nan)).to_numpy(float)
    return at + rng.uniform(-0.02, 0.02, len(at)), [(place[str(level)], _short(level)) for level in levels]


def _numbers(numbers: pd.Series, *, log: bool) -> tuple[npt.NDArray[np.float64], list[tuple[float, str]]]:
    values = numbers.to_numpy(float)
    moved = np.log10(values) if log else values
    low, high = float(np.nanmin(moved)), float(np.nanmax(moved))
    marks = [low + share * (high - low) for share in (0.0, 0.5, 1.0)]
    ticks = [((mark - low) / (high - low), _short(10**mark if log else mark)) for mark in marks]
    return (moved - low) / (high - low), ticks


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _line(row: npt.NDArray[np.float64], turned: bool) -> npt.NDArray[np.float64]:
    place = np.arange(len(row), dtype=float)
    return np.column_stack([row, place] if turned else [place, row])


def _parallel_axis(axis: Axes, place: int, name: str, ticks: list[tuple[float, str]], *, turned: bool) -> None:
    told = WORDS.get(name, name.replace("_", " "))
    halo = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
    if turned:
        axis.plot([0, 1], [place, place], color=SOFT, lw=0.7, zorder=1)
        axis.text(0, place - 0.2, told, fontsize=7, color=INK, ha="left", va="bottom", zorder=6, bbox=halo)
    else:
        axis.plot([place, place], [0, 1], color=SOFT, lw=0.7, zorder=1)
        axis.text(place, 1.06, told, fontsize=7.5, color=INK, ha="center", va="bottom", zorder=6)
    for at, text in ticks:
        text = "–" if turned and text == NOT_SEARCHED else text
        x, y = (at, place + 0.1) if turned else (place + 0.02, at)
        how = {"ha": "center", "va": "top"} if turned else {"ha": "left", "va": "center"}
        axis.text(x, y, text, fontsize=6.3, color=SOFT, zorder=6, bbox=halo, **how)  # type: ignore[arg-type]


@drawn
def slots(read: Read, width: float) -> Figure | None:
    """Which slot trained what when: a bar a trial, pale where pruned, hatched where failed; in the gaps it was idle."""
    lanes = lanes_of(read.trials)
    if lanes.empty:
        return None
    names = list(dict.fromkeys(lanes.lane))
    marks = marks_of(lanes.encoder.dropna())
    scale, unit = _time_unit(float(lanes.end_s.max()))
    figure = new_figure(width, 0.95 + 0.26 * len(names))
    axis = figure.add_subplot()
    for row in rows_of(lanes):
        place, colour = names.index(row.lane), marks[row.encoder].colour if row.encoder in marks else SOFT
        look: dict[str, Any] = {"facecolor": colour, "alpha": 0.9, "edgecolor": "white", "linewidth": 0.3}
        if row.status == "pruned":
            look |= {"alpha": 0.35}
        if row.status == "failed":
            look |= {"facecolor": "white", "edgecolor": colour, "hatch": "xxxx", "linewidth": 0.5}
        height = 0.8 if row.role == "final" else 0.62
        axis.barh(place, (row.end_s - row.start_s) * scale, left=row.start_s * scale, height=height, **look)
    span = lanes.end_s.max() - lanes.start_s.min()
    busy = lanes.assign(held=lanes.end_s - lanes.start_s).groupby("lane").held.sum() / span
    for place, name in enumerate(names):
        axis.text(
            1.01, place, f"{busy[name]:.0%}", transform=axis.get_yaxis_transform(), va="center", fontsize=7, color=INK
        )
    axis.text(1.01, -0.75, "busy", transform=axis.get_yaxis_transform(), va="bottom", fontsize=6.5, color=SOFT)
    axis.set_yticks(range(len(names)), names)
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    axis.set(ylim=(len(names) - 0.4, -0.6), xlabel=f"{unit} since the first trial began", xlim=(0, None))
    axis.margins(x=0)
    _slots_legend(figure, lanes, marks, narrow(width))
    return figure


def _time_unit(seconds: float) -> tuple[float, str]:
    return (1 / 3600, "hours") if seconds > 7200 else (1 / 60, "minutes")


def _slots_legend(figure: Figure, lanes: pd.DataFrame, marks: dict[str, Any], stacked: bool) -> None:
    handles = [Patch(facecolor=marks[name].colour, label=name) for name in encoder_order(lanes.encoder.dropna())]
    handles.append(Patch(facecolor=SOFT, alpha=0.35, label="pale: pruned"))
    if (lanes.status == "failed").any():
        handles.append(Patch(facecolor="white", edgecolor=SOFT, hatch="xxxx", label="failed"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3 if stacked else 7, handlelength=1, columnspacing=1)


@drawn
def cost(read: Read, width: float) -> Figure | None:
    """What the search took beside a grid and beside the same trials unpruned; the best Dice as the hours went by."""
    grid = grid_cost(read.trials)
    if grid is None:
        return None
    figure = new_figure(width, 4.6 if narrow(width) else 2.7)
    left, right = figure.subplots(2, 1) if narrow(width) else figure.subplots(1, 2, width_ratios=[1, 1.25])
    bars = (
        (f"grid\n{grid.grid_trials} trials", grid.grid_hours, grid.grid_usd, FAINT),
        ("search,\nunpruned", grid.unpruned_hours, grid.unpruned_usd, "#8fa3b5"),
        (f"search\n{grid.search_trials} trials", grid.search_hours, grid.search_usd, INK),
    )
    for place, (_, hours, dollars, colour) in enumerate(bars):
        left.barh(place, hours, height=0.6, color=colour)
        price = f", ${dollars:,.2f}" if dollars else ""
        left.text(hours, place, f" {_hours(hours)}{price}", va="center", fontsize=7, color=INK)
    left.set_yticks(range(len(bars)), [name for name, *_ in bars])
    left.tick_params(axis="y", length=0, labelcolor=INK)
    left.set(
        xlabel="slot hours", ylim=(len(bars) - 0.5, -0.5), title=f"Grid: choices, and {LEVELS} values of each range"
    )
    left.margins(x=0.45)
    left.set_xlim(left=0)
    _best_so_far(right, read.trials)
    return figure


def _hours(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def _best_so_far(axis: Axes, trials: pd.DataFrame) -> None:
    """The best validation Dice against the slot hours spent, in the order in which trials ended."""
    ran = trials[(trials.role != "final") & trials.repeat_of.isna() & trials.slot_s.notna()]
    ran = ran.sort_values(["ended_at", "trial_id"], kind="stable")
    spent = ran.slot_s.astype(float).cumsum() / 3600
    done = ran.val_dice.astype(float).where(ran.status == "complete")
    scale, unit = (1.0, "slot hours") if spent.max() > 1 else (60.0, "slot minutes")
    axis.plot(spent * scale, done, "o", color=FAINT, ms=3, mec="none")
    axis.plot(spent * scale, done.cummax().ffill(), drawstyle="steps-post", color=INK, lw=1.2)
    axis.set(xlabel=f"{unit} spent", title="Best validation Dice so far; dots: complete trials")
    light_grid(axis)
