"""Min-max, z-score and CLAHE against their definitions.

pytest tests/data_prep/test_normalise.py
"""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.shape.breast import find_breast
from data_prep.shape.geometry import find_geometry
from data_prep.shape.normalise import (
    NORMALISATIONS,
    breast_levels,
    clahe,
    minmax,
    normalised_sample,
    normalised_samples,
    percentiles,
    zscore,
)
from tests.data_prep.test_geometry import draw_breast


def test_minmax_of_the_full_window_is_the_definition():
    image = np.array([[100, 300], [500, 1100]], np.uint16)
    assert minmax(image, window=(0, 100)).tolist() == [[0, 51], [102, 255]]


def test_a_shining_marker_does_not_darken_the_tissue():
    image = np.tile(np.arange(1000, 3000, dtype=np.uint16), (100, 1))
    marked = image.copy()
    marked[:5, :5] = 65535
    assert np.abs(minmax(marked).astype(int) - minmax(image)).mean() < 1
    assert minmax(marked, window=(0, 100)).mean() < 10


def test_zscore_is_clipped_at_three_sigma():
    image = np.zeros((100, 100), np.float32)
    image[0, 0] = 1000  # far beyond three sigma
    image[50:, :] = 1
    grey = zscore(image)
    mean, sigma = image.mean(dtype=np.float64), image.std(dtype=np.float64)
    assert grey[0, 0] == 255
    assert grey[99, 99] == round((float((1 - mean) / sigma) + 3) / 6 * 255)


def test_clahe_has_clip_two_and_eight_by_eight_tiles():
    image = np.random.default_rng(0).integers(0, 40000, (256, 128)).astype(np.uint16)
    expected = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(minmax(image))
    assert np.array_equal(clahe(image), expected)


@pytest.mark.parametrize("name", NORMALISATIONS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_result_is_bytes_whatever_the_depth(name, dtype):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (64, 48)).astype(dtype)
    grey = NORMALISATIONS[name](image)
    assert grey.dtype == np.uint8
    assert grey.shape == image.shape
    assert grey.std() > 10


@pytest.mark.parametrize("name", ["minmax", "zscore"])
def test_flat_image_becomes_black(name):
    assert not NORMALISATIONS[name](np.full((32, 32), 7, np.uint16)).any()


def test_two_valued_image_of_few_bright_pixels_keeps_both_values():
    image = np.zeros((100, 100), np.uint16)
    image[0, :3] = 9
    assert set(np.unique(minmax(image)).tolist()) == {0, 255}


def test_working_copy_changes_little():
    film = draw_breast(rows=2000, columns=1300, label=False)
    film = cv2.GaussianBlur(film, (0, 0), 3)
    geometry = find_geometry(film, size_px=224)
    for name, bound in (("minmax", 1.5), ("zscore", 1.5), ("clahe", 4.0)):
        full = NORMALISATIONS[name](geometry.cut(film, 10_000))
        expected_SS = geometry.square(full, int(full.min())).astype(int)
        assert np.abs(normalised_sample(film, geometry, name) - expected_SS).mean() < bound, name


def test_padding_is_as_dark_as_the_darkest_pixel():
    film = draw_breast(label=False, strips=False)
    geometry = find_geometry(film, size_px=224)
    rows, columns = geometry.inner
    for sample_SS in normalised_samples(film, geometry, ("minmax", "zscore", "clahe")).values():
        assert np.unique(sample_SS[:, columns:]).tolist() == [sample_SS[:rows, :columns].min()]


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.integers(0, 65535), min_size=1, max_size=60),
    low=st.floats(0, 100),
    high=st.floats(0, 100),
    narrow=st.booleans(),
)
def test_percentiles_from_a_histogram_are_those_of_numpy(values, low, high, narrow):
    image = np.array(values, np.uint16)
    image = (image % 256).astype(np.uint8) if narrow else image
    assert percentiles(image, (low, high)) == pytest.approx(tuple(np.percentile(image, [low, high])), rel=1e-12)


def test_levels_of_the_breast_do_not_depend_on_what_lies_around_it():
    """A bright label and half a film of padding change the header's way, and not the breast's."""
    plain = draw_breast(label=False, strips=False)
    marked = plain.copy()
    marked[1000:1150, 600:780] = 65535
    levels = [breast_levels(film, find_breast(film)) for film in (plain, marked)]
    assert levels[0].high == pytest.approx(levels[1].high, rel=0.01)
    geometry = find_geometry(plain, size_px=224, crop_to_breast=False)
    inside = (geometry.inner[0] // 2, 20)
    own, others = (
        [int(normalised_sample(film, geometry, "minmax", one)[inside]) for film, one in zip(films, used, strict=True)]
        for films, used in (((plain, marked), levels), ((plain, marked), (None, None)))
    )
    assert abs(own[0] - own[1]) <= 2
    assert abs(others[0] - others[1]) > 50
