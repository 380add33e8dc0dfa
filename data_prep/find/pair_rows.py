"""The rows of a `pairs` source: one lesion of an image each, as a CSV or the file names tell it."""

from __future__ import annotations

import io
import posixpath
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from cluster.storage import Folder
from data_prep.find.listing import FileRecord
from data_prep.find.tables import read_csv_text
from data_prep.schema import SPLITS, Rejected, Repaired

ALIASES = {"patient": "patient_id"}
SIDES = {"L": "LEFT", "LEFT": "LEFT", "R": "RIGHT", "RIGHT": "RIGHT"}
DENSITIES = {"A": 1, "B": 2, "C": 3, "D": 4}
PATIENT_IN_NAME = re.compile(r"P_\d+")
FIRST_WORD = re.compile(r"^[^_]+(?=_)")
MASK_SUFFIX = re.compile(r"(?:_mask)?(?:_(\d+))?$", re.IGNORECASE)
LOSSY = frozenset({".jpg", ".jpeg"})


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """One lesion of an image."""

    image: str
    """Path below the root."""
    mask: str
    """Path below the root; empty for a film without a lesion."""
    patient_id: str
    lesion_id: str
    side: str = ""
    view: str = ""
    kind: str = ""
    pathology: str = ""
    density: int | None = None
    split: str = ""

    def named(self, lesion_id: str) -> PairRow:
        """The row with a lesion id."""
        return replace(self, lesion_id=lesion_id)


def rows_of_csv(index_csv: str, root: Folder, images: list[FileRecord]) -> tuple[list[PairRow], list[Repaired]]:
    """The rows of a CSV, and what was put right in it.

    Args:
        index_csv: path or URI of the CSV.
        root: of the source; paths in the CSV are below it, written so or in full.
        images: files below the root.

    Raises:
        ValueError: there is no such file, a column is missing, or a split is unknown.
    """
    folder, _, name = index_csv.rpartition("/")
    try:
        content, repaired = read_csv_text(Folder(folder or "."), name)
    except FileNotFoundError:
        raise ValueError(f"index_csv: {index_csv} does not exist") from None
    try:
        table = pd.read_csv(io.StringIO(content), dtype=str, keep_default_na=False)
    except pd.errors.ParserError as error:
        raise ValueError(f"index_csv: {index_csv} is no CSV: {error}") from error
    except pd.errors.EmptyDataError:
        raise ValueError(f"index_csv: {index_csv} is empty") from None
    table.columns = pd.Index([ALIASES.get(c.strip().lower(), c.strip().lower()) for c in table.columns])
    if "name" in table and "image" not in table and "mask" not in table:
        by_stem = {f.relative.rpartition(".")[0]: f.relative for f in images}
        for column in ("image", "mask"):
            table[column] = [by_stem.get(f"{column}s/{n}", f"{column}s/{n}") for n in table["name"].str.strip()]
    missing = [c for c in ("image", "mask", "patient_id") if c not in table]
    if missing:
        raise ValueError(f"index_csv: {index_csv} lacks the column(s) {missing}; it has {list(table.columns)}")
    rows = [_to_row(record, root) for record in table.to_dict("records")]
    unknown = sorted({row.split for row in rows} - {"", *SPLITS})
    if unknown:
        raise ValueError(f"index_csv: {index_csv}: split {unknown} is none of {list(SPLITS)}")
    return rows, repaired


def _to_row(record: dict[Any, Any], root: Folder) -> PairRow:
    def text(name: str) -> str:
        return str(record.get(name, "")).strip()

    density = text("density").upper()
    number = int(density) if density in ("1", "2", "3", "4") else DENSITIES.get(density)
    view = text("view").upper().rstrip("0123456789")
    return PairRow(
        image=_below(text("image"), root),
        mask=_below(text("mask"), root),
        patient_id=text("patient_id"),
        lesion_id=text("lesion_id"),
        side=SIDES.get(text("side").upper(), ""),
        view=view if view in ("CC", "MLO") else "",
        kind=text("kind").lower(),
        pathology=text("pathology").upper().replace(" ", "_"),
        density=number,
        split=text("split").lower(),
    )


