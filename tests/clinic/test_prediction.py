"""One film: the mask lies where the lesion is, on the film's own grid; a model refuses what it was not made for."""

from dataclasses import replace

import numpy as np
import pytest

from clinic.predict.lesions import find_regions
from clinic.predict.prediction import BoxError, Options, check_models, predict_film, prepare_film
from clinic.predict.predictor import read_film
from data_prep.schema import ReadError
from data_prep.shape.box import Box
from data_prep.shape.geometry import Geometry, find_geometry
from data_prep.shape.normalise import normalised_sample
from tests.clinic.fakes import bright_model, draw_film, film_file


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("shape", [(480, 320), (1001, 777)])
def test_the_mask_lies_on_the_films_own_grid(shape, side):
    rows, columns = shape
    film_HW, mask_HW = draw_film(rows, columns, discs=((rows // 2, columns // 4, rows // 6),), side=side)
    prediction = predict_film(film_HW, [bright_model(size_px=192)])
    assert prediction.mask_HW.shape == prediction.probability_HW.shape == shape
    assert prediction.flipped == (side == "right")
    assert iou(prediction.mask_HW, mask_HW) > 0.9


def test_the_way_back_goes_by_probability():
    """The map is enlarged and then cut: a mask cut first would have stairs of several film pixels."""
    film_HW, mask_HW = draw_film(960, 640, discs=((480, 160, 170),))
    model = bright_model(size_px=64)
    prediction = predict_film(film_HW, [model])
    geometry = find_geometry(film_HW, size_px=64)
    assert geometry is not None
    sample_SS = normalised_sample(film_HW, geometry, "minmax")
    cut_first_HW = geometry.undo(sample_SS > 255 * model.info.threshold)
    assert iou(prediction.mask_HW, mask_HW) > iou(cut_first_HW, mask_HW)


@pytest.mark.parametrize("diameter_px", [20, 24, 32, 48])
def test_preparing_and_undoing_a_true_mask_keeps_it(diameter_px):
    """Lesions of 20 px and more at the target size: mean IoU of at least 0.96."""
    scale, found = 9.3, []
    rng = np.random.default_rng(diameter_px)
    for _ in range(12):
        rows, columns, size_px = 2083, 1500, 224
        geometry = Geometry(rows=rows, columns=columns, box=Box(0, 0, rows, columns), flipped=False, size_px=size_px)
        row, column = rng.uniform(300, 1100, 2)
        y_HW, x_HW = np.ogrid[:rows, :columns]
        a, b = diameter_px * scale / 2 * rng.uniform(0.8, 1.25, 2)
        mask_HW = ((((y_HW - row) / a) ** 2 + ((x_HW - column) / b) ** 2) <= 1).astype(np.uint8)
        probability_SS = geometry.coverage(mask_HW, Box(0, 0, rows, columns)).astype(np.float32)
        found.append(iou((geometry.undo(probability_SS) > 0.5).astype(np.uint8), mask_HW))
    assert np.mean(found) >= 0.96


def test_a_lesion_model_refuses_a_whole_film_and_says_what_to_do():
    with pytest.raises(ValueError, match=r"crops around a lesion.*--box"):
        predict_film(draw_film()[0], [bright_model(field_of_view="lesion")])


def test_a_whole_view_model_refuses_a_box():
    with pytest.raises(ValueError, match="leave the box out"):
        predict_film(draw_film()[0], [bright_model()], lesion=Box(200, 50, 280, 130))


def test_a_lesion_model_looks_around_the_box_alone():
    film_HW, mask_HW = draw_film(discs=((240, 90, 60), (130, 60, 30)))
    model = bright_model(field_of_view="lesion")
    prediction = predict_film(film_HW, [model], lesion=Box(210, 60, 270, 120))
    first = mask_HW.copy()
    first[:160] = 0
    assert iou(prediction.mask_HW, first) > 0.9
    assert prediction.mask_HW[:160].sum() == 0
    assert prediction.box.rows == prediction.box.columns == 120  # a margin of half the lesion's size on each side


@pytest.mark.parametrize("box", [Box(400, 10, 600, 100), Box(10, 10, 10, 40)])
def test_a_box_that_is_not_on_the_film_is_refused(box):
    with pytest.raises(BoxError, match="box_outside"):
        predict_film(draw_film()[0], [bright_model(field_of_view="lesion")], lesion=box)


def test_a_film_without_a_breast_is_refused():
    with pytest.raises(ReadError, match="no_breast"):
        predict_film(np.zeros((400, 300), np.uint16), [bright_model()])


def test_a_model_of_the_breasts_own_window_is_shown_what_its_samples_showed(tmp_path):
    """A marker beside the breast, brighter than all tissue, must not darken the breast."""
    film_HW, _ = draw_film()
    marked_HW = film_HW.copy()
    marked_HW[5:60, 250:315] = 65535
    info = bright_model().info
    steps = info.preprocessing.model_copy(update={"window": "breast", "crop_to_breast": False})
    model = replace(bright_model(), info=info.model_copy(update={"preprocessing": steps}))
    shown = [prepare_film(image_HW, [model]).samples[0] for image_HW in (film_HW, marked_HW)]
    np.testing.assert_array_equal(shown[0][20:], shown[1][20:])
    with pytest.raises(ValueError, match="different windows"):
        check_models([info, model.info])


def test_a_header_window_is_not_looked_at_by_a_model_of_the_breasts_own(tmp_path):
    path = film_file(tmp_path, WindowCenter=30000, WindowWidth=30000)
    info = bright_model().info
    steps = info.preprocessing.model_copy(update={"window": "breast"})
    model = replace(bright_model(), info=info.model_copy(update={"preprocessing": steps}))
    with_window_HW, _ = read_film(path, [bright_model()])
    without_HW, _ = read_film(path, [model])
    np.testing.assert_array_equal(without_HW, draw_film()[0])
    assert (with_window_HW != without_HW).any()


def test_an_ensemble_averages_probabilities():
    film_HW, _ = draw_film()
    one, two = bright_model(size_px=96), bright_model(size_px=160)
    both = predict_film(film_HW, [one, two]).probability_HW
    alone = [predict_film(film_HW, [model]).probability_HW for model in (one, two)]
    np.testing.assert_allclose(both, (alone[0] + alone[1]) / 2, atol=1e-6)


def test_models_of_different_views_are_no_ensemble():
    infos = [bright_model().info, bright_model(field_of_view="lesion").info]
    with pytest.raises(ValueError, match="bright-lesion: lesion"):
        check_models(infos)


def test_flips_are_mirrored_back_before_they_are_averaged():
    film_HW, _ = draw_film()
    plain = predict_film(film_HW, [bright_model()]).probability_HW
    flipped = predict_film(film_HW, [bright_model()], Options(flips=("horizontal", "vertical"))).probability_HW
    np.testing.assert_allclose(flipped, plain, atol=1e-6)


def test_the_threshold_can_be_chosen():
    film_HW, _ = draw_film()
    assert predict_film(film_HW, [bright_model()], Options(threshold=0.999)).mask_HW.sum() < (
        predict_film(film_HW, [bright_model()], Options(threshold=0.1)).mask_HW.sum()
    )
    with pytest.raises(ValueError, match="threshold"):
        Options(threshold=1.0)


def test_regions_are_measured_in_pixels_and_millimetres():
    mask_HW = np.zeros((60, 80), np.uint8)
    mask_HW[10:20, 5:35] = 1
    mask_HW[40:43, 50:53] = 1
    probability_HW = np.where(mask_HW > 0, 0.8, 0.1).astype(np.float32)
    probability_HW[10, 5] = 1.0
    large, small = find_regions(mask_HW, probability_HW, (0.2, 0.1))
    assert (large.number, large.box, large.area_px) == (1, Box(10, 5, 20, 35), 300)
    assert large.diameter_px == pytest.approx(np.hypot(10, 30))
    assert large.diameter_mm == pytest.approx(np.hypot(2, 3))
    assert large.area_mm2 == pytest.approx(300 * 0.02)
    assert large.mean_probability == pytest.approx((299 * 0.8 + 1) / 300)
    assert large.max_probability == 1
    assert (small.area_px, small.box) == (9, Box(40, 50, 43, 53))


def test_without_a_spacing_no_millimetres_are_claimed():
    mask_HW = np.ones((4, 4), np.uint8)
    [region] = find_regions(mask_HW, mask_HW.astype(np.float32))
    assert (region.area_mm2, region.diameter_mm) == (None, None)


def test_regions_that_touch_at_a_corner_are_one_and_an_empty_mask_has_none():
    mask_HW = np.eye(5, dtype=np.uint8)
    assert len(find_regions(mask_HW, mask_HW.astype(np.float32))) == 1
    assert find_regions(np.zeros((5, 5), np.uint8), np.zeros((5, 5), np.float32)) == []
