"""Compressed pixel data seen from outside: what size it claims, and RLE decoded in bounded memory.

A decoder allocates what the code stream claims, not what the DICOM header says, so both must agree before it runs.
"""

from __future__ import annotations

import struct

import numpy as np
from rle.rle import decode_frame  # type: ignore[import-not-found, import-untyped]

_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers: JPEG (ITU-T T.81, table B.1) and JPEG-LS (ITU-T T.87)."""


def frame_shape(frame: bytes) -> tuple[int, int]:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 code stream claims.

    Raises:
        ValueError: it is none of these, or ends before it says.
    """
    if frame[:2] == b"\xff\xd8":
        return _jpeg_shape(frame)
    if frame[:4] == b"\xff\x4f\xff\x51" and len(frame) >= 24:
        # ITU-T T.800, A.5.1: Lsiz, Rsiz, then Xsiz, Ysiz, XOsiz, YOsiz.
        right, bottom, left, top = struct.unpack(">4I", frame[8:24])
        return bottom - top, right - left
    raise ValueError("the pixel data are no JPEG, JPEG-LS or JPEG 2000 code stream")


def _jpeg_shape(frame: bytes) -> tuple[int, int]:
    at = 2
    while at + 9 <= len(frame):
        if frame[at] != 0xFF:
            raise ValueError("the JPEG code stream is broken before its frame header")
        marker = frame[at + 1]
        if marker in _JPEG_FRAMES:
            rows, columns = struct.unpack(">2H", frame[at + 5 : at + 9])
            return rows, columns
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD8:  # fill bytes and markers without a length
            at += 1 if marker == 0xFF else 2
            continue
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise ValueError("the JPEG code stream has no frame header")


def decode_rle(frame: bytes, rows: int, columns: int, itemsize: int) -> np.ndarray:
    """RLE Lossless (DICOM PS3.5, annex G) to uint8 or uint16 of shape (rows, columns), by pylibjpeg-rle.

    A hostile segment cannot ask for more than the image: the decoder stops at rows x columns pixels.

    Raises:
        ValueError: the segments do not fit the image.
    """
    if frame[:4] != struct.pack("<I", itemsize):
        raise ValueError(f"no {itemsize} RLE segments, as an image of {itemsize} bytes a pixel has")
    try:
        planes = decode_frame(frame, rows * columns, 8 * itemsize, "<")
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError("the RLE segments do not fit the image") from None  # a panic of Rust is no Exception
    return np.frombuffer(bytearray(planes), f"<u{itemsize}").reshape(rows, columns)
