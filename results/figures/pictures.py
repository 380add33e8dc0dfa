"""Pictures of films: what the finals predict on test images, and the paper's figure 1 of one film."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from data_prep.read.dicom import read_image
from data_prep.schema import ReadError
from data_prep.shape.geometry import find_geometry
from data_prep.shape.normalise import normalised_samples
from results.examples import CASES, Picture, cases, pictures
from results.figures.style import INK, SOFT, drawn, light_grid, narrow, new_figure
from results.palette import FOUND, TRUTH
from results.read import Read
from trainables.score.tables import found_mask

# H rows, W columns.

Mask = npt.NDArray[np.bool_]

DASH = (0, (3.2, 1.8))
MOST_FINALS = 4
LEAST_SHARE = 0.32
"""The window around a lesion shows at least this share of the image's side."""
LEAST_PX = 32
"""Or so many pixels, where that is more: of fewer nothing is recognised."""
AROUND = 2.2
"""And this many times the lesion's extent."""
WHOLE_SHARE = 0.75
"""A window of more than this share shows the whole image instead."""
FIGURE_PX = 512
TISSUE = 8
"""Grey value above which a pixel of the min-max picture is counted as the breast's."""
NAMES = {"minmax": "min-max", "zscore": "z-score", "clahe": "CLAHE"}


@drawn
def masks(read: Read, width: float) -> Figure | None:
    """Image, radiologist's outline, what each final predicts, with its Dice: best, median and worst case by rule."""
    if read.images.empty:
        return None
    known = pictures(read.study, read.trials.attrs["study"])
    chosen = cases(read.images, set(known))
    if not chosen:
        return None
    finals = list(read.finals.final[read.finals.final.isin(read.images.final)])[: 2 if narrow(width) else MOST_FINALS]
    columns = 1 + len(finals) if narrow(width) else 2 + len(finals)
    cell = (width - 0.28) / columns
    figure = new_figure(width, len(chosen) * cell + (0.42 if narrow(width) else 0.3))
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)  # type: ignore[union-attr, call-arg]
    grid = figure.subplots(len(chosen), columns, squeeze=False)
    for axes, (case, sample) in zip(grid, chosen, strict=True):
        _mask_row(list(axes), read, known[sample], sample, finals)
        axes[0].set_ylabel(f"{case}\n{_short(sample)}", fontsize=6.5, color=INK, labelpad=2)
    titles = ["image", *([] if narrow(width) else ["radiologist"]), *finals]
    for axis, title in zip(grid[0], titles, strict=True):
        axis.set_title(title, loc="center", fontsize=7.5, pad=3)
    _outline_legend(figure, len(known), narrow(width))
    return figure


def _mask_row(axes: list[Axes], read: Read, picture: Picture, sample: str, finals: list[str]) -> None:
    window = window_around(picture.truth_HW)
    for axis in axes:
        show(axis, picture.image_HW, window)
    if window is not None:
        _inset(axes[0], picture.image_HW, window)
    outline(axes[-len(finals) - 1], picture.truth_HW, TRUTH, dashed=True)
    rows = read.images[read.images.sample_id == sample].sort_values("trial_id")
    for axis, final in zip(axes[-len(finals) :], finals, strict=True):
        of_final = rows[rows.final == final]
        outline(axis, picture.truth_HW, TRUTH, dashed=True)
        if len(of_final):
            outline(axis, found_mask(of_final.found.iloc[0]), FOUND)
            _written(axis, f"Dice {of_final.dice.iloc[0]:.2f}")


def outline(axis: Axes, mask_HW: Mask, colour: str, *, dashed: bool = False) -> None:
    """A mask's border, smoothed, with a dark rim that makes it legible on white tissue too."""
    if not mask_HW.any() or mask_HW.all():
        return
    smooth_HW = cv2.GaussianBlur(mask_HW.astype(np.float32), (0, 0), 0.8 if mask_HW.sum() > 12 else 0.4)
    style: list[Any] = [DASH] if dashed else ["solid"]
    level = min(0.5, 0.9 * float(smooth_HW.max()))
    lines = axis.contour(smooth_HW, [level], colors=[colour], linewidths=1.1, linestyles=style)
    rim = patheffects.Stroke(linewidth=2.1, foreground="black", alpha=0.55)
    lines.set_path_effects([rim, patheffects.Normal()])


def window_around(truth_HW: Mask) -> tuple[float, float, float, float] | None:
    """(left, right, bottom, top) around the lesions; None where the whole image is as good."""
    if not truth_HW.any():
        return None
    rows, columns = np.where(truth_HW)
    side = float(min(truth_HW.shape))
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    half = max(LEAST_SHARE * side, LEAST_PX, AROUND * float(extent)) / 2
    if 2 * half > WHOLE_SHARE * side:
        return None
    y = np.clip((rows.min() + rows.max()) / 2, half, truth_HW.shape[0] - 1 - half)
    x = np.clip((columns.min() + columns.max()) / 2, half, truth_HW.shape[1] - 1 - half)
    return float(x - half), float(x + half), float(y + half), float(y - half)


def show(axis: Axes, image_HW: npt.NDArray[np.uint8], window: tuple[float, float, float, float] | None) -> None:
    """Show a grey image without axes; of it only the window (left, right, bottom, top), if there is one."""
    axis.imshow(image_HW, cmap="gray", vmin=0, vmax=255, interpolation="none")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
    if window is not None:
        axis.set_xlim(window[0], window[1])
        axis.set_ylim(window[2], window[3])


