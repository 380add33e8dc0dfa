"""After a power cut a file has its old content or its new one: it is on the disk before it gets its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from cluster.storage import Folder
from data_prep.cache import private_file
from data_prep.write import write_rows
from search.log import Log


class Disk:
    """Notes how much of each file was brought to the disk, and which files had less than all when they were named."""

    def __init__(self) -> None:
        self.bytes_of: dict[int, int] = {}
        """Inode -> size at its last fsync."""
        self.named_early: list[str] = []
        self.named: list[str] = []

    def fsync(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self.bytes_of[status.st_ino] = status.st_size

    def whole(self, file: Path) -> bool:
        status = file.stat()
        return self.bytes_of.get(status.st_ino) == status.st_size

    def replace(self, source: Path, target: str | Path) -> Path:
        self.named.append(Path(target).name)
        if not self.whole(source):
            self.named_early.append(Path(target).name)
        return source.rename(target)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.fsync)
    monkeypatch.setattr(Path, "replace", lambda source, target: disk.replace(source, target))
    return disk


def _private(folder: Path) -> None:
    with private_file(folder / "kept") as stream:
        stream.write(b"x" * 10)


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: Folder(folder).write_bytes("kept", b"x" * 10),
        lambda folder: Folder(folder).write_json("kept", {"status": "complete"}),
        _private,
    ],
    ids=["bytes", "json", "cache"],
)
def test_a_file_is_on_the_disk_before_it_has_its_name(
    disk: Disk, tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path)
    assert disk.named == ["kept"] and disk.named_early == []


def test_a_shard_is_on_the_disk_when_it_is_written(disk: Disk, tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pydict({"number": [1, 2, 3]})
    assert write_rows(tmp_path / "shard", iter([batch]), batch.schema) == 3
    assert disk.whole(tmp_path / "shard")


def test_a_decision_is_on_the_disk_before_anyone_acts_on_it(disk: Disk, tmp_path: Path) -> None:
    log = Log(Folder(tmp_path))
    for trial in range(3):
        log.add({"what": "end", "trial": trial})
        log.flush()
        (part,) = (tmp_path / "decisions").iterdir()
        assert disk.whole(part) and len(part.read_text().splitlines()) == trial + 1
