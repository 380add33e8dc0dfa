"""Curves over epochs: the finals' training, and every trial of the search."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from results.figures.style import (
    FAINT,
    INK,
    SOFT,
    Mark,
    drawn,
    end_labels,
    light_grid,
    marks_of,
    narrow,
    new_figure,
    whole_numbers,
)
from results.read import Read
from results.summary import complete
from results.table import rows_of

PANELS = (
    ("val_dice", "Validation Dice (dots: the seeds' best epochs)", 2),
    ("val_iou", "Validation IoU", 2),
    ("loss", "Loss: validation solid, training dotted", 1),
    ("learning_rate", "Learning rate", 1),
    ("train_s", "Seconds an epoch", 1),
)
"""What the figure of a training shows, with the share of the height that each panel gets."""
MOST_NAMED = 8


@drawn
def training(read: Read, width: float) -> Figure | None:
    """Dice, IoU, loss, learning rate and epoch time of the finals; of the baselines while there are none.

    A line is the mean of a final's seeds, the band their lowest and highest; dots are the seeds' best epochs.
    """
    epochs = read.epochs
    shown = epochs[epochs.role == "final"] if (epochs.role == "final").any() else epochs[epochs.role == "baseline"]
    if shown.empty:
        return None
    names = shown.final.fillna(shown.encoder)
    groups = [(str(name), rows) for name, rows in shown.groupby(names, sort=False)]
    marks = marks_of(shown.encoder.dropna())
    figure, axes = _panels(width)
    for measure, title, _ in PANELS:
        axis = axes[measure]
        axis.set_title(title)
        light_grid(axis)
        for _, rows in groups:
            _training_line(axis, rows, measure, marks[rows.encoder.iloc[0]])
        whole_numbers(axis)
    axes["learning_rate"].set_yscale("log" if _varies(shown.learning_rate, 20) else "linear")
    axes["learning_rate"].yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
    axes["train_s"].set_ylim(bottom=0)
    figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
    for measure in ("val_dice", "val_iou"):
        _name_lines(axes[measure], groups, measure, marks)
    for axis in _lowest(axes, width):
        axis.set_xlabel("epoch")
    return figure


def _panels(width: float) -> tuple[Figure, dict[str, Axes]]:
    if narrow(width):
        figure = new_figure(width, 7.4)
        grid = figure.add_gridspec(len(PANELS), 1, height_ratios=[share for *_, share in PANELS])
        return figure, {name: figure.add_subplot(grid[n, 0]) for n, (name, *_) in enumerate(PANELS)}
    figure = new_figure(width, 4.3)
    # Each half has its own columns: the names at the ends of the upper lines take no room from the lower panels.
    halves: Any = figure.subfigures(2, 1, height_ratios=[1.7, 1])
    upper, lower = halves
    axes = [*upper.subplots(1, 2), *lower.subplots(1, 3)]
    return figure, {name: axis for (name, *_), axis in zip(PANELS, axes, strict=True)}


def _lowest(axes: dict[str, Axes], width: float) -> list[Axes]:
    return [axes["train_s"]] if narrow(width) else [axes["loss"], axes["learning_rate"], axes["train_s"]]


def _training_line(axis: Axes, rows: pd.DataFrame, measure: str, mark: Mark) -> None:
    """The mean over networks with their band, and each network's best epoch."""
    look = {"color": mark.colour, "linestyle": mark.dash}
    if measure == "loss":
        _mean_line(axis, rows, "val_loss", look)
        _mean_line(axis, rows, "train_loss", {**look, "linestyle": ":", "linewidth": 0.9})
        return
    _mean_line(axis, rows, measure, look)
    if measure in ("val_dice", "val_iou"):
        best = rows.loc[rows.groupby("trial_id").val_dice.idxmax().dropna()]
        axis.plot(best.epoch, best[measure], mark.symbol, color=mark.colour, ms=3.6, mec="white", mew=0.5, zorder=4)


def _mean_line(axis: Axes, rows: pd.DataFrame, measure: str, look: dict[str, Any]) -> None:
    by_epoch = rows.groupby("epoch")[measure].agg(["mean", "min", "max"])
    axis.plot(by_epoch.index, by_epoch["mean"], **look)
    if rows.trial_id.nunique() > 1 and measure.startswith("val_"):
        axis.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=look["color"], alpha=0.15, lw=0)


def _name_lines(axis: Axes, groups: list[tuple[str, pd.DataFrame]], measure: str, marks: dict[str, Mark]) -> None:
    ends = []
    for name, rows in groups[:MOST_NAMED]:
        last = rows[rows.epoch == rows.epoch.max()]
        ends.append((float(last.epoch.iloc[0]), float(last[measure].mean()), name, marks[rows.encoder.iloc[0]].colour))
    end_labels(axis, ends)


