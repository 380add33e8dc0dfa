import shutil
from pathlib import Path

import pytest

from tests.results.example_study import write_study


@pytest.fixture(scope="session")
def written_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "example")


@pytest.fixture
def study(written_study: Path, tmp_path: Path) -> Path:
    """A copy of the example study that the test may change."""
    return shutil.copytree(written_study, tmp_path / "example")
