"""Where shards may be built, and by whom: nothing of a user's is removed, and one build works at a time.

pytest tests/data_prep/test_claim.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from cluster.storage import Folder
from data_prep.build import BuildProgress, build
from data_prep.claim import CLAIM, check_place, locked
from data_prep.schema import BuildSettings
from tests.data_prep.small_pairs import contents, settings_for, write_pairs


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("file", ["train/photo.png", "val/2024/scan.dcm", "test/00000.parquet.bak", "thesis.tex"])
def test_folder_with_a_users_files_is_refused_and_none_is_touched(tmp_path, pairs_root, file, overwrite):
    out = tmp_path / "out"
    (out / file).parent.mkdir(parents=True)
    (out / file).write_text("years of work")
    with pytest.raises(ValueError, match=r"holds .*, which no build makes; choose another folder"):
        build(settings_for(pairs_root), str(out), workers=0, overwrite=overwrite)
    assert contents(out) == {file: b"years of work"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("inside", "word"), [(".", "is"), ("shards", "lies inside of"), ("..", "contains")])
def test_folder_of_the_source_is_refused(tmp_path, inside, word, overwrite):
    root = write_pairs(tmp_path / "above" / "pairs", patients=3)
    before = contents(root)
    with pytest.raises(ValueError, match=rf"out: .* {word} the source's folder"):
        build(settings_for(root), str((root / inside).resolve()), workers=0, overwrite=overwrite)
    assert contents(root) == before


def test_source_reached_by_a_link_is_known(tmp_path):
    root = write_pairs(tmp_path / "pairs", patients=3)
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(ValueError, match="lies inside of"):
        check_place(Folder(tmp_path / "link" / "shards"), str(root))


def test_folders_with_a_common_beginning_of_their_names_are_two(tmp_path):
    check_place(Folder(tmp_path / "shards"), str(tmp_path / "shards-films"))
    with pytest.raises(ValueError, match="lies inside of"):
        check_place(Folder("/data/a/b"), "file:///data/a")


def test_overwrite_removes_what_a_build_made_and_an_older_version_too(tmp_path, pairs_root):
    out = tmp_path / "out"
    build(settings_for(pairs_root), str(out), workers=0)
    for name in ("card.json", "rejected.csv", "repaired.csv", "train/00099.parquet"):
        (out / name).write_text("old")
    card = build(settings_for(pairs_root, size_px=96), str(out), workers=0, overwrite=True)
    assert set(contents(out)) == {*card.files, "_card.json", "_rejected.csv", "_repaired.csv", ".lock"}


def test_failed_build_writes_its_reasons_and_leaves_no_claim(tmp_path):
    """The same command with the right root goes on, without --overwrite."""
    root = write_pairs(tmp_path / "pairs")
    wrong = write_pairs(tmp_path / "wrong", patients=8)
    for film in (wrong / "images").iterdir():
        cv2.imwrite(str(film), np.zeros((240, 160), np.uint16))
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"8 x no_breast.*; see .*_rejected\.csv"):
        build(settings_for(wrong), str(out), workers=0)
    assert len(pd.read_csv(out / "_rejected.csv")) == 8
    assert not (out / ".building").exists()
    assert sum(build(settings_for(root), str(out), workers=0).samples.values()) == 12


def test_claim_without_a_finished_shard_binds_nobody(tmp_path, pairs_root):
    out = tmp_path / "out"
    claim = {"settings": settings_for(pairs_root, size_px=96).model_dump(mode="json"), "source_sha256": "0"}
    Folder(out).write_json(CLAIM, claim)
    assert build(settings_for(pairs_root), str(out), workers=0).settings.size_px == 64


def test_second_build_waits_and_says_so(tmp_path, pairs_root):
    out, stages = tmp_path / "out", []

    def tell(state: BuildProgress) -> None:
        stages.append(state.stage)
        if state.stage == "wait":
            os.kill(holder.pid, 9)  # a lock ends with its process

    out.mkdir()
    code = "import sys, time; from pathlib import Path; from data_prep.claim import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(out / ".lock")], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    build(settings_for(pairs_root), str(out), workers=0, progress=tell)
    holder.wait()
    assert stages[0] == "wait" and "find" in stages


BUILD_SCRIPT = """
import sys, time
from data_prep.build import build
from data_prep.schema import BuildSettings
while time.time() < float(sys.argv[3]):
    time.sleep(0.001)
print(build(BuildSettings.model_validate_json(sys.argv[1]), sys.argv[2], workers=0).fingerprint)
"""


def _build_at_once(settings: BuildSettings, out: Path) -> list[str]:
    words = [sys.executable, "-c", BUILD_SCRIPT, settings.model_dump_json(), str(out), str(time.time() + 4)]
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [(*process.communicate(timeout=300), process.returncode) for process in processes]
    assert [status for _, _, status in ended] == [0, 0], ended
    return [output.strip() for output, _, _ in ended]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_rounds_of_two_builds_at_once_equal_one_alone(tmp_path, monkeypatch):
    """Phantoms, so that both make the films too, and shards of two samples, so that both have many to write."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    phantom = {"patients": 8, "rows": 96, "seed": 5}
    settings = BuildSettings.model_validate({"phantom": phantom, "size_px": 32, "samples_per_shard": 2})
    alone = build(settings, str(tmp_path / "alone" / "shards"), workers=0)
    for number in range(10):
        folder = tmp_path / str(number)
        assert _build_at_once(settings, folder / "shards") == [alone.fingerprint] * 2
        paths = ("_repaired.csv",)  # which names the folder
        assert contents(folder / "shards", without=paths) == contents(tmp_path / "alone" / "shards", without=paths)
        films = {name.split("/", 1)[1]: data for name, data in contents(folder).items() if "-films/" in name}
        there = contents(tmp_path / "alone" / "shards-films")
        assert films == there


def test_lock_of_one_process_is_held_against_another_thread(tmp_path):
    waited: list[int] = []
    second = locked(tmp_path / "lock", waiting=lambda: _interrupt(waited))
    with locked(tmp_path / "lock"), pytest.raises(InterruptedError), second:
        raise AssertionError("both hold it")
    assert waited == [1]


def _interrupt(waited: list[int]) -> None:
    waited.append(1)
    raise InterruptedError
