"""A mask as DICOM Segmentation (PS3.3, A.51): one segment a lesion, on the film's own grid.

BINARY is what every viewer reads. FRACTIONAL holds the probability in steps of 1/255, compressed by JPEG-LS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from clinic.dicom.source import MANUFACTURER, Maker
from data_prep.shape.box import Box

MOST_SEGMENTS = 9
"""Each segment is a frame of the film's size: of a mask in many crumbs, the small ones share the last segment."""
NO_PLANE = "Lesions marked by a neural network; not for diagnosis"
MADE_UP_PLANE = "Position and spacing in space are made up for viewers; nothing may be measured by them"


@dataclass(frozen=True)
class Lesion:
    """What a segment shows."""

    label: str
    box: Box
    mask_hw: np.ndarray
    """Inside the box: above 0 where the lesion is."""


def segmentation(
    source: Dataset,
    lesions: Sequence[Lesion],
    maker: Maker,
    *,
    plane_geometry: bool = False,
    by_person: bool = False,
) -> Segmentation:
    """The lesions of a film as a BINARY segmentation; one empty segment where there is none.

    Args:
        source: from `completed`, with the same `plane_geometry`.
        lesions: that do not overlap, the most important first.
        maker: who marked them.
        plane_geometry: see `completed`.
        by_person: whether a person drew or corrected the mask (the type is then SEMIAUTOMATIC).
    """
    groups = grouped(lesions)
    labels_HW = np.zeros((source.Rows, source.Columns), np.uint8)
    for number, (_, members) in enumerate(groups, start=1):
        for lesion in members:
            at = lesion.box
            labels_HW[at.top : at.bottom, at.left : at.right][lesion.mask_hw > 0] = number
    descriptions = [
        _description(number, label, source, maker, by_person=by_person)
        for number, (label, _) in enumerate(groups or [("No lesion", [])], start=1)
    ]
    return _finished(
        source,
        labels_HW,
        descriptions,
        maker,
        kind="BINARY",
        syntax=ExplicitVRLittleEndian,
        plane_geometry=plane_geometry,
    )


def probability_map(
    source: Dataset, probability_HW: np.ndarray, maker: Maker, *, plane_geometry: bool = False
) -> Segmentation:
    """The probability of a lesion in each pixel, as a FRACTIONAL segmentation.

    Args:
        source: from `completed`, with the same `plane_geometry`.
        probability_HW: float, in [0, 1].
        maker: which model said so.
        plane_geometry: see `completed`.
    """
    return _finished(
        source,
        probability_HW.astype(np.float32),
        [_description(1, "Probability of a lesion", source, maker)],
        maker,
        kind="FRACTIONAL",
        syntax=JPEGLSLossless,
        plane_geometry=plane_geometry,
    )


def grouped(lesions: Sequence[Lesion]) -> list[tuple[str, list[Lesion]]]:
    """Segment by segment: its label and its lesions. The last one takes all that find no segment of their own."""
    if len(lesions) <= MOST_SEGMENTS:
        return [(lesion.label, [lesion]) for lesion in lesions]
    first, rest = lesions[: MOST_SEGMENTS - 1], lesions[MOST_SEGMENTS - 1 :]
    return [*((lesion.label, [lesion]) for lesion in first), (f"{len(rest)} smaller regions", list(rest))]


def _description(
    number: int, label: str, source: Dataset, maker: Maker, *, by_person: bool = False
) -> SegmentDescription:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=f"{MANUFACTURER} {maker.model}"[:64], family=codes.DCM.ArtificialIntelligence, version=maker.version
    )
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type="SEMIAUTOMATIC" if by_person else "AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=maker.uid(source, f"lesion {number}"),
        tracking_id=label,
        anatomic_regions=[codes.SCT.Breast],
    )


def _finished(
    source: Dataset,
    pixels_HW: np.ndarray,
    descriptions: list[SegmentDescription],
    maker: Maker,
    *,
    kind: str,
    syntax: str,
    plane_geometry: bool,
) -> Segmentation:
    made = Segmentation(
        source_images=[source],
        pixel_array=pixels_HW,
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=maker.uid(source, f"{kind} series"),
        series_number=100 if kind == "BINARY" else 101,
        sop_instance_uid=maker.uid(source, kind),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=maker.model[:64],
        software_versions=maker.version,
        device_serial_number=maker.serial,
        content_description=(MADE_UP_PLANE if plane_geometry else NO_PLANE)[:64],
        series_description="MammoSearch lesions" if kind == "BINARY" else "MammoSearch probability",
        transfer_syntax_uid=syntax,
        omit_empty_frames=False,
    )
    made.PatientOrientation = None  # type 2C: highdicom leaves it out, and CBIS-DDSM's source has the view in it
    if plane_geometry:
        made.PositionReferenceIndicator = ""
    return made
