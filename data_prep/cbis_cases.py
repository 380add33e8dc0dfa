"""The case-description CSVs of CBIS-DDSM: one row a lesion of an image, with every quirk of the official files.

Put right on reading: line feeds at the end of path columns, `breast density` for `breast_density`, `N/A`, densities
outside 1-4 (taken as unknown). Rows that cannot be understood, and second rows of the same lesion, are left out.
"""

from __future__ import annotations

import io
import re
from pathlib import PurePosixPath

import pandas as pd

from cluster.storage import Folder
from data_prep.schema import Rejected, Repaired

IMAGE_NAME = re.compile(r"^(Mass|Calc)-(Training|Test)_(P_\d+)_(LEFT|RIGHT)_(CC|MLO)(?:_(\d+))?$")
"""An image's name, kept in PatientID and as the first part of the CSV's paths."""

COLUMNS = {"patient_id", "left_or_right_breast", "image_view", "abnormality_id", "pathology", "image_file_path"}
PATHS = ("image_file_path", "cropped_image_file_path", "roi_mask_file_path")
PATHOLOGIES = ("BENIGN_WITHOUT_CALLBACK", "BENIGN", "MALIGNANT")
"""From harmless to bad."""


def read_case_csvs(folder: str) -> pd.DataFrame:
    """All case-description CSVs below a folder (path or URI), one row a lesion.

    Returns:
        The official columns in snake case, and: `kind` (mass, calc), `split` (train, test), `image_name`,
        `lesion_name`, `density` (Int64, 1-4 or missing), `image_series`, `crop_series`, `mask_series` (the UIDs in
        the paths), `csv`.

    Raises:
        ValueError: there is no such CSV below the folder.
    """
    root = Folder(folder)
    return read_cases(root, [path for path, _ in root.walk() if path.lower().endswith(".csv")])[0]


def read_cases(root: Folder, csvs: list[str]) -> tuple[pd.DataFrame, list[Rejected], list[Repaired]]:
    """As `read_case_csvs`, of those of the named files that are case descriptions, with what was left out or put right.

    Raises:
        ValueError: none of them is.
    """
    tables, rejected, repaired = [], [], []
    for path in csvs:
        table = _read_table(root, path)
        if table is None:
            continue
        repaired += _strip_paths(table, f"{root}/{path}")
        tables.append(_derive(table, PurePosixPath(path).name))
    if not tables:
        raise ValueError(
            f"no case-description CSV (mass_case_description_train_set.csv, ...) below {root}; put the four files "
            "of the collection there, or name their folder in index_csv"
        )
    cases = pd.concat(tables, ignore_index=True)
    for keep, code in ((_understood(cases), "bad_row"), (~cases.duplicated("lesion_name"), "duplicate")):
        rejected += [_left_out(row, code) for row in cases[~keep.reindex(cases.index)].itertuples()]
        cases = cases[keep.reindex(cases.index)]
    return cases.reset_index(drop=True), rejected, repaired


def _read_table(root: Folder, path: str) -> pd.DataFrame | None:
    """The CSV as text columns in snake case, or None if it is no case description."""
    content = root.read_bytes(path).decode("utf-8-sig", errors="replace")
    header = [re.sub(r"\s+", "_", name.strip().lower()) for name in content.split("\n", 1)[0].split(",")]
    if not set(header) >= COLUMNS:
        return None
    table = pd.read_csv(io.StringIO(content), dtype=str, keep_default_na=False)
    table.columns = pd.Index(header)
    return table


def _strip_paths(table: pd.DataFrame, path: str) -> list[Repaired]:
    """Strip all columns, and say which path columns held line feeds."""
    repaired = []
    for column in table.columns:
        stripped = table[column].str.strip()
        broken = int((table[column].str.contains("\n", regex=False)).sum())
        if broken:
            repair = f"newline_in_path: {broken} values of column {column!r} held a line feed"
            repaired.append(Repaired(path=path, sample_id="", repair=repair))
        table[column] = stripped.replace({"N/A": "", "nan": ""})
    return repaired


def _derive(table: pd.DataFrame, csv: str) -> pd.DataFrame:
    """Add the columns that the rest joins on."""
    first = table["image_file_path"].str.split("/").str[0].str.extract(IMAGE_NAME)
    by_name = csv.lower()
    kind = first[0].fillna("Mass" if "mass" in by_name else "Calc")
    part = first[1].fillna("Test" if "test" in by_name else "Training")
    table["kind"], table["split"] = kind.str.lower(), part.map({"Training": "train", "Test": "test"})
    side, view = table["left_or_right_breast"].str.upper(), table["image_view"].str.upper()
    table["image_name"] = kind + "-" + part + "_" + table["patient_id"] + "_" + side + "_" + view
    table["lesion_name"] = table["image_name"] + "_" + table["abnormality_id"]
    density = table["breast_density"] if "breast_density" in table else pd.Series("", index=table.index)
    table["density"] = pd.to_numeric(density, errors="coerce").where(lambda d: d.between(1, 4)).astype("Int64")
    for column, series in zip(PATHS, ("image_series", "crop_series", "mask_series"), strict=True):
        paths = table[column] if column in table else pd.Series("", index=table.index)
        table[series] = paths.str.replace("\\", "/", regex=False).str.split("/").str[-2].fillna("")
    table["csv"] = csv
    return table


def _understood(cases: pd.DataFrame) -> pd.Series:
    return cases["lesion_name"].str.match(IMAGE_NAME) & cases["abnormality_id"].str.fullmatch(r"\d+")


def _left_out(row: object, code: str) -> Rejected:
    """The row as a rejection; `row` is a named tuple of `cases`."""
    csv, name = row.csv, row.image_name  # type: ignore[attr-defined]
    lesion = row.abnormality_id  # type: ignore[attr-defined]
    detail = (
        f"a second row of lesion {lesion!r}" if code == "duplicate" else f"row of image {name!r}, lesion {lesion!r}"
    )
    return Rejected(path=csv, sample_id=str(name), reason=f"{code}: {detail}")
