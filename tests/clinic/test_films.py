"""Which films are meant: files, folders, boxes; and what their results are called."""

from pathlib import Path

import pytest

from clinic.films import find_films, read_box
from data_prep.shape.box import Box


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_a_folder_gives_its_images_sorted_and_no_side_files(tmp_path: Path):
    touch(tmp_path, "b/2.dcm", "a/1.dcm", "README", "list.csv", ".hidden")
    assert [film.name for film in find_films([str(tmp_path)])] == ["a/1", "b/2"]


def test_films_of_several_folders_are_told_apart_by_the_folders_name(tmp_path: Path):
    touch(tmp_path, "one/1.dcm", "two/1.dcm", "three/1.png")
    films = find_films([str(tmp_path / name) for name in ("one", "two", "three/1.png")])
    assert [film.name for film in films] == ["one/1", "two/1", "1"]


def test_no_two_films_have_one_name(tmp_path: Path):
    touch(tmp_path, "a.dcm", "a.png", "A.dcm")
    names = [film.name.lower() for film in find_films([str(tmp_path)])]
    assert len(set(names)) == 3


def test_names_are_safe_on_any_disk(tmp_path: Path):
    touch(tmp_path, "bad name;\n$(rm).dcm", "ümlaut.dcm")
    for film in find_films([str(tmp_path)]):
        assert film.name.isascii()
        assert not set(film.name) & set(" ;\n$()")


def test_a_film_named_twice_is_done_once(tmp_path: Path):
    film = str(touch(tmp_path, "a.dcm") / "a.dcm")
    assert len(find_films([film, film])) == 1


def test_everything_that_is_not_there_is_named_at_once(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"none\.dcm' does not exist.*empty' holds no image"):
        find_films([str(tmp_path / "none.dcm"), str(tmp_path / "empty")])


def test_boxes_of_a_csv_make_one_entry_a_lesion(tmp_path: Path):
    touch(tmp_path, "films/a.dcm", "films/b.dcm")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("film,top,left,bottom,right\na.dcm,1,2,30,40\na.dcm,5,6,70,80\nb.dcm,1,1,9,9\n")
    films = find_films([str(tmp_path / "films")], boxes=str(boxes))
    assert [(film.name, film.lesion) for film in films] == [
        ("a_1", Box(1, 2, 30, 40)),
        ("a_2", Box(5, 6, 70, 80)),
        ("b_1", Box(1, 1, 9, 9)),
    ]


def test_every_mistake_of_a_csv_of_boxes_is_told_with_its_line(tmp_path: Path):
    touch(tmp_path, "films/a.dcm")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("film,top,left,bottom,right\nx.dcm,1,2,30,40\na.dcm,5,6,four,80\n")
    with pytest.raises(ValueError, match=r"(?s)line 2: 'x\.dcm' is none.*line 3: box"):
        find_films([str(tmp_path / "films")], boxes=str(boxes))
    boxes.write_text("film,top\na.dcm,5\n")
    with pytest.raises(ValueError, match="lacks the column"):
        find_films([str(tmp_path / "films")], boxes=str(boxes))


def test_one_box_is_of_one_film(tmp_path: Path):
    touch(tmp_path, "a.dcm", "b.dcm")
    assert find_films([str(tmp_path / "a.dcm")], box=Box(1, 2, 3, 4))[0].lesion == Box(1, 2, 3, 4)
    with pytest.raises(ValueError, match="there are 2"):
        find_films([str(tmp_path)], box=Box(1, 2, 3, 4))


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "5,5,1,9", "-1,0,4,4", "1.5,2,3,4"])
def test_a_box_is_four_edges_in_order(text: str):
    with pytest.raises(ValueError, match="TOP,LEFT,BOTTOM,RIGHT"):
        read_box(text)


def test_one_film_deep_inside_a_folder_is_called_like_the_folder(tmp_path: Path):
    """As downloads of CBIS-DDSM have it: name / study / series / 1-1.dcm."""
    touch(tmp_path, "P_1_LEFT_CC/2.25.1/2.25.2/1-1.dcm", "P_1_LEFT_MLO/2.25.3/2.25.4/1-1.dcm")
    films = find_films([str(tmp_path / name) for name in ("P_1_LEFT_CC", "P_1_LEFT_MLO")])
    assert [film.name for film in films] == ["P_1_LEFT_CC", "P_1_LEFT_MLO"]
