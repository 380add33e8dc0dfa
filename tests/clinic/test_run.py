"""The commands: what they print, what they refuse, and their exit status."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clinic.run import app
from cluster.storage import Folder
from data_prep.schema import BuildSettings
from tests.clinic.fakes import film_file, write_small_model, write_trial
from tests.results.example_study import INFO
from trainables.model.info import read_info


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("models") / "small")


def test_a_final_is_packed_with_what_its_study_says(tmp_path: Path, tiny_shards: Path, tiny_build: BuildSettings):
    from data_prep.shards import read_card

    study = tmp_path / "nas"
    write_trial(study / "final" / "mobilenet", normalisation="clahe")
    fingerprint = read_card(Folder(tiny_shards)).fingerprint
    told = INFO.model_copy(update={"dataset": str(tiny_shards), "dataset_fingerprint": fingerprint, "name": "nas"})
    Folder(study).write_json("study.json", told.model_dump(mode="json"))
    done = run("pack", study / "final" / "mobilenet", tmp_path / "models" / "mobilenet")
    assert done.exit_code == 0, done.output
    info = read_info(Folder(tmp_path / "models" / "mobilenet"))
    assert (info.study, info.preprocessing.size_px, info.preprocessing.field_of_view) == ("nas", 32, "lesion")
    again = run("pack", study / "final" / "mobilenet", tmp_path / "models" / "mobilenet")
    assert again.exit_code == 2
    assert "holds a model already" in again.output


def test_of_a_finals_seeds_the_best_on_the_validation_split_is_packed_and_told(tmp_path: Path, tiny_shards: Path):
    for seed, dice in ((1, 0.5), (2, 0.7), (10, 0.6)):
        record = write_trial(tmp_path / "final" / "mobilenet" / str(seed))
        record.write_metrics([row.model_copy(update={"val_dice": dice}) for row in record.metrics()])
        record.write_test({**(record.test() or {}), "dice": 1 - dice})  # what no choice may rest on
    done = run("pack", tmp_path / "final" / "mobilenet", tmp_path / "m", "--shards", tiny_shards)
    assert done.exit_code == 0, done.output
    assert "final/mobilenet/2: of the final's seeds the one with the highest validation Dice" in done.output
    assert read_info(Folder(tmp_path / "m")).trial == "2"


def test_shards_that_the_study_was_not_trained_on_are_refused(tmp_path: Path, tiny_shards: Path):
    write_trial(tmp_path / "nas" / "final" / "a")
    Folder(tmp_path / "nas").write_json("study.json", INFO.model_dump(mode="json"))
    done = run("pack", tmp_path / "nas" / "final" / "a", tmp_path / "m", "--shards", tiny_shards)
    assert done.exit_code == 2
    assert "its fingerprint is" in done.output


def test_a_trial_that_names_no_shards_needs_them_named(tmp_path: Path, tiny_shards: Path):
    write_trial(tmp_path / "one")
    assert "name the shard folder with --shards" in run("pack", tmp_path / "one", tmp_path / "m").output
    assert run("pack", tmp_path / "one", tmp_path / "m", "--shards", tiny_shards).exit_code == 0


def test_films_become_masks_and_the_exit_status_tells(model: Path, tmp_path: Path):
    film_file(tmp_path / "in", "a")
    done = run("predict", model, tmp_path / "in", "--out", tmp_path / "out", "--workers", 0)
    assert done.exit_code == 0, done.output
    assert "1 films segmented" in done.output
    (tmp_path / "in" / "bad.dcm").write_bytes(b"nonsense")
    done = run("predict", model, tmp_path / "in", "--out", tmp_path / "out", "--workers", 0)
    assert done.exit_code == 1
    assert "bad: not_dicom" in done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--write", "mask,nothing"], "nothing"),
        (["--flips", "sideways"], "sideways"),
        (["--threshold", "7"], "threshold"),
        (["--box", "1,2,3"], "TOP,LEFT"),
        (["--variant", "int8"], "has no variant 'int8'"),
        (["--ensemble", "nowhere"], "no model at"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(model: Path, tmp_path: Path, words: list[str], says: str):
    film_file(tmp_path, "a")
    done = run("predict", model, tmp_path / "a.dcm", "--out", tmp_path / "out", *words)
    assert done.exit_code == 2
    assert says in done.output
    assert "Traceback" not in done.output


def test_a_lesion_model_on_a_whole_film_is_refused_with_the_way_out(tmp_path: Path):
    lesion_model = write_small_model(tmp_path / "lesion", field_of_view="lesion")
    film = film_file(tmp_path, "a")
    done = run("predict", lesion_model, film, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "--box TOP,LEFT,BOTTOM,RIGHT" in done.output
    boxed = run("predict", lesion_model, film, "--out", tmp_path / "out", "--box", "200,50,280,130")
    assert boxed.exit_code == 0, boxed.output
