import shutil
from pathlib import Path

import pytest

from tests.results.example_study import write_study
from tests.results.synthetic_study import write_synthetic


@pytest.fixture(scope="session")
def written_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "example")


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up study of 60 trials and three finals of three seeds each, for reading only."""
    return write_synthetic(tmp_path_factory.mktemp("synthetic") / "made-up", trials=60, patients=24, size_px=48)


@pytest.fixture
def study(written_study: Path, tmp_path: Path) -> Path:
    """A copy of the example study that the test may change."""
    return shutil.copytree(written_study, tmp_path / "example")
