"""Many films: rows with reasons, tables, and nothing done twice after a break."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from clinic.films import FilmFile, find_films
from clinic.predict import batch
from clinic.predict.batch import predict_films, to_csv
from clinic.predict.outputs import SUFFIXES
from clinic.predict.prediction import Options
from clinic.predict.predictor import Order
from clinic.stream import Job, Outcome, here
from tests.clinic.fakes import draw_film, film_file, write_small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films, one that is no DICOM, one that is broken."""
    folder = tmp_path_factory.mktemp("films")
    film_file(folder, "a")
    film_file(folder, "b", PixelSpacing=[0.1, 0.1])
    cv2.imwrite(str(folder / "c.png"), draw_film()[0])
    (folder / "d.dcm").write_bytes((folder / "a.dcm").read_bytes()[:5000])
    return folder


def order(model: Path, out: Path, **changes) -> Order:
    return Order(**{"models": (str(model),), "out": str(out), "threads": 1, **changes})


def test_each_film_has_its_files_and_a_broken_one_its_reason(model: Path, films: Path, tmp_path: Path):
    table = predict_films(order(model, tmp_path), find_films([str(films)])).set_index("name")
    assert table.status.to_dict() == {"a": "segmented", "b": "segmented", "c": "segmented", "d": "left_out"}
    assert table.reason["d"].startswith("truncated: ")
    kinds = ("mask", "overlay", "contours", "seg", "report", "presentation")
    assert all((tmp_path / f"a{SUFFIXES[kind]}").stat().st_size for kind in kinds)
    assert not (tmp_path / "c.seg.dcm").exists()
    mask_HW = cv2.imread(str(tmp_path / "a.mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask_HW.shape == (480, 320)
    assert set(np.unique(mask_HW)) <= {0, 255}
    assert table.area_px["a"] == (mask_HW > 0).sum()
    assert not (tmp_path / ".predicting").exists()


def test_the_lesions_table_has_millimetres_where_they_are_known(model: Path, films: Path, tmp_path: Path):
    predict_films(order(model, tmp_path, outputs=("contours",)), find_films([str(films)]))
    lesions = pd.read_csv(tmp_path / "lesions.csv")
    assert lesions[lesions.name == "b"].area_mm2.notna().all()
    assert lesions[lesions.name == "a"].area_mm2.isna().all()
    contours = json.loads((tmp_path / "b.contours.json").read_text())
    assert len(contours["lesions"]) == (lesions.name == "b").sum()


def test_a_run_that_broke_off_goes_on_where_it_stopped(
    model: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batch, "BLOCK_FILMS", 1)
    done: list[str] = []

    def interrupted(job: Job, films: Sequence[FilmFile]) -> Iterator[tuple[FilmFile, Outcome]]:
        work = job.open()
        for film in films:
            if len(done) == 2:
                raise KeyboardInterrupt
            done.append(film.name)
            yield film, work(film)

    with pytest.raises(KeyboardInterrupt):
        predict_films(order(model, tmp_path), find_films([str(films)]), spread=interrupted)
    assert not (tmp_path / "films.csv").exists()
    asked: list[str] = []

    def noted(job: Job, films: Sequence[FilmFile]) -> Iterator[tuple[FilmFile, Outcome]]:
        asked.extend(film.name for film in films)
        yield from here(job, films)

    table = predict_films(order(model, tmp_path), find_films([str(films)]), spread=noted)
    assert (done, asked) == (["a", "b"], ["c", "d"])
    assert list(table.name) == ["a", "b", "c", "d"]


def test_a_second_run_does_new_and_failed_films_alone(model: Path, films: Path, tmp_path: Path):
    first = find_films([str(films / "a.dcm"), str(films / "d.dcm")])
    predict_films(order(model, tmp_path), first)
    asked: list[str] = []

    def noted(job: Job, films: Sequence[FilmFile]) -> Iterator[tuple[FilmFile, Outcome]]:
        asked.extend(film.name for film in films)
        yield from here(job, films)

    table = predict_films(order(model, tmp_path), find_films([str(films)]), spread=noted)
    assert asked == ["b", "c", "d"]
    assert len(table) == 4
    assert len(pd.read_csv(tmp_path / "films.csv")) == 4


def test_results_of_other_settings_are_not_mixed(model: Path, films: Path, tmp_path: Path):
    some = find_films([str(films / "a.dcm")])
    predict_films(order(model, tmp_path), some)
    with pytest.raises(ValueError, match=r"other settings \(options differ"):
        predict_films(order(model, tmp_path, options=Options(threshold=0.9)), some)


def test_a_lesion_model_refuses_before_anything_is_read_or_written(films: Path, tmp_path: Path):
    lesion_model = write_small_model(tmp_path / "lesion", field_of_view="lesion")
    with pytest.raises(ValueError, match="--box"):
        predict_films(order(lesion_model, tmp_path / "out"), find_films([str(films)]))
    assert not (tmp_path / "out").exists()


def test_a_header_that_no_object_can_be_made_about_still_gives_the_mask(model: Path, tmp_path: Path):
    film_file(tmp_path / "in", "a", SeriesInstanceUID=None)
    table = predict_films(order(model, tmp_path / "out"), find_films([str(tmp_path / "in")]))
    assert table.status[0] == "partly"
    assert "SeriesInstanceUID" in table.reason[0]
    assert (tmp_path / "out" / "a.mask.png").exists()


def test_progress_counts_films_and_those_left_out(model: Path, films: Path, tmp_path: Path):
    told: list[tuple[int, int, int]] = []
    predict_films(
        order(model, tmp_path, outputs=("contours",)), find_films([str(films)]), progress=lambda *at: told.append(at)
    )
    assert told == [(1, 4, 0), (2, 4, 0), (3, 4, 0), (4, 4, 1)]


def test_no_cell_of_a_table_is_a_formula():
    lines = to_csv(pd.DataFrame({"name": ["=cmd()", "-1", "ok"], "area_px": [-1, 2, 3]})).decode().splitlines()
    assert lines[1:] == ["'=cmd(),-1", "'-1,2", "ok,3"]


def test_a_file_whose_name_is_no_utf8_is_segmented_too(model: Path, tmp_path: Path):
    film_file(tmp_path / "in", "a").rename(os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xff.dcm"))
    table = predict_films(order(model, tmp_path / "out", outputs=("mask",)), find_films([str(tmp_path / "in")]))
    assert table.status[0] == "segmented", table.reason[0]
    assert table.film[0].endswith("\\xff.dcm")


@pytest.mark.parametrize("name", ["NA", "-a", "1e5"])
def test_a_film_of_any_name_is_not_done_again(model: Path, tmp_path: Path, name: str):
    film_file(tmp_path / "in", name)
    films = find_films([str(tmp_path / "in")])
    predict_films(order(model, tmp_path / "out", outputs=("contours",)), films)
    table = predict_films(order(model, tmp_path / "out", outputs=("contours",)), films, spread=_nothing)
    assert list(table.name) == [films[0].name]


def _nothing(job: Job, films: Sequence[FilmFile]) -> Iterator[tuple[FilmFile, Outcome]]:
    raise AssertionError(f"{[film.name for film in films]} are done again")
