"""The archive: exact inside the regions, small, valid, and without anything of the header but what is allowed."""

import io
import json
import shutil
import stat
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from typer.testing import CliRunner, Result

from clinic.archive.check import check_archive
from clinic.archive.identity import FilmFacts, FilmIds, Pseudonyms, read_secret
from clinic.archive.keep import ArchiveJob, archive_films
from clinic.archive.leaks import find_leaks
from clinic.archive.regions import SMALLEST_PX, regions_to_keep
from clinic.archive.restore import film_object, films_of, put_back
from clinic.archive.roi import roi_object, stored_values
from clinic.films import FilmFile, find_films, one_a_film
from clinic.predict.outputs import to_bytes
from clinic.run import app
from data_prep.read.dicom import read_dataset, read_image, read_stored
from data_prep.shape.box import Box
from data_prep.shape.breast import find_breast
from tests.clinic.fakes import draw_film, film_file, write_small_model

NAMES = Pseudonyms(b"0123456789abcdef0123456789abcdef")
SECRET = "SECRET"
LENGTHS = {"SH": 16, "CS": 16, "AE": 16, "LO": 64, "PN": 64, "ST": 64, "LT": 64, "UT": 64, "UC": 64, "UR": 64}
READ_FROM_THE_HEADER = {
    *("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "PhotometricInterpretation"),
    *("Laterality", "ImageLaterality", "ViewPosition", "PatientOrientation", "SpecificCharacterSet", "PixelData"),
}
"""Not planted: the reader needs them, or takes them for words of DICOM's."""
LESION = Box(210, 60, 270, 120)


def planted(folder: Path, name: str = "planted", **tags: object) -> Path:
    """A film with a secret in every attribute that can hold text, in sequences, private blocks, overlays and more."""
    path = film_file(folder, name, **tags)
    film = pydicom.dcmread(path)
    for number, (tag, (vr, _, _, _, keyword)) in enumerate(DicomDictionary.items()):
        group = tag >> 16
        if keyword in READ_FROM_THE_HEADER or keyword in film or group < 8 or group in (0xFFFC, 0xFFFE) or not keyword:
            continue
        if vr in LENGTHS:
            film.add_new(tag, vr, f"{SECRET}{number}"[: LENGTHS[vr]])
        elif vr in ("DA", "TM", "DT", "AS"):
            film.add_new(tag, vr, {"DA": "19470312", "TM": "061742", "DT": "19470312061742", "AS": "077Y"}[vr])
        elif vr == "UI":
            film.add_new(tag, vr, f"1.2.826.77777.{number}")
        elif vr == "SQ" and number % 3 == 0:
            inner = Dataset()
            inner.PatientName, inner.CodeMeaning = f"{SECRET}^inner{number}", f"{SECRET} meaning {number}"
            film.add_new(tag, vr, Sequence([inner]))
    film.PatientName, film.PatientBirthDate = f"{SECRET}^Anna", "19470312"
    block = film.private_block(0x0013, f"{SECRET} CREATOR", create=True)
    block.add_new(0x10, "LO", f"{SECRET} private")
    film.add_new(0x60000022, "LO", f"{SECRET} overlay")
    film.add_new(0x60003000, "OW", b"SECRETOVERLAYPIX" * 4)
    film.add_new(0x50003000, "OW", b"SECRETCURVEDATA!" * 4)
    film.add_new(0xFFFCFFFC, "OB", b"SECRETTRAILINGPADDING!")
    film.file_meta.SourceApplicationEntityTitle = f"{SECRET}AET"
    film.file_meta.PrivateInformationCreatorUID = "1.2.826.77777.1"
    film.file_meta.PrivateInformation = b"SECRETMETA"
    film.preamble = b"SECRETPREAMBLE".ljust(128, b"\0")
    film.save_as(path)
    return path


def box_files(path: Path, lesion: Box = LESION) -> list[FilmFile]:
    return [FilmFile(path=str(path), name="film", lesion=lesion)]


def archive(path: Path, out: Path, lesion: Box = LESION) -> str:
    """The name of the one film kept."""
    table = archive_films(ArchiveJob(out=str(out), names=NAMES), box_files(path, lesion))
    assert table.status[0] == "kept", table.reason[0]
    return str(table.name[0])


def all_bytes(folder: Path) -> bytes:
    return b"".join(file.name.encode() + file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


@pytest.fixture(scope="module")
def secret_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("films"))


def test_nothing_that_was_planted_is_in_the_archive(secret_film: Path, tmp_path: Path):
    assert len(secret_film.read_bytes().split(SECRET.encode())) > 1000
    archive(secret_film, tmp_path)
    for word in (SECRET.encode(), b"19470312", b"061742", b"077Y", b"1.2.826.77777", b"planted"):
        assert word not in all_bytes(tmp_path), word
    header = read_dataset(secret_film)
    for uid in (header.SOPInstanceUID, header.StudyInstanceUID, header.SeriesInstanceUID):
        assert str(uid).encode() not in all_bytes(tmp_path)


def test_the_independent_checker_finds_nothing_in_the_archive(secret_film: Path, tmp_path: Path):
    archive(secret_film, tmp_path)
    [checked] = check_archive(str(tmp_path), box_files(secret_film), NAMES)
    assert checked.exact
    assert checked.leaks == []


def test_the_independent_checker_finds_what_a_careless_archive_leaves(secret_film: Path):
    film = pydicom.dcmread(secret_film)
    film.PatientName = film.PatientID = film.PatientBirthDate = ""
    film.remove_private_tags()
    leaks = find_leaks(str(secret_film), to_bytes(film))
    assert {"InstitutionName of the original", "CodeMeaning of the original", "SOPInstanceUID of the original"} <= set(
        leaks
    )
    assert any("overlay" in leak for leak in leaks)
    assert "preamble" in leaks


@pytest.mark.parametrize("keyword", ["PatientID", "ImageComments", "AccessionNumber"])
def test_one_value_left_behind_is_found(secret_film: Path, tmp_path: Path, keyword: str):
    name = archive(secret_film, tmp_path)
    region = pydicom.dcmread(tmp_path / name / "region_1.dcm")
    assert find_leaks(str(secret_film), to_bytes(region)) == []
    region.ImageComments = f"x {pydicom.dcmread(secret_film)[keyword].value} y"
    assert f"{keyword} of the original" in find_leaks(str(secret_film), to_bytes(region))


@pytest.mark.parametrize(
    ("dtype", "values"), [(np.uint16, 65536), (np.uint16, 4096), (np.uint16, 7), (np.uint8, 256), (np.uint16, 1)]
)
def test_a_region_is_exact_whatever_its_grey_values(tmp_path: Path, dtype: type, values: int):
    rng = np.random.default_rng(0)
    film_HW, _ = draw_film()
    grey_HW = (film_HW // 256).astype(dtype) if dtype == np.uint8 else film_HW
    grey_HW[200:300, 50:150] = rng.integers(0, values, (100, 100))
    path = film_file(tmp_path, "film", grey_HW)
    name = archive(path, tmp_path / "out")
    kept = put_back(str(tmp_path / "out"), name)
    [box] = kept.boxes
    inside = np.s_[box.top : box.bottom, box.left : box.right]
    assert box.covers(LESION)
    assert np.array_equal(kept.stored_HW[inside], grey_HW[inside])
    again = pydicom.dcmread(io.BytesIO(film_object(kept)))
    assert np.array_equal(again.pixel_array, kept.stored_HW)
    kept.stored_HW[inside] = 0
    assert kept.stored_HW.max() == 0


def test_films_of_monochrome1_come_back_as_they_were(tmp_path: Path):
    film_HW = 65535 - draw_film()[0]
    path = film_file(
        tmp_path, "film", film_HW, PhotometricInterpretation="MONOCHROME1", WindowCenter=30000, WindowWidth=60000
    )
    kept = put_back(str(tmp_path / "out"), archive(path, tmp_path / "out"))
    assert kept.stored_HW[0, 0] == 65535
    assert (kept.card.facts.photometric, kept.card.facts.window) == ("MONOCHROME1", (30000.0, 60000.0))
    restored = tmp_path / "again.dcm"
    restored.write_bytes(film_object(kept))
    [box] = kept.boxes
    assert read_image(restored)[box.top, box.left] > read_image(restored)[0, 0]


def test_overlays_in_the_unused_bits_of_the_pixels_are_not_kept(tmp_path: Path):
    film_HW = (draw_film()[0] >> 4).astype(np.uint16)
    burned_HW = film_HW.copy()
    burned_HW[220:240, 70:110] |= 0x8000
    path = film_file(tmp_path, "film", burned_HW, BitsStored=12, HighBit=11)
    kept = put_back(str(tmp_path / "out"), archive(path, tmp_path / "out"))
    assert kept.stored_HW.max() < 4096


def test_a_film_of_few_grey_values_takes_a_fraction_of_its_bytes(tmp_path: Path):
    film_HW, _ = draw_film(2400, 1600, discs=((1200, 400, 200),))
    film_HW = (film_HW // 64 * 64).astype(np.uint16)
    path = film_file(tmp_path, "film", film_HW)
    table = archive_films(
        ArchiveJob(out=str(tmp_path / "out"), names=NAMES), box_files(path, Box(1100, 300, 1300, 500))
    )
    assert table.kept_bytes[0] < 0.03 * table.film_bytes[0]
    region = pydicom.dcmread(tmp_path / "out" / table.name[0] / "region_1.dcm")
    assert "ModalityLUTSequence" in region
    plain = region.Rows * region.Columns * 2
    assert len(region.PixelData) < 0.6 * plain


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
@pytest.mark.parametrize("tags", [{}, {"PixelSpacing": [0.1, 0.1]}, {"RescaleSlope": 2, "RescaleIntercept": -5}])
def test_an_independent_checker_of_objects_finds_no_error(tmp_path: Path, tags: dict):
    name = archive(film_file(tmp_path, **tags), tmp_path / "out")
    (tmp_path / "film-again.dcm").write_bytes(film_object(put_back(str(tmp_path / "out"), name)))
    for file in (tmp_path / "out" / name / "region_1.dcm", tmp_path / "film-again.dcm"):
        done = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True, check=False)
        assert [line for line in (done.stdout + done.stderr).splitlines() if "Error" in line] == []


def test_the_same_secret_gives_the_same_names_and_another_one_others():
    ids = FilmIds(patient="P1", study_uid="1.2.3", series_uid="1.2.3.1", sop_uid="1.2.3.1.1")
    other = FilmIds(patient="P1", study_uid="1.2.3", series_uid="1.2.3.2", sop_uid="1.2.3.2.1")
    same = Pseudonyms(b"0123456789abcdef0123456789abcdef")
    assert same.of(ids, "film") == NAMES.of(ids, "film")
    assert NAMES.of(other, "film").patient == NAMES.of(ids, "film").patient
    assert NAMES.of(other, "film").study_uid == NAMES.of(ids, "film").study_uid
    assert NAMES.of(other, "film").sop_uid != NAMES.of(ids, "film").sop_uid
    assert Pseudonyms(b"another secret of some length").of(ids, "film").patient != NAMES.of(ids, "film").patient
    for uid in (NAMES.of(ids, "film").sop_uid, NAMES.of(ids, "region 1").series_uid):
        assert pydicom.uid.UID(uid).is_valid


def test_a_secret_is_made_for_its_owner_alone(tmp_path: Path):
    file = tmp_path / "secret"
    first = read_secret(file, make=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    ids = FilmIds(patient="P1", study_uid="1", series_uid="2", sop_uid="3")
    assert read_secret(file, make=True).of(ids, "") == first.of(ids, "")
    file.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        read_secret(file, make=False)
    file.chmod(0o600)
    file.write_bytes(b"short")
    with pytest.raises(ValueError, match="can be guessed"):
        read_secret(file, make=False)
    with pytest.raises(ValueError, match="there is no file"):
        read_secret(tmp_path / "none", make=False)


def test_regions_stay_inside_the_breast_and_overlapping_ones_become_one():
    breast = Box(100, 0, 900, 500)
    kept = regions_to_keep(
        [Box(110, 10, 210, 110), Box(200, 100, 300, 200), Box(700, 400, 720, 420)], breast, margin=0.5
    )
    assert kept == [Box(100, 0, 350, 250), Box(646, 346, 774, 474)]
    assert kept[1].rows == kept[1].columns == SMALLEST_PX
    assert all(breast.covers(box) for box in kept)


def test_lesions_that_meet_only_through_a_third_are_one_region():
    breast = Box(0, 0, 2000, 2000)
    boxes = [Box(0, 0, 300, 300), Box(600, 600, 900, 900), Box(250, 250, 650, 650)]
    assert regions_to_keep(boxes, breast, margin=0) == [Box(0, 0, 900, 900)]


def test_a_box_outside_of_the_breast_is_refused(tmp_path: Path):
    path = film_file(tmp_path)
    found = find_breast(read_image(path))
    assert found is not None
    breast = found.box
    outside = Box(breast.top - 20, 10, breast.top + 50, 60)
    table = archive_films(ArchiveJob(out=str(tmp_path / "out"), names=NAMES), box_files(path, outside))
    assert (table.status[0], table.reason[0]) == ("left_out", "box_outside_breast")
    assert not list((tmp_path / "out").glob("*/"))


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "not_grey"),
        ({"StudyInstanceUID": None}, "no_identity"),
        ({"PixelRepresentation": 1}, "signed"),
    ],
)
def test_a_film_that_cannot_be_kept_as_it_is_says_why_in_one_word(tmp_path: Path, tags: dict, reason: str):
    path = film_file(tmp_path, PatientName="SECRET", **tags)
    table = archive_films(ArchiveJob(out=str(tmp_path / "out"), names=NAMES), box_files(path))
    assert table.reason[0] == reason
    assert b"SECRET" not in all_bytes(tmp_path / "out")


