"""python -m pytest tests/search/test_money.py: the dollars of the rows are the slots' time, and end a study."""

import re
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("ray")

import results
from tests.search.studies import run, trials_of, write_settings

pytestmark = [pytest.mark.ray, pytest.mark.slow]

USD_PER_HOUR = 3.6
USD_PER_S = USD_PER_HOUR / 3600
MAX_USD = 30 * USD_PER_S
"""Less than what the trials would cost, more than a slot's start."""
POOL = {"name": "cpu", "cpus_per_worker": 1, "max_slots": 1, "usd_per_hour": USD_PER_HOUR}
REPORT = re.compile(r"^\S+ \S+  (\S+)  epoch .*\((\d+\.\d) s\)$", re.MULTILINE)
"""A line of `study.log`: the trial, and the seconds that its slot was held until then."""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, tiny_shards) -> tuple[Path, str]:
    """A study that would go on for hours, stopped by `--max-usd`: (folder, output)."""
    home = tmp_path_factory.mktemp("money")
    budget = {"trials": 1000, "epochs": 40}
    space = write_settings(home / "small.yaml", tiny_shards, budget=budget, pools=[POOL], final={"top": 1, "epochs": 2})
    status, output = run(space, "--out", str(home / "study"), "--max-usd", f"{MAX_USD:g}")
    assert status == 0, output[-3000:]
    return home / "study", output


def test_study_ends_at_the_first_report_after_its_money_is_spent(stopped):
    folder, _ = stopped
    held_s: dict[str, float] = {}
    totals = []
    for trial, seconds in REPORT.findall((folder / "study.log").read_text()):
        held_s[trial] = float(seconds)
        totals.append(sum(held_s.values()) * USD_PER_S)
    assert totals[-1] >= MAX_USD - 0.1 * USD_PER_S  # the log rounds to a tenth of a second
    assert all(total <= MAX_USD + 0.1 * USD_PER_S for total in totals[:-1])


def test_study_says_why_it_ended_and_no_final_begins(stopped):
    folder, output = stopped
    rows = results.load(str(folder))
    assert "max_usd" in output
    assert set(rows[rows.role == "final"].status) <= {"pending"}
    cut_short = rows[rows.status == "pruned"]
    assert all("max_usd" in reason for reason in cut_short.reason)


def test_dollars_of_the_rows_are_the_slots_time_by_other_clocks(stopped):
    """A slot is held for no longer than Optuna has the trial running, and for no less than its workers train."""
    folder, _ = stopped
    rows = results.load(str(folder))
    rows = rows[rows.role == "search"]
    epochs = results.load_epochs(str(folder))
    trained_s = (epochs.train_s + epochs.val_s).groupby(epochs.trial_id).sum()
    assert rows.usd.tolist() == pytest.approx((rows.slot_s * USD_PER_S).tolist(), abs=2e-6)
    for trial, (_, row) in zip(trials_of(folder), rows.iterrows(), strict=True):
        assert trained_s[row.trial_id] <= row.slot_s <= pd.Timedelta(trial.duration).total_seconds()
