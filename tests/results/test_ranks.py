import math

import pytest

from results.ranks import agreement_of


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


def test_nothing_can_be_said_of_one_encoder_or_of_equal_scores() -> None:
    for given in (scores([1], [2]), scores([1, 1], [2, 3]), {}):
        found = agreement_of(given)
        assert math.isnan(found.kendall_tau)
        assert math.isnan(found.spearman_rho)


def test_an_encoder_without_one_of_the_scores_does_not_count() -> None:
    assert agreement_of(scores([1, 2, math.nan], [1, 2, 3])).encoders == 2
