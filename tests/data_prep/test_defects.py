"""The known defects of CBIS-DDSM downloads, each planted in a tree of phantoms, and what becomes of it."""

import os
import shutil
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.find.cbis_ddsm import find_samples
from data_prep.phantom.patients import write_phantoms
from data_prep.read.dicom import read_header, read_image
from data_prep.schema import BuildSettings, Found, Sample
from tests.data_prep.trees import (
    SMALL_TREE,
    files_of,
    mask_of,
    mask_pixels,
    reasons,
    repairs,
    replace_pixels,
    rewrite,
    write_dicom,
)


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clean") / "tree"
    write_phantoms(SMALL_TREE, folder)
    return folder


@pytest.fixture(scope="module")
def samples(clean) -> list[Sample]:
    return find(clean).samples


@pytest.fixture
def tree(clean, tmp_path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "tree"))


def find(root: Path) -> Found:
    return find_samples(BuildSettings(source="cbis_ddsm", root=str(root)))


def single(samples: list[Sample]) -> str:
    """An image of one lesion."""
    return next(s.sample_id for s in samples if len(s.lesions) == 1)


def double(samples: list[Sample]) -> str:
    """An image of two lesions."""
    return next(s.sample_id for s in samples if len(s.lesions) == 2)


def others(found: Found, sample_id: str) -> list[str]:
    return [s.sample_id for s in found.samples if s.sample_id != sample_id]


def check_only(found: Found, samples: list[Sample], sample_id: str) -> None:
    """Nothing but the planted sample was touched."""
    assert others(found, sample_id) == [s.sample_id for s in samples if s.sample_id != sample_id]
    assert {r.sample_id for r in found.rejected} <= {sample_id}
    assert {r.sample_id for r in found.repaired} <= {sample_id, ""}


def sample_of(found: Found, sample_id: str) -> Sample:
    return next(s for s in found.samples if s.sample_id == sample_id)


def is_mask(path: str) -> bool:
    return set(np.unique(read_image(path))) == {0, 255}


def test_newlines_in_path_columns_are_stripped_and_logged(clean):
    notes = [r.repair for r in find(clean).repaired if not r.sample_id]
    assert any("'roi_mask_file_path'" in note for note in notes)
    assert any("'cropped_image_file_path'" in note for note in notes)
    assert all(note.startswith("newline_in_path: ") for note in notes)


def test_swapped_file_names_do_not_swap_crop_and_mask(tree, samples):
    for paths in files_of(tree).values():
        if len(paths) == 2 and paths[0].parent == paths[1].parent:
            swap = paths[0].with_suffix(".tmp")
            paths[0].rename(swap)
            paths[1].rename(paths[0])
            swap.rename(paths[1])
    found = find(tree)
    assert len(found.samples) == len(samples)
    assert all(is_mask(lesion.mask) for s in found.samples for lesion in s.lesions)


def test_swapped_descriptions_are_put_right(tree, samples):
    name = single(samples)
    for path in files_of(tree)[f"{name}_1"]:
        old = read_header(path).series_description
        rewrite(path, SeriesDescription={"cropped images": "ROI mask images"}.get(old, "cropped images"))
    found = find(tree)
    check_only(found, samples, name)
    assert repairs(found, name) == ["wrong_description"] and is_mask(sample_of(found, name).lesions[0].mask)
    assert sample_of(found, name).repairs[0].startswith("wrong_description")


def test_missing_descriptions_are_found_by_content(tree, samples):
    for path in tree.rglob("*.dcm"):
        rewrite(path, SeriesDescription=None)
    found = find(tree)
    assert [s.sample_id for s in found.samples] == [s.sample_id for s in samples] and not found.rejected
    assert all(is_mask(lesion.mask) for s in found.samples for lesion in s.lesions)
    assert all(s.repairs[0].startswith("no_description") for s in found.samples)


