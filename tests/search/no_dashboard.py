"""A study of two-worker trials of which two are stopped, on a Ray without a dashboard; what is left of it afterwards.

python -m tests.search.no_dashboard FOLDER SHARDS
"""

import json
import os
import sys
from pathlib import Path

from cluster.session import slot_resource

import ray

from benchmarks.stock.groups import what_is_left
from cluster.storage import Folder
from search.engine import Engine
from search.journal import About, Journal
from search.orders import Orders
from search.settings.config import StudyConfig
from search.study import run_trials
from tests.search.studies import ROOT, STEADY, settings


def main(folder: Path, shards: Path) -> None:
    """Run the study, and write what still holds hardware into FOLDER/left.json."""
    folder.mkdir(parents=True)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ray.init(
        address="local",
        num_cpus=2,
        resources={slot_resource("cpu2"): 1.0},
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200_000_000,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    config = StudyConfig.model_validate(
        settings(
            shards,
            space={"encoder": [STEADY], "learning_rate": [1e-3, 1e-8, 2e-8]},
            fixed={"decoder": "linknet", "decoder_norm": "layernorm", "precision": "fp32"},
            baselines=True,
            objective="val_loss",
            sampler={"name": "grid"},
            pruner={"grace_epochs": 1, "reduction_factor": 2},
            budget={"trials": 3, "epochs": 3},
            pools=[{"name": "cpu2", "workers": 2, "cpus_per_worker": 1, "max_slots": 1}],
        )
    )
    orders = Orders(config, folder=Folder(folder), shards=str(shards), pool_for=lambda _: config.pools[0])
    engine = Engine(config, orders, slots={"cpu": 1})
    journal = Journal(engine.folder, About(name="study", objectives=config.objective), engine.space)
    run_trials(engine)
    journal.rewrite(engine.trials)
    (folder / "left.json").write_text(json.dumps(what_is_left()))
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
