"""One sample: read the film and its masks, find the geometry, normalise; the rows of a shard that come of it.

    prepared = prepare_sample(sample, settings)
    prepared.rows       # [{"sample_id": ..., "image": bytes, "mask": bytes, ...}], see schema.SHARD_SCHEMA

One film is in memory at a time, and of each mask only the lesion's own box is kept.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from data_prep.read.dicom import read_image, read_mask
from data_prep.schema import BuildSettings, Lesion, ReadError, Rejected, Repaired, Sample
from data_prep.shape.geometry import Box, Geometry, bounding_box, find_geometry, keep_area, lesion_box
from data_prep.shape.normalise import normalised_samples

ASPECT_TOLERANCE = 0.01
"""A mask whose aspect ratio differs from the film's by no more than this is a rescaled one; beyond it, a wrong one."""
LOST_SHARE = 0.05
"""A breast's box that cuts off more than this share of a lesion is wrong; the whole film is shown instead."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What became of one sample."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """One row of the whole view; one a lesion of the lesion view; none if the sample was rejected."""
    rejected: list[Rejected] = field(default_factory=list)
    repaired: list[Repaired] = field(default_factory=list)


@dataclass(frozen=True)
class Mark:
    """A lesion's mask, cut down to the lesion's own box."""

    lesion: Lesion
    box: Box
    patch: np.ndarray
    """uint8 of 0 and 1."""

    def share_outside(self, box: Box) -> float:
        """The share of the lesion's pixels that lie outside `box`."""
        if box.covers(self.box):
            return 0.0
        top, left = max(box.top - self.box.top, 0), max(box.left - self.box.left, 0)
        bottom, right = max(box.bottom - self.box.top, 0), max(box.right - self.box.left, 0)
        inside = np.count_nonzero(self.patch[top:bottom, left:right])
        return 1 - inside / np.count_nonzero(self.patch)


def prepare_sample(sample: Sample, settings: BuildSettings) -> Prepared:
    """Prepare one sample. A file that cannot be used ends in `rejected`, never in an exception.

    Args:
        sample: with its split assigned.
        settings: of the build.

    Returns:
        The rows, and what was left out or put right.
    """
    repaired: list[Repaired] = []  # without those of the source, which has reported them itself
    try:
        image_HW = read_image(sample.image)
        whole = _whole_geometry(image_HW, settings)
    except ReadError as error:
        return Prepared(rejected=[Rejected(path=sample.image, sample_id=sample.sample_id, reason=str(error))])
    marks, rejected = _read_marks(sample, image_HW.shape, repaired)
    if not marks and (sample.lesions or settings.field_of_view == "lesion"):
        rejected.append(_without_lesion(sample))
        return Prepared(rejected=rejected, repaired=repaired)
    if settings.field_of_view == "whole":
        views = [(sample, _keep_lesions(whole, marks, sample, repaired))]
    else:
        views = [(_lesion_sample(sample, mark.lesion), _lesion_geometry(whole, mark, settings)) for mark in marks]
    digest = hashlib.sha256(np.ascontiguousarray(image_HW).data).hexdigest()
    text = "; ".join([*sample.repairs, *(item.repair for item in repaired)])
    rows = []
    for view, geometry in views:
        row = _row(view, image_HW, geometry, marks, settings)
        rows.append({**row, "pixel_sha256": digest, "repairs": text})
    return Prepared(rows=rows, rejected=rejected, repaired=repaired)


def _whole_geometry(image_HW: np.ndarray, settings: BuildSettings) -> Geometry:
    geometry = find_geometry(
        image_HW, size_px=settings.size_px, crop_to_breast=settings.crop_to_breast, orient=settings.orient
    )
    if geometry is None:
        raise ReadError("no_breast", f"nothing on the film of {image_HW.shape[0]} x {image_HW.shape[1]} looks like one")
    return geometry


def _read_marks(sample: Sample, shape: tuple[int, ...], repaired: list[Repaired]) -> tuple[list[Mark], list[Rejected]]:
    """The lesions whose masks can be used, and the others; what was put right is added to `repaired`."""
    marks, rejected = [], []
    for lesion in sample.lesions:
        try:
            mask_HW = read_mask(lesion.mask)
            if mask_HW.shape != shape:
                repair = f"mask_rescaled: mask {_size(mask_HW.shape)}, image {_size(shape)}"
                mask_HW = _fitted(mask_HW, shape)
                if not any(text.startswith(repair) for text in sample.repairs):  # the header had the wrong size
                    repaired.append(Repaired(path=lesion.mask, sample_id=sample.sample_id, repair=repair))
            marks.append(_mark(lesion, mask_HW))
        except ReadError as error:
            rejected.append(Rejected(path=lesion.mask, sample_id=sample.sample_id, reason=str(error)))
    if marks and rejected:
        lost = ", ".join(item.reason.split(":")[0] for item in rejected)
        text = f"lesions_left_out: {len(rejected)} of {len(sample.lesions)} ({lost})"
        repaired.append(Repaired(path=sample.image, sample_id=sample.sample_id, repair=text))
    return marks, rejected


