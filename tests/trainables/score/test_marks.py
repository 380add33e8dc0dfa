import numpy as np
import pandas as pd
import pytest

from trainables.score.marks import MARKS_KEPT, RATES, froc, marks_of


def image(*spots: tuple[int, int, int, float], side: int = 32) -> np.ndarray:
    """Probabilities that are 0 but for squares (top, left, size, probability)."""
    probability = np.zeros((side, side), np.float32)
    for top, left, size, value in spots:
        probability[top : top + size, left : left + size] = value
    return probability


def test_marks_are_parts_by_their_highest_probability_and_hit_what_their_peak_lies_on() -> None:
    truth = image((4, 4, 5, 1.0)) > 0
    probability = image((3, 3, 6, 0.3), (5, 5, 3, 0.9), (20, 20, 3, 0.6))
    first, second = marks_of(probability, truth)
    assert (first.score, first.lesion, first.row, first.column) == (pytest.approx(0.9), 0, 6, 6)
    assert (second.score, second.lesion, second.area_px) == (pytest.approx(0.6), -1, 9)


def test_a_mark_that_covers_a_lesion_but_peaks_beside_it_is_a_false_positive() -> None:
    truth = image((4, 4, 3, 1.0)) > 0
    (mark,) = marks_of(image((0, 0, 20, 0.2), (15, 15, 3, 0.8)), truth)
    assert mark.lesion == -1


def test_what_lies_below_a_tenth_is_no_mark_and_an_empty_map_has_none() -> None:
    assert marks_of(image((4, 4, 3, 0.1)), image() > 0) == []


def test_of_a_thousand_specks_the_highest_are_kept() -> None:
    rng = np.random.default_rng(0)
    probability = np.zeros((64, 64), np.float32)
    probability[::2, ::2] = rng.uniform(0.2, 1, (32, 32))
    marks = marks_of(probability, probability > 2)
    assert len(marks) == MARKS_KEPT
    assert min(mark.score for mark in marks) == pytest.approx(np.sort(probability.ravel())[-MARKS_KEPT])


def split(*rows: tuple[str, str, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["sample_id", "patient_id", "lesions"])


def marks(*rows: tuple[str, float, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["sample_id", "score", "lesion"])


def test_the_curve_counts_a_lesion_once_and_never_its_further_marks_as_false() -> None:
    images = split(("a", "1", 2), ("b", "2", 1))
    found = froc(images, marks(("a", 0.9, 0), ("a", 0.8, 0), ("a", 0.7, 1), ("b", 0.6, -1), ("b", 0.5, 0)), draws=20)
    assert found.curve.to_dict("list") == {
        "score": [0.9, 0.7, 0.6, 0.5],
        "false_positives": [0.0, 0.0, 0.5, 0.5],
        "sensitivity": [pytest.approx(1 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3), 1.0],
    }
    at = dict(zip(found.at.false_positives, found.at.sensitivity, strict=True))
    assert at[0.25] == pytest.approx(2 / 3)  # the threshold may not let the only false positive in
    assert at[0.5] == 1.0
    assert found.score == pytest.approx((2 * 2 / 3 + 5) / 7)


def test_a_network_that_marks_nothing_finds_nothing() -> None:
    found = froc(split(("a", "1", 1)), marks(), draws=5)
    assert list(found.at.sensitivity) == [0.0] * len(RATES)


def test_a_network_without_a_false_mark_finds_what_it_hit_at_any_rate() -> None:
    images = pd.DataFrame({"sample_id": ["a", "b"], "patient_id": ["a", "b"], "lesions": [1, 1]})
    marks = pd.DataFrame({"sample_id": ["a"], "score": [0.4], "lesion": [0]})
    assert froc(images, marks).at.sensitivity.tolist() == [0.5] * len(RATES)


def test_without_lesions_there_is_no_curve() -> None:
    with pytest.raises(ValueError, match="no image has a lesion"):
        froc(split(("a", "1", 0)), marks())


def slow_sensitivity(rows: list[tuple[str, float, int]], images: int, lesions: int, rate: float) -> float:
    """Try every threshold: the largest sensitivity with at most so many false positives an image."""
    best = 0.0
    for threshold in [2.0, *(score for _, score, _ in rows)]:
        over = [row for row in rows if row[1] >= threshold]
        hit = {(name, lesion) for name, _, lesion in over if lesion >= 0}
        if sum(lesion < 0 for _, _, lesion in over) / images <= rate:
            best = max(best, len(hit) / lesions)
    return best


@pytest.mark.parametrize("seed", range(5))
def test_the_sensitivities_are_those_of_trying_every_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = split(*((f"i{k}", f"p{k // 2}", int(rng.integers(0, 3))) for k in range(20)), ("x", "px", 1))
    rows = [
        (name, float(rng.random()), int(rng.integers(-1, lesions)) if lesions else -1)
        for name, _, lesions in images.itertuples(index=False)
        for _ in range(rng.integers(0, 8))
    ]
    found = froc(images, marks(*rows), draws=50).at
    for row in found.itertuples():
        slow = slow_sensitivity(rows, len(images), images.lesions.sum(), row.false_positives)
        assert row.sensitivity == pytest.approx(slow)
        assert row.low - 1e-9 <= row.high


def test_the_band_is_wider_with_fewer_patients() -> None:
    def width(patients: int) -> float:
        rng = np.random.default_rng(0)
        images = split(*((f"i{k}", f"p{k}", 1) for k in range(patients)))
        hit = rng.random(patients) < 0.6
        rows = [(f"i{k}", 0.5, 0 if hit[k] else -1) for k in range(patients)]
        at = froc(images, marks(*rows)).at
        return float((at.high - at.low).iloc[-1])

    assert width(20) > 2 * width(200)
