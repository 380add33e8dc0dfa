"""The header of a DICOM file, read without its pixels and checked before anything is allocated.

Headers are parsed in memory with a limit, and nothing is believed that the file's length contradicts: hostile bytes end
in a `ReadError`.

    header = read_header("1-1.dcm")
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

from data_prep.read.files import HEAD_BYTES, FilePath, open_file, patiently, read_at
from data_prep.read.images import check_size
from data_prep.schema import ReadError

MAX_HEADER_BYTES = 8 * 1024 * 1024
UNDEFINED_LENGTH = 0xFFFFFFFF
PIXEL_DATA = Tag(0x7FE00010)
GREY = ("MONOCHROME1", "MONOCHROME2")

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
"""Tag (7FE0,0010) in little and big endian."""
_TAGS = [
    "PatientID", "SeriesInstanceUID", "SOPClassUID", "SeriesDescription", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "NumberOfFrames", "PhotometricInterpretation",
    "LargestImagePixelValue", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PixelSpacing",
    "ImagerPixelSpacing", "NominalScannedPixelSpacing", "EstimatedRadiographicMagnificationFactor",
]  # fmt: skip
_TAG_NUMBERS = [Tag(name) for name in _TAGS]

# Values that break a DICOM rule are taken as they are, without a warning per file.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


@dataclass(frozen=True, kw_only=True)
class Header:
    """The tags of a DICOM file that matter here, under pydicom's names in snake case; absent text is empty."""

    patient_id: str
    series_uid: str
    series_description: str
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    transfer_syntax: str
    largest_value: int | None
    """LargestImagePixelValue (0028,0107), where written."""
    padding: tuple[int, int] | None
    """Lowest and highest stored value that mark pixels outside of the image (0028,0120 and 0028,0121)."""
    spacing_mm: tuple[float, float] | None
    """Distance of the rows and of the columns: PixelSpacing, else ImagerPixelSpacing by the magnification factor, else
    NominalScannedPixelSpacing; None where none of them is a length."""
    pixel_offset: int
    """Where the value of Pixel Data begins in the file."""
    pixel_bytes: int
    """Bytes of the file from there on."""
    words: bool
    """Whether Pixel Data is written in words of 16 bits (OW)."""

    @property
    def compressed(self) -> bool:
        """Whether Pixel Data is encapsulated (DICOM PS3.5, A.4)."""
        return UID(self.transfer_syntax).is_compressed

    @property
    def big_endian(self) -> bool:
        """Whether the file is written most significant byte first."""
        return bool(self.transfer_syntax == ExplicitVRBigEndian)


class HeaderError(ReadError):
    """A header that can be read, of a file that cannot be used; `header` tells whose file it is."""

    def __init__(self, code: str, detail: str, header: Header) -> None:
        super().__init__(code, detail)
        self.header = header


@patiently
def read_header(path: FilePath) -> Header:
    """Read the header of a DICOM file at a path or URI, without its pixels.

    Raises:
        ReadError: `empty_file`, `not_dicom`, `no_image`, `unreadable`, `absurd_size` (more bytes than any mammogram).
        HeaderError: a readable header of an unusable file: `absurd_size`, `wrong_depth`, `not_grey`, `truncated`.
        OSError: the disk or the network does not answer.
    """
    with open_file(path) as (file, size), broken_files():
        return parse(file, size)[1]


def read_tags(file: Any, header: Header) -> pydicom.Dataset:
    """Every tag of an open DICOM file before its pixels, for writers of objects that refer to it.

    Raises:
        ReadError: `unreadable`, where a tag is broken.
    """
    with broken_files():
        head = read_at(file, 0, header.pixel_offset)
        dataset = pydicom.dcmread(io.BytesIO(head), stop_before_pixels=True)
        for element in dataset.iterall():  # values are decoded on first use: what is broken shows here
            element.value  # noqa: B018
    return dataset


@patiently
def read_dataset(path: FilePath) -> pydicom.Dataset:
    """`read_tags` of a file at a path or URI. Raises as `read_header`."""
    with open_file(path) as (file, size), broken_files():
        return read_tags(file, parse(file, size)[1])


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins so has DICOM's prefix (DICOM PS3.10, 7.1)."""
    return head[128:132] == b"DICM"


