"""A study whose folder is in an object store: a driver that was killed loses nothing."""

import itertools

import pytest

from cluster.storage import Folder
from search.trials import read_trials
from tests.cluster.object_store import BUCKET, ENVIRONMENT, server
from tests.search.simulation import KilledError, engine_on, make_config, make_engine, simulate, summary

CONFIG = make_config(budget={"trials": 5, "epochs": 3}, final={"top": 1, "epochs": 3}, sampler={"startup_trials": 2})


@pytest.fixture
def remote(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with server() as (host, port):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        yield Folder(f"s3://{BUCKET}/runs/killed")


@pytest.mark.slow
def test_a_killed_study_in_an_object_store_equals_an_undisturbed_one_on_a_disk(remote, tmp_path):
    whole = make_engine(CONFIG, tmp_path / "whole")
    simulate(whole, slots=1)
    for kill in itertools.count():
        engine = engine_on(remote, CONFIG, resume=kill > 0)
        try:
            simulate(engine, slots=1, kill_at=4)
            break
        except KilledError:
            continue
    assert kill >= 3
    assert summary(engine) == summary(whole)
    assert (remote / "final").names() == [p.name for p in (tmp_path / "whole" / "final").iterdir()]


def test_every_trial_stands_in_the_store_before_it_is_trained(remote):
    order = engine_on(remote, CONFIG).next()
    (trial,) = read_trials(remote, CONFIG.objective)
    assert trial.info == order.info and trial.status.status == "pending"


def test_the_weights_of_a_kept_trial_are_moved_inside_the_store(remote):
    remote.write_text("checkpoint/epoch_0001/weights.safetensors", "weights")
    remote.move("checkpoint/epoch_0001/weights.safetensors", "weights.safetensors")
    assert remote.read_text("weights.safetensors") == "weights"
    assert not remote.exists("checkpoint/epoch_0001/weights.safetensors")