def test_several_boxes_of_one_film_are_one_film_of_several_regions(tmp_path: Path):
    path = film_file(tmp_path / "in", "a", draw_film(1600, 1000)[0])
    (tmp_path / "boxes.csv").write_text("film,top,left,bottom,right\na.dcm,400,60,460,120\na.dcm,900,300,940,340\n")
    films = one_a_film(find_films([str(path.parent)], boxes=str(tmp_path / "boxes.csv")))
    table = archive_films(ArchiveJob(out=str(tmp_path / "out"), names=NAMES), films)
    assert (len(table), table.regions[0]) == (1, 2)


def test_a_damaged_region_is_named(tmp_path: Path):
    name = archive(film_file(tmp_path), tmp_path / "out")
    region = tmp_path / "out" / name / "region_1.dcm"
    content = bytearray(region.read_bytes())
    content[-40] ^= 255
    region.write_bytes(content)
    with pytest.raises(ValueError, match=r"region_1\.dcm"):
        put_back(str(tmp_path / "out"), name)
    region.unlink()
    with pytest.raises(ValueError, match=r"region_1\.dcm is missing"):
        put_back(str(tmp_path / "out"), name)


@pytest.mark.parametrize(
    "change",
    [{"rows": 10**9}, {"dtype": "object"}, {"format": 9}, {"facts": {}}, {"regions": [{}]}, {"rows": "x"}],
)
def test_a_card_that_cannot_be_right_is_refused(tmp_path: Path, change: dict):
    name = archive(film_file(tmp_path), tmp_path / "out")
    card = tmp_path / "out" / name / "film.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), **change}))
    with pytest.raises(ValueError, match=name):
        put_back(str(tmp_path / "out"), name)