@contextmanager
def broken_files() -> Iterator[None]:
    """Turn any exception of pydicom or a decoder into ReadError: what they raise on broken bytes is undocumented.

    What the system says of itself (an OSError with a number, no memory) goes on as it is.
    """
    try:
        yield
    except (ReadError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ReadError("unreadable", f"{type(error).__name__}: {error}") from error


def parse(file: Any, size: int) -> tuple[pydicom.Dataset, Header]:
    """The tags before Pixel Data, and the header made of them, checked."""
    for limit in (HEAD_BYTES, MAX_HEADER_BYTES):
        head = read_at(file, 0, min(limit, size))
        try:
            dataset, at, whole = _parse_head(head)
        except ReadError:
            raise
        except Exception as error:
            if len(head) < size and limit < MAX_HEADER_BYTES:
                continue  # the first bytes may end anywhere
            if isinstance(error, OSError):  # pydicom's word for an end inside a sequence
                raise ReadError("truncated", f"the file ends inside its header: {error}") from error
            raise
        if head[at : at + 4] in _PIXEL_DATA:
            break
    else:
        if len(head) < size:
            raise ReadError("unreadable", f"no pixel data in the first {MAX_HEADER_BYTES} bytes")
        if not whole:
            raise ReadError("truncated", "the file ends inside its header")
        raise ReadError("no_image", f"a DICOM of class {_class_name(dataset)} without pixel data")
    header = _to_header(dataset, head, at, size)
    _check(dataset, header)
    return dataset, header


def _parse_head(head: bytes) -> tuple[pydicom.Dataset, int, bool]:
    """The tags that matter; where the parsing stopped, at Pixel Data or the end; whether the last element is whole."""
    if not is_dicom(head):
        raise ReadError("not_dicom", "no DICOM prefix at byte 128")
    if _DEFLATED in head:  # inflating is unbounded
        raise ReadError("unreadable", "the deflated transfer syntax is not read; save it uncompressed")
    stream, end = io.BytesIO(head), 0

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal end
        end = stream.tell() + length if length != UNDEFINED_LENGTH else len(head)
        return tag == PIXEL_DATA

    try:
        dataset = read_partial(stream, at_pixels, specific_tags=_TAG_NUMBERS)
    except InvalidDicomError as error:
        raise ReadError("not_dicom", str(error)) from error
    except EOFError as error:
        raise ReadError("truncated", f"the file ends inside its header: {error}") from error
    return dataset, stream.tell(), end == len(head)


def _class_name(dataset: pydicom.Dataset) -> str:
    uid = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID", "")
    return UID(str(uid)).name or "unknown"


def _to_header(dataset: pydicom.Dataset, head: bytes, at: int, size: int) -> Header:
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))
    implicit = syntax == ImplicitVRLittleEndian
    offset = at + (8 if implicit else 12)  # DICOM PS3.5, 7.1.2 and 7.1.3
    allocated = _number(dataset, "BitsAllocated") or 0
    stored = _number(dataset, "BitsStored") or allocated
    high_bit = _number(dataset, "HighBit")
    signed = bool(_number(dataset, "PixelRepresentation"))
    return Header(
        patient_id=_text(dataset, "PatientID"),
        series_uid=_text(dataset, "SeriesInstanceUID"),
        series_description=_text(dataset, "SeriesDescription"),
        rows=_number(dataset, "Rows") or 0,
        columns=_number(dataset, "Columns") or 0,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1 if high_bit is None else high_bit,
        signed=signed,
        photometric=_text(dataset, "PhotometricInterpretation"),
        transfer_syntax=syntax,
        largest_value=_stored_value(dataset, "LargestImagePixelValue", signed=False),
        padding=_padding(dataset, signed),
        spacing_mm=_spacing(dataset),
        pixel_offset=offset,
        pixel_bytes=max(0, size - offset),
        words=implicit or head[at + 4 : at + 6] == b"OW",
    )


def _text(dataset: pydicom.Dataset, name: str) -> str:
    value = dataset.get(name)
    parts = [value] if value is None or isinstance(value, str) else list(value)
    return "\\".join(str(part) for part in parts if part is not None).strip()


def _number(dataset: pydicom.Dataset, name: str) -> int | None:
    value = dataset.get(name)
    return None if value is None or value == "" else int(value)


def _stored_value(dataset: pydicom.Dataset, name: str, *, signed: bool) -> int | None:
    """A value of VR "US or SS", which implicit VR leaves open; pydicom may hand back bytes."""
    value = dataset.get(name)
    if isinstance(value, bytes):
        return int.from_bytes(value[:2], "little", signed=signed) if value else None
    return int(value) if isinstance(value, int) else None


def _padding(dataset: pydicom.Dataset, signed: bool) -> tuple[int, int] | None:
    """The range of stored values that is no image (DICOM PS3.3, C.7.5.1.1.2)."""
    value = _stored_value(dataset, "PixelPaddingValue", signed=signed)
    if value is None:
        return None
    limit = _stored_value(dataset, "PixelPaddingRangeLimit", signed=signed)
    return min(value, limit if limit is not None else value), max(value, limit if limit is not None else value)


def _spacing(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    factor = _lengths(dataset, "EstimatedRadiographicMagnificationFactor")
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        lengths = _lengths(dataset, name)
        if lengths is not None and len(lengths) == 2:
            by = factor[0] if factor and name == "ImagerPixelSpacing" else 1.0
            return lengths[0] / by, lengths[1] / by
    return None


def _lengths(dataset: pydicom.Dataset, name: str) -> list[float] | None:
    """The tag's values, if all are finite and positive."""
    try:
        value = dataset.get(name)
        values = [] if value is None else [float(v) for v in (value if hasattr(value, "__iter__") else [value])]
    except (TypeError, ValueError):
        return None
    return values if values and all(math.isfinite(v) and v > 0 for v in values) else None


def _check(dataset: pydicom.Dataset, header: Header) -> None:
    try:
        check_size(header.rows, header.columns)
    except ReadError as error:
        raise HeaderError(error.code, error.detail, header) from None
    samples, frames = dataset.get("SamplesPerPixel") or 1, dataset.get("NumberOfFrames") or 1
    if header.bits_allocated not in (8, 16) or not 0 < header.bits_stored <= header.bits_allocated:
        depth = f"{header.bits_stored} of {header.bits_allocated} bits"
        raise HeaderError("wrong_depth", f"pixels have {depth}; 8 or 16 are read", header)
    if not header.bits_stored - 1 <= header.high_bit < header.bits_allocated:
        depth = f"{header.bits_stored} bits up to bit {header.high_bit} of {header.bits_allocated}"
        raise HeaderError("wrong_depth", f"pixels have {depth}, which cannot be", header)
    if samples != 1 or frames != 1:
        raise HeaderError(
            "wrong_depth", f"{frames} frame(s) of {samples} sample(s) a pixel; one of one is read", header
        )
    if header.photometric not in GREY:
        raise HeaderError("not_grey", f"PhotometricInterpretation is {header.photometric!r}, not {GREY}", header)
    expected = header.rows * header.columns * header.bits_allocated // 8
    if not header.compressed and header.pixel_bytes < expected:
        raise HeaderError("truncated", f"{header.pixel_bytes} of {expected} bytes of pixel data", header)
