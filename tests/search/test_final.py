"""The finals: who wins, with which seeds, in which order, and what the money allows."""

import itertools
import math

import numpy as np
import pytest

from cluster.storage import Folder
from search.engine import FINISHED, WAIT
from search.final import winners
from search.standing import Standing
from search.trials import Trial, Trials
from tests.search.simulation import KilledError, make_config, make_engine, simulate
from trainables.config import TrialConfig
from trainables.pareto import covered, hypervolume, pareto_front, spread
from trainables.record import TrialInfo, TrialRecord, TrialStatus, final_paths


def complete(number: int, encoder: str, *values: float) -> Trial:
    info = TrialInfo(trial_id=f"{number:04d}", role="search", config=TrialConfig(encoder=encoder))
    return Trial(info=info, status=TrialStatus(status="complete"), curve={1: values})


def wins(config, *trials: Trial) -> list[str]:
    return [trial.info.trial_id for trial in winners(Trials(list(trials), config.objective), config)]


def seeds_of(folder, encoder: str) -> list[int]:
    return [
        TrialRecord(Folder(folder) / path).info().config.seed for path in final_paths(Folder(folder)) if encoder in path
    ]


def test_the_best_of_each_encoder_win():
    trials = (complete(0, "vgg19", 0.8), complete(1, "mobilenet", 0.7), complete(2, "vgg19", 0.9))
    assert wins(make_config(), *trials) == ["0002", "0001"]
    assert wins(make_config(final={"top": 2, "distinct_encoders": False}), *trials) == ["0002", "0000"]
    assert wins(make_config()) == []


def test_of_two_objectives_the_winners_stand_for_the_front():
    config = make_config(objective=["val_dice", {"metric": "val_loss"}], final={"top": 3, "distinct_encoders": False})
    trials = [
        complete(0, "vgg19", 0.90, 0.50),
        complete(1, "vgg19", 0.89, 0.49),  # hardly another point than the one before
        complete(2, "mobilenet", 0.80, 0.20),  # covers most
        complete(3, "mobilenet", 0.79, 0.60),  # beaten in both
        complete(4, "vgg19", 0.60, 0.10),
        complete(5, "vgg19", 0.50, 0.60),
    ]
    assert wins(config, *trials) == ["0000", "0002", "0004"]
    config = make_config(objective=["val_dice", {"metric": "val_loss"}], final={"top": 3})
    assert wins(config, *trials) == ["0000", "0002"]  # of different encoders there are no more


def test_the_volume_of_three_aims_is_that_of_counting_cells():
    rng = np.random.default_rng(0)
    points = rng.random((6, 3))
    cells = np.stack(np.meshgrid(*[(np.arange(40) + 0.5) / 40] * 3), axis=-1)
    below = np.any(np.all(cells[..., None, :] <= points, axis=-1), axis=-1)
    assert covered(points) == pytest.approx(below.mean(), abs=0.02)
    assert hypervolume(points) > 0 and math.isnan(hypervolume(points[:1]))


def test_points_are_taken_from_the_front_alone():
    points = np.random.default_rng(1).random((40, 2))
    front = set(np.flatnonzero(pareto_front(points)))
    taken = spread(points, most=4)
    assert len(set(taken)) == 4 and set(taken) <= front
    assert taken[0] == points[:, 0].argmax()
    assert spread(np.empty((0, 2)), most=4) == []


def test_a_study_of_two_objectives_tells_its_front_and_how_much_it_covers(tmp_path):
    config = make_config(objective=["val_dice", {"metric": "val_loss"}], sampler={"name": "random"})
    engine = make_engine(config, tmp_path / "s")
    simulate(engine, slots=1)
    complete = [t for t in engine.trials if t.complete]
    points = np.array([t.values for t in complete]) * [1, -1]
    told = Standing(config, engine.trials, engine.spent).front()
    assert told.startswith(f"Pareto front: {pareto_front(points).sum()} of {len(complete)} complete trials")
    alone = make_engine(make_config(), tmp_path / "one")
    assert Standing(alone.config, alone.trials, alone.spent).front() == ""


def test_finals_have_seeds_that_the_search_did_not_use_and_first_seeds_come_first(tmp_path):
    engine = make_engine(make_config(study={"seed": 7}), tmp_path / "s")
    ordered = []
    engine.listeners.append(lambda event: ordered.append(event.trial.info.path) if event.kind == "ordered" else None)
    simulate(engine, slots=1)
    finals = [path for path in ordered if path.startswith("final/")]
    assert [path.split("/")[2] for path in finals] == ["8", "8", "9", "9", "10", "10"]
    assert {path.split("/")[1] for path in finals[:2]} == {"mobilenet", "vgg19"}
    assert seeds_of(tmp_path / "s", "vgg19") == [8, 9, 10]


