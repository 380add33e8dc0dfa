"""Films that no one here drew: tags as hospitals write them, masks as annotation tools save them.

Each test plants a file on which older readings went wrong without a word.

pytest tests/data_prep/test_foreign_films.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, RLELossless

from data_prep.read.dicom import read_film, read_header, read_image
from data_prep.read.masks import read_mask
from data_prep.schema import ReadError
from data_prep.shape.breast import find_breast
from tests.data_prep.small_pairs import draw_film, draw_lesion
from tests.data_prep.trees import compress, mask_pixels, write_dicom

FILM = (draw_film(0) >> 4).astype(np.uint16)
"""12 bits."""


def code(path: Path) -> str:
    with pytest.raises(ReadError) as caught:
        read_film(path)
    return caught.value.code


@pytest.mark.parametrize("compressed", [False, True])
def test_left_justified_pixels_are_moved_down(tmp_path, compressed):
    """BitsStored 12, HighBit 15: the lower four bits of each cell are no image (DICOM PS3.5, 8.1.1)."""
    noise = np.random.default_rng(0).integers(0, 16, FILM.shape).astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", (FILM << 4) | noise, BitsStored=12, HighBit=15)
    if compressed:
        path = compress(path, tmp_path / "b.dcm", RLELossless)
    assert (read_image(path) == FILM).all()


@pytest.mark.parametrize("high_bit", [5, 16, 200])
def test_high_bit_that_cannot_be_is_refused(tmp_path, high_bit):
    assert code(write_dicom(tmp_path / "a.dcm", FILM, BitsStored=12, HighBit=high_bit)) == "wrong_depth"


@pytest.mark.parametrize(
    ("photometric", "padding", "limit", "filled"),
    [
        ("MONOCHROME2", 4095, None, 4095),
        ("MONOCHROME1", 0, None, 0),
        ("MONOCHROME2", 4000, 4095, 4050),
        ("MONOCHROME2", 0, None, 0),
    ],
)
def test_padding_is_as_dark_as_air(tmp_path, photometric, padding, limit, filled):
    """PixelPaddingValue (0028,0120): a vendor's blank is no tissue, whatever its value."""
    truth = FILM.copy()
    truth[truth == 0] = 40
    inverted = photometric == "MONOCHROME1"
    stored = (3000 - truth if inverted else truth).astype(np.uint16)
    air = np.zeros(FILM.shape, bool)
    air[:, 110:] = True
    stored[air] = filled
    tags = {"PhotometricInterpretation": photometric, "PixelPaddingValue": padding, "BitsStored": 12, "HighBit": 11}
    if limit is not None:
        tags["PixelPaddingRangeLimit"] = limit
    image = read_image(write_dicom(tmp_path / "a.dcm", stored, **tags))
    assert set(image[air].tolist()) == {image.min()}
    assert find_breast(image).box.right <= 115
    shift = int(image[120, 20]) - int(truth[120, 20])
    assert (image[~air].astype(int) - truth[~air] == shift).all()


def test_film_that_is_all_padding_stays_as_it_is(tmp_path):
    assert (
        read_image(write_dicom(tmp_path / "a.dcm", np.full((20, 20), 7, np.uint16), PixelPaddingValue=7)) == 7
    ).all()


@pytest.mark.parametrize("photometric", ["PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "ARGB", "", "MONOCHROME3"])
def test_pixels_that_are_no_grey_values_are_refused(tmp_path, photometric):
    assert code(write_dicom(tmp_path / "a.dcm", FILM, PhotometricInterpretation=photometric)) == "not_grey"


@pytest.mark.parametrize("columns", [16, 15])
def test_words_of_8_bit_big_endian_files_are_swapped_back(tmp_path, columns):
    """OW in Explicit VR Big Endian: bytes are written in pairs, the second first (DICOM PS3.5, 8.1.1 and annex A.3)."""
    image = np.arange(15 * columns, dtype=np.uint32).reshape(15, columns).astype(np.uint8)
    data = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", image))
    raw = image.tobytes() + b"\0" * (image.size % 2)
    data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    data.PixelData = np.frombuffer(raw, np.uint16).byteswap().tobytes()
    data["PixelData"].VR = "OW"
    options = {"little_endian": False, "implicit_vr": False, "force_encoding": True}
    pydicom.dcmwrite(tmp_path / "b.dcm", data, **options)
    assert (read_image(tmp_path / "b.dcm") == image).all()


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": 128, "WindowWidth": 256},  # of 8 bits, on a film of 12
        {"WindowCenter": 60000, "WindowWidth": 100},
        {"WindowCenter": 1500, "WindowWidth": 0},
        {"WindowCenter": 1500, "WindowWidth": -400},
        {"WindowCenter": 1500},
        {"WindowCenter": "1e400", "WindowWidth": "1e400"},
    ],
)
@pytest.mark.parametrize("inverted", [False, True])
def test_window_that_shows_nothing_sensible_is_ignored_and_told(tmp_path, tags, inverted):
    kind = "MONOCHROME1" if inverted else "MONOCHROME2"
    stored = (4095 - FILM if inverted else FILM).astype(np.uint16)
    if inverted and tags["WindowCenter"] == 128:
        tags = {**tags, "WindowCenter": 4095 - 128}
    elif inverted and tags["WindowCenter"] == 60000:
        tags = {**tags, "WindowCenter": -60000}
    film = read_film(write_dicom(tmp_path / "a.dcm", stored, PhotometricInterpretation=kind, **tags))
    assert [note.split(":")[0] for note in film.notes] == ["window_ignored"]
    assert (film.image_HW == FILM - FILM.min()).all()


