"""What the tests that train share: a few phantoms, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.build import build
from data_prep.schema import BuildSettings


@pytest.fixture(scope="session")
def tiny_build(tmp_path_factory: pytest.TempPathFactory) -> BuildSettings:
    """Settings of a build of phantoms of 32 px: seconds to make, and every split has samples."""
    phantom = {"patients": 12, "rows": 96, "seed": 3}
    root = str(tmp_path_factory.mktemp("phantoms") / "films")
    settings = {"source": "phantom", "root": root, "phantom": phantom, "field_of_view": "lesion", "size_px": 32}
    return BuildSettings.model_validate(settings)


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory, tiny_build: BuildSettings) -> Path:
    """The shards of `tiny_build`; do not change them."""
    out = tmp_path_factory.mktemp("shards") / "tiny"
    build(tiny_build, str(out), workers=0)
    return out
