"""One image file -> its header, or its pixels.

DICOM through pydicom, with the pixel data of uncompressed files read straight into the array; PNG, JPEG and TIFF
through `images.py`. Hostile bytes end in a `ReadError`: sizes are checked before anything is allocated, headers are
parsed in memory with a limit, and nothing is believed that the file's length contradicts.

    header = read_header("1-1.dcm")
    image_HW = read_pixels("1-1.dcm")
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from data_prep.read.codestream import decode_rle, frame_shape
from data_prep.read.files import FilePath, open_file, read_all, read_at
from data_prep.read.images import check_size, decode_image, image_shape
from data_prep.schema import ReadError
from data_prep.shape.geometry import bounding_box

FIRST_HEADER_BYTES = 16 * 1024
FIRST_IMAGE_BYTES = 64 * 1024
MAX_HEADER_BYTES = 8 * 1024 * 1024

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"
_TAGS = [
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SeriesDescription", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "NumberOfFrames",
    "PhotometricInterpretation", "Laterality", "ImageLaterality", "PatientOrientation", "ViewPosition",
    "InstanceNumber", "LargestImagePixelValue", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
]  # fmt: skip

# Values that break a DICOM rule are taken as they are, without a warning per file.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


@dataclass(frozen=True, kw_only=True)
class Header:
    """The tags of a DICOM file that matter here, under pydicom's names in snake case; absent text is empty."""

    patient_id: str
    study_uid: str
    series_uid: str
    sop_uid: str
    series_description: str
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str
    laterality: str
    """`L`, `R`, or empty: Laterality (0020,0060), else ImageLaterality (0020,0062)."""
    patient_orientation: str
    """CBIS-DDSM writes the view here (CC, MLO)."""
    view_position: str
    transfer_syntax: str
    instance_number: int | None
    largest_value: int | None
    """LargestImagePixelValue (0028,0107), where written."""
    pixel_offset: int
    """Where the value of Pixel Data begins in the file."""
    pixel_bytes: int
    """Bytes of the file from there on."""

    @property
    def compressed(self) -> bool:
        """Whether Pixel Data is encapsulated (DICOM PS3.5, A.4)."""
        return UID(self.transfer_syntax).is_compressed


class HeaderError(ReadError):
    """A header that can be read, of a file that cannot be used; `header` tells whose file it is."""

    def __init__(self, code: str, detail: str, header: Header) -> None:
        super().__init__(code, detail)
        self.header = header


def read_header(path: FilePath) -> Header:
    """Read the header of a DICOM file at a path or URI, without its pixels.

    Raises:
        ReadError: `empty_file`, `not_dicom`, `unreadable`, `absurd_size` (more bytes than any mammogram).
        HeaderError: a readable header of an unusable file: `absurd_size`, `wrong_depth`, `truncated`.
    """
    with open_file(path) as (file, size), _broken_files():
        return _parse(file, size)[1]


def read_dataset(path: FilePath) -> pydicom.Dataset:
    """Every tag of a DICOM file before its pixels, for writers of objects that refer to it.

    Raises:
        ReadError: as `read_header`; `unreadable` where the tags before the pixels fill more than 8 MB.
    """
    with open_file(path) as (file, size), _broken_files():
        _, header = _parse(file, size)
        dataset = pydicom.dcmread(io.BytesIO(read_at(file, 0, header.pixel_offset)), stop_before_pixels=True)
        for element in dataset.iterall():  # values are decoded on first use: what is broken shows here
            element.value  # noqa: B018
        return dataset


def read_stored(path: FilePath) -> tuple[np.ndarray, pydicom.Dataset]:
    """The stored values of a DICOM file's pixels, before any table or window, and every tag before them.

    Returns:
        (H, W) uint8 or uint16, or int16 where the header says so; bits above BitsStored, in which old files keep
        overlays, are 0. And the tags, as `read_dataset` gives them.

    Raises:
        ReadError: as `read_pixels`.
    """
    with open_file(path) as (file, size), _broken_files():
        _, header = _parse(file, size)
        stored_HW = _decode(file, size, header) if header.compressed else _read_native(file, header)
        if header.signed:
            stored_HW = _to_signed(stored_HW, header.bits_stored)
        elif header.bits_stored < header.bits_allocated:
            stored_HW = stored_HW & ((1 << header.bits_stored) - 1)
    if stored_HW.shape != (header.rows, header.columns):
        raise ReadError("unreadable", f"decoded to shape {stored_HW.shape}")
    return stored_HW, read_dataset(path)


