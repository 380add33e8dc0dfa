"""Mirrors of trial folders: nothing twice, nothing lost, and no tracker that stops a study."""

import logging
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Folder
from tests.results.example_study import write_study, write_trial
from trainables.record import trial_paths
from trainables.track import mirror
from trainables.track.mirror import LiveMirrors, Mirror
from trainables.track.trackers import TRACKERS, Mirrored, missing_library


class FakeTracker:
    """Remembers what it was told, and is down while `down` is set."""

    told: list[tuple[str, ...]]
    down = False
    busy = threading.Event()

    def __init__(self, study: Folder) -> None:
        self.study = study

    def begin(self, trial: Mirrored) -> str:
        if type(self).down:
            raise ConnectionError("no route to host\nand more")
        self.told.append(("begin", trial.name))
        return f"run of {trial.name}"

    def epochs(self, run: str, trial: Mirrored, rows: Sequence[dict[str, Any]]) -> None:
        assert run == f"run of {trial.name}"
        self.told += [("epoch", trial.name, str(row["epoch"])) for row in rows]

    def end(self, run: str, trial: Mirrored) -> None:
        self.told.append(("end", trial.name, trial.status.status))

    def close(self) -> None:
        self.told.append(("close",))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    FakeTracker.told, FakeTracker.down = [], False
    monkeypatch.setitem(TRACKERS, "tensorboard", FakeTracker)
    monkeypatch.setattr(mirror, "PAUSE_S", 0.01)
    return FakeTracker.told


def catch_up(folder: Path) -> int:
    return Mirror(Folder(folder), "tensorboard").catch_up()


def test_a_trial_is_begun_told_epoch_by_epoch_and_ended(tmp_path: Path, told: list[tuple[str, ...]]) -> None:
    write_trial(Folder(tmp_path / "trials" / "0000"), dice=(0.1, 0.2))
    assert catch_up(tmp_path) == 1
    wanted = [("begin", "0000"), ("epoch", "0000", "1"), ("epoch", "0000", "2"), ("end", "0000", "complete")]
    assert told == wanted


def test_a_study_that_goes_on_sends_no_epoch_twice(tmp_path: Path, told: list[tuple[str, ...]]) -> None:
    trial = Folder(tmp_path / "trials" / "0000")
    write_trial(trial, status="running", dice=(0.1,))
    catch_up(tmp_path)
    write_trial(trial, status="running", dice=(0.1, 0.2))
    catch_up(tmp_path)
    write_trial(trial, status="pruned", dice=(0.1, 0.2))
    catch_up(tmp_path)
    catch_up(tmp_path)
    assert [what for what in told if what[0] == "epoch"] == [("epoch", "0000", "1"), ("epoch", "0000", "2")]
    assert [what[0] for what in told].count("begin") == 1
    assert [what for what in told if what[0] == "end"] == [("end", "0000", "pruned")]


def test_finals_are_told_and_repeats_are_not(tmp_path: Path, told: list[tuple[str, ...]]) -> None:
    study = write_study(tmp_path / "study")
    write_trial(Folder(study / "final" / "vgg19" / "1"), role="final", dice=(0.4,))
    catch_up(study)
    begun = {name for what, name, *_ in told if what == "begin"}
    assert {"final/mobilenet", "final/vgg19/1", "0005"} <= begun
    assert "0009" not in begun


def test_a_trial_without_an_epoch_is_told_only_once_it_has_ended(tmp_path: Path, told: list[tuple[str, ...]]) -> None:
    trial = Folder(tmp_path / "trials" / "0000")
    write_trial(trial, status="running")
    assert catch_up(tmp_path) == 0
    write_trial(trial, status="failed", reason="out of memory")
    assert catch_up(tmp_path) == 1
    assert told == [("begin", "0000"), ("end", "0000", "failed")]


def test_a_broken_trial_folder_is_passed_over(tmp_path: Path, told: list[tuple[str, ...]]) -> None:
    write_trial(Folder(tmp_path / "trials" / "0000"), dice=(0.1,))
    (tmp_path / "trials" / "0001").mkdir()
    (tmp_path / "trials" / "0001" / "trial.json").write_text("{")
    assert catch_up(tmp_path) == 1


def test_a_running_study_is_followed_until_its_end(tmp_path: Path, told: list[tuple[str, ...]]) -> None:
    trial = Folder(tmp_path / "trials" / "0000")
    with LiveMirrors(Folder(tmp_path), ["tensorboard"]) as mirrors:
        write_trial(trial, status="running", dice=(0.1,))
        mirrors.changed()
        write_trial(trial, dice=(0.1, 0.2))
    assert told[-2:] == [("end", "0000", "complete"), ("close",)]
    assert [what[2] for what in told if what[0] == "epoch"] == ["1", "2"]


