"""python -m pytest tests/search/test_warm.py: earlier studies are told to the sampler, and are no part of this one."""

import pytest

from cluster.storage import Folder
from search import warm
from search.engine import Engine
from search.orders import Orders
from search.proof.provenance import StudyInfo
from tests.search.simulation import POOL, make_config, make_engine, simulate, summary

CONDITIONAL = {
    "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    "optimiser": ["adam", "sgd"],
    "momentum": {"low": 0.5, "high": 0.9, "when": {"optimiser": "sgd"}},
}
SPACE = {"space": CONDITIONAL, "fixed": {"encoder": "mobilenet"}}


def earlier(folder, **changes):
    """A study that is over, with its `study.json`."""
    config = make_config(**{**SPACE, **changes})
    engine = make_engine(config, folder)
    simulate(engine, slots=1)
    about = {"dataset": "d", "field_of_view": "whole", "size_px": 64, "samples": {}, "slots": {}, "lag": 1, "seed": 0}
    info = StudyInfo(
        name="first",
        config=config.model_dump(mode="json"),
        dataset_fingerprint="abc",
        versions={},
        commit="",
        created_at="",
        **about,
    )
    Folder(folder).write_json("study.json", info.model_dump(mode="json"))
    return engine


def later(folder, source, **changes):
    """A study that takes over what can be."""
    config = make_config(**{**SPACE, "warm_start": [str(source)], **changes})
    warm.write_warm(Folder(folder), warm.gather(config))
    orders = Orders(config, folder=Folder(folder), shards="somewhere", pool_for=lambda _: POOL)
    return Engine(config, orders, slots={"cpu": 1}, warm=warm.read_warm(Folder(folder)))


def told(source, **changes):
    config = make_config(**{**SPACE, "warm_start": [str(source)], **changes})
    return [problem.message for problem in warm.problems(config, "abc")]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return earlier(tmp_path_factory.mktemp("earlier") / "first")


def test_comparable_trials_are_taken_over_and_the_study_has_all_its_own(first, tmp_path):
    second = later(tmp_path / "second", first.folder)
    taken = warm.read_warm(second.folder)
    assert [t.info.params for t in taken] == [t.info.params for t in first.trials]
    assert [t.values for t in taken] == [t.values for t in first.trials]
    simulate(second, slots=1)
    assert len(second.trials) == 14 and second.trials[0].info.role == "baseline"
    assert [t.info.params for t in second.trials[1:]] != [t.info.params for t in first.trials[1:]]


@pytest.mark.parametrize("sampler", ["tpe", "grid", "nsga2"])
def test_a_proposal_that_equals_an_earlier_trial_is_trained(tmp_path, sampler):
    grid = {"space": {"batch_size": [4, 8]}, "fixed": {"encoder": "mobilenet"}, "baselines": False}
    grid["sampler"] = {"name": sampler}
    small = earlier(tmp_path / "small", **grid)
    again = later(tmp_path / "again", small.folder, **grid)
    assert len(warm.read_warm(again.folder)) == 2
    simulate(again, slots=1)
    assert {t.info.config.batch_size for t in again.trials} == {4, 8}


def test_trials_of_other_fixed_settings_are_left_out(first, tmp_path):
    other = later(tmp_path / "other", first.folder, fixed={"encoder": "vgg19"})
    assert warm.read_warm(other.folder) == []


def test_a_study_that_is_not_comparable_is_refused_with_the_reasons(first):
    assert told(first.folder) == []
    (budget,) = told(first.folder, budget={"trials": 14, "epochs": 8})
    assert "budget.epochs 4 there, 8 here" in budget
    (objective,) = told(first.folder, objective="val_loss")
    assert "another objective" in objective
    config = make_config(**SPACE, warm_start=[str(first.folder)])
    (data,) = [problem.message for problem in warm.problems(config, "another")]
    assert "data abc there, another here" in data


def test_a_folder_without_a_study_is_refused(tmp_path):
    (problem,) = told(tmp_path / "nothing")
    assert "no study can be read there" in problem


def test_what_was_taken_over_outlives_the_earlier_study(first, tmp_path):
    one = later(tmp_path / "one", first.folder)
    simulate(one, slots=1)
    moved = earlier(tmp_path / "moved")
    two = later(tmp_path / "two", moved.folder)
    moved.folder.remove()
    simulate(two, slots=1)
    assert summary(two) == summary(one)


def test_a_damaged_copy_is_named(tmp_path):
    (tmp_path / "warm_start.json").write_text('[{"info": {}}]')
    with pytest.raises(ValueError, match=r"warm_start\.json is damaged"):
        warm.read_warm(Folder(tmp_path))
