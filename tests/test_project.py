"""The project's own files: versions, dependencies, and the environment that make makes."""

import ast
import contextlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.file_tree import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {
    "tests",
    "cluster",
    "data_prep",
    "trainables",
    "search",
    "results",
    "clinic",
    "mammosearch",
    "benchmarks",
    "docs",
}
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]


def test_every_direct_dependency_is_pinned() -> None:
    wanted = [*PROJECT["dependencies"], *chain.from_iterable(PROJECT["optional-dependencies"].values())]
    pinned = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in PINS}
    for requirement in map(Requirement, wanted):
        if requirement.name == PROJECT["name"]:  # one extra that includes another
            assert requirement.extras <= set(PROJECT["optional-dependencies"])
            continue
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_reading_tables_asks_for_neither_torch_nor_ray() -> None:
    names = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert not names & {"torch", "torchvision", "ray", "timm", "segmentation-models-pytorch"}
    extras = (ROOT / "Makefile").read_text().split("EXTRAS ?= ")[1].split()[0].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert "study" in extras


def test_pins_are_exact_and_name_no_place_and_no_build() -> None:
    for line in PINS:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.]+", line), line
    assert len({canonicalize_name(line.split("==")[0]) for line in PINS}) == len(PINS)


def test_the_packages_at_the_root_are_what_is_installed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {name for pattern in setuptools["packages"]["find"]["include"] for name in [pattern.rstrip("*")]}
    assert found == {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests"}


def test_no_dependency_has_the_name_of_one_of_our_packages() -> None:
    ours = {canonicalize_name(file.parent.name) for file in ROOT.glob("*/__init__.py")}
    assert not ours & {canonicalize_name(line.split("==")[0]) for line in PINS}


def script(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what make needs, and a `bin` with the only commands it may find: no Python yet."""
    for file in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / file).write_text((ROOT / file).read_text())
    (tmp_path / "bin").mkdir()
    for command in ("make", "touch", "mkdir", "cp"):
        found = subprocess.run(["which", command], capture_output=True, text=True, check=True).stdout.strip()
        (tmp_path / "bin" / command).symlink_to(found)
    return tmp_path


def make(clone: Path, *words: str) -> subprocess.CompletedProcess[str]:
    ours = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "VENV", "PYTHON", "EXTRAS", "ARGS")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    environment["PATH"] = str(clone / "bin")
    command = [str(clone / "bin" / "make"), *words]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)


def fake_python(clone: Path, name: str) -> None:
    """A Python of a version that fits: it makes environments by copying itself, and notes what it was asked."""
    body = f'echo "{name} $*" >> {clone}/asked\nif [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi'
    script(clone / "bin" / name, body)


def test_a_python_that_does_not_run_or_is_another_version_is_passed_over(clone: Path) -> None:
    script(clone / "bin" / "python3", "exit 1")
    script(clone / "bin" / "python3.13", "exit 1")
    script(clone / "bin" / "python3.12", "exit 127")
    fake_python(clone, "python3.11")
    done = make(clone, "environment")
    assert done.returncode == 0, done.stderr
    asked = (clone / "asked").read_text()
    assert "python3.11 -m venv .venv" in asked
    assert "-m pip install" in asked
    assert "-c constraints.txt -e .[study,dev,codecs,figures,clinic]" in asked


def test_without_a_python_that_fits_make_says_what_to_install(clone: Path) -> None:
    script(clone / "bin" / "python3", "exit 1")
    done = make(clone, "environment")
    assert done.returncode == 2
    assert "Python 3.11, 3.12 or 3.13 is needed" in done.stderr
    assert not (clone / ".venv").exists()


def test_the_environment_is_made_once_and_again_when_a_version_changes(clone: Path) -> None:
    fake_python(clone, "python3")
    assert make(clone, "environment").returncode == 0
    first = (clone / "asked").read_text()
    assert make(clone, "environment").returncode == 0
    assert (clone / "asked").read_text() == first
    stamp = (clone / ".venv" / ".installed").stat().st_mtime
    os.utime(clone / "constraints.txt", (stamp + 5, stamp + 5))
    assert make(clone, "environment").returncode == 0
    assert (clone / "asked").read_text().count("pip install") == 2


def test_an_install_that_broke_off_is_not_taken_for_an_environment(clone: Path) -> None:
    body = 'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi\nif [ "$2" = pip ]; then exit 1; fi'
    script(clone / "bin" / "python3", body)
    assert make(clone, "environment").returncode == 2
    assert not (clone / ".venv" / ".installed").exists()


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("study", "python -m search.run --space nas.yaml --dry-run"),
        ("test", 'python -m pytest -n 2 --dist loadfile -m "not ray and not soak"'),
        ("test", 'python -m pytest -m "ray and not soak"'),
        ("soak", "python -m pytest -m soak"),
        ("quick", 'python -m pytest -n 2 --dist loadfile -m "not ray and not slow and not soak"'),
        ("lint", "ruff check ."),
        ("types", "mypy"),
        ("imports", "lint-imports"),
    ],
)
def test_the_targets_run_what_the_documents_say(clone: Path, target: str, command: str) -> None:
    (clone / ".venv").mkdir()
    (clone / ".venv" / ".installed").touch()
    done = make(clone, "-n", target, *(["ARGS=--dry-run"] if target == "study" else []))
    assert f".venv/bin/{command}" in done.stdout.strip().splitlines()


def test_make_alone_is_the_study(clone: Path) -> None:
    assert "python -m search.run --space nas.yaml" in make(clone, "-n").stdout


def test_ci_is_a_script_that_bash_understands_and_calls_the_same_targets() -> None:
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)
    text = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in text
    assert re.search(r"for target in lint types imports test; do", text)


def test_the_changelog_has_a_place_for_what_is_not_released() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text or f"## [{PROJECT['version']}]" in text


@pytest.mark.parametrize(("version", "fits"), [((3, 10), 1), ((3, 11), 0), ((3, 12), 0), ((3, 13), 0), ((3, 14), 1)])
def test_make_takes_the_versions_that_are_promised(version: tuple[int, int], fits: int) -> None:
    line = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "sys.version_info" in line)
    code = line.split("-c '")[1].split("'")[0].replace("sys.version_info[:2]", repr(version))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == fits
    listed = f"Programming Language :: Python :: {version[0]}.{version[1]}" in PROJECT["classifiers"]
    assert listed == (fits == 0)


def test_the_documents_say_how_to_enter_the_environment_and_where_it_runs() -> None:
    text = (ROOT / "README.md").read_text()
    first = text.index("python -m data_prep.run")
    assert ". .venv/bin/activate" in text[:first], "the first command fails without it"
    assert "Windows" in text[:first]
    for minor in (11, 12, 13):
        assert f"3.{minor}" in text[:first]


def test_every_extra_is_used() -> None:
    """An extra brings what some module imports, or a command that a document names."""
    text = "\n".join(file.read_text() for file in ROOT.rglob("*.py") if ".venv" not in file.parts)
    text += "\n".join(file.read_text() for file in (ROOT / "docs").glob("*.md"))
    plugins = {"pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls"}  # found by pydicom
    names = {"segmentation-models-pytorch": "segmentation_models_pytorch", "mlflow-skinny": "mlflow"}
    for extra, requirements in PROJECT["optional-dependencies"].items():
        if extra == "dev":
            continue
        for wanted in requirements:
            name = Requirement(wanted).name
            if name not in plugins and name != "mammosearch":
                module = names.get(name, name.replace("-", "_"))
                assert re.search(rf"\b({re.escape(module)}|{re.escape(name)})\b", text), f"{extra}: nothing uses {name}"


def test_tests_import_only_what_make_environment_installs() -> None:
    """What more they use on a machine that has it, they ask for by `pytest.importorskip`."""
    installed = {canonicalize_name(name) for name in _brought(_extras_of_make())}
    modules = importlib.metadata.packages_distributions()
    files = [*(ROOT / "tests").rglob("*.py")]
    imported = {(module, file) for file in files for module in _imported_modules(file) if module in modules}
    lacking = {
        f"{file.relative_to(ROOT)}: {module}"
        for module, file in imported
        if module not in OURS and not installed & {canonicalize_name(name) for name in modules[module]}
    }
    assert not lacking


def _extras_of_make() -> list[str]:
    found = re.search(r"^EXTRAS \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found
    return found[1].split(",")


def _brought(extras: list[str]) -> set[str]:
    """The distributions that the extras of the project bring, with what these need."""
    table = PROJECT["optional-dependencies"]
    waiting = [*PROJECT["dependencies"], *(wanted for extra in extras for wanted in table[extra])]
    seen: set[str] = set()
    while waiting:
        wanted = Requirement(waiting.pop())
        if wanted.name == PROJECT["name"]:
            waiting += [more for extra in wanted.extras for more in table[extra]]
        elif (key := str(wanted.name) + str(sorted(wanted.extras))) not in seen:
            seen.add(key)
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # of another system
                waiting += _requirements_of(wanted)
    return {re.split(r"\[", name)[0] for name in seen}


def _requirements_of(wanted: Requirement) -> list[str]:
    lines = importlib.metadata.requires(wanted.name) or []
    told = [(line, Requirement(line).marker) for line in lines]
    extras = ["", *wanted.extras]
    return [line for line, marker in told if marker is None or any(marker.evaluate({"extra": e}) for e in extras)]


def _imported_modules(file: Path) -> set[str]:
    """The first names of what a file imports anywhere."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.split(".")[0] for name in names}
