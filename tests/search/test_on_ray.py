"""python -m pytest tests/search/test_on_ray.py: what only Ray can show of a study, on the one Ray of the session.

Processes are killed, memory is refused by the kernel, two workers train one model. What a trial goes through otherwise
is shown without Ray (tests/trainables/test_life.py, tests/search/test_here.py).
"""

import ipaddress
import os
import threading
import time

import psutil
import pytest

pytest.importorskip("ray")

import ray
from ray.util import placement_group_table

from cluster.storage import Folder
from data_prep.build import build
from search.engine import Engine
from search.orders import Orders
from search.settings.config import StudyConfig
from search.study import run_trials
from tests.search.studies import ENCODER, STEADY, processes_below, settings, wait_until
from tests.trainables.fakes import train, without_times
from tests.trainables.test_ddp import assert_same_measures
from trainables.data import TrialData
from trainables.record import TrialRecord

pytestmark = [pytest.mark.ray, pytest.mark.slow]
FREED_IN_S = 60.0


class Study:
    """A study on the session's Ray; afterwards its trials by what was searched."""

    listening: set[str]
    """The addresses at which something below this process listened when an epoch was told of."""

    def __init__(self, folder, shards, **changes):
        folder.mkdir(parents=True)
        self.shards, self.listening = shards, set()
        config = StudyConfig.model_validate(settings(shards, **changes))
        pool = config.pools[0]
        orders = Orders(config, folder=Folder(folder), shards=str(shards), pool_for=lambda _: pool)
        self.engine = Engine(config, orders, slots={"cpu": 1})

    def run(self, listener=lambda event: None):
        self.engine.listeners += [listener, self.look]
        run_trials(self.engine)
        return self

    def look(self, event):
        if event.kind == "epoch":
            tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
            self.listening |= {address for process in tree for address in listening(process)}

    def of(self, **wanted):
        """The folder of the one trial with these settings."""
        found = []
        for trial in self.engine.trials:
            record = TrialRecord(self.engine.folder / trial.info.path)
            if all(getattr(record.info().config, name) == value for name, value in wanted.items()):
                found.append(record)
        (record,) = found
        return record

    def alone(self, record):
        """The rows of the same configuration, trained in this process."""
        return without_times(train(record.info().config, data=TrialData.open(str(self.shards))))


def listening(process):
    """The addresses at which a process listens, as `ss -ltn` has them."""
    try:
        found = process.net_connections(kind="tcp")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []
    return [connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN]


def is_loopback(address):
    found = ipaddress.ip_address(address)
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def kill_soon(name):
    """SIGKILL to the processes of this driver that Ray calls so, once they work: those that wait have other names."""

    def kill():
        for victim in wait_until(lambda: processes_below(os.getpid(), name)):
            victim.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    return killer


@pytest.fixture(scope="module")
def killed(tmp_path_factory, tiny_shards, ray_here):
    """Two trials of four epochs; a worker is killed in the middle of one, the slot in the middle of the other."""
    study = Study(
        tmp_path_factory.mktemp("killed") / "study",
        tiny_shards,
        space={"encoder": [STEADY, ENCODER]},
        fixed={"decoder": "linknet", "decoder_norm": "identity", "batch_size": 4, "precision": "fp32"},
        sampler={"name": "grid"},
        budget={"trials": 2, "epochs": 4},
    )
    to_kill = {STEADY: "RayTrainWorker", ENCODER: "ResourceTrainable"}
    killers = []

    def listener(event):
        if event.kind == "epoch" and len(event.trial.curve) == 2 and event.trial.info.config.encoder in to_kill:
            killers.append(kill_soon(to_kill.pop(event.trial.info.config.encoder)))

    study.run(listener)
    for killer in killers:
        killer.join()
    assert not to_kill
    return study


@pytest.mark.parametrize("encoder", [STEADY, ENCODER], ids=["worker killed", "slot killed"])
def test_a_trial_whose_process_was_killed_goes_on_and_equals_one_trained_in_this_process(killed, encoder):
    record = killed.of(encoder=encoder)
    status = record.status()
    assert (status.status, status.epochs, status.retries) == ("complete", 4, 1)
    begun = [line for line in record.folder.read_text("log.txt").splitlines() if "begins" in line]
    assert len(begun) == 2 and any(f"begins after epoch {epoch}" in begun[1] for epoch in (2, 3, 4))
    assert without_times(record.metrics()) == killed.alone(record)


@pytest.fixture(scope="module")
def short_of_memory(tmp_path_factory, tiny_build, ray_here):
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

    def listener(event):
        if event.kind == "ended" and not limited:
            (worker,) = processes_below(os.getpid(), "RayTrainWorker")
            limited.append(limit_memory(worker))

    study.run(listener)
    assert limited
    return study


def limit_memory(process):
    """Allow the process 500 MB more address space than it has: training needs 300 with a batch of 8, 800 with 15."""
    limit = process.memory_info().vms + 500_000_000
    process.rlimit(psutil.RLIMIT_AS, (limit, limit))
    return limit


def test_a_batch_that_does_not_fit_is_kept_by_accumulating_gradients(short_of_memory):
    record = short_of_memory.of(batch_size=16)
    assert record.status().status == "complete", record.status().reason
    assert record.info().config.accumulation in (2, 4)
    log = record.folder.read_text("log.txt")
    assert "out_of_memory" in log and "in 2 parts" in log


def test_a_batch_that_cannot_be_split_is_a_row_that_the_sampler_takes_as_infeasible(short_of_memory):
    status = short_of_memory.of(batch_size=15).status()
    assert (status.status, status.failure) == ("failed", "out_of_memory")
    assert "memory" in status.reason and "Traceback" in status.traceback


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory, tiny_shards, ray_here):
    """A trial of two workers that goes to its end, and one that learns nothing and is stopped at the first rung."""
    fixed = {
        "decoder": "linknet",
        "decoder_norm": "layernorm",
        "optimiser": "sgd",
        "batch_size": 6,
        "precision": "fp32",
    }
    study = Study(
        tmp_path_factory.mktemp("two") / "study",
        tiny_shards,
        space={"encoder": [STEADY], "learning_rate": [1e-3, 1e-8]},
        fixed=fixed,
        baselines=True,
        sampler={"name": "grid"},
        pruner={"grace_epochs": 1, "reduction_factor": 2},
        objective="val_loss",
        budget={"trials": 2, "epochs": 2},
        pools=[{"name": "cpu2", "workers": 2, "cpus_per_worker": 1}],
    )
    return study.run()


def test_two_workers_follow_the_curve_of_one(two_workers):
    record = two_workers.of(learning_rate=1e-3)
    assert record.info().workers == 2 and record.status().status == "complete"
    for row, expected in zip(without_times(record.metrics()), two_workers.alone(record), strict=True):
        assert_same_measures(row, expected)


@pytest.mark.parametrize("study", ["killed", "two_workers"])
def test_nothing_listens_beyond_this_machine(study, request):
    """Neither for one worker nor for two that train together: torch's usual store would, on all interfaces."""
    found = request.getfixturevalue(study).listening
    assert found and all(map(is_loopback, found)), found


def test_stopped_trials_leave_no_hardware_taken(two_workers):
    assert two_workers.of(learning_rate=1e-8).status().status == "pruned"
    deadline = time.monotonic() + FREED_IN_S
    while ray.available_resources().get("CPU") != 2.0 or held():
        assert time.monotonic() < deadline, (ray.available_resources(), held())
        time.sleep(0.2)


def held():
    """Placement groups that hold hardware."""
    return [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
