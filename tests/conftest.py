"""What the tests that train share: phantoms built once, one Ray for all that need no more than one, and Ray's token."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.build import build
from data_prep.schema import BuildSettings

ONE_AFTER_THE_OTHER = ("ray", "soak")
"""Tests with these marks run in one process, also where the others are shared out: a machine bears one Ray."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares something dear: Ray, or the fixtures of a file that says so."""
    for item in items:
        if any(item.get_closest_marker(name) for name in ONE_AFTER_THE_OTHER):
            item.add_marker(pytest.mark.xdist_group("ray"))
        elif item.get_closest_marker("together"):
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """Ray in this process, with two cores and a slot of either pool of `tests.search.studies`: started once."""
    pytest.importorskip("ray")
    from cluster.session import connect

    with connect(cpus=2, slots={"cpu": 1, "cpu2": 1}):
        yield


@pytest.fixture(scope="session", autouse=True)
def _token_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray's servers and drivers in the tests share a private token, and no file of the user's home is made or read."""
    with pytest.MonkeyPatch.context() as patch:
        if not os.environ.get("RAY_AUTH_TOKEN") and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
            file = tmp_path_factory.mktemp("ray") / "auth_token"
            file.touch(0o600)
            file.write_text(secrets.token_hex(32))
            patch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
        yield


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
