"""The paper's figures 2 and 3 from a study's folder, as PNG. Needs matplotlib: `pip install 'mammosearch[figures]'`.

validation_curves   Dice and IoU on the validation split, epoch by epoch, one line per final (figure 2)
mask_pictures       images, their true outline, and the outline each final predicts (figure 3)
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from cluster.storage import Folder
from results.table import load, load_epochs, records, study_folder
from trainables.record import Examples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# H, W: rows and columns of the images; N: number of images.

Image = npt.NDArray[np.uint8]

CURVES = (("val_dice", "Dice"), ("val_iou", "IoU"))
ROWS_OF_PICTURES = 6


def validation_curves(epochs: pd.DataFrame) -> Figure:
    """Dice and IoU per epoch, from `load_epochs`: a line per final, or per trial while there are no finals.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra.
        ValueError: no epoch is finished yet.
    """
    if epochs.empty:
        raise ValueError("no epoch of any trial is finished yet: there is no curve to draw")
    finals = epochs[epochs.role == "final"]
    drawn = finals if len(finals) else epochs
    figure = _new_figure(width=9.0, height=3.8)
    axes = figure.subplots(1, len(CURVES), sharex=True)
    for axis, (measure, title) in zip(axes, CURVES, strict=True):
        for trial_id, rows in drawn.groupby("trial_id", sort=False):
            label = rows.encoder.iloc[0] if len(finals) else trial_id
            axis.plot(rows.epoch, rows[measure], marker=".", label=label)
        axis.set(title=f"Validation {title}", xlabel="epoch", ylim=(0, 1))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    if len(axes[0].get_lines()) <= 12:
        axes[-1].legend(fontsize="small")
    return figure


def mask_pictures(examples: dict[str, Examples], threshold: float = 0.5) -> Figure:
    """Columns: the image, then one per model; the true outline is green, the predicted one red.

    Args:
        examples: by model name; all must be of the same samples in the same order.
        threshold: probability above which a pixel is lesion.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra.
        ValueError: the models were not given the same samples.
    """
    first = next(iter(examples.values()))
    for name, other in examples.items():
        if list(other.sample_ids) != list(first.sample_ids):
            raise ValueError(f"the examples of {name} are of other samples than those of {next(iter(examples))}")
    rows = min(ROWS_OF_PICTURES, len(first.sample_ids))
    figure = _new_figure(width=2.2 * (1 + len(examples)), height=2.3 * rows)
    axes = figure.subplots(rows, 1 + len(examples), squeeze=False)
    for row in range(rows):
        _draw(axes[row][0], first.image_NHW[row], truth_HW=first.mask_NHW[row])
        axes[row][0].set_title(first.sample_ids[row], fontsize=6)
        for axis, (name, example) in zip(axes[row][1:], examples.items(), strict=True):
            found_HW = example.probability_NHW[row] > threshold
            _draw(axis, example.image_NHW[row], truth_HW=example.mask_NHW[row], found_HW=found_HW)
            axis.set_title(f"{name}: Dice {_dice(example.mask_NHW[row] > 0, found_HW):.2f}", fontsize=7)
    return figure


def write_figures(study: str, out: Folder) -> list[str]:
    """Write `validation_curves.png`, and `masks.png` where the finals kept examples; returns what was written.

    Raises:
        FileNotFoundError: `study` is not a study's folder.
        ImportError: matplotlib is not installed; the message names the extra.
        ValueError: no epoch is finished yet.
    """
    trials = load(study)
    out.write_bytes("validation_curves.png", encoded(validation_curves(load_epochs(study)), "png"))
    examples = load_examples(study)
    if not examples:
        return [f"{out}/validation_curves.png"]
    thresholds = trials[trials.role == "final"].threshold.dropna()
    figure = mask_pictures(examples, float(thresholds.iloc[0]) if len(thresholds) else 0.5)
    out.write_bytes("masks.png", encoded(figure, "png"))
    return [f"{out}/validation_curves.png", f"{out}/masks.png"]


def load_examples(study: str) -> dict[str, Examples]:
    """The kept test examples of the finals by the name of their folders; finals without any are left out."""
    kept = {r.folder.name: r.examples() for r, final in records(study_folder(study)) if final}
    return {name: examples for name, examples in kept.items() if examples is not None}


def encoded(figure: Figure, file_format: str) -> bytes:
    """A figure as the bytes of a `png` or `svg` file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file_format, dpi=150)
    return buffer.getvalue()


def _new_figure(*, width: float, height: float) -> Figure:
    """An empty figure in inches, drawn without a display."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'mammosearch[figures]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def _draw(axis, image_HW: Image, *, truth_HW: npt.NDArray, found_HW: npt.NDArray | None = None) -> None:  # type: ignore[no-untyped-def]
    axis.imshow(image_HW, cmap="gray", vmin=0, vmax=255)
    for mask_HW, colour in ((truth_HW, "lime"), (found_HW, "red")):
        if mask_HW is not None and mask_HW.any() and not mask_HW.all():
            axis.contour(mask_HW, levels=[0.5], colors=[colour], linewidths=0.8)
    axis.set_axis_off()


def _dice(truth_HW: npt.NDArray[np.bool_], found_HW: npt.NDArray[np.bool_]) -> float:
    """Hard Dice of one image; 1 where both masks are empty."""
    total = int(truth_HW.sum()) + int(found_HW.sum())
    return 2 * int((truth_HW & found_HW).sum()) / total if total else 1.0
