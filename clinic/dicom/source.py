"""The film that an object is about: its header made fit to be referred to, its spacing, and who made the object.

DICOM's derived objects repeat patient and study of their source (PS3.3, C.7.1.1 and C.7.2.1). Real headers lack some of
these; what may be empty (type 2) is added empty here, on a copy. What must be there is asked for by name.
"""

from __future__ import annotations

import hashlib
import logging
import math
import warnings
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid

for _library in ("highdicom", "pydicom"):
    # Both quote a header's values, patients' names among them, in their warnings: these must not reach any log.
    warnings.filterwarnings("ignore", module=_library)
    logging.getLogger(_library).setLevel(logging.CRITICAL)

IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
"""Without these nothing can refer to a film."""
MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
MANUFACTURER = "MammoSearch"
LARGEST_SPACING_MM = 5.0
"""A pixel of a mammogram is 0.04 to 0.2 mm wide; beyond this the header is wrong."""


class SourceError(ValueError):
    """A film that no DICOM object can be made about; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Maker:
    """Who makes an object: goes into its equipment module, and into its UIDs."""

    model: str
    """Name of the model, or of several joined by `+`."""
    version: str
    """Of this software."""
    settings: str
    """What else decides the content: weights, threshold, flips. The same on the same film gives the same UID."""

    @property
    def serial(self) -> str:
        """A short name of the settings, in the place of a device's serial number."""
        return hashlib.sha256(self.settings.encode()).hexdigest()[:16]

    def uid(self, source: Dataset, kind: str) -> UID:
        """The UID of an object about a film: the same for the same film, model and settings.

        A film that is sent twice gets the same answer, which an archive then keeps once.
        """
        return generate_uid(entropy_srcs=[str(source.SOPInstanceUID), kind, self.model, self.version, self.settings])


def completed(header: Dataset, *, plane_geometry: bool = False) -> Dataset:
    """A copy of a film's header that objects can be made about.

    Args:
        header: every tag before the pixels (`read_dataset`).
        plane_geometry: add a position, an orientation and a spacing in space, which a mammogram does not have, because
            viewers built for tomography (OHIF) show no segmentation without. They are made up where the header has
            no spacing: nothing may be measured by them.

    Raises:
        SourceError: the header lacks what identifies a film.
    """
    missing = [name for name in IDENTITY if not header.get(name)]
    if missing:
        raise SourceError(f"the header lacks {', '.join(missing)}, so nothing can refer to the film")
    source = Dataset()
    source.update({element.tag: element for element in header})
    for name in MAY_BE_EMPTY:
        if name not in source or source[name].value is None:
            setattr(source, name, "")
    for name in ("PixelSpacing", "ImagerPixelSpacing"):  # highdicom takes them as a pair of numbers
        if name in source and _pair(source, name) is None:
            delattr(source, name)
    if plane_geometry:
        _add_plane(source)
    return source


def spacing_mm(header: Dataset) -> tuple[float, float] | None:
    """Millimetres in the breast between the centres of rows and of columns; None where the header does not tell.

    Pixel Spacing (0028,0030) where it is calibrated; else Imager Pixel Spacing (0018,1164), which holds at the
    detector, divided by Estimated Radiographic Magnification Factor (0018,1114) (PS3.3, 10.7.1.3 and C.8.11.7).
    """
    if pair := _pair(header, "PixelSpacing"):
        return pair
    pair = _pair(header, "ImagerPixelSpacing")
    if pair is None:
        return None
    factor = _number(header.get("EstimatedRadiographicMagnificationFactor")) or 1.0
    return (pair[0] / factor, pair[1] / factor) if 0.5 <= factor <= 4 else None


def _add_plane(source: Dataset) -> None:
    source.FrameOfReferenceUID = generate_uid(entropy_srcs=[str(source.SOPInstanceUID), "plane"])
    source.PositionReferenceIndicator = ""
    source.ImagePositionPatient, source.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    source.SliceThickness = 1
    source.PixelSpacing = list(_pair(source, "ImagerPixelSpacing") or _pair(source, "PixelSpacing") or (1, 1))


def _pair(header: Dataset, name: str) -> tuple[float, float] | None:
    values = header.get(name)
    if values is None or isinstance(values, (str, bytes)) or not hasattr(values, "__len__") or len(values) != 2:
        return None
    first, second = (_number(value) for value in values)
    if first is None or second is None or not (0 < first < LARGEST_SPACING_MM and 0 < second < LARGEST_SPACING_MM):
        return None
    return first, second


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