def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the product logs reaches pytest, whatever a console or a library's set-up of logging did to it before."""
    monkeypatch.setattr(logging.getLogger("mammosearch"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("mammosearch"), "disabled", False)


def test_a_tracker_that_is_down_is_told_of_once_and_catches_up(
    tmp_path: Path, told: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FakeTracker.down = True
    heard(monkeypatch)
    monkeypatch.setattr(mirror, "PAUSE_S", 0.01)
    for number in range(3):
        write_trial(Folder(tmp_path / "trials" / f"{number:04d}"), dice=(0.1,))
    with caplog.at_level(logging.WARNING, "mammosearch"), LiveMirrors(Folder(tmp_path), ["tensorboard"]) as mirrors:
        for _ in range(3):
            mirrors.changed()
            time.sleep(0.02)
    complaints = [text for record in caplog.records if "could not be told" in (text := record.getMessage())]
    assert len(complaints) == 1
    assert complaints[0].startswith(
        "tensorboard could not be told (ConnectionError: no route to host); the study goes on"
    )
    FakeTracker.down = False
    assert catch_up(tmp_path) == 3


def test_a_tracker_that_hangs_does_not_keep_the_study(
    tmp_path: Path, told: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = threading.Event()
    monkeypatch.setattr(FakeTracker, "begin", lambda self, trial: let_go.wait(60))
    monkeypatch.setattr(mirror, "LAST_WAIT_S", 0.1)
    heard(monkeypatch)
    write_trial(Folder(tmp_path / "trials" / "0000"), dice=(0.1,))
    with caplog.at_level(logging.WARNING, "mammosearch"), LiveMirrors(Folder(tmp_path), ["tensorboard"]) as mirrors:
        mirrors.changed()
    let_go.set()
    assert "`results.run export` sends the rest" in caplog.text


def test_no_tracker_is_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with LiveMirrors(Folder(tmp_path), []) as mirrors:
        mirrors.changed()
        assert threading.active_count() == before


def test_trial_folders_are_those_of_the_search_then_the_finals_in_both_layouts(tmp_path: Path) -> None:
    for name in ("trials/0001", "trials/0000", "final/vgg19", "final/mobilenet/0", "final/mobilenet/1"):
        write_trial(Folder(tmp_path / name))
    wanted = ["trials/0000", "trials/0001", "final/mobilenet/0", "final/mobilenet/1", "final/vgg19"]
    assert list(trial_paths(Folder(tmp_path))) == wanted


def events(folder: Path) -> list[Any]:
    """What TensorBoard's event files hold: records of length, checksum, content, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.glob("events.*")):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack("<Q", content[at : at + 8])
            found.append(Event.FromString(content[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


@pytest.mark.slow
def test_tensorboard_has_every_measure_of_every_epoch_and_the_settings(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study")
    tracker = Mirror(Folder(study), "tensorboard")
    tracker.catch_up()
    tracker.close()
    values = [(e.step, v.tag, v.simple_value) for e in events(study / "tensorboard" / "0005") for v in e.summary.value]
    assert {(step, round(value, 4)) for step, tag, value in values if tag == "val_dice"} == {
        (1, 0.2),
        (2, 0.45),
        (3, 0.7),
    }
    assert {round(value, 4) for _, tag, value in values if tag == "best/val_dice"} == {0.7}
    assert {"_hparams_/experiment", "train_loss", "learning_rate"} <= {tag for _, tag, _ in values}
    assert (study / "tensorboard" / "final" / "mobilenet").is_dir()


@pytest.mark.slow
def test_mlflow_has_settings_curves_and_how_a_trial_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    study = write_study(tmp_path / "study")
    Mirror(Folder(study), "mlflow").catch_up()
    client = mlflow.MlflowClient(f"sqlite:///{study / 'mlflow.db'}")
    runs = {
        run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name("study").experiment_id])
    }
    assert runs["0007"].info.status == "KILLED" and runs["0008"].info.status == "FAILED"
    assert runs["0005"].data.params["learning_rate"] == "0.002"
    curve = client.get_metric_history(runs["0005"].info.run_id, "val_dice")
    assert [(point.step, point.value) for point in curve] == [(1, 0.2), (2, 0.45), (3, 0.7)]
    assert runs["final/seresnet50"].data.metrics["test/dice"] == 0.77


@pytest.mark.slow
def test_wandb_writes_a_run_per_trial_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for number in range(2):
        write_trial(Folder(tmp_path / "trials" / f"{number:04d}"), dice=(0.1, 0.2))
    tracker = Mirror(Folder(tmp_path), "wandb")
    tracker.catch_up()
    tracker.close()
    assert len(list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))) == 2


def test_a_library_that_is_missing_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert missing_library("mlflow") == "mlflow needs mlflow: pip install 'mammosearch[mlflow]'"
    with pytest.raises(ImportError, match=r"wandb needs wandb: pip install 'mammosearch\[wandb\]'"):
        Mirror(Folder(tmp_path), "wandb")


def test_a_study_in_an_object_store_cannot_be_written_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the extra study is not installed")

    class Remote(Folder):
        local = None  # type: ignore[assignment]

    with pytest.raises(ValueError, match="lie on a disk"):
        TRACKERS["tensorboard"](Remote(tmp_path))