def test_the_same_film_gives_the_same_bytes(tmp_path: Path):
    path = film_file(tmp_path)
    stored_HW, header = read_stored(path)
    facts, ids = FilmFacts.of(header), NAMES.of(FilmIds.of(header), "region 1")
    part = stored_HW[100:300, 20:200]
    contents = [to_bytes(roi_object(part, facts, ids, Box(100, 20, 300, 200), 1)) for _ in range(2)]
    assert contents[0] == contents[1]
    assert np.array_equal(stored_values(pydicom.dcmread(io.BytesIO(contents[0]))), part)


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_commands_say_no_name_and_no_path(tmp_path: Path):
    path = film_file(tmp_path / "Anna_Smith", "Smith", PatientName="Smith^Anna", PatientID="SMITH77")
    (path.parent / "broken_Smith.dcm").write_bytes(b"x" * 200)
    (tmp_path / "boxes.csv").write_text(
        "film,top,left,bottom,right\nSmith.dcm,210,60,270,120\nbroken_Smith.dcm,1,1,9,9\n"
    )
    secret = tmp_path / "secret"
    words = ("--boxes", tmp_path / "boxes.csv", "--out", tmp_path / "out", "--secret-file", secret)
    done = run("archive", path.parent, *words)
    assert done.exit_code == 1
    assert "1 films kept in 1 regions" in done.output
    assert "film 2 of 2: not_dicom" in done.output
    assert "smith" not in done.output.lower()
    assert b"smith" not in all_bytes(tmp_path / "out").lower()
    back = run(
        "restore", tmp_path / "out", "--out", tmp_path / "again", "--check", path.parent, "--secret-file", secret
    )
    assert back.exit_code == 0, back.output
    assert "1 of 1 films are exact inside their regions" in back.output
    assert "nothing of the originals' headers is left" in back.output
    assert len(list(films_of(str(tmp_path / "out")))) == len(list((tmp_path / "again").glob("*.dcm"))) == 1


def test_an_archive_by_a_model_keeps_what_the_model_marks(tmp_path: Path):
    model = write_small_model(tmp_path / "models" / "small")
    film_file(tmp_path / "in", "a")
    words = ("--out", tmp_path / "out", "--secret-file", tmp_path / "secret", "--workers", 0)
    done = run("archive", tmp_path / "in", "--model", model, *words)
    assert "films kept" in done.output
    assert run("archive", tmp_path / "in", *words).exit_code == 2


def test_without_the_secret_nothing_is_compared(tmp_path: Path):
    archive(film_file(tmp_path), tmp_path / "out")
    assert "needs --secret-file" in run("restore", tmp_path / "out", "--check", tmp_path).output
    other = Pseudonyms(b"another secret of some length")
    with pytest.raises(ValueError, match="have no original among"):
        check_archive(str(tmp_path / "out"), box_files(tmp_path / "film.dcm"), other)
