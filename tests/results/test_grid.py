from pathlib import Path

import pytest

import results
from results.grid import LEVELS, grid_cost, grid_points


def test_choices_count_as_they_are_and_ranges_as_three_values() -> None:
    space = {"encoder": ["a", "b"], "batch_size": [4, 8], "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    assert grid_points(space) == {"a": 2 * LEVELS, "b": 2 * LEVELS}


def test_a_stepped_range_of_two_values_is_two() -> None:
    assert grid_points({"rotation_degrees": {"low": 0, "high": 15, "step": 15}}) == {"": 2}


def test_a_setting_under_a_condition_counts_where_the_condition_holds() -> None:
    space = {
        "optimiser": ["adam", "sgd"],
        "momentum": {"low": 0.8, "high": 0.99, "when": {"optimiser": ["sgd"]}},
        "batch_size": [4, 8],
    }
    assert grid_points(space) == {"": 2 * (1 + LEVELS)}


def test_a_condition_on_a_condition_counts_once() -> None:
    space = {
        "optimiser": ["adam", "sgd"],
        "schedule": {"choices": ["constant", "step"], "when": {"optimiser": ["sgd"]}},
        "warmup_epochs": {"choices": [0, 1], "when": {"schedule": ["step"]}},
    }
    # adam: 1 (schedule is not searched); sgd, constant: 1; sgd, step: 2.
    assert grid_points(space) == {"": 4}


def test_a_grid_costs_what_its_encoders_took_in_this_study(synthetic: Path) -> None:
    cost = grid_cost(results.load(str(synthetic)))
    assert cost is not None
    assert cost.grid_trials == 5 * LEVELS * LEVELS * 2 * (2 + LEVELS)
    assert cost.search_hours < cost.unpruned_hours < cost.grid_hours
    assert cost.search_usd < cost.unpruned_usd < cost.grid_usd


def test_without_a_space_or_a_trial_nothing_is_said(study: Path) -> None:
    assert grid_cost(results.load(str(study))) is None


@pytest.mark.parametrize("damage", ["", "[]", "5"])
def test_a_space_that_is_none_says_nothing(synthetic: Path, damage: str) -> None:
    trials = results.load(str(synthetic))
    trials.attrs["study"] = {**trials.attrs["study"], "config": {"space": damage}}
    assert grid_cost(trials) is None
