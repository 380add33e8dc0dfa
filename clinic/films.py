"""Which films are to be segmented: files, folders, object stores, and boxes around lesions.

films = find_films(["case1/", "extra.dcm", "s3://bucket/films"], boxes=None)
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pandas as pd

from cluster.storage import Folder
from data_prep.find.listing import is_image_candidate, list_files
from data_prep.shape.box import Box

UNSAFE = re.compile(r"[^\w.-]+", re.ASCII)
LONGEST_NAME = 120
BOX_COLUMNS = ("film", "top", "left", "bottom", "right")


@dataclass(frozen=True, kw_only=True)
class FilmFile:
    """One thing to segment: a film, or a lesion on it."""

    path: str
    """Path or URI."""
    name: str
    """What its results are called: letters, digits, `.`, `_`, `-` and `/`; no other film has it."""
    lesion: Box | None = None
    """The lesion's box in pixels of the film, for models of the lesion view."""
    others: tuple[Box, ...] = ()
    """Further lesions of the same film, where a film is worked on as a whole."""

    @property
    def shown(self) -> str:
        """The path as text that any table takes: a file's name need not be UTF-8."""
        return self.path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def find_films(inputs: Sequence[str], *, boxes: str | None = None, box: Box | None = None) -> list[FilmFile]:
    """Every film that the inputs name, in their order; those below a folder sorted by path.

    Args:
        inputs: paths or URIs of files or folders.
        boxes: a CSV of lesions: `film` (path as given, or below its folder), `top left bottom right` in pixels.
        box: one lesion's box, where there is one film.

    Raises:
        ValueError: something named does not exist, holds no image, or the boxes do not fit the films.
    """
    mistakes: list[str] = []
    found: list[tuple[str, str]] = []
    for given in inputs:
        below = _below(given)
        if below is None:
            mistakes.append(f"{given!r} does not exist")
        elif not below:
            mistakes.append(f"{given!r} holds no image file")
        else:
            found += _called(given, below, alone=len(inputs) == 1)
    if mistakes:
        raise ValueError("; ".join(mistakes))
    films = _named(list(dict.fromkeys(found)))
    if box is not None:
        if len(films) != 1:
            raise ValueError(f"--box is of one film, and there are {len(films)}; give --boxes FILE.csv")
        return [replace(films[0], lesion=box)]
    return _with_boxes(films, found, boxes) if boxes else films


def one_a_film(films: Sequence[FilmFile]) -> list[FilmFile]:
    """Lesions of one film brought together: each film once, with all of its boxes."""
    whole: dict[str, FilmFile] = {}
    for film in films:
        first = whole.get(film.path)
        more = () if film.lesion is None else (film.lesion,)
        whole[film.path] = film if first is None else replace(first, others=(*first.others, *more))
    return list(whole.values())


def read_box(text: str) -> Box:
    """`TOP,LEFT,BOTTOM,RIGHT` in pixels of the film. Raises ValueError."""
    parts = text.split(",")
    try:
        edges = [int(part) for part in parts]
    except ValueError:
        edges = []
    if len(edges) != 4 or edges[0] >= edges[2] or edges[1] >= edges[3] or min(edges) < 0:
        raise ValueError(f"box: {text!r} is not TOP,LEFT,BOTTOM,RIGHT in pixels, as in 1200,340,1500,610")
    return Box(*edges)


def _called(given: str, below: list[tuple[str, str]], *, alone: bool) -> list[tuple[str, str]]:
    """(path, what its results are called): the path below the folder; or the folder, of one film deep inside it."""
    folder = PurePosixPath(given.rstrip("/")).name
    if below[0][0] in (given, str(Path(given).expanduser())):
        return below
    if len(below) == 1 and folder and below[0][1].count("/") > 1:
        return [(below[0][0], f"{folder}.dcm")]
    return [(path, relative if alone else f"{folder}/{relative}") for path, relative in below]


def _below(given: str) -> list[tuple[str, str]] | None:
    """(path, path below what was given) of each image file; None where nothing is there."""
    if "://" not in given:
        path = Path(given).expanduser()
        if not path.exists():
            return None
        if not path.is_dir():
            return [(str(path), path.name)]
    folder = Folder(given)
    listed = [file for file in list_files(folder, any_name=True)[0] if is_image_candidate(file.relative)]
    if listed:
        return [(file.path, file.relative) for file in listed]
    if folder.local is None and folder.exists():  # an object, not a folder
        return [(given, PurePosixPath(folder.path).name)]
    return [] if folder.exists() else None


def _named(found: list[tuple[str, str]]) -> list[FilmFile]:
    films, taken = [], set()
    for path, relative in found:
        name = base = _safe(relative)
        count = 1
        while name.lower() in taken:  # file systems that ignore case must not mix two films up
            count += 1
            name = f"{base}-{count}"
        taken.add(name.lower())
        films.append(FilmFile(path=path, name=name))
    return films


def _safe(relative: str) -> str:
    """A file's relative path as a name that every disk and store takes."""
    *above, last = relative.split("/")
    stem = (
        last.rpartition(".")[0] if last.lower().endswith((".dcm", ".png", ".jpg", ".jpeg", ".tif", ".tiff")) else last
    )
    parts = [UNSAFE.sub("_", part).strip(".").lstrip("-") for part in (*above, stem)]
    return "/".join(part[:LONGEST_NAME] or "_" for part in parts if part != "." or not above)


def _with_boxes(films: list[FilmFile], found: list[tuple[str, str]], boxes: str) -> list[FilmFile]:
    by_name = {path: film for film in films for path in (film.path,)}
    for film, (_, relative) in zip(films, dict.fromkeys(found), strict=True):
        by_name.setdefault(relative, film)
    chosen: list[FilmFile] = []
    mistakes = []
    counts: dict[str, int] = {}
    for line, row in enumerate(_box_rows(boxes), start=2):
        owner = by_name.get(row["film"])
        if owner is None:
            mistakes.append(f"line {line}: {row['film']!r} is none of the {len(films)} films")
            continue
        try:
            lesion = read_box(",".join(row[name].removesuffix(".0") for name in BOX_COLUMNS[1:]))
        except ValueError as error:
            mistakes.append(f"line {line}: {error}")
            continue
        counts[owner.name] = counts.get(owner.name, 0) + 1
        chosen.append(replace(owner, name=f"{owner.name}_{counts[owner.name]}", lesion=lesion))
    if mistakes:
        raise ValueError("\n  ".join([f"boxes: {boxes} cannot be used:", *mistakes[:20]]))
    return chosen


def _box_rows(boxes: str) -> list[dict[str, str]]:
    folder, _, name = boxes.rpartition("/")
    try:
        content = Folder(folder or (os.sep if boxes.startswith(os.sep) else ".")).read_bytes(name)
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise ValueError(f"boxes: {boxes} does not exist") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"boxes: {boxes} is no CSV: {error}") from error
    table.columns = pd.Index([str(column).strip().lower() for column in table.columns])
    missing = [column for column in BOX_COLUMNS if column not in table]
    if missing:
        raise ValueError(f"boxes: {boxes} lacks the column(s) {', '.join(missing)}; it has {', '.join(table.columns)}")
    return [{name: str(row[name]).strip() for name in BOX_COLUMNS} for row in table.to_dict("records")]
