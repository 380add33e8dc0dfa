"""The service: right answers, one sentence for each wrong request, limits that hold, nothing kept or said."""

import email.parser
import email.policy
import io
import json
import logging
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import highdicom as hd
import httpx
import numpy as np
import pydicom
import pytest
from fastapi.testclient import TestClient

from clinic.serve.answer import Answerer, AnswerJob
from clinic.serve.dicomweb import BodyError, content_type, films_in
from clinic.serve.server import Here, ServeOrder, build_app, check_order, is_loopback
from tests.clinic.fakes import draw_film, film_file, write_small_model
from tests.clinic.services import BEARER, DICOM, TOKEN, Echo, echo_app, listening, related, until


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    model = write_small_model(tmp_path_factory.mktemp("models") / "small")
    return AnswerJob(models=(str(model),), threads=1).open()


@pytest.fixture(scope="module")
def client(answerer: Answerer) -> TestClient:
    return TestClient(echo_app(Here(answerer, 2)))


def film_bytes(folder: Path, name: str = "film", **tags: object) -> bytes:
    return film_file(folder, name, **tags).read_bytes()


def parts_of(response: httpx.Response) -> list[tuple[str, bytes]]:
    """(media type, content) of each part, by Python's own parser."""
    raw = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode() + response.content
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(raw)
    return [(part.get_content_type(), part.get_payload(decode=True)) for part in message.iter_parts()]


def test_a_film_comes_back_as_its_segmentation(client: TestClient, tmp_path: Path):
    content = film_bytes(tmp_path)
    response = client.post("/segment", content=content, headers=DICOM)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/dicom"
    segments = hd.seg.segread(io.BytesIO(response.content))
    film = pydicom.dcmread(io.BytesIO(content))
    assert segments.StudyInstanceUID == film.StudyInstanceUID
    assert segments.get_pixels_by_source_instance([film.SOPInstanceUID]).shape[1:3] == (480, 320)
    report = client.post("/segment?object=report", content=content, headers=DICOM)
    assert hd.sr.srread(io.BytesIO(report.content)).StudyInstanceUID == film.StudyInstanceUID


def test_films_of_stow_come_back_with_segmentations_and_reports(client: TestClient, tmp_path: Path):
    body, headers = related(film_bytes(tmp_path, "a"), film_bytes(tmp_path, "b"))
    response = client.post("/studies", content=body, headers=headers)
    assert response.status_code == 200
    (kind, said), *objects = parts_of(response)
    assert kind == "application/dicom+json"
    assert len(json.loads(said)["00081199"]["Value"]) == 2
    modalities = [pydicom.dcmread(io.BytesIO(content)).Modality for _, content in objects]
    assert modalities == ["SEG", "SR", "SEG", "SR"]


def test_each_film_of_a_request_has_its_own_fate(client: TestClient, tmp_path: Path):
    good = film_bytes(tmp_path)
    blank = film_bytes(tmp_path, "blank", image_HW=np.zeros((400, 300), np.uint16))
    body, headers = related(good, good[:3000], b"PK\x03\x04" + bytes(500), blank)
    response = client.post("/studies", content=body, headers=headers)
    assert response.status_code == 202
    (_, said), *objects = parts_of(response)
    failed = json.loads(said)["00081198"]["Value"]
    assert [item["00000902"]["Value"][0] for item in failed] == ["truncated", "not_dicom", "no_breast"]
    assert len(objects) == 2
    nothing = client.post("/studies", content=related(b"nonsense")[0], headers=headers)
    assert nothing.status_code == 409
    assert nothing.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xC000]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": "Bearer "}, 401),
        (BEARER, 400),
    ],
)
@pytest.mark.parametrize("path", ["/studies", "/segment"])
def test_without_the_right_token_nobody_comes_in(path: str, headers: dict[str, str], status: int):
    backend = Echo()
    response = TestClient(echo_app(backend)).post(path, content=b"x", headers=headers)
    assert response.status_code == status
    assert backend.seen == []


