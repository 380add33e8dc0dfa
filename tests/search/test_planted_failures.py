"""python -m pytest tests/search/test_planted_failures.py: every failure is a row with its cause; the rest goes on.

The causes are real: a batch that batch norm cannot take, a loss that diverges, memory that the kernel refuses,
processes that are killed. Only who is killed when is arranged.
"""

import os
import threading

import psutil
import pytest
import torch

pytest.importorskip("ray")

from cluster.session import connect

from cluster.storage import Folder
from data_prep.build import build
from search.engine import Engine
from search.orders import Orders
from search.sampling import lag_of
from search.settings.config import StudyConfig
from search.study import run_trials
from tests.search.studies import ENCODER, processes_below, run, settings, trials_of, wait_until, write_settings
from tests.trainables.fakes import train, without_times
from trainables.data import TrialData
from trainables.on_ray import GroupEndedError
from trainables.record import TrialRecord

STEADY = "tu-test_convnext"
"""Its network has no batch norm, and nothing that keeps it from diverging."""


class Study:
    """A study in this process, watched by `on_event`; afterwards its rows by what was searched."""

    def __init__(self, folder, shards, **changes):
        folder.mkdir(parents=True)
        self.folder = folder
        self.config = StudyConfig.model_validate(settings(shards, **changes))
        pool = self.config.pools[0]
        orders = Orders(self.config, folder=Folder(folder), shards=str(shards), pool_for=lambda _: pool)
        self.engine = Engine(self.config, orders, lag=lag_of(1))

    def run(self, on_event=lambda: None):
        run_trials(self.engine, on_event=on_event)
        self.trials = trials_of(self.folder)
        return self

    def rows(self, **wanted):
        """(Optuna's trial, trial folder) of every trial with these settings."""
        found = []
        for trial in self.trials:
            record = TrialRecord(Folder(self.folder / "trials" / f"{trial.number:04d}"))
            config = record.info().config
            if all(getattr(config, name) == value for name, value in wanted.items()):
                found.append((trial, record))
        assert found, wanted
        return found

    def under_way(self, *, epoch, **wanted):
        """Whether a trial with these settings runs and has finished so many epochs."""
        return any(
            self.engine.seen[name].epoch >= epoch
            and all(getattr(order.info.config, key) == value for key, value in wanted.items())
            for name, order in self.engine.running.items()
        )


def kill_soon(name):
    """SIGKILL to the processes of this driver that Ray calls so, once they work: those that wait have other names."""

    def kill():
        for victim in wait_until(lambda: processes_below(os.getpid(), name)):
            victim.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    return killer


@pytest.fixture(scope="module")
def planted(tmp_path_factory, tiny_shards):
    """A grid of eight cells of which some cannot be trained; a worker dies in one of the others, a slot in another."""
    study = Study(
        tmp_path_factory.mktemp("planted") / "study",
        tiny_shards,
        space={"encoder": [STEADY, ENCODER], "batch_size": [1, 4], "learning_rate": [1e-3, 10.0]},
        fixed={
            "decoder": "linknet",
            "decoder_norm": "identity",
            "optimiser": "sgd",
            "dice_weight": 0.0,
            "iou_weight": 0.0,
            "bce_weight": 1.0,
            "precision": "fp32",
        },
        sampler={"name": "grid"},
        budget={"trials": 8, "epochs": 4},
        failures={"stop_after_consecutive": 8},
    )
    to_kill = {"RayTrainWorker": (STEADY, 2), "ResourceTrainable": (ENCODER, 2)}

    killers = []

    def on_event():
        for name, (encoder, epoch) in list(to_kill.items()):
            if study.under_way(epoch=epoch, encoder=encoder, batch_size=4, learning_rate=1e-3):
                del to_kill[name]
                killers.append(kill_soon(name))

    with connect(cpus=1, slots={"cpu": 1}):
        study.run(on_event)
    for killer in killers:
        killer.join()
    assert not to_kill
    return study


@pytest.mark.ray
@pytest.mark.slow
def test_no_trial_is_left_running_and_the_study_goes_to_its_end(planted):
    assert len(planted.trials) == 8
    assert {t.state.name for t in planted.trials} == {"COMPLETE", "FAIL"}
    for trial, record in planted.rows():
        assert record.status().status == {"COMPLETE": "complete", "FAIL": "failed"}[trial.state.name]


@pytest.mark.ray
@pytest.mark.slow
def test_exception_is_a_row_with_its_reason_and_traceback(planted):
    for trial, record in planted.rows(encoder=ENCODER, batch_size=1):
        status = record.status()
        assert trial.state.name == "FAIL" and trial.user_attrs["reason"] == status.reason
        assert "Expected more than 1 value per channel" in status.reason
        assert "Traceback" in status.traceback and "batch_norm" in status.traceback
        assert status.ended_at and "Expected more than 1 value" in record.folder.read_text("log.txt")


