import json
import math
from pathlib import Path

import pandas as pd
import pytest

import results
from cluster.storage import Folder
from results.table import OUTCOME, SETTINGS
from tests.results.example_study import BASELINES, write_trial


def by_id(study: Path) -> pd.DataFrame:
    return results.load(str(study)).set_index("trial_id")


def test_every_trial_is_a_row_and_the_finals_come_last(study: Path) -> None:
    trials = results.load(str(study))
    assert list(trials.trial_id) == [f"{n:04d}" for n in range(10)] + ["mobilenet", "seresnet50"]
    assert trials.role.value_counts().to_dict() == {"baseline": 5, "search": 5, "final": 2}
    assert trials.status.value_counts().to_dict() == {"complete": 10, "pruned": 1, "failed": 1}


def test_every_setting_and_every_searched_parameter_is_a_column(study: Path) -> None:
    trials = by_id(study)
    assert set(SETTINGS) <= set(trials.columns)
    assert trials.loc["0005", "learning_rate"] == trials.loc["0005", "param_learning_rate"] == 2e-3
    assert trials.loc["0000", "learning_rate"] == 1e-3
    assert pd.isna(trials.loc["0000", "param_learning_rate"])
    assert trials.loc["0000", "budget"] == 3
    assert trials.loc["mobilenet", "budget"] == 2


def test_measures_are_those_of_the_best_epoch_beside_those_of_the_last(study: Path) -> None:
    row = by_id(study).loc["0000"]
    assert (row.val_dice, row.best_epoch, row.epochs) == (0.62, 2, 3)
    assert row.val_iou == pytest.approx(0.62 / 1.38)
    assert row.val_dice_soft == pytest.approx(0.31)
    assert (row.last_val_dice, row.train_loss) == (0.58, pytest.approx(0.38))


def test_seconds_are_summed_and_rates_are_not(study: Path) -> None:
    row = by_id(study).loc["0000"]
    assert row.train_s == 6.0
    assert row.images_per_s == 50.0
    assert (row.slot_s, row.usd) == (10.0, 0.001)


def test_a_repeat_names_its_source_and_has_no_seconds_of_its_own(study: Path) -> None:
    trials = by_id(study)
    assert trials.loc["0009", "repeat_of"] == "0005"
    assert pd.isna(trials.loc["0009", "train_s"])
    assert trials.repeat_of.notna().sum() == 1


def test_a_failure_is_a_row_with_reason_and_traceback(study: Path) -> None:
    row = by_id(study).loc["0008"]
    assert (row.status, row.reason) == ("failed", "ValueError: <loss> is nan")
    assert row.traceback.startswith("Traceback")
    assert math.isnan(row.val_dice)


def test_test_measures_stand_in_the_rows_of_finals_only(study: Path) -> None:
    trials = by_id(study)
    assert trials.loc["seresnet50", "test_dice"] == 0.77
    assert trials.test_dice.notna().sum() == 2


def test_an_epoch_without_a_number_is_never_the_best(tmp_path: Path) -> None:
    record = write_trial(Folder(tmp_path / "trials" / "0000"), dice=(0.4,))
    record.write_metrics([*record.metrics(), {"epoch": 2, "val_dice": math.nan, "train_s": 1.0}])
    row = by_id(tmp_path).loc["0000"]
    assert (row.val_dice, row.best_epoch, row.epochs, row.train_s) == (0.4, 1, 2, 3.0)


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("trial.json", '{"trial_id": "00', "trial.json"),
        ("trial.json", "[]", "ValidationError"),
        ("status.json", '{"status": "sleeping"}', "ValidationError"),
        ("metrics.jsonl", '{"epoch": 1, "val_', "JSONDecodeError"),
        ("test.json", "", "test.json"),
    ],
)
def test_a_broken_file_is_a_problem_of_its_row_alone(study: Path, file: str, content: str, named: str) -> None:
    (study / "trials" / "0005" / file).write_text(content)
    trials = by_id(study)
    assert len(trials) == 12
    assert named in trials.loc["0005", "problem"]
    assert (trials.problem != "").sum() == 1


def test_a_half_made_trial_is_pending(study: Path) -> None:
    (study / "trials" / "0010").mkdir()
    row = by_id(study).loc["0010"]
    assert (row.status, row.epochs) == ("pending", 0)
    assert "FileNotFoundError" in row.problem


def test_files_and_folders_written_aside_are_no_trials(study: Path) -> None:
    (study / "trials" / "0010.tmp-12ab").mkdir()
    (study / "trials" / "notes.txt").write_text("")
    assert len(results.load(str(study))) == 12


def test_a_study_that_has_just_begun_has_no_rows_and_all_columns(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    trials = results.load(str(tmp_path))
    assert trials.empty
    assert [*OUTCOME, *SETTINGS] == list(trials.columns)
    assert results.nas_table(trials).empty
    assert results.final_table(trials).empty
    assert results.load_epochs(str(tmp_path)).empty


def test_a_folder_that_is_no_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing-here is not a study"):
        results.load(str(tmp_path / "nothing-here"))


def test_a_study_at_a_uri_is_the_same_study(study: Path) -> None:
    pd.testing.assert_frame_equal(results.load(study.as_uri()), results.load(str(study)))


def test_what_the_study_says_of_itself_travels_with_the_frame(study: Path) -> None:
    trials = results.load(str(study))
    assert trials.attrs["study"]["field_of_view"] == "lesion"
    assert results.nas_table(trials[trials.status == "complete"]).attrs["study"] == trials.attrs["study"]
    json.dumps(trials.attrs)


def test_epochs_are_rows_as_written(study: Path) -> None:
    epochs = results.load_epochs(str(study))
    assert list(epochs[epochs.trial_id == "0001"].val_dice) == [0.2, 0.4, 0.6]
    assert list(epochs.columns[:4]) == ["trial_id", "role", "encoder", "epoch"]


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


def test_final_table_is_sorted_by_validation_and_shows_test_and_search(study: Path) -> None:
    table = results.final_table(str(study)).set_index("encoder")
    assert list(table.index) == ["seresnet50", "mobilenet"]
    assert table.loc["mobilenet", ["val_dice", "test_dice", "search_dice"]].to_list() == [0.72, 0.68, 0.70]
    assert table.loc["seresnet50", ["paper_dice", "paper_parameters"]].to_list() == [0.836, "29.90M"]
    assert pd.isna(table.loc["mobilenet", "paper_dice"])


def test_rank_agreement_names_who_was_overtaken(study: Path) -> None:
    agreement = results.rank_agreement(str(study))
    assert agreement.encoders == 2
    assert (agreement.kendall_tau, agreement.spearman_rho) == (-1.0, pytest.approx(-1.0))
    assert agreement.overtakes == (("seresnet50", "mobilenet"),)
