"""python -m pytest tests/search/test_stock_defects.py: what plain Ray Tune gets wrong, and this engine must not.

Every contract is written once and runs on two engines. `stock` is Ray Tune with OptunaSearch, ASHA and Train V2, used
as documented; it is expected to fail, strictly: should an update of Ray put one right, the test says so. Its half takes
minutes and depends on how fast the machine is, so it runs only when asked for:

    MAMMOSEARCH_STOCK=1 python -m pytest tests/search/test_stock_defects.py
"""

import json
import os
import sys

import pytest

pytest.importorskip("ray")

from cluster.session import connect

from cluster.storage import Folder
from tests.search import stock, stock_groups
from tests.search.stock import ENGINES, EPOCHS, Experiment
from tests.search.studies import finish, kill_tree, spawn, trials_of
from tests.trainables.fakes import train, without_times
from tests.trainables.test_ddp import assert_same_measures
from trainables.data import TrialData
from trainables.record import TrialRecord
from trainables.step import checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RATES = {"learning_rate": (1e-5, 1e-1)}


def both(reason, raises=AssertionError):
    """The contract on our engine, and on the stock one, which breaks it for the reason given."""
    fails = pytest.mark.xfail(strict=True, reason=reason, raises=raises)
    asked = pytest.mark.skipif(not os.environ.get("MAMMOSEARCH_STOCK"), reason="needs MAMMOSEARCH_STOCK=1")
    return pytest.mark.parametrize("engine", ["ours", pytest.param("stock", marks=[asked, fails])])


@pytest.fixture(scope="module")
def ray_here():
    with connect(cpus=2, slots={"cpu": 1}):
        yield


@pytest.fixture
def run(ray_here, tmp_path):
    def run(engine, experiment, name="study", **more):
        return ENGINES[engine](experiment, tmp_path / name, **more)

    return run


@both("a trial that ASHA stopped is COMPLETE with its early value, its last epoch is not among its values")
def test_stopped_trial_is_pruned_with_every_value_it_had(run, engine):
    outcome = run(engine, Experiment(space=RATES, trials=12))
    stopped = [t for t in outcome.trials if outcome.epochs_of(t) < EPOCHS]
    assert stopped, "nothing was stopped: the contract was not tried"
    for trial in outcome.trials:
        assert trial.state.name == ("PRUNED" if trial in stopped else "COMPLETE")
        assert len(trial.intermediate_values) == outcome.epochs_of(trial)


@both("tell() refuses NaN, OptunaSearch only logs that, and the trial is RUNNING for ever")
def test_nan_leaves_no_trial_running(run, engine):
    outcome = run(engine, Experiment(space=RATES, trials=8, poisoned_above=1e-3))
    states = {t.state.name for t in outcome.trials}
    assert len(outcome.trials) == 8
    assert "RUNNING" not in states and "FAIL" in states
    assert {t.state.name for t in outcome.trials if t.params["learning_rate"] > 1e-3} == {"FAIL"}


@both("OptunaSearch trains what the sampler proposes again and again")
def test_no_configuration_is_trained_twice(run, engine):
    space = {"learning_rate": [1e-4, 1e-3, 1e-2], "dice_weight": [0.0, 0.4, 0.8]}
    outcome = run(engine, Experiment(space=space, trials=30))
    assert len(outcome.runs()) <= 9
    assert set(outcome.runs().values()) == {1}


@both("ASHA judges by one metric alone, and what it stopped is COMPLETE with early values of both")
def test_two_objectives_are_pruned_by_both_and_say_so(run, engine):
    outcome = run(engine, Experiment(space=RATES, trials=12, objectives=("val_dice", "val_loss")))
    stopped = [t for t in outcome.trials if outcome.epochs_of(t) < EPOCHS]
    assert stopped, "nothing was stopped: the contract was not tried"
    assert {t.state.name for t in stopped} == {"PRUNED"}
    assert all(len(t.values) == 2 for t in outcome.trials if t.state.name == "COMPLETE")
    # Whoever is best by the second objective is beaten by nobody, and so goes on.
    assert min(outcome.trials, key=lambda t: stock.curve_row(t.params, EPOCHS, 1)["val_loss"]) not in stopped


