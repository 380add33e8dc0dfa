import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.score.image import hausdorff_95, measure


def blank(side: int = 16) -> np.ndarray:
    return np.zeros((side, side), bool)


def square(top: int, left: int, size: int, side: int = 16) -> np.ndarray:
    mask = blank(side)
    mask[top : top + size, left : left + size] = True
    return mask


def random_mask(rng: np.random.Generator, side: int = 24) -> np.ndarray:
    """Blobs, specks, frames, single pixels, full and empty masks."""
    mask = np.zeros((side, side), bool)
    for _ in range(rng.integers(0, 4)):
        y, x = rng.integers(0, side, 2)
        h, w = rng.integers(1, side, 2)
        mask[y : y + h, x : x + w] = True
    match rng.integers(0, 8):
        case 0:
            mask[:] = False
        case 1:
            mask[:] = True
        case 2:
            mask ^= rng.random((side, side)) < 0.05
        case 3:
            mask[0, :] = mask[:, -1] = True
    return mask


def test_a_prediction_that_is_the_truth_has_the_best_of_every_measure() -> None:
    score = measure(square(4, 4, 5), square(4, 4, 5))
    assert (score.dice, score.iou, score.sensitivity, score.hd95_px) == (1, 1, 1, 0)
    assert (score.lesions, score.lesions_found, score.false_positives, score.lesion_px) == (1, 1, 0, 25)


def test_two_empty_masks_agree() -> None:
    score = measure(blank(), blank())
    assert (score.dice, score.iou, score.hd95_px) == (1, 1, 0)
    assert math.isnan(score.sensitivity)
    assert (score.lesions, score.false_positives, score.lesion_px) == (0, 0, 0)


@pytest.mark.parametrize("truth_is_empty", [True, False])
def test_if_one_mask_alone_is_empty_there_is_no_distance_and_no_overlap(truth_is_empty: bool) -> None:
    pair = (blank(), square(2, 2, 3)) if truth_is_empty else (square(2, 2, 3), blank())
    score = measure(*pair)
    assert (score.dice, score.iou) == (0, 0)
    assert math.isnan(score.hd95_px)
    assert score.false_positives == int(truth_is_empty)


def test_a_lesion_is_found_from_a_tenth_of_it_on() -> None:
    truth = square(0, 0, 10, 20)
    nine, ten = truth.copy(), truth.copy()
    nine[:], ten[:] = False, False
    nine[0, :9], ten[0, :10] = True, True
    assert measure(truth, nine).lesions_found == 0
    assert measure(truth, ten).lesions_found == 1


def test_parts_that_touch_at_a_corner_are_one_lesion() -> None:
    truth = square(0, 0, 2) | square(2, 2, 3)
    score = measure(truth, truth)
    assert (score.lesions, score.lesion_px) == (1, 13)


def test_false_positives_are_the_parts_that_touch_no_lesion() -> None:
    found = square(4, 4, 2) | square(10, 10, 2) | square(14, 0, 1)
    score = measure(square(5, 5, 3), found)
    assert score.false_positives == 2
    assert score.lesions_found == 1


def test_distances_on_the_film_are_those_of_the_sample_times_its_spacing() -> None:
    one, other = square(0, 0, 1), square(3, 4, 1)
    assert measure(one, other).hd95_px == 5
    assert measure(one, other, spacing_mm=0.2).hd95_mm == pytest.approx(1.0)
    assert math.isnan(measure(one, other).hd95_mm)


def test_the_larger_direction_counts() -> None:
    wide = square(0, 0, 1) | square(0, 15, 1)
    assert hausdorff_95(square(0, 0, 1), wide) == hausdorff_95(wide, square(0, 0, 1)) > 14


def test_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(16, 16\) and \(8, 8\)"):
        measure(blank(16), blank(8))


@pytest.mark.slow  # importing MONAI takes longer than all other tests here
@pytest.mark.filterwarnings("ignore::Warning:monai.*")
def test_every_measure_is_that_of_monai_on_random_and_degenerate_masks() -> None:
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    rng = np.random.default_rng(0)
    pairs = [(random_mask(rng), random_mask(rng)) for _ in range(200)]
    truth_N1HW, found_N1HW = (
        torch.from_numpy(np.stack([pair[k] for pair in pairs])[:, None].astype(np.float32)) for k in (0, 1)
    )
    dice_N1 = metrics.compute_dice(found_N1HW, truth_N1HW, ignore_empty=False)
    iou_N1 = metrics.compute_iou(found_N1HW, truth_N1HW, ignore_empty=False)
    hd95_N1 = metrics.compute_hausdorff_distance(found_N1HW, truth_N1HW, include_background=True, percentile=95)
    confusion_N14 = metrics.get_confusion_matrix(found_N1HW, truth_N1HW)
    sensitivity_N1 = metrics.compute_confusion_matrix_metric("sensitivity", confusion_N14)
    checked = 0
    for i, (truth, found) in enumerate(pairs):
        score = measure(truth, found)
        if truth.any() or found.any():  # of two empty masks MONAI's IoU and distance are NaN; the rule is ours
            assert score.dice == pytest.approx(float(dice_N1[i, 0]), abs=1e-6)
            assert score.iou == pytest.approx(float(iou_N1[i, 0]), abs=1e-6)
        if truth.any():
            assert score.sensitivity == pytest.approx(float(sensitivity_N1[i, 0]), abs=1e-6)
        if truth.any() and found.any():
            assert score.hd95_px == pytest.approx(float(hd95_N1[i, 0]), abs=1e-3)
            checked += 1
    assert checked > 100


def parts(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """8-connected parts by flood fill, slow and plain."""
    left = set(zip(*map(list, np.nonzero(mask)), strict=True))
    found = []
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            part.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge += near
        found.append(part)
    return found


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6))
def test_lesions_and_false_positives_are_those_of_a_flood_fill(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = random_mask(rng), random_mask(rng)
    score = measure(truth, found)
    found_px = set(zip(*map(list, np.nonzero(found)), strict=True))
    truth_px = set(zip(*map(list, np.nonzero(truth)), strict=True))
    lesions = parts(truth)
    assert score.lesions == len(lesions)
    assert score.lesions_found == sum(10 * len(lesion & found_px) >= len(lesion) for lesion in lesions)
    assert score.false_positives == sum(not part & truth_px for part in parts(found))
    assert score.lesion_px == max(map(len, lesions), default=0)
