"""The breast's box, orientation, and the way of a mask to the sample and back.

pytest tests/data_prep/test_geometry.py
"""

import cv2
import numpy as np
import pytest

from data_prep.read.dicom import read_image
from data_prep.shape.box import Box, lesion_box, whole_multiple
from data_prep.shape.breast import find_breast
from data_prep.shape.geometry import WORKING_PX, Geometry, find_geometry, keep_area
from tests.data_prep.trees import SHARED

FILMS = SHARED / "data" / "cbis_ddsm_dicom_small"


def draw_breast(*, rows=1200, columns=800, side="left", label=True, strips=True):
    """A 16-bit film: half an ellipse at one edge, letters, white strips, a skin marker."""
    film = np.zeros((rows, columns), np.uint16)
    cv2.ellipse(film, (0, rows // 2), (columns // 2, rows // 3), 0, -90, 90, 22000, -1)
    film[film > 0] += (np.random.default_rng(0).random(int((film > 0).sum())) * 9000).astype(np.uint16)
    if side == "right":
        film = np.ascontiguousarray(film[:, ::-1])
    if label:
        outer = int(columns * (0.6 if side == "left" else 0.05))
        write(film, "MLO", (outer, rows // 8), scale=3, width=14)
    if strips:
        film[: rows // 100] = 65535
        film[-rows // 100 :] = 60000
    return film


def write(film, text, place, *, scale, width):
    letters = np.zeros(film.shape, np.uint8)
    cv2.putText(letters, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, width)
    film[letters > 0] = 65535


def breast_box(rows=1200, columns=800, side="left"):
    left = 0 if side == "left" else columns - columns // 2
    return Box(rows // 2 - rows // 3, left, rows // 2 + rows // 3, left + columns // 2)


def disc(rows, columns, centre, diameter):
    y, x = np.ogrid[:rows, :columns]
    return (((y - centre[0]) ** 2 + (x - centre[1]) ** 2) <= (diameter / 2) ** 2).astype(np.uint8) * 255


def whole_film(rows, columns, size_px, *, flipped=False):
    return Geometry(rows=rows, columns=columns, box=Box(0, 0, rows, columns), flipped=flipped, size_px=size_px)


@pytest.mark.parametrize("side", ["left", "right"])
def test_box_is_the_breast_without_label_and_strips(side):
    box = find_breast(draw_breast(side=side)).box
    margin = 0.03 * 1200
    assert all(abs(a - b) <= margin for a, b in zip(box, breast_box(side=side), strict=True)), box


def test_box_holds_the_dark_fat_of_a_breast():
    film = draw_breast()
    cv2.circle(film, (150, 600), 90, 300, -1)
    assert find_breast(film).box.covers(Box(230, 5, 970, 380))


def test_no_breast_on_an_empty_film_or_one_with_a_label_alone():
    label = np.zeros((1200, 800), np.uint16)
    write(label, "RCC", (100, 100), scale=2, width=8)
    assert find_breast(np.zeros((1200, 800), np.uint16)) is None
    assert find_breast(label) is None
    assert find_geometry(label, size_px=224) is None


@pytest.mark.parametrize("side", ["left", "right"])
def test_chest_wall_is_found_from_the_pixels(side):
    assert find_breast(draw_breast(side=side)).chest_wall == side
    assert find_geometry(draw_breast(side=side), size_px=224).flipped == (side == "right")


def test_mirrored_film_gives_the_same_sample():
    left = draw_breast(label=False)
    right = np.ascontiguousarray(left[:, ::-1])
    a, b = (find_geometry(film, size_px=224).apply_image(film).astype(int) for film in (left, right))
    assert np.abs(a - b).mean() < 0.02 * a.max()


@pytest.mark.skipif(not FILMS.is_dir(), reason=f"the eight reduced CBIS-DDSM films are not at {FILMS}")
def test_real_films_lose_their_labels_and_are_mirrored_rightly():
    films = sorted(FILMS.glob("*.dcm"))
    assert len(films) == 8
    for path in films:
        image_HW = read_image(path)
        side = "LEFT" if "LEFT" in path.name else "RIGHT"
        geometry = find_geometry(image_HW, size_px=224)
        share = geometry.box.columns / geometry.columns
        assert geometry.flipped == (side == "RIGHT"), path.name
        assert geometry.box.left == 0 if side == "LEFT" else geometry.box.right == geometry.columns, path.name
        assert 0.4 < share < 0.7, path.name  # the letters begin beyond


def test_aspect_ratio_is_kept_and_the_rest_padded():
    film = draw_breast(label=False, strips=False)
    geometry = find_geometry(film, size_px=224)
    rows, columns = geometry.inner
    assert rows == 224
    assert columns / rows == pytest.approx(geometry.box.columns / geometry.box.rows, abs=1 / 224)
    image_SS = geometry.apply_image(film)
    assert image_SS.shape == (224, 224)
    assert image_SS.dtype == np.uint16
    assert (image_SS[:, columns:] == image_SS[:, :columns].min()).all()


def test_film_smaller_than_the_sample_is_enlarged():
    film = draw_breast(rows=96, columns=64, strips=False, label=False)
    geometry = find_geometry(film, size_px=224)
    assert geometry.scale > 1
    assert geometry.apply_image(film).shape == (224, 224)


@pytest.mark.parametrize("flipped", [False, True])
def test_undo_puts_a_mask_back_where_it_was(flipped):
    box = Box(100, 40, 900, 500)
    geometry = Geometry(rows=1000, columns=700, box=box, flipped=flipped, size_px=224)
    mask_HW = disc(1000, 700, (400, 210), 120) > 0
    back_HW = geometry.undo(geometry.apply_mask(mask_HW)).astype(bool)
    assert (mask_HW & back_HW).sum() / (mask_HW | back_HW).sum() > 0.93
    assert not back_HW[:, 500:].any()


def test_undo_of_a_map_keeps_probabilities():
    geometry = Geometry(rows=100, columns=60, box=Box(10, 10, 74, 42), flipped=True, size_px=32)
    film_HW = geometry.undo(np.full((32, 32), 0.25, np.float32))
    assert film_HW.dtype == np.float32
    assert film_HW[10:74, 10:42] == pytest.approx(0.25)
    assert film_HW.sum() == pytest.approx(0.25 * 64 * 32)


def test_wrong_shapes_are_named():
    geometry = whole_film(100, 60, 32)
    with pytest.raises(ValueError, match=r"\(31, 32\) does not fit samples of 32 x 32"):
        geometry.undo(np.zeros((31, 32), np.uint8))
    with pytest.raises(ValueError, match="is not of the film of 100 x 60"):
        geometry.apply_mask(np.zeros((60, 100), np.uint8))
    with pytest.raises(ValueError, match="leaves the film"):
        Geometry(rows=100, columns=60, box=Box(0, 0, 101, 60), flipped=False, size_px=32)


def test_no_lesion_of_four_pixels_vanishes_and_areas_stay_true():
    rng = np.random.default_rng(1)
    rows, columns, size = 1400, 820, 224
    geometry = whole_film(rows, columns, size)
    errors = []
    for _ in range(60):
        diameter = rng.uniform(4, 40) / geometry.scale
        centre = (rng.uniform(150, rows - 150), rng.uniform(150, columns - 150))
        mask_HW = disc(rows, columns, centre, diameter)
        true_px = np.count_nonzero(mask_HW) * geometry.scale**2
        kept_px = int(geometry.apply_mask(mask_HW).sum())
        assert kept_px > 0
        errors.append(abs(kept_px / true_px - 1))
    assert np.mean(errors) < 0.04
    assert max(errors) < 0.15


def test_scattered_calcifications_keep_their_area():
    """Dots of a third of a sample pixel: at a threshold of one half every one of them would be lost."""
    rng = np.random.default_rng(2)
    mask_HW = np.zeros((2000, 2000), np.uint8)
    for y, x in rng.integers(600, 1400, (150, 2)):
        mask_HW[y : y + 5, x : x + 5] = 255
    geometry = whole_film(2000, 2000, 224)
    coverage_SS = geometry.coverage(mask_HW, Box(0, 0, 2000, 2000))
    assert (coverage_SS >= 0.5).sum() < 0.2 * coverage_SS.sum()
    assert geometry.apply_mask(mask_HW).sum() == pytest.approx(coverage_SS.sum(), rel=0.15)


@pytest.mark.parametrize("coverage", [0.004, 0.1, 0.49, 1.0])
def test_lesion_of_a_single_pixel_is_kept(coverage):
    coverage_SS = np.zeros((32, 32), np.float32)
    coverage_SS[3, 4] = coverage
    assert keep_area(coverage_SS).sum() == 1


def test_nothing_covered_is_nothing_marked():
    assert not keep_area(np.zeros((32, 32), np.float32)).any()


def test_lesion_box_is_a_square_moved_into_the_film():
    assert lesion_box(Box(400, 300, 500, 340), rows=1000, columns=700, margin=0.5) == Box(350, 220, 550, 420)
    assert lesion_box(Box(0, 660, 100, 700), rows=1000, columns=700, margin=0.5) == Box(0, 500, 200, 700)
    assert lesion_box(Box(0, 0, 900, 100), rows=1000, columns=700, margin=0.5) == Box(0, 0, 1000, 700)
    assert lesion_box(Box(500, 500, 504, 503), rows=1000, columns=700, margin=0.5).rows == 64


@pytest.mark.parametrize("size_px", [32, 224, pytest.param(960, marks=[pytest.mark.slow, pytest.mark.soak])])
@pytest.mark.parametrize("flipped", [False, True])
def test_coverage_is_the_exact_area_of_each_pixel(size_px, flipped):
    """Against a film enlarged so far that every sample pixel is a whole number of its pixels."""
    rng = np.random.default_rng(3)
    mask_HW = (cv2.GaussianBlur(rng.random((45, 30)), (0, 0), 2) > 0.5).astype(np.uint8)
    geometry = Geometry(rows=45, columns=30, box=Box(5, 6, 37, 26), flipped=flipped, size_px=size_px)
    part = mask_HW[5:37, 6:26][:, :: -1 if flipped else 1]
    fine = np.kron(part, np.ones((size_px, size_px)))  # 32 rows become 32 * size_px
    expected = fine.reshape(size_px, 32, size_px * 20 // 32, 32).mean(axis=(1, 3))
    coverage_SS = geometry.coverage(mask_HW, Box(0, 0, 45, 30))
    assert coverage_SS[:, : expected.shape[1]] == pytest.approx(expected, abs=1e-4)
    assert not coverage_SS[:, expected.shape[1] :].any()


def test_coverage_of_a_patch_is_that_of_the_film_it_lies_on():
    mask_HW = disc(1000, 700, (400, 90), 130)
    geometry = Geometry(rows=1000, columns=700, box=Box(361, 60, 900, 500), flipped=True, size_px=224)
    whole_SS = geometry.coverage(mask_HW, Box(0, 0, 1000, 700))
    patch_SS = geometry.coverage(mask_HW[330:470, 20:160], Box(330, 20, 470, 160))
    assert np.abs(whole_SS - patch_SS).max() < 1e-4
    inside_px = np.count_nonzero(mask_HW[361:900, 60:500]) * geometry.scale**2
    assert patch_SS.sum() == pytest.approx(inside_px, rel=0.01)


@pytest.mark.parametrize("length", [4096, 4600, 4603, 5000])
def test_box_of_a_large_film_shrinks_by_a_whole_factor_and_stays_on_the_film(length):
    for box in (Box(3, 0, length - 1, 2001), Box(0, 0, length, 2703), Box(0, 700, length - 5, 2703)):
        fitted = whole_multiple(box, rows=length, columns=2703, longest_px=WORKING_PX)
        factor = max(box.rows, box.columns) // WORKING_PX
        assert fitted.rows % factor == fitted.columns % factor == 0
        assert Box(0, 0, length, 2703).covers(fitted)
        assert max(abs(a - b) for a, b in zip(box, fitted, strict=True)) < factor
    assert whole_multiple(Box(3, 5, 2000, 900), rows=2100, columns=1000, longest_px=WORKING_PX) == Box(3, 5, 2000, 900)


def test_shrinking_in_two_steps_is_shrinking_by_areas():
    rng = np.random.default_rng(0)
    film = cv2.GaussianBlur(rng.integers(0, 65536, (4400, 2400)).astype(np.float32), (0, 0), 12)
    film = cv2.normalize(film, None, 0, 65535, cv2.NORM_MINMAX).astype(np.uint16)
    geometry = whole_film(4400, 2400, 224)
    rows, columns = geometry._shape(WORKING_PX)
    at_once = cv2.resize(film.astype(np.float64), (columns, rows), interpolation=cv2.INTER_AREA)
    error = np.abs(geometry.cut(film, WORKING_PX) - at_once)
    assert error.mean() < 0.004 * 65535 and error.max() < 0.03 * 65535
