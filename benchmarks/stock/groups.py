"""A trial of two DDP workers that ASHA stops, on plain Ray Tune + Train; Ray has no dashboard here.

    python -m benchmarks.stock.groups FOLDER

Train's cleaner of placement groups asks the dashboard who is alive, so without one it cleans nothing; that may not keep
hardware from the next trial. What is left is written to FOLDER/left.json.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cluster.session  # noqa: F401 - sets what Ray reads when it is imported

import optuna
import ray
import ray.train
import ray.train.torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from ray.util import placement_group_table

ROOT = Path(__file__).resolve().parents[2]
LEFT = "left.json"
CLEANED_IN_S = 20.0
WORKERS_VALUES = ([0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0])
"""What the two workers of a stock trial measure; over all of it the mean is 3.5."""


def run_stock(folder: Path) -> None:
    """One trial, which ASHA stops after its first epoch."""
    asha = ASHAScheduler(time_attr="epoch", metric="value", mode="max", max_t=1)
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    result = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(stock_trial, folder=str(folder)), tune.PlacementGroupFactory([{"trial": 1.0}])
        ),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(space=space, metric="value", mode="max"), scheduler=asha, num_samples=1
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0),
    ).fit()[0]
    reported = {"value": result.metrics["value"], "checkpoint": result.checkpoint is not None}
    (folder / "result.json").write_text(json.dumps(reported))


def stock_trial(config: dict[str, Any], folder: str) -> None:
    """As Ray's guide to tuning hyperparameters with Train has it."""
    ray.train.torch.TorchTrainer(
        stock_worker,
        scaling_config=ray.train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        torch_config=ray.train.torch.TorchConfig(backend="gloo"),
        run_config=ray.train.RunConfig(name="train", storage_path=folder, callbacks=[TuneReportCallback()]),
    ).fit()


def stock_worker() -> None:
    values = WORKERS_VALUES[ray.train.get_context().get_world_rank()]
    for epoch in range(1, 4):
        with tempfile.TemporaryDirectory() as checkpoint:
            Path(checkpoint, "weights").write_text(str(epoch))
            row = {"epoch": epoch, "value": sum(values) / len(values)}
            ray.train.report(row, checkpoint=ray.train.Checkpoint.from_directory(checkpoint))


def what_is_left() -> dict[str, Any]:
    """Placement groups that still hold hardware, and free CPUs, once Ray had time to clean up."""
    deadline = time.monotonic() + CLEANED_IN_S
    while True:
        held = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
        free = ray.available_resources().get("CPU", 0.0)
        if (not held and free == 2) or time.monotonic() > deadline:
            return {"placement_groups": len(held), "cpus_free": free}
        time.sleep(0.2)


def main(folder: Path) -> None:
    """Run it and write down what is left."""
    folder.mkdir(parents=True)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ray.init(
        address="local",
        num_cpus=2,
        resources={"trial": 1.0},
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200_000_000,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    run_stock(folder)
    (folder / LEFT).write_text(json.dumps(what_is_left()))
    ray.shutdown()


if __name__ == "__main__":
    from benchmarks.stock import groups  # so that Ray's workers find the functions under their real name

    groups.main(Path(sys.argv[1]))
