from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from results.run import Cost, Name, app
from results.tables import TABLES
from results.verdict import COST_COLUMNS
from trainables.track.trackers import TRACKERS, Mirrored

runner = CliRunner()


def test_table_prints_both_tables_and_writes_beside_the_study(study: Path) -> None:
    result = runner.invoke(app, ["table", str(study)])
    assert result.exit_code == 0
    assert "Architecture search (table II)" in result.output
    assert "Full training (table III)" in result.output
    assert {"trials.csv", "nas_table.csv", "final_table.csv", "tables.md"} <= {f.name for f in study.iterdir()}


def test_only_prints_the_tables_asked_for_and_all_of_them_are_known(study: Path) -> None:
    result = runner.invoke(app, ["table", str(study), "--only", "cost", "--only", "encoders"])
    assert result.exit_code == 0
    assert "Trials by encoder" in result.output and "Cost" in result.output
    assert "table II" not in result.output
    assert [name.value for name in Name] == list(TABLES)
    assert get_args(Cost) == tuple(COST_COLUMNS)


def test_a_table_that_is_not_there_is_refused_with_those_that_are(study: Path) -> None:
    result = runner.invoke(app, ["table", str(study), "--only", "finals"])
    assert result.exit_code == 2
    assert "'final'" in result.output


def test_out_leaves_the_study_as_it_was(study: Path, tmp_path: Path) -> None:
    before = {f.name for f in study.iterdir()}
    result = runner.invoke(app, ["report", str(study), "--out", str(tmp_path / "page")])
    assert result.exit_code == 0
    assert {f.name for f in study.iterdir()} == before
    assert (tmp_path / "page" / "report.html").exists()


def test_figures_names_what_it_wrote(study: Path) -> None:
    pytest.importorskip("matplotlib")
    result = runner.invoke(app, ["figures", str(study)])
    assert result.exit_code == 0
    assert "wrote" in result.output and "training.png" in result.output


@pytest.mark.parametrize("command", ["table", "figures", "report"])
def test_a_folder_that_is_no_study_is_one_message_and_status_two(command: str, tmp_path: Path) -> None:
    result = runner.invoke(app, [command, str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert "nowhere is not a study" in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_scheme_that_nobody_knows_is_one_message_and_status_two() -> None:
    result = runner.invoke(app, ["table", "ftp://host/study"])
    assert result.exit_code == 2
    assert "ftp://host/study" in result.output


def test_export_sends_to_a_tracker_what_it_was_not_sent(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    class Fake:
        def __init__(self, folder: object) -> None: ...
        def begin(self, trial: Mirrored) -> str:
            return trial.name

        def epochs(self, run: str, trial: Mirrored, rows: object) -> None: ...
        def end(self, run: str, trial: Mirrored) -> None:
            sent.append(run)

        def close(self) -> None: ...

    monkeypatch.setitem(TRACKERS, "mlflow", Fake)
    monkeypatch.setattr("trainables.track.mirror.missing_library", lambda name: None)
    result = runner.invoke(app, ["export", str(study), "--to", "mlflow"])
    assert result.exit_code == 0, result.output
    assert "11 trials" in result.output
    assert len(sent) == 11
    assert "0 trials" in runner.invoke(app, ["export", str(study), "--to", "mlflow"]).output


@pytest.mark.parametrize(
    "words", [["{study}", "--to", "neptune"], ["{study}"], ["{study}/nowhere", "--to", "tensorboard"]]
)
def test_an_export_that_cannot_be_is_status_two(study: Path, words: list[str]) -> None:
    result = runner.invoke(app, ["export", *(word.format(study=study) for word in words)])
    assert result.exit_code == 2, result.output
