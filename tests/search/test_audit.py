"""Studies without training that are killed, resumed and audited, for every sampler and pruner by name."""

import itertools
import json

import pytest

from cluster.storage import Folder
from search.decisions import lag_of
from search.log import LOG, Log
from search.methods.names import PRUNERS, SAMPLER_NAMES
from search.proof.audit import audit, show_audit
from search.proof.provenance import StudyInfo
from tests.search.simulation import KilledError, make_config, make_engine, row_of, simulate, summary

TWO = [{"metric": "val_dice"}, {"metric": "val_loss"}]
GRID = {"encoder": ["mobilenet", "vgg19"], "batch_size": [2, 4, 8, 16], "learning_rate": [1e-4, 1e-3]}


def config_of(sampler, pruner, **changes):
    if sampler == "grid":
        changes["space"] = GRID
    return make_config(
        sampler={"name": sampler, "startup_trials": 4, "population_size": 4},
        pruner={"name": pruner, "grace_epochs": 1, "reduction_factor": 2},
        **changes,
    )


def killed_study(folder, config, *, slots, every):
    """Run a study that is killed every few epochs; the number of kills and the last engine."""
    for kill in itertools.count():
        engine = make_engine(config, folder, slots=slots, resume=kill > 0)
        describe(folder, config, slots=slots)
        try:
            simulate(engine, slots=slots, order_seed=kill, kill_at=every + kill % 3)
        except KilledError:
            continue
        return kill, engine


def interrupted_study(folder, config, *, slots, every):
    """As `killed_study`, but the driver dies in the middle of what it does about a report."""
    for kill in itertools.count():
        engine = make_engine(config, folder, slots=slots, resume=kill > 0)
        describe(folder, config, slots=slots)
        engine.listeners.append(dies_at(every + kill % 3))
        try:
            simulate(engine, slots=slots, order_seed=kill)
        except KilledError:
            continue
        return kill, engine


def dies_at(count):
    events = itertools.count(1)

    def listener(event):
        if next(events) == count:
            raise KilledError

    return listener


def describe(folder, config, *, slots):
    info = StudyInfo(
        name="study",
        config=config.model_dump(mode="json"),
        dataset="somewhere",
        dataset_fingerprint="",
        field_of_view="lesion",
        size_px=32,
        samples={},
        slots={"cpu": slots},
        lag=lag_of(slots) if config.study.repeatable else None,
        seed=0,
        versions={},
        commit="",
        created_at="",
    )
    Folder(folder).write_json("study.json", info.model_dump(mode="json"))


def in_order(engine):
    """No trial is lost, doubled or left open."""
    return [trial.number for trial in engine.trials] == list(range(14)) and all(trial.ended for trial in engine.trials)


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_decisions_of_a_killed_study_come_out_the_same_again_for_every_sampler(tmp_path, sampler):
    kills, engine = killed_study(tmp_path / "s", config_of(sampler, "asha"), slots=3, every=4)
    assert kills >= 3 and in_order(engine)
    assert list(audit(Folder(tmp_path / "s"))) == []


@pytest.mark.parametrize("pruner", PRUNERS)
def test_decisions_of_a_killed_study_come_out_the_same_again_for_every_pruner(tmp_path, pruner):
    kills, engine = killed_study(tmp_path / "s", config_of("tpe", pruner), slots=3, every=4)
    assert kills >= 3 and in_order(engine)
    assert list(audit(Folder(tmp_path / "s"))) == []


@pytest.mark.parametrize(("sampler", "pruner"), [("tpe", "asha"), ("nsga2", "promotion"), ("forecast", "freeze")])
def test_decisions_with_two_objectives_come_out_the_same_again(tmp_path, sampler, pruner):
    kills, engine = killed_study(tmp_path / "s", config_of(sampler, pruner, objective=TWO), slots=3, every=4)
    assert kills >= 3 and in_order(engine)
    assert list(audit(Folder(tmp_path / "s"))) == []


@pytest.mark.parametrize("pruner", PRUNERS)
def test_repeatable_study_killed_with_three_slots_equals_the_undisturbed(tmp_path, pruner):
    config = config_of("tpe", pruner, study={"repeatable": True})
    whole = make_engine(config, tmp_path / "whole", slots=3)
    simulate(whole, slots=3, order_seed=99)
    kills, engine = killed_study(tmp_path / "s", config, slots=3, every=4)
    assert kills >= 3 and summary(engine) == summary(whole)
    assert list(audit(Folder(tmp_path / "s"))) == []


@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize("pruner", PRUNERS)
def test_driver_may_die_in_the_middle_of_a_decision(tmp_path, pruner, repeatable):
    config = config_of("random", pruner, study={"repeatable": repeatable})
    kills, engine = interrupted_study(tmp_path / "s", config, slots=3, every=9)
    assert kills >= 3 and in_order(engine)
    assert all(trial.complete for trial in engine.trials if len(trial.curve) == 4)
    assert list(audit(Folder(tmp_path / "s"))) == []
    if repeatable:
        whole = make_engine(config, tmp_path / "whole", slots=3)
        simulate(whole, slots=3)
        assert summary(engine) == summary(whole)


