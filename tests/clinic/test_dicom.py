"""DICOM objects: valid, on the film's grid, of the film's patient and study, and quiet about names."""

import io
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from clinic.dicom.report import Findings, report
from clinic.dicom.segmentation import MOST_SEGMENTS, Lesion, probability_map, segmentation
from clinic.dicom.source import Maker, SourceError, completed, spacing_mm
from clinic.predict.lesions import find_regions
from clinic.predict.outputs import OUTPUTS, Result, render, to_bytes
from clinic.predict.prediction import Prediction
from data_prep.read.dicom import read_dataset
from data_prep.shape.box import Box
from tests.clinic.fakes import film_file

FILMS = Path(__file__).parents[3] / "shared" / "data" / "cbis_ddsm_dicom_small"
MAKER = Maker(model="small", version="0.1.0", settings="weights and threshold")
ROWS, COLUMNS = 480, 320


@pytest.fixture
def source(tmp_path: Path) -> Dataset:
    return completed(read_dataset(film_file(tmp_path)))


def errors_of(content: bytes, folder: Path) -> list[str]:
    """What dciodvfy, an independent checker of DICOM objects, calls an error."""
    (folder / "object.dcm").write_bytes(content)
    done = subprocess.run(["dciodvfy", "-new", str(folder / "object.dcm")], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if "Error" in line]


def lesion(number: int, top: int, left: int, size: int = 20) -> Lesion:
    mask_hw = np.ones((size, size), np.uint8)
    mask_hw[0, 0] = 0
    return Lesion(f"Lesion {number}", Box(top, left, top + size, left + size), mask_hw)


def predicted(*, lesions: int, spacing: tuple[float, float] | None = None) -> Prediction:
    probability_HW = np.full((ROWS, COLUMNS), 0.1, np.float32)
    for number in range(lesions):
        probability_HW[100 + 40 * number : 120 + 40 * number, 50:90] = 0.9
    mask_HW = (probability_HW > 0.5).astype(np.uint8)
    regions = find_regions(mask_HW, probability_HW, spacing)
    box = Box(0, 0, ROWS, COLUMNS)
    return Prediction(
        probability_HW=probability_HW, mask_HW=mask_HW, threshold=0.5, box=box, flipped=False, regions=regions
    )


def rendered(header: Dataset, *, lesions: int = 2, plane_geometry: bool = False) -> dict[str, bytes]:
    image_HW = np.random.default_rng(0).integers(0, 65535, (ROWS, COLUMNS)).astype(np.uint16)
    prediction = predicted(lesions=lesions, spacing=spacing_mm(header))
    return {str(k): v for k, v in render(Result(image_HW, header, prediction, MAKER, plane_geometry), OUTPUTS).items()}


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
@pytest.mark.parametrize("plane_geometry", [False, True])
@pytest.mark.parametrize("lesions", [0, 1, 8])
def test_an_independent_checker_finds_no_error(tmp_path: Path, lesions: int, plane_geometry: bool):
    header = read_dataset(film_file(tmp_path, ImagerPixelSpacing=[0.07, 0.07]))
    files = rendered(header, lesions=lesions, plane_geometry=plane_geometry)
    assert {name: errors_of(files[name], tmp_path) for name in ("seg", "report", "presentation", "fractional")} == {
        "seg": [],
        "report": [],
        "presentation": [],
        "fractional": [],
    }


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
@pytest.mark.skipif(not FILMS.exists(), reason="no real films beside the checkout")
def test_an_independent_checker_finds_no_error_about_a_real_film(tmp_path: Path):
    header = read_dataset(sorted(FILMS.glob("*.dcm"))[0])
    rows, columns = header.Rows, header.Columns
    prediction = predicted(lesions=2)
    grown = Prediction(
        probability_HW=np.resize(prediction.probability_HW, (rows, columns)),
        mask_HW=np.zeros((rows, columns), np.uint8),
        threshold=0.5,
        box=Box(0, 0, rows, columns),
        flipped=False,
        regions=prediction.regions,
    )
    files = render(Result(np.zeros((rows, columns), np.uint16), header, grown, MAKER), OUTPUTS)
    for name in ("seg", "report", "presentation", "fractional"):
        assert errors_of(files[name], tmp_path) == [], name


def test_the_segmentation_holds_the_mask_pixel_for_pixel(source: Dataset):
    lesions = [lesion(1, 100, 50), lesion(2, 300, 200)]
    content = to_bytes(segmentation(source, lesions, MAKER))
    read = hd.seg.segread(io.BytesIO(content))
    pixels_HWS = read.get_pixels_by_source_instance([source.SOPInstanceUID])[0]
    for number, one in enumerate(lesions):
        expected_HW = np.zeros((ROWS, COLUMNS), np.uint8)
        expected_HW[one.box.top : one.box.bottom, one.box.left : one.box.right] = one.mask_hw
        assert np.array_equal(pixels_HWS[..., number], expected_HW)


