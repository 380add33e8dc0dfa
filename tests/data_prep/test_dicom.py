import os
import zlib
from pathlib import Path

import cv2
import numpy as np
import pydicom.data
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from data_prep.read import dicom
from data_prep.read.codestream import decode_rle
from data_prep.read.dicom import HeaderError, read_header, read_image, read_shape
from data_prep.read.masks import read_mask
from data_prep.schema import ReadError
from tests.data_prep.jpeg_lossless import encode_jpeg_lossless
from tests.data_prep.trees import SHARED, compress, mask_pixels, rewrite, write_dicom

RAMP = np.arange(96 * 64, dtype=np.uint16).reshape(96, 64) * 9
PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"


def code(function, path) -> str:
    with pytest.raises(ReadError) as caught:
        function(path)
    return caught.value.code


def test_header_has_the_tags_and_reads_no_pixel(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP, name="Mass-Training_P_00001_LEFT_CC_2", LargestImagePixelValue=55287)
    header = read_header(path)
    assert (header.patient_id, header.series_description) == (
        "Mass-Training_P_00001_LEFT_CC_2",
        "full mammogram images",
    )
    assert (header.rows, header.columns, header.bits_allocated, header.bits_stored) == (96, 64, 16, 16)
    assert (header.photometric, header.compressed, header.largest_value) == ("MONOCHROME2", False, 55287)
    assert header.pixel_bytes == RAMP.nbytes
    with path.open("r+b") as file:  # a header that is read with the pixels gone proves that none was read
        file.seek(header.pixel_offset)
        file.write(b"\xff" * RAMP.nbytes)
    assert read_header(path) == header


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_stored_values_come_back_unchanged_without_tags(tmp_path, dtype):
    image = RAMP.astype(dtype)
    read = read_image(write_dicom(tmp_path / "a.dcm", image))
    assert read.dtype == dtype and (read == image).all()


def test_odd_number_of_8_bit_pixels(tmp_path):
    image = np.arange(15, dtype=np.uint8).reshape(5, 3)
    assert (read_image(write_dicom(tmp_path / "a.dcm", image)) == image).all()


def test_monochrome1_is_inverted_so_that_air_is_dark(tmp_path):
    read = read_image(write_dicom(tmp_path / "a.dcm", RAMP, PhotometricInterpretation="MONOCHROME1"))
    assert (read == RAMP.max() - RAMP).all()


def test_12_bits_of_16_drop_what_lies_above_them(tmp_path):
    image = (RAMP % 4096).astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", image | 0x8000, BitsStored=12, HighBit=11)
    assert (read_image(path) == image).all()


def test_window_is_applied_and_spread_over_16_bits(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=20_000, WindowWidth=20_001)
    read = read_image(path).astype(float)
    expected = np.clip((RAMP - 10_000.0) / 20_000, 0, 1) * 65535  # DICOM PS3.3, C.11.2.1.2
    assert np.abs(read - expected).max() <= 4


def test_negative_slope_reverses_the_grey_scale(tmp_path):
    read = read_image(write_dicom(tmp_path / "a.dcm", RAMP, RescaleSlope=-2, RescaleIntercept=100))
    assert read[0, 0] == 65535 and read[-1, -1] == 0
    assert (np.diff(read.ravel().astype(int)) <= 0).all()


def test_slope_of_one_leaves_stored_values(tmp_path):
    assert (read_image(write_dicom(tmp_path / "a.dcm", RAMP, RescaleSlope=1, RescaleIntercept=0)) == RAMP).all()


def test_signed_pixels_begin_at_zero(tmp_path):
    signed = RAMP.astype(np.int32) - 28_000
    path = write_dicom(tmp_path / "a.dcm", signed.astype(np.int16).view(np.uint16), PixelRepresentation=1)
    assert (read_image(path) == RAMP).all()


@pytest.mark.parametrize(
    "syntax", [RLELossless, pytest.param(JPEG2000Lossless, id="jpeg2000"), pytest.param(JPEGLSLossless, id="jpeg-ls")]
)
def test_lossless_compression_gives_the_same_pixels(tmp_path, syntax):
    if syntax != RLELossless:
        pytest.importorskip("openjpeg" if syntax == JPEG2000Lossless else "jpeg_ls", reason="needs the extra codecs")
    plain = write_dicom(tmp_path / "a.dcm", RAMP)
    assert (read_image(compress(plain, tmp_path / "b.dcm", syntax)) == RAMP).all()


