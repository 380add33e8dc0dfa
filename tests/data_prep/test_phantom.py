import hashlib
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from data_prep.phantom import patients as phantom
from data_prep.phantom.film import FilmPlan, LesionPlan, draw_film
from data_prep.phantom.patients import write_phantoms
from data_prep.read.dicom import read_header, read_image
from data_prep.schema import BuildSettings, PhantomSettings
from tests.data_prep.trees import mask_pixels

SMALL = PhantomSettings(patients=5, rows=160, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "made"
    write_phantoms(SMALL, folder)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return phantom.find_samples(settings_for(folder))


def settings_for(folder: Path, made: PhantomSettings = SMALL) -> BuildSettings:
    return BuildSettings(source="phantom", root=str(folder), phantom=made)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def lesion_plan(shape: str = "round", diameter: float = 0.1) -> LesionPlan:
    return LesionPlan(lesion_id="1", shape=shape, diameter=diameter, contrast=0.3)


def film_plan(
    view: str = "CC", side: str = "LEFT", *, rows: int = 300, mirrored: bool = False, seed: int = 1
) -> FilmPlan:
    size = {"rows": rows, "columns": round(0.6 * rows), "density": 2}
    return FilmPlan(**size, side=side, view=view, mirrored=mirrored, lesions=(lesion_plan(),), seed=(seed,))


def test_same_settings_give_the_same_bytes_however_they_are_spread(folder, tmp_path):
    with ThreadPoolExecutor(2) as threads:
        write_phantoms(SMALL, tmp_path / "again", map_patients=threads.map)
    assert digest(tmp_path / "again") == digest(folder)


def test_another_seed_gives_other_films(folder, tmp_path):
    write_phantoms(SMALL.model_copy(update={"seed": 4}), tmp_path / "other")
    films, others = ({h for p, h in digest(f).items() if p.endswith(".dcm")} for f in (folder, tmp_path / "other"))
    assert films and others and not films & others


def test_phantoms_are_found_whole_in_both_official_splits(found):
    assert not found.rejected
    assert {s.split for s in found.samples} == {"train", "test"}
    patients = {split: {s.patient_id for s in found.samples if s.split == split} for split in ("train", "test")}
    assert not patients["train"] & patients["test"]
    assert {s.view for s in found.samples} == {"CC", "MLO"}
    assert {s.pathology for s in found.samples} <= {"MALIGNANT", "BENIGN", "BENIGN_WITHOUT_CALLBACK"}


@pytest.mark.parametrize("seed", range(4))
def test_three_patients_are_enough_for_a_test_and_two_training_patients(seed):
    splits = Counter(p.split for p in phantom.plan_patients(PhantomSettings(patients=3, seed=seed)))
    assert splits == {"Test": 1, "Training": 2}


def test_many_patients_have_both_kinds_both_sides_and_two_lesions():
    plans = phantom.plan_patients(PhantomSettings(patients=200))
    kinds = Counter((p.kind, p.split) for p in plans)
    assert len(kinds) == 4 and 25 <= kinds["calc", "Training"] + kinds["calc", "Test"] <= 60


def test_films_have_the_headers_and_depths_of_the_collection(found):
    sizes = set()
    for sample in found.samples:
        header, image = read_header(sample.image), read_image(sample.image)
        assert header.patient_id == sample.sample_id and header.bits_allocated == 16
        assert header.series_description == "full mammogram images"
        assert header.largest_value == image.max()
        assert 0.2 < np.mean(image == 0) < 0.85 and len(np.unique(image)) < 2901
        sizes.add(image.shape)
        for lesion in sample.lesions:
            mask = read_image(lesion.mask)
            assert mask.shape == image.shape and set(np.unique(mask)) == {0, 255} and mask.dtype == np.uint8
            crop = read_header(lesion.crop)
            assert crop.bits_allocated == 16 and crop.rows < image.shape[0] / 2
    assert len(sizes) > 1


def test_lesions_are_brighter_than_the_tissue_around_them(found):
    for sample in found.samples:
        image = read_image(sample.image) / 65535
        for lesion in sample.lesions:
            mask = mask_pixels(lesion.mask)
            wide = cv2.dilate(mask, np.ones((15, 15), np.uint8))
            ring = (wide > mask) & (image > 0) & (image < 0.85)
            assert image[mask > 0].mean() > image[ring].mean() + 0.08


def test_lesions_span_the_stated_sizes():
    writer = phantom._PatientWriter(SMALL, Path("unused"))
    rng = np.random.default_rng(0)
    diameters = np.array([writer._plan_lesion(rng, "mass", 1).diameter for _ in range(500)])
    assert 0.032 <= diameters.min() < 0.036 and 0.145 < diameters.max() <= 0.16
    film = draw_film(film_plan())
    area = np.count_nonzero(film.masks[0])
    assert 2 * np.sqrt(area / np.pi) == pytest.approx(0.1 * 300, rel=0.15)


def test_low_visibility_lowers_contrast_alone():
    bright, dim = (
        phantom._PatientWriter(PhantomSettings(visibility=v), Path("unused"))._plan_lesion(
            np.random.default_rng(1), "mass", 1
        )
        for v in (1.0, 0.3)
    )
    assert dim.contrast == pytest.approx(0.3 * bright.contrast)
    assert (dim.diameter, dim.shape) == (bright.diameter, bright.shape)


@pytest.mark.parametrize("view", ["CC", "MLO"])
@pytest.mark.parametrize(
    ("side", "mirrored", "left"), [("LEFT", False, True), ("RIGHT", False, False), ("LEFT", True, False)]
)
def test_breast_lies_on_its_side(view, side, mirrored, left):
    image = draw_film(film_plan(view, side, mirrored=mirrored)).image_HW
    middle = image[100:200] > 0
    columns = middle.mean(axis=0)
    half = len(columns) // 2
    assert (columns[:half].sum() > columns[half:].sum()) == left


def test_oblique_view_shows_the_muscle_in_the_upper_corner():
    oblique = draw_film(film_plan("MLO")).image_HW[30:70, 10:30].mean()
    straight = draw_film(film_plan("CC")).image_HW[30:70, 10:30].mean()
    assert oblique > 2 * straight and oblique > 0.3 * 65535


def test_second_lesion_does_not_cover_the_first():
    for seed in range(6):
        plan = film_plan(seed=seed)
        two = tuple(LesionPlan(lesion_id=str(n), shape="round", diameter=0.12, contrast=0.3) for n in (1, 2))
        film = draw_film(FilmPlan(**{**vars(plan), "lesions": two}))
        assert not ((film.masks[0] > 0) & (film.masks[1] > 0)).any()


def test_csvs_have_the_official_quirks(folder):
    mass = (folder / "csv" / "mass_case_description_train_set.csv").read_bytes()
    calc = (folder / "csv" / "calc_case_description_train_set.csv").read_bytes()
    assert mass.startswith(b"patient_id,breast_density,left or right breast,image view,abnormality id,")
    assert calc.startswith(b"patient_id,breast density,left or right breast,image view,abnormality id,")
    assert mass.count(b"\r\n") < mass.count(b"\n") and b'000001.dcm\n"' in mass
    assert len(list((folder / "csv").iterdir())) == 4


def test_crop_and_mask_come_in_either_order(found):
    names = Counter(Path(lesion.mask).name for s in found.samples for lesion in s.lesions)
    assert set(names) == {"1-1.dcm", "1-2.dcm"}


def test_phantoms_are_made_once_and_again_for_other_settings(folder):
    before = (folder / "phantom.json").stat().st_mtime_ns
    phantom.find_samples(settings_for(folder))
    assert (folder / "phantom.json").stat().st_mtime_ns == before


def test_other_settings_replace_the_phantoms(tmp_path):
    first = PhantomSettings(patients=3, rows=64)
    write_phantoms(first, tmp_path / "made")
    later = first.model_copy(update={"seed": 9})
    phantom.find_samples(settings_for(tmp_path / "made", later))
    assert json.loads((tmp_path / "made" / "phantom.json").read_text())["settings"]["seed"] == 9
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_a_folder_of_other_files_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="no phantoms"):
        phantom.find_samples(settings_for(tmp_path))
    assert (tmp_path / "thesis.txt").exists()


def test_an_interrupted_writing_leaves_nothing(tmp_path):
    def cut_off(function, patients):
        yield function(patients[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(PhantomSettings(patients=3, rows=64), tmp_path / "made", map_patients=cut_off)
    assert not list(tmp_path.iterdir())


def test_uids_are_valid_and_unique(folder):
    headers = [pydicom.dcmread(p, stop_before_pixels=True) for p in sorted(folder.rglob("*.dcm"))]
    uids = [h.SOPInstanceUID for h in headers]
    assert len(set(uids)) == len(uids) and all(uid.is_valid for uid in uids)
