"""A small JPEG Lossless encoder for the tests: no library at hand writes that syntax.

ITU-T T.81, annex H: predictor 1 (the pixel to the left), one Huffman table in which all 17 categories have 5 bits.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1

CATEGORIES = 17


def encode_jpeg_lossless(source: Path, target: Path) -> Path:
    """A copy of an uncompressed 16-bit file in transfer syntax 1.2.840.10008.1.2.4.70."""
    data = pydicom.dcmread(source)
    data.PixelData = encapsulate([_encode(data.pixel_array)])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    target.write_bytes(b"")
    data.save_as(target, implicit_vr=False, little_endian=True)
    return target


def _encode(image_HW: np.ndarray) -> bytes:
    rows, columns = image_HW.shape
    frame = struct.pack(">HBHHBBBB", 11, 16, rows, columns, 1, 1, 0x11, 0)
    table = struct.pack(">HB", 19 + CATEGORIES, 0) + bytes(
        [0, 0, 0, 0, CATEGORIES] + [0] * 11 + list(range(CATEGORIES))
    )
    scan = struct.pack(">HBBBBBB", 8, 1, 1, 0x00, 1, 0, 0)
    return b"\xff\xd8\xff\xc3" + frame + b"\xff\xc4" + table + b"\xff\xda" + scan + _entropy(image_HW) + b"\xff\xd9"


def _entropy(image_HW: np.ndarray) -> bytes:
    values = image_HW.astype(int)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << 15
    bits = "".join(_code(int(d)) for d in ((values - predicted + 32768) % 65536 - 32768).ravel())
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")


def _code(difference: int) -> str:
    size = abs(difference).bit_length()
    if size == 16:  # -32768 has no bits of its own
        return f"{16:05b}"
    value = difference if difference > 0 else difference + (1 << size) - 1
    return f"{size:05b}" + (f"{value:0{size}b}" if size else "")
