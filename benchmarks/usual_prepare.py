"""The usual way to prepare a film, against which `benchmarks.prepare` measures: what one would write first.

pydicom's own pixel_array, OpenCV, numpy, SHA-256 against leaks, whole arrays of the film's size for the masks. The
steps and what they give are those of `data_prep.shape.prepare`; only how they are done differs. `write_usual_shard`
writes a shard of such samples in one thread; `prepare_usual` and `our_steps` tell how long each step takes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import xxhash

from data_prep.read.dicom import read_film
from data_prep.read.masks import read_mask
from data_prep.schema import Sample
from data_prep.shape.breast import find_breast
from data_prep.shape.geometry import WORKING_PX, Geometry, geometry_of, keep_area
from data_prep.shape.normalise import minmax
from data_prep.write import ShardTask

WINDOW = (0.0, 99.9)
T = TypeVar("T")


class Steps:
    """CPU time of each step of this thread, in ms."""

    def __init__(self) -> None:
        self.spent_ms: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[[], T]) -> T:
        """What `work` returns; its time is added to that of the step."""
        begun = time.thread_time()
        result = work()
        self.spent_ms[name] = self.spent_ms.get(name, 0.0) + 1e3 * (time.thread_time() - begun)
        return result


def write_usual_shard(task: ShardTask, out: Path) -> int:
    """Prepare a task's samples in the usual way and write them to a Parquet file. Returns how many."""
    cv2.setNumThreads(1)
    rows = [
        row for sample in task.samples if (row := prepare_usual(sample, task.settings.size_px, Steps())) is not None
    ]
    file = out / task.file
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file, compression="zstd")
    return len(rows)


def prepare_usual(sample: Sample, size_px: int, step: Steps) -> dict[str, Any] | None:
    """One sample as a row of a shard."""
    image_HW = step("read film", lambda: pydicom.dcmread(sample.image).pixel_array)
    geometry = step("geometry", lambda: _geometry(image_HW, size_px))
    if geometry is None:
        return None
    masks = [step("read mask", lambda path=lesion.mask: _read_usual_mask(path)) for lesion in sample.lesions]
    digest = step("hash", lambda: hashlib.sha256(np.ascontiguousarray(image_HW).data).hexdigest())
    working = step("cut", lambda: _cut(image_HW, geometry))
    grey = step("min-max", lambda: _minmax(working))
    equalised = step("CLAHE", lambda: cv2.createCLAHE(2.0, (8, 8)).apply(grey))
    image_SS = step("square", lambda: geometry.square(equalised, int(equalised.min())))
    mask_SS, lesions = step("mask", lambda: _masks(geometry, masks))
    return {
        "sample_id": sample.sample_id, "patient_id": sample.patient_id, "split": sample.split,
        "image": image_SS.tobytes(), "mask": mask_SS.tobytes(), "lesions": json.dumps(lesions),
        "box": list(geometry.box), "flipped": geometry.flipped, "pixel_sha256": digest,
    }  # fmt: skip


def _geometry(image_HW: np.ndarray, size_px: int) -> Geometry | None:
    breast = find_breast(image_HW)
    if breast is None:
        return None
    rows, columns = image_HW.shape
    flipped = breast.chest_wall == "right"
    return Geometry(rows=rows, columns=columns, box=breast.box, flipped=flipped, size_px=size_px)


def _read_usual_mask(path: str) -> np.ndarray:
    mask_HW = (pydicom.dcmread(path).pixel_array > 127).astype(np.uint8)
    if not mask_HW.any():
        raise ValueError(f"{path} marks nothing")
    return mask_HW


def _cut(image_HW: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The breast's box shrunk to the working copy in one step, mirrored if need be."""
    box = geometry.box
    part = image_HW[box.top : box.bottom, box.left : box.right]
    scale = WORKING_PX / max(part.shape)
    if scale < 1:
        size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(part[:, ::-1] if geometry.flipped else part)


def _minmax(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, WINDOW)
    return np.rint(np.clip((image.astype(np.float32) - low) * (255 / (high - low)), 0, 255)).astype(np.uint8)


def _masks(geometry: Geometry, masks: list[np.ndarray]) -> tuple[np.ndarray, list[dict[str, float]]]:
    """The union of the lesions at the sample's size, and their areas."""
    union_SS = np.zeros((geometry.size_px, geometry.size_px), np.uint8)
    lesions = []
    for mask_HW in masks:
        mask_SS = geometry.apply_mask(mask_HW)
        np.maximum(union_SS, mask_SS, out=union_SS)
        lesions.append({"area_px": int(mask_SS.sum())})
    return union_SS, lesions


def our_steps(sample: Sample, size_px: int, step: Steps) -> None:
    """The same steps as data preparation does them, timed one by one."""
    film = step("read film", lambda: read_film(sample.image))
    breast = step("geometry", lambda: find_breast(film.image_HW))
    if breast is None:
        return
    geometry = geometry_of(breast, size_px=size_px)
    masks = [step("read mask", lambda path=lesion.mask: read_mask(path)) for lesion in sample.lesions]
    step("hash", lambda: xxhash.xxh3_128_hexdigest(np.ascontiguousarray(film.image_HW).data))
    working = step("cut", lambda: geometry.cut(film.image_HW, WORKING_PX))
    grey = step("min-max", lambda: minmax(working))
    equalised = step("CLAHE", lambda: cv2.createCLAHE(2.0, (8, 8)).apply(grey))
    step("square", lambda: geometry.square(equalised, int(equalised.min())))
    step("mask", lambda: [keep_area(geometry.coverage(mask.patch_hw, mask.box)) for mask in masks])
