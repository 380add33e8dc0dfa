"""The quality report and Amdahl's law.

pytest tests/data_prep/test_report.py
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from data_prep.build import build
from data_prep.look.amdahl import Measured, amdahl, fit_share, measure, to_text, worker_counts
from data_prep.look.figure import BOX_COLOUR, LESION_COLOUR
from data_prep.look.report import lesion_table, quality_report
from data_prep.look.whole_film import whole_film
from data_prep.shards import open_shards
from tests.data_prep.small_pairs import settings_for, write_pairs


def test_report_is_one_page_with_everything_in_it(shards_path):
    page = quality_report(open_shards(shards_path))
    assert page.count("data:image/png;base64,") == 12
    assert not re.findall(r"(?:src|href)=['\"](?!data:|#)", page)
    for text in (
        "12 samples of 12 patients with 16 lesions",
        "all checksums agree",
        "Leak check: no patient",
        "BENIGN",
        'name="viewport"',
    ):
        assert text in page, text
    assert re.search(r'<th scope="row">all</th><td>12</td><td>12</td>', page)


def test_every_picture_says_whose_it_is_and_of_which_split(shards_path):
    shards = open_shards(shards_path)
    page = quality_report(shards)
    for split in ("train", "val", "test"):
        for name in shards.table(split)["sample_id"]:
            assert f'alt="{name} of {split}"' in page


def test_histogram_counts_every_lesion_of_every_split(shards_path):
    shards = open_shards(shards_path)
    page = quality_report(shards, pictures=False)
    for split in ("train", "val", "test"):
        told = re.search(f'aria-label="Lesions of {split} by diameter in pixels: ([^"]*)"', page)
        assert told is not None, split
        assert sum(int(part.split(": ")[1]) for part in told[1].split(", ")) == shards.card.lesions[split]


def test_warnings_of_the_card_stand_first(shards_path):
    shards = open_shards(shards_path)
    warned = replace(shards, card=shards.card.model_copy(update={"warnings": ["lesions of <val> differ"]}))
    page = quality_report(warned, pictures=False)
    assert page.index("lesions of &lt;val&gt; differ") < page.index("Counts by split")


def test_whole_film_is_shown_where_its_source_is_at_hand(tmp_path):
    root = write_pairs(tmp_path / "pairs")
    build(settings_for(root), str(tmp_path / "out"), workers=0)
    shards = open_shards(tmp_path / "out")
    whole = whole_film(shards)
    assert whole is not None
    name = whole.caption.split(",")[0]
    box = set(map(tuple, np.argwhere((whole.picture == BOX_COLOUR).all(2)).tolist()))
    lesion = set(map(tuple, np.argwhere((whole.picture == LESION_COLOUR).all(2)).tolist()))
    assert name in set(shards.table("train")["sample_id"])
    assert box and lesion
    assert max(y for y, _ in lesion) < max(y for y, _ in box)
    root.rename(tmp_path / "moved")
    assert whole_film(shards) is None


def test_report_tells_rejects_and_damage(tmp_path):
    root = write_pairs(tmp_path / "pairs", changes={"images/p01_RIGHT_CC.png": b""})
    build(settings_for(root), str(tmp_path / "out"), workers=0)
    page = quality_report(open_shards(tmp_path / "out"), damage="train/00000.parquet: <missing>")
    assert "empty_file" in page
    assert "the file has no bytes" in page
    assert "&lt;missing&gt;" in page


def test_lesion_diameters_are_those_drawn(shards_path):
    shards = open_shards(shards_path)
    table = shards.table("train")
    lesions = lesion_table(table)
    scale = {row.sample_id: 64 / max(row.box[2] - row.box[0], row.box[3] - row.box[1]) for row in table.itertuples()}
    drawn = [2 * (6 + int(row.sample_id[1:3]) % 4) * scale[row.sample_id] for row in lesions.itertuples()]
    assert np.allclose(lesions["diameter_px"], drawn, rtol=0.15)


def test_the_papers_figures_give_2_76():
    assert amdahl(0.85, 4) == pytest.approx(2.7586, abs=1e-4)
    assert amdahl(1, 4) == 4
    assert amdahl(0, 4) == 1


@pytest.mark.parametrize("share", [0.0, 0.5, 0.85, 0.97, 1.0])
def test_fit_finds_the_share_that_made_the_times(share):
    seconds = {workers: 120 / amdahl(share, workers) for workers in (1, 2, 4, 8)}
    assert fit_share(seconds) == pytest.approx(share)


def test_fit_is_least_squares():
    """Two workers say 0.9, four say 0.7: the line through the origin weighs them by their distance."""
    seconds = {1: 100.0, 2: 100 - 45.0, 4: 100 - 52.5}
    assert fit_share(seconds) == pytest.approx((0.5 * 0.45 + 0.75 * 0.525) / (0.5**2 + 0.75**2))


def test_fit_needs_one_worker_and_another():
    with pytest.raises(ValueError, match=r"\[2, 4\] workers"):
        fit_share({2: 1.0, 4: 0.5})


def test_table_shows_the_law_beside_the_measurement():
    text = to_text([Measured(workers=n, seconds=s, images_per_s=100 / s) for n, s in ((1, 10.0), (2, 6.0))])
    assert "1.67        1.67" in text
    assert "p = 0.800" in text
    assert "give 2.76, not 3.92" in text


def test_workers_are_doubled_up_to_the_most():
    assert worker_counts(6) == [1, 2, 4, 6]
    assert worker_counts(8) == [1, 2, 4, 8]


def test_more_workers_than_cores_are_refused(pairs_root):
    with pytest.raises(ValueError, match="100000 workers asked for"):
        measure(settings_for(pairs_root), [1, 100_000])


@pytest.mark.ray
def test_measure_times_a_build_for_each_number_of_workers(pairs_root):
    measured = measure(settings_for(pairs_root), [1, 2])
    assert [m.workers for m in measured] == [1, 2]
    assert all(m.images_per_s == pytest.approx(12 / m.seconds) for m in measured)
