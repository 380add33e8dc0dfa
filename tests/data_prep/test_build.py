"""The build: what it leaves out, puts right, repeats and refuses. One test runs it on Ray.

pytest tests/data_prep/test_build.py
"""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from cluster.storage import Folder
from data_prep import write
from data_prep.build import BuildProgress, build
from data_prep.finish import write_lists
from data_prep.on_ray import RayWorkers
from data_prep.plan import plan, source_sha256
from data_prep.schema import Lesion, Rejected, Sample
from data_prep.shape.geometry import Geometry
from data_prep.shape.prepare import prepare_sample
from data_prep.shards import REJECTED, open_shards
from tests.data_prep.small_pairs import contents, draw_film, draw_lesion, settings_for, write_pairs
from tests.file_tree import ROOT


def reasons(out: Path, file: str = "_rejected.csv") -> dict[str, str]:
    log = pd.read_csv(out / file, dtype=str, keep_default_na=False)
    return dict(zip(log["sample_id"], log.iloc[:, 2], strict=True))


def frame(out: Path, split: str = "*") -> pd.DataFrame:
    return pd.concat([pd.read_parquet(file) for file in sorted(out.glob(f"{split}/*.parquet"))])


def test_a_mask_lies_where_the_lesion_is(shards_path):
    """Lesions are drawn at one place of the breast: after mirroring they must lie at one place of the samples."""
    table = frame(shards_path)
    one = table[table["lesions"].str.len() == 1]
    assert set(one["flipped"]) == {True, False}
    for row in one.itertuples():
        mask_SS = np.frombuffer(row.mask, np.uint8).reshape(64, 64)
        y, x = np.nonzero(mask_SS)
        top, left, bottom, right = row.box
        scale = 64 / max(bottom - top, right - left)
        assert y.mean() == pytest.approx((90 - top) * scale, abs=1)
        assert x.mean() == pytest.approx(30 * scale, abs=1)


def test_a_row_leads_back_to_the_film(shards_path):
    """The masks of the samples, put back, are the masks that were drawn."""
    for _, row in frame(shards_path).iterrows():
        drawn_HW = np.zeros((240, 160), bool)
        number = int(row["patient_id"][1:])
        for lesion in range(2 if number % 3 == 0 else 1):
            drawn_HW |= draw_lesion(30 + 30 * lesion, 90 + 40 * lesion, 6 + number % 4, side=row["side"]) > 0
        mask_SS = np.frombuffer(row["mask"], np.uint8).reshape(64, 64)
        back_HW = Geometry.from_row(row).undo(mask_SS) > 0
        assert (drawn_HW & back_HW).sum() / (drawn_HW | back_HW).sum() > 0.7


def test_card_counts_what_is_there(shards_path):
    card = json.loads((shards_path / "_card.json").read_text())
    table = frame(shards_path)
    assert sum(card["samples"].values()) == len(table) == 12
    assert sum(card["lesions"].values()) == sum(map(len, table["lesions"])) == 16
    assert list(card["files"]) == sorted(p.relative_to(shards_path).as_posix() for p in shards_path.glob("*/*.parquet"))
    assert card["image_columns"] == {"clahe": "image", "minmax": "image_minmax"}
    assert card["columns"] == list(table.columns)
    assert not (shards_path / ".building").exists()


def test_unusable_files_are_listed_and_the_rest_is_built(tmp_path):
    root = write_pairs(
        tmp_path / "pairs",
        changes={
            "images/p01_RIGHT_CC.png": b"",
            "images/p02_LEFT_CC.png": b"no image at all, but some bytes",
            "images/p04_LEFT_CC.png": np.zeros((240, 160), np.uint16),
            "masks/p05_RIGHT_CC_0.png": np.zeros((240, 160), np.uint8),
            "masks/p03_RIGHT_CC_1.png": np.zeros((240, 160), np.uint8),
        },
    )
    card = build(settings_for(root), str(tmp_path / "out"), workers=0)
    log = pd.read_csv(tmp_path / "out" / "_rejected.csv")
    codes = {(Path(str(row.path)).stem, str(row.reason).split(":")[0]) for row in log.itertuples()}
    assert {
        ("p01_RIGHT_CC", "empty_file"),
        ("p02_LEFT_CC", "not_dicom"),
        ("p04_LEFT_CC", "no_breast"),
        ("p05_RIGHT_CC_0", "mask_black"),
        ("p05_RIGHT_CC", "no_lesion"),
        ("p03_RIGHT_CC_1", "mask_black"),
    } <= codes
    assert sum(card.samples.values()) == 8  # p03 has another lesion
    kept = frame(tmp_path / "out").set_index("patient_id")
    assert "lesions_left_out: 1 of 2 (mask_black)" in kept.loc["p03", "repairs"]


