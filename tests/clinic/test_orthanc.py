"""An Orthanc server of Debian's beside the service: a film sent to it comes back with its segmentation.

Each test starts an Orthanc of its own on loopback, and ends it.
"""

import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest

from clinic.serve.answer import Answerer, AnswerJob
from clinic.serve.server import Here
from tests.clinic.fakes import draw_film, film_file, write_small_model
from tests.clinic.services import TOKEN, echo_app, listening, until
from tests.file_tree import ROOT

ORTHANC = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
PLUGINS = Path("/usr/share/orthanc/plugins")
USER = ("tester", "a-password")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(ORTHANC).exists(), reason="Orthanc (Debian: orthanc) is not installed"),
]


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def orthanc(folder: Path, service: str, **settings: object) -> Iterator[httpx.Client]:
    """A client of an Orthanc server on loopback that knows the service's address and token."""
    port = free_port()
    (folder / "token").write_text(TOKEN)
    config = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": dict([USER]),
        "StableAge": 1,
        **settings,
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    environment = {**os.environ, "MAMMOSEARCH_URL": service, "MAMMOSEARCH_TOKEN_FILE": str(folder / "token")}
    with (folder / "orthanc.log").open("wb") as log:
        server = subprocess.Popen(
            [ORTHANC, str(folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT, env=environment
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=USER, timeout=120) as client:
            until(lambda: answers(client), timeout_s=120)
            yield client
    finally:
        server.terminate()
        server.wait(60)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/system").status_code == 200
    except httpx.TransportError:
        return False


def instances(client: httpx.Client, modality: str) -> list[str]:
    """Orthanc's ids of the instances of one modality."""
    query = {"Level": "Instance", "Query": {"Modality": modality}}
    return list(client.post("/tools/find", json=query).json())


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    model = write_small_model(tmp_path_factory.mktemp("models") / "small")
    return AnswerJob(models=(str(model),), threads=1, plane_geometry=True).open()


@pytest.fixture
def service(answerer: Answerer) -> Iterator[str]:
    with listening(echo_app(Here(answerer, 2))) as address:
        yield address


def film_back(client: httpx.Client, film: Path, *, objects: Callable[[], list[str]]) -> None:
    """Send a film and wait for its segmentation, which must be of the film."""
    sent = client.post("/instances", content=film.read_bytes())
    assert sent.status_code == 200, sent.text
    until(objects, timeout_s=120)
    [found] = objects()
    made = pydicom.dcmread(io.BytesIO(client.get(f"/instances/{found}/file").content))
    source = pydicom.dcmread(film)
    assert made.StudyInstanceUID == source.StudyInstanceUID
    assert (
        made.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    )


def test_a_film_sent_to_orthanc_comes_back_by_the_lua_script(service: str, tmp_path: Path):
    script = ROOT / "clinic" / "orthanc" / "segment.lua"
    with orthanc(tmp_path, service, LuaScripts=[str(script)]) as client:
        film_back(client, film_file(tmp_path), objects=lambda: instances(client, "SEG"))
        time.sleep(2)
        assert len(instances(client, "SEG")) == 1  # its own answer is not sent back for a segmentation


@pytest.mark.skipif(not (PLUGINS / "libOrthancPython.so").exists(), reason="the plugin orthanc-python is not installed")
def test_a_film_sent_to_orthanc_comes_back_by_the_python_plugin(service: str, tmp_path: Path):
    settings = {
        "Plugins": [str(PLUGINS / "libOrthancPython.so")],
        "PythonScript": str(ROOT / "clinic" / "orthanc" / "segment.py"),
    }
    with orthanc(tmp_path, service, **settings) as client:
        film_back(client, film_file(tmp_path), objects=lambda: instances(client, "SEG"))
        until(lambda: instances(client, "SR"))
        time.sleep(3)  # the answers are stable series too
        assert (len(instances(client, "SEG")), len(instances(client, "SR"))) == (1, 1)


@pytest.mark.skipif(not (PLUGINS / "libOrthancPython.so").exists(), reason="the plugin orthanc-python is not installed")
def test_a_service_that_comes_later_is_asked_again(answerer: Answerer, tmp_path: Path):
    port = free_port()
    settings = {
        "Plugins": [str(PLUGINS / "libOrthancPython.so")],
        "PythonScript": str(ROOT / "clinic" / "orthanc" / "segment.py"),
    }
    with orthanc(tmp_path, f"http://127.0.0.1:{port}", **settings) as client:
        client.post("/instances", content=film_file(tmp_path).read_bytes())
        time.sleep(3)
        with listening(echo_app(Here(answerer, 2)), port=port):
            until(lambda: instances(client, "SEG"), timeout_s=120)


@pytest.mark.skipif(not (PLUGINS / "libOrthancDicomWeb.so").exists(), reason="orthanc-dicomweb is not installed")
def test_every_object_is_stored_found_and_given_back_by_dicomweb(answerer: Answerer, tmp_path: Path):
    DICOMwebClient = pytest.importorskip("dicomweb_client.api").DICOMwebClient
    from clinic.predict.outputs import OF_DICOM

    film = film_file(tmp_path, image_HW=draw_film()[0])
    objects = answerer([film.read_bytes()], OF_DICOM)[0].objects
    assert set(objects) == set(OF_DICOM)
    settings = {"Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")]}
    with orthanc(tmp_path, "", **settings) as client:
        session = httpx_session()
        web = DICOMwebClient(url=f"{client.base_url}/dicom-web", session=session)
        sent = {name: pydicom.dcmread(io.BytesIO(content)) for name, content in objects.items()}
        web.store_instances([pydicom.dcmread(film), *sent.values()])
        study = pydicom.dcmread(film).StudyInstanceUID
        found = {item["0020000E"]["Value"][0] for item in web.search_for_series(study)}
        assert {made.SeriesInstanceUID for made in sent.values()} <= found
        for name, made in sent.items():
            back = web.retrieve_instance(study, made.SeriesInstanceUID, made.SOPInstanceUID)
            assert back.get("PixelData") == made.get("PixelData"), name
            if "PixelData" in made and name == "seg":
                assert np.array_equal(back.pixel_array, made.pixel_array)


def httpx_session():
    """What dicomweb-client sends its requests with."""
    import requests

    session = requests.Session()
    session.auth = USER
    return session
