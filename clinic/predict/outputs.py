"""What is written about a film: mask, pictures, outlines and DICOM objects, all on the film's own grid."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from pydicom.dataset import Dataset

from clinic.dicom.presentation import presentation
from clinic.dicom.report import Findings, report
from clinic.dicom.segmentation import Lesion, grouped, probability_map, segmentation
from clinic.dicom.source import Maker, completed
from clinic.predict.lesions import Region
from clinic.predict.prediction import Prediction
from data_prep.shape.normalise import WINDOW, minmax

Output = Literal["mask", "overlay", "contours", "probability", "seg", "report", "presentation", "fractional"]
OUTPUTS: tuple[Output, ...] = get_args(Output)
DEFAULT_OUTPUTS: tuple[Output, ...] = ("mask", "overlay", "contours", "seg", "report", "presentation")
OF_DICOM: tuple[Output, ...] = ("seg", "report", "presentation", "fractional")
"""Need a film that is DICOM itself."""
SUFFIXES: dict[Output, str] = {
    "mask": ".mask.png",
    "overlay": ".overlay.png",
    "contours": ".contours.json",
    "probability": ".probability.png",
    "seg": ".seg.dcm",
    "report": ".report.dcm",
    "presentation": ".presentation.dcm",
    "fractional": ".probability.dcm",
}
OVERLAY_PX = 1600
"""Longer side of the overlay picture."""
OUTLINE_COLOUR = (0, 190, 255)
BOX_COLOUR = (200, 150, 60)
FAST_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]


@dataclass(frozen=True)
class Result:
    """A film with what the models saw on it."""

    image_HW: np.ndarray
    header: Dataset | None
    """Every tag before the pixels; None of a film that is no DICOM."""
    prediction: Prediction
    maker: Maker
    plane_geometry: bool = False


def render(result: Result, wanted: Sequence[Output]) -> dict[Output, bytes]:
    """The files of a film, by kind; without those that need a DICOM film where it is none.

    Raises:
        SourceError: the film's header lacks what identifies it.
    """
    pictures: dict[Output, Callable[[], bytes]] = {
        "mask": lambda: _png(result.prediction.mask_HW * np.uint8(255), FAST_PNG),
        "overlay": lambda: _png(overlay(result.image_HW, result.prediction), []),
        "contours": lambda: contours_json(result.prediction).encode(),
        "probability": lambda: _png(np.rint(result.prediction.probability_HW * 65535).astype(np.uint16), FAST_PNG),
    }
    files = {name: pictures[name]() for name in wanted if name in pictures}
    return files | dicom_objects(result, wanted)


def dicom_objects(result: Result, wanted: Sequence[Output]) -> dict[Output, bytes]:
    """The DICOM objects about a film, by kind. Raises SourceError."""
    objects = [name for name in wanted if name in OF_DICOM]
    if result.header is None or not objects:
        return {}
    source = completed(result.header, plane_geometry=result.plane_geometry)
    regions, maker, plane = result.prediction.regions, result.maker, result.plane_geometry
    lesions = [Lesion(_label(region), region.box, region.mask_hw) for region in regions]
    made: dict[Output, Dataset] = {}
    if "seg" in objects or "report" in objects:
        segments = segmentation(source, lesions, maker, plane_geometry=plane)
        made["seg"] = segments
        if "report" in objects:
            made["report"] = report(source, segments, findings(regions), maker)
    if "presentation" in objects:
        outlines = [(_label(region), region.outline()) for region in regions[:MOST_OUTLINES]]
        made["presentation"] = presentation(source, outlines, maker)
    if "fractional" in objects:
        made["fractional"] = probability_map(source, result.prediction.probability_HW, maker, plane_geometry=plane)
    return {name: to_bytes(made[name]) for name in objects}


MOST_OUTLINES = 50
"""Regions whose outline is drawn in a presentation state, the largest first."""


def findings(regions: Sequence[Region]) -> list[Findings]:
    """What a report says of each segment of `segmentation`, which gathers small regions in its last one."""
    by_label = {_label(region): region for region in regions}
    groups = grouped([Lesion(_label(region), region.box, region.mask_hw) for region in regions])
    return [
        _finding(number, label, [by_label[lesion.label] for lesion in members])
        for number, (label, members) in enumerate(groups, start=1)
    ]


def _finding(number: int, label: str, members: list[Region]) -> Findings:
    area_px = sum(region.area_px for region in members)
    areas_mm2 = [region.area_mm2 for region in members if region.area_mm2 is not None]
    return Findings(
        label=label,
        segment=number,
        area_px=area_px,
        mean_probability=sum(region.mean_probability * region.area_px for region in members) / area_px,
        area_mm2=sum(areas_mm2) if areas_mm2 else None,
        diameter_mm=members[0].diameter_mm if len(members) == 1 else None,
    )


def overlay(image_HW: np.ndarray, prediction: Prediction) -> np.ndarray:
    """The film, at most 1,600 pixels high, with the outlines of the lesions: uint8 (h, w, 3) in blue, green, red."""
    scale = min(1.0, OVERLAY_PX / max(image_HW.shape))
    size = (max(1, round(image_HW.shape[1] * scale)), max(1, round(image_HW.shape[0] * scale)))
    small = cv2.resize(image_HW, size, interpolation=cv2.INTER_AREA)
    picture = cv2.cvtColor(minmax(small, window=WINDOW), cv2.COLOR_GRAY2BGR)
    edges = [round(edge * scale) for edge in prediction.box]
    cv2.rectangle(picture, (edges[1], edges[0]), (edges[3] - 1, edges[2] - 1), BOX_COLOUR, 1)
    width, letters = max(1, round(max(size) / 600)), max(0.4, max(size) / 1400)
    for region in prediction.regions:
        lines = [np.rint((line + 0.5) * scale - 0.5).astype(np.int32) for line in region.contours()]
        cv2.polylines(picture, lines, True, OUTLINE_COLOUR, width, cv2.LINE_AA)
        left, top = lines[0].min(axis=0)
        place = (int(left), max(12, int(top) - 4))
        text = str(region.number)
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, letters, OUTLINE_COLOUR, width, cv2.LINE_AA)
    return picture


def contours_json(prediction: Prediction) -> str:
    """The outlines as JSON: per lesion its number and box, and closed lines of [column, row] in the film's pixels."""
    rows, columns = prediction.mask_HW.shape
    lesions = [
        {
            "lesion": region.number,
            "box": list(region.box),
            "outlines": [line.tolist() for line in region.contours()],
        }
        for region in prediction.regions
    ]
    return json.dumps({"rows": rows, "columns": columns, "threshold": prediction.threshold, "lesions": lesions})


def to_bytes(dataset: Dataset) -> bytes:
    """A DICOM object as the content of a file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _label(region: Region) -> str:
    return f"Lesion {region.number}"


def _png(picture: np.ndarray, options: list[int]) -> bytes:
    done, data = cv2.imencode(".png", picture, options)
    assert done, picture.shape
    return bytes(data.tobytes())
