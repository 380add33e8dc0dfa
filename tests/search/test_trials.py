"""python -m pytest tests/search/test_trials.py: a study goes on from its trial folders, and says which is damaged."""

import itertools
import shutil

import pytest

from cluster.storage import Folder
from search.folder import begun, elapsed_s, in_charge
from search.objectives import values
from search.settings.sections import Objective
from search.trials import read_trials
from tests.search.simulation import KilledError, make_config, make_engine, simulate, summary
from tests.trainables.fakes import epoch_row, small_config
from trainables.record import TrialInfo

CONFIG = make_config(budget={"trials": 7, "epochs": 3}, final={"top": 1, "epochs": 2}, pruner={"name": "none"})


def content(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def killed_study(tmp_path_factory):
    """A study that was killed in the middle of a later trial."""
    folder = tmp_path_factory.mktemp("killed") / "study"
    for kill in itertools.count():
        engine = make_engine(CONFIG, folder, resume=kill > 0)
        with pytest.raises(KilledError):
            simulate(engine, slots=1, kill_at=1)
        if len(engine.trials) > 4 and not engine.trials[-1].ended:
            return folder


@pytest.fixture
def killed(killed_study, tmp_path):
    return shutil.copytree(killed_study, tmp_path / "study")


@pytest.mark.parametrize("how", ["renamed", "copied", "linked"])
def test_a_study_goes_on_wherever_its_folder_lies_and_whatever_it_is_called(killed, tmp_path, how):
    whole = make_engine(CONFIG, tmp_path / "whole")
    simulate(whole, slots=1)
    match how:
        case "renamed":
            there = killed.rename(tmp_path / "another_name")
        case "copied":
            there = shutil.copytree(killed, tmp_path / "elsewhere" / "copy")
        case "linked":
            (there := tmp_path / "link").symlink_to(killed)
    engine = make_engine(CONFIG, there, resume=True)
    simulate(engine, slots=1)
    assert summary(engine) == summary(whole)


ENDED, UNDER_WAY = "trials/0001", "trials/LAST"


@pytest.mark.parametrize(
    ("file", "damage", "told"),
    [
        (f"{ENDED}/trial.json", None, r"trials/0001/trial\.json is missing"),
        (f"{ENDED}/trial.json", b"{", r"trials/0001/trial\.json: not JSON"),
        (f"{ENDED}/trial.json", b"[]", r"trials/0001/trial\.json: its value"),
        (f"{ENDED}/trial.json", b'{"trial_id": "0001", "role": "search"}', r"trials/0001/trial\.json: config"),
        (f"{ENDED}/trial.json", bytes(9), r"trials/0001/trial\.json: not JSON"),
        (f"{ENDED}/trial.json", b"\xff\xfe", r"trials/0001/trial\.json is not UTF-8"),
        (f"{ENDED}/status.json", b"", r"trials/0001/status\.json: not JSON"),
        (f"{ENDED}/status.json", b'{"status": "sleeping"}', r"trials/0001/status\.json: status"),
        (f"{ENDED}/metrics.jsonl", b'{"epoch": 1, "val_', r"metrics\.jsonl, line 1: not JSON"),
        (f"{ENDED}/metrics.jsonl", b"5\n", r"metrics\.jsonl, line 1: its value"),
        (f"{ENDED}/metrics.jsonl", b'{"epoch": 1}\n', r"metrics\.jsonl, line 1: learning_rate: Field required"),
        (ENDED, None, r"trials/0001 is missing, though there is 0002"),
        (f"{UNDER_WAY}/trial.json", b"{", r"trial\.json: not JSON"),
        (f"{UNDER_WAY}/status.json", b"nonsense", r"status\.json: not JSON"),
    ],
)
def test_a_damaged_trial_is_named_and_nothing_is_changed(killed, file, damage, told):
    last = sorted(path.name for path in (killed / "trials").iterdir())[-1]
    path = killed / file.replace("LAST", last)
    if damage is not None:
        path.write_bytes(damage)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    before = content(killed)
    with pytest.raises(ValueError, match=told) as refused:
        read_trials(Folder(killed), CONFIG.objective)
    assert "nothing was changed" in str(refused.value)
    assert content(killed) == before


@pytest.mark.parametrize("rows", [None, b'{"epoch": 1, "val_', b"5\n", b"\xff"])
def test_rows_of_a_trial_under_way_are_made_again_from_its_checkpoint(killed, rows):
    """The made-up crew's checkpoint are its rows, so here the trial begins anew, and comes to the same."""
    last = max(killed.glob("trials/*"))
    if rows is None:
        (last / "metrics.jsonl").unlink()
    else:
        (last / "metrics.jsonl").write_bytes(rows)
    (trial,) = [t for t in read_trials(Folder(killed), CONFIG.objective) if not t.ended]
    assert trial.curve == {}


def test_a_trial_whose_folder_was_made_and_no_more_is_entered_again(killed, tmp_path):
    number = len(list(killed.glob("trials/*")))
    (killed / "trials" / f"{number:04d}").mkdir()
    (killed / "trials" / f"{number:04d}" / "trial.json.tmp-1234").write_text("{")
    whole = make_engine(CONFIG, tmp_path / "whole")
    simulate(whole, slots=1)
    engine = make_engine(CONFIG, killed, resume=True)
    simulate(engine, slots=1)
    assert summary(engine) == summary(whole)


def test_a_study_without_its_study_json_is_never_begun_over(killed):
    for resume in (True, False):
        with pytest.raises(ValueError, match=r"trials, but its study\.json is missing"):
            begun(Folder(killed), resume=resume)


@pytest.mark.parametrize("damage", [b"", b"{}", b"{", b"[]", b'{"name": 5}', bytes(9)])
def test_a_damaged_study_json_is_named(killed, damage):
    (killed / "study.json").write_bytes(damage)
    with pytest.raises(ValueError, match=r"study\.json: "):
        begun(Folder(killed), resume=True)


@pytest.mark.parametrize("damage", [b"", b"{}", b"5", b'{"elapsed_s": "long"}'])
def test_a_damaged_clock_begins_at_0(killed, damage):
    (killed / "progress.json").write_bytes(damage)
    assert elapsed_s(Folder(killed)) == 0.0


def test_a_study_that_was_interrupted_before_its_first_trial_is_one_to_resume(tmp_path):
    interrupted, nothing = Folder(tmp_path / "interrupted"), Folder(tmp_path / "nothing")
    with in_charge(interrupted), pytest.raises(ValueError, match="another process runs"), in_charge(interrupted):
        pass
    assert begun(interrupted, resume=True) is begun(interrupted, resume=False) is None
    with pytest.raises(ValueError, match="no study to resume"):
        begun(nothing, resume=True)


def test_every_measure_of_a_trial_is_that_of_its_best_epoch():
    info = TrialInfo(trial_id="0000", role="search", config=small_config(), usd_per_hour=3.6)
    rows = [epoch_row(1, 0.5, val_loss=0.1), epoch_row(2, 0.9, val_loss=0.4), epoch_row(3, 0.7, val_loss=0.2)]
    wanted = [Objective(metric=name) for name in ("val_dice", "val_loss", "epoch_s", "usd", "parameters")]
    assert values(wanted, rows, info, parameters=7) == pytest.approx([0.9, 0.4, 0.5, 0.0015, 7.0])
