"""The case-description CSVs of CBIS-DDSM: one row a lesion of an image, with every quirk of the official files.

Put right on reading: line feeds at the end of path columns, `breast density` for `breast_density`, `N/A`, densities
outside 1-4 (taken as unknown). Rows that cannot be understood, and second rows of the same lesion, are left out.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath

import pandas as pd

from cluster.storage import Folder
from data_prep.find.tables import read_csv_text
from data_prep.schema import Rejected, Repaired

IMAGE_NAME = re.compile(r"^(Mass|Calc)-(Training|Test)_(P_\d+)_(LEFT|RIGHT)_(CC|MLO)(?:_(\d+))?$")
"""An image's name, kept in PatientID and as the first part of the CSV's paths."""

COLUMNS = {"patient_id", "left_or_right_breast", "image_view", "abnormality_id", "pathology", "image_file_path"}
SPLITS = {"Training": "train", "Test": "test"}
PATHOLOGIES = ("BENIGN_WITHOUT_CALLBACK", "BENIGN", "MALIGNANT")
"""From harmless to bad."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One row: a lesion of an image."""

    patient_id: str
    side: str
    view: str
    lesion_id: str
    """The abnormality id."""
    kind: str
    """`mass` or `calc`."""
    split: str
    """`train` or `test`."""
    pathology: str
    density: int | None
    """1-4; None where the CSV has none of these."""
    image_name: str
    image_series: str
    """SeriesInstanceUID in the path of the full mammogram; likewise the next two."""
    crop_series: str = ""
    mask_series: str = ""
    csv: str = ""
    row: dict[str, str] = field(default_factory=dict)
    """The official columns, in snake case and stripped."""

    @property
    def lesion_name(self) -> str:
        """The image's name with the abnormality id: PatientID of the lesion's crop and mask."""
        return f"{self.image_name}_{self.lesion_id}"


def read_case_csvs(folder: str) -> pd.DataFrame:
    """All case-description CSVs below a folder (path or URI), one row a lesion.

    Returns:
        The fields of `Case` (density as Int64), `lesion_name`, and those official columns in snake case that are not
        among them.

    Raises:
        ValueError: there is no such CSV below the folder.
    """
    root = Folder(folder)
    csvs = [path for path, _ in root.walk() if path.lower().endswith(".csv")]
    cases, _, _ = read_cases(root, csvs, keep_rows=True)
    table = pd.DataFrame([{**c.row, **asdict(c), "lesion_name": c.lesion_name} for c in cases]).drop(columns="row")
    return table.astype({"density": "Int64"})


def read_cases(
    root: Folder, csvs: Iterable[str], *, keep_rows: bool = False
) -> tuple[list[Case], list[Rejected], list[Repaired]]:
    """The rows of those of the named files that are case descriptions, with what was left out or put right.

    Args:
        root: the folder of the CSVs.
        csvs: paths below it.
        keep_rows: whether cases keep all their columns.

    Raises:
        ValueError: none of them is.
    """
    cases: dict[str, Case] = {}
    rejected: list[Rejected] = []
    repaired: list[Repaired] = []
    found = False
    for path in csvs:
        rows, notes = _read_rows(root, path)
        if rows is None:
            continue
        found = True
        repaired += notes
        repaired += _strip(rows, f"{root}/{path}")
        for case in _derive(rows, PurePosixPath(path).name):
            code = _fault(case, cases)
            if code:
                rejected.append(Rejected(path=f"{root}/{path}", sample_id=case.image_name, reason=code))
            else:
                cases[case.lesion_name] = case if keep_rows else replace(case, row={})
    if not found:
        raise ValueError(
            f"no case-description CSV (mass_case_description_train_set.csv, ...) below {root}; put the four files "
            "of the collection there, or name their folder in index_csv"
        )
    return list(cases.values()), rejected, repaired


def worst_pathology(pathologies: Iterable[str]) -> str:
    """The worst of some pathologies; unknown words count least."""
    return max(pathologies, key=lambda p: PATHOLOGIES.index(p) if p in PATHOLOGIES else -1)


def _read_rows(root: Folder, path: str) -> tuple[list[dict[str, str]] | None, list[Repaired]]:
    """The CSV's rows with columns in snake case, or None if it is no case description; and what was put right."""
    content, repaired = read_csv_text(root, path)
    reader = csv.reader(io.StringIO(content, newline=""))
    header = [re.sub(r"\s+", "_", name.strip().lower()) for name in next(reader, [])]
    if not set(header) >= COLUMNS:
        return None, []
    # A short row lacks its last columns; it is found out by what is then empty.
    rows = [dict(zip(header, [*row, *[""] * len(header)], strict=False)) for row in reader if row]
    return rows, repaired


def _strip(rows: list[dict[str, str]], path: str) -> list[Repaired]:
    """Strip all values in place, and say which columns held line feeds."""
    broken: dict[str, int] = {}
    for row in rows:
        for column, value in row.items():
            if "\n" in value:
                broken[column] = broken.get(column, 0) + 1
            value = value.strip()
            row[column] = "" if value == "N/A" else value
    repairs = [f"newline_in_path: {n} values of column {column!r} held a line feed" for column, n in broken.items()]
    return [Repaired(path=path, sample_id="", repair=repair) for repair in repairs]


def _derive(rows: list[dict[str, str]], name: str) -> Iterator[Case]:
    """The cases of a CSV's rows: kind and split from the image's path, else from the CSV's name."""
    by_name = ("Mass" if "mass" in name.lower() else "Calc", "Test" if "test" in name.lower() else "Training")
    for row in rows:
        match = IMAGE_NAME.match(row["image_file_path"].split("/")[0])
        kind, part = (match[1], match[2]) if match else by_name
        side, view = row["left_or_right_breast"].upper(), row["image_view"].upper()
        density = row.get("breast_density", "")
        yield Case(
            patient_id=row["patient_id"],
            side=side,
            view=view,
            lesion_id=row["abnormality_id"],
            kind=kind.lower(),
            split=SPLITS[part],
            pathology=row["pathology"],
            density=int(density) if density in ("1", "2", "3", "4") else None,
            image_name=f"{kind}-{part}_{row['patient_id']}_{side}_{view}",
            image_series=_series(row["image_file_path"]),
            crop_series=_series(row.get("cropped_image_file_path", "")),
            mask_series=_series(row.get("roi_mask_file_path", "")),
            csv=name,
            row=row,
        )


def _series(path: str) -> str:
    """The SeriesInstanceUID in a path `<name>/<study>/<series>/<file>`."""
    parts = path.replace("\\", "/").split("/")
    return parts[-2] if len(parts) > 1 else ""


def _fault(case: Case, cases: dict[str, Case]) -> str:
    """Why a row is left out, or empty."""
    if not (IMAGE_NAME.match(case.lesion_name) and case.lesion_id.isdecimal()):
        return f"bad_row: image {case.image_name!r}, abnormality {case.lesion_id!r}"
    if case.lesion_name in cases:
        return f"duplicate: a second row of abnormality {case.lesion_id} of this image"
    return ""
