"""Figures of the test images: finals with intervals, lesion size, calibration and threshold, free-response curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

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
)
from results.per_image import froc_of, scores
from results.read import Read
from results.show import millions
from results.table import rows_of
from trainables.score.groups import diameter, lesion_size
from trainables.score.marks import RATES
from trainables.score.tables import BINS

FEWEST_PIXELS = 200
"""A bin of probability with fewer pixels than this is not drawn: its share of lesion means nothing."""


@drawn
def finals(read: Read, width: float) -> Figure | None:
    """Test Dice of every final: mean as a symbol, seeds as ticks, 95 % interval as a bar; pale: not tied."""
    table = read.verdict.finals
    if table.empty:
        return None
    marks = marks_of(table.encoder)
    figure = new_figure(width, 0.75 + 0.34 * len(table))
    axis = figure.add_subplot()
    for place, row in enumerate(rows_of(table)):
        mark, tied = marks[row.encoder], row.tied is None or bool(row.tied)
        alpha = 1.0 if tied else 0.45
        if not np.isnan(row.low):
            axis.plot(
                [row.low, row.high], [place, place], color=mark.colour, lw=5, alpha=0.3 * alpha, solid_capstyle="butt"
            )
        axis.plot(row.network_dice, [place] * len(row.network_dice), "|", color=mark.colour, ms=9, mew=1, alpha=alpha)
        face = mark.colour if tied else "white"
        axis.plot(row.dice, place, mark.symbol, color=mark.colour, mfc=face, ms=6, mew=1.1, zorder=4)
        axis.text(1.02, place, _beside(row), transform=axis.get_yaxis_transform(), va="center", fontsize=7, color=INK)
    axis.set_yticks(range(len(table)), list(table.final))
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    axis.set_ylim(len(table) - 0.4, -0.6)
    axis.set_xlabel("test Dice, mean over images; bar: 95 % interval by patient and seed, ticks: seeds")
    if narrow(width):
        axis.set_xlabel("test Dice (bar: 95 % interval, ticks: seeds)")
    axis.spines["left"].set_visible(False)
    light_grid(axis, "x")
    return figure


def _beside(row: Any) -> str:
    tied = "" if row.tied is None else "tied" if row.tied else "p < 0.001" if row.p < 0.001 else f"p {row.p:.3f}"
    return "  ".join(filter(None, (f"{row.dice:.3f}", tied, millions(row.parameters))))


@drawn
def sizes(read: Read, width: float) -> Figure | None:
    """Lesion size against Dice: every test image (mean over the finals), and each final's mean by size group."""
    images = read.images
    if images.empty:
        return None
    size, unit = diameter(images)
    images = images.assign(size=size)[size > 0]
    marks = marks_of(read.finals.encoder)
    figure = new_figure(width, 3.2)
    axis = figure.add_subplot()
    each = images.groupby("sample_id").agg(size=("size", "first"), dice=("dice", "mean"))
    axis.plot(each["size"], each.dice, "o", color=FAINT, ms=3, mec="none", alpha=0.8, zorder=1)
    groups = lesion_size(images)
    table = scores(images, by="lesion size", names=("dice",))
    centre = images.groupby(groups, observed=True)["size"].median()
    ends = []
    order = {name: n for n, name in enumerate(read.finals.final)}
    for n, (name, rows) in enumerate(sorted(table.groupby("final"), key=lambda item: order.get(item[0], 99))):
        encoder = read.finals.set_index("final").encoder[name]
        x = centre.reindex(rows.group).to_numpy(float) * (1 + 0.02 * (n - (len(order) - 1) / 2))
        mark = marks[encoder]
        axis.vlines(x, rows.low, rows.high, color=mark.colour, lw=1, zorder=2)
        axis.plot(
            x,
            rows.value,
            color=mark.colour,
            linestyle=mark.dash,
            marker=mark.symbol,
            ms=5,
            mec="white",
            mew=0.6,
            zorder=3,
        )
        ends.append((float(x[-1]), float(rows.value.iloc[-1]), str(name), mark.colour))
    axis.set_xscale("log")
    _plain_log_ticks(axis, each["size"])
    axis.set(xlabel=f"diameter of the largest lesion, {unit}", ylabel="test Dice", ylim=(-0.03, 1.03))
    light_grid(axis)
    figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
    end_labels(axis, ends)
    return figure


