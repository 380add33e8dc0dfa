"""What a person decides: the mask that was accepted or drawn, as DICOM and as a source for the next training."""

import io
import json
import stat
from pathlib import Path

import cv2
import highdicom as hd
import httpx
import numpy as np
import pandas as pd
import pydicom
import pytest
from fastapi.testclient import TestClient

from clinic.archive.identity import Pseudonyms
from clinic.predict.prediction import predict_film
from clinic.serve import pages
from clinic.serve.answer import Answerer, AnswerJob
from clinic.serve.app import Service, make_app
from clinic.serve.corrections import Corrections
from clinic.serve.gate import Gate, ServiceLimits
from clinic.serve.metrics import Metrics
from clinic.serve.review import draw
from clinic.serve.server import Here
from data_prep.find.pairs import find_samples
from data_prep.read.masks import read_mask
from data_prep.schema import BuildSettings
from tests.clinic.fakes import bright_model, draw_film, film_file, write_small_model
from tests.clinic.services import BEARER, DICOM, TOKEN

NAMES = Pseudonyms(b"0123456789abcdef0123456789abcdef")
RELATED = {**BEARER, "Content-Type": "multipart/related; boundary=e"}
SQUARE = [[40.0, 200.0], [140.0, 200.0], [140.0, 290.0], [40.0, 290.0]]


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    """An answerer whose model marks what is bright."""
    made = AnswerJob(models=(str(write_small_model(tmp_path_factory.mktemp("m") / "small")),), threads=1).open()
    made.models[:] = [bright_model()]
    return made


def review_client(answerer: Answerer, corrections: Path | None = None) -> TestClient:
    gate = Gate(TOKEN, ServiceLimits())
    kept = None if corrections is None else Corrections(corrections, NAMES)
    service = Service(gate=gate, metrics=Metrics(gate), backend=Here(answerer, 1), model="bright", corrections=kept)
    return TestClient(make_app(service, pages.router))


def decide(client: TestClient, film: bytes, decision: str, outlines: list | None = None) -> httpx.Response:
    said = json.dumps({"decision": decision, "outlines": outlines or []}).encode()
    body = (
        b"--e\r\nContent-Type: application/json\r\n\r\n" + said + b"\r\n--e\r\nContent-Type: application/dicom\r\n\r\n"
    )
    headers = {**BEARER, "Content-Type": "multipart/related; boundary=e"}
    return client.post("/roi/decide", content=body + film + b"\r\n--e--\r\n", headers=headers)


def mask_of(response: httpx.Response, film: bytes) -> np.ndarray:
    uid = pydicom.dcmread(io.BytesIO(film)).SOPInstanceUID
    return hd.seg.segread(io.BytesIO(response.content)).get_pixels_by_source_instance([uid])[0].max(axis=-1)


def test_the_page_is_given_a_picture_and_the_outlines_in_the_films_pixels(answerer: Answerer, tmp_path: Path):
    film = film_file(tmp_path).read_bytes()
    seen = review_client(answerer).post("/roi/look", content=film, headers=DICOM).json()
    assert (seen["rows"], seen["columns"]) == (480, 320)
    [lesion] = seen["lesions"]
    points = np.array(lesion["outlines"][0])
    assert points.min(axis=0) == pytest.approx([60, 210], abs=4)
    assert points.max(axis=0) == pytest.approx([120, 270], abs=4)
    assert seen["picture"].startswith("iVBOR")


def test_accepting_keeps_the_models_mask_pixel_for_pixel(answerer: Answerer, tmp_path: Path):
    film = film_file(tmp_path).read_bytes()
    response = decide(review_client(answerer), film, "accept")
    assert response.status_code == 200, response.text
    expected = predict_film(draw_film()[0], answerer.models).mask_HW
    assert np.array_equal(mask_of(response, film), expected)
    made = pydicom.dcmread(io.BytesIO(response.content))
    assert made.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"


def test_a_drawing_takes_the_models_place(answerer: Answerer, tmp_path: Path):
    film = film_file(tmp_path).read_bytes()
    mask_HW = mask_of(decide(review_client(answerer), film, "redraw", [SQUARE]), film)
    expected_HW = np.zeros((480, 320), np.uint8)
    expected_HW[200:291, 40:141] = 1
    assert np.array_equal(mask_HW, expected_HW)


def test_rejecting_leaves_an_empty_mask(answerer: Answerer, tmp_path: Path):
    film = film_file(tmp_path).read_bytes()
    assert mask_of(decide(review_client(answerer), film, "reject"), film).sum() == 0


def test_two_decisions_on_one_film_have_two_uids(answerer: Answerer, tmp_path: Path):
    film = film_file(tmp_path).read_bytes()
    client = review_client(answerer)
    responses = [
        decide(client, film, "redraw", [SQUARE]),
        decide(client, film, "reject"),
        decide(client, film, "accept"),
    ]
    assert len({pydicom.dcmread(io.BytesIO(response.content)).SOPInstanceUID for response in responses}) == 3


