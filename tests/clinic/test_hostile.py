"""Hostile files through `predict` and the service: one row or one code each, nothing crashes, nothing hangs.

Made by hand here; and mutated ones, as disks, networks and enemies make them (tests/data_prep/test_fuzz.py).
"""

import io
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, RLELossless
from typer.testing import CliRunner

from clinic.dicom.segmentation import segmentation
from clinic.dicom.source import Maker, completed
from clinic.films import find_films
from clinic.predict.batch import predict_films
from clinic.predict.outputs import to_bytes
from clinic.predict.predictor import Order
from clinic.run import app
from clinic.serve.answer import Answerer, AnswerJob
from clinic.serve.dicomweb import WORDS
from data_prep.read.dicom import read_dataset
from data_prep.schema import REASONS
from tests.clinic.fakes import draw_film, film_file, write_small_model
from tests.data_prep.test_fuzz import mutate, seeds

SLOWEST_S = 20.0
FILM_HW = draw_film()[0]


def tags(**changes: object) -> Callable[[Path], bytes]:
    """A film with some tags of other values."""

    def make(folder: Path) -> bytes:
        film = pydicom.dcmread(film_file(folder, image_HW=FILM_HW))
        for name, value in changes.items():
            setattr(film, name, value)
        return to_bytes(film)

    return make


def pixels(image_HW: np.ndarray, **changes: object) -> Callable[[Path], bytes]:
    return lambda folder: film_file(folder, image_HW=image_HW, **changes).read_bytes()


def cut(share: float) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        content = film_file(folder).read_bytes()
        return content[: int(len(content) * share)]

    return make


def raw(content: bytes) -> Callable[[Path], bytes]:
    return lambda folder: content


def syntax(uid: str, data: bytes = b"garbage") -> Callable[[Path], bytes]:
    """A film that claims to be compressed."""

    def make(folder: Path) -> bytes:
        film = pydicom.dcmread(film_file(folder))
        film.file_meta.TransferSyntaxUID = uid
        film.PixelData = pydicom.encaps.encapsulate([data])
        film["PixelData"].VR = "OB"
        film["PixelData"].is_undefined_length = True
        return to_bytes(film)

    return make


def nested(depth: int) -> Callable[[Path], bytes]:
    """Sequences in sequences; written by hand, for the library that writes them does not survive it."""
    begin = b"\x08\x00\x10\x11\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    return replaced(b"\x10\x00\x20\x00", begin * depth + end * depth + b"\x10\x00\x20\x00")


def lut(name: str, descriptor: list[int], data: bytes) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        film, table = pydicom.dcmread(film_file(folder)), Dataset()
        table.add_new("LUTDescriptor", "US", descriptor)
        table.add_new("LUTData", "OW", data)
        setattr(film, name, Sequence([table]))
        return to_bytes(film)

    return make


def replaced(old: bytes, new: bytes) -> Callable[[Path], bytes]:
    return lambda folder: film_file(folder).read_bytes().replace(old, new, 1)


def big_endian(folder: Path) -> bytes:
    film = pydicom.dcmread(film_file(folder))
    buffer = io.BytesIO()
    meta = film.file_meta
    meta.TransferSyntaxUID = ExplicitVRBigEndian
    plain = Dataset()
    plain.update({element.tag: element for element in film})
    plain.file_meta, plain.PixelData = meta, FILM_HW.astype(">u2").tobytes()
    pydicom.dcmwrite(buffer, plain, little_endian=False, implicit_vr=False, enforce_file_format=True)
    return buffer.getvalue()


def without_pixels(folder: Path) -> bytes:
    film = pydicom.dcmread(film_file(folder))
    del film.PixelData
    return to_bytes(film)


def a_segmentation(folder: Path) -> bytes:
    source = completed(read_dataset(film_file(folder)))
    return to_bytes(segmentation(source, [], Maker(model="m", version="1", settings="s")))


def image(suffix: str, picture: np.ndarray) -> Callable[[Path], bytes]:
    return lambda folder: cv2.imencode(suffix, picture)[1].tobytes()