def read_pixels(path: FilePath) -> np.ndarray:
    """Read the pixels of a DICOM file at a path or URI: uint8 or uint16 of shape (H, W).

    Modality rescale or LUT and the first VOI window or LUT are applied where the tags exist (DICOM PS3.3, C.11.1 and
    C.11.2) and spread over 16 bits; without them the stored values are returned. MONOCHROME1 is inverted, so that
    air is dark.

    Raises:
        ReadError: as `read_header`, and `unreadable` for pixel data that cannot be decoded.
    """
    with open_file(path) as (file, size), _broken_files():
        dataset, header = _parse(file, size)
        stored_HW = _decode(file, size, header) if header.compressed else _read_native(file, header)
        return _to_display(stored_HW, dataset, header)


def read_image(path: FilePath) -> np.ndarray:
    """Read DICOM, PNG, JPEG or TIFF, told apart by content: grey uint8 or uint16 of shape (H, W).

    Raises:
        ReadError: as `read_pixels`; `not_dicom` for any other format.
    """
    if is_dicom(path):
        return read_pixels(path)
    return decode_image(read_all(path))


def read_mask(path: FilePath) -> np.ndarray:
    """Read a mask of any format that `read_image` reads: uint8 of shape (H, W), 1 inside the lesion.

    A mask of two values (0 and 255, 0 and 1) marks the upper one. A grey mask (resized, JPEG) is cut at half of its
    range: above 127, or above 32767 where 16 bits are used, that is where the brightest pixel is above a sum of seven
    8-bit masks.

    Raises:
        ReadError: as `read_image`; `mask_black` if no pixel is marked.
    """
    image_HW = read_image(path)
    box = bounding_box(image_HW)
    lesion = np.s_[box.top : box.bottom, box.left : box.right]
    lesion_hw = image_HW[lesion]  # all else is 0, and that is most of a film
    top = int(lesion_hw.max()) if lesion_hw.size else 0
    bottom = int(lesion_hw.min()) if lesion_hw.shape == image_HW.shape else 0
    two_valued = bool(((lesion_hw == top) | (lesion_hw == bottom)).all())
    cut = top // 2 if two_valued else 127 if top <= 7 * 255 else 32767
    mask_HW = np.zeros(image_HW.shape, np.uint8)
    mask_HW[lesion] = lesion_hw > cut
    if not mask_HW[lesion].any():
        raise ReadError("mask_black", f"no pixel above {cut}, the brightest is {top}")
    return mask_HW


def read_shape(path: FilePath) -> tuple[int, int]:
    """(rows, columns) of any image that `read_image` reads, from its header alone. Raises ReadError."""
    if is_dicom(path):
        header = read_header(path)
        return header.rows, header.columns
    with open_file(path) as (file, size):
        head = read_at(file, 0, min(FIRST_IMAGE_BYTES, size))
        try:
            return image_shape(head)
        except ReadError as error:
            if error.code == "absurd_size" or size == len(head):
                raise
        return image_shape(read_at(file, 0, size))  # TIFF may keep its directory at the end


def is_dicom(path: FilePath) -> bool:
    """Whether the file has DICOM's prefix (DICOM PS3.10, 7.1). Raises ReadError if it is empty or cannot be opened."""
    with open_file(path) as (file, _):
        return read_at(file, 0, 132)[128:] == b"DICM"


@contextmanager
def _broken_files() -> Iterator[None]:
    """Whatever pydicom and the decoders raise on broken bytes is a ReadError: there is no list of what they may."""
    try:
        yield
    except ReadError:
        raise
    except Exception as error:
        raise ReadError("unreadable", f"{type(error).__name__}: {error}") from error