def test_mask_at_another_scale_is_brought_to_the_film(tmp_path):
    large = cv2.resize(draw_lesion(30, 90, 8), None, fx=1.5, fy=1.5, interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(tmp_path / "film.png"), draw_film(0))
    cv2.imwrite(str(tmp_path / "mask.png"), large)
    sample = Sample(
        sample_id="a",
        patient_id="p",
        image=str(tmp_path / "film.png"),
        lesions=(Lesion(lesion_id="1", mask=str(tmp_path / "mask.png")),),
        split="train",
    )
    settings = settings_for(tmp_path)
    prepared = prepare_sample(sample, settings)
    assert [item.repair for item in prepared.repaired] == ["mask_rescaled: mask 360 x 240, image 240 x 160"]
    lesion = prepared.rows[0]["lesions"][0]
    top, _, bottom, _ = prepared.rows[0]["box"]
    assert lesion["area_px"] == pytest.approx(np.pi * 8**2 * (64 / (bottom - top)) ** 2, rel=0.2)

    cv2.imwrite(str(tmp_path / "mask.png"), cv2.resize(large, None, fx=1.05, fy=1))
    prepared = prepare_sample(sample, settings)
    assert not prepared.rows
    assert [item.reason.split(":")[0] for item in prepared.rejected] == ["mask_other_aspect", "no_lesion"]


def test_lesion_outside_the_breasts_box_shows_the_whole_film(tmp_path):
    root = write_pairs(tmp_path / "pairs", changes={"masks/p01_RIGHT_CC_0.png": draw_lesion(150, 12, 5, side="RIGHT")})
    build(settings_for(root), str(tmp_path / "out"), workers=0)
    row = frame(tmp_path / "out").set_index("patient_id").loc["p01"]
    assert list(row["box"]) == [0, 0, 240, 160]
    assert "box_missed_lesion" in row["repairs"]
    assert np.frombuffer(row["mask"], np.uint8).any()


def test_lesion_view_has_one_sample_a_lesion_and_shows_its_neighbours(tmp_path, pairs_root):
    settings = settings_for(pairs_root, field_of_view="lesion", lesion_margin=1.5)
    card = build(settings, str(tmp_path / "out"), workers=0)
    table = frame(tmp_path / "out").set_index("sample_id")
    assert sum(card.samples.values()) == len(table) == 16
    two = table[table["patient_id"] == "p00"]
    assert len(two) == 2
    for row in two.itertuples():
        top, left, bottom, right = row.box
        assert bottom - top == right - left
        assert row.lesions[0]["area_px"] > 30


def test_splits_are_by_patient_and_the_same_film_is_in_one_split_only(tmp_path):
    """Two patients with the same film: it stays in the stricter split."""
    root = write_pairs(tmp_path / "pairs")
    index = pd.read_csv(root / "index.csv")
    index["split"] = ["test" if p in ("p00", "p02") else "train" for p in index["patient_id"]]
    index.to_csv(root / "index.csv", index=False)
    shutil.copy(root / "images/p00_LEFT_CC.png", root / "images/p04_LEFT_CC.png")
    card = build(settings_for(root), str(tmp_path / "out"), workers=0)
    table = frame(tmp_path / "out")
    assert sum(card.samples.values()) == len(table) == 11
    assert table.set_index("patient_id").loc["p00", "split"] == "test"
    assert "p04" not in set(table["patient_id"])
    dropped = [reason for reason in reasons(tmp_path / "out").values() if reason.startswith("duplicate")]
    assert len(dropped) == 1
    assert "p00_LEFT_CC" in dropped[0]
    open_shards(str(tmp_path / "out")).check()


