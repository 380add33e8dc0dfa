import itertools
import math

import pytest

from cluster.storage import Folder
from search.final import winners
from search.folder import begun
from tests.search.simulation import KilledError, make_config, make_engine, row_of, simulate, summary
from trainables.order import TrialError
from trainables.record import TrialRecord, best_epoch, checkpoint_name, final_paths


def finals(folder):
    return [path.removeprefix("final/") for path in final_paths(Folder(folder))]


def rungs(engine):
    """Who reached which epoch, in order."""
    return {epoch: [trial.number for trial in there] for epoch, there in engine.decisions.known.reached.items()}


@pytest.fixture
def study(tmp_path):
    def run(name="study", *, slots=1, order_seed=0, config=None, **more):
        engine = make_engine(config or make_config(), tmp_path / name, slots=slots)
        simulate(engine, slots=slots, order_seed=order_seed, **more)
        return engine

    return run


def test_baselines_come_first_and_are_never_pruned(study):
    trials = study().trials
    assert [(t.info.role, t.info.config.encoder) for t in trials[:2]] == [
        ("baseline", "mobilenet"),
        ("baseline", "vgg19"),
    ]
    assert trials[2].info.role == "search"
    assert all(t.complete and len(t.curve) == 4 for t in trials[:2])


def test_a_pruned_trial_ends_at_a_rung_with_its_reason(study):
    pruned = [t for t in study().trials if t.status.status == "pruned"]
    assert pruned, "the pruner never pruned"
    for trial in pruned:
        assert max(trial.curve) == len(trial.curve) in (1, 2)
        assert "not among the best 1/2" in trial.status.reason


def test_a_stop_is_written_before_anyone_is_told_of_it(tmp_path):
    engine = make_engine(make_config(), tmp_path / "s")
    written = []

    def listener(event):
        if event.kind == "ended":
            written.append(TrialRecord(engine.folder / event.trial.info.path).status() == event.trial.status)

    engine.listeners.append(listener)
    simulate(engine, slots=1)
    assert len(written) == 14 + 2 * 3 and all(written)


def test_events_tell_each_trial_from_its_order_to_its_end(tmp_path):
    engine = make_engine(make_config(budget={"trials": 3, "epochs": 2}, final={"top": 0}), tmp_path / "s")
    told = []
    engine.listeners.append(lambda event: told.append((event.kind, event.trial.info.trial_id, len(event.trial.curve))))
    simulate(engine, slots=1)
    assert told[:4] == [("ordered", "0000", 0), ("epoch", "0000", 1), ("epoch", "0000", 2), ("ended", "0000", 2)]
    assert {kind for kind, name, _ in told if name == "0002"} == {"ordered", "epoch", "ended"}


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_same_seed_and_slots_give_the_same_study_whatever_the_timing(study, slots):
    config = make_config(study={"repeatable": True})
    first, second = (study(f"s{seed}", slots=slots, order_seed=seed, config=config) for seed in (1, 2))
    assert summary(first) == summary(second)


def test_another_seed_gives_another_study(study):
    first = study("a")
    second = study("b", config=make_config(study={"seed": 1}))
    assert [t.info.params for t in first.trials] != [t.info.params for t in second.trials]


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_study_killed_after_every_epoch_equals_the_undisturbed(study, tmp_path, sampler):
    config = make_config(sampler={"name": sampler, "startup_trials": 4, "population_size": 4})
    whole = study("whole", config=config)
    folder = tmp_path / "killed"
    for kill in itertools.count():
        engine = make_engine(config, folder, resume=kill > 0)
        try:
            simulate(engine, slots=1, kill_at=1)
            break
        except KilledError:
            continue
    assert kill > 20
    assert summary(engine) == summary(whole)
    assert rungs(engine) == rungs(whole)
    assert finals(folder) == finals(tmp_path / "whole")


def test_study_killed_with_two_slots_equals_the_undisturbed(study, tmp_path):
    config = make_config(study={"repeatable": True})
    whole = study("whole", slots=2, config=config)
    folder = tmp_path / "killed"
    for kill in itertools.count():
        engine = make_engine(config, folder, slots=2, resume=kill > 0)
        try:
            simulate(engine, slots=2, order_seed=kill, kill_at=3 + kill % 5)
            break
        except KilledError:
            continue
    assert kill > 5
    assert summary(engine) == summary(whole)


