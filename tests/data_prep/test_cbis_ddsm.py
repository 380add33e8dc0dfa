import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from data_prep.find.cbis_ddsm import find_samples, read_case_csvs
from data_prep.find.index import read_batch
from data_prep.phantom.patients import write_phantoms
from data_prep.read.dicom import read_header, read_image
from data_prep.schema import BuildSettings, Found, ReadError, Sample
from tests.data_prep.trees import SHARED, SMALL_TREE, files_of, mask_pixels, reasons, repairs

OFFICIAL = SHARED / "data" / "cbis_ddsm_csv"
needs_official = pytest.mark.skipif(not OFFICIAL.exists(), reason="the official CSVs are not beside this checkout")


@pytest.fixture(scope="module")
def classic(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cbis") / "classic"
    write_phantoms(SMALL_TREE, folder)
    return folder


def find(root: Path, **settings) -> Found:
    return find_samples(BuildSettings(source="cbis_ddsm", root=str(root), **settings))


def outline(found: Found) -> list[tuple]:
    """Samples without paths: what must not depend on the layout."""
    return [
        (s.sample_id, s.patient_id, s.side, s.view, s.kind, s.pathology, s.density, s.split, lesions_of(s))
        for s in found.samples
    ]


def lesions_of(sample: Sample) -> tuple:
    return tuple((lesion.lesion_id, lesion.kind, lesion.pathology) for lesion in sample.lesions)


def check_roles(found: Found) -> None:
    """Every mask has two values and its image's size, every crop is smaller."""
    for sample in found.samples:
        image = read_image(sample.image)
        for lesion in sample.lesions:
            assert set(np.unique(read_image(lesion.mask))) == {0, 255}
            assert read_image(lesion.mask).shape == image.shape
            assert read_header(lesion.crop).rows < image.shape[0]


@needs_official
def test_official_csvs_are_read_whole():
    cases = read_case_csvs(str(OFFICIAL))
    assert (len(cases), cases["image_name"].nunique(), cases["patient_id"].nunique()) == (3568, 3103, 1566)
    assert cases.groupby(["kind", "split"]).size().to_dict() == {
        ("calc", "test"): 326,
        ("calc", "train"): 1546,
        ("mass", "test"): 378,
        ("mass", "train"): 1318,
    }
    sets = [set(cases.loc[cases["split"] == split, "patient_id"]) for split in ("train", "test")]
    assert len(sets[0] & sets[1]) == 31
    assert cases["density"].dropna().isin([1, 2, 3, 4]).all() and cases["density"].isna().sum() == 2
    assert set(cases["pathology"]) == {"MALIGNANT", "BENIGN", "BENIGN_WITHOUT_CALLBACK"}
    for column in ("image_file_path", "cropped_image_file_path", "roi_mask_file_path"):
        assert cases[column].str.fullmatch(r"\S+\.dcm").all()
    for series in ("image_series", "crop_series", "mask_series"):
        assert cases[series].str.fullmatch(r"1\.3\.6\.1\.4\.1\.9590\.100\.1\.2\.\d+").all()


@needs_official
def test_official_csvs_without_files_list_every_image_as_missing(tmp_path):
    found = find(tmp_path, index_csv=str(OFFICIAL))
    assert not found.samples and len(found.rejected) == 3103
    assert {r.reason.split(":")[0] for r in found.rejected} == {"image_missing"}
    masses = find(tmp_path, index_csv=str(OFFICIAL), kinds=("mass",))
    assert len(masses.rejected) == 1231 + 361


def test_classic_layout(classic):
    found = find(classic)
    assert len(found.samples) == len(list((classic / "CBIS-DDSM").glob("*_CC"))) * 2 and not found.rejected
    assert {s.split for s in found.samples} == {"train", "test"}
    check_roles(found)


def test_descriptive_layout_with_download_parts_and_metadata(classic, tmp_path):
    for path in sorted(classic.rglob("*.dcm")):
        header = read_header(path)
        part = "Mass-Training Full Mammogram Images" if header.bits_allocated == 16 else "Mass-Training ROI"
        study = f"07-20-2016-DDSM-NA-{path.parts[-3][-5:]}"
        series = f"1.000000-{header.series_description}-{header.series_uid[-5:]}"
        target = tmp_path / part / "CBIS-DDSM" / header.patient_id / study / series / path.name
        target.parent.mkdir(parents=True)
        shutil.copy(path, target)
    (tmp_path / "metadata.csv").write_text("Series UID,Subject ID,File Location\n1.2,x,.\\CBIS-DDSM\\x\n")
    (tmp_path / "LICENSE").write_text("CC BY 3.0")
    shutil.copytree(classic / "csv", tmp_path / "csv")
    found = find(tmp_path)
    assert outline(found) == outline(find(classic)) and not found.rejected
    check_roles(found)


def test_paths_and_names_mean_nothing(classic, tmp_path):
    for n, path in enumerate(sorted(classic.rglob("*.dcm"))):
        (tmp_path / str(n % 3)).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / str(n % 3) / f"IM{n:05d}")
    found = find(tmp_path, index_csv=str(classic / "csv"))
    assert outline(found) == outline(find(classic)) and not found.rejected
    check_roles(found)


