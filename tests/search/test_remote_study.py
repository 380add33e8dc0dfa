"""A study whose folder is in an object store: a driver that was killed loses nothing with its copy of the journal."""

import itertools

import pytest

from cluster.storage import Folder
from search.ledger import JOURNAL, Ledger, load_ended_trials
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
            simulate(engine, slots=1, kill_at=4)  # the intermediate values since the last put are lost with the driver
            break
        except KilledError:
            continue
    assert kill >= 3
    assert summary(engine) == summary(whole)
    assert (remote / "final").names() == [p.name for p in (tmp_path / "whole" / "final").iterdir()]
    assert [t.number for t in load_ended_trials(remote)] == list(range(5))


def test_the_journal_in_the_store_has_every_trial_before_it_is_trained(remote):
    engine = engine_on(remote, CONFIG, resume=False)
    order = engine.next()
    seen = Ledger(remote, name=remote.name, directions=["maximize"], resume=True).trials()
    assert [t.number for t in seen] == [int(order.info.trial_id)]
    assert seen[0].user_attrs["config"] == order.info.config.model_dump(mode="json")


def test_two_studies_in_a_store_never_merge(remote):
    engine_on(remote, CONFIG, resume=False).next()
    assert remote.exists(JOURNAL)
    with pytest.raises(FileExistsError, match="--resume"):
        engine_on(remote, CONFIG, resume=False)
