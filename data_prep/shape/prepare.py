"""One sample: read the film and its masks, find the geometry, normalise; the rows of a shard that come of it.

    prepared = prepare_sample(sample, settings)
    prepared.rows       # [{"sample_id": ..., "image": bytes, "mask": bytes, ...}], see schema.SHARD_SCHEMA

One film is in memory at a time, and of each mask only the lesion's own box is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import xxhash

from data_prep.read.dicom import read_film
from data_prep.schema import BuildSettings, Lesion, Normalisation, ReadError, Rejected, Repaired, Sample
from data_prep.shape.box import Box, lesion_box
from data_prep.shape.breast import Breast, find_breast
from data_prep.shape.geometry import Geometry, geometry_of, keep_area
from data_prep.shape.marks import Mark, Marks, read_marks
from data_prep.shape.normalise import breast_levels, normalised_samples

NOTHING: Mapping[str, bytes] = MappingProxyType({})
LOST_SHARE = 0.05
"""A breast's box that cuts off more than this share of a lesion is wrong; the whole film is shown instead."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What became of one sample."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """One row of the whole view; one a lesion of the lesion view; none if the sample was rejected."""
    rejected: list[Rejected] = field(default_factory=list)
    repaired: list[Repaired] = field(default_factory=list)


def prepare_sample(sample: Sample, settings: BuildSettings, fetched: Mapping[str, bytes] = NOTHING) -> Prepared:
    """Prepare one sample. A file that cannot be used ends in `rejected`, never in an exception.

    Args:
        sample: with its split assigned.
        settings: of the build.
        fetched: path -> content of files that need not be read again.

    Returns:
        The rows, and what was left out or put right.

    Raises:
        OSError: the disk or the network does not answer.
    """
    try:
        film = read_film(fetched.get(sample.image, sample.image), settings.film_window)
        breast = _breast(film.image_HW)
    except ReadError as error:
        return Prepared(rejected=[_rejected(sample, str(error))])
    # Without what the source has put right, which it has reported itself.
    repaired = [_repaired(sample, note) for note in film.notes]
    found = read_marks(sample, breast, fetched, is_whole_breast=settings.crop_to_breast)
    repaired += found.repaired
    if found.all_black and not sample.lost and settings.healthy == "keep" and settings.source == "pairs":
        found = replace(found, rejected=[])  # a black mask says that there is nothing
        sample = replace(sample, lesions=(), healthy=True)
    reason = _refusal(sample, found, settings)
    if reason:
        return Prepared(rejected=[*found.rejected, _rejected(sample, reason)], repaired=repaired)
    if found.rejected:
        repaired.append(_repaired(sample, _lesions_left_out(sample, found)))
    whole = geometry_of(
        breast, size_px=settings.size_px, crop_to_breast=settings.crop_to_breast, orient=settings.orient
    )
    if settings.field_of_view == "whole":
        views = [(sample, _keep_lesions(whole, found.marks, sample, repaired))]
    else:
        views = [(_lesion_sample(sample, m.lesion), _lesion_geometry(whole, m, settings)) for m in found.marks]
    levels = breast_levels(film.image_HW, breast) if settings.window == "breast" else None
    rows = []
    known = {
        "pixel_hash": xxhash.xxh3_128_hexdigest(np.ascontiguousarray(film.image_HW).data),
        "spacing_mm": film.spacing_mm,
        "repairs": "; ".join([*sample.repairs, *(item.repair for item in repaired)]),
    }
    for view, geometry in views:
        images = normalised_samples(film.image_HW, geometry, settings.normalisations, levels)
        rows.append({**_row(view, geometry, images, found.marks, settings), **known})
    return Prepared(rows=rows, rejected=found.rejected, repaired=repaired)


def _breast(image_HW: np.ndarray) -> Breast:
    breast = find_breast(image_HW)
    if breast is None:
        raise ReadError("no_breast", f"nothing on the film of {image_HW.shape[0]} x {image_HW.shape[1]} looks like one")
    return breast


def _refusal(sample: Sample, found: Marks, settings: BuildSettings) -> str:
    """Why the sample makes no row, or empty."""
    if not found.marks:
        if sample.lesions:
            return f"no_lesion: none of {len(sample.lesions)} can be used"
        return "" if settings.field_of_view == "whole" else "healthy: the lesion view shows lesions alone"
    if found.rejected and not settings.keeps_incomplete(sample.split):
        return f"incomplete: {len(found.rejected)} of {len(sample.lesions)} lesions cannot be used, in {sample.split}"
    return ""


def _lesions_left_out(sample: Sample, found: Marks) -> str:
    lost = ", ".join(item.reason.split(":")[0] for item in found.rejected)
    return f"lesions_left_out: {len(found.rejected)} of {len(sample.lesions)} ({lost})"


def _rejected(sample: Sample, reason: str) -> Rejected:
    return Rejected(path=sample.image, sample_id=sample.sample_id, reason=reason)


def _repaired(sample: Sample, repair: str) -> Repaired:
    return Repaired(path=sample.image, sample_id=sample.sample_id, repair=repair)


def _keep_lesions(whole: Geometry, marks: list[Mark], sample: Sample, repaired: list[Repaired]) -> Geometry:
    """The breast's geometry, or that of the whole film where the breast's box would cut off a lesion."""
    lost = [mark.lesion.lesion_id for mark in marks if mark.share_outside(whole.box) > LOST_SHARE]
    if not lost:
        return whole
    text = f"box_missed_lesion: {', '.join(lost)} lies outside the breast's box; the whole film is shown"
    repaired.append(_repaired(sample, text))
    return replace(whole, box=Box(0, 0, whole.rows, whole.columns))


def _lesion_geometry(whole: Geometry, mark: Mark, settings: BuildSettings) -> Geometry:
    box = lesion_box(mark.mask.box, rows=whole.rows, columns=whole.columns, margin=settings.lesion_margin)
    return replace(whole, box=box)


def _lesion_sample(sample: Sample, lesion: Lesion) -> Sample:
    """The sample of one lesion: the film's, but for the id, the kind and the pathology."""
    return replace(
        sample,
        sample_id=f"{sample.sample_id}_{lesion.lesion_id}",
        lesions=(lesion,),
        kind=lesion.kind or sample.kind,
        pathology=lesion.pathology or sample.pathology,
    )


def _row(
    sample: Sample,
    geometry: Geometry,
    images: dict[Normalisation, np.ndarray],
    marks: list[Mark],
    settings: BuildSettings,
) -> dict[str, Any]:
    mask_SS, lesions = _masks(geometry, marks, whole=settings.field_of_view == "whole")
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
        "size_px": geometry.size_px,
        "lesions": lesions,
        "film_rows": geometry.rows,
        "film_columns": geometry.columns,
        "box": list(geometry.box),
        "flipped": geometry.flipped,
        **{columns[name]: image_SS.tobytes() for name, image_SS in images.items()},
    }


def image_columns(settings: BuildSettings) -> dict[Normalisation, str]:
    """Normalisation -> column of a shard."""
    first, *others = settings.normalisations
    return {first: "image", **{name: f"image_{name}" for name in others}}


def _masks(geometry: Geometry, marks: list[Mark], *, whole: bool) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The union of the lesions in the box, and one entry a lesion for the column `lesions`."""
    union_SS = np.zeros((geometry.size_px, geometry.size_px), np.uint8)
    entries = []
    for mark in marks:
        coverage_SS = geometry.coverage(mark.mask.patch_hw, mark.mask.box)
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
