import numpy as np
import pandas as pd
import pytest

from trainables.score.groups import GROUPS, NAMES, diameter, lesion_size, summary


def images(count: int = 40, *, seeds: int = 1, spacing_mm: float | None = None) -> pd.DataFrame:
    """Rows as `read_images` gives them, two images a patient."""
    rng = np.random.default_rng(0)
    truth = rng.integers(20, 200, count)
    frames = []
    for seed in range(seeds):
        found = rng.integers(20, 200, count)
        both = np.minimum(truth, found) // 2
        rows = {
            "sample_id": [f"i{k}" for k in range(count)],
            "patient_id": [f"p{k // 2}" for k in range(count)],
            "view": ["CC", "MLO"] * (count // 2),
            "density": [1.0, 2.0, None, 4.0] * (count // 4),
            "pathology": ["MALIGNANT", ""] * (count // 2),
            "kind": "mass",
            "spacing_mm": spacing_mm,
            "dice": 2 * both / (truth + found),
            "iou": both / (truth + found - both),
            "sensitivity": both / truth,
            "hd95_px": np.where(np.arange(count) % 5, 3.0, np.nan),
            "hd95_mm": np.nan,
            "truth_px": truth,
            "found_px": found,
            "both_px": both,
            "lesions": 1,
            "lesions_found": [1, 1, 0, 1, 0, 0, 1, 0] * (count // 8),
            "false_positives": np.arange(count) % 3,
            "lesion_px": truth,
        }
        frames.append(pd.DataFrame(rows).assign(trial_id=f"a/{seed}"))
    return pd.concat(frames, ignore_index=True)


def by_measure(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index("measure")


def test_per_image_and_pooled_stand_side_by_side() -> None:
    rows = images()
    table = by_measure(summary(rows))
    assert table.loc["dice", "value"] == pytest.approx(rows.dice.mean())
    assert table.loc["dice_median", "value"] == pytest.approx(rows.dice.median())
    pooled = 2 * rows.both_px.sum() / (rows.truth_px.sum() + rows.found_px.sum())
    assert table.loc["dice_pooled", "value"] == pytest.approx(pooled)
    assert table.loc["iou_pooled", "value"] == pytest.approx(pooled / (2 - pooled))
    assert list(table.index) == list(NAMES)


def test_every_measure_has_its_value_inside_its_interval() -> None:
    table = summary(images(seeds=2))
    known = table.dropna(subset=["low"])
    assert set(known.measure) >= {"dice", "dice_median", "iou_pooled", "lesions_found", "false_positives"}
    assert ((known.low <= known.value) & (known.value <= known.high)).all()
    assert (known.low >= 0).all()


def test_what_has_no_distance_is_not_averaged_and_is_counted() -> None:
    table = by_measure(summary(images()))
    assert table.loc["hd95_px", ["value", "counted", "images"]].to_list() == [3.0, 32, 40]
    assert table.loc["hd95_mm", "counted"] == 0
    assert np.isnan(table.loc["hd95_mm", "value"])


def test_counts_are_of_one_seed_though_several_are_averaged() -> None:
    table = by_measure(summary(images(seeds=3)))
    assert table.loc["dice", ["images", "patients", "lesions"]].to_list() == [40, 20, 40]
    assert table.loc["lesions_found", "value"] == 0.5
    assert table.loc["false_positives", "value"] == pytest.approx(0.975)


@pytest.mark.parametrize("name", GROUPS)
def test_groups_divide_the_images_and_the_whole_is_their_mean(name: str) -> None:
    rows = images()
    table = summary(rows, by=GROUPS[name](rows), names=("dice",))
    assert table.images.sum() == 40
    assert (table.value * table.images).sum() / 40 == pytest.approx(rows.dice.mean())


def test_what_is_missing_is_a_group_of_its_own() -> None:
    rows = images()
    assert list(summary(rows, by=GROUPS["density"](rows), names=("dice",)).group) == ["1", "2", "4", "unknown"]
    assert list(summary(rows, by=GROUPS["pathology"](rows), names=("dice",)).group) == ["MALIGNANT", "unknown"]


def test_lesions_are_grouped_by_thirds_in_pixels_and_by_fixed_edges_in_millimetres() -> None:
    rows = images()
    assert diameter(rows)[1] == "px"
    thirds = lesion_size(rows).value_counts(sort=False)
    assert len(thirds[thirds > 0]) == 3
    assert thirds.max() - thirds[thirds > 0].min() <= 6
    known = images(spacing_mm=1.0)
    assert diameter(known)[1] == "mm"
    assert set(lesion_size(known).astype(str)) == {"up to 10 mm", "10 to 20 mm"}
    assert list(lesion_size(known).cat.categories)[-1] == "over 20 mm"


def test_an_image_without_a_lesion_is_in_no_size_group_of_lesions() -> None:
    rows = images()
    rows.loc[0, "lesion_px"] = 0
    assert lesion_size(rows).iloc[0] == "no lesion"
    rows["lesion_px"] = 0
    assert set(lesion_size(rows)) == {"no lesion"}


def test_lesions_that_are_all_of_one_size_are_one_group() -> None:
    rows = images()
    rows["lesion_px"] = 100
    assert summary(rows, by=lesion_size(rows), names=("dice",)).images.sum() == 40
