"""python -m pytest tests/search/test_study.py: the main job from its settings to its tables, as a user runs it."""

import json
import subprocess
import sys

import pandas as pd
import pytest

pytest.importorskip("ray")

import results
from cluster.storage import Folder
from tests.data_prep.trees import SHARED
from tests.search.studies import ENCODER, epochs_of, run, trials_of, write_settings
from tests.trainables.fakes import train, without_times
from tests.trainables.test_ddp import assert_same_measures
from trainables.data import TrialData
from trainables.record import TrialRecord

pytestmark = [pytest.mark.ray, pytest.mark.slow]
OTHER_ENCODER = "tu-test_resnet"


@pytest.fixture(scope="module")
def main_job(tmp_path_factory, tiny_build):
    """A study that makes its own data: two encoders, baselines, a pruner, finals. (settings, folder, output)."""
    home = tmp_path_factory.mktemp("main")
    data = {"shards": str(home / "shards"), "build": tiny_build.model_dump(mode="json")}
    space = write_settings(
        home / "small.yaml",
        home / "shards",
        data=data,
        space={"encoder": [ENCODER, OTHER_ENCODER], "dice_weight": {"low": 0.0, "high": 1.0}},
        fixed={"decoder": "linknet", "batch_size": 4, "precision": "fp32"},
        baselines=True,
        budget={"trials": 4, "epochs": 2},
        pruner={"grace_epochs": 1, "reduction_factor": 2},
        final={"top": 2, "epochs": 3},
    )
    status, output = run(space, "--out", str(home / "study"))
    assert status == 0, output[-3000:]
    return space, home / "study", output


def test_tables_are_printed_and_written(main_job):
    _, folder, output = main_job
    for encoder in (ENCODER, OTHER_ENCODER):
        assert encoder in output
    assert "table II" in output and "table III" in output
    assert {"nas_table.csv", "tables.md", "trials.csv"} <= {file.name for file in folder.iterdir()}


def test_nothing_of_the_machinery_is_seen(main_job):
    output = main_job[2]
    for noise in ("Traceback", "WARNING", "Warning", "ray.init", "usage stats"):
        assert noise not in output, output


def test_every_trial_is_a_row_that_agrees_with_optuna(main_job):
    _, folder, _ = main_job
    rows = results.load(str(folder))
    assert len(rows) == 4 + 2
    assert set(rows[rows.role == "final"].encoder) == {ENCODER, OTHER_ENCODER}
    assert set(rows[rows.role == "final"].status) == {"complete"}
    states = {"COMPLETE": "complete", "PRUNED": "pruned"}
    for trial, (_, row) in zip(trials_of(folder), rows[rows.role != "final"].iterrows(), strict=True):
        assert row.status == states[trial.state.name]
        assert row.epochs == len(trial.intermediate_values) > 0
        assert row.encoder == trial.params["encoder"]
    assert rows[rows.role == "baseline"].status.tolist() == ["complete"] * 2


def test_finals_are_measured_on_the_test_split_and_keep_their_weights(main_job):
    _, folder, _ = main_job
    finals = results.load(str(folder)).query("role == 'final'")
    assert (finals.test_dice > 0).all() and (finals.epochs == 3).all()
    for encoder in finals.encoder:
        record = TrialRecord(Folder(folder / "final" / encoder))
        assert record.folder.exists("weights.safetensors") and record.examples() is not None


def test_shards_open_in_pandas(main_job, tiny_build):
    shards = main_job[0].parent / "shards"
    table = pd.concat([pd.read_parquet(file) for file in sorted(shards.glob("*/*.parquet"))])
    card = json.loads((shards / "card.json").read_text())
    assert len(table) == sum(card["samples"].values())
    assert table["image"].map(len).eq(tiny_build.size_px**2).all()


def test_row_trained_again_agrees_to_the_last_digit(main_job):
    space, folder, _ = main_job
    status, output = run(space, "--out", str(folder), "--reproduce", "0000")
    assert status == 0, output
    assert "trial 0000, 2 epochs: agrees in every measure" in output


def test_changed_row_does_not_agree(main_job):
    space, folder, _ = main_job
    record = TrialRecord(Folder(folder / "trials" / "0001"))
    rows = record.metrics()
    record.write_metrics([rows[0].model_copy(update={"val_loss": rows[0].val_loss + 1e-6}), *rows[1:]])
    status, output = run(space, "--out", str(folder), "--reproduce", "0001")
    record.write_metrics(rows)
    assert status == 1
    assert "epoch 1: val_loss was" in output and "differs in 1 measures" in output and "Exit" not in output


def test_dry_run_shows_the_bill_and_trains_nothing(main_job, tmp_path):
    space, _, _ = main_job
    status, output = run(space, "--out", str(tmp_path / "dry"), "--dry-run")
    assert status == 0, output
    assert ENCODER in output and OTHER_ENCODER in output
    assert not (tmp_path / "dry").exists()


def test_two_workers_follow_the_curve_of_one(tmp_path, tiny_shards):
    space = write_settings(
        tmp_path / "two.yaml",
        tiny_shards,
        space={"learning_rate": [1e-3, 3e-4]},
        fixed={
            "encoder": "tu-test_convnext",
            "decoder": "linknet",
            "decoder_norm": "layernorm",
            "optimiser": "sgd",
            "batch_size": 6,
            "precision": "fp32",
        },
        sampler={"name": "grid"},
        budget={"trials": 2, "epochs": 2},
        pools=[{"name": "cpu2", "workers": 2, "cpus_per_worker": 1}],
    )
    status, output = run(space, "--out", str(tmp_path / "study"))
    assert status == 0, output[-3000:]
    assert epochs_of(tmp_path / "study") == 4
    for number in range(2):
        record = TrialRecord(Folder(tmp_path / "study" / "trials" / f"{number:04d}"))
        assert record.info().workers == 2
        config = record.info().config
        alone = train(config, data=TrialData.open(str(tiny_shards)))
        for row, expected in zip(without_times(record.metrics()), without_times(alone), strict=True):
            assert_same_measures(row, expected)


def test_real_mammograms_go_the_whole_way(tmp_path):
    tool, pairs = SHARED / "tools" / "make_cbis_tree.py", SHARED / "data" / "cesm_pairs"
    if not tool.exists() or not pairs.exists():
        pytest.skip("make_cbis_tree.py and the real pairs are not beside this checkout")
    command = [sys.executable, str(tool), str(pairs), str(tmp_path / "tree"), "--patients", "12", "--scale", "1"]
    subprocess.run(command, check=True, capture_output=True)
    build = {"source": "cbis_ddsm", "root": str(tmp_path / "tree"), "field_of_view": "lesion", "size_px": 32}
    data = {"shards": str(tmp_path / "shards"), "build": build}
    final = {"top": 1, "epochs": 2}
    space = write_settings(tmp_path / "real.yaml", tmp_path, data=data, budget={"trials": 2, "epochs": 2}, final=final)
    status, output = run(space, "--out", str(tmp_path / "study"))
    assert status == 0, output[-3000:]
    rows = results.load(str(tmp_path / "study"))
    assert rows.status.tolist() == ["complete"] * 3