def test_health_is_for_anyone_and_metrics_are_not():
    client = TestClient(echo_app(Echo()))
    assert client.get("/health").json() == {"status": "ok", "model": "echo"}
    assert client.get("/metrics").status_code == 401
    client.post("/segment", content=b"film", headers=DICOM)
    text = client.get("/metrics", headers=BEARER).text
    assert 'mammosearch_films_total{outcome="segmented"} 1.0' in text
    assert "mammosearch_lesions_total 2.0" in text
    assert 'mammosearch_requests_total{status="200"}' in text


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        ("application/dicom", b"", "holds no film"),
        ("text/plain", b"x", "text/plain is neither"),
        ("multipart/related", b"x", "without a boundary"),
        ("multipart/related; boundary=edge", b"", "holds no film"),
        ("multipart/related; boundary=edge", b"no part here", "broken"),
        ("multipart/related; boundary=edge", b"--edge\r\nContent-Type: a/b\r\n\r\nfilm", "no end"),
        ("multipart/related; boundary=edge", related(*[b"x"] * 5)[0], "more than 4 parts"),
        ("multipart/related; boundary=edge", b"--edge\r\n" + b"A: b\r\n" * 50 + b"\r\nx\r\n--edge--", "broken"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_one_sentence(kind: str, body: bytes, says: str):
    client = TestClient(echo_app(Echo(), max_films=4))
    response = client.post("/studies", content=body, headers={**BEARER, "Content-Type": kind})
    assert response.status_code == 400
    assert says in response.json()["detail"]


def test_content_types_are_read_as_mail_has_them():
    assert content_type('Multipart/Related; type="application/dicom"; boundary="a;b"') == (
        "multipart/related",
        {"type": "application/dicom", "boundary": "a;b"},
    )
    with pytest.raises(BodyError):
        films_in(b"x", "", most=1)


def test_names_in_a_body_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    backend = Echo()
    body = (
        b"--edge\r\nContent-Type: application/dicom\r\nContent-Location: ../../etc/passwd\r\n"
        b'Content-Disposition: attachment; filename="../../evil.dcm"\r\n\r\nfilm\r\n--edge--'
    )
    response = TestClient(echo_app(backend)).post("/studies", content=body, headers=related()[1])
    assert response.status_code == 200
    assert backend.seen == [b"film"]
    assert list(tmp_path.iterdir()) == []
    assert TestClient(echo_app(Echo())).get("/roi/../../etc/passwd", headers=BEARER).status_code in (401, 404)


def test_an_encoded_body_is_refused_before_it_is_unpacked():
    """A few kB of gzip may hold gigabytes."""
    headers = {**DICOM, "Content-Encoding": "gzip"}
    assert (
        TestClient(echo_app(Echo())).post("/segment", content=b"\x1f\x8b" + bytes(100), headers=headers).status_code
        == 415
    )


def test_a_large_body_is_refused_by_its_length_and_by_its_bytes():
    backend = Echo()
    with listening(echo_app(backend, max_body_mb=1)) as address:
        assert httpx.post(f"{address}/segment", content=bytes(1_100_000), headers=DICOM).status_code == 413
        sent = [0]

        def endless():
            while sent[0] < 2_000_000_000:
                sent[0] += 100_000
                yield bytes(100_000)

        try:
            response = httpx.post(f"{address}/segment", content=endless(), headers=DICOM, timeout=60)
            assert response.status_code == 413
        except httpx.HTTPError:
            pass  # the server answered and closed while this side was still sending
        assert sent[0] < 100_000_000
        assert httpx.get(f"{address}/health").status_code == 200
    assert backend.seen == []


def test_a_slow_client_is_sent_away_and_holds_up_nobody():
    with listening(echo_app(Echo(), receive_s=1.0)) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as slow:
            head = f"POST /segment HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            slow.sendall(f"{head}Content-Type: application/dicom\r\nContent-Length: 1000\r\n\r\nabc".encode())
            assert httpx.post(f"{address}/segment", content=b"film", headers=DICOM).status_code == 200
            assert b" 408 " in slow.recv(4096).splitlines()[0]


def test_more_requests_than_may_wait_are_told_to_come_again():
    backend = Echo(pause_s=0.8)
    statuses: list[int] = []
    with listening(echo_app(backend, at_once=1, max_waiting=2)) as address:

        def send() -> None:
            response = httpx.post(f"{address}/segment", content=b"film", headers=DICOM, timeout=60)
            statuses.append(response.status_code)
            if response.status_code == 503:
                assert response.headers["retry-after"] == "2"

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(set(statuses)) == [200, 503]
        assert statuses.count(200) >= 3
        assert backend.most_at_once == 1
        assert httpx.post(f"{address}/segment", content=b"film", headers=DICOM, timeout=60).status_code == 200


def test_the_bodies_of_open_requests_have_a_limit_together():
    backend = Echo(pause_s=1.0)
    with listening(echo_app(backend, at_once=4, max_memory_mb=1.5)) as address:
        statuses: list[int] = []

        def send() -> None:
            try:
                statuses.append(httpx.post(f"{address}/segment", content=bytes(1_000_000), headers=DICOM).status_code)
            except httpx.HTTPError:  # answered and closed while this side was still sending
                statuses.append(503)

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert set(statuses) == {200, 503}
        assert httpx.post(f"{address}/segment", content=bytes(1_000_000), headers=DICOM, timeout=60).status_code == 200


def test_a_client_that_hangs_up_leaves_nothing_open():
    app = echo_app(Echo())
    with listening(app) as address:
        host, port = address.removeprefix("http://").split(":")
        for _ in range(5):
            with socket.create_connection((host, int(port))) as gone:
                head = f"POST /segment HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
                gone.sendall(f"{head}Content-Type: application/dicom\r\nContent-Length: 1000\r\n\r\nabc".encode())
        gate = app.state.service.gate
        until(lambda: gate.open_requests == 0)
        assert gate.body_bytes == 0


def test_films_of_many_clients_are_each_answered_with_their_own(answerer: Answerer, tmp_path: Path):
    contents = [film_bytes(tmp_path, f"film{n}") for n in range(6)]
    with listening(echo_app(Here(answerer, 3), at_once=3)) as address:
        found: dict[int, str] = {}

        def send(number: int) -> None:
            response = httpx.post(f"{address}/segment", content=contents[number], headers=DICOM, timeout=120)
            found[number] = str(pydicom.dcmread(io.BytesIO(response.content)).StudyInstanceUID)

        threads = [threading.Thread(target=send, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert found == {n: str(pydicom.dcmread(io.BytesIO(c)).StudyInstanceUID) for n, c in enumerate(contents)}


def test_nothing_of_a_film_is_logged_or_written(
    answerer: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd
):
    content = film_bytes(tmp_path / "in", PatientName="SECRETNAME", PatientID="SECRETID", SeriesInstanceUID="x" * 70)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "work"))
    with caplog.at_level(logging.DEBUG):
        client = TestClient(echo_app(Here(answerer, 1)))
        for body in (content, content[:2000], b"SECRETNAME" * 100):
            client.post("/studies", content=body, headers=DICOM)
    out, err = capfd.readouterr()
    assert "SECRET" not in caplog.text + out + err
    assert list((tmp_path / "work").rglob("*")) == []


def test_a_lesion_model_cannot_serve(tmp_path: Path):
    model = write_small_model(tmp_path / "lesion", field_of_view="lesion")
    with pytest.raises(ValueError, match="give a model of whole views"):
        AnswerJob(models=(str(model),)).open()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"host": "0.0.0.0"}, "a token is needed"),
        ({"host": "0.0.0.0", "token_file": Path("token")}, "in clear"),
        ({"tls_cert": Path("cert")}, "both --tls-cert and --tls-key"),
        ({"tls_cert": Path("none.pem"), "tls_key": Path("none.key")}, "there is no file none.pem"),
    ],
)
def test_what_would_lay_the_service_open_is_refused(changes: dict, says: str):
    with pytest.raises(ValueError, match=says):
        check_order(ServeOrder(job=AnswerJob(models=("m",)), **changes))


