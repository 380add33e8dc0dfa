"""python -m pytest tests/trainables/test_run.py: one configuration from the command line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cluster.storage import Folder
from tests.trainables.fakes import disc_data, without_times
from trainables import train_one
from trainables.record import TrialRecord
from trainables.run import app
from trainables.trial import TrialSession

SMALL = ["--set", "decoder=linknet", "--set", "batch_size=4", "--set", "precision=fp32"]


@pytest.fixture(autouse=True)
def _discs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_one.TrialData, "open", lambda shards, normalisation: disc_data())


def run(*arguments: str, encoder: str = "tu-test_efficientnet") -> Result:
    return CliRunner().invoke(app, ["--shards", "shards/discs", "--encoder", encoder, *SMALL, *arguments])


def test_a_trial_folder_is_written_and_every_epoch_is_printed(tmp_path: Path) -> None:
    result = run("--out", str(tmp_path / "one"), "--set", "epochs=2")
    assert result.exit_code == 0, result.output
    assert "epoch   2/2" in result.stdout
    record = TrialRecord(Folder(tmp_path / "one"))
    assert record.info().config.encoder == "tu-test_efficientnet"
    assert (record.status().status, record.status().epochs) == ("complete", 2)
    assert record.status().parameters == 94_755
    assert [row.epoch for row in record.metrics()] == [1, 2]
    test = record.test()
    assert test is not None and 0 <= test["dice"] <= 1
    assert (tmp_path / "one" / "weights.safetensors").exists()
    assert not (tmp_path / "one" / "checkpoint").exists()
    again = run("--out", str(tmp_path / "one"), "--set", "epochs=2")
    assert again.exit_code == 0 and "epoch   2/2" not in again.stdout, "a trained trial is not trained again"


def test_a_folder_of_another_configuration_is_refused(tmp_path: Path) -> None:
    assert run("--out", str(tmp_path / "one"), "--set", "epochs=1").exit_code == 0
    result = run("--out", str(tmp_path / "one"), "--set", "epochs=1", "--set", "learning_rate=0.01")
    assert result.exit_code == 2
    assert "learning_rate 0.001 there, 0.01 here" in result.stderr


@pytest.mark.parametrize("device", ["cuda:99", "xpu:zz", "mps"])
def test_a_device_that_is_not_there_is_a_mistake(tmp_path: Path, device: str) -> None:
    result = run("--out", str(tmp_path / "one"), "--device", device)
    assert result.exit_code == 2
    assert device in result.stderr and "Traceback" not in result.output


def test_the_same_command_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--out", str(tmp_path / "whole"), "--set", "epochs=3").exit_code == 0
    save = TrialSession.save

    def stop_after_two(session: TrialSession, folder: Folder) -> None:
        save(session, folder)
        if session.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrialSession, "save", stop_after_two)
    assert run("--out", str(tmp_path / "parts"), "--set", "epochs=3").exit_code == 130
    monkeypatch.setattr(TrialSession, "save", save)
    result = run("--out", str(tmp_path / "parts"), "--set", "epochs=3")
    assert "epoch   1/3" not in result.stdout  # the second was not told, for the command ended before its row
    rows = [without_times(TrialRecord(Folder(tmp_path / name)).metrics()) for name in ("whole", "parts")]
    assert rows[0] == rows[1]


def test_the_untrained_score_is_printed() -> None:
    result = run("--untrained")
    assert result.exit_code == 0
    assert "untrained tu-test_efficientnet: Dice 0." in result.stdout


def test_all_mistakes_come_at_once_with_status_2(tmp_path: Path) -> None:
    file = tmp_path / "trial.yaml"
    file.write_text("learning_rate: -1\nbatchsize: 3\n")
    result = run("--out", str(tmp_path / "o"), "--config", str(file), "--set", "epochs=0")
    assert result.exit_code == 2
    assert f"{file}:1  learning_rate: too small (got -1); allowed: above 0" in result.stderr
    assert f"{file}:2  batchsize: unknown key; did you mean batch_size?" in result.stderr
    assert "--set  epochs: too small (got 0); allowed: at least 1" in result.stderr


def test_an_unknown_encoder_is_a_mistake_of_one_message(tmp_path: Path) -> None:
    result = run("--out", str(tmp_path / "o"), encoder="mobilnet")
    assert result.exit_code == 2
    assert "did you mean mobilenet" in result.stderr
    assert "Traceback" not in result.output


def test_a_trial_that_diverges_is_failed_with_its_reason(tmp_path: Path) -> None:
    arguments = ("--set", "optimiser=sgd", "--set", "learning_rate=10", "--set", "weight_decay=1", "--set", "epochs=60")
    result = run("--out", str(tmp_path / "o"), *arguments)
    assert result.exit_code == 1
    status = TrialRecord(Folder(tmp_path / "o")).status()
    assert status.status == "failed"
    assert status.reason.startswith("NonFiniteLoss: the")
    assert "NonFiniteLoss" in status.traceback
