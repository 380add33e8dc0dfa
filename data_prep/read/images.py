"""Images that are no DICOM (PNG, JPEG, TIFF): looked at before they are decoded."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from data_prep.schema import ReadError

MAX_SIDE_PX = 20_000
MAX_PIXELS = 100_000_000
"""The largest film of CBIS-DDSM has 7,111 x 5,431 = 39 million pixels."""

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")


def check_size(rows: int, columns: int) -> None:
    """Raises ReadError `absurd_size` if no mammogram is that large, `unreadable` if it has no pixel."""
    if rows < 1 or columns < 1:
        raise ReadError("unreadable", f"the header claims {rows} x {columns} pixels")
    if max(rows, columns) > MAX_SIDE_PX or rows * columns > MAX_PIXELS:
        limits = f"at most {MAX_SIDE_PX} a side and {MAX_PIXELS} in all are read"
        raise ReadError("absurd_size", f"the header claims {rows} x {columns} pixels; {limits}")


def image_shape(content: bytes) -> tuple[int, int]:
    """(rows, columns) by the file's header; nothing is decoded.

    Raises:
        ReadError: `not_dicom` (no known format), `absurd_size`, `unreadable`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            columns, rows = image.size
    except UnidentifiedImageError as error:
        raise ReadError("not_dicom", f"neither DICOM nor {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ReadError("absurd_size", str(error)) from error
    except Exception as error:  # a broken header may raise anything
        raise ReadError("unreadable", f"{type(error).__name__}: {error}") from error
    check_size(rows, columns)
    return rows, columns


def decode_image(content: bytes) -> np.ndarray:
    """Decode to grey, uint8 or uint16 of shape (H, W), 16-bit PNG and TIFF kept at 16 bits.

    Raises:
        ReadError: as `image_shape`, and `wrong_depth` for floating-point or 32-bit images, `truncated` for a JPEG
            or PNG without an end, `unreadable` for what OpenCV cannot decode.
    """
    image_shape(content)
    if content[:2] == b"\xff\xd8" and b"\xff\xd9" not in content[-4096:]:
        raise ReadError("truncated", "the JPEG has no end marker")
    if content[:4] == b"\x89PNG" and b"IEND" not in content[-4096:]:
        raise ReadError("truncated", "the PNG has no end chunk")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ReadError("unreadable", str(error).strip().splitlines()[-1]) from error
    if image is None:
        raise ReadError("unreadable", "OpenCV cannot decode it")
    if image.dtype not in (np.uint8, np.uint16):
        raise ReadError("wrong_depth", f"pixels are {image.dtype}, not 8 or 16 bits unsigned")
    return _to_grey(image)


def _to_grey(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        return image
    if image.shape[2] in (1, 2):
        return np.ascontiguousarray(image[..., 0])
    return cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY)