def test_seeds_of_repeated_configurations_are_not_used_again(tmp_path):
    config = make_config(
        space={"batch_size": [4, 8]},
        fixed={"encoder": "mobilenet"},
        budget={"trials": 5, "epochs": 1},
        study={"repeats": "new_seed"},
    )
    engine = make_engine(config, tmp_path / "s")
    simulate(engine, slots=1)
    used = {trial.info.config.seed for trial in engine.trials}
    assert len(used) > 1 and not used & set(seeds_of(tmp_path / "s", "mobilenet"))


def test_a_study_killed_among_its_finals_trains_each_once(tmp_path):
    for kill in itertools.count():
        engine = make_engine(make_config(), tmp_path / "s", resume=kill > 0)
        try:
            trained = simulate(engine, slots=1, kill_at=2)
            break
        except KilledError:
            continue
    assert trained < 2
    records = [TrialRecord(Folder(tmp_path / "s") / path) for path in final_paths(Folder(tmp_path / "s"))]
    assert len(records) == 6
    assert all(record.status().status == "complete" and len(record.metrics()) == 5 for record in records)


def test_money_that_pays_for_the_first_seeds_alone_trains_these_alone(tmp_path):
    whole = make_engine(make_config(final={"top": 0}), tmp_path / "search")
    simulate(whole, slots=1)
    one_usd = 5 * 3.6 / 3600
    budget = {"trials": 14, "epochs": 4, "max_usd": whole.spent.usd + 2.5 * one_usd}
    engine = make_engine(make_config(budget=budget), tmp_path / "s")
    simulate(engine, slots=1)
    assert list(final_paths(engine.folder)) == ["final/mobilenet/1", "final/vgg19/1"]
    assert all(TrialRecord(engine.folder / path).status().status == "complete" for path in final_paths(engine.folder))


def test_slots_beside_each_other_do_not_promise_the_same_money_twice(tmp_path):
    whole = make_engine(make_config(final={"top": 0}), tmp_path / "search", slots=8)
    simulate(whole, slots=8)
    budget = {"trials": 14, "epochs": 4, "max_usd": whole.spent.usd + 3.5 * 5 * 3.6 / 3600}
    engine = make_engine(make_config(budget=budget), tmp_path / "s", slots=8)
    simulate(engine, slots=8)
    statuses = [TrialRecord(engine.folder / path).status().status for path in final_paths(engine.folder)]
    assert statuses == ["complete"] * 3


def test_a_study_that_goes_on_with_longer_finals_trains_them_beside_those_that_are_there(tmp_path):
    simulate(make_engine(make_config(), tmp_path / "s"), slots=1)
    simulate(make_engine(make_config(final={"top": 1, "epochs": 6, "seeds": 2}), tmp_path / "s", resume=True), slots=1)
    names = {path.split("/")[1] for path in final_paths(Folder(tmp_path / "s"))}
    (new,) = names - {"mobilenet", "vgg19"}
    assert new.rpartition("-")[2].isdecimal()
    records = [
        TrialRecord(Folder(tmp_path / "s") / path) for path in final_paths(Folder(tmp_path / "s")) if new in path
    ]
    assert [len(record.metrics()) for record in records] == [6, 6]


def test_a_final_under_way_whose_settings_changed_is_ended_and_says_why(tmp_path):
    engine = make_engine(make_config(), tmp_path / "s")
    with pytest.raises(KilledError):
        simulate(engine, slots=1, kill_at=sum(len(t.curve) for t in whole_search(tmp_path)) + 2)
    under_way = next(
        p for p in final_paths(engine.folder) if TrialRecord(engine.folder / p).status().status == "running"
    )
    simulate(make_engine(make_config(final={"top": 2, "epochs": 7}), tmp_path / "s", resume=True), slots=1)
    status = TrialRecord(engine.folder / under_way).status()
    assert status.status == "pruned" and "no winner's any more" in status.reason


def whole_search(tmp_path):
    engine = make_engine(make_config(final={"top": 0}), tmp_path / "whole")
    simulate(engine, slots=1)
    return engine.trials


def test_an_engine_that_has_finished_says_so_again(tmp_path):
    engine = make_engine(make_config(), tmp_path / "s")
    simulate(engine, slots=1)
    assert engine.next() is FINISHED is not WAIT