def _plain_log_ticks(axis: Axes, values: pd.Series) -> None:
    """Round numbers as ticks of a logarithmic axis, few enough to be read."""
    low, high = float(values.min()), float(values.max())
    rounds = [m * 10.0**e for e in range(-1, 4) for m in (1, 1.5, 2, 3, 4, 5, 7)]
    ticks = [tick for tick in rounds if low * 0.98 <= tick <= high * 1.02]
    axis.xaxis.set_major_locator(FixedLocator(ticks[:: max(1, len(ticks) // 7)]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


@drawn
def calibration(read: Read, width: float) -> Figure | None:
    """Left: predicted probability against the share of lesion among those pixels. Right: Dice by threshold.

    The threshold that is best on the validation images is marked; what it would bring on the test images is read there.
    """
    if read.images.empty:
        return None
    marks = marks_of(read.finals.encoder)
    encoders = read.finals.set_index("final").encoder
    figure = new_figure(width, 6.0 if narrow(width) else 3.1)
    left, right = figure.subplots(2, 1) if narrow(width) else figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=FAINT, lw=0.8)
    left_ends, right_ends = [], []
    for name, images in read.images.groupby("final", sort=False):
        mark = marks[encoders[name]]
        predicted, share = reliability(images)
        left.plot(predicted, share, color=mark.colour, linestyle=mark.dash, marker=mark.symbol, ms=3.5, lw=1)
        if len(predicted):
            left_ends.append((float(predicted[-1]), float(share[-1]), str(name), mark.colour))
        right_ends += _threshold_lines(right, images, read.val_images[read.val_images.final == name], str(name), mark)
    left.set(title="Calibration, test pixels", xlabel="predicted probability", ylabel="share that is lesion")
    left.set(xlim=(0, 1), ylim=(0, 1))
    right.set(
        title="Dice by threshold: test solid, validation dotted", xlabel="threshold", ylabel="mean Dice", xlim=(0, 1)
    )
    for axis in (left, right):
        light_grid(axis)
    figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
    end_labels(left, left_ends)
    end_labels(right, right_ends)
    return figure


def reliability(images: pd.DataFrame) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean predicted probability and share of lesion pixels of each bin with enough pixels."""
    pixels, lesion, summed = (
        np.stack(list(images[name])).sum(axis=0) for name in ("bin_px", "bin_lesion_px", "bin_probability")
    )
    kept = pixels >= FEWEST_PIXELS
    return summed[kept] / pixels[kept], lesion[kept] / pixels[kept]


def dice_by_threshold(images: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Mean Dice over images at the thresholds 1 / BINS, 2 / BINS, ...; exact, from the bins of each image."""
    found_NK = np.stack(list(images.bin_px))[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    both_NK = np.stack(list(images.bin_lesion_px))[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    total_NK = found_NK + images.truth_px.to_numpy()[:, None]
    dice_NK = np.where(total_NK > 0, 2 * both_NK / np.maximum(total_NK, 1), 1.0)
    mean_K: npt.NDArray[np.float64] = dice_NK.mean(axis=0)
    return mean_K


def _threshold_lines(
    axis: Axes, test: pd.DataFrame, val: pd.DataFrame, name: str, mark: Mark
) -> list[tuple[float, float, str, str]]:
    thresholds = np.arange(1, BINS) / BINS
    on_test = dice_by_threshold(test)
    axis.plot(thresholds, on_test, color=mark.colour, linestyle="-", lw=1.1)
    if len(val):
        on_val = dice_by_threshold(val)
        axis.plot(thresholds, on_val, color=mark.colour, linestyle=":", lw=1)
        best = int(on_val.argmax())
        axis.plot(thresholds[best], on_val[best], mark.symbol, color=mark.colour, ms=5, mec="white", mew=0.6, zorder=4)
    return [(float(thresholds[-1]), float(on_test[-1]), name, mark.colour)]


@drawn
def froc(read: Read, width: float) -> Figure | None:
    """Lesions hit against false positives per image, with the middle 95 % over patients."""
    curves = froc_of(read.images, read.marks) if len(read.images) else {}
    if not curves:
        return None
    marks = marks_of(read.finals.encoder)
    encoders = read.finals.set_index("final").encoder
    figure = new_figure(width, 3.1)
    axis = figure.add_subplot()
    ends = []
    for name, curve in curves.items():
        mark, at = marks[encoders[name]], curve.at
        axis.fill_between(at.false_positives, at.low, at.high, color=mark.colour, alpha=0.12, lw=0)
        axis.plot(
            at.false_positives,
            at.sensitivity,
            color=mark.colour,
            linestyle=mark.dash,
            marker=mark.symbol,
            ms=4,
            mec="white",
            mew=0.5,
        )
        ends.append((RATES[-1], float(at.sensitivity.iloc[-1]), f"{name} {curve.score:.2f}", mark.colour))
    axis.set_xscale("log", base=2)
    axis.set_xticks(RATES, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axis.set(xlabel="false positives per image", ylabel="lesions hit", ylim=(0, 1.02))
    light_grid(axis)
    figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
    end_labels(axis, ends)
    axis.text(
        1,
        0.02,
        "beside a name: mean over the seven rates",
        transform=axis.transAxes,
        ha="right",
        fontsize=6.5,
        color=SOFT,
    )
    return figure
