from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.find.pairs import find_samples
from data_prep.schema import BuildSettings, Found
from data_prep.split import assign_splits
from tests.data_prep.trees import SHARED, mask_pixels, reasons, repairs, write_dicom

IMAGE = (np.arange(60 * 40).reshape(60, 40) % 251).astype(np.uint8)


def disc(shape: tuple[int, int] = (60, 40), centre: tuple[int, int] = (20, 30)) -> np.ndarray:
    return cv2.circle(np.zeros(shape, np.uint8), centre, 8, 255, -1)


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".dcm":
        return write_dicom(path, image)
    assert cv2.imwrite(str(path), image)
    return path


def find(root: Path, csv: str | None = None) -> Found:
    if csv is not None:
        (root / "index.csv").write_text(csv)
    index = None if csv is None else str(root / "index.csv")
    return find_samples(BuildSettings(source="pairs", root=str(root), index_csv=index))


def lesions(found: Found) -> dict[str, list[tuple[str, str]]]:
    return {s.sample_id: [(x.lesion_id, Path(x.mask).name) for x in s.lesions] for s in found.samples}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".dcm", ".bmp"])
def test_pairs_of_any_format_are_matched_by_name(tmp_path, suffix):
    write(tmp_path / "images" / f"p1_left_cc{suffix}", IMAGE)
    write(tmp_path / "masks" / "p1_left_cc.png", disc())
    (sample,) = find(tmp_path).samples
    assert (sample.sample_id, sample.patient_id, sample.side, sample.view) == ("p1_left_cc", "p1", "LEFT", "CC")
    assert sample.image.endswith(suffix) and sample.split == "" and len(sample.lesions) == 1


def test_several_masks_of_an_image_are_its_lesions(tmp_path):
    write(tmp_path / "images" / "p1_a.png", IMAGE)
    for name in ("p1_a_1.png", "p1_a_2.tif", "p1_a_mask_3.png"):
        write(tmp_path / "masks" / name, disc())
    write(tmp_path / "images" / "p2_a.png", IMAGE)
    write(tmp_path / "masks" / "p2_a_mask.png", disc())
    assert lesions(find(tmp_path)) == {
        "p1_a": [("1", "p1_a_1.png"), ("2", "p1_a_2.tif"), ("3", "p1_a_mask_3.png")],
        "p2_a": [("1", "p2_a_mask.png")],
    }


def test_image_that_ends_in_a_number_keeps_its_own_mask(tmp_path):
    for name in ("p1_1", "p1_2"):
        write(tmp_path / "images" / f"{name}.png", IMAGE)
        write(tmp_path / "masks" / f"{name}.png", disc())
    assert lesions(find(tmp_path)) == {"p1_1": [("1", "p1_1.png")], "p1_2": [("1", "p1_2.png")]}


def test_patient_numbers_of_the_collection_are_kept_whole(tmp_path):
    write(tmp_path / "images" / "Mass-Training_P_00001_LEFT_CC.png", IMAGE)
    write(tmp_path / "masks" / "Mass-Training_P_00001_LEFT_CC.png", disc())
    assert find(tmp_path).samples[0].patient_id == "P_00001"


def test_name_without_patient_and_image_without_mask_are_rejected(tmp_path):
    for name in ("nobody", "p2_a", "p1_a"):
        write(tmp_path / "images" / f"{name}.png", IMAGE)
    for name in ("nobody", "p1_a"):
        write(tmp_path / "masks" / f"{name}.png", disc())
    found = find(tmp_path)
    assert list(lesions(found)) == ["p1_a"]
    assert reasons(found, "nobody") == ["bad_row"] and reasons(found, "p2_a") == ["mask_missing"]


def test_csv_with_every_column(tmp_path):
    write(tmp_path / "a" / "x.png", IMAGE)
    write(tmp_path / "b" / "m1.png", disc())
    write(tmp_path / "b" / "m2.png", disc(centre=(10, 10)))
    found = find(
        tmp_path,
        "Image,mask,patient_id,side,view,lesion_id,split,density,pathology,kind,note\n"
        "a/x.png,b/m1.png,7,L,CC,k1,val,B,benign without callback,mass,!\n"
        "a\\x.png,./b/m2.png,7,L,CC,k2,val,B,Malignant,calc,!\n",
    )
    (sample,) = found.samples
    assert (sample.patient_id, sample.side, sample.view, sample.split, sample.density) == ("7", "LEFT", "CC", "val", 2)
    assert (sample.kind, sample.pathology) == ("mass+calc", "MALIGNANT")
    assert [(x.lesion_id, x.kind, x.pathology) for x in sample.lesions] == [
        ("k1", "mass", "BENIGN_WITHOUT_CALLBACK"),
        ("k2", "calc", "MALIGNANT"),
    ]


