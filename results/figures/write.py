"""Every figure of a study by its name, and how they are written: `python -m results.run figures runs/nas`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from matplotlib.figure import Figure

from cluster.storage import Folder
from results.figures import curves, pictures, scores, search
from results.figures.style import COLUMN_IN, PAPER_IN, encoded
from results.figures.summary import summary
from results.read import Read, read_study

FOLDER = "figures"
FORMATS = ("png", "svg")
Width = Literal["paper", "column"]
WIDTHS: dict[Width, float] = {"paper": PAPER_IN, "column": COLUMN_IN}

FIGURES: dict[str, Callable[[Read, float], Figure | None]] = {
    "summary": summary,
    "finals": scores.finals,
    "training": curves.training,
    "masks": pictures.masks,
    "lesion_size": scores.sizes,
    "froc": scores.froc,
    "calibration": scores.calibration,
    "trials": curves.trials,
    "front": search.front,
    "importance": search.importance,
    "settings": search.settings,
    "slots": search.slots,
    "cost": search.cost,
}
"""Each gives None where the study has nothing for it. `training` is the paper's figure 2, `masks` its figure 3."""
NORMALISATIONS = "normalisations"
"""The paper's figure 1: of one film, not of a study."""


def write_figures(
    study: str, out: Folder, *, only: Sequence[str] = (), width: Width = "paper", film: str | None = None
) -> list[str]:
    """Write figures as PNG and SVG below `figures/`; returns what was written.

    Args:
        study: path or URI of the study's folder.
        out: where `figures/` is made.
        only: names of `FIGURES`; all that the study has something for if there is none.
        width: `paper` is two columns wide, `column` one, which is legible on a phone.
        film: draw `normalisations` of this film too.

    Raises:
        FileNotFoundError: `study` is not a study's folder.
        ValueError: no such figure; the study has nothing for any of them; the film cannot be read.
    """
    if unknown := [name for name in only if name not in FIGURES]:
        raise ValueError(f"there is no figure {', '.join(map(repr, unknown))}; there is {', '.join(FIGURES)}")
    read = read_study(study)
    written: list[str] = []
    for name in only or FIGURES:
        written += _write(out, name, FIGURES[name](read, WIDTHS[width]))
    if film is not None:
        written += _write(out, NORMALISATIONS, pictures.normalisations(film, WIDTHS[width]))
    if not written:
        raise ValueError(f"{study} has nothing to draw yet: no trial has finished an epoch, or the figures need finals")
    return written


def _write(out: Folder, name: str, figure: Figure | None) -> list[str]:
    if figure is None:
        return []
    files = [f"{FOLDER}/{name}.{file_format}" for file_format in FORMATS]
    for file, file_format in zip(files, FORMATS, strict=True):
        out.write_bytes(file, encoded(figure, file_format))
    return [f"{out}/{file}" for file in files]
