"""Train, val and test by patient: no patient is ever in two of them.

The official split is kept. Patients in both official splits (31 of CBIS-DDSM, when masses and calcifications are
joined) are used in test alone. Validation patients are taken from the training ones, in each stratum of kind,
pathology and lesion size alike. Sources without an official split get all three parts. The outcome depends on the
patients' ids, lesions and the seed, not on the order of the samples.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np

from data_prep.schema import SPLITS, BuildSettings, Rejected, Sample

STRICTNESS = {"train": 0, "val": 1, "test": 2}
"""A patient in two official splits is kept in the stricter one."""


QUANTILES = (0.25, 0.5, 0.75)
"""Edges of the size classes of patients, by the median extent of their lesions."""


def assign_splits(samples: list[Sample], settings: BuildSettings) -> tuple[list[Sample], list[Rejected]]:
    """Give every sample its split; samples that would leak are rejected as `split_conflict`.

    Args:
        samples: with `split` official or empty.
        settings: `val_fraction`, `test_fraction` and `split_seed` are used.

    Raises:
        ValueError: a sample's split is unknown, or there are too few patients for the parts.
    """
    unknown = sorted({s.split for s in samples} - {"", *SPLITS})
    if unknown:
        raise ValueError(f"split: {unknown} found; a sample's split is one of {list(SPLITS)} or empty")
    kept, rejected = _drop_conflicts(samples)
    if not kept:
        return [], rejected
    official = {s.patient_id: s.split for s in kept if s.split}
    strata = _strata(kept)
    split = dict.fromkeys(strata, "train") | official
    rng = np.random.default_rng(settings.split_seed)
    if not official:
        split.update(dict.fromkeys(_draw(rng, strata, settings.test_fraction, "test"), "test"))
    if "val" not in official.values():
        training = {patient: stratum for patient, stratum in strata.items() if split[patient] == "train"}
        split.update(dict.fromkeys(_draw(rng, training, settings.val_fraction, "val"), "val"))
    return [replace(s, split=split[s.patient_id]) for s in kept], rejected


def _drop_conflicts(samples: list[Sample]) -> tuple[list[Sample], list[Rejected]]:
    """Leave out the samples of a patient's more lenient splits."""
    strictest: dict[str, str] = {}
    for sample in samples:
        if sample.split:
            before = strictest.get(sample.patient_id, "train")
            strictest[sample.patient_id] = max(before, sample.split, key=STRICTNESS.__getitem__)
    kept, rejected = [], []
    for sample in samples:
        stays = strictest.get(sample.patient_id, sample.split)
        if not sample.split or sample.split == stays:
            kept.append(sample)
            continue
        reason = f"split_conflict: patient {sample.patient_id} is also in {stays}, kept there alone"
        rejected.append(Rejected(path=sample.image, sample_id=sample.sample_id, reason=reason))
    return kept, rejected


def _strata(samples: list[Sample]) -> dict[str, str]:
    """Patient -> stratum: kinds, pathologies and size of all of a patient's lesions; patients in sorted order."""
    found: dict[str, set[str]] = defaultdict(set)
    extents: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        found[sample.patient_id].update((f"1{sample.kind}", f"2{sample.pathology}"))
        extents[sample.patient_id] += [lesion.extent for lesion in sample.lesions if lesion.extent is not None]
    medians = {patient: float(np.median(sizes)) for patient, sizes in extents.items() if sizes}
    edges = np.quantile(list(medians.values()), QUANTILES) if medians else np.empty(0)
    for patient, median in medians.items():
        found[patient].add(f"3{np.searchsorted(edges, median)}")
    return {patient: "/".join(sorted(found[patient])) for patient in sorted(found)}


def drop_incomplete(samples: list[Sample], settings: BuildSettings) -> tuple[list[Sample], list[Rejected]]:
    """Leave out the samples that have lost a lesion, where the settings want that in their split."""
    kept, rejected = [], []
    for sample in samples:
        if not sample.lost or settings.keeps_incomplete(sample.split):
            kept.append(sample)
            continue
        reason = f"incomplete: {sample.lost} lesion(s) without a usable mask, in {sample.split}"
        rejected.append(Rejected(path=sample.image, sample_id=sample.sample_id, reason=reason))
    return kept, rejected


def _draw(rng: np.random.Generator, strata: dict[str, str], fraction: float, part: str) -> list[str]:
    """About `fraction` of the patients, at least one, evenly from all strata.

    The patients are lined up stratum by stratum, shuffled inside each, and every (1 / fraction)-th is taken.
    """
    if len(strata) < 2:
        raise ValueError(f"{part}: {len(strata)} patient(s) cannot be divided; give at least 3 patients")
    shuffled = rng.permutation(len(strata))
    patients = [patient for _, _, patient in sorted(zip(strata.values(), shuffled, strata, strict=True))]
    count = max(1, round(fraction * len(patients)))
    places = (np.arange(count) + rng.uniform()) * len(patients) / count
    return [patients[int(place)] for place in places]
