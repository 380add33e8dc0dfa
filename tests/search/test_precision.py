"""python -m pytest tests/search/test_precision.py: `precision: auto` is one number format for a study's trials."""

from pathlib import Path

import pytest

from cluster.pools import Pool
from cluster.storage import Folder
from data_prep.shards import read_card
from search.orders import Orders
from search.proof.provenance import STUDY, describe
from search.proof.reproduce import reproduce
from search.settings.config import StudyConfig
from search.trials import Trial
from tests.search.studies import ENCODER, settings
from tests.trainables.fakes import small_config
from trainables.crew import LocalCrew
from trainables.life import run_trial
from trainables.record import TrialInfo, TrialRecord, TrialStatus
from trainables.step.precision import Precision
from trainables.step.worker import Worker

POOLS = [Pool(name="fast"), Pool(name="slow")]


def trial(number: int, *, pool: str, asked: str = "auto", found: Precision | None) -> Trial:
    info = TrialInfo(trial_id=f"{number:04d}", role="search", config=small_config(precision=asked), pool=pool)
    return Trial(info=info, status=TrialStatus(precision=found))


def orders(folder: Path, shards: str = "somewhere", **changes: object) -> Orders:
    config = StudyConfig.model_validate(settings(Path(shards), **changes))
    return Orders(config, folder=Folder(folder), shards=shards, pool_for=lambda _: config.pools[0])


def test_auto_means_for_all_trials_of_a_pool_what_it_meant_for_the_first(tmp_path: Path) -> None:
    """Another machine of the pool would measure anew, and might choose the other one."""
    trials = [
        trial(0, pool="slow", found="fp32"),
        trial(1, pool="fast", asked="fp32", found="fp32"),
        trial(2, pool="fast", found=None),
        trial(3, pool="fast", found="bf16"),
        trial(4, pool="fast", found="fp32"),
    ]
    made = orders(tmp_path, pools=[pool.model_dump() for pool in POOLS])
    found = {t.info.pool: made.order(t.info, trials).precision for t in trials}
    assert found == {"slow": "fp32", "fast": "bf16"}
    assert made.order(trials[3].info).precision is None


def test_a_row_is_trained_again_in_the_number_format_it_had(
    tmp_path: Path, tiny_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though this machine would choose the other."""
    monkeypatch.setattr("trainables.step.learner.best_precision", lambda device: "bf16")
    fixed = {"encoder": ENCODER, "decoder": "linknet", "batch_size": 4, "precision": "auto"}
    study = orders(tmp_path, str(tiny_shards), fixed=fixed)
    info = study.info("0000", "search", small_config(precision="auto", epochs=2), {})
    run_trial(study.order(info), LocalCrew(Worker(threads=1)))
    assert TrialRecord(Folder(tmp_path / "trials" / "0000")).status().precision == "bf16"
    card = read_card(Folder(tiny_shards))
    config = StudyConfig.model_validate(settings(tiny_shards, fixed=fixed))
    told = describe(config, name="one", shards=str(tiny_shards), card=card, slots={"cpu": 1}, lag=0)
    Folder(tmp_path).write_json(STUDY, told.model_dump(mode="json"))

    monkeypatch.setattr("trainables.step.learner.best_precision", lambda device: "fp32")
    verdict = reproduce(Folder(tmp_path), "0000", tell=lambda line: None)
    assert verdict.agrees, verdict.differences
