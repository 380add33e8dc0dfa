"""Small DICOM files and downloads for the tests of data preparation."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage

from data_prep.read.dicom import read_header
from data_prep.read.masks import read_mask
from data_prep.schema import Found, PhantomSettings

SHARED = Path(os.environ.get("MAMMOSEARCH_TEST_DATA", Path(__file__).parents[2].parent / "shared"))
"""Real films and CSVs that are not in this repository: tests that want them are skipped where they are not there."""

SMALL_TREE = PhantomSettings(patients=5, rows=96, seed=26)
"""Ten films: masses and calcifications, both splits, both sides, one image pair of two lesions."""


def write_dicom(path: Path, image_HW: np.ndarray, *, name: str = "Mass-Test_P_00001_LEFT_CC", **tags: object) -> Path:
    """An uncompressed file with CBIS-DDSM's header; `tags` are added, or removed where None."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    data.SeriesDescription = "full mammogram images"
    data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID = name, "1.2.4", "1.2.5"
    data.PatientOrientation, data.Laterality, data.InstanceNumber = "CC", "L", 1
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.Rows, data.Columns = image_HW.shape
    data.BitsAllocated = data.BitsStored = 8 * image_HW.itemsize
    data.HighBit = data.BitsStored - 1
    raw = image_HW.tobytes()
    data.PixelData = raw + b"\0" * (len(raw) % 2)
    for tag, value in tags.items():
        if value is None:
            delattr(data, tag)
        else:
            setattr(data, tag, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def rewrite(path: Path, **tags: object) -> None:
    """Change tags of a file in place; None removes one."""
    data = pydicom.dcmread(path)
    for tag, value in tags.items():
        if value is None:
            delattr(data, tag)
        else:
            setattr(data, tag, value)
    data.save_as(path)


def replace_pixels(path: Path, image_HW: np.ndarray) -> None:
    """Give a file other pixels, with the size and depth that they have."""
    raw = image_HW.tobytes()
    bits = 8 * image_HW.itemsize
    size = {"Rows": image_HW.shape[0], "Columns": image_HW.shape[1], "BitsAllocated": bits, "BitsStored": bits}
    rewrite(path, **size, HighBit=bits - 1, PixelData=raw + b"\0" * (len(raw) % 2))


def compress(source: Path, target: Path, syntax: str, **options: object) -> Path:
    """A copy of an uncompressed file in another transfer syntax, by pydicom's encoders."""
    data = pydicom.dcmread(source)
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.compress(syntax, **options)
    data.save_as(target)
    return target


def mask_pixels(path: Path | str) -> np.ndarray:
    """A mask file as (H, W) uint8 of 0 and 1."""
    return read_mask(path).full()


def files_of(root: Path) -> dict[str, list[Path]]:
    """PatientID -> its files, of a tree whose headers are all right."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.dcm")):
        found.setdefault(read_header(path).patient_id, []).append(path)
    return found


def mask_of(root: Path, lesion_name: str) -> Path:
    return next(p for p in files_of(root)[lesion_name] if read_header(p).bits_allocated == 8)


def reasons(found: Found, sample_id: str) -> list[str]:
    """The codes under which a sample's files were rejected."""
    return [r.reason.split(":")[0] for r in found.rejected if r.sample_id == sample_id]


def repairs(found: Found, sample_id: str) -> list[str]:
    return [r.repair.split(":")[0] for r in found.repaired if r.sample_id == sample_id]