def test_a_mask_in_many_crumbs_is_whole_in_few_segments(source: Dataset):
    crumbs = [lesion(number, 10 + 25 * (number % 17), 10 + 60 * (number // 17), 12) for number in range(40)]
    read = hd.seg.segread(io.BytesIO(to_bytes(segmentation(source, crumbs, MAKER))))
    pixels_HWS = read.get_pixels_by_source_instance([source.SOPInstanceUID])[0]
    assert pixels_HWS.shape[-1] == MOST_SEGMENTS
    assert pixels_HWS.sum() == sum(int(crumb.mask_hw.sum()) for crumb in crumbs)
    assert read.get_segment_description(MOST_SEGMENTS).segment_label == "32 smaller regions"


def test_a_film_without_a_lesion_has_one_empty_segment(source: Dataset):
    read = hd.seg.segread(io.BytesIO(to_bytes(segmentation(source, [], MAKER))))
    pixels_HWS = read.get_pixels_by_source_instance([source.SOPInstanceUID])[0]
    assert pixels_HWS.shape == (ROWS, COLUMNS, 1)
    assert pixels_HWS.sum() == 0
    assert read.get_segment_description(1).segment_label == "No lesion"


def test_probabilities_come_back_to_half_a_step(source: Dataset):
    probability_HW = np.random.default_rng(0).random((ROWS, COLUMNS), np.float32)
    read = hd.seg.segread(io.BytesIO(to_bytes(probability_map(source, probability_HW, MAKER))))
    pixels_HW = read.get_pixels_by_source_instance([source.SOPInstanceUID])[0, ..., 0]
    assert np.abs(pixels_HW - probability_HW).max() <= 0.5 / 255 + 1e-6


def test_the_objects_are_of_the_films_patient_and_study(tmp_path: Path):
    header = read_dataset(film_file(tmp_path, PatientName="Müller^Grüße", SpecificCharacterSet="ISO_IR 100"))
    for name, content in rendered(header).items():
        if content[128:132] == b"DICM":
            made = pydicom.dcmread(io.BytesIO(content))
            assert made.StudyInstanceUID == header.StudyInstanceUID, name
            assert made.PatientID == header.PatientID, name
            assert str(made.PatientName) == "Müller^Grüße", name


def test_the_report_says_what_was_measured_of_which_segment(tmp_path: Path):
    header = read_dataset(film_file(tmp_path, PixelSpacing=[0.1, 0.1]))
    files = rendered(header, lesions=2)
    segments = pydicom.dcmread(io.BytesIO(files["seg"]))
    read = hd.sr.srread(io.BytesIO(files["report"]))
    groups = read.content.get_planar_roi_measurement_groups()
    assert len(groups) == 2
    values = {(m.name.meaning, m.unit.value): m.value for m in groups[0].get_measurements()}
    assert values[("Area", "{pixels}")] == 800
    assert values[("Area", "mm2")] == pytest.approx(8.0)
    assert values[("Diameter", "mm")] == pytest.approx(np.hypot(2, 4), abs=0.01)
    assert values[("Mean probability of a lesion", "1")] == pytest.approx(0.9)
    assert groups[0].referenced_segmentation_frame.referenced_sop_instance_uid == segments.SOPInstanceUID


def test_without_a_spacing_the_report_holds_no_millimetres(source: Dataset):
    segments = segmentation(source, [lesion(1, 10, 10)], MAKER)
    finding = Findings(label="Lesion 1", segment=1, area_px=399, mean_probability=0.7, area_mm2=None, diameter_mm=None)
    content = to_bytes(report(source, segments, [finding], MAKER))
    assert b"mm2" not in content


def test_the_same_film_and_model_give_the_same_uid_and_another_model_another(source: Dataset):
    other = Maker(model="small", version="0.1.0", settings="other weights")
    uids = [str(segmentation(source, [], maker).SOPInstanceUID) for maker in (MAKER, MAKER, other)]
    assert uids[0] == uids[1] != uids[2]


@pytest.mark.parametrize("name", ["SOPInstanceUID", "StudyInstanceUID"])
def test_a_film_that_nothing_can_refer_to_is_refused(tmp_path: Path, name: str):
    with pytest.raises(SourceError, match=name):
        completed(read_dataset(film_file(tmp_path, **{name: None})))


def test_completing_a_header_leaves_the_header_alone(tmp_path: Path):
    header = read_dataset(film_file(tmp_path))
    before = header.to_json()
    source = completed(header, plane_geometry=True)
    assert header.to_json() == before
    assert source.PatientBirthDate == ""
    assert source.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, None),
        ({"PixelSpacing": [0.1, 0.2]}, (0.1, 0.2)),
        ({"ImagerPixelSpacing": [0.07, 0.07]}, (0.07, 0.07)),
        ({"ImagerPixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": "1.25"}, (0.08, 0.08)),
        ({"PixelSpacing": [0, 0.1]}, None),
        ({"PixelSpacing": [900, 900]}, None),
        ({"ImagerPixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": "900"}, None),
    ],
)
def test_millimetres_come_from_the_header_or_not_at_all(tmp_path: Path, tags: dict, expected: tuple | None):
    assert spacing_mm(read_dataset(film_file(tmp_path, **tags))) == (
        None if expected is None else pytest.approx(expected)
    )


def test_no_name_is_said_aloud(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """The libraries quote names in their warnings."""
    code = (
        "import sys, logging; logging.basicConfig(level='DEBUG')\n"
        "from tests.clinic.test_dicom import rendered\nfrom data_prep.read.dicom import read_dataset\n"
        "rendered(read_dataset(sys.argv[1]))\n"
    )
    path = film_file(tmp_path, PatientName="SECRETNAME", AccessionNumber="SECRETNUMBERTHATISMUCHTOOLONG")
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert "SECRET" not in done.stdout + done.stderr


def test_outlines_of_any_length_fit_in_a_presentation_state(tmp_path: Path):
    from clinic.dicom.presentation import presentation

    angle = np.linspace(0, 2 * np.pi, 30_000)
    outline = np.stack([160 + 100 * np.cos(angle), 240 + 100 * np.sin(angle)], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = completed(read_dataset(film_file(tmp_path)))
        made = pydicom.dcmread(io.BytesIO(to_bytes(presentation(source, [("Lesion 1", outline)], MAKER))))
    drawn = made.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    assert drawn.NumberOfGraphicPoints <= 4001
    assert list(drawn.GraphicData[:2]) == list(drawn.GraphicData[-2:])
