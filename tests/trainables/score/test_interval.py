import math

import numpy as np
import pytest

from trainables.score.interval import FEWEST_PATIENTS, median_interval, ratio_interval, seed_variance


def per_image(values_PS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values_PS, np.ones_like(values_PS)


def drawn(patients: int, seeds: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).beta(4, 2, (patients, seeds))


def test_the_value_is_the_ratio_of_the_sums_and_not_the_mean_of_ratios() -> None:
    above, below = np.array([[1.0], [3.0]] * 6), np.array([[1.0], [6.0]] * 6)
    found = ratio_interval(above, below)
    assert found.value == pytest.approx(4 / 7)
    assert found.low < 4 / 7 < found.high


def test_fewer_than_ten_patients_have_no_interval() -> None:
    assert not ratio_interval(*per_image(drawn(FEWEST_PATIENTS - 1))).known
    assert ratio_interval(*per_image(drawn(FEWEST_PATIENTS))).known


def test_patients_that_do_not_differ_have_no_interval() -> None:
    found = ratio_interval(*per_image(np.full((30, 1), 0.5)))
    assert (found.value, found.known) == (0.5, False)


def test_without_anything_to_divide_by_there_is_no_value() -> None:
    assert math.isnan(ratio_interval(np.zeros((20, 1)), np.zeros((20, 1))).value)


def test_an_interval_stays_within_its_bounds() -> None:
    almost = np.ones((12, 1))
    almost[0] = 0.0
    found = ratio_interval(*per_image(almost), highest=1.0)
    assert 0 <= found.low < found.value < found.high == 1.0


def test_more_patients_make_it_narrower_by_the_square_root() -> None:
    few, many = (ratio_interval(*per_image(drawn(n))) for n in (50, 800))
    assert 3 < (few.high - few.low) / (many.high - many.low) < 5.5


def test_seeds_that_differ_make_it_wider() -> None:
    same = np.repeat(drawn(100), 3, axis=1)
    apart = np.clip(same + np.array([-0.1, 0.0, 0.1]), 0, 1)
    narrow, wide = ratio_interval(*per_image(same)), ratio_interval(*per_image(apart))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    assert seed_variance(*per_image(same)) == 0


def test_many_images_of_one_patient_count_as_one_patient() -> None:
    values = drawn(40)
    once, often = ratio_interval(*per_image(values)), ratio_interval(25 * values, np.full_like(values, 25.0))
    assert (often.low, often.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_it_holds_the_true_mean_about_as_often_as_it_says() -> None:
    """A coarse look; `benchmarks/calibration.py` measures it."""
    held = [(i := ratio_interval(*per_image(drawn(30, seed=k)), draws=400)).low < 4 / 6 < i.high for k in range(300)]
    assert 0.91 <= np.mean(held) <= 0.985


def test_counts_that_a_few_patients_have_most_of_are_held_as_often_by_an_interval_that_reaches_farther_up() -> None:
    """A symmetric interval holds the true rate in 0.91 of these studies of 12 patients."""
    rng, held, farther_up = np.random.default_rng(0), 0, 0
    for _ in range(400):
        false_P = rng.poisson(2 * rng.gamma(1, 1, 12)).astype(float)
        found = ratio_interval(false_P[:, None], np.ones((12, 1)))
        held += found.low <= 2 <= found.high
        farther_up += found.high - found.value > found.value - found.low
    assert 0.93 <= held / 400 <= 0.97
    assert farther_up > 360


def test_the_median_is_that_of_the_images_with_an_interval_by_patient() -> None:
    values = np.linspace(0, 1, 101)
    found = median_interval(values, np.arange(101))
    assert found.value == 0.5
    assert 0.35 < found.low < 0.5 < found.high < 0.65


def test_the_interval_of_a_median_holds_the_true_one_as_often_as_it_says() -> None:
    """With percentiles that are not moved out: 0.90 of these."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        patient = rng.normal(0, 1, 12)
        found = median_interval((patient[:, None] + rng.normal(0, 0.3, (12, 2))).ravel(), np.repeat(np.arange(12), 2))
        held += found.low <= 0 <= found.high
    assert 0.92 <= held / 300 <= 0.99


def test_images_without_a_value_do_not_count_for_the_median() -> None:
    values = np.array([np.nan, *np.arange(11.0), np.nan])
    assert median_interval(values, np.arange(13)).value == 5.0
    assert math.isnan(median_interval(np.array([np.nan]), np.array([0])).value)