def test_jpeg_lossless_gives_the_same_pixels(tmp_path):
    pytest.importorskip("libjpeg", reason="needs the extra codecs")
    path = encode_jpeg_lossless(write_dicom(tmp_path / "a.dcm", RAMP), tmp_path / "b.dcm")
    assert (read_image(path) == RAMP).all()


def test_files_of_other_makers_agree_across_transfer_syntaxes():
    names = ("implicit", "RLE", "bigendian", "expb", "padded", "jp2klossless", "jpeg_ls_lossless")
    pytest.importorskip("openjpeg", reason="needs the extra codecs")
    first, *others = [read_image(PYDICOM_FILES / f"MR_small_{name}.dcm") for name in names]
    assert first.shape == (64, 64) and np.ptp(first) == 65535
    assert all((other == first).all() for other in others)


def test_missing_codec_names_the_extra(tmp_path, monkeypatch):
    class NoDecoder:
        is_available = False

    path = encode_jpeg_lossless(write_dicom(tmp_path / "a.dcm", RAMP), tmp_path / "b.dcm")
    monkeypatch.setattr(dicom, "get_decoder", lambda syntax: NoDecoder())
    with pytest.raises(ReadError, match=r"unreadable: JPEG Lossless.*mammosearch\[codecs\]"):
        read_image(path)


def test_code_stream_larger_than_its_header_is_not_decoded(tmp_path):
    path = compress(write_dicom(tmp_path / "a.dcm", RAMP), tmp_path / "b.dcm", JPEG2000Lossless)
    rewrite(path, Rows=48)
    with pytest.raises(ReadError, match="unreadable: the code stream has"):
        read_image(path)


def test_rle_bomb_fills_no_more_than_the_image(tmp_path):
    run = b"\x81\x00" * 4096  # each pair asks for 128 pixels
    frame = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + b"\0" * 56 + run
    assert decode_rle(frame, 10, 10, 1).shape == (10, 10)


def test_empty_file(tmp_path):
    (tmp_path / "a.dcm").touch()
    assert {code(f, tmp_path / "a.dcm") for f in (read_header, read_image, read_image, read_shape)} == {"empty_file"}


def test_other_content_is_no_dicom(tmp_path):
    (tmp_path / "a.dcm").write_text("this is no DICOM file\n" * 20)
    assert code(read_header, tmp_path / "a.dcm") == "not_dicom"
    assert code(read_image, tmp_path / "a.dcm") == "not_dicom"


@pytest.mark.parametrize("kept", [200, 700, 5000])
def test_file_cut_anywhere_is_truncated(tmp_path, kept):
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    path.write_bytes(path.read_bytes()[:kept])
    assert code(read_header, path) == code(read_image, path) == "truncated"


