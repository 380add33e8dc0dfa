import math

import numpy as np
import pandas as pd
import pytest

from results.ranks import agreement_of, tau_interval


def scores(first: list[float], second: list[float]) -> dict[str, tuple[float, float]]:
    return {str(i): pair for i, pair in enumerate(zip(first, second, strict=True))}


@pytest.mark.parametrize(
    ("first", "second", "tau", "rho"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0, 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0, -1.0),
        ([1, 2, 3], [1, 3, 2], 1 / 3, 0.5),
        # By hand: of 3 pairs 2 concordant, 1 tied in the first: tau-b 2 / sqrt(2 * 3); ranks 1.5 1.5 3 and 1 2 3.
        ([1, 1, 2], [1, 2, 3], 2 / math.sqrt(6), 0.8660254),
    ],
)
def test_agreement_of_known_orders(first: list[float], second: list[float], tau: float, rho: float) -> None:
    found = agreement_of(scores(first, second))
    assert found.kendall_tau == pytest.approx(tau)
    assert found.spearman_rho == pytest.approx(rho)


def test_two_encoders_have_no_coefficient_but_may_overtake() -> None:
    found = agreement_of(scores([1, 2], [2, 1]))
    assert math.isnan(found.kendall_tau)
    assert found.overtakes == (("0", "1"),)


def test_nothing_can_be_said_of_one_encoder_or_of_equal_scores() -> None:
    for given in (scores([1], [2]), scores([1, 1, 1], [2, 3, 4]), {}):
        found = agreement_of(given)
        assert math.isnan(found.kendall_tau)
        assert math.isnan(found.spearman_rho)


def test_an_encoder_without_one_of_the_scores_does_not_count() -> None:
    assert agreement_of(scores([1, 2, math.nan], [1, 2, 3])).encoders == 2


def images(levels: list[float], *, seeds: int = 3, patients: int = 40, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    patient_P = rng.normal(0, 0.1, patients)
    return pd.concat(
        pd.DataFrame(
            {
                "patient_id": [f"p{p}" for p in range(patients)],
                "dice": level + patient_P + rng.normal(0, 0.01) + rng.normal(0, 0.05, patients),
                "final": str(number),
                "trial_id": f"{number}/{one}",
            }
        )
        for number, level in enumerate(levels)
        for one in range(seeds)
    )


def test_orders_far_apart_are_sure_and_close_ones_are_not() -> None:
    apart, close = [0.2, 0.4, 0.6, 0.8], [0.50, 0.505, 0.51, 0.515]
    sure = tau_interval(scores(apart, apart), images(apart), images(apart, seed=1))
    unsure = tau_interval(scores(close, close), images(close), images(close, seed=1))
    assert sure == (1.0, 1.0)
    assert unsure[0] < 0 < unsure[1]


def test_one_seed_or_two_finals_have_no_interval() -> None:
    three = [0.2, 0.4, 0.6]
    one_seed = images(three, seeds=1)
    assert math.isnan(tau_interval(scores(three, three), one_seed, one_seed)[0])
    two = images(three[:2])
    assert math.isnan(tau_interval(scores(three[:2], three[:2]), two, two)[0])
