"""What the tests that train share: phantoms built once, one Ray for all that need no more than one, and Ray's token."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.build import build
from data_prep.schema import BuildSettings

BEGAN = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--begin-within`: for who has only so much time for `make soak`."""
    told = "tests that could begin only later than so many minutes after the start are skipped"
    parser.addoption("--begin-within", type=float, metavar="MINUTES", help=told)


def pytest_configure(config: pytest.Config) -> None:
    """Note when the tests began."""
    config.stash[BEGAN] = time.monotonic()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what comes too late."""
    minutes = item.config.getoption("--begin-within")
    if minutes is not None and time.monotonic() - item.config.stash[BEGAN] > 60 * minutes:
        pytest.skip(f"could not begin within {minutes:g} minutes")


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


@pytest.fixture(autouse=True)
def _the_one_ray(request: pytest.FixtureRequest) -> None:
    """What starts Ray where none runs finds one running: `make test` starts Ray once, and once for each `own_ray`."""
    has = request.node.get_closest_marker
    if has("ray") and not has("own_ray") and not has("soak"):
        request.getfixturevalue("ray_here")


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
