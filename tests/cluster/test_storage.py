"""A folder is the same thing on a disk and in an object store, and a line that breaks loses nothing."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import storage
from cluster.storage import Folder
from tests.cluster.object_store import BUCKET, ENVIRONMENT, Line, server


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[str, int]]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with server() as (host, port):
            patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
            yield host, port


@pytest.fixture
def line(s3: tuple[str, int]) -> Iterator[Line]:
    line = Line(*s3)
    yield line
    line.close()


@pytest.fixture(params=["disk", "s3", "s3-with-options"])
def folder(request: pytest.FixtureRequest, s3: tuple[str, int], tmp_path: Path) -> Folder:
    """An empty folder of each kind."""
    name = f"{request.node.name.split('[')[0]}-{time.monotonic_ns()}"
    if request.param == "disk":
        return Folder(tmp_path / name)
    options = f"?endpoint_override={s3[0]}:{s3[1]}&scheme=http" if request.param.endswith("options") else ""
    return Folder(f"s3://{BUCKET}/{name}{options}")


def through(line: Line, name: str) -> Folder:
    """A folder that is reached through the line."""
    return Folder(f"s3://{BUCKET}/{name}?endpoint_override=127.0.0.1:{line.port}&scheme=http")


def source_of(tmp_path: Path, files: dict[str, bytes]) -> Path:
    source = tmp_path / "source"
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    return source


def test_what_is_written_is_read_and_listed(folder: Folder) -> None:
    folder.write_json("a.json", {"x": 1})
    folder.write_bytes("deep/er/b.bin", b"123")
    assert folder.read_json("a.json") == {"x": 1}
    assert (folder / "deep").read_bytes("er/b.bin") == b"123"
    assert folder.names() == ["a.json", "deep"]
    assert list(folder.walk()) == [("a.json", 13), ("deep/er/b.bin", 3)]
    assert (folder / "deep").name == "deep"


def test_its_uri_opens_it_again_wherever_it_lies(folder: Folder) -> None:
    (folder / "inner").write_text("x", "é")
    assert Folder((folder / "inner").uri).read_text("x") == "é"


def test_what_is_not_there_is_not_there(folder: Folder) -> None:
    assert not folder.exists()
    assert not folder.exists("nothing")
    assert folder.names() == []
    assert list(folder.walk()) == []
    with pytest.raises(FileNotFoundError):
        folder.read_bytes("nothing")
    folder.remove("nothing")


def test_a_folder_exists_as_long_as_it_holds_something(folder: Folder) -> None:
    folder.write_bytes("a/b", b"")
    assert folder.exists()
    assert folder.exists("a")
    assert folder.exists("a/b")
    assert not folder.exists("a/bc")
    folder.remove("a")
    assert not folder.exists("a/b")
    assert not folder.exists("a")


def test_a_folder_is_whole_once_it_is_put(folder: Folder, tmp_path: Path) -> None:
    source = source_of(tmp_path, {"x": b"1", "sub/y": b"22"})
    folder.put_folder(source, "copy")
    assert folder.complete("copy")
    folder.get_folder("copy", tmp_path / "back")
    assert (tmp_path / "back" / "sub" / "y").read_bytes() == b"22"


def test_a_folder_that_is_put_again_keeps_nothing_of_the_old(folder: Folder, tmp_path: Path) -> None:
    folder.put_folder(source_of(tmp_path / "1", {"old": b"1"}), "copy")
    folder.put_folder(source_of(tmp_path / "2", {"new": b"2"}), "copy")
    assert (folder / "copy").names() == ["complete", "new"]


def test_text_that_is_no_json_names_the_file(folder: Folder) -> None:
    folder.write_text("bad.json", "{")
    with pytest.raises(ValueError, match=r"bad\.json is not JSON"):
        folder.read_json("bad.json")


def test_an_unknown_scheme_says_what_is_known() -> None:
    with pytest.raises(ValueError, match="s3://"):
        Folder("ftp://host/folder")


@pytest.mark.slow
def test_a_line_that_is_cut_in_mid_write_loses_nothing(line: Line, tmp_path: Path) -> None:
    folder = through(line, "cut")
    content = os.urandom(12 << 20)  # more than one part of an upload
    folder.write_bytes("before.bin", b"old")
    line.after_bytes, line.cuts = 3 << 20, 4
    folder.write_bytes("before.bin", content)
    assert line.cut == 4
    assert folder.read_bytes("before.bin") == content


@pytest.mark.slow
def test_a_folder_put_over_a_line_that_is_cut_is_whole(line: Line, tmp_path: Path) -> None:
    files = {f"f{i}": os.urandom(1 << 20) for i in range(6)}
    folder = through(line, "cut-folder")
    line.after_bytes, line.cuts = 1 << 20, 4
    folder.put_folder(source_of(tmp_path, files), "epoch_0001")
    assert line.cut == 4
    assert folder.complete("epoch_0001")
    for name, content in files.items():
        assert folder.read_bytes(f"epoch_0001/{name}") == content


@pytest.mark.slow
def test_a_write_waits_for_a_store_that_is_down(line: Line) -> None:
    folder = through(line, "down")
    folder.write_bytes("x", b"old")
    line.down = True
    threading.Timer(9.0, lambda: setattr(line, "down", False)).start()
    folder.write_bytes("x", b"new")
    assert folder.read_bytes("x") == b"new"


@pytest.mark.slow
def test_a_store_that_stays_away_is_an_error_and_what_was_there_stays(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PATIENCE_S", 1.0)
    folder = through(line, "gone")
    folder.write_bytes("x", b"old")
    line.down = True
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        folder.write_bytes("x", b"new" * (1 << 22))
    line.down = False
    assert folder.read_bytes("x") == b"old"
    assert folder.names() == ["x"]


def test_a_refusal_is_told_at_once(s3: tuple[str, int]) -> None:
    began = time.monotonic()
    with pytest.raises(OSError, match="bucket"):
        Folder("s3://no-such-bucket-here/x").write_bytes("y", b"")
    assert time.monotonic() - began < 10
