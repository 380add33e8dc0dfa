"""Marks and the free-response curve (FROC): lesions found against false positives per image, as the threshold moves.

A mark is an 8-connected part of the pixels whose probability is above `MARK_FROM`. Its score is its highest
probability. It stands at the innermost of its highest pixels, and hits the lesion that this pixel lies on. Several
marks on one lesion count once, and none of them is a false positive. The threshold moves over the marks' scores, not
over the pixels: parts that merge and split would make a curve that goes back and forth.

The curve is Chakraborty's: x is false positives per image over all images, y the share of all lesions that are hit. A
low x needs images without a lesion to mean what it means in screening; of those CBIS-DDSM has none.

Shapes: H rows, W columns, B bootstrap draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from trainables.score.interval import FEWEST_PATIENTS

MARK_FROM = 0.1
"""Probability above which a pixel belongs to a mark."""
PEAK = 0.01
"""Pixels this close to a mark's highest probability count as its highest."""
MARKS_KEPT = 50
"""Marks of one image that are kept, highest first: an untrained network may make thousands."""
RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""False positives per image at which the sensitivity is read; its mean over them is the score of LUNA16."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One mark of a prediction."""

    score: float
    """Its highest probability."""
    lesion: int
    """The lesion it hits, from 0 in the order of OpenCV's components; -1 for a false positive."""
    row: int
    column: int
    """Where it stands."""
    area_px: int


def marks_of(probability_HW: npt.NDArray[np.floating], truth_HW: npt.NDArray[np.bool_]) -> list[Mark]:
    """The marks of one prediction, highest score first, at most `MARKS_KEPT`."""
    count, parts_HW, boxes, _ = cv2.connectedComponentsWithStats(
        (probability_HW > MARK_FROM).astype(np.uint8), connectivity=8
    )
    _, lesions_HW = cv2.connectedComponents(truth_HW.astype(np.uint8), connectivity=8)
    highest = np.zeros(count)
    np.maximum.at(highest, parts_HW.ravel(), probability_HW.ravel())
    order = 1 + np.argsort(-highest[1:], kind="stable")[:MARKS_KEPT]
    return [_mark(int(part), probability_HW, parts_HW, lesions_HW, boxes[part]) for part in order]


def _mark(
    part: int, probability_HW: npt.NDArray, parts_HW: npt.NDArray, lesions_HW: npt.NDArray, box: npt.NDArray
) -> Mark:
    left, top, width, height, area = (int(value) for value in box)
    window = np.s_[top : top + height, left : left + width]
    inside_HW = np.where(parts_HW[window] == part, probability_HW[window], -1.0)
    score = float(inside_HW.max())
    peak_HW = np.pad((inside_HW >= score - PEAK).astype(np.uint8), 1)
    depth_HW = cv2.distanceTransform(peak_HW, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = (int(at) for at in np.unravel_index(depth_HW.argmax(), depth_HW.shape))
    lesion = int(lesions_HW[top + row, left + column]) - 1
    return Mark(score=score, lesion=lesion, row=top + row, column=left + column, area_px=area)


@dataclass(frozen=True)
class Froc:
    """A free-response curve of one network, or the mean of several seeds' curves."""

    curve: pd.DataFrame
    """`false_positives` per image and `sensitivity`, from the highest score down."""
    at: pd.DataFrame
    """`false_positives` per image of `RATES`, `sensitivity`, and its interval `low`, `high`, NaN with few patients."""

    @property
    def score(self) -> float:
        """Mean sensitivity over `RATES`."""
        return float(self.at.sensitivity.mean())


def froc(images: pd.DataFrame, marks: pd.DataFrame, *, draws: int = 1000) -> Froc:
    """The curve of one network over a split.

    Args:
        images: `sample_id`, `patient_id`, `lesions`, one row an image.
        marks: `sample_id`, `score`, `lesion`, one row a mark.
        draws: of the bootstrap over patients.

    Raises:
        ValueError: no image has a lesion.
    """
    if not images.lesions.sum():
        raise ValueError("no image has a lesion: there is no sensitivity to draw")
    _, patient_N = np.unique(images.patient_id.astype(str), return_inverse=True)
    patient_of = dict(zip(images.sample_id, patient_N, strict=True))
    known = marks[marks.sample_id.isin(patient_of)]
    false = known[known.lesion < 0].sort_values("score", ascending=False)
    hit = known[known.lesion >= 0].groupby(["sample_id", "lesion"], sort=False).score.max()
    false_at, hit_at = false.score.to_numpy(float), hit.to_numpy(float)
    false_patient = np.array([patient_of[name] for name in false.sample_id], int)
    hit_patient = np.array([patient_of[name] for name, _ in hit.index], int)
    patients = int(patient_N.max()) + 1
    drawn_BP = np.random.default_rng(0).multinomial(patients, np.full(patients, 1 / patients), size=draws)
    weights_BP = np.vstack([np.ones((1, patients)), drawn_BP])
    images_B = weights_BP @ np.bincount(patient_N, minlength=patients)
    lesions_B = np.maximum(weights_BP @ np.bincount(patient_N, images.lesions, minlength=patients), 1e-9)
    found = [_found_at(rate * images_B, weights_BP, (false_at, false_patient), (hit_at, hit_patient)) for rate in RATES]
    share_RB = np.stack(found) / lesions_B
    at = pd.DataFrame({"false_positives": RATES, "sensitivity": share_RB[:, 0], "low": np.nan, "high": np.nan})
    if patients >= FEWEST_PATIENTS and draws:
        at[["low", "high"]] = np.quantile(share_RB[:, 1:], [0.025, 0.975], axis=1).T
    return Froc(_curve(false_at, hit_at, len(images), int(images.lesions.sum())), at)


def _found_at(
    allowed_B: npt.NDArray,
    weights_BP: npt.NDArray,
    false: tuple[npt.NDArray, npt.NDArray],
    hit: tuple[npt.NDArray, npt.NDArray],
) -> npt.NDArray:
    """Lesions hit, by draw, at the lowest threshold with at most so many false positives; `false` is sorted."""
    score_F, patient_F = false
    score_H, patient_H = hit
    if not len(score_H):
        return np.zeros(len(weights_BP))
    within_BF = weights_BP[:, patient_F].cumsum(axis=1) <= allowed_B[:, None] + 1e-9
    threshold_B = np.append(score_F, -np.inf)[within_BF.sum(axis=1)]  # the sums never fall: those within come first
    found: npt.NDArray = (weights_BP[:, patient_H] * (score_H > threshold_B[:, None])).sum(axis=1)
    return found


def _curve(false_at: npt.NDArray, hit_at: npt.NDArray, images: int, lesions: int) -> pd.DataFrame:
    scores = np.unique(np.concatenate([false_at, hit_at]))[::-1]
    false_sorted, hit_sorted = np.sort(false_at), np.sort(hit_at)
    rows = {
        "score": scores,
        "false_positives": (len(false_at) - np.searchsorted(false_sorted, scores)) / images,
        "sensitivity": (len(hit_at) - np.searchsorted(hit_sorted, scores)) / lesions,
    }
    return pd.DataFrame(rows)