def test_file_uri_finds_the_same_samples(classic):
    assert outline(find_samples(BuildSettings(source="cbis_ddsm", root=f"file://{classic}"))) == outline(find(classic))


def test_one_kind_leaves_the_other_in_silence(classic):
    whole = find(classic)
    assert {s.kind for s in whole.samples} == {"mass", "calc"}
    masses = find(classic, kinds=("mass",))
    assert {s.kind for s in masses.samples} == {"mass"} and not masses.rejected
    assert len(masses.samples) < len(whole.samples)


def write_jpeg(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), (image / 257).astype(np.uint8) if image.dtype == np.uint16 else image)


def make_kaggle_jpegs(classic: Path, target: Path, *, described: bool) -> None:
    """The layout of the JPEG set; crop and mask as the real one has them, in any order."""
    infos = []
    for number, path in enumerate(sorted(classic.rglob("*.dcm"))):
        header = read_header(path)
        name = f"{path.stem[-1]}-{number:03d}.jpg"
        write_jpeg(target / "jpeg" / header.series_uid / name, read_image(path))
        infos.append(
            {
                "file_path": f"CBIS-DDSM/dicom/{header.series_uid}/{path.name}",
                "image_path": f"CBIS-DDSM/jpeg/{header.series_uid}/{name}",
                "PatientID": header.patient_id if described else "",
                "SeriesDescription": header.series_description if described else "",
                "SeriesInstanceUID": header.series_uid if described else "",
            }
        )
    shutil.copytree(classic / "csv", target / "csv")
    pd.DataFrame(infos).to_csv(target / "csv" / "dicom_info.csv", index=False)


@pytest.mark.parametrize("described", [True, False])
def test_kaggle_jpeg_set(classic, tmp_path, described):
    make_kaggle_jpegs(classic, tmp_path, described=described)
    found = find(tmp_path)
    assert outline(found) == outline(find(classic)) and not found.rejected
    assert not [r for r in found.repaired if r.sample_id]
    truth = {(s.sample_id, x.lesion_id): mask_pixels(x.mask) for s in find(classic).samples for x in s.lesions}
    for sample in found.samples:
        for lesion in sample.lesions:
            mask, true_mask = mask_pixels(lesion.mask), truth[sample.sample_id, lesion.lesion_id]
            assert mask.shape == true_mask.shape and (mask != true_mask).mean() < 0.002


def test_crop_that_takes_the_mask_for_itself_is_seen_through(classic, tmp_path):
    """dicom_info.csv with crop and mask exchanged: content decides, and the wrong description is logged."""
    make_kaggle_jpegs(classic, tmp_path, described=True)
    path = tmp_path / "csv" / "dicom_info.csv"
    text = path.read_text().replace("cropped images", "#").replace("ROI mask images", "cropped images")
    path.write_text(text.replace("#", "ROI mask images"))
    found = find(tmp_path)
    lesions = [lesion for s in found.samples for lesion in s.lesions]
    assert lesions and all(mask_pixels(lesion.mask).shape == read_shape_of(found, lesion) for lesion in lesions)
    assert sum(r.repair.startswith("wrong_description") for r in found.repaired) == len(lesions)


def read_shape_of(found: Found, lesion) -> tuple[int, ...]:
    image = next(s.image for s in found.samples if lesion in s.lesions)
    return cv2.imread(image, cv2.IMREAD_GRAYSCALE).shape


def make_kaggle_pngs(classic: Path, target: Path, *, numbered: bool, summed: bool) -> None:
    """The preprocessed set: squares, named after the image, masks single or summed."""
    for sample in find(classic).samples:
        shape = (128, 128)
        image = cv2.resize((read_image(sample.image) / 257).astype(np.uint8), shape)
        target.mkdir(exist_ok=True)
        cv2.imwrite(str(target / f"{sample.sample_id}_FULL___PRE.png"), image)
        masks = [cv2.resize(read_image(x.mask), shape, interpolation=cv2.INTER_NEAREST) for x in sample.lesions]
        for lesion, mask in zip(sample.lesions, masks, strict=True):
            if numbered:
                cv2.imwrite(str(target / f"{sample.sample_id}_MASK_{lesion.lesion_id}___PRE.png"), mask)
        if summed:
            total = sum(mask.astype(np.uint16) for mask in masks)
            cv2.imwrite(str(target / f"{sample.sample_id}_MASK___PRE.png"), total)


@pytest.mark.parametrize("summed", [True, False])
def test_kaggle_png_set_with_its_csvs(classic, tmp_path, summed):
    make_kaggle_pngs(classic, tmp_path / "set", numbered=True, summed=summed)
    found = find(tmp_path / "set", index_csv=str(classic / "csv"))
    assert outline(found) == outline(find(classic)) and not found.rejected