def _fitted(mask_HW: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    ratio = (mask_HW.shape[0] / mask_HW.shape[1]) / (shape[0] / shape[1])
    if abs(ratio - 1) > ASPECT_TOLERANCE:
        raise ReadError("mask_other_aspect", f"the mask has {_size(mask_HW.shape)} pixels, the film {_size(shape)}")
    return cv2.resize(mask_HW, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST_EXACT)


def _mark(lesion: Lesion, mask_HW: np.ndarray) -> Mark:
    box = bounding_box(mask_HW)
    if box.rows == 0:
        raise ReadError("mask_black", "no pixel is marked")
    return Mark(lesion, box, mask_HW[box.top : box.bottom, box.left : box.right].copy())


def _keep_lesions(whole: Geometry, marks: list[Mark], sample: Sample, repaired: list[Repaired]) -> Geometry:
    """The breast's geometry, or that of the whole film where the breast's box would cut off a lesion."""
    lost = [mark.lesion.lesion_id for mark in marks if mark.share_outside(whole.box) > LOST_SHARE]
    if not lost:
        return whole
    text = f"box_missed_lesion: {', '.join(lost)} lies outside the breast's box; the whole film is shown"
    repaired.append(Repaired(path=sample.image, sample_id=sample.sample_id, repair=text))
    return _with_box(whole, Box(0, 0, whole.rows, whole.columns))


def _lesion_geometry(whole: Geometry, mark: Mark, settings: BuildSettings) -> Geometry:
    box = lesion_box(mark.box, rows=whole.rows, columns=whole.columns, margin=settings.lesion_margin)
    return _with_box(whole, box)


def _with_box(whole: Geometry, box: Box) -> Geometry:
    return Geometry(rows=whole.rows, columns=whole.columns, box=box, flipped=whole.flipped, size_px=whole.size_px)


def _lesion_sample(sample: Sample, lesion: Lesion) -> Sample:
    """The sample of one lesion: the film's, but for the id, the kind and the pathology."""
    return Sample(
        sample_id=f"{sample.sample_id}_{lesion.lesion_id}",
        patient_id=sample.patient_id,
        image=sample.image,
        lesions=(lesion,),
        side=sample.side,
        view=sample.view,
        kind=lesion.kind or sample.kind,
        pathology=lesion.pathology or sample.pathology,
        density=sample.density,
        split=sample.split,
    )


def _without_lesion(sample: Sample) -> Rejected:
    detail = f"none of {len(sample.lesions)} can be used" if sample.lesions else "none is annotated"
    return Rejected(path=sample.image, sample_id=sample.sample_id, reason=f"no_lesion: {detail}")


def _row(
    sample: Sample, image_HW: np.ndarray, geometry: Geometry, marks: list[Mark], settings: BuildSettings
) -> dict[str, Any]:
    mask_SS, lesions = _masks(geometry, marks, whole=settings.field_of_view == "whole")
    images = normalised_samples(image_HW, geometry, settings.normalisations)
    columns = image_columns(settings)
    return {
        "sample_id": sample.sample_id,
        "patient_id": sample.patient_id,
        "side": sample.side,
        "view": sample.view,
        "kind": sample.kind,
        "pathology": sample.pathology,
        "density": sample.density,
        "split": sample.split,
        "mask": mask_SS.tobytes(),
        "shape": list(mask_SS.shape),
        "dtype": str(mask_SS.dtype),
        "lesions": json.dumps(lesions),
        "rows": geometry.rows,
        "columns": geometry.columns,
        "box": list(geometry.box),
        "flipped": geometry.flipped,
        **{columns[name]: image_SS.tobytes() for name, image_SS in images.items()},
    }


def image_columns(settings: BuildSettings) -> dict[str, str]:
    """Normalisation -> column of a shard."""
    first, *others = settings.normalisations
    return {first: "image", **{name: f"image_{name}" for name in others}}


def _masks(geometry: Geometry, marks: list[Mark], *, whole: bool) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The union of the lesions in the box, and one entry a lesion for the column `lesions`."""
    union_SS = np.zeros((geometry.size_px, geometry.size_px), np.uint8)
    entries = []
    for mark in marks:
        coverage_SS = geometry.coverage(mark.patch, mark.box)
        mask_SS = keep_area(coverage_SS)
        area_px = int(mask_SS.sum())
        if area_px == 0 and not whole:  # another lesion of the film, not in this crop
            continue
        np.maximum(union_SS, mask_SS, out=union_SS)
        entries.append(
            {
                "lesion_id": mark.lesion.lesion_id,
                "kind": mark.lesion.kind,
                "pathology": mark.lesion.pathology,
                "area_px": area_px,
                "exact_area_px": round(float(coverage_SS.sum(dtype=np.float64)), 2),
            }
        )
    return union_SS, entries


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]}"