def test_truncated_pixels_still_tell_whose_file_it_is(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(HeaderError, match="truncated: 12188 of 12288 bytes") as caught:
        read_header(path)
    assert caught.value.header.patient_id == "Mass-Test_P_00001_LEFT_CC"


def test_cut_compressed_file_is_truncated(tmp_path):
    path = compress(write_dicom(tmp_path / "a.dcm", RAMP), tmp_path / "b.dcm", RLELossless)
    path.write_bytes(path.read_bytes()[:-1000])
    assert code(read_image, path) == "truncated"


@pytest.mark.parametrize(("rows", "columns"), [(60_000, 60_000), (30_000, 10), (16_000, 16_000)])
def test_absurd_size_is_refused_before_memory_is_taken(tmp_path, rows, columns):
    path = write_dicom(tmp_path / "a.dcm", RAMP, Rows=rows, Columns=columns)
    assert code(read_header, path) == code(read_image, path) == "absurd_size"


def test_file_larger_than_any_film_is_refused_unread(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    os.truncate(path, 10 * 2**30)  # sparse: takes no disk
    assert code(read_image, path) == "absurd_size"


@pytest.mark.parametrize(
    "tags",
    [
        {"BitsAllocated": 32, "BitsStored": 32},
        {"BitsAllocated": 1, "BitsStored": 1},
        {"BitsStored": 20},
        {"SamplesPerPixel": 3},
        {"NumberOfFrames": 2},
    ],
)
def test_other_depths_are_refused(tmp_path, tags):
    assert code(read_image, write_dicom(tmp_path / "a.dcm", RAMP, **tags)) == "wrong_depth"


def test_missing_file_folder_and_pipe_are_unreadable(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert {code(read_header, tmp_path / n) for n in ("absent.dcm", "pipe", ".")} == {"unreadable"}


def test_deflated_files_are_not_inflated():
    assert code(read_image, PYDICOM_FILES / "image_dfl.dcm") == "unreadable"


def test_report_without_pixels_is_no_image():
    assert code(read_image, PYDICOM_FILES / "test-SR.dcm") == "no_image"
    assert code(read_image, PYDICOM_FILES / "waveform_ecg.dcm") == "no_image"


@pytest.mark.parametrize("kept", [600, 604, 3001, 6789])
def test_report_that_is_cut_is_truncated(tmp_path, kept):
    (tmp_path / "a.dcm").write_bytes((PYDICOM_FILES / "test-SR.dcm").read_bytes()[:kept])
    assert code(read_image, tmp_path / "a.dcm") == "truncated"


def test_uri_reads_the_same_as_a_path(tmp_path):
    path = write_dicom(tmp_path / "with space.dcm", RAMP)
    assert (read_image(f"file://{path}") == RAMP).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_images_keep_their_bits(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), RAMP)
    read = read_image(path)
    assert read.dtype == np.uint16 and (read == RAMP).all()
    assert read_shape(path) == RAMP.shape


def test_format_is_told_by_content_not_by_name(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), RAMP)
    (tmp_path / "a.png").rename(tmp_path / "a.dcm")
    write_dicom(tmp_path / "b.png", RAMP)
    assert (read_image(tmp_path / "a.dcm") == RAMP).all()
    assert (read_image(tmp_path / "b.png") == RAMP).all()


def test_colour_images_turn_grey(tmp_path):
    grey = (RAMP // 256).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGRA))
    assert (read_image(tmp_path / "a.png") == grey).all()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_cut_images_are_truncated(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), (RAMP // 256).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:-40])
    assert code(read_image, path) == "truncated"


def test_png_that_claims_an_absurd_size_is_not_decoded(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), RAMP)
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content)
    assert code(read_image, tmp_path / "a.png") == code(read_shape, tmp_path / "a.png") == "absurd_size"


def test_floating_point_image_is_wrong_depth(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tif"), RAMP.astype(np.float32))
    assert code(read_image, tmp_path / "a.tif") == "wrong_depth"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (0, 65535), (3, 7)])
def test_mask_of_two_values_marks_the_upper_one(tmp_path, low, high):
    truth = (RAMP > 20_000).astype(np.uint8)
    dtype = np.uint16 if high > 255 else np.uint8
    cv2.imwrite(str(tmp_path / "m.png"), np.where(truth, high, low).astype(dtype))
    mask = mask_pixels(tmp_path / "m.png")
    assert mask.dtype == np.uint8 and (mask == truth).all()


def test_grey_masks_are_cut_at_half_of_their_range(tmp_path):
    for name, values, expected in (
        ("8", np.array([[0, 127, 128, 255]], np.uint8), [[0, 0, 1, 1]]),
        ("sum", np.array([[0, 100, 255, 510]], np.uint16), [[0, 0, 1, 1]]),
        ("16", np.array([[0, 32767, 32768, 65535]], np.uint16), [[0, 0, 1, 1]]),
    ):
        cv2.imwrite(str(tmp_path / f"{name}.png"), values)
        assert mask_pixels(tmp_path / f"{name}.png").tolist() == expected


def test_jpeg_mask_rings_but_keeps_its_area(tmp_path):
    truth = np.zeros((200, 160), np.uint8)
    cv2.circle(truth, (80, 90), 30, 255, -1)
    cv2.imwrite(str(tmp_path / "m.jpg"), truth, [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert len(np.unique(read_image(tmp_path / "m.jpg"))) > 12
    assert mask_pixels(tmp_path / "m.jpg").sum() == pytest.approx((truth > 0).sum(), rel=0.01)


def test_black_mask_is_named(tmp_path):
    assert code(read_mask, write_dicom(tmp_path / "a.dcm", np.zeros((9, 8), np.uint8))) == "mask_black"


def test_real_films_have_the_values_that_their_header_states():
    folder = SHARED / "data" / "cbis_ddsm_dicom_small"
    if not folder.exists():
        pytest.skip("the eight real films are not beside this checkout")
    for path in sorted(folder.glob("*.dcm")):
        header, image = read_header(path), read_image(path)
        assert header.patient_id == path.stem and image.dtype == np.uint16
        assert (image.shape, image.max()) == ((header.rows, header.columns), header.largest_value)
        assert np.median(image) == 0 or np.median(image) < 0.1 * image.max()