def test_loopback_is_told_from_the_rest():
    assert all(is_loopback(host) for host in ("127.0.0.1", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "10.0.0.1", "example.org", "::"))


def test_a_token_is_made_once_for_its_owner_alone(tmp_path: Path):
    order = ServeOrder(job=AnswerJob(models=("m",)), token_file=tmp_path / "token")
    client = TestClient(build_app(order, Echo(), "echo"))
    token = (tmp_path / "token").read_text()
    assert len(token) >= 32
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/dicom"}
    assert client.post("/segment", content=b"film", headers=headers).status_code == 200
    again = TestClient(build_app(order, Echo(), "echo"))
    assert again.post("/segment", content=b"film", headers=headers).status_code == 200
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        build_app(order, Echo(), "echo")


@pytest.mark.slow
def test_the_command_serves_over_tls_and_ends_when_told(tmp_path: Path):
    import shutil
    import signal
    import sys

    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    model = write_small_model(tmp_path / "small")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "1"]
    subprocess.run([*map(str, words), "-subj", "/CN=localhost"], check=True, capture_output=True)
    command = [sys.executable, "-m", "clinic.run", "serve", model, "--token-file", tmp_path / "token", "--port", 0]
    command += ["--tls-cert", cert, "--tls-key", key]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split(": ")[0]
        assert address.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(cert))
        context.check_hostname = False
        token = (tmp_path / "token").read_text()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/dicom"}
        content = film_bytes(tmp_path)
        for _ in range(100):
            try:
                response = httpx.post(
                    f"{address}/segment", content=content, headers=headers, verify=context, timeout=60
                )
                break
            except httpx.ConnectError:
                time.sleep(0.2)
        assert response.status_code == 200
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def test_a_right_film_and_a_wrong_one_take_no_longer_than_they_must(client: TestClient, tmp_path: Path):
    """Sizes that a header claims are looked at before anything is decoded."""
    film_HW, _ = draw_film()
    path = film_file(tmp_path, "film", film_HW)
    film = pydicom.dcmread(path)
    film.Rows = film.Columns = 65535
    film.save_as(path)
    response = client.post("/segment", content=path.read_bytes(), headers=DICOM)
    assert (response.status_code, response.json()["detail"].split(":")[0]) == (422, "absurd_size")