def png_bomb(folder: Path) -> bytes:
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(100_000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def zip_bomb(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("film.dcm", bytes(20_000_000))
    return buffer.getvalue()


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    # not DICOM
    "empty": raw(b""),
    "one byte": raw(b"x"),
    "zeros": raw(bytes(500)),
    "prefix alone": raw(bytes(128) + b"DICM"),
    "prefix and noise": raw(bytes(128) + b"DICM" + np.random.default_rng(0).bytes(3000)),
    "text": raw(b"Dear archive,\n" * 200),
    "executable": raw(b"\x7fELF" + bytes(2000)),
    "zip bomb": zip_bomb,
    "gif": raw(b"GIF89a" + bytes(300)),
    "png bomb": png_bomb,
    "png cut": lambda folder: image(".png", FILM_HW)(folder)[:2000],
    "jpeg cut": lambda folder: image(".jpg", (FILM_HW >> 8).astype(np.uint8))(folder)[:1500],
    "png in colour": image(".png", np.dstack([(FILM_HW >> 8).astype(np.uint8)] * 3)),
    "tiff": image(".tif", FILM_HW),
    # cut and broken
    "cut in the header": cut(0.002),
    "cut in the pixels": cut(0.5),
    "one byte short": lambda folder: film_file(folder).read_bytes()[:-1],
    "no pixels": without_pixels,
    "a length of 4 GB": replaced(b"\x10\x00\x20\x00", b"\x10\x00\x20\x00\xff\xff\xff\xff"),
    "nested 200 deep": nested(200),
    "nested 5000 deep": nested(5000),
    # sizes
    "no rows": tags(Rows=0),
    "no columns": tags(Columns=0),
    "65535 square": tags(Rows=65535, Columns=65535),
    "more rows than pixels": tags(Rows=5000),
    "one pixel": pixels(np.ones((1, 1), np.uint16)),
    "a strip": pixels(np.ones((2, 15_000), np.uint16)),
    "1 bit": tags(BitsAllocated=1, BitsStored=1, HighBit=0),
    "32 bits": tags(BitsAllocated=32, BitsStored=32, HighBit=31),
    "stored above allocated": tags(BitsStored=40),
    "high bit 200": tags(HighBit=200),
    "no bits stored": tags(BitsStored=0),
    "two frames": tags(NumberOfFrames=2),
    "a million frames": tags(NumberOfFrames=1_000_000),
    "frames below zero": tags(NumberOfFrames=-3),
    # grey values
    "rgb": tags(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0),
    "palette": tags(PhotometricInterpretation="PALETTE COLOR"),
    "ybr": tags(PhotometricInterpretation="YBR_FULL"),
    "unknown photometric": tags(PhotometricInterpretation="ULTRAVIOLET"),
    "no photometric": tags(PhotometricInterpretation=""),
    "monochrome1": tags(PhotometricInterpretation="MONOCHROME1"),
    "signed": tags(PixelRepresentation=1),
    "black": pixels(np.zeros((400, 300), np.uint16)),
    "white": pixels(np.full((400, 300), 65535, np.uint16)),
    "noise": pixels(np.random.default_rng(1).integers(0, 65535, (400, 300)).astype(np.uint16)),
    "window of no width": tags(WindowCenter=100, WindowWidth=0),
    "window of text": replaced(b"\x10\x00\x20\x00", b"\x28\x00\x50\x10\x04\x00\x00\x00abcd\x10\x00\x20\x00"),
    "slope of no number": tags(RescaleSlope="NaN", RescaleIntercept="0"),
    "slope without end": tags(RescaleSlope="1e308", RescaleIntercept="-1e308"),
    "voi lut too short": lut("VOILUTSequence", [4096, 0, 16], b"\1\2"),
    "voi lut of no entries": lut("VOILUTSequence", [0, 0, 0], b""),
    "modality lut broken": lut("ModalityLUTSequence", [10], b"\0" * 20),
    # compressed
    "unknown syntax": syntax("1.2.3.4.5"),
    "deflated": syntax("1.2.840.10008.1.2.1.99"),
    "rle garbage": syntax(RLELossless),
    "rle of lies": syntax(RLELossless, struct.pack("<16I", 2, 64, 2**31, *[0] * 13) + bytes(200)),
    "jpeg garbage": syntax("1.2.840.10008.1.2.4.70", b"\xff\xd8\xff" + bytes(300)),
    "jpeg-ls garbage": syntax(
        "1.2.840.10008.1.2.4.80", b"\xff\xd8\xff\xf7\x00\x0b\x10\xff\xff\xff\xff\x01" + bytes(300)
    ),
    "jpeg 2000 garbage": syntax("1.2.840.10008.1.2.4.90", b"\xff\x4f\xff\x51" + b"\xff" * 300),
    "video": syntax("1.2.840.10008.1.2.4.102"),
    "big endian": big_endian,
    # names
    "a name of a megabyte": tags(PatientName="A" * 1_000_000),
    "a name with lines": tags(PatientName="Anna\r\n=cmd|x\x1b[31m^\0"),
    "a path as identity": tags(PatientID="../../../etc/passwd", StudyID="..\\..\\x"),
    "no identity": tags(SOPInstanceUID="", StudyInstanceUID="", SeriesInstanceUID=""),
    "uids of text": tags(SOPInstanceUID="not a uid", StudyInstanceUID="../x"),
    "uids too long": tags(SOPInstanceUID="1." * 200 + "1"),
    "unknown characters": tags(SpecificCharacterSet="ISO_IR 9999", PatientName="x"),
    "wrong characters": replaced(b"Mass-Test_P_00001_LEFT_CC", b"\xff\xfe\x80\x81Mass-Test_P_00001_LE_"),
    "dates of text": tags(StudyDate="yesterday", StudyTime="noon", PatientBirthDate="99999999"),
    "spacing of no numbers": tags(PixelSpacing=["0", "-1"], ImagerPixelSpacing=[1e-30, 1e30]),
    "a side that is none": tags(Laterality="X", ViewPosition="UPSIDE", PatientOrientation=["?", "?", "?"]),
    "a segmentation": a_segmentation,
    "another class": tags(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33"),
}
"""What is sent, by what is wrong with it."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def answerer(model: Path) -> Answerer:
    return AnswerJob(models=(str(model),), threads=1).open()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_film_is_a_row_and_a_code(model: Path, answerer: Answerer, tmp_path: Path, name: str):
    content = HOSTILE[name](tmp_path / "source")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "hostile.dcm").write_bytes(content)
    began = time.monotonic()
    order = Order(models=(str(model),), out=str(tmp_path / "out"), threads=1, outputs=("mask", "seg", "report"))
    [row] = predict_films(order, find_films([str(tmp_path / "in")])).to_dict("records")
    assert row["status"] in ("segmented", "partly", "left_out")
    if row["status"] == "left_out":
        assert row["reason"].split(":")[0] in REASONS
    assert row["status"] == "segmented" or row["reason"]
    [answer] = answerer([content], ("seg", "report"))
    assert answer.code in ("", *WORDS)
    assert bool(answer.objects) == (answer.code == "")
    assert time.monotonic() - began < SLOWEST_S


def test_there_are_at_least_fifty_of_them():
    assert len(HOSTILE) >= 50


@pytest.mark.filterwarnings("ignore")
def test_the_command_says_one_line_for_each_and_its_status_tells(model: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    names = list(HOSTILE)[:30]
    for number, name in enumerate(names):
        content = HOSTILE[name](tmp_path / "source")
        (tmp_path / "in" / f"{number:02}.dcm").write_bytes(content)
    done = CliRunner().invoke(app, ["predict", str(model), str(tmp_path / "in"), "--out", str(tmp_path / "out"),
                                    "--workers", "0", "--write", "mask"])  # fmt: skip
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    lines = [line for line in done.output.splitlines() if line[:2].isdigit() and ": " in line]
    assert len(lines) == len({line[:2] for line in lines}) >= 15


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mutated_films_are_each_answered(answerer: Answerer, tmp_path: Path):
    rng, originals = np.random.default_rng(3), [film_file(tmp_path).read_bytes(), *seeds(tmp_path)]
    counts: dict[str, int] = {}
    for number in range(400):
        [answer] = answerer([mutate(rng, originals[number % len(originals)])], ("seg", "report"))
        counts[answer.code] = counts.get(answer.code, 0) + 1
    assert counts[""] > 10
    assert set(counts) <= {"", *WORDS}