def test_columns_patient_and_name_are_understood(tmp_path):
    write(tmp_path / "images" / "x.jpg", IMAGE)
    write(tmp_path / "masks" / "x.png", disc())
    (sample,) = find(tmp_path, "name,patient,side,view,pathology,density\nx,P9,R,MLO2,Malignant,D\n").samples
    assert (sample.sample_id, sample.patient_id, sample.view, sample.density) == ("x", "P9", "MLO", 4)
    assert sample.image.endswith("images/x.jpg") and sample.lesions[0].mask.endswith("masks/x.png")


@pytest.mark.parametrize(
    ("csv", "message"),
    [
        ("image,mask\na,b\n", r"lacks the column\(s\) \['patient_id'\]"),
        ("image,mask,patient_id,split\na,b,c,dev\n", r"split \['dev'\] is none of"),
    ],
)
def test_mistakes_in_the_csv_are_named(tmp_path, csv, message):
    with pytest.raises(ValueError, match=message):
        find(tmp_path, csv)


def test_absent_csv_and_absent_root_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"index_csv: .*no\.csv does not exist"):
        find_samples(BuildSettings(source="pairs", root=str(tmp_path), index_csv=str(tmp_path / "no.csv")))
    with pytest.raises(ValueError, match=r"root: .*gone does not exist"):
        find(tmp_path / "gone")


def test_rows_that_lead_out_of_the_root_are_refused(tmp_path):
    root = tmp_path / "root"
    write(tmp_path / "secret.png", IMAGE)
    write(root / "a.png", IMAGE)
    write(root / "m.png", disc())
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    rows = f"{tmp_path}/secret.png,m.png,1\n../secret.png,m.png,2\na.png,../secret.png,3\nlink.png,m.png,4\n"
    found = find(root, "image,mask,patient_id\n" + rows)
    assert not found.samples
    codes = Counter(r.reason.split(":")[0] for r in found.rejected)
    assert codes == {"outside_root": 4, "no_lesion": 1, "image_missing": 1}


def test_unusable_files_are_rejected_and_the_rest_goes_on(tmp_path):
    for name in ("p1_a", "p2_a", "p3_a", "p4_a"):
        write(tmp_path / "images" / f"{name}.png", IMAGE)
        write(tmp_path / "masks" / f"{name}.png", disc())
    (tmp_path / "images" / "p1_a.png").write_bytes(b"")
    (tmp_path / "masks" / "p2_a.png").write_text("no image")
    write(tmp_path / "masks" / "p3_a.png", disc((90, 40)))
    write(tmp_path / "masks" / "p4_a.png", disc((120, 80)))
    found = find(tmp_path)
    assert list(lesions(found)) == ["p4_a"]
    assert reasons(found, "p1_a") == ["empty_file"]
    assert reasons(found, "p2_a") == ["not_dicom", "no_lesion"]
    assert reasons(found, "p3_a") == ["mask_other_aspect", "no_lesion"]
    assert repairs(found, "p4_a") == ["mask_rescaled"] and found.samples[0].repairs


def test_one_image_in_two_formats_is_a_duplicate(tmp_path):
    for suffix in (".png", ".tif"):
        write(tmp_path / "images" / f"p1_a{suffix}", IMAGE)
    write(tmp_path / "masks" / "p1_a.png", disc())
    found = find(tmp_path)
    assert len(found.samples) == 1 and reasons(found, "p1_a") == ["duplicate"]


@pytest.mark.parametrize("indexed", [True, False])
def test_the_real_pairs_are_found_whole(indexed):
    root = SHARED / "data" / "cesm_pairs"
    if not root.exists():
        pytest.skip("the real pairs are not beside this checkout")
    csv = str(root / "index.csv") if indexed else None
    settings = BuildSettings(source="pairs", root=str(root), index_csv=csv)
    found = find_samples(settings)
    assert len(found.samples) == 229 and not found.rejected
    assert len({s.patient_id for s in found.samples}) == 123
    assert {s.view for s in found.samples} == {"CC", "MLO"} and {s.side for s in found.samples} == {"LEFT", "RIGHT"}
    assert 0.001 < mask_pixels(found.samples[0].lesions[0].mask).mean() < 0.3
    done, rejected = assign_splits(found.samples, settings)
    assert len(done) == 229 and not rejected and {s.split for s in done} == {"train", "val", "test"}
