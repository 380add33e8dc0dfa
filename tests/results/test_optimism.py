import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import results
from results.optimism import noise_sd, optimism_of


def study_of(noise: float, *, epochs: int = 40, trials: int = 5, finals: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    rows, curves = [], []
    for number in range(trials + finals):
        role = "search" if number < trials else "final"
        rows.append({"trial_id": str(number), "role": role, "status": "complete", "repeat_of": None})
        epoch = np.arange(1, epochs + 1)
        dice = 0.5 * (1 - np.exp(-epoch / 4)) + rng.normal(0, noise, epochs)
        curves.append(pd.DataFrame({"trial_id": str(number), "epoch": epoch, "val_dice": dice}))
    return pd.DataFrame(rows), pd.concat(curves)


def test_the_noise_of_a_curve_is_found_though_it_rises() -> None:
    rng = np.random.default_rng(0)
    rise = np.linspace(0.1, 0.5, 400)
    assert noise_sd(rise + rng.normal(0, 0.02, 400)) == pytest.approx(0.02, rel=0.15)
    assert noise_sd(rise) == pytest.approx(0, abs=1e-9)


def test_more_noise_flatters_more_and_more_trials_flatter_more() -> None:
    little, much = (optimism_of(*study_of(noise)) for noise in (0.005, 0.03))
    assert 0 < little.final < much.final
    one, many = (optimism_of(*study_of(0.02, trials=n)) for n in (1, 30))
    assert one.best_trial < many.best_trial


def test_the_size_is_that_of_the_best_of_many_equal_values() -> None:
    """On a plateau the best of n values lies about as far above the truth as the largest of n draws of the noise."""
    found = optimism_of(*study_of(0.02, epochs=60))
    largest_of_forty = 2.16 * 0.02  # expected maximum of 40 standard normal draws
    assert found.final == pytest.approx(largest_of_forty, rel=0.35)


def test_of_curves_too_short_nothing_is_said() -> None:
    found = optimism_of(*study_of(0.02, epochs=3))
    assert math.isnan(found.final)
    assert math.isnan(found.best_trial)


def test_a_study_without_finals_says_what_its_search_is(synthetic: Path) -> None:
    trials, epochs = results.load(str(synthetic)), results.load_epochs(str(synthetic))
    found = optimism_of(trials, epochs)
    assert 0 < found.final < 0.1
    assert 0 < found.best_trial < 0.1
    assert found.images == 44
    no_finals = optimism_of(trials[trials.role != "final"], epochs)
    assert math.isnan(no_finals.final)