def _parse(file: Any, size: int) -> tuple[pydicom.Dataset, Header]:
    """The tags before Pixel Data, and the header made of them, checked."""
    for limit in (FIRST_HEADER_BYTES, MAX_HEADER_BYTES):
        head = read_at(file, 0, min(limit, size))
        dataset, at = _parse_head(head)
        if head[at : at + 4] in (_PIXEL_DATA, _PIXEL_DATA[1::-1] + _PIXEL_DATA[3:1:-1]):
            break
    else:
        if len(head) == size:
            raise ReadError("truncated", "the file ends before any pixel data")
        raise ReadError("unreadable", f"no pixel data in the first {MAX_HEADER_BYTES} bytes")
    header = _to_header(dataset, *_pixel_span(head, at, size, dataset))
    _check(dataset, header)
    return dataset, header


def _parse_head(head: bytes) -> tuple[pydicom.Dataset, int]:
    if head[128:132] != b"DICM":
        raise ReadError("not_dicom", "no DICOM prefix at byte 128")
    if _DEFLATED in head:  # inflating is unbounded
        raise ReadError("unreadable", "the deflated transfer syntax is not read; save it uncompressed")
    stream = io.BytesIO(head)
    try:
        dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_TAGS)
    except InvalidDicomError as error:
        raise ReadError("not_dicom", str(error)) from error
    except EOFError as error:
        raise ReadError("truncated", f"the file ends inside its header: {error}") from error
    return dataset, stream.tell()


def _pixel_span(head: bytes, at: int, size: int, dataset: pydicom.Dataset) -> tuple[int, int]:
    """(offset of Pixel Data's value, bytes of the file from there on)."""
    implicit = dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian) == ImplicitVRLittleEndian
    start = at + (8 if implicit else 12)  # DICOM PS3.5, 7.1.2 and 7.1.3
    return start, max(0, size - start)


def _to_header(dataset: pydicom.Dataset, pixel_offset: int, pixel_bytes: int) -> Header:
    def text(name: str) -> str:
        value = dataset.get(name)
        parts = [value] if value is None or isinstance(value, str) else list(value)
        return "\\".join(str(part) for part in parts if part is not None).strip()

    def number(name: str) -> int | None:
        value = dataset.get(name)
        return None if value is None or value == "" else int(value)

    allocated = number("BitsAllocated") or 0
    return Header(
        patient_id=text("PatientID"),
        study_uid=text("StudyInstanceUID"),
        series_uid=text("SeriesInstanceUID"),
        sop_uid=text("SOPInstanceUID"),
        series_description=text("SeriesDescription"),
        rows=number("Rows") or 0,
        columns=number("Columns") or 0,
        bits_allocated=allocated,
        bits_stored=number("BitsStored") or allocated,
        signed=bool(number("PixelRepresentation")),
        photometric=text("PhotometricInterpretation"),
        laterality=text("Laterality") or text("ImageLaterality"),
        patient_orientation=text("PatientOrientation"),
        view_position=text("ViewPosition"),
        transfer_syntax=str(dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)),
        instance_number=number("InstanceNumber"),
        largest_value=_small_int(dataset.get("LargestImagePixelValue")),
        pixel_offset=pixel_offset,
        pixel_bytes=pixel_bytes,
    )


def _small_int(value: Any) -> int | None:
    # Implicit VR leaves "US or SS" open; pydicom may hand back bytes.
    if isinstance(value, bytes):
        return int.from_bytes(value[:2], "little") if value else None
    return int(value) if isinstance(value, int) else None


def _check(dataset: pydicom.Dataset, header: Header) -> None:
    try:
        check_size(header.rows, header.columns)
    except ReadError as error:
        raise HeaderError(error.code, error.detail, header) from None
    samples, frames = dataset.get("SamplesPerPixel") or 1, dataset.get("NumberOfFrames") or 1
    if header.bits_allocated not in (8, 16) or not 0 < header.bits_stored <= header.bits_allocated:
        depth = f"{header.bits_stored} of {header.bits_allocated} bits"
        raise HeaderError("wrong_depth", f"pixels have {depth}; 8 or 16 are read", header)
    if samples != 1 or frames != 1:
        raise HeaderError(
            "wrong_depth", f"{frames} frame(s) of {samples} sample(s) a pixel; one of one is read", header
        )
    expected = header.rows * header.columns * header.bits_allocated // 8
    if not header.compressed and header.pixel_bytes < expected:
        raise HeaderError("truncated", f"{header.pixel_bytes} of {expected} bytes of pixel data", header)