def test_kaggle_png_set_with_summed_masks_alone(classic, tmp_path):
    make_kaggle_pngs(classic, tmp_path / "set", numbered=False, summed=True)
    found = find(tmp_path / "set", index_csv=str(classic / "csv"))
    whole = {s.sample_id: s for s in find(classic).samples}
    assert [s.sample_id for s in found.samples] == list(whole) and not found.rejected
    several = [s for s in found.samples if len(whole[s.sample_id].lesions) > 1]
    assert several, "the tree has an image of two lesions"
    for sample in several:
        assert len(sample.lesions) == 1 and sample.pathology == whole[sample.sample_id].pathology
        union = np.maximum.reduce([mask_pixels(x.mask) for x in whole[sample.sample_id].lesions])
        assert mask_pixels(sample.lesions[0].mask).mean() == pytest.approx(union.mean(), rel=0.1)


def test_kaggle_png_set_without_csvs(classic, tmp_path):
    make_kaggle_pngs(classic, tmp_path / "set", numbered=True, summed=True)
    found = find(tmp_path / "set")
    expected = find(classic).samples
    assert [(s.sample_id, s.split, len(s.lesions)) for s in found.samples] == [
        (s.sample_id, s.split, len(s.lesions)) for s in expected
    ]
    assert {s.pathology for s in found.samples} == {""} and not found.rejected


@pytest.mark.parametrize("layout", ["classic", pytest.param("descriptive", marks=pytest.mark.slow)])
def test_every_planted_fault_of_the_real_trees_is_named(tmp_path, layout):
    tool, pairs = SHARED / "tools" / "make_cbis_tree.py", SHARED / "data" / "cesm_pairs"
    if not tool.exists() or not pairs.exists():
        pytest.skip("make_cbis_tree.py and the real pairs are not beside this checkout")
    options = ["--layout", layout, "--patients", "24", "--scale", "0.5", "--faults"]
    subprocess.run([sys.executable, tool, pairs, tmp_path, *options], check=True, capture_output=True)
    truth, found = json.loads((tmp_path / "truth.json").read_text()), find(tmp_path)
    names = {"empty": "empty_file"}
    lost = 0
    for planted in truth["faults"]:
        image, fault = planted["image"], names.get(planted["fault"], planted["fault"])
        if fault == "mask_black":  # seen when the mask is read
            sample = next(s for s in found.samples if s.sample_id == image)
            with pytest.raises(ReadError, match="mask_black"):
                mask_pixels(sample.lesions[0].mask)
            continue
        assert fault in reasons(found, image) + repairs(found, image)
        lost += not any(s.sample_id == image for s in found.samples)
    assert len(truth["faults"]) == 8 and lost <= 5
    assert len(found.samples) == truth["images"] - lost
    faulty = {planted["image"] for planted in truth["faults"]}
    assert {r.sample_id for r in found.rejected} <= faulty
    assert {r.sample_id for r in found.repaired} <= faulty | {""}
    assert sum(s.split == "test" for s in found.samples if s.sample_id not in faulty) > 0


def test_index_cache_spares_reading_what_has_not_changed(classic, tmp_path):
    root, cache = tmp_path / "tree", tmp_path / "cache" / "index.parquet"
    shutil.copytree(classic, root)
    read: list[str] = []

    def map_batches(function, batches):
        for batch in batches:
            read.extend(file.relative for file in batch)
            yield function(batch)

    settings = BuildSettings(source="cbis_ddsm", root=str(root))
    first = find_samples(settings, index_cache=cache, map_batches=map_batches)
    assert len(read) == len(list(root.rglob("*.dcm")))
    read.clear()
    assert find_samples(settings, index_cache=cache, map_batches=map_batches) == first and not read
    changed = files_of(root)[first.samples[0].sample_id][0]
    changed.write_bytes(b"")
    third = find_samples(settings, index_cache=cache, map_batches=map_batches)
    assert read == [changed.relative_to(root).as_posix()]
    assert reasons(third, first.samples[0].sample_id)[0] == "empty_file"


def test_a_cache_that_cannot_be_read_is_made_again(classic, tmp_path):
    cache = tmp_path / "index.parquet"
    cache.write_text("{ half a file")
    settings = BuildSettings(source="cbis_ddsm", root=str(classic))
    assert find_samples(settings, index_cache=cache).samples
    assert pq.read_table(cache).num_rows == len(list(classic.rglob("*.dcm")))


def test_records_travel_to_other_processes(classic):
    import pickle

    from cluster.storage import Folder
    from data_prep.find.listing import list_files

    files, _ = list_files(Folder(classic))
    records = pickle.loads(pickle.dumps(read_batch))(files[:5])
    assert pickle.loads(pickle.dumps(records)) == records


def test_missing_root_and_missing_csvs_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"root: .*absent does not exist"):
        find(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"no case-description CSV.*index_csv"):
        find(tmp_path)
