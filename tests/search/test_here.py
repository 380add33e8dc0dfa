"""python -m pytest tests/search/test_here.py: a study in this process, whose failures are real, and its resume."""

import itertools
import uuid
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Folder
from search import here
from search.engine import Engine
from search.events import Event, Listener
from search.orders import Orders
from search.settings.config import StudyConfig
from search.trials import Trial
from tests.search.studies import ENCODER, STEADY, settings
from tests.trainables.fakes import without_times
from trainables.crew import LocalCrew
from trainables.life import run_trial
from trainables.order import SESSION, TrialOrder
from trainables.record import TrialRecord, final_paths, trial_paths


def engine_for(folder: Path, shards: Path, *, resume: bool = False, **changes: Any) -> Engine:
    """The engine of a driver that is in charge of the folder."""
    config = StudyConfig.model_validate(settings(shards, **changes))
    session = uuid.uuid4().hex
    Folder(folder).write_json(SESSION, {"session": session})
    pool = config.pools[0]
    orders = Orders(config, folder=Folder(folder), shards=str(shards), pool_for=lambda _: pool, session=session)
    return Engine(config, orders, slots={"cpu": 1}, resume=resume)


def rows(engine: Engine) -> dict[str, Any]:
    """What must be equal between two studies: status, reason and measures of every trial and final."""
    records = {path: TrialRecord(engine.folder / path) for path in trial_paths(engine.folder)}
    return {
        name: (record.status().status, record.status().reason, without_times(record.metrics()), record.test())
        for name, record in records.items()
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, tiny_shards: Path) -> Engine:
    """A grid of eight cells of which some cannot be trained."""
    engine = engine_for(
        tmp_path_factory.mktemp("planted"),
        tiny_shards,
        space={"encoder": [STEADY, ENCODER], "batch_size": [1, 4], "learning_rate": [1e-3, 10.0]},
        fixed={
            **{"decoder": "linknet", "decoder_norm": "identity", "optimiser": "sgd", "precision": "fp32"},
            **{"dice_weight": 0.0, "iou_weight": 0.0, "bce_weight": 1.0},
            "weight_decay": 0.2,  # at a learning rate of 10 it makes the weights grow from step to step: NaN in epoch 2
        },
        sampler={"name": "grid"},
        budget={"trials": 8, "epochs": 4},
        failures={"stop_after_consecutive": 8},
    )
    here.run_trials(engine)
    return engine


def interrupt_at_every_third_event() -> Listener:
    events = itertools.count(1)

    def listener(event: Event) -> None:
        if next(events) % 3 == 0:  # the first two may only tell what is known: the order, the last epoch again
            raise KeyboardInterrupt

    return listener


def of(engine: Engine, **wanted: Any) -> list[tuple[Trial, TrialRecord]]:
    """(What the engine knows, trial folder) of every trial with these settings."""
    found = []
    for trial in engine.trials:
        record = engine.record(trial.info.trial_id)
        if all(getattr(record.info().config, name) == value for name, value in wanted.items()):
            found.append((trial, record))
    assert found, wanted
    return found


def test_no_trial_is_left_running_and_the_study_goes_to_its_end(planted: Engine) -> None:
    assert len(planted.trials) == 8
    assert {record.status().status for _, record in of(planted)} == {"complete", "failed"}
    assert all(record.status() == trial.status for trial, record in of(planted))


def test_an_exception_is_a_row_with_its_reason_and_traceback(planted: Engine) -> None:
    for trial, record in of(planted, encoder=ENCODER, batch_size=1):
        status = record.status()
        assert trial.status.status == "failed" and trial.values is None
        assert "batch_size 1 leaves one image in a part of a batch" in status.reason
        assert "Traceback" in status.traceback and "check_fits" in status.traceback
        assert status.ended_at and "one image in a part" in record.folder.read_text("log.txt")


def test_a_loss_that_is_not_finite_is_a_row_that_names_epoch_and_step(planted: Engine) -> None:
    ((trial, record),) = of(planted, encoder=STEADY, batch_size=4, learning_rate=10.0)
    assert record.status().failure == "not_finite"
    assert "not finite in epoch" in record.status().reason
    # What it reached before is kept, with no NaN among it.
    assert 0 < len(record.metrics()) == len(trial.curve) < 4


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_study_interrupted_anywhere_goes_on_as_if_it_had_not_been(
    tmp_path: Path, tiny_shards: Path, seeds: int
) -> None:
    changes = {"budget": {"trials": 3, "epochs": 2}, "final": {"top": 1, "epochs": 3, "seeds": seeds}}
    changes |= {"pruner": {"grace_epochs": 1, "reduction_factor": 2}}
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = engine_for(tmp_path / "whole", tiny_shards, **changes)
    here.run_trials(whole)
    interrupted, resume = 0, False
    while True:
        engine = engine_for(tmp_path / "broken", tiny_shards, resume=resume, **changes)
        engine.listeners.append(interrupt_at_every_third_event())
        try:
            here.run_trials(engine)
            break
        except KeyboardInterrupt:
            interrupted, resume = interrupted + 1, True
    assert interrupted > 3
    assert rows(engine) == rows(whole)


def test_a_final_of_one_seed_goes_on_from_its_trial_and_is_what_training_anew_gives(
    tmp_path: Path, tiny_shards: Path
) -> None:
    engine = engine_for(
        tmp_path / "s", tiny_shards, budget={"trials": 2, "epochs": 2}, final={"top": 1, "epochs": 4, "seeds": 1}
    )
    here.run_trials(engine)
    (path,) = final_paths(engine.folder)
    final, source = (TrialRecord(engine.folder / p) for p in (path, engine.trials.best.info.path))
    assert path == f"final/{ENCODER}/0"
    assert (final.info().taken_from, final.info().taken_epochs) == (engine.trials.best.info.path, 2)
    assert final.metrics()[:2] == source.metrics() and len(final.metrics()) == 4
    assert final.test() is not None and final.status().status == "complete"
    assert "goes on from trials/" in final.folder.read_text("log.txt")
    assert not list((tmp_path / "s").rglob("checkpoint"))
    anew = TrialOrder(info=final.info(), folder=str(tmp_path / "anew"), pool=engine.config.pools[0])
    run_trial(anew, LocalCrew(data=None))
    assert without_times(TrialRecord(Folder(anew.folder)).metrics()) == without_times(final.metrics())


def test_a_final_whose_schedule_is_stretched_over_its_budget_begins_anew_with_another_seed(
    tmp_path: Path, tiny_shards: Path
) -> None:
    engine = engine_for(
        tmp_path / "s",
        tiny_shards,
        fixed={**settings(tiny_shards)["fixed"], "schedule": "cosine"},
        budget={"trials": 2, "epochs": 1},
        final={"top": 1, "epochs": 2, "seeds": 1},
    )
    here.run_trials(engine)
    (path,) = final_paths(engine.folder)
    assert path == f"final/{ENCODER}/1"
    assert TrialRecord(engine.folder / path).info().taken_from == ""