def _read_native(file: Any, header: Header) -> np.ndarray:
    """Stored values of uncompressed pixel data, read into the array that is returned."""
    order = ">" if header.transfer_syntax == ExplicitVRBigEndian else "<"
    stored_HW = np.empty((header.rows, header.columns), f"{order}u{header.bits_allocated // 8}")
    file.seek(header.pixel_offset)
    target, at = stored_HW.reshape(-1).view(np.uint8).data, 0
    while at < len(target):
        count = file.readinto(target[at:])
        if not count:
            raise ReadError("truncated", f"{at} of {len(target)} bytes of pixel data")
        at += count
    return stored_HW if stored_HW.dtype.isnative else stored_HW.astype(stored_HW.dtype.newbyteorder("="))


def _decode(file: Any, size: int, header: Header) -> np.ndarray:
    """Stored values of compressed pixel data, of one frame of the size that the header states."""
    content = read_at(file, 0, size)
    if content.rfind(_SEQUENCE_END, header.pixel_offset) < 0:
        raise ReadError("truncated", "the compressed pixel data have no end")
    syntax = UID(header.transfer_syntax)
    dataset = pydicom.dcmread(io.BytesIO(content))
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax == RLELossless:
        return decode_rle(frame, header.rows, header.columns, header.bits_allocated // 8)
    decoder = get_decoder(syntax)
    if not decoder.is_available:
        raise ReadError("unreadable", f"{syntax.name} needs a decoder: install the extra mammosearch[codecs]")
    if frame_shape(frame) != (header.rows, header.columns):
        detail = f"the code stream has {frame_shape(frame)} pixels, the header {(header.rows, header.columns)}"
        raise ReadError("unreadable", detail)
    return decoder.as_array(dataset, raw=True)[0]


def _to_display(stored_HW: np.ndarray, dataset: pydicom.Dataset, header: Header) -> np.ndarray:
    """Rescale, window and polarity, in that order (DICOM PS3.4, N.2)."""
    if stored_HW.shape != (header.rows, header.columns):
        raise ReadError("unreadable", f"decoded to shape {stored_HW.shape}")
    if header.bits_stored < header.bits_allocated and not header.compressed:
        stored_HW &= (1 << header.bits_stored) - 1  # old files keep overlays in the upper bits
    if header.signed and stored_HW.dtype.kind == "u":
        stored_HW = _to_signed(stored_HW, header.bits_stored)
    value_HW = _apply_tables(stored_HW, dataset)
    if value_HW.dtype.kind == "i":
        value_HW = (value_HW.astype(np.int32) - int(value_HW.min())).astype(np.uint16)
    if header.photometric == "MONOCHROME1":
        value_HW = value_HW.max() - value_HW
    return value_HW


def _to_signed(stored_HW: np.ndarray, bits: int) -> np.ndarray:
    values = stored_HW.astype(np.int32)
    return np.where(values >= 1 << (bits - 1), values - (1 << bits), values).astype(np.int16)


def _apply_tables(stored_HW: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Modality and VOI transforms through a table of all stored values, so that no float image is made."""
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    rescaled = "ModalityLUTSequence" in dataset or (slope is not None and (slope, intercept or 0) != (1, 0))
    if not rescaled and "VOILUTSequence" not in dataset and dataset.get("WindowCenter") is None:
        return stored_HW
    low, high = int(stored_HW.min()), int(stored_HW.max())
    values = apply_modality_lut(np.arange(low, high + 1, dtype=stored_HW.dtype), dataset)
    shown = np.asarray(apply_voi_lut(values, dataset), dtype=np.float64)
    floor, span = shown.min(), np.ptp(shown)
    if not np.isfinite(span):
        raise ReadError("unreadable", "the rescale or window tags give no finite values")
    table = np.round((shown - floor) * (65535 / span if span else 0)).astype(np.uint16)
    return table[stored_HW.astype(np.int32) - low] if low < 0 else table[stored_HW - low]
