"""Breast views that CBIS-DDSM has twice, as a mass and as a calcification image: one film, one sample, all its lesions.

71 views are in both halves of the collection. Taken as they stand, each half's sample lacks the lesions of the other,
and a network that finds them is punished.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from data_prep.find.cbis_cases import worst_pathology
from data_prep.find.listing import FileRecord
from data_prep.read.files import open_file, patiently, read_at
from data_prep.schema import ReadError, Repaired, Sample

STRIP_BYTES = 256 * 1024
STRIPS = (0.25, 0.5, 0.75)
"""Where the two films' pixel data are compared, as shares of their length: across the breast."""
STRICTNESS = {"train": 0, "val": 1, "test": 2}


def join_views(samples: list[Sample], records: Mapping[str, FileRecord]) -> tuple[list[Sample], list[Repaired]]:
    """Join the samples of one view whose films are the same, under the first one's id, in the stricter split.

    Args:
        samples: one an image.
        records: path of an image file -> its header.

    Returns:
        The samples in order, and what was put right.
    """
    views: dict[tuple[str, str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        views[sample.patient_id, sample.side, sample.view].append(sample)
    joined: dict[str, Sample | None] = {}
    repaired = []
    for held in views.values():
        if len(held) != 2 or held[0].kind == held[1].kind or not same_film(*(records[s.image] for s in held)):
            continue
        first, second = sorted(held, key=lambda s: s.kind != "mass")
        repair = f"views_joined: {second.sample_id} shows the same film"
        joined |= {first.sample_id: _joined(first, second, repair), second.sample_id: None}
        repaired.append(Repaired(path=second.image, sample_id=first.sample_id, repair=repair))
    chosen = (joined.get(sample.sample_id, sample) for sample in samples)
    return [sample for sample in chosen if sample is not None], repaired


def _joined(first: Sample, second: Sample, repair: str) -> Sample:
    lesions = tuple(
        replace(lesion, lesion_id=f"{lesion.kind}_{lesion.lesion_id}") for s in (first, second) for lesion in s.lesions
    )
    return replace(
        first,
        lesions=lesions,
        kind="mass+calc",
        pathology=worst_pathology(lesion.pathology for lesion in lesions),
        density=first.density if first.density is not None else second.density,
        split=max(first.split, second.split, key=STRICTNESS.__getitem__),
        lost=first.lost + second.lost,
        repairs=(*first.repairs, *second.repairs, repair),
    )


def same_film(first: FileRecord, second: FileRecord) -> bool:
    """Whether two files hold the same pixels, by their size and by strips of their pixel data, which end both files."""
    sizes = [(r.rows, r.columns, r.bits, r.dicom) for r in (first, second)]
    if sizes[0] != sizes[1]:
        return False
    length = min(first.rows * first.columns * first.bits // 8, int(0.9 * min(first.bytes, second.bytes)))
    try:
        strips = [_strips(record.path, length) for record in (first, second)]
    except ReadError:
        return False
    return strips[0] == strips[1] and any(np.ptp(np.frombuffer(strip, np.uint8)) > 0 for strip in strips[0] if strip)


@patiently
def _strips(path: str, length: int) -> list[bytes]:
    """Parts of the last `length` bytes of a file."""
    with open_file(path) as (file, size):
        count = min(STRIP_BYTES, max(length // 4, 1))
        return [read_at(file, size - length + int(share * (length - count)), count) for share in STRIPS]
