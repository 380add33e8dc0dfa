"""Pictures for the eye: the paper's figure 1 of one film, and a contact sheet of prepared samples.

Pictures are uint8 arrays (rows, columns, 3) in OpenCV's order blue, green, red; `png` makes the file's bytes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd

from data_prep.read.dicom import read_image
from data_prep.schema import ReadError
from data_prep.shape.geometry import find_geometry
from data_prep.shape.normalise import WINDOW, minmax, normalised_samples
from data_prep.shards import Samples

FIGURE_PX = 512
TILE_PX = 224
TEXT_PX = 22
LESION_COLOUR = (60, 60, 255)
BOX_COLOUR = (0, 200, 255)
GROUND = 24


def normalisation_figure(path: str | os.PathLike[str]) -> np.ndarray:
    """The paper's figure 1 of one film: original with the breast's box, min-max, z-score, CLAHE, side by side.

    Args:
        path: DICOM, PNG, JPEG or TIFF.

    Raises:
        ValueError: the file cannot be read, or shows no breast.
    """
    try:
        image_HW = read_image(path)
    except ReadError as error:
        raise ValueError(f"{path}: {error}") from error
    geometry = find_geometry(image_HW, size_px=FIGURE_PX)
    if geometry is None:
        raise ValueError(f"{path}: nothing on it looks like a breast")
    normalised = normalised_samples(image_HW, geometry, ("minmax", "zscore", "clahe"))
    names = {"minmax": "min-max", "zscore": "z-score", "clahe": "CLAHE"}
    tiles = [_titled(_padded(_original(image_HW, geometry.box), FIGURE_PX), "original")]
    tiles += [_titled(cv2.cvtColor(normalised[name], cv2.COLOR_GRAY2BGR), names[name]) for name in normalised]
    return np.hstack(tiles)


def contact_sheet(samples: Samples, *, count: int = 24, columns: int = 8) -> np.ndarray:
    """Samples with the outlines of their lesions, spread evenly over the split.

    Args:
        samples: of one split.
        count: at most this many.
        columns: samples in a row.
    """
    tiles = [
        _titled(lesion_tile(samples.images_NHW[n], samples.masks_NHW[n]), _label(samples.table.iloc[n]), scale=0.36)
        for n in spread_over(len(samples), count)
    ]
    return _grid(tiles, columns)


def spread_over(samples: int, count: int) -> list[int]:
    """At most `count` of so many samples, spread evenly over them."""
    return sorted(set(np.linspace(0, samples - 1, min(count, samples)).round().astype(int).tolist()))


def lesion_tile(image_SS: np.ndarray, mask_SS: np.ndarray) -> np.ndarray:
    """One sample, enlarged or shrunk to `TILE_PX`, with the lesions' outlines."""
    way = cv2.INTER_AREA if image_SS.shape[0] > TILE_PX else cv2.INTER_LINEAR
    picture = cv2.cvtColor(cv2.resize(np.array(image_SS), (TILE_PX, TILE_PX), interpolation=way), cv2.COLOR_GRAY2BGR)
    return _outlined(picture, cv2.resize(np.array(mask_SS), (TILE_PX, TILE_PX), interpolation=cv2.INTER_NEAREST))


def film_with_box(image_HW: np.ndarray, box: Sequence[int], masks_HW: Sequence[np.ndarray]) -> np.ndarray:
    """A whole film under a plain linear window, its box and the outlines of its lesions drawn in.

    Args:
        image_HW: the film.
        box: (top, left, bottom, right) of the part that its sample shows.
        masks_HW: uint8 of 0 and 1, each of the film's aspect.
    """
    picture = _original(image_HW, box)
    for mask_HW in masks_HW:
        size = (picture.shape[1], picture.shape[0])
        # A lesion thinner than a pixel of the picture is drawn none the less.
        small = cv2.resize(mask_HW.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
        picture = _outlined(picture, small.astype(np.uint8))
    return picture


def png(picture: np.ndarray) -> bytes:
    """The picture as a PNG file."""
    done, data = cv2.imencode(".png", picture)
    assert done, picture.shape
    return data.tobytes()


def _original(image_HW: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """The whole film under a plain linear window, the box drawn in."""
    scale = FIGURE_PX / max(image_HW.shape)
    size = (max(1, round(image_HW.shape[1] * scale)), max(1, round(image_HW.shape[0] * scale)))
    small = cv2.resize(image_HW, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    picture = cv2.cvtColor(minmax(small, window=(0, WINDOW[1])), cv2.COLOR_GRAY2BGR)
    top, left, bottom, right = (round(edge * scale) for edge in box)
    cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), BOX_COLOUR, 1)
    return picture


def _outlined(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, LESION_COLOUR, 1)
    return picture


def _label(row: pd.Series) -> str:
    name = str(row["sample_id"])
    return f"{name[-26:]} {str(row['pathology'])[:1]}"


def _titled(picture: np.ndarray, title: str, *, scale: float = 0.55) -> np.ndarray:
    bar = np.full((TEXT_PX, picture.shape[1], 3), GROUND, np.uint8)
    cv2.putText(bar, title, (4, TEXT_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, scale, (230, 230, 230), 1, cv2.LINE_AA)
    return _framed(np.vstack([bar, picture]))


def _framed(picture: np.ndarray) -> np.ndarray:
    return cv2.copyMakeBorder(picture, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(GROUND, GROUND, GROUND))


def _padded(picture: np.ndarray, side: int) -> np.ndarray:
    square = np.full((side, side, 3), GROUND, np.uint8)
    square[: picture.shape[0], : picture.shape[1]] = picture
    return square


def _grid(tiles: Sequence[np.ndarray], columns: int) -> np.ndarray:
    if not tiles:
        return np.full((TEXT_PX, TILE_PX, 3), GROUND, np.uint8)
    empty = np.full_like(tiles[0], GROUND)
    rows = [list(tiles[at : at + columns]) for at in range(0, len(tiles), columns)]
    width = len(rows[0])
    return np.vstack([np.hstack(row + [empty] * (width - len(row))) for row in rows])
