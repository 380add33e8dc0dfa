"""`import mammosearch`, beside whatever a user has in the working folder."""

import subprocess
import sys
from pathlib import Path

import pytest

import mammosearch
import results
from data_prep.shards import open_shards
from tests.file_tree import ROOT
from tests.results.example_study import write_study

READ = "import mammosearch; print(len(mammosearch.load('runs/nas')))"


def python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """A fresh Python in a folder, which is first on its path, as in a notebook; ours come after."""
    code = f"import sys; sys.path = ['', *[p for p in sys.path if p], {str(ROOT)!r}]; {code}"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    write_study(tmp_path / "runs" / "nas")
    return tmp_path


def test_the_readers_are_the_packages_own() -> None:
    assert mammosearch.load is results.load
    assert mammosearch.open_shards is open_shards
    assert set(mammosearch.__all__) <= set(dir(mammosearch))


def test_a_name_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(AttributeError, match=r"no 'lod'; it has cost_table, .*load"):
        mammosearch.lod  # noqa: B018


def test_every_reader_that_is_promised_can_be_had() -> None:
    assert all(callable(getattr(mammosearch, name)) for name in mammosearch.__all__)


@pytest.mark.parametrize("beside", ["results/", "results/__init__.py", "results.py", "cluster.py"])
def test_a_folder_or_file_of_our_names_beside_a_notebook_hides_nothing(workplace: Path, beside: str) -> None:
    if beside.endswith("/"):
        (workplace / beside).mkdir()
    else:
        (workplace / beside).parent.mkdir(exist_ok=True)
        (workplace / beside).write_text("raise SystemExit('not ours')")
    done = python(workplace, READ)
    assert done.stdout == "12\n", done.stderr


def test_a_module_of_our_name_that_was_imported_before_is_told_with_what_to_do(workplace: Path) -> None:
    (workplace / "results.py").write_text("")
    done = python(workplace, f"import results; {READ}")
    assert "ImportError: mammosearch needs its own package 'results'" in done.stderr
    assert "results.py: import mammosearch first, or rename the other" in done.stderr
