"""The region of a lesion as a DICOM object of its own: full resolution, lossless, nothing else of the film.

Films use a few thousand of 65,536 grey values (12-bit scanners, stretched). So the object stores the rank of each value
among those that occur, and the values themselves as a Modality LUT (PS3.3, C.11.1), which viewers apply. Under JPEG-LS
that takes two thirds of the space of the values themselves.

Shapes in names: `h`, `w` rows and columns of the region.
"""

from __future__ import annotations

import hashlib

import highdicom as hd
import numpy as np
from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut
from pydicom.sequence import Sequence
from pydicom.uid import JPEGLSLossless

from clinic.archive.identity import FilmFacts, FilmIds
from clinic.dicom.source import MANUFACTURER
from data_prep.shape.box import Box

LARGEST_VALUE = 65535
MOST_VALUES = 65535
"""Entries of a table: more of them save nothing."""
TIMES_AND_TOOLS = (
    "InstanceCreationDate",
    "InstanceCreationTime",
    "ContentDate",
    "ContentTime",
    "DateOfSecondaryCapture",
    "TimeOfSecondaryCapture",
    "ContributingEquipmentSequence",
)
"""What highdicom adds of its own: the time of archiving. Without it the same film gives the same bytes."""
PROFILE = ("113100", "DCM", "Basic Application Confidentiality Profile")


def roi_object(stored_hw: np.ndarray, facts: FilmFacts, ids: FilmIds, at: Box, number: int) -> Dataset:
    """A region of a film as a Secondary Capture, compressed by JPEG-LS without loss.

    Args:
        stored_hw: the film's stored values inside the region (`read_stored`).
        facts: of the film's header.
        ids: pseudonyms.
        at: where the region lies on the film.
        number: of the region on its film, from 1.
    """
    values, pixels_hw = _ranked(stored_hw, facts)
    made = new_object(pixels_hw, facts, ids, number=number)
    made.DerivationDescription = f"Region from row {at.top}, column {at.left} of the film, counted from 0"
    if values is not None:
        _add_table(made, values)
        made.BitsStored = max(1, int(len(values) - 1).bit_length())
        made.HighBit = made.BitsStored - 1
    made.compress(JPEGLSLossless, encoding_plugin="pyjpegls", generate_instance_uid=False)
    return made


def new_object(pixels_hw: np.ndarray, facts: FilmFacts, ids: FilmIds, *, number: int) -> Dataset:
    """A Secondary Capture with the facts that may be kept, and pseudonyms. Uncompressed.

    Args:
        pixels_hw: unsigned.
        facts: of the film's header.
        ids: pseudonyms.
        number: its instance number.
    """
    made = SCImage(
        pixel_array=pixels_hw,
        photometric_interpretation=facts.photometric,
        bits_allocated=8 * pixels_hw.itemsize,
        coordinate_system="PATIENT",
        patient_orientation=("A", "F"),
        laterality=facts.laterality or None,
        patient_id=ids.patient,
        study_instance_uid=ids.study_uid,
        series_instance_uid=ids.series_uid,
        series_number=1,
        sop_instance_uid=ids.sop_uid,
        instance_number=number,
        manufacturer=MANUFACTURER,
        pixel_spacing=facts.spacing,
    )
    for name in TIMES_AND_TOOLS:
        if name in made:
            del made[name]
    made.Modality = "MG"
    made.BodyPartExamined = "BREAST"
    made.BitsStored, made.HighBit = facts.bits_stored, facts.bits_stored - 1
    made.BurnedInAnnotation = "NO"  # regions lie inside the breast's box, film labels outside
    made.PatientIdentityRemoved = "YES"
    made.LongitudinalTemporalInformationModified = "REMOVED"
    made.DeidentificationMethodCodeSequence = Sequence([hd.sr.CodedConcept(*PROFILE)])
    if facts.view:
        made.ViewPosition = facts.view
    if facts.rescale:
        made.RescaleSlope, made.RescaleIntercept, made.RescaleType = *facts.rescale, "US"
    if facts.window:
        made.WindowCenter, made.WindowWidth = facts.window
    return made


def stored_values(made: Dataset) -> np.ndarray:
    """The film's stored values of a region that `roi_object` made: the table undone."""
    pixels_hw = made.pixel_array
    if "ModalityLUTSequence" not in made:
        return pixels_hw
    return np.asarray(apply_modality_lut(pixels_hw, made)).astype(np.uint16)


def pixel_sha256(stored_hw: np.ndarray) -> str:
    """Of the stored values, row by row, 16-bit ones little-endian."""
    return hashlib.sha256(
        np.ascontiguousarray(stored_hw.astype(stored_hw.dtype.newbyteorder("<"))).tobytes()
    ).hexdigest()


def _ranked(stored_hw: np.ndarray, facts: FilmFacts) -> tuple[np.ndarray | None, np.ndarray]:
    """(the values that occur, the rank of each pixel's); (None, the pixels) where ranks save nothing."""
    if stored_hw.dtype != np.uint16 or facts.rescale:  # a table and a slope exclude each other
        return None, stored_hw
    values, ranks = np.unique(stored_hw, return_inverse=True)
    if values[-1] != LARGEST_VALUE:
        values = np.append(values, np.uint16(LARGEST_VALUE))  # a table of 16 bits must use them
    if len(values) > min(MOST_VALUES, 1 << (facts.bits_stored - 1)):
        return None, stored_hw
    return values, ranks.reshape(stored_hw.shape).astype(np.uint16)


def _add_table(made: Dataset, values: np.ndarray) -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [len(values), 0, 16])
    table.ModalityLUTType = "US"
    table.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    made.ModalityLUTSequence = Sequence([table])