@pytest.mark.parametrize("described", [True, False])
def test_crop_of_8_bits_is_told_from_the_mask(tree, samples, described):
    name = single(samples)
    crop = sample_of(find(tree), name).lesions[0].crop
    replace_pixels(Path(crop), (read_image(crop) // 256).astype(np.uint8))
    if not described:
        for path in files_of(tree)[f"{name}_1"]:
            rewrite(path, SeriesDescription=None)
    lesion = sample_of(find(tree), name).lesions[0]
    assert is_mask(lesion.mask) and lesion.crop == crop


def test_mask_of_16_bits_is_told_from_the_crop(tree, samples):
    name = single(samples)
    mask = mask_of(tree, f"{name}_1")
    replace_pixels(mask, read_image(mask).astype(np.uint16) * 257)
    lesion = sample_of(find(tree), name).lesions[0]
    assert lesion.mask == str(mask)


def test_lone_crop_of_8_bits_is_no_mask(tree, samples):
    name = single(samples)
    crop = Path(sample_of(find(tree), name).lesions[0].crop)
    mask_of(tree, f"{name}_1").unlink()
    replace_pixels(crop, (read_image(crop) // 256).astype(np.uint8))
    found = find(tree)
    check_only(found, samples, name)
    assert reasons(found, name) == ["mask_missing", "no_lesion"]


@pytest.mark.parametrize("factor", [1.149, 0.85])
def test_rescaled_mask_is_kept_and_logged(tree, samples, factor):
    name = single(samples)
    mask = mask_of(tree, f"{name}_1")
    replace_pixels(mask, cv2.resize(read_image(mask), None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST))
    found = find(tree)
    check_only(found, samples, name)
    assert repairs(found, name) == ["mask_rescaled"] and not found.rejected
    assert sample_of(found, name).repairs[0].startswith("mask_rescaled")


def test_small_change_of_aspect_is_within_tolerance_and_a_large_one_is_not(tree, samples):
    near, far = double(samples), single(samples)
    for name, factor in ((near, 1.0), (far, 1.05)):
        mask = mask_of(tree, f"{name}_1")
        rows, columns = read_image(mask).shape
        size = (round(columns * 1.2), round(rows * 1.2 * factor))
        replace_pixels(mask, cv2.resize(read_image(mask), size, interpolation=cv2.INTER_NEAREST))
    found = find(tree)
    assert repairs(found, near) == ["mask_rescaled"]
    assert reasons(found, far) == ["mask_other_aspect", "no_lesion"]
    assert others(found, far) == [s.sample_id for s in samples if s.sample_id != far]


def test_several_lesions_keep_their_own_masks_and_the_worst_pathology(samples):
    order = ("BENIGN_WITHOUT_CALLBACK", "BENIGN", "MALIGNANT")
    sample = next(s for s in samples if len(s.lesions) == 2)
    assert [lesion.lesion_id for lesion in sample.lesions] == ["1", "2"]
    assert sample.lesions[0].mask != sample.lesions[1].mask
    assert sample.pathology == max((lesion.pathology for lesion in sample.lesions), key=order.index)


def test_missing_mask_leaves_the_other_lesions_of_the_image(tree, samples):
    name = double(samples)
    mask_of(tree, f"{name}_1").unlink()
    found = find(tree)
    check_only(found, samples, name)
    assert [lesion.lesion_id for lesion in sample_of(found, name).lesions] == ["2"]
    assert [r.reason for r in found.rejected] == ["mask_missing: no mask on disk (lesion 1)"]


def test_crop_and_mask_in_two_series_of_equal_file_names_are_found(tree, samples):
    name = single(samples)
    for number, path in enumerate(files_of(tree)[f"{name}_1"]):
        rewrite(path, SeriesInstanceUID=f"1.2.3.{number}")
        place = path.parent.with_name(f"1.2.3.{number}")
        place.mkdir()
        path.rename(place / "1-1.dcm")
    found = find(tree)
    check_only(found, samples, name)
    assert len(sample_of(found, name).lesions) == 1 and not found.rejected


def test_missing_image_is_named_and_its_lesions_are_not_lost_in_silence(tree, samples):
    name = single(samples)
    files_of(tree)[name][0].unlink()
    found = find(tree)
    check_only(found, samples, name)
    assert reasons(found, name) == ["image_missing", "without_film", "without_film"]


def test_changed_patient_id_is_joined_by_its_series(tree, samples):
    name = single(samples)
    for path in files_of(tree)[name] + files_of(tree)[f"{name}_1"]:
        rewrite(path, PatientID="ANON-77")
    found = find(tree)
    assert sample_of(found, name).lesions and not found.rejected


def test_patient_is_the_number_in_the_name(samples):
    assert all(s.patient_id in s.sample_id and s.patient_id.startswith("P_") for s in samples)


def test_second_row_of_a_lesion_is_a_duplicate(tree, samples):
    csv = tree / "csv" / "mass_case_description_train_set.csv"
    content = csv.read_bytes()
    head, _, body = content.partition(b"\r\n")
    first = body[: body.index(b"\r\n") + 2]
    csv.write_bytes(content + first)
    found = find(tree)
    assert [r.reason.split(":")[0] for r in found.rejected] == ["duplicate"] and head.startswith(b"patient_id")
    assert found.samples == samples or len(found.samples) == len(samples)


def test_row_that_cannot_be_understood_is_named(tree, samples):
    csv = tree / "csv" / "mass_case_description_train_set.csv"
    csv.write_bytes(csv.read_bytes() + b"P_1,3,UPSIDE,CC,one,mass,,,4,BENIGN,3,x/y/z/0.dcm,x,x\r\n")
    found = find(tree)
    assert [r.reason.split(":")[0] for r in found.rejected] == ["bad_row"]
    assert len(found.samples) == len(samples)


def test_density_of_zero_is_unknown(tree, samples):
    csv = tree / "csv" / "mass_case_description_train_set.csv"
    lines = csv.read_text().split("\n")
    patient, density, rest = lines[1].split(",", 2)
    assert density in "1234"
    csv.write_text("\n".join([lines[0], f"{patient},0,{rest}", *lines[2:]]))
    found = find(tree)
    assert any(s.density is None and s.patient_id == patient for s in found.samples)


def test_same_film_twice_is_a_duplicate(tree, samples):
    name = single(samples)
    shutil.copytree(tree / "CBIS-DDSM", tree / "second download", ignore=lambda _, names: [
        n for n in names if n.startswith(("Mass", "Calc")) and n not in (name, f"{name}_1")
    ])  # fmt: skip
    found = find(tree)
    check_only(found, samples, name)
    assert reasons(found, name) == ["duplicate", "duplicate"]


def test_file_of_no_row_is_named(tree, samples):
    other = "Mass-Test_P_99999_LEFT_CC"
    write_dicom(tree / "CBIS-DDSM" / "stray.dcm", np.zeros((40, 20), np.uint16), name=other)
    write_dicom(tree / "CBIS-DDSM" / "odd.dcm", np.zeros((40, 20), np.uint16), name="somebody")
    found = find(tree)
    assert reasons(found, other) == ["no_lesion"] and reasons(found, "") == ["bad_row"]
    assert len(found.samples) == len(samples)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda p: p.write_bytes(b""), "empty_file"),
        (lambda p: p.write_text("no DICOM\n"), "not_dicom"),
        (lambda p: p.write_bytes(p.read_bytes()[:-50]), "truncated"),
        (lambda p: rewrite(p, Rows=60_000, Columns=60_000), "absurd_size"),
        (lambda p: rewrite(p, BitsAllocated=32, BitsStored=32), "wrong_depth"),
    ],
)
def test_unusable_file_is_named_once_and_costs_its_own_sample_alone(tree, samples, damage, code):
    name = single(samples)
    damage(files_of(tree)[name][0])
    found = find(tree)
    check_only(found, samples, name)
    assert reasons(found, name) == [code, "without_film", "without_film"] and name not in {
        s.sample_id for s in found.samples
    }


@pytest.mark.parametrize(("which", "kept"), [("mask", False), ("crop", True)])
def test_unusable_mask_costs_its_lesion_and_unusable_crop_nothing(tree, samples, which, kept):
    name = single(samples)
    lesion = sample_of(find(tree), name).lesions[0]
    Path(getattr(lesion, which)).write_bytes(b"")
    found = find(tree)
    check_only(found, samples, name)
    assert reasons(found, name) == (["empty_file"] if kept else ["empty_file", "no_lesion"])
    assert (name in {s.sample_id for s in found.samples}) == kept


def test_black_mask_that_says_so_is_rejected_unread(tree, samples):
    name = single(samples)
    mask = mask_of(tree, f"{name}_1")
    replace_pixels(mask, np.zeros_like(read_image(mask)))
    rewrite(mask, LargestImagePixelValue=0)
    found = find(tree)
    check_only(found, samples, name)
    assert reasons(found, name) == ["mask_black", "no_lesion"]


def test_links_out_of_the_tree_are_refused_and_inner_ones_passed_over(tree, samples, tmp_path):
    name = single(samples)
    outside = tmp_path / "outside"
    outside.mkdir()
    image = files_of(tree)[name][0]
    image.rename(outside / "1-1.dcm")
    image.symlink_to(outside / "1-1.dcm")
    (tree / "CBIS-DDSM" / "elsewhere").symlink_to(outside)
    (tree / "CBIS-DDSM" / "again").symlink_to(tree / "CBIS-DDSM")
    found = find(tree)
    assert [r.reason.split(":")[0] for r in found.rejected] == ["outside_root"] * 2 + ["image_missing"] + [
        "without_film"
    ] * 2
    assert others(found, name) == [s.sample_id for s in samples if s.sample_id != name]


def test_hidden_files_are_passed_over(tree, samples):
    (tree / "CBIS-DDSM" / "._1-1.dcm").write_bytes(b"resource fork")
    (tree / "CBIS-DDSM" / ".DS_Store").write_bytes(b"finder")
    found = find(tree)
    assert len(found.samples) == len(samples) and not found.rejected


def test_what_is_no_file_is_a_row_and_costs_nothing_else(tree, samples):
    """Pipes, sockets, dangling and looping links, names that are not UTF-8, folders too deep to be listed."""
    folder = tree / "CBIS-DDSM"
    os.mkfifo(folder / "pipe.dcm")
    (folder / "dangling.dcm").symlink_to(folder / "absent.dcm")
    (folder / "loop.dcm").symlink_to(folder / "loop.dcm")
    with socket.socket(socket.AF_UNIX) as end:
        here = Path.cwd()
        os.chdir(folder)  # a socket's whole path may have 107 bytes
        end.bind("socket.dcm")
        os.chdir(here)
    with open(os.fsencode(folder) + b"/\xff\xfe.dcm", "wb"):  # noqa: PTH123 - no Path has such a name
        pass
    _make_deep(folder)
    found = find(tree)
    assert len(found.samples) == len(samples)
    codes = {Path(r.path).name[-10:]: r.reason.split(":")[0] for r in found.rejected}
    assert codes.pop("d" * 10) == "unreadable"
    names = {"pipe.dcm": "no_file", "angling.dcm"[-10:]: "no_file", "loop.dcm": "no_file", "socket.dcm": "no_file"}
    assert codes == {**names, "\\xff\\xfe.dcm"[-10:]: "bad_name"}


def _make_deep(folder: Path) -> None:
    """Folders in folders, until a path is longer than the system takes."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folder_that_may_not_be_read_is_a_row(tree, samples):
    closed = tree / "CBIS-DDSM" / "closed"
    closed.mkdir(mode=0o000)
    found = find(tree)
    closed.chmod(0o700)
    assert [r.reason for r in found.rejected] == ["unreadable: the folder cannot be listed: Permission denied"]
    assert len(found.samples) == len(samples)


def test_masks_that_cover_each_other_are_both_kept(tree, samples):
    name = double(samples)
    first, second = (mask_of(tree, f"{name}_{n}") for n in (1, 2))
    replace_pixels(second, read_image(first))
    lesions = sample_of(find(tree), name).lesions
    assert (mask_pixels(lesions[0].mask) == mask_pixels(lesions[1].mask)).all()