def test_the_same_build_gives_the_same_bytes(tmp_path, pairs_root, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    settings = settings_for(pairs_root)
    for name in ("a", "b"):
        build(settings, str(tmp_path / name / "shards"), workers=0)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert json.loads(contents(tmp_path / "a")["shards/_card.json"])["created_at"] == "2023-11-14T22:13:20+00:00"


def test_finished_shards_are_not_made_again(tmp_path, pairs_root, monkeypatch):
    settings = settings_for(pairs_root)
    whole = tmp_path / "whole"
    build(settings, str(whole), workers=0)
    out = tmp_path / "out"
    made = []

    def prepare_some(sample, settings, fetched):
        made.append(sample.sample_id)
        if len(made) == 6:
            raise KeyboardInterrupt
        return prepare_sample(sample, settings, fetched)

    monkeypatch.setattr(write, "prepare_sample", prepare_some)
    with pytest.raises(KeyboardInterrupt):
        build(settings, str(out), workers=0)
    first = list(made)
    (out / "train" / "00007.parquet.tmp-12345678").write_bytes(b"left behind")
    assert not (out / "_card.json").exists()
    states: list[BuildProgress] = []
    build(settings, str(out), workers=0, progress=states.append)
    again = set(made[len(first) :])
    assert again.isdisjoint(first[:4])  # the first shard was finished
    assert set(first) | again == set(frame(whole)["sample_id"])
    assert next(state for state in states if state.total).done == 4
    assert contents(out, without=("_card.json",)) == contents(whole, without=("_card.json",))


def test_a_damaged_shard_of_an_unfinished_build_is_made_again(tmp_path, pairs_root):
    settings = settings_for(pairs_root)
    out = tmp_path / "out"
    build(settings, str(out), workers=0)
    before = contents(out, without=("_card.json",))
    samples = [Sample(sample_id="x", patient_id="p", image="x", lesions=(), split="train")]
    task = plan(samples, settings, source_sha256(samples, [], None, {"x": 1}))[0]
    assert write.finished(task, Folder(out)) is None
    (out / "_card.json").unlink()
    (out / "train/00000.parquet").write_bytes(b"half a file")
    build(settings, str(out), workers=0)
    assert contents(out, without=("_card.json",)) == before


def test_a_finished_folder_is_left_as_it_is(tmp_path, pairs_root, monkeypatch):
    settings = settings_for(pairs_root)
    build(settings, str(tmp_path / "out"), workers=0)
    before = contents(tmp_path)
    monkeypatch.setattr(write, "prepare_sample", lambda *_: pytest.fail("nothing is to be prepared"))
    build(settings, str(tmp_path / "out"), workers=0)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused_with_the_difference(tmp_path, pairs_root, finished):
    out = tmp_path / "out"
    build(settings_for(pairs_root), str(out), workers=0)
    if not finished:
        settings = settings_for(pairs_root).model_dump(mode="json")
        (out / "_card.json").unlink()
        Folder(out).write_json(".building/settings.json", {"settings": settings, "source_sha256": "0"})
        Folder(out).write_json(".building/train-00000.json", {})  # a finished shard's report
    with pytest.raises(ValueError, match=r"size_px: 64 there, 96 now.*--overwrite"):
        build(settings_for(pairs_root, size_px=96), str(out), workers=0)
    card = build(settings_for(pairs_root, size_px=96), str(out), workers=0, overwrite=True)
    assert card.settings.size_px == 96


def test_a_changed_source_is_refused(tmp_path):
    root = write_pairs(tmp_path / "pairs")
    build(settings_for(root), str(tmp_path / "out"), workers=0)
    write_pairs(root, changes={"images/p01_RIGHT_CC.png": b""})
    with pytest.raises(ValueError, match=r"source's files have changed"):
        build(settings_for(root), str(tmp_path / "out"), workers=0)


def test_a_moved_source_is_the_same_source(tmp_path):
    root = write_pairs(tmp_path / "pairs")
    card = build(settings_for(root), str(tmp_path / "out"), workers=0)
    root.rename(tmp_path / "elsewhere")
    assert build(settings_for(tmp_path / "elsewhere"), str(tmp_path / "out"), workers=0) == card


def test_overwrite_spares_folders_that_are_no_shards(tmp_path, pairs_root):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        build(settings_for(pairs_root), str(tmp_path), workers=0, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_nothing_usable_is_a_mistake_that_says_why(tmp_path):
    root = write_pairs(tmp_path / "pairs", patients=8)
    for film in (root / "images").iterdir():
        cv2.imwrite(str(film), np.zeros((240, 160), np.uint16))
    with pytest.raises(ValueError, match=r"no sample could be built: 8 inputs were left out .8 x no_breast"):
        build(settings_for(root), str(tmp_path / "out"), workers=0)


def test_shards_of_a_split_are_of_equal_size(tmp_path):
    samples = [
        Sample(sample_id=f"s{n:02d}", patient_id="p", image="x", lesions=(), split="train") for n in reversed(range(10))
    ]
    tasks = plan(samples, settings_for(tmp_path), "0")
    assert [task.file for task in tasks] == [f"train/0000{n}.parquet" for n in range(3)]
    assert [len(task.samples) for task in tasks] == [3, 3, 4]
    assert [s.sample_id for task in tasks for s in task.samples] == [f"s{n:02d}" for n in range(10)]


@pytest.mark.slow
def test_shards_may_lie_in_an_object_store(pairs_root, monkeypatch):
    from tests.cluster.object_store import BUCKET, ENVIRONMENT, server

    with server() as (host, port):
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            monkeypatch.setenv(name, value)
        uri = f"s3://{BUCKET}/small"
        settings = settings_for(pairs_root)
        card = build(settings, uri, workers=0)
        shards = open_shards(uri)
        shards.check()
        assert shards.load("train", "clahe").images_NHW.shape == (card.samples["train"], 64, 64)
        assert shards.folder.names() == ["_card.json", "_rejected.csv", "_repaired.csv", "test", "train", "val"]
        assert build(settings, uri, workers=0) == card


@pytest.mark.ray
def test_ray_gives_the_same_bytes_on_any_number_of_workers(tmp_path, pairs_root):
    alone = tmp_path / "alone"
    build(settings_for(pairs_root), str(alone), workers=0)
    for workers in (1, 2):
        out, states = tmp_path / str(workers), []
        build(settings_for(pairs_root), str(out), workers=RayWorkers(workers), progress=states.append)
        tried = [state.built_here for state in states if state.stage == "prepare"]
        assert len(tried) == 1 + len(json.loads((out / "_card.json").read_text())["files"])  # each shard is told of
        assert contents(out, without=("_card.json",)) == contents(alone, without=("_card.json",))
    cards = [json.loads((out / "_card.json").read_text()) for out in (alone, tmp_path / "1", tmp_path / "2")]
    assert len({card["fingerprint"] for card in cards}) == 1


BUILD_SCRIPT = """
import os, signal, sys
from data_prep.build import build
from data_prep.on_ray import RayWorkers
from data_prep.schema import BuildSettings
settings, out, kill_after = BuildSettings.model_validate_json(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def progress(now):
    if now.stage == "prepare" and 0 <= kill_after <= now.built_here:
        os.kill(os.getpid(), signal.SIGKILL)
build(settings, out, workers=RayWorkers(2), progress=progress)
"""
"""Builds, and is killed once it has built so many images itself; a negative number lets it end."""


@pytest.mark.soak
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_builds_end_as_an_undisturbed_one(tmp_path, monkeypatch):
    """SIGKILL to the building process ten times, at different moments; then the same build until it ends.

    The process kills itself at a given image, so that a fast machine is killed as often as a slow one. The tasks that
    run then still end, some eight shards of two images: the films are enough for ten times that.
    """
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    root = write_pairs(tmp_path / "pairs", patients=300)
    settings = settings_for(root, samples_per_shard=2, normalisations=["clahe", "minmax", "zscore"])
    build(settings, str(tmp_path / "undisturbed" / "out"), workers=0)
    out = tmp_path / "killed" / "out"
    command = [sys.executable, "-c", BUILD_SCRIPT, settings.model_dump_json(), str(out)]
    for kill_after in (0, 1, 2, 3, 4, 5, 6, 7, 0, 1):
        killed = subprocess.run([*command, str(kill_after)], cwd=ROOT, capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, f"not killed after {kill_after} images: {killed.stderr}"
    assert not (out / "_card.json").exists()
    subprocess.run([*command, "-1"], cwd=ROOT, check=True, capture_output=True)
    assert contents(out.parent) == contents(tmp_path / "undisturbed")


def test_cells_that_a_spreadsheet_would_compute_are_quoted(tmp_path):
    write_lists(Folder(tmp_path), [Rejected(path="-1.png", sample_id="=1+1", reason="no_lesion: @none")], [])
    rows = list(csv.reader((tmp_path / REJECTED).read_text().splitlines()))
    assert rows[1] == ["'-1.png", "'=1+1", "no_lesion: @none"]
