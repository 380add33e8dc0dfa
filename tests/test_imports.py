"""The import contracts of pyproject.toml, and what must stay light."""

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from tests.file_tree import ROOT, comment

PACKAGES = ("cluster", "data_prep", "trainables", "search", "results", "mammosearch")
MODULES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
COMMANDS = sorted(f"{package}.run" for package in PACKAGES if (ROOT / package / "run.py").exists())
HEAVY = ("ray", "torch", "optuna", "segmentation_models_pytorch", "timm", "torchvision", "matplotlib")


def loaded_by(statement: str) -> set[str]:
    """The heavy packages that a fresh Python has loaded after a statement."""
    code = f"import sys; {statement}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_contracts_hold() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_results_loads_neither_torch_nor_ray() -> None:
    assert loaded_by("import results, results.show, results.report") == set()


def test_importing_results_alone_loads_no_tables() -> None:
    code = "import sys, results.run; print('pandas' in sys.modules); results.load; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_every_reader_of_results_is_found_by_its_name() -> None:
    code = "import results, results.per_image; print(all(callable(getattr(results, n)) for n in results.__all__))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_readers_of_mammosearch_load_neither_torch_nor_ray() -> None:
    assert loaded_by("import mammosearch; mammosearch.load, mammosearch.open_shards, mammosearch.importance") == set()


def test_no_command_loads_torch_or_ray_to_show_its_help() -> None:
    assert COMMANDS
    assert loaded_by("import " + ", ".join(COMMANDS)) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_of_a_packages_name_beside_a_notebook_hides_it_not(package: str, tmp_path: Path) -> None:
    """pyproject's `package-dir` makes an editable install a plain path file; a finder would come last."""
    (tmp_path / package).mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    code = f"import {package}; print({package}.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    if done.stdout.strip() == "None" and not is_installed():
        pytest.skip("the project is not installed in this environment")
    assert done.stdout.strip().endswith(f"{package}/__init__.py")


def is_installed() -> bool:
    try:
        distribution("mammosearch")
    except PackageNotFoundError:
        return False
    return True


def test_a_module_that_imports_ray_is_marked() -> None:
    imports_ray = re.compile(r"^\s*(import ray\b|from ray\b)", re.MULTILINE)
    unmarked = [file for file in MODULES if imports_ray.search(file.read_text()) and not is_marked(file)]
    assert unmarked == []


def is_marked(file: Path) -> bool:
    return comment(file).endswith("[Ray]")
