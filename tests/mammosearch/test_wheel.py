"""The wheel, installed where the checkout cannot be seen."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.file_tree import ROOT
from tests.results.example_study import write_study

pytestmark = pytest.mark.slow


def run(*words: str, cwd: Path) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("setuptools") is None or int(version("setuptools").split(".")[0]) < 77 or find_spec("pip") is None:
        pytest.skip("pip and setuptools 77 or newer are not in this environment")
    folder = tmp_path_factory.mktemp("wheel")
    listed = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    for name in listed:  # a copy, so that nothing is built into the checkout
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    run(*pip, "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source"), cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A fresh environment with the wheel; its dependencies are this environment's, but not this checkout."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    with zipfile.ZipFile(wheel) as content:
        content.extractall(site)
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(others) + "\n")
    return str(folder / "bin" / "python")


def test_the_wheel_holds_settings_pages_libraries_and_types_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"mammosearch/shipped/configs/{file.name}" for file in (ROOT / "configs").glob("*.yaml")}
    wanted = {"mammosearch/shipped/nas.yaml", "data_prep/look/web/page.css", "results/web/vendor/echarts.min.js"}
    assert shipped | wanted <= names
    assert {f"{file.parent.name}/py.typed" for file in ROOT.glob("*/py.typed")} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    every = {str(f.relative_to(ROOT)) for p in ROOT.glob("*/py.typed") for f in p.parent.rglob("*.py")}
    assert every <= names


def test_a_wheel_alone_reads_a_study_makes_its_page_and_writes_the_settings(python: str, tmp_path: Path) -> None:
    write_study(tmp_path / "runs" / "nas")
    where = run(python, "-c", "import mammosearch; print(mammosearch.__file__)", cwd=tmp_path)
    assert not where.startswith(str(ROOT))
    read = "import mammosearch; print(len(mammosearch.load('runs/nas')))"
    assert run(python, "-c", read, cwd=tmp_path) == "12\n"
    run(python, "-m", "mammosearch", "results", "report", "runs/nas", cwd=tmp_path)
    assert (tmp_path / "runs" / "nas" / "report.html").stat().st_size > 1_000_000
    run(python, "-m", "mammosearch", "init", cwd=tmp_path)
    assert (tmp_path / "nas.yaml").read_text().splitlines()[1:] == (ROOT / "nas.yaml").read_text().splitlines()[1:]