def _inset(axis: Axes, image_HW: npt.NDArray[np.uint8], window: tuple[float, float, float, float]) -> None:
    """The whole image in a corner, with the window marked."""
    small = axis.inset_axes((0.0, 0.0, 0.36, 0.36))
    show(small, image_HW, None)
    for spine in small.spines.values():
        spine.set(visible=True, color="white", linewidth=0.6)
    left, right, bottom, top = window
    small.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, ec="white", lw=0.6))


def _written(axis: Axes, text: str) -> None:
    rim = [patheffects.withStroke(linewidth=1.8, foreground="black")]
    look: dict[str, Any] = {"color": "white", "fontsize": 7, "fontweight": "bold", "path_effects": rim}
    axis.text(0.03, 0.03, text, transform=axis.transAxes, ha="left", va="bottom", **look)


def _short(sample: str) -> str:
    """A sample's name for the margin: its end, where it is long."""
    return sample if len(sample) <= 18 else f"…{sample[-17:]}"


def _outline_legend(figure: Figure, images: int, stacked: bool) -> None:
    # Darker than on the film: there a dark rim stands around them.
    handles = [
        Line2D([], [], color="#0a9cc4", lw=1.3, ls=DASH, label="radiologist"),
        Line2D([], [], color="#d98200", lw=1.3, label="network"),
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=2, borderpad=0, handlelength=2.2)
    shares = ", ".join(f"{share * 100:.0f}th" for _, share in CASES)
    text = f"{shares} percentile of the mean Dice over the finals, of {images} test images"
    figure.supxlabel(text.replace(", of", ",\nof") if stacked else text, x=0.01, ha="left", fontsize=6.5, color=SOFT)


@drawn
def normalisations(film: str | os.PathLike[str], width: float) -> Figure | None:
    """The paper's figure 1 of one film: with the breast's box, min-max, z-score, CLAHE; below, their grey values.

    Raises:
        ValueError: the film cannot be read, or shows no breast.
    """
    try:
        image_HW = read_image(film)
    except ReadError as error:
        raise ValueError(f"{film}: {error}") from error
    geometry = find_geometry(image_HW, size_px=FIGURE_PX)
    if geometry is None:
        raise ValueError(f"{film}: nothing on it looks like a breast")
    made = normalised_samples(image_HW, geometry, ("minmax", "zscore", "clahe"))
    columns = 2 if narrow(width) else 4
    figure = new_figure(width, 5.6 if narrow(width) else 2.75)
    rows = [3, 1] * (4 // columns)
    grid = figure.subplots(len(rows), columns, height_ratios=rows)
    original_HW, breast_HW = _thumbnail(image_HW), made["minmax"] > TISSUE
    tiles = [("original", original_HW, original_HW > TISSUE)]
    tiles += [(NAMES[name], made[name], breast_HW) for name in made]
    for n, (name, picture_HW, tissue_HW) in enumerate(tiles):
        upper, lower = (grid[2 * (n // columns) + k][n % columns] for k in (0, 1))
        upper.imshow(picture_HW, cmap="gray", vmin=0, vmax=255, interpolation="none")
        upper.set(xticks=[], yticks=[], title=name)
        _grey_values(lower, picture_HW[tissue_HW], first=n % columns == 0)
        if n == 0:
            _box(upper, image_HW, geometry.box)
    name = os.fspath(film).rsplit("/", 1)[-1]
    told = f"{name}:{chr(10) if narrow(width) else ' '}how often each grey value is among the breast's pixels"
    figure.supxlabel(told, fontsize=6.5, color=SOFT)
    return figure


def _thumbnail(image_HW: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The whole film under a plain linear window, at the figure's size."""
    scale = FIGURE_PX / max(image_HW.shape)
    size = (max(1, round(image_HW.shape[1] * scale)), max(1, round(image_HW.shape[0] * scale)))
    small_HW = cv2.resize(image_HW, size, interpolation=cv2.INTER_AREA).astype(np.float64)
    top = float(np.percentile(small_HW, 99.9)) or 1.0
    square_HW = np.zeros((FIGURE_PX, FIGURE_PX), np.uint8)
    square_HW[: small_HW.shape[0], : small_HW.shape[1]] = np.clip(small_HW / top * 255, 0, 255).astype(np.uint8)
    return square_HW


def _box(axis: Axes, image_HW: npt.NDArray[Any], box: tuple[int, int, int, int]) -> None:
    scale = FIGURE_PX / max(image_HW.shape)
    top, left, bottom, right = (edge * scale for edge in box)
    axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, ec=FOUND, lw=0.9))


def _grey_values(axis: Axes, grey_P: npt.NDArray[np.uint8], *, first: bool) -> None:
    """How often each grey value is among the breast's pixels P."""
    counts, edges = np.histogram(grey_P, bins=64, range=(0, 255))
    axis.stairs(counts / max(counts.sum(), 1), edges, fill=True, color="#8fa3b5")
    axis.set(xlim=(0, 255), xticks=[0, 128, 255], yticks=[])
    axis.spines["left"].set_visible(first)
    light_grid(axis, "x")
