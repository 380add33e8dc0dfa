"""What a launch tells the cluster, and what it says when a step fails."""

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.launch import LaunchError, launch, submission
from cluster.run import app
from tests.file_tree import ROOT

FILE, SPACE = Path("cluster/files/gcp.yaml"), Path("configs/paper.yaml")


class Recorder:
    """Runs nothing; answers a command that contains `failing` with status 1."""

    def __init__(self, failing: str = "no command") -> None:
        self.commands: list[list[str]] = []
        self._failing = failing

    def __call__(self, command: Sequence[str]) -> int:
        self.commands.append(list(command))
        return int(any(self._failing in word for word in command))


def test_code_settings_study_and_tables_in_this_order() -> None:
    run = Recorder()
    launch(FILE, space=SPACE, out="gs://bucket/runs/paper", run=run)
    first, settings, study, table = run.commands
    ray = str(Path(sys.executable).with_name("ray"))
    assert first == [ray, "rsync-up", "cluster/files/gcp.yaml"]
    assert settings[-2:] == ["configs/paper.yaml", "~/mammosearch/paper.yaml"]
    assert study[:3] == [ray, "exec", "cluster/files/gcp.yaml"]
    assert "python -m search.run --space paper.yaml --out gs://bucket/runs/paper" in study[3]
    assert "--resume" not in study[3]
    assert table[1:] == ["-m", "results.run", "table", "gs://bucket/runs/paper"]


def test_a_folder_that_only_the_cluster_sees_is_copied_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Recorder()
    launch(FILE, space=SPACE, out="/mnt/shared/runs/mine", resume=True, max_usd=2.5, run=run)
    assert run.commands[2][3].endswith("--max-usd 2.5 --resume")
    assert run.commands[3][1:] == ["rsync-down", "cluster/files/gcp.yaml", "/mnt/shared/runs/mine/", "runs/mine/"]
    assert run.commands[4][-1] == "runs/mine"


def test_a_broken_line_is_no_lost_study() -> None:
    run = Recorder(failing="job submit")
    with pytest.raises(LaunchError, match="--resume") as caught:
        launch(FILE, space=SPACE, out="gs://bucket/runs/paper", run=run)
    assert "ray job logs --follow" in str(caught.value)
    assert len(run.commands) == 3


def test_names_with_blanks_stay_one_word() -> None:
    words = shlex.split(submission("job", "my study.yaml", "/mnt/a b"))
    assert words[words.index("--space") + 1] == "my study.yaml"
    assert words[words.index("--out") + 1] == "/mnt/a b"


@pytest.mark.parametrize("money", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_money_is_told_before_anything_runs(money: float) -> None:
    run = Recorder()
    with pytest.raises(ValueError, match="no amount of money"):
        launch(FILE, space=SPACE, out="gs://bucket/runs/paper", max_usd=money, run=run)
    assert run.commands == []


def test_open_places_stop_a_launch_before_ray_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Recorder()
    monkeypatch.setattr(subprocess, "call", run)
    words = ["launch", str(ROOT / FILE), "--space", str(ROOT / SPACE), "--out", "gs://bucket/runs/paper"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert run.commands == []
    assert re.search(r"gcp\.yaml:\d+  fill in YOUR-PROJECT", result.stdout)
    assert "open places; fill them in first" in result.stderr


def test_an_environment_without_ray_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    run = Recorder()
    with pytest.raises(LaunchError, match=r"mammosearch\[study\]"):
        launch(FILE, space=SPACE, out="gs://bucket/runs/paper", run=run)
    assert run.commands == []