def _varies(values: pd.Series, times: float) -> bool:
    known = values[values > 0]
    return bool(len(known) and known.max() > times * known.min())


@drawn
def trials(read: Read, width: float) -> Figure | None:
    """Every trial's validation Dice by epoch: pruned ones grey, complete ones in colour, each encoder's best bold."""
    epochs = read.epochs[read.epochs.role != "final"]
    if epochs.empty:
        return None
    status = read.trials.set_index("trial_id").status
    curves = {str(name): rows for name, rows in epochs.groupby("trial_id", sort=False)}
    marks = marks_of(epochs.encoder.dropna())
    figure = new_figure(width, 3.6 if narrow(width) else 3.9)
    axis = figure.add_subplot()
    quiet = [rows for name, rows in curves.items() if status.get(name) != "complete"]
    loud = [rows for name, rows in curves.items() if status.get(name) == "complete"]
    _bundle(axis, quiet, [FAINT] * len(quiet), width=0.6, alpha=0.75)
    _bundle(axis, loud, [marks[rows.encoder.iloc[0]].colour for rows in loud], width=0.7, alpha=0.45)
    axis.autoscale()
    ends = []
    for best in _best_of_each(read.trials):
        rows, mark = curves[best.trial_id], marks[best.encoder]
        axis.plot(rows.epoch, rows.val_dice, color=mark.colour, linestyle=mark.dash, lw=1.9, zorder=3)
        axis.plot(best.best_epoch, best.val_dice, mark.symbol, color=mark.colour, ms=5, mec="white", mew=0.6, zorder=4)
        label = best.encoder if narrow(width) else f"{best.encoder} {best.trial_id}: {best.val_dice:.3f}"
        ends.append((float(rows.epoch.iloc[-1]), float(rows.val_dice.iloc[-1]), label, mark.colour))
    axis.set(xlabel="epoch", ylabel="validation Dice", ylim=(0, None))
    axis.margins(x=0.02)
    light_grid(axis)
    whole_numbers(axis)
    _rungs(axis, epochs, read.trials, steps=2 if narrow(width) else 1)
    figure.suptitle(_count_told(status, curves), x=0.01, ha="left", fontsize=8, color=INK)
    figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
    end_labels(axis, ends)
    return figure


def _bundle(axis: Axes, curves: list[pd.DataFrame], colours: list[str], *, width: float, alpha: float) -> None:
    """Many thin lines as one object: an SVG of a thousand lines stays small and is drawn at once."""
    lines = [rows[["epoch", "val_dice"]].to_numpy(float) for rows in curves if len(rows) > 1]
    shades = [colour for colour, rows in zip(colours, curves, strict=True) if len(rows) > 1]
    axis.add_collection(
        LineCollection(lines, colors=shades, linewidths=width, alpha=alpha, rasterized=len(lines) > 100)
    )
    single = [rows for rows in curves if len(rows) == 1]
    for rows in single:
        axis.plot(rows.epoch, rows.val_dice, ".", color=FAINT, ms=2)


def _best_of_each(trials: pd.DataFrame) -> list[Any]:
    done = complete(trials)
    best = done[done.val_dice.notna()].sort_values("val_dice", ascending=False).drop_duplicates("encoder")
    return list(rows_of(best.head(MOST_NAMED)))


def _rungs(axis: Axes, epochs: pd.DataFrame, trials: pd.DataFrame, *, steps: int) -> None:
    """Where trials were compared: how many reached a rung and how many went on from it, written on so many levels."""
    reached = epochs.groupby("trial_id").epoch.max()
    stopped = trials[trials.status == "pruned"].set_index("trial_id").epochs
    top = axis.get_ylim()[1]
    rungs = [rung for rung in sorted(stopped.unique()) if (stopped == rung).sum() >= max(2, 0.02 * len(stopped))]
    for n, rung in enumerate(rungs):
        there, stay = int((reached >= rung).sum()), int((stopped == rung).sum())
        axis.axvline(float(rung), color=SOFT, lw=0.7, ls=(0, (1.5, 2)), zorder=1)
        where = {"xy": (float(rung), top), "xytext": (0, 1 + 8 * (n % steps)), "textcoords": "offset points"}
        axis.annotate(f"{there} → {there - stay}", **where, fontsize=6.5, color=SOFT, ha="center")  # type: ignore[arg-type]


def _count_told(status: pd.Series, curves: dict[str, pd.DataFrame]) -> str:
    counts = status.reindex(list(curves)).value_counts()
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"{len(curves)} trials with an epoch ({told})"
