"""python -m pytest tests/search/test_study.py: the main job from its settings to its tables, in this process."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import results
from cluster.storage import Folder
from search.job import show_tables
from search.run import app
from tests.search.studies import ENCODER, trials_of, write_settings
from trainables.record import TrialRecord

pytestmark = pytest.mark.slow
OTHER_ENCODER = "tu-test_resnet"
USD_PER_S = 0.001
POOL = {"name": "cpu", "cpus_per_worker": 1, "max_slots": 1, "usd_per_hour": 3600 * USD_PER_S}


def search(space: Path, out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--space", str(space), "--out", str(out), "--here", *arguments])


@pytest.fixture(scope="module")
def main_job(tmp_path_factory: pytest.TempPathFactory, tiny_build: Any) -> tuple[Path, Path, str]:
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
        final={"top": 2, "epochs": 3, "seeds": 1},
        pools=[POOL],
    )
    result = search(space, home / "study")
    assert result.exit_code == 0, result.output[-3000:]
    return space, home / "study", result.output


def test_tables_are_written_and_every_trial_is_told(main_job: tuple[Path, Path, str]) -> None:
    _, folder, output = main_job
    for encoder in (ENCODER, OTHER_ENCODER):
        assert encoder in output and encoder in (folder / "tables.md").read_text()
    assert {"nas_table.csv", "final_table.csv", "tables.md", "trials.csv"} <= {file.name for file in folder.iterdir()}
    assert "trial 4 of 4 | best" in output and "search over: 4 trials" in output


def test_tables_that_cannot_be_made_are_told_with_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match=f"trained and kept, but .* python -m results.run table {tmp_path} makes them"
    ):
        show_tables(Folder(tmp_path))


def test_the_end_says_what_there_is_and_what_to_type_next(main_job: tuple[Path, Path, str]) -> None:
    _, folder, output = main_job
    end = output[output.index(f"{folder} holds the study:") :]
    weights = sorted(file.relative_to(folder) for file in folder.glob("final/**/weights.safetensors"))
    assert f"{weights[0]} and {len(weights) - 1} more" in end
    for command in ("results.run report", "results.run figures", "optuna-dashboard"):
        assert command in end
    rows = results.load(str(folder))
    best = rows[rows.role == "final"].sort_values("val_dice").iloc[-1]
    model = f"models/{best.encoder}-{best.seed}"
    assert f"  {model} and 1 more: " in end and (folder / model / "model.json").exists()
    assert re.search(rf"clinic\.run predict \S*{folder}/{model} FILM\.dcm --box TOP,LEFT,BOTTOM,RIGHT --out masks", end)


def test_nothing_of_the_machinery_is_seen(main_job: tuple[Path, Path, str]) -> None:
    for noise in ("Traceback", "WARNING", "Warning", "ray.init", "usage stats"):
        assert noise not in main_job[2]


def test_every_trial_is_a_row_that_agrees_with_optuna(main_job: tuple[Path, Path, str]) -> None:
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


def test_finals_are_measured_on_the_test_split_and_keep_their_weights(main_job: tuple[Path, Path, str]) -> None:
    _, folder, _ = main_job
    finals = results.load(str(folder)).query("role == 'final'")
    assert (finals.test_dice > 0).all() and (finals.epochs == 3).all()
    for name in finals.trial_id:
        record = TrialRecord(Folder(folder / "final" / name))
        assert record.folder.exists("weights.safetensors") and record.examples() is not None
        assert not record.folder.exists("checkpoint")


def test_shards_open_in_pandas(main_job: tuple[Path, Path, str], tiny_build: Any) -> None:
    shards = main_job[0].parent / "shards"
    table = pd.concat([pd.read_parquet(file) for file in sorted(shards.glob("*/*.parquet"))])
    card = json.loads((shards / "_card.json").read_text())
    assert len(table) == sum(card["samples"].values())
    assert table["image"].map(len).eq(tiny_build.size_px**2).all()


def test_dollars_of_the_rows_are_the_slots_time(main_job: tuple[Path, Path, str]) -> None:
    """A slot is held for no less than its worker trains, and for no more than passes from its start to its end."""
    _, folder, _ = main_job
    rows, epochs = results.load(str(folder)), results.load_epochs(str(folder))
    assert rows.usd.tolist() == pytest.approx((rows.slot_s * USD_PER_S).tolist(), abs=2e-6)
    taken = epochs.trial_id.map(rows.set_index("trial_id").taken_epochs)
    own = epochs[epochs.epoch > taken]  # the others were trained, and paid for, by the trial that a final goes on from
    trained_s = (own.train_s + own.val_s).groupby(own.trial_id).sum().reindex(rows.trial_id, fill_value=0.0)
    passed = pd.to_datetime(rows.ended_at) - pd.to_datetime(rows.started_at)
    for row, seconds in zip(rows.itertuples(), passed.dt.total_seconds(), strict=True):
        assert trained_s[row.trial_id] <= row.slot_s
        assert row.slot_s <= seconds + 60, "the model is built before a trial counts as started"


def test_a_row_trained_again_agrees_to_the_last_digit(main_job: tuple[Path, Path, str]) -> None:
    space, folder, _ = main_job
    result = search(space, folder, "--reproduce", "0000")
    assert result.exit_code == 0, result.output
    assert "trial 0000, 2 epochs: agrees in every measure" in result.output


def test_a_changed_row_does_not_agree(main_job: tuple[Path, Path, str]) -> None:
    space, folder, _ = main_job
    record = TrialRecord(Folder(folder / "trials" / "0001"))
    rows = record.metrics()
    record.write_metrics([rows[0].model_copy(update={"val_loss": rows[0].val_loss + 1e-6}), *rows[1:]])
    result = search(space, folder, "--reproduce", "0001")
    record.write_metrics(rows)
    assert result.exit_code == 1
    assert "epoch 1: val_loss was" in result.output and "differs in 1 measures" in result.output


def test_a_dry_run_shows_the_bill_and_trains_nothing(main_job: tuple[Path, Path, str], tmp_path: Path) -> None:
    space, _, _ = main_job
    result = search(space, tmp_path / "dry", "--dry-run")
    assert result.exit_code == 0, result.output
    assert ENCODER in result.output and OTHER_ENCODER in result.output
    assert not (tmp_path / "dry").exists()


def test_a_finished_study_that_is_resumed_trains_nothing_again(main_job: tuple[Path, Path, str]) -> None:
    space, folder, _ = main_job
    before = {file: file.read_bytes() for file in folder.glob("*/*/*.json*")}
    result = search(space, folder, "--resume")
    assert result.exit_code == 0, result.output
    assert {file: file.read_bytes() for file in folder.glob("*/*/*.json*")} == before


def test_a_study_ends_at_the_first_report_after_its_money_is_spent(tmp_path: Path, tiny_shards: Path) -> None:
    pools = [{**POOL, "usd_per_hour": 1e6}]
    budget = {"trials": 1000, "epochs": 40}
    space = write_settings(
        tmp_path / "small.yaml", tiny_shards, budget=budget, pools=pools, final={"top": 1, "epochs": 2}
    )
    result = search(space, tmp_path / "study", "--max-usd", "1")
    assert result.exit_code == 0, result.output[-3000:]
    (row,) = results.load(str(tmp_path / "study")).itertuples()
    assert row.status == "pruned" and "max_usd" in row.reason and row.usd >= 1
    assert row.epochs == 1, "its first report is its last"
    assert "max_usd" in result.output and not (tmp_path / "study" / "final").exists()