def test_two_studies_never_merge(study, tmp_path):
    study("one")
    Folder(tmp_path / "one").write_json("study.json", {})
    with pytest.raises(ValueError, match="--resume"):
        begun(Folder(tmp_path / "one"), resume=False)


def test_nine_cells_are_trained_nine_times_whatever_the_budget(study):
    space = {"encoder": ["mobilenet", "vgg19", "densenet121"], "batch_size": [4, 8, 16]}
    config = make_config(space=space, budget={"trials": 30, "epochs": 1})
    engine = study(config=config)
    keys = [engine.space.key(t.info.params) for t in engine.trials]
    assert len(keys) == len(set(keys)) == 9
    assert "all 9 configurations" in engine.stop_reason


def test_proportional_loss_weights_are_one_configuration(study):
    space = {"dice_weight": [1.0, 2.0], "iou_weight": [1.0, 2.0]}
    config = make_config(space=space, baselines=False, budget={"trials": 10, "epochs": 1})
    assert len(study(config=config).trials) == 3


def test_repeat_on_request_is_trained_with_another_seed(study):
    config = make_config(
        space={"batch_size": [4, 8]},
        fixed={"encoder": "mobilenet"},
        budget={"trials": 5, "epochs": 1},
        study={"repeats": "new_seed"},
    )
    trials = study(config=config).trials
    assert len(trials) == 5
    assert len({(t.info.config.batch_size, t.info.config.seed) for t in trials}) == 5


def test_failed_trial_is_fail_with_its_reason_and_the_search_goes_on(study, tmp_path):
    error = TrialError("not_finite", "NonFiniteLoss: epoch 1, step 3", "Traceback ...")
    engine = study(fail=lambda order: error if order.info.trial_id == "0003" else None)
    trials = engine.trials
    assert (trials[3].status.status, trials[3].status.reason) == ("failed", error.reason)
    assert len(trials) == 14 and all(t.ended for t in trials)
    status = engine.record("0003").status()
    assert (status.status, status.traceback, status.failure) == ("failed", "Traceback ...", "not_finite")


def test_nan_metric_never_leaves_a_trial_running(study):
    def nan_at_low_rates(order, epoch):
        low = order.info.config.learning_rate < 3e-4
        return row_of(order, epoch).model_copy(update={"val_dice": math.nan} if low else {})

    states = {t.status.status for t in study(curve=nan_at_low_rates).trials}
    assert states == {"complete", "pruned", "failed"}


def test_study_in_which_everything_fails_stops_early_and_says_why(study):
    error = TrialError("exception", "ValueError: no such encoder", "Traceback ...")
    engine = study(fail=lambda order: error, config=make_config(failures={"stop_after_consecutive": 3}))
    assert len(engine.trials) == 3
    assert "3 trials failed in a row" in engine.failed and "no such encoder" in engine.failed


def test_failures_in_a_row_are_those_that_ended_so_whatever_the_clock_says(tmp_path):
    """The end of summer time, or a clock that was put right, makes earlier ends look like later ones."""
    error = TrialError("exception", "ValueError: bad luck", "Traceback ...")
    config = make_config(failures={"stop_after_consecutive": 3}, pruner={"name": "none"})
    engine, failing = make_engine(config, tmp_path / "s"), {"0001", "0002", "0004"}
    with pytest.raises(KilledError):
        simulate(engine, slots=1, kill_at=12, fail=lambda order: error if order.info.trial_id in failing else None)
    assert [t.status.status for t in engine.trials[:5]] == ["complete", "failed", "failed", "complete", "failed"]
    hours = {"0000": "05", "0003": "04", "0001": "06", "0002": "07", "0004": "08"}
    for name, hour in hours.items():
        record = engine.record(name)
        record.write_status(record.status().model_copy(update={"ended_at": f"2026-10-25T{hour}:00:00+00:00"}))
    resumed = make_engine(config, tmp_path / "s", resume=True)
    assert resumed.trials.failures == 1
    simulate(resumed, slots=1)
    assert resumed.failed is None and all(trial.ended for trial in resumed.trials)


def test_out_of_memory_is_told_to_the_sampler_as_infeasible(study):
    error = TrialError("out_of_memory", "OutOfMemoryError", "Traceback ...")
    config = make_config(space={"batch_size": {"low": 1, "high": 64}}, fixed={"encoder": "mobilenet"})
    engine = study(config=config, fail=lambda order: error if order.info.config.batch_size > 24 else None)
    later = [t.info.config.batch_size for t in engine.trials[6:]]
    assert sum(size > 24 for size in later) < len(later) / 2
    assert any(t.status.failure == "out_of_memory" for t in engine.trials)


