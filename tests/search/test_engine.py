import itertools
import math

import optuna
import pytest

from cluster.storage import Folder
from search.ledger import JOURNAL, open_journal
from tests.search.simulation import KilledError, make_config, make_engine, row_of, simulate, summary
from trainables.order import TrialError
from trainables.record import best_epoch, checkpoint_name


def finals(folder):
    return sorted(p.name for p in (folder / "final").iterdir())


@pytest.fixture
def study(tmp_path):
    def run(name="study", *, slots=1, order_seed=0, config=None, **more):
        engine = make_engine(config or make_config(), tmp_path / name, slots=slots)
        simulate(engine, slots=slots, order_seed=order_seed, **more)
        return engine

    return run


def test_baselines_come_first_and_are_never_pruned(study):
    trials = study().ledger.trials()
    assert [t.user_attrs.get("baseline") for t in trials[:3]] == ["mobilenet", "vgg19", None]
    assert all(t.state.name == "COMPLETE" and len(t.intermediate_values) == 4 for t in trials[:2])


def test_pruned_trials_are_pruned_in_optuna_with_all_their_values(study):
    pruned = [t for t in study().ledger.trials() if t.state.name == "PRUNED"]
    assert pruned, "the pruner never pruned"
    for trial in pruned:
        assert max(trial.intermediate_values) == len(trial.intermediate_values) < 4
        assert trial.user_attrs["reason"]


def test_log_tells_an_epochs_own_value_beside_the_best(study, caplog):
    with caplog.at_level("INFO", "mammosearch"):
        engine = study()
    line = next(text for text in caplog.messages if text.startswith("0000  epoch 4/4"))
    own = [row.val_dice for row in engine.record("0000", final=False).metrics()]
    assert own[3] < max(own), "the last epoch must not be the best"
    assert f"val_dice {own[3]:.4f}, best {max(own):.4f} " in line


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_same_seed_and_slots_give_the_same_study_whatever_the_timing(study, slots):
    first, second = (study(f"s{seed}", slots=slots, order_seed=seed) for seed in (1, 2))
    assert summary(first) == summary(second)


def test_another_seed_gives_another_study(study):
    first = study("a")
    second = study("b", config=make_config(study={"seed": 1}))
    assert [t.params for t in first.ledger.trials()] != [t.params for t in second.ledger.trials()]


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
    assert engine.rungs.records == whole.rungs.records
    assert finals(folder) == finals(tmp_path / "whole")


def test_study_killed_with_two_slots_equals_the_undisturbed(study, tmp_path):
    whole = study("whole", slots=2)
    folder = tmp_path / "killed"
    for kill in itertools.count():
        engine = make_engine(make_config(), folder, slots=2, resume=kill > 0)
        try:
            simulate(engine, slots=2, order_seed=kill, kill_at=3 + kill % 5)
            break
        except KilledError:
            continue
    assert kill > 5
    assert summary(engine) == summary(whole)