@pytest.mark.ray
@pytest.mark.slow
def test_loss_that_is_not_finite_is_a_row_that_names_epoch_and_step(planted):
    ((trial, record),) = planted.rows(encoder=STEADY, batch_size=4, learning_rate=10.0)
    assert trial.state.name == "FAIL"
    assert "not finite in epoch" in record.status().reason
    # What it reached before is kept, with no NaN among it.
    assert 0 < len(record.metrics()) == len(trial.intermediate_values) < 4


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("encoder", [STEADY, ENCODER], ids=["worker killed", "slot killed"])
def test_trial_whose_process_was_killed_goes_on_from_its_last_epoch(planted, tiny_shards, encoder):
    ((trial, record),) = planted.rows(encoder=encoder, batch_size=4, learning_rate=1e-3)
    assert trial.state.name == "COMPLETE" and len(trial.intermediate_values) == 4
    begun = [line for line in record.folder.read_text("log.txt").splitlines() if "begins" in line]
    assert len(begun) == 2 and any(f"begins after epoch {epoch}" in begun[1] for epoch in (2, 3, 4))
    assert record.status().retries == 1
    config = record.info().config
    assert config.accumulation == 1
    undisturbed = train(config, data=TrialData.open(str(tiny_shards)))
    assert without_times(record.metrics()) == without_times(undisturbed)


@pytest.fixture(scope="module")
def short_of_memory(tmp_path_factory, tiny_build):
    """A study whose worker gets hardly more memory than its baseline, batch 8, needs; then batches of 15 and of 16."""
    shards = tmp_path_factory.mktemp("large") / "shards"
    build(tiny_build.model_copy(update={"size_px": 256}), str(shards), workers=0)
    study = Study(
        tmp_path_factory.mktemp("memory") / "study",
        shards,
        space={"encoder": [ENCODER], "batch_size": [8, 15, 16]},
        fixed={"decoder": "unet", "precision": "fp32"},
        baselines=True,
        sampler={"name": "grid"},
        budget={"trials": 3, "epochs": 1},
    )
    limited = []

    def on_event():
        if study.engine.ended and not limited:
            (worker,) = processes_below(os.getpid(), "RayTrainWorker")
            limited.append(limit_memory(worker))

    with connect(cpus=1, slots={"cpu": 1}):
        study.run(on_event)
    assert limited
    return study


def limit_memory(process):
    """Allow the process 500 MB more address space than it has: training needs 300 with a batch of 8, 800 with 15."""
    limit = process.memory_info().vms + 500_000_000
    process.rlimit(psutil.RLIMIT_AS, (limit, limit))
    return limit


@pytest.mark.ray
@pytest.mark.slow
def test_batch_that_does_not_fit_is_kept_by_accumulating_gradients(short_of_memory):
    ((trial, record),) = short_of_memory.rows(batch_size=16)
    assert trial.state.name == "COMPLETE", record.status().reason
    assert record.info().config.accumulation in (2, 4)
    log = record.folder.read_text("log.txt")
    assert "out_of_memory" in log and "in 2 parts" in log


@pytest.mark.ray
@pytest.mark.slow
def test_batch_that_cannot_be_split_is_a_row_that_the_sampler_takes_as_infeasible(short_of_memory):
    ((trial, record),) = short_of_memory.rows(batch_size=15)
    assert trial.state.name == "FAIL" and "infeasible" in trial.user_attrs
    assert "memory" in record.status().reason and "Traceback" in record.status().traceback


def test_worker_that_died_is_not_taken_for_one_without_memory():
    died = "Worker exit type: SYSTEM_ERROR. Some common causes include: (1) the process was killed by the OOM killer"
    assert not GroupEndedError(died).out_of_memory
    assert GroupEndedError("1 worker(s) were killed due to the node running low on memory.").out_of_memory


def test_errors_of_torchs_allocators_are_told_from_other_errors():
    from trainables.crew import _trial_error

    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert _trial_error(refused.value).kind == "out_of_memory"
    assert _trial_error(MemoryError()).kind == "out_of_memory"
    assert _trial_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied")).kind == "exception"


@pytest.mark.slow
def test_pool_that_can_never_be_placed_is_refused_before_anything_starts(tmp_path, tiny_shards):
    pools = [{"name": "cpu"}, {"name": "giant", "cpus_per_worker": 4096}]
    space = write_settings(tmp_path / "small.yaml", tiny_shards, pools=pools, placement="cpu")
    status, output = run(space, "--out", str(tmp_path / "study"))
    assert status == 2
    assert "giant: 4096 CPU cores" in output and "Traceback" not in output
    assert not (tmp_path / "study" / "study.json").exists()
