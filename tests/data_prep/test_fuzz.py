"""Hostile files: whatever the bytes, a reader returns an image or a `ReadError`, soon and in bounded memory."""

import resource
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import pydicom.data
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import RLELossless

from data_prep.read.dicom import read_any_header, read_film, read_header, read_image
from data_prep.schema import REASONS, ReadError
from tests.data_prep.trees import compress, write_dicom

RAMP = np.arange(96 * 64, dtype=np.uint16).reshape(96, 64) * 9
PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"
SLOWEST_S = 10.0
MOST_MEMORY_MB = 600


def seeds(folder: Path) -> list[bytes]:
    """Uncompressed, windowed and RLE files of our own, and other makers' files with sequences and private tags."""
    plain = write_dicom(folder / "plain.dcm", RAMP)
    tags = {"WindowCenter": 2000, "WindowWidth": 900, "RescaleSlope": 2, "RescaleIntercept": -9}
    made = [
        plain,
        write_dicom(folder / "mask.dcm", (RAMP > 20_000).astype(np.uint8) * 255),
        write_dicom(folder / "window.dcm", RAMP, **tags),
        compress(plain, folder / "rle.dcm", RLELossless),
    ]
    names = ("MR_small_bigendian", "MR_small_expb", "MR_small_RLE", "nested_priv_SQ", "CT_small", "priv_SQ")
    return [path.read_bytes() for path in [*made, *(PYDICOM_FILES / f"{name}.dcm" for name in names)]]


def mutate(rng: np.random.Generator, content: bytes) -> bytes:
    """Damage a file as disks, networks and enemies do."""
    data = bytearray(content)
    head = min(len(data), 1200)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(head if rng.random() < 0.8 else max(1, len(data))))
        match int(rng.integers(7)):
            case 0:
                data[at : at + 1] = bytes([int(rng.integers(256))])
            case 1:
                data[at : at + 4] = b"\xff\xff\xff\xff"  # an undefined or enormous length
            case 2:
                data[at : at + 2] = int(rng.integers(65536)).to_bytes(2, "little")
            case 3:
                del data[at : at + int(rng.integers(1, 40))]
            case 4:
                data[at:at] = rng.bytes(int(rng.integers(1, 40)))
            case 5:
                data = data[: max(1, int(rng.integers(len(data) + 1)))]
            case 6:
                data[at:at] = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * int(rng.integers(1, 200))  # nested items
        head = max(1, min(len(data), 1200))
    return bytes(data)


def read_all_ways(path: Path) -> list[str]:
    """What each reader makes of a file; anything but a ReadError escapes and fails the test."""
    outcomes = []
    for reader in (read_header, read_film, read_any_header):
        begin = time.monotonic()
        try:
            reader(path)
            outcomes.append("read")
        except ReadError as error:
            assert error.code in REASONS and error.detail
            outcomes.append(error.code)
        assert time.monotonic() - begin < SLOWEST_S
    return outcomes


def memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_2500_mutated_files_end_in_an_image_or_a_reason(tmp_path):
    rng, originals, before = np.random.default_rng(0), seeds(tmp_path), memory_mb()
    counts: dict[str, int] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(2500):
            path = tmp_path / "fuzzed.dcm"
            path.write_bytes(mutate(rng, originals[number % len(originals)]))
            for outcome in read_all_ways(path):
                counts[outcome] = counts.get(outcome, 0) + 1
    assert memory_mb() - before < MOST_MEMORY_MB
    assert {"read", "truncated", "unreadable", "not_dicom", "wrong_depth"} <= set(counts), counts


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=600), prefixed=st.booleans())
def test_random_bytes_end_in_a_reason(tmp_path, content, prefixed):
    path = tmp_path / "random.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + content if prefixed else content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "read" not in read_all_ways(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_mutated_images_end_in_an_image_or_a_reason(tmp_path, suffix):
    rng, path = np.random.default_rng(1), tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), (RAMP // 256).astype(np.uint8))
    content = path.read_bytes()
    for _ in range(60):
        path.write_bytes(mutate(rng, content))
        try:
            assert read_image(path).dtype in (np.uint8, np.uint16)
        except ReadError as error:
            assert error.code in REASONS


def test_headers_that_claim_more_than_the_file_has_take_no_memory(tmp_path):
    """Every element in turn claims 4 GB."""
    content = write_dicom(tmp_path / "a.dcm", RAMP).read_bytes()
    before = memory_mb()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for at in range(132, 700, 2):
            (tmp_path / "b.dcm").write_bytes(content[:at] + b"\xf0\xff\xff\xff" + content[at + 4 :])
            read_all_ways(tmp_path / "b.dcm")
    assert memory_mb() - before < 100
