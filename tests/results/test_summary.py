from pathlib import Path

import pandas as pd
import pytest

import results
from cluster.storage import Folder
from results.notes import taken_note
from results.summary import cost_table, encoder_table, trial_table
from tests.results.example_study import BASELINES, write_trial
from trainables.record import TrialRecord, final_paths


def test_nas_table_has_the_papers_encoders_in_its_order_at_one_budget(study: Path) -> None:
    table = results.nas_table(str(study))
    assert list(table.encoder) == list(BASELINES)
    assert list(table.parameters) == [parameters for parameters, _ in BASELINES.values()]
    assert list(table.dice) == [max(dice) for _, dice in BASELINES.values()]
    assert set(table.epochs) == {3}
    assert list(table.paper_dice) == [0.6642, 0.6544, 0.6409, 0.6498, 0.4182]


def test_the_best_searched_trial_is_complete_and_stands_beside_its_encoder(study: Path) -> None:
    table = results.nas_table(str(study)).set_index("encoder")
    assert table.loc["mobilenet", ["best_trial", "best_dice"]].to_list() == ["0005", 0.70]
    assert table.best_dice.notna().sum() == 1


def test_an_encoder_that_the_paper_has_not_follows_without_the_papers_figures(study: Path) -> None:
    write_trial(Folder(study) / "trials" / "0010", role="baseline", encoder="resnet18", dice=(0.3,))
    table = results.nas_table(str(study))
    assert table.encoder.iloc[-1] == "resnet18"
    assert pd.isna(table.paper_dice.iloc[-1])


def test_a_failed_baseline_keeps_its_row_and_says_so(study: Path) -> None:
    write_trial(Folder(study) / "trials" / "0004", role="baseline", encoder="vgg19", status="failed", reason="OOM")
    row = results.nas_table(str(study)).set_index("encoder").loc["vgg19"]
    assert row.status == "failed"
    assert pd.isna(row.dice)


def test_final_table_is_sorted_by_test_and_shows_validation_and_search(study: Path) -> None:
    table = results.final_table(str(study)).set_index("encoder")
    assert list(table.index) == ["seresnet50", "mobilenet"]
    assert table.loc["mobilenet", ["val_dice", "test_dice", "search_dice"]].to_list() == [0.72, 0.68, 0.70]
    assert table.loc["seresnet50", ["paper_dice", "paper_parameters"]].to_list() == [0.836, "29.90M"]
    assert pd.isna(table.loc["mobilenet", "paper_dice"])


def test_without_rows_of_its_images_a_final_has_its_test_figures_and_no_interval(study: Path) -> None:
    table = results.final_table(str(study))
    assert table.test_dice.notna().all()
    assert table[["test_dice_low", "test_dice_high", "tied", "p"]].isna().all(axis=None)


def test_a_final_of_several_seeds_is_one_row_of_their_means(synthetic: Path) -> None:
    table, trials = results.final_table(str(synthetic)), results.load(str(synthetic))
    seeds = trials[trials.role == "final"]
    assert list(table.seeds) == [3, 3, 3]
    for row in table.itertuples():
        assert row.val_dice == pytest.approx(seeds[seeds.final == row.final].val_dice.mean())
        assert row.test_dice == pytest.approx(seeds[seeds.final == row.final].test_dice.mean())
        assert row.test_dice_low < row.test_dice < row.test_dice_high
        assert row.status == "complete"
    assert list(table.test_dice) == sorted(table.test_dice, reverse=True)


def test_a_final_stands_beside_the_trial_whose_settings_it_has(synthetic: Path) -> None:
    trials = results.load(str(synthetic)).set_index("trial_id")
    for row in results.final_table(str(synthetic)).itertuples():
        source, final = trials.loc[row.search_trial], trials[trials.final == row.final].iloc[0]
        assert (source.learning_rate, source.dice_weight) == (final.learning_rate, final.dice_weight)
        assert row.search_dice == source.val_dice


def test_a_seed_that_failed_is_said(study: Path) -> None:
    write_trial(Folder(study) / "final" / "vgg19" / "1", role="final", encoder="vgg19", dice=(0.3, 0.4))
    write_trial(Folder(study) / "final" / "vgg19" / "2", role="final", encoder="vgg19", status="failed")
    row = results.final_table(str(study)).set_index("final").loc["vgg19"]
    assert (row.status, row.seeds, row.val_dice) == ("1 of 2 complete", 2, 0.4)


def test_rank_agreement_needs_three_finals(study: Path, synthetic: Path) -> None:
    two = results.rank_agreement(str(study))
    assert two.encoders == 2
    assert pd.isna(two.kendall_tau)
    assert two.overtakes == (("seresnet50", "mobilenet"),)
    three = results.rank_agreement(str(synthetic))
    assert three.encoders == 3
    assert -1 <= three.tau_low <= three.kendall_tau <= three.tau_high <= 1


def test_the_encoders_table_counts_how_trials_ended_and_leaves_repeats_out(study: Path) -> None:
    row = encoder_table(str(study)).set_index("encoder").loc["mobilenet"]
    assert row[["trials", "complete", "pruned", "failed"]].to_list() == [5, 3, 1, 1]
    assert (row.best_dice, row.best_trial, row.median_dice) == (0.70, "0005", 0.65)
    assert row.quarter_dice <= row.median_dice <= row.three_quarter_dice


def test_every_trial_of_the_search_is_in_the_table_with_its_settings(study: Path) -> None:
    table = trial_table(str(study))
    assert len(table) == 10
    assert list(table.columns[-2:]) == ["learning_rate", "reason"]
    assert list(table.trial_id[:3]) == ["0007", "0005", "0009"]


def test_a_setting_that_was_not_searched_in_a_trial_is_absent_there(synthetic: Path) -> None:
    table = trial_table(str(synthetic)).query("role == 'search'")
    assert table.momentum.notna().sum() == (table.optimiser == "sgd").sum() > 0


def test_cost_adds_up(synthetic: Path) -> None:
    table, trials = cost_table(str(synthetic)), results.load(str(synthetic))
    parts, whole = table.iloc[:-1], table.iloc[-1]
    assert list(parts.part) == ["search", "search", "finals", "finals"][: len(parts)]
    for name in ("trials", "epochs", "slot_s", "pruned_s", "failed_s", "usd"):
        assert parts[name].sum() == pytest.approx(whole[name])
    assert whole.usd == pytest.approx(trials.usd.sum())
    assert 0 < whole.pruned_s < whole.slot_s


def test_epochs_that_a_final_took_from_the_search_are_counted_once(study: Path) -> None:
    (first, *_), before = final_paths(Folder(study)), cost_table(str(study)).set_index("part").epochs
    record = TrialRecord(Folder(study) / first)
    record.write_info(record.info().model_copy(update={"taken_from": "trials/0005", "taken_epochs": 2}))
    after = cost_table(str(study)).set_index("part").epochs
    assert after["finals"] == before["finals"] - 2 and after["all"] == before["all"] - 2
    assert "its first 2 epochs are the search's" in " ".join(taken_note(results.load(str(study))))
