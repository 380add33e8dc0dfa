import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mammosearch.run import ROOMS, app
from mammosearch.settings import shipped
from search.settings.config import load_study_config
from tests.file_tree import ROOT
from tests.results.example_study import write_study

runner = CliRunner()


def test_every_package_with_a_command_has_a_room() -> None:
    commands = {f"{file.parent.name}.run" for file in ROOT.glob("*/run.py")} - {"mammosearch.run"}
    assert {module for module, _ in ROOMS.values()} == commands


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_the_packages_own_command(room: str) -> None:
    result = runner.invoke(app, [room, "--help"])
    assert result.exit_code == 0
    assert f"Usage: mammosearch {room}" in " ".join(result.output.split()).replace("root ", "mammosearch ")


def test_words_after_a_room_reach_its_command(tmp_path: Path) -> None:
    study = write_study(tmp_path / "nas")
    result = runner.invoke(app, ["results", "table", str(study)])
    assert result.exit_code == 0
    assert "seresnet50" in result.output
    assert (study / "trials.csv").exists()


def test_a_mistake_in_a_room_has_the_rooms_exit_status(tmp_path: Path) -> None:
    assert runner.invoke(app, ["results", "table", str(tmp_path / "nowhere")]).exit_code == 2


def test_a_mistyped_room_is_told_what_was_meant() -> None:
    result = runner.invoke(app, ["serch"])
    assert result.exit_code == 2
    assert "search" in result.output


def test_help_lists_every_room_and_loads_none_of_them() -> None:
    code = "import sys; from mammosearch.run import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"pandas", "torch", "ray", "search.run", "results"}
    assert all(f" {room} " in done.stdout for room in ROOMS)


def test_version_is_that_of_the_installation() -> None:
    assert runner.invoke(app, ["--version"]).output.startswith("mammosearch 0.")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [("mammosearch se", "search"), ("mammosearch search --dry", "--dry-run"), ("mammosearch results rep", "report")],
)
def test_a_shell_completes_rooms_and_their_options(words: str, wanted: str) -> None:
    environment = {**os.environ, "_MAMMOSEARCH_COMPLETE": "complete_bash", "COMP_WORDS": words}
    environment["COMP_CWORD"] = str(len(words.split()) - 1)
    command = [sys.executable, "-m", "mammosearch"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert wanted in done.stdout.split()


def test_init_writes_the_shipped_studies_and_each_can_be_loaded(tmp_path: Path) -> None:
    result = runner.invoke(app, ["init", str(tmp_path)])
    assert result.exit_code == 0
    written = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.yaml")}
    assert written == set(shipped()) >= {"nas.yaml", "configs/paper.yaml"}
    for name in written:
        assert yaml.safe_load((tmp_path / name).read_text()) == yaml.safe_load((ROOT / name).read_text())
    assert load_study_config(tmp_path / "nas.yaml").budget.trials > 0


def test_an_editor_finds_the_schema_of_what_init_wrote(tmp_path: Path) -> None:
    runner.invoke(app, ["init", str(tmp_path)])
    first = (tmp_path / "configs" / "paper.yaml").read_text().splitlines()[0]
    assert Path(first.split("$schema=")[1]).is_file()


def test_init_writes_over_nothing_unless_told_to(tmp_path: Path) -> None:
    (tmp_path / "nas.yaml").write_text("mine: 1\n")
    result = runner.invoke(app, ["init", str(tmp_path)])
    assert result.exit_code == 2
    assert "nas.yaml already in" in result.output and "--force" in result.output
    assert [file.name for file in tmp_path.iterdir()] == ["nas.yaml"]
    assert (tmp_path / "nas.yaml").read_text() == "mine: 1\n"
    assert runner.invoke(app, ["init", str(tmp_path), "--force"]).exit_code == 0
    assert "pools" in (tmp_path / "nas.yaml").read_text()


@pytest.mark.slow
def test_encoders_are_listed_by_part_of_their_names() -> None:
    result = runner.invoke(app, ["encoders", "convnextv2_a"])
    assert result.exit_code == 0
    assert "tu-convnextv2_atto" in result.output.split()
    assert runner.invoke(app, ["encoders", "no-such-encoder"]).exit_code == 2


def test_without_an_extra_the_message_names_it(tmp_path: Path) -> None:
    for name in ("torch", "ray"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError(name={name!r})")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; sys.argv[1:] = ['encoders']; "
    code += "from mammosearch.run import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == "mammosearch: this needs torch: pip install 'mammosearch[train]'"