def test_window_that_is_no_number_does_not_cost_the_film(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", FILM, WindowCenter=1500, WindowWidth=1000)
    content = path.read_bytes()
    assert content.count(b"1500") == 1
    path.write_bytes(content.replace(b"1500", b"x5.y"))
    film = read_film(path)
    assert film.notes and (film.image_HW == FILM).all()


def test_sensible_window_is_kept_and_can_be_left_out(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", FILM, WindowCenter=1300, WindowWidth=800)
    film = read_film(path)
    assert not film.notes and film.image_HW.max() == 65535
    assert (read_film(path, "none").image_HW == FILM).all()


def test_broken_lookup_table_is_ignored_and_told(tmp_path):
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [0, 0, 16], b""
    film = read_film(write_dicom(tmp_path / "a.dcm", FILM, VOILUTSequence=[table]))
    assert film.notes and (film.image_HW == FILM).all()


@pytest.mark.parametrize(
    ("tags", "spacing"),
    [
        ({"PixelSpacing": [0.1, 0.2]}, (0.1, 0.2)),
        ({"ImagerPixelSpacing": [0.07, 0.07]}, (0.07, 0.07)),
        ({"ImagerPixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": 1.25}, (0.08, 0.08)),
        ({"NominalScannedPixelSpacing": [0.05, 0.05]}, (0.05, 0.05)),
        ({"PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.2, 0.2]}, (0.1, 0.1)),
        ({"PixelSpacing": [0, 0]}, None),
        ({"PixelSpacing": [-1, 0.1]}, None),
        ({}, None),
    ],
)
def test_pixel_spacing_is_read_where_it_is_a_length(tmp_path, tags, spacing):
    path = write_dicom(tmp_path / "a.dcm", FILM, **tags)
    expected = None if spacing is None else pytest.approx(spacing)
    assert read_header(path).spacing_mm == expected
    assert read_film(path).spacing_mm == expected


def test_modality_rescale_alone_is_applied_under_either_window(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", FILM, RescaleSlope=-1, RescaleIntercept=4095)
    for window in ("header", "none"):
        image = read_film(path, window).image_HW
        assert image[0, -1] == 65535 and image[120, 20] < 65535


@pytest.mark.parametrize(("values", "name"), [((0, 1, 2), "a"), ((0, 100, 200), "b"), ((0, 3, 9), "c")])
def test_label_map_marks_every_label(tmp_path, values, name):
    """3D Slicer and ITK-SNAP write 0, 1, 2; others 0, 100, 200."""
    labels = np.full((240, 160), values[0], np.uint8)
    cv2.circle(labels, (50, 60), 12, values[1], -1)
    cv2.circle(labels, (90, 160), 9, values[2], -1)
    cv2.imwrite(str(tmp_path / f"{name}.png"), labels)
    assert (mask_pixels(tmp_path / f"{name}.png") == (labels > 0)).all()


def test_enlarged_mask_of_few_greys_is_no_label_map(tmp_path):
    small = np.zeros((40, 40), np.uint8)
    cv2.rectangle(small, (10, 10), (29, 29), 255, -1)
    large = cv2.resize(small, (80, 80), interpolation=cv2.INTER_LINEAR)
    assert 2 < len(np.unique(large)) < 8
    cv2.imwrite(str(tmp_path / "m.png"), large)
    assert (mask_pixels(tmp_path / "m.png") == (large > 127)).all()


@pytest.mark.parametrize("quality", [20, 60, 95])
def test_jpeg_mask_keeps_its_area_whatever_its_quality(tmp_path, quality):
    truth = draw_lesion(60, 120, 25)
    cv2.imwrite(str(tmp_path / "m.jpg"), truth, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert read_mask(tmp_path / "m.jpg").area_px == pytest.approx((truth > 0).sum(), rel=0.02)


def test_mask_keeps_the_lesions_own_box_alone(tmp_path):
    truth = draw_lesion(60, 120, 25)
    cv2.imwrite(str(tmp_path / "m.png"), truth)
    mask = read_mask(tmp_path / "m.png")
    assert mask.shape == truth.shape and mask.box == (95, 35, 146, 86) and mask.patch_hw.shape == (51, 51)
    assert (mask.full() == truth // 255).all()


def test_window_in_a_masks_header_does_not_count(tmp_path):
    truth = draw_lesion(60, 120, 25)
    path = write_dicom(tmp_path / "m.dcm", truth, WindowCenter=1000, WindowWidth=10)
    assert (mask_pixels(path) == truth // 255).all()
