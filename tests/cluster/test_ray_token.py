"""No other user can read the token of Ray's servers, and one that others can read is not used."""

import os
import stat
from pathlib import Path

import pytest

from cluster.ray_token import PATH_VARIABLE, TOKEN_VARIABLE, OpenTokenError, private_token


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a token."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    return tmp_path


def mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def token_of(home: Path, mode: int, text: str = "t" * 64) -> Path:
    file = home / ".ray" / "auth_token"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


def test_a_new_token_is_its_owners_alone_whatever_the_umask(home: Path) -> None:
    before = os.umask(0)
    try:
        with private_token(joins=False):
            used = Path(os.environ[PATH_VARIABLE])
    finally:
        os.umask(before)
    assert used == home / ".ray" / "auth_token"
    assert (mode(used), mode(used.parent)) == ("0o600", "0o700")
    assert len(used.read_text()) == 64
    assert PATH_VARIABLE not in os.environ


def test_a_private_token_is_used_again(home: Path) -> None:
    file = token_of(home, 0o600)
    with private_token(joins=False):
        assert os.environ[PATH_VARIABLE] == str(file)
    assert file.read_text() == "t" * 64


@pytest.mark.parametrize("open_mode", [0o644, 0o640, 0o604, 0o622])
def test_one_that_others_can_read_or_write_is_not_used_on_this_machine(home: Path, open_mode: int) -> None:
    file = token_of(home, open_mode)
    with private_token(joins=False):
        used = Path(os.environ[PATH_VARIABLE])
        assert used != file and used.read_text() != file.read_text()
        assert (mode(used), mode(used.parent)) == ("0o600", "0o700")
    assert not used.exists() and file.exists()


@pytest.mark.parametrize("open_mode", [0o644, 0o640, 0o620])
def test_to_join_a_cluster_by_one_that_others_can_read_is_refused(home: Path, open_mode: int) -> None:
    file = token_of(home, open_mode)
    with pytest.raises(OpenTokenError, match=f"chmod 600 {file}"), private_token(joins=True):
        raise AssertionError
    file.chmod(0o600)
    with private_token(joins=True):
        assert PATH_VARIABLE not in os.environ


def test_a_named_token_that_others_can_read_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine"
    file.write_text("x")
    file.chmod(0o644)
    monkeypatch.setenv(PATH_VARIABLE, str(file))
    with pytest.raises(OpenTokenError, match="can be read by other users"), private_token(joins=False):
        raise AssertionError
    file.chmod(0o400)
    with private_token(joins=False):
        assert os.environ[PATH_VARIABLE] == str(file)


def test_a_home_that_cannot_be_written_needs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with private_token(joins=False):
        assert mode(Path(os.environ[PATH_VARIABLE])) == "0o600"
