"""python -m pytest benchmarks/stock: what plain Ray Tune gets wrong, to be run when Ray is updated. Takes minutes.

Each contract is expected to fail, strictly: should an update put one right, the test says so. That this project keeps
them is shown by its own tests (docs/log.md, "Tests in three rings").
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")

from cluster.session import connect

from benchmarks.stock import experiments, groups
from benchmarks.stock.experiments import EPOCHS, Experiment, run_stock

ROOT = Path(__file__).resolve().parents[2]
RATES = {"learning_rate": (1e-5, 1e-1)}


def broken(reason):
    """A contract that plain Ray breaks, for the reason given."""
    return pytest.mark.xfail(strict=True, reason=reason, raises=AssertionError)


@pytest.fixture(scope="module")
def ray_here():
    with connect(cpus=2):
        yield


@pytest.fixture
def run(ray_here, tmp_path):
    return lambda experiment, name="study", **more: run_stock(experiment, tmp_path / name, **more)


@broken("a trial that ASHA stopped is COMPLETE with its early value, its last epoch is not among its values")
def test_stopped_trial_is_pruned_with_every_value_it_had(run):
    outcome = run(Experiment(space=RATES, trials=12))
    stopped = [t for t in outcome.trials if outcome.epochs_of(t) < EPOCHS]
    if not stopped:
        pytest.fail("nothing was stopped: the contract was not tried")
    for trial in outcome.trials:
        assert trial.state.name == ("PRUNED" if trial in stopped else "COMPLETE")
        assert len(trial.intermediate_values) == outcome.epochs_of(trial)


@broken("tell() refuses NaN, OptunaSearch only logs that, and the trial is RUNNING for ever")
def test_nan_leaves_no_trial_running(run):
    outcome = run(Experiment(space=RATES, trials=8, poisoned_above=1e-3))
    states = {t.state.name for t in outcome.trials}
    assert len(outcome.trials) == 8
    assert "RUNNING" not in states and "FAIL" in states


@broken("OptunaSearch trains what the sampler proposes again and again")
def test_no_configuration_is_trained_twice(run):
    space = {"learning_rate": [1e-4, 1e-3, 1e-2], "dice_weight": [0.0, 0.4, 0.8]}
    outcome = run(Experiment(space=space, trials=30))
    assert len(outcome.runs()) <= 9
    assert set(outcome.runs().values()) == {1}


@broken("ASHA judges by one metric alone, and what it stopped is COMPLETE with early values of both")
def test_two_objectives_are_pruned_by_both_and_say_so(run):
    outcome = run(Experiment(space=RATES, trials=12, objectives=("val_dice", "val_loss")))
    stopped = [t for t in outcome.trials if outcome.epochs_of(t) < EPOCHS]
    if not stopped:
        pytest.fail("nothing was stopped: the contract was not tried")
    assert {t.state.name for t in stopped} == {"PRUNED"}


@broken("the study is called `optuna` and loaded if it exists: two experiments become one")
def test_two_studies_in_one_place_do_not_merge(run, tmp_path):
    place = tmp_path / "place.journal"
    for name in ("first", "second"):
        run(Experiment(space=RATES, trials=3), name, storage=place)
    assert len(experiments.stock_study(place).trials) == 3


def driver(module, *arguments):
    """A driver in a process of its own; its exit status and output."""
    command = [sys.executable, "-m", f"benchmarks.stock.{module}", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """(folder, exit status and output of the last driver) of a study whose driver was killed."""
    folder = tmp_path_factory.mktemp("stock") / "study"
    status, output = driver("experiments", folder, "ended=5")
    if status != -9:
        pytest.fail(output)
    return (folder, *driver("experiments", folder))


@broken("the storage is ahead of Tune's snapshot of the searcher, so that a restore reports to a trial that has ended")
def test_study_whose_driver_was_killed_is_resumed_to_its_end(killed):
    folder, status, output = killed
    assert status == 0, output[-2000:]
    trials = experiments.stock_study(folder / "optuna.journal").trials
    assert len(trials) == experiments.LONG.trials
    assert all(t.state.is_finished() for t in trials), output[-2000:]


@broken("Tune saves trials, searcher and callbacks, but not the scheduler: ASHA's rungs are empty after a restore")
def test_rungs_are_the_same_after_a_kill(killed):
    folder, *_ = killed
    before = experiments.read_rungs(folder / experiments.RUNGS_BEFORE)
    if not before:
        pytest.fail("no rung was reached before the kill: the contract was not tried")
    assert experiments.read_rungs(folder / experiments.RUNGS_AFTER) == before


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """The folder of a trial of two workers."""
    folder = tmp_path_factory.mktemp("groups") / "study"
    status, output = driver("groups", folder)
    if status:
        pytest.fail(output[-3000:])
    return folder


@broken("Train's placement group outlives a stopped trial where the dashboard cannot be asked who is alive")
def test_stopped_trials_leave_no_hardware_taken(two_workers):
    assert json.loads((two_workers / groups.LEFT).read_text()) == {"placement_groups": 0, "cpus_free": 2.0}


@broken("only rank 0's measures reach Tune, and its result has no checkpoint")
def test_measures_are_of_all_workers_and_the_checkpoint_is_there(two_workers):
    assert json.loads((two_workers / "result.json").read_text()) == {"value": 3.5, "checkpoint": True}