def test_what_is_kept_is_a_source_for_the_next_training(answerer: Answerer, tmp_path: Path):
    client = review_client(answerer, tmp_path / "kept")
    shared = {"PatientID": "SMITH", "ViewPosition": "MLO", "PatientName": "Smith^Anna"}
    films = {name: film_file(tmp_path / "in", name, **shared).read_bytes() for name in ("a", "b", "c")}
    two = [SQUARE, [[100.0, 350.0], [150.0, 350.0], [120.0, 380.0]]]
    names = {
        "a": decide(client, films["a"], "accept").headers["x-film"],
        "b": decide(client, films["b"], "redraw", two).headers["x-film"],
        "c": decide(client, films["c"], "reject").headers["x-film"],
    }
    settings = BuildSettings(
        source="pairs", root=str(tmp_path / "kept"), index_csv=str(tmp_path / "kept" / "pairs.csv")
    )
    found = find_samples(settings)
    assert found.rejected == []
    assert {sample.sample_id: len(sample.lesions) for sample in found.samples} == {names["a"]: 1, names["b"]: 2}
    assert {(sample.side, sample.view) for sample in found.samples} == {("LEFT", "MLO")}
    assert len({sample.patient_id for sample in found.samples}) == 1
    image_HW = cv2.imread(str(tmp_path / "kept" / "images" / f"{names['a']}.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(image_HW, draw_film()[0])
    mask_HW = read_mask(tmp_path / "kept" / "masks" / f"{names['b']}_1.png").full()
    assert mask_HW[200:291, 40:141].all()
    decisions = pd.read_csv(tmp_path / "kept" / "decisions.csv", dtype=str).set_index("film")
    assert decisions.decision[names["c"]] == "reject"
    seg = tmp_path / "kept" / "seg" / f"{names['a']}.seg.dcm"
    assert (stat.S_IMODE(seg.stat().st_mode), stat.S_IMODE((tmp_path / "kept").stat().st_mode)) == (0o600, 0o700)


def test_no_name_is_in_what_is_kept_for_training(answerer: Answerer, tmp_path: Path):
    client = review_client(answerer, tmp_path / "kept")
    decide(client, film_file(tmp_path, PatientID="SMITHID", PatientName="Smith^Anna").read_bytes(), "accept")
    for file in (tmp_path / "kept").rglob("*"):
        if file.is_file() and file.parent.name != "seg":
            assert b"smith" not in (file.name.encode() + file.read_bytes()).lower(), file


def test_a_second_decision_replaces_the_first(answerer: Answerer, tmp_path: Path):
    client = review_client(answerer, tmp_path / "kept")
    film = film_file(tmp_path).read_bytes()
    decide(client, film, "redraw", [SQUARE, [[100.0, 350.0], [150.0, 350.0], [120.0, 380.0]]])
    decide(client, film, "accept")
    assert len(list((tmp_path / "kept" / "masks").iterdir())) == 1
    assert (
        len(pd.read_csv(tmp_path / "kept" / "pairs.csv")) == len(pd.read_csv(tmp_path / "kept" / "decisions.csv")) == 1
    )
    decide(client, film, "reject")
    assert list((tmp_path / "kept" / "masks").iterdir()) == list((tmp_path / "kept" / "images").iterdir()) == []


def test_a_film_that_is_no_dicom_can_be_decided_on_too(answerer: Answerer, tmp_path: Path):
    client = review_client(answerer, tmp_path / "kept")
    done, png = cv2.imencode(".png", draw_film()[0])
    assert done
    response = decide(client, png.tobytes(), "accept")
    assert response.json() == {"kept": True}
    assert len(pd.read_csv(tmp_path / "kept" / "pairs.csv")) == 1


@pytest.mark.parametrize(
    "outlines",
    [
        [],
        [[[1, 1], [2, 2]]],
        [[[1, 1], [2, 2], [400, 2]]],
        [[[1, 1], [2, 2], [float("nan"), 2]]],
        [[1, 2, 3]],
        [SQUARE] * 101,
        ["text"],
        [[["a", "b"], ["c", "d"], ["e", "f"]]],
    ],
)
def test_a_drawing_that_is_none_is_refused(outlines: list):
    with pytest.raises((ValueError, TypeError)):
        draw(outlines, (480, 320))


@pytest.mark.parametrize("said", [b"", b"[]", b"{", b'{"decision": "maybe"}', b'{"decision": "redraw", "outlines": 7}'])
def test_a_decision_that_is_none_is_one_sentence(answerer: Answerer, said: bytes, tmp_path: Path):
    body = (
        b"--e\r\nContent-Type: application/json\r\n\r\n"
        + (said or b" ")
        + b"\r\n--e\r\nContent-Type: a/b\r\n\r\nx\r\n--e--"
    )
    headers = {**BEARER, "Content-Type": "multipart/related; boundary=e"}
    response = review_client(answerer).post("/roi/decide", content=body, headers=headers)
    assert response.status_code == 400
    assert "Traceback" not in response.text


def test_the_page_is_for_anyone_and_films_are_not(answerer: Answerer):
    client = review_client(answerer)
    for path in ("/roi", "/roi/page.js", "/roi/page.css"):
        response = client.get(path)
        assert response.status_code == 200
        assert "default-src 'none'" in response.headers["content-security-policy"]
    assert client.post("/roi/look", content=b"x").status_code == 401
    assert client.post("/roi/decide", content=b"x").status_code == 401
    assert client.post("/roi/look", content=b"x", headers=DICOM).status_code == 422
