"""One image file -> its pixels.

DICOM through pydicom, with the pixel data of uncompressed files read straight into the array; PNG, JPEG and TIFF
through `images.py`. Hostile bytes end in a `ReadError`: sizes are checked before anything is allocated.

    film = read_film("1-1.dcm")         # film.image_HW, film.spacing_mm, film.notes
    image_HW = read_image("film.png")

A file is opened once; one in an object store costs one request.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pydicom
from pydicom.pixels import get_decoder
from pydicom.uid import UID, RLELossless

from data_prep.read.codestream import decode_rle, frame_shape
from data_prep.read.files import HEAD_BYTES, FilePath, open_file, patiently, read_at, read_into
from data_prep.read.header import (
    Header,
    HeaderError,
    broken_files,
    is_dicom,
    parse,
    read_dataset,
    read_header,
    read_tags,
)
from data_prep.read.images import decode_image, image_shape
from data_prep.read.window import display_table, look_up
from data_prep.schema import ReadError

FIRST_IMAGE_BYTES = 64 * 1024
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"

Window = Literal["header", "none"]
"""Whether the header's window or VOI LUT is applied to the pixels."""

__all__ = [
    "Film", "Header", "HeaderError", "read_any_header", "read_dataset", "read_film", "read_header", "read_image",
    "read_shape", "read_stored", "read_tagged_film",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Film:
    """The pixels of a file, and what else is wanted of it."""

    image_HW: np.ndarray
    """uint8 or uint16, bright tissue on dark ground."""
    spacing_mm: tuple[float, float] | None = None
    """Distance of the rows and of the columns, where the file tells."""
    notes: tuple[str, ...] = ()
    """What was put right on reading, each beginning with a code of `schema.REPAIRS`."""


@patiently
def read_film(path: FilePath, window: Window = "header") -> Film:
    """Read DICOM, PNG, JPEG or TIFF at a path or URI, told apart by content.

    Of a DICOM file, modality rescale or LUT and the first VOI window or LUT are applied where the tags exist (DICOM
    PS3.3, C.11.1 and C.11.2) and spread over 16 bits; without them the stored values are returned. Pixels outside of
    the image (PixelPaddingValue) become as dark as the darkest pixel. MONOCHROME1 is inverted, so that air is dark.

    Args:
        path: of the file.
        window: `none` leaves the header's window out.

    Raises:
        ReadError: as `read_header`; `not_dicom` for any other format, `unreadable` for what cannot be decoded.
        OSError: the disk or the network does not answer.
    """
    with open_file(path, whole=True) as (file, size), broken_files():
        return _read(file, size, window)[0]


@patiently
def read_tagged_film(path: FilePath, window: Window = "header") -> tuple[Film, pydicom.Dataset | None]:
    """`read_film`, and if the file is DICOM every tag before its pixels. Raises as that."""
    with open_file(path, whole=True) as (file, size), broken_files():
        film, header = _read(file, size, window)
        return film, None if header is None else read_tags(file, header)


@patiently
def read_stored(path: FilePath) -> tuple[np.ndarray, pydicom.Dataset]:
    """The stored values of a DICOM file's pixels, before any table or window, and every tag before them.

    Returns:
        (H, W) uint8 or uint16, or int16 where the header says so, right-justified; bits beside those that are stored,
        in which old files keep overlays, are 0. And the tags, as `read_dataset` gives them.

    Raises:
        ReadError: as `read_film`; `not_dicom` for any other format.
        OSError: the disk or the network does not answer.
    """
    with open_file(path, whole=True) as (file, size), broken_files():
        header = parse(file, size)[1]
        return _stored(file, size, header), read_tags(file, header)


def _read(file: Any, size: int, window: Window) -> tuple[Film, Header | None]:
    if not is_dicom(read_at(file, 0, 132)):
        return Film(image_HW=decode_image(read_at(file, 0, size))), None
    dataset, header = parse(file, size)
    image_HW, notes = _to_display(_stored(file, size, header), dataset, header, window)
    return Film(image_HW=image_HW, spacing_mm=header.spacing_mm, notes=notes), header


def read_image(path: FilePath) -> np.ndarray:
    """The pixels of `read_film`: grey uint8 or uint16 of shape (H, W). Raises as that."""
    return read_film(path).image_HW


@patiently
def read_any_header(path: FilePath) -> Header | tuple[int, int]:
    """The header of a DICOM file, or (rows, columns) of another image: from the first bytes, opened once.

    Raises:
        ReadError: as `read_header`, and as `images.image_shape`.
        OSError: the disk or the network does not answer.
    """
    with open_file(path) as (file, size), broken_files():
        head = read_at(file, 0, min(HEAD_BYTES, size))
        if is_dicom(head):
            return parse(file, size)[1]
        for count in (len(head), FIRST_IMAGE_BYTES):
            try:
                return image_shape(read_at(file, 0, min(count, size)))
            except ReadError as error:
                if error.code == "absurd_size" or size <= count:
                    raise
        return image_shape(read_at(file, 0, size))  # TIFF may keep its directory at the end


def read_shape(path: FilePath) -> tuple[int, int]:
    """(rows, columns) of any image that `read_image` reads, from its header alone. Raises as `read_any_header`."""
    header = read_any_header(path)
    return (header.rows, header.columns) if isinstance(header, Header) else header


def _stored(file: Any, size: int, header: Header) -> np.ndarray:
    """Right-justified stored values, signed where the header says so."""
    stored_HW = _decode(file, size, header) if header.compressed else _read_native(file, header)
    if stored_HW.shape != (header.rows, header.columns):
        raise ReadError("unreadable", f"decoded to shape {stored_HW.shape}")
    if not header.compressed or header.transfer_syntax == RLELossless:
        stored_HW = _right_justified(stored_HW, header)
    if header.signed and stored_HW.dtype.kind == "u":
        stored_HW = _to_signed(stored_HW, header.bits_stored)
    return stored_HW


def _read_native(file: Any, header: Header) -> np.ndarray:
    """Stored values of uncompressed pixel data, read into the array that is returned."""
    itemsize = header.bits_allocated // 8
    count = header.rows * header.columns * itemsize
    swapped = header.big_endian and header.words and itemsize == 1  # pairs of bytes are written in turn
    raw = np.empty(count + (count % 2 if swapped else 0), np.uint8)
    found = read_into(file, header.pixel_offset, raw.data)
    if found < count:
        raise ReadError("truncated", f"{found} of {count} bytes of pixel data")
    if swapped:
        raw = np.ascontiguousarray(raw.reshape(-1, 2)[:, ::-1]).reshape(-1)[:count]
    stored_HW = raw.view(f"{'>' if header.big_endian else '<'}u{itemsize}").reshape(header.rows, header.columns)
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


def _to_display(
    stored_HW: np.ndarray, dataset: pydicom.Dataset, header: Header, window: Window
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Padding, rescale, window and polarity, in that order (DICOM PS3.4, N.2); and what was put right."""
    if header.padding is not None:
        _darken_padding(stored_HW, header.padding, bright=header.photometric == "MONOCHROME1")
    inverted = header.photometric == "MONOCHROME1"
    table, low, note = display_table(stored_HW, dataset, windowed=window == "header", inverted=inverted)
    value_HW = stored_HW if table is None else look_up(table, stored_HW, low)
    if value_HW.dtype.kind == "i":
        value_HW = (value_HW.astype(np.int32) - int(value_HW.min())).astype(np.uint16)
    return (value_HW.max() - value_HW if inverted else value_HW), (note,) if note else ()


def _right_justified(stored_HW: np.ndarray, header: Header) -> np.ndarray:
    """The stored bits of each pixel's cell: those from HighBit down; old files keep overlays in the others."""
    shift = header.high_bit + 1 - header.bits_stored
    if shift:
        stored_HW >>= shift
    if header.bits_stored < header.bits_allocated:
        stored_HW &= (1 << header.bits_stored) - 1
    return stored_HW


def _to_signed(stored_HW: np.ndarray, bits: int) -> np.ndarray:
    values = stored_HW.astype(np.int32)
    return np.where(values >= 1 << (bits - 1), values - (1 << bits), values).astype(np.int16)


def _darken_padding(stored_HW: np.ndarray, padding: tuple[int, int], *, bright: bool) -> None:
    """Give the pixels outside of the image the value of air: of the others the lowest, or highest if that is air."""
    outside_HW = (stored_HW >= padding[0]) & (stored_HW <= padding[1])
    if outside_HW.any() and not outside_HW.all():
        inside = stored_HW[~outside_HW]
        stored_HW[outside_HW] = inside.max() if bright else inside.min()
