"""What is annotated on a film, what is lost of it, and which films have nothing: none of it in silence.

pytest tests/data_prep/test_labels.py
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from data_prep.build import build
from data_prep.find.cbis_ddsm import find_samples
from data_prep.phantom.patients import write_phantoms
from data_prep.read.dicom import read_image
from data_prep.schema import BuildSettings, DatasetCard, Found, Sample
from data_prep.shards import open_shards
from tests.data_prep.small_pairs import draw_film, draw_lesion, settings_for, write_pairs
from tests.data_prep.trees import SMALL_TREE, mask_of, replace_pixels, rewrite


def frame(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out).set_index("patient_id")


def rejected(out: Path) -> list[str]:
    return [str(reason).split(":")[0] for reason in pd.read_csv(out / "_rejected.csv")["reason"]]


def with_splits(root: Path, **splits: list[str]) -> Path:
    """Write official splits into the CSV of `write_pairs`; train is the rest."""
    index = pd.read_csv(root / "index.csv")
    where = {patient: split for split, patients in splits.items() for patient in patients}
    index["split"] = [where.get(patient, "train") for patient in index["patient_id"]]
    index.to_csv(root / "index.csv", index=False)
    return root


SPLITS = {"test": ["p00", "p01"], "val": ["p02", "p03"]}
"""p00, p03, p06, p09 have two lesions."""


@pytest.mark.parametrize("how", ["missing", "black", "broken", "other_aspect"])
@pytest.mark.parametrize(("incomplete", "kept"), [("train", {"p06"}), ("keep", {"p00", "p03", "p06"}), ("drop", set())])
def test_film_that_lost_a_lesion_is_marked_or_left_out_as_the_settings_want(tmp_path, how, incomplete, kept):
    root = with_splits(write_pairs(tmp_path / "pairs"), **SPLITS)
    for patient, side in (("p00", "LEFT"), ("p03", "RIGHT"), ("p06", "LEFT")):
        mask = root / "masks" / f"{patient}_{side}_CC_1.png"
        {
            "missing": lambda m: m.unlink(),
            "black": lambda m: cv2.imwrite(str(m), np.zeros((240, 160), np.uint8)),
            "broken": lambda m: m.write_bytes(b"no image"),
            "other_aspect": lambda m: cv2.imwrite(str(m), np.full((240, 200), 255, np.uint8)),
        }[how](mask)
    card = build(settings_for(root, incomplete=incomplete), str(tmp_path / "out"), workers=0)
    table = frame(tmp_path / "out")
    marked = table[table["repairs"].str.contains("lesions_left_out: 1 of 2")]
    assert set(marked.index) == kept and set(table.index) & {"p00", "p03", "p06"} == kept
    assert rejected(tmp_path / "out").count("incomplete") == 3 - len(kept)
    assert any(f"3 films lack lesions.*: {len(kept)} kept".split(".*")[1] in note for note in card.warnings)
    repairs = pd.read_csv(tmp_path / "out" / "_repaired.csv")["repair"]
    assert repairs.str.startswith("lesions_left_out").sum() >= len(kept)


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clean") / "tree"
    write_phantoms(SMALL_TREE, folder)
    return folder


@pytest.fixture
def tree(clean, tmp_path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "tree"))


def find(root: Path) -> Found:
    return find_samples(BuildSettings(source="cbis_ddsm", root=str(root)))


def double(found: Found) -> Sample:
    return next(s for s in found.samples if len(s.lesions) == 2)


def blacken(mask: Path) -> None:
    replace_pixels(mask, np.zeros_like(read_image(mask)))
    rewrite(mask, LargestImagePixelValue=0)


@pytest.mark.parametrize("how", ["missing", "black", "other_aspect", "truncated"])
def test_cbis_film_that_lost_a_lesion_is_marked(tree, how):
    name = double(find(tree)).sample_id
    mask = mask_of(tree, f"{name}_1")
    {
        "missing": lambda: mask.unlink(),
        "black": lambda: (
            replace_pixels(mask, np.zeros_like(read_image(mask))) or rewrite(mask, LargestImagePixelValue=0)
        ),
        "other_aspect": lambda: replace_pixels(mask, np.full((90, 90), 255, np.uint8)),
        "truncated": lambda: mask.write_bytes(mask.read_bytes()[:-50]),
    }[how]()
    found = find(tree)
    sample = next(s for s in found.samples if s.sample_id == name)
    assert sample.lost == 1
    assert [r for r in sample.repairs if r.startswith("lesions_left_out: 1 of 2")]
    assert [r.repair for r in found.repaired if r.sample_id == name and r.repair.startswith("lesions_left_out")]


def test_half_a_download_says_how_many_films_are_incomplete(tree, tmp_path):
    for sample in find(tree).samples:
        if len(sample.lesions) == 2:
            Path(sample.lesions[1].mask).unlink()
    settings = BuildSettings(source="cbis_ddsm", root=str(tree), size_px=64, incomplete="keep", val_fraction=0.3)
    card = build(settings, str(tmp_path / "out"), workers=0)
    assert any("films lack lesions whose masks are missing or broken" in note for note in card.warnings)


@pytest.mark.parametrize("inverted", [True, False])
def test_mask_of_air_and_mask_of_half_the_breast_are_named(tmp_path, inverted):
    mask = 255 - draw_lesion(30, 90, 8) if inverted else (draw_film(1) > 0).astype(np.uint8) * 255
    root = write_pairs(tmp_path / "pairs", changes={"masks/p02_LEFT_CC_0.png": mask})
    build(settings_for(root), str(tmp_path / "out"), workers=0)
    assert sorted(rejected(tmp_path / "out")) == ["mask_inverted" if inverted else "mask_too_large", "no_lesion"]


def test_crops_that_a_lesion_fills_are_taken_where_films_are_no_whole_breasts(tmp_path):
    large = np.zeros((240, 160), np.uint8)
    cv2.ellipse(large, (0, 120), (80, 80), 0, -90, 90, 255, -1)
    root = write_pairs(tmp_path / "pairs", changes={"masks/p02_LEFT_CC_0.png": large})
    card = build(settings_for(root, crop_to_breast=False), str(tmp_path / "out"), workers=0)
    assert sum(card.samples.values()) == 12


def test_every_mask_inverted_ends_in_a_message_that_says_so(tmp_path):
    changes = {}
    for number in range(12):
        side = "RIGHT" if number % 2 else "LEFT"
        for lesion in range(2 if number % 3 == 0 else 1):
            changes[f"masks/p{number:02d}_{side}_CC_{lesion}.png"] = 255 - draw_lesion(30, 90, 8, side=side)
    with pytest.raises(ValueError, match=r"16 x mask_inverted.*_rejected\.csv"):
        build(settings_for(write_pairs(tmp_path / "pairs", changes=changes)), str(tmp_path / "out"), workers=0)


def healthy_pairs(root: Path) -> Path:
    """p04 has an empty mask cell, p05 a black mask."""
    root = with_splits(
        write_pairs(root, changes={"masks/p05_RIGHT_CC_0.png": np.zeros((240, 160), np.uint8)}), **SPLITS
    )
    index = pd.read_csv(root / "index.csv", dtype=str)
    index.loc[index["patient_id"] == "p04", "mask"] = ""
    index.to_csv(root / "index.csv", index=False)
    return root


def test_healthy_films_are_samples_with_an_empty_mask_where_wanted(tmp_path):
    root = healthy_pairs(tmp_path / "pairs")
    card = build(settings_for(root, healthy="keep"), str(tmp_path / "out"), workers=0)
    table = frame(tmp_path / "out")
    assert sum(card.samples.values()) == len(table) == 12
    for patient in ("p04", "p05"):
        assert not any(table.loc[patient, "mask"]) and len(table.loc[patient, "lesions"]) == 0
    assert sum(card.lesions.values()) == 14
    train = open_shards(tmp_path / "out").load("train", "clahe")
    assert sorted(train.masks_NHW.reshape(len(train), -1).any(axis=1)) == [False] * 2 + [True] * 6


def test_healthy_films_are_left_out_by_name_otherwise(tmp_path):
    build(settings_for(healthy_pairs(tmp_path / "pairs")), str(tmp_path / "out"), workers=0)
    assert sorted(rejected(tmp_path / "out")) == ["healthy", "mask_black", "no_lesion"]
    settings = settings_for(healthy_pairs(tmp_path / "other"), healthy="keep", field_of_view="lesion")
    build(settings, str(tmp_path / "lesions"), workers=0)
    assert sorted(rejected(tmp_path / "lesions")) == ["healthy", "healthy"]


def named_pairs(root: Path) -> Path:
    """Twelve films of as many patients without a CSV."""
    root = write_pairs(root)
    (root / "index.csv").unlink()
    for mask in (root / "masks").glob("*_1.png"):
        mask.unlink()
    for mask in (root / "masks").glob("*_0.png"):
        mask.rename(mask.with_name(mask.name.replace("_0.png", ".png")))
    return root


def by_names(root: Path, **changes: object) -> BuildSettings:
    return settings_for(root, index_csv=None, **changes)


def test_one_lesion_in_two_formats_is_one(tmp_path):
    root = named_pairs(tmp_path / "pairs")
    mask = cv2.imread(str(root / "masks" / "p02_LEFT_CC.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(root / "masks" / "p02_LEFT_CC.jpg"), mask)
    build(by_names(root, field_of_view="lesion"), str(tmp_path / "out"), workers=0)
    table = frame(tmp_path / "out")
    assert table.index.tolist().count("p02") == 1 and not table["sample_id"].duplicated().any()
    log = pd.read_csv(tmp_path / "out" / "_rejected.csv")
    assert log["reason"].str.startswith("duplicate").tolist() == [True] and log["path"][0].endswith(".jpg")


def test_numbered_and_bare_masks_of_one_film_have_ids_of_their_own(tmp_path):
    root = named_pairs(tmp_path / "pairs")
    for suffix, x in (("_mask", 30), ("_mask_1", 60), ("_2", 80)):
        cv2.imwrite(str(root / "masks" / f"p02_LEFT_CC{suffix}.png"), draw_lesion(x, 130, 6))
    (root / "masks" / "p02_LEFT_CC.png").unlink()
    build(by_names(root, field_of_view="lesion"), str(tmp_path / "out"), workers=0)
    names = sorted(frame(tmp_path / "out").loc["p02", "sample_id"])
    assert names == ["p02_LEFT_CC_0", "p02_LEFT_CC_1", "p02_LEFT_CC_2"]


def test_rows_that_give_one_id_to_two_lesions_keep_both(tmp_path):
    root = write_pairs(tmp_path / "pairs")
    index = pd.read_csv(root / "index.csv", dtype=str)
    index["lesion_id"] = "1"
    index.to_csv(root / "index.csv", index=False)
    card = build(settings_for(root, field_of_view="lesion"), str(tmp_path / "out"), workers=0)
    assert sum(card.samples.values()) == 16
    assert not frame(tmp_path / "out")["sample_id"].duplicated().any()


def test_mask_without_a_film_is_a_row(tmp_path):
    root = named_pairs(tmp_path / "pairs")
    (root / "images" / "p02_LEFT_CC.png").unlink()
    build(by_names(root), str(tmp_path / "out"), workers=0)
    assert rejected(tmp_path / "out") == ["without_film"]


@pytest.mark.parametrize("folders", [("Images", "Masks"), ("IMAGES", "masks")])
def test_folders_in_capitals_are_found(tmp_path, folders):
    root = named_pairs(tmp_path / "pairs")
    for folder, name in zip(("images", "masks"), folders, strict=True):
        (root / folder).rename(root / f"{folder}.moved")
        (root / f"{folder}.moved").rename(root / name)
    card = build(by_names(root), str(tmp_path / "out"), workers=0)
    assert sum(card.samples.values()) == 12
    assert set(frame(tmp_path / "out")["sample_id"]) >= {"p02_LEFT_CC"}


def test_root_one_level_too_high_and_data_behind_a_link_are_named(tmp_path):
    root = named_pairs(tmp_path / "above" / "pairs")
    with pytest.raises(ValueError, match=r"looked for `images/` and `masks/`.*pairs/ with 24 files.*_rejected\.csv"):
        build(by_names(tmp_path / "above"), str(tmp_path / "out"), workers=0)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "images").symlink_to(root / "images")
    with pytest.raises(ValueError, match=r"no file; links out of it are not followed, as .*linked/images to .*/images"):
        build(by_names(tmp_path / "linked"), str(tmp_path / "out"), workers=0)
    assert rejected(tmp_path / "out") == ["outside_root"]
    assert sum(build(by_names(root), str(tmp_path / "out"), workers=0).samples.values()) == 12


def test_only_masks_or_only_films_end_in_a_message_with_every_file_listed(tree, tmp_path):
    films = [Path(s.image) for s in find(tree).samples]
    for film in films:
        film.unlink()
    with pytest.raises(ValueError, match=r"looked for DICOM files whose PatientID.*10 x image_missing"):
        build(BuildSettings(source="cbis_ddsm", root=str(tree)), str(tmp_path / "out"), workers=0)
    log = pd.read_csv(tmp_path / "out" / "_rejected.csv")
    assert set(log["path"]) >= {str(path) for path in tree.rglob("*.dcm")}


def test_missing_case_csv_is_named(tree):
    csv = next(p for p in tree.rglob("mass_case_description_test_set.csv"))
    csv.unlink()
    assert any("no case-description CSV of mass test" in warning for warning in find(tree).warnings)


def test_csv_in_latin_1_and_paths_in_full_are_read(tmp_path):
    root = write_pairs(tmp_path / "pairs")
    index = pd.read_csv(root / "index.csv", dtype=str)
    index["image"] = [str(root / path) for path in index["image"]]
    index["mask"] = ["./" + path.replace("/", "\\") for path in index["mask"]]
    index["patient_id"] = ["M\u00fcller" if p == "p02" else p for p in index["patient_id"]]
    index.to_csv(root / "index.csv", index=False, encoding="latin-1")
    card = build(settings_for(root), str(tmp_path / "out"), workers=0)
    assert sum(card.samples.values()) == 12 and "M\u00fcller" in frame(tmp_path / "out").index
    assert "not_utf8: byte 0xfc in line 5" in (tmp_path / "out" / "_repaired.csv").read_text()


def test_case_csv_in_latin_1_is_read(tree):
    csv = next(tree.rglob("mass_case_description_train_set.csv"))
    csv.write_bytes(re.sub(rb"MALIGNANT|BENIGN", b"\xdcBERLEGT", csv.read_bytes(), count=1))
    found = find(tree)
    assert found.samples and any(r.repair.startswith("not_utf8") for r in found.repaired)


def test_split_that_would_end_empty_is_refused_and_leaves_no_claim(tmp_path):
    broken = {f"masks/{name}_0.png": np.zeros((240, 160), np.uint8) for name in ("p01_RIGHT_CC", "p02_LEFT_CC")}
    root = with_splits(write_pairs(tmp_path / "pairs", changes=broken), test=["p01"], val=["p02"])
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"val and test would hold no sample: .*2 x mask_black.*_rejected\.csv"):
        build(settings_for(root), str(out), workers=0)
    assert rejected(out).count("mask_black") == 2
    assert not list(out.glob("*/*.parquet")) and not (out / ".building").exists() and not (out / "_card.json").exists()


def test_source_without_test_films_of_its_own_is_taken(tmp_path):
    root = with_splits(write_pairs(tmp_path / "pairs"), val=["p02"])
    assert build(settings_for(root), str(tmp_path / "out"), workers=0).samples["test"] == 0


@pytest.fixture
def two_halves(tree) -> tuple[Path, Sample]:
    """A view that is there as a mass and, of the same pixels, as a calcification."""
    sample = double(find(tree))
    kind, part, rest = sample.sample_id.split("-")[0], *sample.sample_id.split("-")[1].split("_", 1)
    other = "Calc" if kind == "Mass" else "Mass"
    copy_as(tree, sample.sample_id, f"{other}-{part}_{rest}")
    return tree, sample


def copy_as(tree: Path, name: str, other: str) -> None:
    """Copy an image with its first lesion under another name, with a row in the CSV of that kind."""
    import hashlib

    for source in (name, f"{name}_1"):
        for path in sorted((tree / "CBIS-DDSM" / source).rglob("*.dcm")):
            target = tree / "CBIS-DDSM" / other / path.parts[-3] / path.parts[-2] / (source[-1] + path.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            uid = "2.25." + str(int(hashlib.sha256(str(target).encode()).hexdigest()[:20], 16))
            rewrite(target, PatientID=source.replace(name, other), SeriesInstanceUID=uid)
    kind, part = other.split("-")[0].lower(), "train" if "Training" in other else "test"
    csv = tree / "csv" / f"{kind}_case_description_{part}_set.csv"
    table = pd.read_csv(csv, dtype=str)
    patient, side, view = other.split("_", 1)[1].rsplit("_", 2)
    values = {"patient_id": patient, "left or right breast": side, "image view": view, "abnormality id": "1"}
    paths = {c: f"{other}/1/2/0.dcm" for c in table.columns if c.endswith("file path")}
    row = {**dict.fromkeys(table.columns, "N/A"), **values, **paths, "pathology": "MALIGNANT"}
    pd.concat([table, pd.DataFrame([row])]).to_csv(csv, index=False, lineterminator="\r\n")


def test_mass_and_calcification_of_one_view_are_one_sample(two_halves, tmp_path):
    tree, _ = two_halves
    found = find(tree)
    joined = next(s for s in found.samples if s.kind == "mass+calc")
    assert len(joined.lesions) == 3 and joined.sample_id.startswith("Mass-")
    assert len({lesion.lesion_id for lesion in joined.lesions}) == 3
    assert {lesion.kind for lesion in joined.lesions} == {"mass", "calc"}
    assert [r for r in found.repaired if r.repair.startswith("views_joined")]
    assert len(found.samples) == 10  # as many as without the second half


def test_views_of_other_pixels_stay_two(two_halves):
    tree, sample = two_halves
    other = next(p for p in (tree / "CBIS-DDSM").iterdir() if p.name.split("-")[0] != sample.sample_id.split("-")[0]
                 and p.name.split("_", 1)[1] == sample.sample_id.split("_", 1)[1])  # fmt: skip
    film = next(p for p in other.rglob("*.dcm") if rewrite(p) is None and read_image(p).dtype == np.uint16
                and read_image(p).shape == read_image(sample.image).shape)  # fmt: skip
    replace_pixels(film, np.ascontiguousarray(read_image(film)[::-1]))
    assert "mass+calc" not in {s.kind for s in find(tree).samples}


def test_window_of_the_breast_is_a_setting(tmp_path):
    root = write_pairs(tmp_path / "pairs")
    cards: list[DatasetCard] = []
    for window in ("header", "breast"):
        settings = settings_for(root, window=window, normalisations=["minmax", "zscore"])
        cards.append(build(settings, str(tmp_path / window), workers=0))
    tables = [frame(tmp_path / window) for window in ("header", "breast")]
    assert cards[0].fingerprint != cards[1].fingerprint
    assert (tables[0]["mask"] == tables[1]["mask"]).all()
    assert (tables[0]["image_zscore"] != tables[1]["image_zscore"]).all()
