"""The scores of a split in a trial's folder: one row an image, one row a mark.

    write_scores(folder, session.predict, samples, split="test", threshold=0.5, batch=8)

    <folder>/test.parquet     one row a test image: who it is, its measures, the predicted mask
             val.parquet      the same of the validation images
             marks.parquet    one row a mark on a test image, for the free-response curve

docs/formats.md explains the columns. pandas alone reads them.

Shapes: N images of a split, H rows, W columns, K bins of probability.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Literal, Protocol, cast

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import Folder
from trainables.score.image import FOUND_SHARE, measure
from trainables.score.marks import MARK_FROM, marks_of

ScoredSplit = Literal["val", "test"]

MARKS = "marks.parquet"
BINS = 20
"""Bins of probability in [0, 1], each closed above: what lies above k / BINS is the sum of the bins from k on."""
ABOUT = ("sample_id", "patient_id", "side", "view", "density", "kind", "pathology")
"""What is said of an image beside its measures, as in the shards."""

IMAGE_SCHEMA = pa.schema(
    [
        *((name, pa.int8() if name == "density" else pa.string()) for name in ABOUT),
        ("spacing_mm", pa.float64()),
        *((name, pa.float64()) for name in ("dice", "iou", "sensitivity", "hd95_px", "hd95_mm")),
        *((name, pa.int32()) for name in ("truth_px", "found_px", "both_px")),
        *((name, pa.int32()) for name in ("lesions", "lesions_found", "false_positives", "lesion_px")),
        ("found", pa.binary()),
        ("bin_px", pa.list_(pa.int32())),
        ("bin_lesion_px", pa.list_(pa.int32())),
        ("bin_probability", pa.list_(pa.float32())),
    ]
)
"""The columns of `test.parquet` and `val.parquet`."""

MARK_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("score", pa.float64()),
        *((name, pa.int32()) for name in ("lesion", "row", "column", "area_px")),
    ]
)
"""The columns of `marks.parquet`."""


class SamplesWithTable(Protocol):
    """The samples of a split, with what the shards say of each."""

    @property
    def images_NHW(self) -> np.ndarray:
        """uint8, (N, H, W)."""

    @property
    def masks_NHW(self) -> np.ndarray:
        """uint8, 0 and 1, (N, H, W)."""

    @property
    def table(self) -> pd.DataFrame:
        """One row a sample."""


def write_scores(
    folder: Folder,
    predict: Callable[[np.ndarray], np.ndarray],
    samples: SamplesWithTable,
    *,
    split: ScoredSplit,
    threshold: float,
    batch: int = 8,
) -> pd.DataFrame:
    """Predict every image of a split once and write its measures; of the test split its marks too.

    Args:
        folder: the trial's folder.
        predict: images uint8 (B, H, W) -> probabilities (B, H, W).
        samples: the split.
        split: its name, which names the file.
        threshold: a pixel is lesion if its probability is above it.
        batch: images that `predict` is given at once.

    Returns:
        The rows of the images as written.
    """
    rows: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    abouts: list[dict[str, Any]] = cast(list[dict[str, Any]], samples.table.to_dict("records"))
    for number, probability_HW in enumerate(_predicted(predict, samples.images_NHW, batch)):
        about, truth_HW = abouts[number], np.asarray(samples.masks_NHW[number]) > 0
        rows.append(_image_row(about, probability_HW, truth_HW, threshold))
        marks += [{"sample_id": str(about["sample_id"]), **asdict(m)} for m in marks_of(probability_HW, truth_HW)]
    told = {"threshold": str(threshold), "found_share": str(FOUND_SHARE), "mark_from": str(MARK_FROM)}
    _write(folder, f"{split}.parquet", rows, IMAGE_SCHEMA, told)
    if split == "test":
        _write(folder, MARKS, marks, MARK_SCHEMA, told)
    return pd.DataFrame(rows, columns=IMAGE_SCHEMA.names)


def read_images(folder: Folder, split: ScoredSplit = "test") -> pd.DataFrame | None:
    """The rows of a split's images, or None where there are none. Raises ValueError that names a damaged file."""
    return _read(folder, f"{split}.parquet", IMAGE_SCHEMA)


def read_marks(folder: Folder) -> pd.DataFrame | None:
    """The marks on the test images, or None where there are none. Raises ValueError that names a damaged file."""
    return _read(folder, MARKS, MARK_SCHEMA)


def found_mask(png: bytes) -> npt.NDArray[np.bool_]:
    """A predicted mask (H, W) from the column `found`. Raises ValueError if it is no picture."""
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise ValueError("a predicted mask in the column `found` is no PNG")
    return np.asarray(picture) > 0


def _predicted(
    predict: Callable[[np.ndarray], np.ndarray], images_NHW: np.ndarray, batch: int
) -> Iterator[npt.NDArray[np.floating]]:
    for start in range(0, len(images_NHW), batch):
        yield from predict(np.asarray(images_NHW[start : start + batch]))


def _image_row(
    about: dict[str, Any], probability_HW: npt.NDArray[np.floating], truth_HW: npt.NDArray[np.bool_], threshold: float
) -> dict[str, Any]:
    found_HW = probability_HW > threshold
    spacing_mm = _spacing_mm(about, truth_HW.shape[0])
    # Above k / BINS begins bin k, so a probability of exactly k / BINS is still in the bin below, as for a threshold.
    bin_HW = np.clip(np.ceil(probability_HW.astype(np.float64) * BINS).astype(int) - 1, 0, BINS - 1).ravel()
    done, png = cv2.imencode(".png", found_HW.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    assert done, found_HW.shape
    return {
        **{name: _plain(about.get(name)) for name in ABOUT},
        "spacing_mm": spacing_mm,
        **asdict(measure(truth_HW, found_HW, spacing_mm=spacing_mm)),
        "found": png.tobytes(),
        "bin_px": np.bincount(bin_HW, minlength=BINS),
        "bin_lesion_px": np.bincount(bin_HW, truth_HW.ravel(), minlength=BINS).astype(int),
        "bin_probability": np.bincount(bin_HW, probability_HW.ravel(), minlength=BINS),
    }


def _spacing_mm(about: dict[str, Any], size_px: int) -> float | None:
    """Side of a sample's pixel on the film, from the film's own spacing and the box that was shrunk to the sample."""
    film_mm, box = about.get("spacing_mm"), about.get("box")
    if film_mm is None or box is None or not math.isfinite(film_mm) or film_mm <= 0:
        return None
    top, left, bottom, right = (int(edge) for edge in box)
    return float(film_mm) * max(bottom - top, right - left) / size_px


def _plain(value: Any) -> Any:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return None if missing else value


def _write(folder: Folder, name: str, rows: list[dict[str, Any]], schema: pa.Schema, told: dict[str, str]) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.with_metadata(told)), buffer, compression="zstd")
    folder.write_bytes(name, buffer.getvalue())


def _read(folder: Folder, name: str, schema: pa.Schema) -> pd.DataFrame | None:
    if not folder.exists(name):
        return None
    try:
        table = pq.read_table(io.BytesIO(folder.read_bytes(name)))
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{folder}/{name} is damaged: {str(error).splitlines()[0]}") from error
    if missing := [column for column in schema.names if column not in table.column_names]:
        raise ValueError(f"{folder}/{name} is not what a final's test writes: it has no column {', '.join(missing)}")
    return table.to_pandas()