@both("the study is called `optuna` and loaded if it exists: two experiments become one")
def test_two_studies_in_one_place_do_not_merge(run, engine, tmp_path):
    place = tmp_path / "place.journal"
    experiment = Experiment(space=RATES, trials=3)
    first = run(engine, experiment, "first", storage=place)
    assert len(first.trials) == 3
    try:
        run(engine, experiment, "second", storage=place)
    except FileExistsError as refusal:
        assert "already holds a study" in str(refusal)
    now = stock.stock_study(place) if engine == "stock" else stock.our_outcome(place.with_suffix(""))
    assert len(now.trials) == 3


def driver(module, *arguments):
    """A driver in a process of its own; its exit status and output."""
    process = spawn([sys.executable, "-m", f"tests.search.{module}", *map(str, arguments)])
    try:
        output = finish(process)
    finally:
        kill_tree(process)
    return process.returncode, output


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """engine -> (folder, exit status and output of the last driver) of a study whose driver was killed."""
    done = {}

    def run_once(engine):
        if engine not in done:
            folder = tmp_path_factory.mktemp(engine) / "study"
            in_mid_trial = ["epochs=3"] if engine == "ours" else []
            for moment in (*in_mid_trial, "ended=5"):
                status, output = driver("stock", engine, folder, moment)
                assert status == -9, output
            done[engine] = (folder, *driver("stock", engine, folder))
        return done[engine]

    return run_once


@both("the storage is ahead of Tune's snapshot of the searcher, so that a restore reports to a trial that has ended")
def test_study_whose_driver_was_killed_is_resumed_to_its_end(killed, engine):
    folder, status, output = killed(engine)
    assert status == 0, output[-2000:]
    if engine == "ours":
        trials = stock.our_outcome(folder).trials
    else:
        trials = stock.stock_study(folder / "optuna.journal").trials
    assert len(trials) == stock.LONG.trials
    assert all(t.state.is_finished() for t in trials), output[-2000:]
    assert set(stock.Outcome(trials, stock.read_diary(folder)).runs().values()) == {1}


@both("Tune saves trials, searcher and callbacks, but not the scheduler: ASHA's rungs are empty after a restore")
def test_rungs_are_the_same_after_a_kill(killed, engine):
    folder, *_ = killed(engine)
    before = stock.read_rungs(folder / stock.RUNGS_BEFORE)
    assert before, "no rung was reached before the kill: the contract was not tried"
    assert stock.read_rungs(folder / stock.RUNGS_AFTER) == before


@pytest.fixture(scope="module")
def groups(tmp_path_factory, tiny_shards):
    """engine -> the folder of its experiment with trials of two workers."""
    done = {}

    def run_once(engine):
        if engine not in done:
            done[engine] = folder = tmp_path_factory.mktemp(f"{engine}-groups") / "study"
            status, output = driver("stock_groups", engine, folder, tiny_shards)
            if status:
                raise RuntimeError(output[-3000:])
        return done[engine]

    return run_once


@both("Train's placement group outlives a stopped trial where the dashboard cannot be asked who is alive")
def test_stopped_trials_leave_no_hardware_taken(groups, engine):
    folder = groups(engine)
    if engine == "ours":
        assert [t.state.name for t in trials_of(folder)] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert json.loads((folder / stock_groups.LEFT).read_text()) == {"placement_groups": 0, "cpus_free": 2.0}


@both("only rank 0's measures reach Tune, and its result has no checkpoint")
def test_measures_are_of_all_workers_and_the_checkpoint_is_there(groups, engine, tiny_shards):
    folder = groups(engine)
    if engine == "ours":
        record = TrialRecord(Folder(folder / "trials" / "0000"))
        config = record.info().config
        alone = train(config, data=TrialData.open(str(tiny_shards)))
        for row, expected in zip(without_times(record.metrics()), without_times(alone), strict=True):
            assert_same_measures(row, expected)
        assert checkpoint.newest(record.folder / "checkpoint") == "epoch_0003"
    else:
        result = json.loads((folder / "result.json").read_text())
        assert result == {"value": 3.5, "checkpoint": True}
