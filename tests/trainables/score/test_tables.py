from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cluster.storage import Folder
from trainables.score.tables import BINS, IMAGE_SCHEMA, found_mask, read_images, read_marks, write_scores


@dataclass
class Samples:
    images_NHW: np.ndarray
    masks_NHW: np.ndarray
    table: pd.DataFrame


def samples(count: int = 5, side: int = 32) -> Samples:
    masks = np.zeros((count, side, side), np.uint8)
    masks[:, 8:16, 8:16] = 1
    table = pd.DataFrame(
        {
            "sample_id": [f"s{k}" for k in range(count)],
            "patient_id": [f"p{k // 2}" for k in range(count)],
            "side": "LEFT",
            "view": "CC",
            "kind": "mass",
            "pathology": "BENIGN",
            "density": pd.Series([1, None, 3, 4, 2][:count], dtype="Float64"),
            "box": [[0, 0, 640, 320]] * count,
        }
    )
    return Samples(np.arange(count, dtype=np.uint8)[:, None, None] + np.zeros_like(masks), masks, table)


def predict(images_BHW: np.ndarray) -> np.ndarray:
    """A map that depends on the image's number: a gradient, shifted."""
    side = images_BHW.shape[1]
    ramp = np.linspace(0, 1, side, dtype=np.float32)[None, :, None] * np.linspace(0, 1, side, dtype=np.float32)
    return np.clip(ramp + images_BHW / 50.0, 0, 1).astype(np.float32)


def test_one_row_an_image_with_what_the_shards_say_of_it(tmp_path: Path) -> None:
    written = write_scores(Folder(tmp_path), predict, samples(), split="test", threshold=0.5, batch=2)
    read = read_images(Folder(tmp_path))
    assert list(read.columns) == IMAGE_SCHEMA.names
    assert list(read.sample_id) == [f"s{k}" for k in range(5)]
    assert list(read.density.fillna(0)) == [1, 0, 3, 4, 2]
    assert list(read.dice) == list(written.dice)
    assert pd.read_parquet(tmp_path / "test.parquet").shape == read.shape


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_the_batch_changes_nothing(tmp_path: Path, batch: int) -> None:
    one = write_scores(Folder(tmp_path), predict, samples(), split="val", threshold=0.5, batch=batch)
    assert list(one.found_px) == [(predict(samples().images_NHW[k : k + 1]) > 0.5).sum() for k in range(5)]


def test_the_predicted_mask_comes_back_and_is_small(tmp_path: Path) -> None:
    write_scores(Folder(tmp_path), predict, samples(), split="test", threshold=0.5)
    read = read_images(Folder(tmp_path))
    for k, png in enumerate(read.found):
        assert (found_mask(png) == (predict(samples().images_NHW[k : k + 1])[0] > 0.5)).all()
    assert read.found.map(len).max() < 300


def test_the_bins_of_probability_give_the_masks_of_every_twentieth_as_threshold(tmp_path: Path) -> None:
    write_scores(Folder(tmp_path), predict, samples(), split="test", threshold=0.5)
    read = read_images(Folder(tmp_path))
    probability = predict(samples().images_NHW)
    truth = samples().masks_NHW > 0
    for k in range(1, BINS):
        found = probability > k / BINS
        assert [row[k:].sum() for row in read.bin_px] == list(found.sum((1, 2)))
        assert [row[k:].sum() for row in read.bin_lesion_px] == list((found & truth).sum((1, 2)))
    assert read.bin_probability.map(sum).to_numpy() == pytest.approx(probability.sum((1, 2)), rel=1e-5)
    assert [row[BINS // 2 :].sum() for row in read.bin_px] == list(read.found_px)


def test_a_films_spacing_becomes_that_of_the_sample(tmp_path: Path) -> None:
    known = samples()
    known.table["spacing_mm"] = [0.05, None, 0.1, 0.0, float("nan")]
    write_scores(Folder(tmp_path), predict, known, split="test", threshold=0.5)
    read = read_images(Folder(tmp_path))
    assert read.spacing_mm.fillna(-1).to_list() == [1.0, -1, 2.0, -1, -1]
    assert read.hd95_mm.iloc[2] == pytest.approx(2 * read.hd95_px.iloc[2])
    assert read.hd95_mm.isna().to_list() == [False, True, False, True, True]


def test_marks_are_written_of_the_test_split_alone(tmp_path: Path) -> None:
    write_scores(Folder(tmp_path), predict, samples(), split="val", threshold=0.5)
    assert read_marks(Folder(tmp_path)) is None
    write_scores(Folder(tmp_path), predict, samples(), split="test", threshold=0.5)
    marks = read_marks(Folder(tmp_path))
    assert set(marks.sample_id) == {f"s{k}" for k in range(5)}
    assert marks.score.between(0.1, 1).all()


def test_what_was_not_written_is_none(tmp_path: Path) -> None:
    assert read_images(Folder(tmp_path)) is None


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_file_names_itself(tmp_path: Path, damage: str) -> None:
    write_scores(Folder(tmp_path), predict, samples(), split="test", threshold=0.5)
    file = tmp_path / "test.parquet"
    if damage == "other":
        pd.DataFrame({"a": [1]}).to_parquet(file)
    else:
        file.write_bytes(file.read_bytes()[:100] if damage == "cut" else b"")
    with pytest.raises(ValueError, match=r"test\.parquet"):
        read_images(Folder(tmp_path))


def test_a_mask_that_is_no_picture_is_said() -> None:
    with pytest.raises(ValueError, match="found"):
        found_mask(b"no picture")
