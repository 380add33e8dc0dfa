"""What the tests of data preparation share."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.build import build
from tests.data_prep.small_pairs import settings_for, write_pairs


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has its own cache of decoded shards and indexes."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MAMMOSEARCH_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def pairs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve films of twelve patients; do not change them."""
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def shards_path(tmp_path_factory: pytest.TempPathFactory, pairs_root: Path) -> Path:
    """The shards of `pairs_root`, with CLAHE and min-max; do not change them."""
    out = tmp_path_factory.mktemp("shards") / "small"
    build(settings_for(pairs_root, normalisations=["clahe", "minmax"]), str(out), workers=0)
    return out