def test_half_a_line_in_the_journal_is_cut_off(study, tmp_path):
    engine = make_engine(make_config(), tmp_path / "s")
    with pytest.raises(KilledError):
        simulate(engine, slots=1, kill_at=9)
    with (tmp_path / "s" / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code": 6, "wor')
    engine = make_engine(make_config(), tmp_path / "s", resume=True)
    simulate(engine, slots=1)
    assert summary(engine) == summary(study("whole"))


def test_two_studies_never_merge(study, tmp_path):
    study("one")
    with pytest.raises(FileExistsError, match="--resume"):
        make_engine(make_config(), tmp_path / "one")


def test_journal_opens_with_plain_optuna_under_the_folders_name(study, tmp_path):
    study("mine")
    loaded = optuna.load_study(study_name="mine", storage=open_journal(tmp_path / "mine" / JOURNAL))
    assert len(loaded.trials) == 14
    assert loaded.best_trial.value == max(t.value for t in loaded.trials if t.state.name == "COMPLETE")


def test_nine_cells_are_trained_nine_times_whatever_the_budget(study):
    space = {"encoder": ["mobilenet", "vgg19", "densenet121"], "batch_size": [4, 8, 16]}
    config = make_config(space=space, budget={"trials": 30, "epochs": 1})
    engine = study(config=config)
    keys = [t.user_attrs["key"] for t in engine.ledger.trials()]
    assert len(keys) == len(set(keys)) == 9
    assert "all 9 configurations" in engine.stop_reason


def test_proportional_loss_weights_are_one_configuration(study):
    space = {"dice_weight": [1.0, 2.0], "iou_weight": [1.0, 2.0]}
    config = make_config(space=space, baselines=False, budget={"trials": 10, "epochs": 1})
    assert len(study(config=config).ledger.trials()) == 3


def test_repeat_on_request_is_trained_with_another_seed(study):
    config = make_config(
        space={"batch_size": [4, 8]},
        fixed={"encoder": "mobilenet"},
        budget={"trials": 5, "epochs": 1},
        study={"repeats": "new_seed"},
    )
    trials = study(config=config).ledger.trials()
    assert len(trials) == 5
    assert len({(t.params["batch_size"], t.user_attrs["config"]["seed"]) for t in trials}) == 5


def test_failed_trial_is_fail_with_its_reason_and_the_search_goes_on(study, tmp_path):
    error = TrialError("not_finite", "NonFiniteLoss: epoch 1, step 3", "Traceback ...")
    engine = study(fail=lambda order: error if order.info.trial_id == "0003" else None)
    trials = engine.ledger.trials()
    assert trials[3].state.name == "FAIL" and trials[3].user_attrs["reason"] == error.reason
    assert len(trials) == 14 and not any(t.state.name == "RUNNING" for t in trials)
    status = engine.record("0003").status()
    assert (status.status, status.traceback, status.failure) == ("failed", "Traceback ...", "not_finite")


def test_nan_metric_never_leaves_a_trial_running(study):
    def nan_at_low_rates(order, epoch):
        low = order.info.config.learning_rate < 3e-4
        return row_of(order, epoch).model_copy(update={"val_dice": math.nan} if low else {})

    states = {t.state.name for t in study(curve=nan_at_low_rates).ledger.trials()}
    assert states == {"COMPLETE", "PRUNED", "FAIL"}


def test_study_in_which_everything_fails_stops_early_and_says_why(study):
    error = TrialError("exception", "ValueError: no such encoder", "Traceback ...")
    engine = study(fail=lambda order: error, config=make_config(failures={"stop_after_consecutive": 3}))
    assert len(engine.ledger.trials()) == 3
    assert "3 trials failed in a row" in engine.failed and "no such encoder" in engine.failed


def test_out_of_memory_is_told_to_the_sampler_as_infeasible(study):
    error = TrialError("out_of_memory", "OutOfMemoryError", "Traceback ...")
    config = make_config(space={"batch_size": {"low": 1, "high": 64}}, fixed={"encoder": "mobilenet"})
    engine = study(config=config, fail=lambda order: error if order.info.config.batch_size > 24 else None)
    later = [t.params["batch_size"] for t in engine.ledger.trials()[6:]]
    assert sum(size > 24 for size in later) < len(later) / 2
    assert any(t.state.name == "FAIL" for t in engine.ledger.trials())


def test_winners_of_different_encoders_train_in_full(study, tmp_path):
    engine = study()
    assert finals(tmp_path / "study") == ["mobilenet", "vgg19"]
    for name in finals(tmp_path / "study"):
        record = engine.record(name, final=True)
        assert record.status().status == "complete" and len(record.metrics()) == 5


def test_conditional_space_gives_only_active_parameters(study):
    space = {
        "optimiser": ["adam", "sgd"],
        "momentum": {"low": 0.5, "high": 0.9, "when": {"optimiser": "sgd"}},
    }
    for trial in study(config=make_config(space=space, fixed={"encoder": "mobilenet"})).ledger.trials():
        assert ("momentum" in trial.params) == (trial.params["optimiser"] == "sgd")


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_two_objectives_are_searched_and_pruned(study, sampler):
    objective = [{"metric": "val_dice"}, {"metric": "val_loss"}]
    sampling = {"name": sampler, "population_size": 4, "startup_trials": 3}
    config = make_config(objective=objective, sampler=sampling)
    engine = study(config=config)
    assert {t.state.name for t in engine.ledger.trials()} == {"COMPLETE", "PRUNED"}
    assert all(len(t.values) == 2 for t in engine.ledger.study.best_trials)


def test_money_stops_the_study_at_the_next_report(study):
    engine = study(config=make_config(budget={"trials": 14, "epochs": 4, "max_usd": 0.0105}))
    assert 0.0105 <= engine.spent.usd <= 0.0105 + 0.0011
    assert "max_usd" in engine.stop_reason


def test_no_gain_ends_the_search(study):
    engine = study(config=make_config(budget={"trials": 60, "epochs": 2, "no_gain_trials": 6}))
    assert len(engine.ledger.trials()) < 60 and "no gain in 6 trials" in engine.stop_reason


def test_total_epochs_end_the_search(study):
    engine = study(config=make_config(budget={"trials": 60, "epochs": 4, "total_epochs": 20}))
    assert 20 <= sum(len(t.intermediate_values) for t in engine.ledger.trials()) <= 23


def test_earlier_results_warm_start_a_conditional_space(study, tmp_path):
    space = {
        "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
        "optimiser": ["adam", "sgd"],
        "momentum": {"low": 0.5, "high": 0.9, "when": {"optimiser": "sgd"}},
    }
    first = study("first", config=make_config(space=space, fixed={"encoder": "mobilenet"}))
    config = make_config(space=space, fixed={"encoder": "mobilenet"}, warm_start=[str(tmp_path / "first")])
    second = study("second", config=config)
    warm = [t for t in second.ledger.trials() if "warm_start" in t.user_attrs]
    assert [t.params for t in warm] == [t.params for t in first.ledger.trials() if t.state.name != "FAIL"]
    assert len(second.ledger.trials()) == len(warm) + 14
    searched = {t.user_attrs["key"] for t in second.trials() if t.user_attrs["role"] == "search"}
    assert not searched & {t.user_attrs["key"] for t in warm}


def test_only_the_best_trials_weights_are_kept_and_no_checkpoint(tmp_path):
    engine = make_engine(make_config(), tmp_path / "s")

    def with_checkpoint(order, epoch):
        name = f"checkpoint/{checkpoint_name(epoch)}/weights.safetensors"
        Folder(order.folder).write_text(name, f"weights of epoch {epoch}")
        return row_of(order, epoch)

    simulate(engine, slots=1, curve=with_checkpoint)
    best = engine.best_trial()
    kept = sorted(
        p.relative_to(tmp_path / "s").parent.as_posix() for p in (tmp_path / "s").rglob("weights.safetensors")
    )
    assert kept == ["final/mobilenet", "final/vgg19", f"trials/{best.number:04d}"]
    assert not list((tmp_path / "s").rglob("checkpoint"))
    record = engine.record(f"{best.number:04d}")
    assert record.folder.read_text("weights.safetensors") == f"weights of epoch {best_epoch(record.metrics()).epoch}"
