"""python -m pytest tests/search/test_journal.py: what Optuna's own readers find in `study.journal`."""

import math
from datetime import datetime

import pytest

from search.journal import JOURNAL, About, Journal
from tests.search.simulation import KilledError, make_config, make_engine, row_of, simulate
from tests.search.studies import journal_of
from trainables.record import TrialRecord

ABOUT = {"fingerprint": "0123456789abcdef", "about": "hard Dice per image"}


def with_journal(engine, name="mine"):
    journal = Journal(engine.folder, About(name=name, objectives=engine.config.objective, attrs=ABOUT), engine.space)
    journal.rewrite(engine.trials)
    engine.listeners.append(journal)
    return journal


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An engine whose study is over, and its journal as it was written live and as it is made anew."""
    folder = tmp_path_factory.mktemp("journal") / "study"
    engine = make_engine(make_config(), folder)
    journal = with_journal(engine)
    simulate(engine, slots=1)
    live = journal_of(folder)
    journal.rewrite(engine.trials)
    return engine, live, journal_of(folder)


def test_the_journal_written_live_says_what_the_one_made_anew_says(exported):
    _, live, anew = exported
    for one, other in zip(live.trials, anew.trials, strict=True):
        for name in ("number", "state", "params", "distributions", "values", "intermediate_values", "user_attrs"):
            assert getattr(one, name) == getattr(other, name), name


def test_states_and_values_are_those_of_the_trial_folders(exported):
    engine, _, study = exported
    states = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    for trial, optunas in zip(engine.trials, study.trials, strict=True):
        assert optunas.state.name == states[trial.status.status]
        assert optunas.params == trial.info.params
        assert optunas.values == pytest.approx(trial.values, abs=1e-6)
    assert {t.state.name for t in study.trials} == {"COMPLETE", "PRUNED"}
    assert study.best_trial.number == engine.trials.best.number


def test_each_epoch_has_its_own_value_not_the_best_so_far(exported):
    engine, _, study = exported
    for trial in study.trials:
        rows = engine.record(trial.user_attrs["trial"]).metrics()
        assert list(trial.intermediate_values.values()) == pytest.approx([r.val_dice for r in rows], abs=1e-6)
    assert any(
        min(t.intermediate_values[4], t.values[0]) < t.values[0] for t in study.trials if t.state.name == "COMPLETE"
    )


def test_times_are_those_at_which_workers_began_and_the_trial_ended(exported):
    engine, _, study = exported
    for trial in study.trials:
        status = engine.record(trial.user_attrs["trial"]).status()
        assert trial.datetime_start.astimezone() == datetime.fromisoformat(status.started_at)
        assert trial.datetime_complete.astimezone() == datetime.fromisoformat(status.ended_at)


def test_the_study_says_what_it_is(exported):
    _, _, study = exported
    assert study.study_name == "mine" and study.metric_names == ["val_dice"]
    assert study.user_attrs == ABOUT
    said = study.trials[0].user_attrs
    assert (said["trial"], said["role"], said["encoder"], said["pool"]) == ("0000", "baseline", "mobilenet", "cpu")
    assert said["best_epoch"] in (1, 2, 3) and said["epochs"] == 4 and said["slot_s"] == 4.0


def test_finals_are_no_trials_of_the_study(exported):
    engine, _, study = exported
    assert (engine.folder / "final").names() and len(study.trials) == 14


def test_a_trial_waits_until_its_first_epoch_and_then_runs(tmp_path):
    engine = make_engine(make_config(), tmp_path / "study")
    with_journal(engine)
    states = []
    engine.listeners.append(
        lambda event: states.append((event.kind, journal_of(tmp_path / "study").trials[-1].state.name))
    )
    with pytest.raises(KilledError):
        simulate(engine, slots=1, kill_at=2)
    assert states[0] == ("ordered", "WAITING") and ("epoch", "RUNNING") in states


@pytest.mark.parametrize("damage", ["gone", "empty", "first line lost", "half a line", "zeros"])
def test_a_damaged_journal_is_made_anew_when_the_study_goes_on(tmp_path, damage):
    engine = make_engine(make_config(), tmp_path / "study")
    with_journal(engine)
    with pytest.raises(KilledError):
        simulate(engine, slots=1, kill_at=9)
    file = tmp_path / "study" / JOURNAL
    content = file.read_bytes()
    match damage:
        case "gone":
            file.unlink()
        case "empty":
            file.write_bytes(b"")
        case "first line lost":
            file.write_bytes(content.split(b"\n", 1)[1])
        case "half a line":
            file.write_bytes(content + b'{"op_code": 6, "wor')
        case "zeros":
            file.write_bytes(content[:-200] + bytes(200))
    engine = make_engine(make_config(), tmp_path / "study", resume=True)
    with_journal(engine)
    simulate(engine, slots=1)
    states = {"complete": "COMPLETE", "pruned": "PRUNED"}
    assert [t.state.name for t in journal_of(tmp_path / "study").trials] == [
        states[t.status.status] for t in engine.trials
    ]


def test_a_failed_trial_has_its_reason_and_no_value_that_is_not_finite(tmp_path):
    engine = make_engine(make_config(budget={"trials": 4, "epochs": 3}), tmp_path / "study")
    with_journal(engine)

    def nan_at_last(order, epoch):
        changes = {"val_dice": math.nan} if order.info.trial_id == "0003" and epoch == 3 else {}
        return row_of(order, epoch).model_copy(update=changes)

    simulate(engine, slots=1, curve=nan_at_last)
    trial = journal_of(tmp_path / "study").trials[3]
    if trial.state.name == "FAIL":  # it may have been pruned before
        assert "not finite" in trial.user_attrs["reason"] and 3 not in trial.intermediate_values
    assert TrialRecord(engine.folder / "trials/0003").status().status in ("failed", "pruned")


def test_several_objectives_have_their_names_and_a_front(tmp_path):
    config = make_config(objective=[{"metric": "val_dice"}, {"metric": "epoch_s"}], sampler={"name": "nsga2"})
    engine = make_engine(config, tmp_path / "study")
    with_journal(engine)
    simulate(engine, slots=1)
    study = journal_of(tmp_path / "study")
    assert study.metric_names == ["val_dice", "epoch_s"]
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.best_trials and all(len(t.values) == 2 for t in study.best_trials)
