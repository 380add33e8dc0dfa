"""A folder is the same thing on a disk and in an object store, and a line that breaks loses nothing."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

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


def test_a_file_is_read_from_any_place(folder: Folder) -> None:
    content = os.urandom(3 << 20)
    folder.write_bytes("x.bin", content)
    with folder.open_input("x.bin") as file:
        assert file.read(10) == content[:10]
        file.seek(-5, os.SEEK_END)
        assert file.read() == content[-5:]
        file.seek(1 << 20)
        assert file.read(1 << 20) == content[1 << 20 : 2 << 20]
    with pytest.raises(FileNotFoundError):
        folder.open_input("nothing")


def test_folders_and_files_are_listed_with_their_sizes(folder: Folder) -> None:
    folder.write_bytes("a/b.bin", b"123")
    folder.write_bytes("c.bin", b"")
    assert folder.folders() == ["a"]
    assert [(info.path, info.size) for info in folder.infos()] == [("a/b.bin", 3), ("c.bin", 0)]
    assert all(time.time_ns() - info.mtime_ns < 3600e9 for info in folder.infos())


def test_a_parquet_file_is_read_and_what_is_none_is_named(folder: Folder) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": [1, 2, 3]}), sink)
    folder.write_bytes("t.parquet", sink.getvalue())
    assert folder.parquet("t.parquet").read().to_pydict() == {"x": [1, 2, 3]}
    for content in (b"", b"PAR1", b"x" * 100):
        folder.write_bytes("t.parquet", content)
        with pytest.raises(ValueError, match=r"t\.parquet is not Parquet"):
            folder.parquet("t.parquet")


class Unsteady:
    """A pyarrow file system in which every file fails once on each second read."""

    def __init__(self, real: fs.FileSystem) -> None:
        self.real, self.failed = real, 0

    def open_input_file(self, path: str) -> Unsteady:
        self.file, self.count = self.real.open_input_file(path), 0
        return self

    def size(self) -> int:
        return int(self.file.size())

    def close(self) -> None:
        self.file.close()

    def read_at(self, count: int, at: int) -> bytes:
        self.count += 1
        if self.count == 2:
            self.failed += 1
            raise OSError("the store does not answer")
        return bytes(self.file.read_at(count, at))


def test_a_read_that_is_not_answered_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(5 << 20)
    folder = Folder(tmp_path)
    folder.write_bytes("x.bin", content)
    unsteady = Unsteady(fs.LocalFileSystem())
    monkeypatch.setattr(folder, "_fs", unsteady)
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    with folder.open_input("x.bin") as file:
        assert file.read() == content
    assert unsteady.failed >= 4


@pytest.mark.parametrize("path", ["", "~no-such-user-here/x"])
def test_a_path_that_is_none_is_a_mistake(path: str) -> None:
    with pytest.raises(ValueError, match="folder"):
        Folder(path)


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
