"""Errors of the disk and the network: they pass, or the build ends and says so; they are never a fault of the film.

pytest tests/data_prep/test_passing_errors.py
"""

from __future__ import annotations

import errno
from pathlib import Path

import pandas as pd
import pytest

from data_prep.build import build
from data_prep.read import files
from data_prep.read.dicom import read_film, read_header, read_shape
from data_prep.schema import ReadError
from tests.data_prep.small_pairs import draw_film, settings_for, write_pairs
from tests.data_prep.trees import write_dicom

PASSING = [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM]


class Disk:
    """The real disk, on which opening or reading a file fails now and then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, *, at: str, times: int, name: str = "") -> None:
        self.left, self.failed = times, 0
        self._number, self._at, self._name = number, at, name
        self._open = files._open_local
        monkeypatch.setattr(files, "_open_local", self.open)
        monkeypatch.setattr(files, "WAITS_S", (0.0,) * 5)

    def open(self, path: str) -> tuple[object, int]:
        if self._at == "open":
            self.fail(path)
        file, size = self._open(path)
        return (_Failing(file, self, path) if self._at == "read" else file), size

    def fail(self, path: str) -> None:
        if self.left and self._name in path:
            self.left, self.failed = self.left - 1, self.failed + 1
            raise OSError(self._number, "the disk says no")


class _Failing:
    def __init__(self, file, disk: Disk, path: str) -> None:
        self._file, self._disk, self._path = file, disk, path

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def seek(self, at: int) -> int:
        return self._file.seek(at)

    def read(self, count: int) -> bytes:
        self._disk.fail(self._path)
        return self._file.read(count)

    def readinto(self, target) -> int:
        self._disk.fail(self._path)
        return self._file.readinto(target)


@pytest.mark.parametrize("number", PASSING)
@pytest.mark.parametrize("at", ["open", "read"])
def test_passing_error_passes(tmp_path, monkeypatch, number, at):
    path = write_dicom(tmp_path / "a.dcm", draw_film(0))
    disk = Disk(monkeypatch, number, at=at, times=3)
    for reader in (read_header, read_shape, read_film):
        disk.left = 3
        reader(path)
    assert disk.failed == 9


@pytest.mark.parametrize("at", ["open", "read"])
def test_error_that_stays_ends_the_reading_and_is_no_fault_of_the_file(tmp_path, monkeypatch, at):
    path = write_dicom(tmp_path / "a.dcm", draw_film(0))
    Disk(monkeypatch, errno.EIO, at=at, times=1000)
    with pytest.raises(OSError, match=r"a\.dcm could not be read 6 times .*the disk says no.*same command goes on"):
        read_film(path)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG])
def test_what_is_the_files_own_fault_is_told_at_once(tmp_path, monkeypatch, number):
    path = write_dicom(tmp_path / "a.dcm", draw_film(0))
    disk = Disk(monkeypatch, number, at="open", times=1000)
    with pytest.raises(ReadError, match="unreadable: cannot be opened"):
        read_film(path)
    assert disk.failed == 1


@pytest.mark.parametrize("at", ["open", "read"])
def test_build_over_a_disk_that_stumbles_leaves_nothing_out(tmp_path, monkeypatch, at):
    root = write_pairs(tmp_path / "pairs")
    whole = build(settings_for(root), str(tmp_path / "whole"), workers=0)
    Disk(monkeypatch, errno.ESTALE, at=at, times=3)
    card = build(settings_for(root), str(tmp_path / "out"), workers=0)
    assert card.fingerprint == whole.fingerprint and pd.read_csv(tmp_path / "out" / "_rejected.csv").empty


def test_build_over_a_dead_disk_ends_with_its_word_and_goes_on_later(tmp_path, monkeypatch):
    root = write_pairs(tmp_path / "pairs")
    whole = build(settings_for(root), str(tmp_path / "whole"), workers=0)
    with monkeypatch.context() as broken:
        Disk(broken, errno.EIO, at="read", times=10**6, name="images/p09")
        with pytest.raises(OSError, match="the disk's or the network's, not the file's"):
            build(settings_for(root), str(tmp_path / "out"), workers=0)
    assert build(settings_for(root), str(tmp_path / "out"), workers=0).fingerprint == whole.fingerprint


def test_memory_that_is_short_is_no_fault_of_the_file(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", draw_film(0))

    def short(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("data_prep.read.dicom._read_native", short)
    with pytest.raises(MemoryError):
        read_film(path)


def test_error_is_not_remembered(tmp_path, monkeypatch):
    """A file that may not be opened today is looked at again tomorrow."""
    root = write_pairs(tmp_path / "pairs")
    with monkeypatch.context() as broken:
        Disk(broken, errno.EACCES, at="open", times=10**6, name="images/p01")
        build(settings_for(root), str(tmp_path / "a"), workers=0)
    assert len(pd.read_csv(Path(tmp_path / "a" / "_rejected.csv"))) == 1
    build(settings_for(root), str(tmp_path / "b"), workers=0)
    assert pd.read_csv(tmp_path / "b" / "_rejected.csv").empty
