"""A film for a person's eye, and the mask that a person leaves: what the page shows, and what comes of a decision."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from pydicom.dataset import Dataset

from clinic.archive.identity import FilmFacts, FilmIds
from clinic.dicom.segmentation import Lesion, segmentation
from clinic.dicom.source import Maker, SourceError, completed
from clinic.predict.lesions import Region, find_regions
from clinic.predict.outputs import to_bytes
from clinic.predict.prediction import Prediction
from data_prep.shape.normalise import WINDOW, minmax

Decision = Literal["accept", "redraw", "reject"]
DECISIONS: tuple[Decision, ...] = ("accept", "redraw", "reject")
PICTURE_PX = 1600
"""Longer side of the picture that the page shows."""
MOST_POINTS = 20_000
MOST_OUTLINES = 100
Outline = Sequence[tuple[float, float]]
"""Points of a closed line: column and row in the film's pixels."""


@dataclass(frozen=True, kw_only=True)
class Review:
    """What a person's decision comes to."""

    regions: list[np.ndarray]
    """One mask a lesion, of the film's size: uint8 of 0 and 1. None where the film was rejected."""
    image_HW: np.ndarray
    segmentation: bytes | None
    """DICOM; None of a film that is none."""
    ids: FilmIds | None
    """Whose film it is; None of a film that is no DICOM."""
    side: str = ""
    view: str = ""


def look_json(image_HW: np.ndarray, prediction: Prediction, model: str) -> dict[str, Any]:
    """A film as the page wants it: a picture, and the model's outlines in the film's pixels."""
    rows, columns = image_HW.shape
    scale = min(1.0, PICTURE_PX / max(rows, columns))
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    picture = minmax(cv2.resize(image_HW, size, interpolation=cv2.INTER_AREA), window=WINDOW)
    done, png = cv2.imencode(".png", picture)
    assert done, picture.shape
    return {
        "rows": rows,
        "columns": columns,
        "model": model,
        "threshold": prediction.threshold,
        "picture": base64.b64encode(png.tobytes()).decode(),
        "lesions": [_lesion_json(region) for region in prediction.regions],
    }


def review(
    image_HW: np.ndarray,
    header: Dataset | None,
    prediction: Prediction,
    maker: Maker,
    *,
    decision: Decision,
    outlines: Sequence[Outline] = (),
    plane_geometry: bool = False,
) -> Review:
    """What comes of a decision about a film.

    Args:
        image_HW: the film.
        header: every tag before its pixels; None of a film that is no DICOM.
        prediction: what the model said.
        maker: of the model's objects.
        decision: `accept` keeps the model's mask, `redraw` takes the outlines instead, `reject` keeps nothing.
        outlines: what was drawn.
        plane_geometry: see `clinic.dicom.source.completed`.

    Raises:
        ValueError: what was drawn is no outline, or lies outside of the film.
    """
    drawn = {"accept": prediction.regions, "reject": [], "redraw": None}[decision]
    regions = draw(outlines, image_HW.shape) if drawn is None else drawn
    masks = [_whole(region, image_HW.shape) for region in regions]
    if header is None:
        return Review(regions=masks, image_HW=image_HW, segmentation=None, ids=None)
    by = replace(maker, settings=f"{maker.settings} {decision} {_shape_of(outlines)}")
    source = completed(header, plane_geometry=plane_geometry)
    lesions = [Lesion(f"Lesion {region.number}", region.box, region.mask_hw) for region in regions]
    made = segmentation(source, lesions, by, plane_geometry=plane_geometry, by_person=True)
    try:
        facts = FilmFacts.of(header)
        side, view = {"L": "LEFT", "R": "RIGHT"}.get(facts.laterality, ""), facts.view
    except SourceError:
        side = view = ""
    return Review(
        regions=masks,
        image_HW=image_HW,
        segmentation=to_bytes(made),
        ids=FilmIds.of(header),
        side=side,
        view=view if view in ("CC", "MLO") else "",
    )


def draw(outlines: Sequence[Outline], shape: tuple[int, ...]) -> list[Region]:
    """Closed lines as regions, filled; those that touch are one.

    Raises:
        ValueError: there is none, one has fewer than three points, too many, or points outside of the film.
    """
    if not 1 <= len(outlines) <= MOST_OUTLINES:
        raise ValueError(f"draw between 1 and {MOST_OUTLINES} outlines; there are {len(outlines)}")
    mask_HW = np.zeros(shape, np.uint8)
    for number, outline in enumerate(outlines, start=1):
        points_K2 = np.asarray(outline, dtype=np.float64)
        if points_K2.ndim != 2 or points_K2.shape[1] != 2 or not 3 <= len(points_K2) <= MOST_POINTS:
            raise ValueError(f"outline {number} is no closed line of 3 to {MOST_POINTS} points")
        if not np.isfinite(points_K2).all() or (points_K2 < -0.5).any() or (points_K2 > np.array(shape[::-1])).any():
            raise ValueError(f"outline {number} leaves the film of {shape[0]} x {shape[1]} pixels")
        cv2.fillPoly(mask_HW, [np.rint(points_K2).astype(np.int32)], 1)
    return find_regions(mask_HW, mask_HW.astype(np.float32))


def _whole(region: Region, shape: tuple[int, ...]) -> np.ndarray:
    mask_HW = np.zeros(shape, np.uint8)
    mask_HW[region.box.top : region.box.bottom, region.box.left : region.box.right] = region.mask_hw
    return mask_HW


def _lesion_json(region: Region) -> dict[str, Any]:
    return {
        "lesion": region.number,
        "area_px": region.area_px,
        "probability": round(region.mean_probability, 3),
        "outlines": [line.tolist() for line in region.contours()],
    }


def _shape_of(outlines: Sequence[Outline]) -> str:
    return repr([[(round(column, 2), round(row, 2)) for column, row in outline] for outline in outlines])