def test_winners_of_different_encoders_train_in_full(study, tmp_path):
    engine = study()
    assert finals(tmp_path / "study") == [f"{name}/{seed}" for name in ("mobilenet", "vgg19") for seed in (1, 2, 3)]
    for name in finals(tmp_path / "study"):
        record = engine.record(name, final=True)
        assert record.status().status == "complete" and len(record.metrics()) == 5


def test_conditional_space_gives_only_active_parameters(study):
    space = {
        "optimiser": ["adam", "sgd"],
        "momentum": {"low": 0.5, "high": 0.9, "when": {"optimiser": "sgd"}},
    }
    for trial in study(config=make_config(space=space, fixed={"encoder": "mobilenet"})).trials:
        assert ("momentum" in trial.info.params) == (trial.info.params["optimiser"] == "sgd")


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_two_objectives_are_searched_and_pruned(study, sampler):
    objective = [{"metric": "val_dice"}, {"metric": "val_loss"}]
    sampling = {"name": sampler, "population_size": 4, "startup_trials": 3}
    config = make_config(objective=objective, sampler=sampling)
    engine = study(config=config)
    assert {t.status.status for t in engine.trials} == {"complete", "pruned"}
    assert all(len(t.values) == 2 for t in engine.trials)


def test_money_stops_the_study_at_the_next_report(study):
    engine = study(config=make_config(budget={"trials": 14, "epochs": 4, "max_usd": 0.0105}))
    assert 0.0105 <= engine.spent.usd <= 0.0105 + 0.0011
    assert "max_usd" in engine.stop_reason


def test_no_gain_ends_the_search(study):
    engine = study(config=make_config(budget={"trials": 60, "epochs": 2, "no_gain_trials": 6}))
    assert len(engine.trials) < 60 and "no gain in 6 trials" in engine.stop_reason


def test_total_epochs_end_the_search(study):
    engine = study(config=make_config(budget={"trials": 60, "epochs": 4, "total_epochs": 20}))
    assert 20 <= sum(len(t.curve) for t in engine.trials) <= 23


def test_only_the_best_trials_weights_are_kept_and_no_checkpoint(tmp_path):
    engine = make_engine(make_config(), tmp_path / "s")

    def with_checkpoint(order, epoch):
        name = f"checkpoint/{checkpoint_name(epoch)}/weights.safetensors"
        Folder(order.folder).write_text(name, f"weights of epoch {epoch}")
        return row_of(order, epoch)

    simulate(engine, slots=1, curve=with_checkpoint)
    best = engine.trials.best
    kept = sorted(
        p.relative_to(tmp_path / "s").parent.as_posix() for p in (tmp_path / "s").rglob("weights.safetensors")
    )
    finals_kept = [f"final/{name}/{seed}" for name in ("mobilenet", "vgg19") for seed in (1, 2, 3)]
    assert kept == [*finals_kept, f"trials/{best.number:04d}"]
    assert not list((tmp_path / "s").rglob("checkpoint"))
    record = engine.record(f"{best.number:04d}")
    assert record.folder.read_text("weights.safetensors") == f"weights of epoch {best_epoch(record.metrics()).epoch}"


def test_finals_that_can_no_longer_change_begin_while_the_last_trials_run(study, tmp_path):
    orders = []
    engine = make_engine(make_config(final={"top": 2, "epochs": 5, "seeds": 1}), tmp_path / "s", slots=4)
    engine.listeners.append(lambda event: orders.append((event.kind, event.trial.info.path)))
    simulate(engine, slots=4)
    first_final = orders.index(next(o for o in orders if o[0] == "ordered" and o[1].startswith("final")))
    last_of_search = max(k for k, o in enumerate(orders) if o[0] == "ended" and o[1].startswith("trials"))
    assert first_final < last_of_search
    wins = {trial.info.config.encoder for trial in winners(engine.trials, engine.config)}
    trained = [path for kind, path in orders if kind == "ended" and path.startswith("final")]
    assert len(trained) == 2 and {path.split("/")[1] for path in trained} == wins
    assert all(TrialRecord(engine.folder / path).status().status == "complete" for path in trained)
