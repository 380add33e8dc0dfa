"""A study at a glance: a test image with the truth and what the best final found, beside the table of encoders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.examples import CASES, Picture, cases, pictures
from results.figures.pictures import outline, show, window_around
from results.figures.style import INK, SOFT, drawn, marks_of, narrow, new_figure
from results.palette import FOUND, TRUTH
from results.read import Read
from results.summary import nas_table
from trainables.score.tables import found_mask

MEDIAN = CASES[1][0]
"""The case that is shown: neither the best nor the worst."""


@dataclass(frozen=True)
class _Case:
    """A test image and what a final found on it."""

    sample: str
    picture: Picture
    final: str
    found_HW: npt.NDArray[np.bool_]
    dice: float


@drawn
def summary(read: Read, width: float) -> Figure | None:
    """The median test image, its truth and its prediction; every encoder's Dice with the same settings and budget."""
    table = nas_table(read.trials).dropna(subset=["dice"])
    case = _median_case(read)
    if table.empty or case is None:
        return None
    picture = case.picture
    figure = new_figure(width, 3.4 if narrow(width) else 1.75)
    axes = (
        figure.subplot_mosaic([["image", "truth", "found"], ["chart", "chart", "chart"]])
        if narrow(width)
        else figure.subplot_mosaic([["image", "truth", "found", "chart"]], width_ratios=(1, 1, 1, 1.35))
    )
    for name, title in (("image", "image"), ("truth", "truth"), ("found", f"{case.final}, Dice {case.dice:.2f}")):
        show(axes[name], picture.image_HW, window_around(picture.truth_HW))
        axes[name].set_title(title, loc="center", fontsize=7.5, pad=3)
    outline(axes["truth"], picture.truth_HW, TRUTH)
    outline(axes["found"], case.found_HW, FOUND)
    _encoders(axes["chart"], table)
    about = read.trials.attrs
    told = f"test image {case.sample}, the median by Dice; {about['field_of_view']} view, {about['size_px']} px"
    figure.supxlabel(told, x=0.01, ha="left", fontsize=6.5, color=SOFT)
    return figure


def _median_case(read: Read) -> _Case | None:
    """The test image at the median of the Dice, where its picture is at hand, as the first final sees it."""
    if read.images.empty or read.finals.empty:
        return None
    known = pictures(read.study, read.trials.attrs["study"])
    sample = dict(cases(read.images, set(known))).get(MEDIAN)
    rows = read.images[(read.images.sample_id == sample) & (read.images.final == read.finals.final.iloc[0])]
    if rows.empty or sample is None:
        return None
    first = rows.sort_values("trial_id").iloc[0]
    return _Case(sample, known[sample], str(first.final), found_mask(first.found), float(first.dice))


def _encoders(axis: Axes, table: pd.DataFrame) -> None:
    """A row for each encoder, the best on top: its Dice with the paper's settings and the search's budget."""
    ordered = table.sort_values("dice")
    marks = marks_of(ordered.encoder)
    for place, (encoder, dice) in enumerate(zip(ordered.encoder, ordered.dice.astype(float), strict=True)):
        axis.plot(dice, place, marks[encoder].symbol, color=marks[encoder].colour, markersize=5)
        axis.annotate(f"{dice:.2f}", (dice, place), (5, 0), textcoords="offset points", fontsize=6.5, va="center")
    axis.set_yticks(range(len(ordered)), list(ordered.encoder))
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    axis.set_ylim(-0.6, len(ordered) - 0.4)
    axis.margins(x=0.15)
    axis.grid(axis="x")
    axis.set_title("validation Dice, same settings", fontsize=7.5, pad=3)
