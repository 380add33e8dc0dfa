import math

import numpy as np
import pytest

from results.ties import ties_of

PATIENTS = 60


def sums(
    *levels: float, seeds: int = 3, seed: int = 0, seed_sd: float = 0.01, patients: int = PATIENTS
) -> list[np.ndarray]:
    """Each configuration's Dice summed over a patient's two images."""
    rng = np.random.default_rng(seed)
    patient_P1 = rng.normal(0, 0.2, (patients, 1))
    return [
        2 * np.clip(level + patient_P1 + rng.normal(0, seed_sd, seeds) + rng.normal(0, 0.1, (patients, seeds)), 0, 1)
        for level in levels
    ]


def two_each(patients: int = PATIENTS) -> np.ndarray:
    return np.full(patients, 2.0)


def test_one_that_is_far_better_is_alone() -> None:
    found = ties_of(sums(0.7, 0.4, 0.5), two_each())
    assert list(found.tied_K) == [True, False, False]
    assert found.p_K[0] == 1
    assert max(found.p_K[1:]) < 0.01
    assert found.mean_K == pytest.approx([0.7, 0.4, 0.5], abs=0.05)


def test_the_best_is_always_in_the_set_and_p_values_follow_the_means() -> None:
    for seed in range(20):
        found = ties_of(sums(0.5, 0.52, 0.48, 0.3, seed=seed), two_each(), draws=500)
        assert found.tied_K[found.mean_K.argmax()]
        assert found.p_K[found.mean_K.argmax()] == 1


def test_identical_configurations_stay_tied() -> None:
    """`benchmarks/calibration.py` measures it on far more."""
    tied = [ties_of(sums(0.5, 0.5, 0.5, seed=k), two_each(), draws=500).tied_K.all() for k in range(60)]
    assert np.mean(tied) >= 0.9


def test_more_patients_do_not_make_seeds_a_difference() -> None:
    """A test by patient alone calls two networks of one configuration different, the more surely the more patients."""
    tied = [
        ties_of(sums(0.5, 0.5, seed=k, seed_sd=0.05, patients=1000), two_each(1000), draws=300).tied_K.all()
        for k in range(40)
    ]
    assert np.mean(tied) >= 0.85


def test_the_deviation_between_seeds_is_pooled_and_unknown_of_one_seed() -> None:
    found = ties_of(sums(0.5, 0.5, 0.5, 0.5, seeds=5, seed_sd=0.03, patients=400), two_each(400))
    assert found.seed_sd == pytest.approx(0.03, abs=0.015)
    assert math.isnan(ties_of(sums(0.5, 0.4, seeds=1), two_each()).seed_sd)


def test_configurations_may_have_different_numbers_of_seeds() -> None:
    three, one = sums(0.7, seeds=3)[0], sums(0.4, seeds=1)[0]
    assert list(ties_of([three, one], two_each()).tied_K) == [True, False]


def test_the_mean_is_over_images_though_patients_have_different_numbers() -> None:
    images_P = np.array([1.0, 3.0] * 20)
    sums_PS = images_P[:, None] * np.where(images_P == 1, 0.2, 0.6)[:, None] * np.ones(2)
    assert ties_of([sums_PS, sums_PS], images_P).mean_K == pytest.approx([0.5, 0.5])


def test_the_order_in_which_configurations_are_given_does_not_matter_to_who_is_tied() -> None:
    given = sums(0.6, 0.58, 0.3)
    one, other = ties_of(given, two_each()), ties_of(given[::-1], two_each())
    assert list(one.tied_K) == list(other.tied_K[::-1])
