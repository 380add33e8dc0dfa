from pathlib import Path

import pandas as pd
import pytest

import results
from results.per_image import froc_of, load_images, load_marks, scores
from trainables.score.groups import NAMES


def test_images_of_every_network_are_rows_with_the_finals_name(synthetic: Path) -> None:
    images = load_images(str(synthetic))
    assert images.trial_id.nunique() == 9
    assert set(images.final) == set(results.final_table(str(synthetic)).final)
    assert images.groupby("trial_id").sample_id.nunique().nunique() == 1
    assert images.attrs["problems"] == []


def test_the_rows_agree_with_what_the_test_wrote(synthetic: Path) -> None:
    images, trials = load_images(str(synthetic)), results.load(str(synthetic)).set_index("trial_id")
    for trial_id, rows in images.groupby("trial_id"):
        assert rows.dice.mean() == pytest.approx(trials.loc[trial_id, "test_dice"])


def test_a_study_without_them_has_an_empty_table_with_all_columns(study: Path) -> None:
    images = load_images(str(study))
    assert images.empty
    assert {"final", "trial_id", "sample_id", "dice", "found"} <= set(images.columns)
    assert scores(images).empty
    assert load_marks(str(study)).empty


def test_scores_are_of_every_final_and_measure(synthetic: Path) -> None:
    table = scores(load_images(str(synthetic)))
    assert len(table) == 3 * len(NAMES)
    assert list(table.columns[:6]) == ["final", "group", "images", "patients", "lesions", "measure"]


def test_scores_by_group_name_the_same_groups_for_every_final(synthetic: Path) -> None:
    table = scores(load_images(str(synthetic)), by="lesion size", names=("dice",))
    groups = table.groupby("final").group.agg(list)
    assert groups.map(tuple).nunique() == 1
    assert len(groups.iloc[0]) == 3
    assert table.groupby("final").images.sum().nunique() == 1


def test_a_group_that_nobody_knows_is_refused_with_those_there_are(synthetic: Path) -> None:
    with pytest.raises(ValueError, match="not grouped by 'age'; there is lesion size, density"):
        scores(load_images(str(synthetic)), by="age")


def test_the_free_response_curve_of_a_final_is_the_mean_of_its_seeds(synthetic: Path) -> None:
    images, marks = load_images(str(synthetic)), load_marks(str(synthetic))
    curves = froc_of(images, marks, draws=50)
    assert set(curves) == set(images.final)
    name = next(iter(curves))
    one = [
        froc_of(images[images.trial_id == t], marks, draws=0)[name].at.sensitivity
        for t in images[images.final == name].trial_id.unique()
    ]
    assert list(curves[name].at.sensitivity) == pytest.approx(list(pd.concat(one, axis=1).mean(axis=1)))
    assert curves[name].at.sensitivity.is_monotonic_increasing