def _below(path: str, root: Folder) -> str:
    """A path of the CSV below the root, with forward slashes; one that leads elsewhere stays as it is."""
    if not path:
        return ""
    path = path.replace("\\", "/").removeprefix("./")
    tops = [str(root)] + ([str(root.local.resolve())] if root.local is not None else [])
    for top in tops:
        path = path.removeprefix(f"{top.rstrip('/')}/")
    return path if "://" in path else posixpath.normpath(path)


def rows_of_names(images: list[FileRecord]) -> tuple[list[PairRow], list[Rejected]]:
    """The rows that the names of files in `images/` and `masks/` make, and the files that make none."""
    films, masks = (_inside(images, folder) for folder in ("images", "masks"))
    by_name, rejected = _masks_by_image(masks)
    rows = []
    for name, file in films:
        found = _rows_of_image(file, name, by_name.get(name, []))
        if isinstance(found, str):
            rejected.append(Rejected(path=file.path, sample_id=name, reason=found))
        else:
            rows += found
    names = {name for name, _ in films}
    taken = {path for name, files in by_name.items() if name in names for _, path in files}
    twice = {item.path for item in rejected}
    for stem, file in masks:
        if file.relative not in taken and file.path not in twice:
            reason = f"without_film: no images/{stem}.* for this mask"
            rejected.append(Rejected(path=file.path, sample_id=stem, reason=reason))
    return rows, rejected


def _inside(files: list[FileRecord], folder: str) -> list[tuple[str, FileRecord]]:
    """(name without folder and suffix, file) of the files of a folder at the top; its name may be in capitals."""
    tops = {f.relative.split("/")[0] for f in files if "/" in f.relative}
    chosen = folder if folder in tops else next((top for top in sorted(tops) if top.lower() == folder), folder)
    inside = [f for f in files if f.relative.startswith(f"{chosen}/")]
    return [(f.relative.removeprefix(f"{chosen}/").rpartition(".")[0], f) for f in inside]


def _masks_by_image(masks: list[tuple[str, FileRecord]]) -> tuple[dict[str, list[tuple[str, str]]], list[Rejected]]:
    """Image name -> (lesion id, path) of its masks; and files that are the same mask in another format."""
    lossless_first = sorted(masks, key=lambda item: (item[0], _suffix(item[1]) in LOSSY, item[1].relative))
    seen: dict[str, FileRecord] = {}
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    rejected = []
    for stem, file in lossless_first:
        if stem in seen:
            reason = f"duplicate: {seen[stem].path} has the same name"
            rejected.append(Rejected(path=file.path, sample_id="", reason=reason))
            continue
        seen[stem] = file
        found[stem].append(("", file.relative))
        match = MASK_SUFFIX.search(stem)
        if match and match[0]:
            found[stem[: match.start()]].append((match[1] or "", file.relative))
    return {name: _numbered(files) for name, files in found.items()}, rejected


def _numbered(masks: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Lesion ids for the masks of an image: their numbers; 1, or 0 beside numbered ones, for a mask without."""
    bare = "0" if any(number for number, _ in masks) else "1"
    ids = [(number or bare, path) for number, path in masks]
    unique = len({number for number, _ in ids}) == len(ids)
    return ids if unique else [(str(n), path) for n, (_, path) in enumerate(ids, start=1)]


def _suffix(file: FileRecord) -> str:
    return PurePosixPath(file.relative).suffix.lower()


def _rows_of_image(file: FileRecord, name: str, masks: list[tuple[str, str]]) -> list[PairRow] | str:
    """The rows of an image, or why there is none."""
    stem = PurePosixPath(name).name
    patient = PATIENT_IN_NAME.search(stem) or FIRST_WORD.search(stem)
    if patient is None:
        return "bad_row: no patient in its name; name files <patient>_..., or give index_csv"
    if not masks:
        return f"mask_missing: no masks/{name}.*"
    words = re.split(r"[_\-. ]", stem.upper())
    side = next((SIDES[word] for word in words if word in SIDES), "")
    view = next((word for word in words if word in ("CC", "MLO")), "")
    return [
        PairRow(
            image=file.relative,
            mask=mask,
            patient_id=patient[0],
            lesion_id=lesion_id,
            side=side,
            view=view,
        )
        for lesion_id, mask in masks
    ]
