import json
import math
from pathlib import Path

import pandas as pd
import pytest

import results
from cluster.storage import Folder
from results.table import DATA, OUTCOME, SETTINGS
from tests.results.example_study import write_trial


def by_id(study: Path) -> pd.DataFrame:
    return results.load(str(study)).set_index("trial_id")


def test_every_trial_is_a_row_and_the_finals_come_last(study: Path) -> None:
    trials = results.load(str(study))
    assert list(trials.trial_id) == [f"{n:04d}" for n in range(10)] + ["mobilenet", "seresnet50"]
    assert trials.role.value_counts().to_dict() == {"baseline": 5, "search": 5, "final": 2}
    assert trials.status.value_counts().to_dict() == {"complete": 10, "pruned": 1, "failed": 1}


def test_every_setting_is_a_column_once_and_the_searched_ones_are_named(study: Path) -> None:
    trials = by_id(study)
    assert set(SETTINGS) <= set(trials.columns)
    assert not [name for name in trials if name.startswith("param_")]
    assert trials.loc["0005", "learning_rate"] == 2e-3
    assert trials.loc["0005", "searched"] == "encoder learning_rate"
    assert trials.loc["0000", "learning_rate"] == 1e-3
    assert trials.loc["0000", "searched"] == "encoder"
    assert trials.loc["0000", "budget"] == 3
    assert trials.loc["mobilenet", "budget"] == 2
    assert trials.attrs["searched"] == ["encoder", "learning_rate"]


def test_times_are_times_and_every_row_says_where_its_files_lie(study: Path) -> None:
    record = write_trial(Folder(study) / "trials" / "0010", dice=(0.1,))
    began = {"started_at": "2026-01-01T08:00:00+00:00", "ended_at": "yesterday"}
    record.write_status(record.status().model_copy(update=began))
    row = by_id(study).loc["0010"]
    assert row.started_at == pd.Timestamp("2026-01-01 08:00", tz="UTC")
    assert pd.isna(row.ended_at)
    assert row.folder == "trials/0010"


def test_the_seeds_of_a_final_are_rows_of_one_name(study: Path) -> None:
    for seed in ("2", "10"):
        write_trial(
            Folder(study) / "final" / "vgg19" / seed, role="final", encoder="vgg19", dice=(0.3,), seed=int(seed)
        )
    finals = results.load(str(study)).query("role == 'final'")
    assert list(finals.trial_id) == ["mobilenet", "seresnet50", "vgg19/2", "vgg19/10"]
    assert list(finals.final) == ["mobilenet", "seresnet50", "vgg19", "vgg19"]
    assert list(finals.seed.iloc[2:]) == [2, 10]
    assert finals.folder.iloc[3] == "final/vgg19/10"
    assert set(results.load_epochs(str(study)).query("role == 'final'").trial_id) == set(finals.trial_id)


def test_a_final_that_has_only_begun_is_a_row(study: Path) -> None:
    (study / "final" / "vgg19").mkdir()
    (study / "final" / "densenet121" / "1").mkdir(parents=True)
    finals = results.load(str(study)).query("role == 'final'")
    assert list(finals.trial_id) == ["densenet121/1", "mobilenet", "seresnet50", "vgg19"]
    assert list(finals.status) == ["pending", "complete", "complete", "pending"]


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
    (first,) = record.metrics()
    record.write_metrics([first, first.model_copy(update={"epoch": 2, "val_dice": math.nan, "train_s": 1.0})])
    row = by_id(tmp_path).loc["0000"]
    assert (row.val_dice, row.best_epoch, row.epochs, row.train_s) == (0.4, 1, 2, 3.0)


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("trial.json", '{"trial_id": "00', "trial.json"),
        ("trial.json", "[]", "trial.json"),
        ("status.json", '{"status": "sleeping"}', "status.json"),
        ("metrics.jsonl", '{"epoch": 1, "val_', "metrics.jsonl"),
        ("metrics.jsonl", "[1]\n", "metrics.jsonl"),
        ("metrics.jsonl", "5\n", "metrics.jsonl"),
        ("metrics.jsonl", '{"val_dice": 0.1}\n', "metrics.jsonl"),
        ("test.json", "", "test.json"),
        ("test.json", "5", "test.json"),
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


@pytest.mark.parametrize("content", ["", "5", "[]", '{"samples": 5}', '{"config": 1, "slots": []}', "{"])
def test_a_damaged_study_json_hides_no_trial(study: Path, content: str) -> None:
    (study / "study.json").write_text(content)
    trials = results.load(str(study))
    assert len(trials) == 12
    assert len(results.nas_table(trials)) == 5
    if content not in ("", "5", "[]", "{"):
        assert "study.json" in trials.attrs["study"]["problem"]


def test_what_the_study_says_of_itself_travels_with_the_frame(study: Path) -> None:
    trials = results.load(str(study))
    assert {name: trials.attrs[name] for name in DATA} == {
        "dataset": "/data/shards/phantom-lesion-64px",
        "field_of_view": "lesion",
        "size_px": 64,
        "fingerprint": "0123456789abcdef" * 4,
    }
    assert trials.attrs["study"]["field_of_view"] == "lesion"
    assert results.nas_table(trials[trials.status == "complete"]).attrs["study"] == trials.attrs["study"]
    json.dumps(trials.attrs)


def test_epochs_are_rows_as_written(study: Path) -> None:
    epochs = results.load_epochs(str(study))
    assert list(epochs[epochs.trial_id == "0001"].val_dice) == [0.2, 0.4, 0.6]
    assert list(epochs.columns[:5]) == ["trial_id", "role", "final", "encoder", "epoch"]