def test_paused_trials_go_on_from_their_epoch(tmp_path):
    engine = make_engine(config_of("random", "promotion", final={"top": 0}), tmp_path / "s", slots=3)
    told, trained = [], []
    engine.listeners.append(lambda event: told.append((event.kind, event.trial.info.path)))

    def noted(order, epoch):
        trained.append((order.info.path, epoch))
        return row_of(order, epoch)

    simulate(engine, slots=3, curve=noted)
    paused = {path for kind, path in told if kind == "paused"}
    assert any(told.count(("ordered", path)) > 1 for path in paused)
    assert len(trained) == len(set(trained)) == sum(len(trial.curve) for trial in engine.trials)


def test_a_free_slot_knows_all_that_has_happened(tmp_path):
    engine = make_engine(config_of("tpe", "asha"), tmp_path / "s", slots=4)
    simulate(engine, slots=4)
    lines = Log(Folder(tmp_path / "s")).lines
    events = [line for line in lines if line["what"] != "limit"]
    assert [line["known"] for line in events if "known" in line] == [k for k, e in enumerate(events) if "known" in e]


def rewritten(folder, change):
    """Change one line of the log, with sums that fit."""
    log = Log(Folder(folder))
    lines = log.lines
    change(lines)
    for part in (folder / LOG).iterdir():
        part.unlink()
    anew = Log(Folder(folder))
    for line in lines:
        anew.add(line)
    anew.flush()


def first(lines, what, **fields):
    return next(line for line in lines if line["what"] == what and fields.items() <= line.items())


TAMPERINGS = {
    "a proposal": lambda lines: first(lines, "start", role="search")["params"].update(dice_weight=0.123),
    "a value": lambda lines: first(lines, "report", trial=3).update(values=[0.5]),
    "a stop's reason": lambda lines: first(lines, "stop").update(reason="bad luck"),
    "a stop's trial": lambda lines: lines.remove(first(lines, "stop")),
    "a rung": lambda lines: first(lines, "resume").update(until=4),
    "what was known": lambda lines: first(lines, "resume").update(known=2),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_one_changed_value_is_found_even_if_the_sums_fit(tmp_path, what, capsys):
    killed_study(tmp_path / "s", config_of("tpe", "asha"), slots=3, every=9)
    assert show_audit(str(tmp_path / "s")) and "0 differences" in capsys.readouterr().out
    rewritten(tmp_path / "s", TAMPERINGS[what])
    assert not show_audit(str(tmp_path / "s"))


def test_any_changed_character_of_the_log_is_found(tmp_path):
    killed_study(tmp_path / "s", config_of("random", "asha"), slots=2, every=9)
    file = tmp_path / "s" / LOG / "000000.jsonl"
    lines = file.read_text().splitlines()
    line = json.loads(lines[5])
    file.write_text("\n".join([*lines[:5], json.dumps({**line, "trial": line["trial"] + 1}), *lines[6:]]) + "\n")
    assert any("line 6: does not follow" in found for found in audit(Folder(tmp_path / "s")))
    with pytest.raises(ValueError, match="line 6: does not follow"):
        make_engine(config_of("random", "asha"), tmp_path / "s", slots=2, resume=True)


def test_a_last_line_that_a_kill_cut_off_is_left_out(tmp_path):
    config = config_of("random", "asha")
    with pytest.raises(KilledError):
        simulate(make_engine(config, tmp_path / "s", slots=2), slots=2, kill_at=9)
    describe(tmp_path / "s", config, slots=2)
    file = tmp_path / "s" / LOG / "000000.jsonl"
    file.write_text(file.read_text() + '{"what": "repo')
    engine = make_engine(config, tmp_path / "s", slots=2, resume=True)
    simulate(engine, slots=2)
    assert in_order(engine) and list(audit(Folder(tmp_path / "s"))) == []


def test_log_that_ends_before_the_trials_is_refused(tmp_path):
    config = config_of("random", "asha")
    simulate(make_engine(config, tmp_path / "s", slots=2), slots=2)
    file = tmp_path / "s" / LOG / "000000.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:8]))
    with pytest.raises(ValueError, match="does not tell of trial"):
        make_engine(config, tmp_path / "s", slots=2, resume=True)


def test_log_is_written_in_parts_and_read_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr("search.log.PART_LINES", 7)
    kills, _ = killed_study(tmp_path / "s", config_of("tpe", "asha"), slots=3, every=4)
    assert kills >= 3 and len(list((tmp_path / "s" / LOG).iterdir())) > 5
    assert list(audit(Folder(tmp_path / "s"))) == []
