import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import results
from results.front import Aim, aims_of, front_table
from tests.results.synthetic_study import write_synthetic
from trainables.pareto import hypervolume, pareto_front

HIGH_LOW = [Aim("val_dice", maximise=True), Aim("parameters", maximise=False)]


def gains(*points: tuple[float, float]) -> np.ndarray:
    """Points of Dice and parameters, signed so that more is better."""
    return np.array(points, float) * [1, -1]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25))
def test_a_point_is_on_the_front_if_no_other_is_at_least_as_good_in_all_and_better_in_one(points: list) -> None:
    def beats(a: tuple, b: tuple) -> bool:
        return all(x >= y for x, y in zip(a, b, strict=True)) and a != b

    expected = [not any(beats(other, point) for other in points) for point in points]
    assert list(pareto_front(np.array(points, float))) == expected


def test_the_front_of_a_study_of_one_objective_is_against_the_number_of_parameters(study: Path) -> None:
    table = front_table(str(study))
    assert table.attrs["aims"] == HIGH_LOW
    assert list(table.trial_id) == ["0005"]  # the best, and of the smallest network
    assert table.attrs["of"] == 7


def test_objectives_come_from_the_study(tmp_path: Path) -> None:
    study = write_synthetic(tmp_path / "s", trials=40, finals=0, objectives=("val_dice", "usd"))
    trials = results.load(str(study))
    assert aims_of(trials) == [Aim("val_dice", maximise=True), Aim("usd", maximise=False)]
    table = front_table(trials)
    assert table.val_dice.is_monotonic_decreasing
    assert table.usd.is_monotonic_decreasing
    assert 0 < len(table) < table.attrs["of"]


def test_an_objective_of_three_has_a_front_and_a_hypervolume(tmp_path: Path) -> None:
    study = write_synthetic(tmp_path / "s", trials=30, finals=0, objectives=("val_dice", "parameters", "epoch_s"))
    table = front_table(str(study))
    assert {"val_dice", "parameters", "epoch_s"} <= set(table.columns)
    assert 0 < table.attrs["hypervolume"] < 1


def test_all_values_of_a_trial_are_of_its_best_epoch(study: Path) -> None:
    """Each objective at its own best epoch would be a point that no model has."""
    trials = results.load(str(study)).set_index("trial_id")
    row = front_table(str(study)).iloc[0]
    assert row.val_dice == trials.loc[row.trial_id, "val_dice"]


def test_the_hypervolume_is_the_share_of_the_box_below_the_front() -> None:
    assert hypervolume(gains((1.0, 1), (0.0, 2))) == 1.0  # one point is best in both
    # In shares of the box: (1, 0), (0.5, 0.5), (0, 1): 0.5 * 0.5 is covered.
    assert hypervolume(gains((1.0, 3), (0.5, 2), (0.0, 1))) == pytest.approx(0.25)
    assert math.isnan(hypervolume(gains((1.0, 1))))
    assert math.isnan(hypervolume(gains((1.0, 1), (1.0, 2))))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_the_hypervolume_is_that_of_counting_cells(points: list) -> None:
    corners = [(0.0, 1.0), (1.0, 2.0), (0.0, 2.0)]  # spans the box; the first two are no better than its edges
    points = [(a, 1.0 + b) for a, b in points] + corners
    cells = (np.arange(60) + 0.5) / 60
    dice, small = np.meshgrid(cells, cells)
    covered = np.zeros_like(dice, bool)
    for a, b in points:
        covered |= (dice <= a) & (small <= 2.0 - b)
    assert hypervolume(gains(*points)) == pytest.approx(covered.mean(), abs=0.04)


def test_a_study_without_a_complete_trial_has_an_empty_front(tmp_path: Path) -> None:
    study = write_synthetic(tmp_path / "s", trials=0, finals=0)
    assert front_table(str(study)).empty
