"""The two copies of CBIS-DDSM on Kaggle, whose files are no DICOM: what headers would have said, found elsewhere.

JPEG set: `jpeg/<SeriesInstanceUID>/<n>-<nnn>.jpg` beside `csv/dicom_info.csv`, which has the tags of each file. Where
its row is missing or empty, the folder's name is the series, and the case CSVs tell whose that is.

Preprocessed PNG set: `<image name>_FULL___PRE.png`, `<image name>_MASK_<id>___PRE.png`, and for the sum of an image's
masks `<image name>_MASK___PRE.png`. The name is all there is. A summed mask is used only where no mask of a single
lesion is there; the image's lesions are then one, under the first one's id and with the worst pathology. Without case
CSVs the rows are made from the file names, without pathology.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pandas as pd

from cluster.storage import Folder
from data_prep.cbis_cases import PATHOLOGIES
from data_prep.file_index import FileRecord

SERIES_FOLDER = re.compile(r"^\d+(\.\d+){2,}$")
PREPROCESSED = re.compile(
    r"(?P<image>(?P<kind>Mass|Calc)-(?P<part>Training|Test)_(?P<patient>P_\d+)_(?P<side>LEFT|RIGHT)_(?P<view>CC|MLO))"
    r"_(?P<role>FULL|MASK)(?:_(?P<lesion>\d+))?___PRE\.png$"
)
SUMMED = "sum"
INFO_COLUMNS = {"image_path", "PatientID", "SeriesDescription", "SeriesInstanceUID"}


def is_preprocessed(files: list[FileRecord]) -> bool:
    """Whether these are files of the preprocessed PNG set."""
    return any(PREPROCESSED.search(f.relative) for f in files)


def cases_of_names(files: list[FileRecord]) -> pd.DataFrame:
    """The rows that the case CSVs would have, from the file names of the preprocessed set."""
    rows = []
    for file in files:
        match = PREPROCESSED.search(file.relative)
        if match is None or match["role"] != "MASK":
            continue
        lesion = match["lesion"] or SUMMED
        split = {"Training": "train", "Test": "test"}[match["part"]]
        rows.append(
            {
                "patient_id": match["patient"],
                "left_or_right_breast": match["side"],
                "image_view": match["view"],
                "abnormality_id": lesion,
                "pathology": "",
                "kind": match["kind"].lower(),
                "split": split,
                "image_name": match["image"],
                "lesion_name": f"{match['image']}_{lesion}",
                "density": pd.NA,
                "image_series": "",
                "crop_series": "",
                "mask_series": "",
            }
        )
    cases = pd.DataFrame(rows).drop_duplicates("lesion_name")
    numbered = set(cases.loc[cases["abnormality_id"] != SUMMED, "image_name"])
    alone = (cases["abnormality_id"] != SUMMED) | ~cases["image_name"].isin(numbered)
    cases = cases[alone].reset_index(drop=True)
    cases["abnormality_id"] = cases["abnormality_id"].replace({SUMMED: "1"})
    cases["lesion_name"] = cases["image_name"] + "_" + cases["abnormality_id"]
    return cases


def name_records(
    root: Folder, csvs: list[str], records: list[FileRecord], cases: pd.DataFrame
) -> tuple[list[FileRecord], pd.DataFrame]:
    """Give the files that are no DICOM their PatientID, SeriesInstanceUID and SeriesDescription.

    Returns:
        The records, completed; and the cases, with the lesions of an image joined where only their summed mask exists.
    """
    plain = [record for record in records if not record.dicom]
    if not plain:
        return records, cases
    infos = _read_infos(root, csvs)
    named = [record if record.dicom else _name_record(record, infos) for record in records]
    return _use_summed(named, cases)


def _read_infos(root: Folder, csvs: list[str]) -> dict[str, dict[str, str]]:
    """`<series>/<file>` -> the row of dicom_info.csv."""
    infos: dict[str, dict[str, str]] = {}
    for path in csvs:
        content = root.read_bytes(path).decode("utf-8-sig", errors="replace")
        if not set(content.split("\n", 1)[0].strip().split(",")) >= INFO_COLUMNS:
            continue
        table = pd.read_csv(io.StringIO(content), dtype=str, keep_default_na=False, usecols=list(INFO_COLUMNS))
        tails = table["image_path"].str.split("/").str[-2:].str.join("/")
        infos.update(zip(tails, table.to_dict("records"), strict=True))  # type: ignore[arg-type]
    return infos


def _name_record(record: FileRecord, infos: dict[str, dict[str, str]]) -> FileRecord:
    match = PREPROCESSED.search(record.relative)
    if match is not None:
        lesion = "" if match["role"] == "FULL" else f"_{match['lesion'] or SUMMED}"
        return replace(record, name=match["image"] + lesion)
    parts = record.relative.split("/")
    info = infos.get("/".join(parts[-2:]), {})
    folder = parts[-2] if len(parts) > 1 and SERIES_FOLDER.match(parts[-2]) else ""
    return replace(
        record,
        name=info.get("PatientID", "").strip(),
        series_uid=info.get("SeriesInstanceUID", "").strip() or folder,
        description=info.get("SeriesDescription", "").strip(),
    )


def _use_summed(records: list[FileRecord], cases: pd.DataFrame) -> tuple[list[FileRecord], pd.DataFrame]:
    """Rename summed masks to the first lesion of their image, or drop them where single masks exist."""
    names = {record.name for record in records}
    lesions = dict(cases.groupby("image_name")["lesion_name"].agg(list).items())
    kept, joined = [], []
    for record in records:
        image, _, suffix = record.name.rpartition("_")
        if suffix != SUMMED:
            kept.append(record)
        elif image in lesions and not names & set(lesions[image]):
            kept.append(replace(record, name=lesions[image][0]))
            joined.append(image)
    worst = cases["pathology"].map({pathology: rank for rank, pathology in enumerate(PATHOLOGIES)}).fillna(-1)
    order = cases.assign(worst=worst)
    first = order.sort_values("worst", ascending=False).groupby("image_name")["pathology"].first()
    several = cases["image_name"].isin(joined)
    heads = cases[several].drop_duplicates("image_name")
    heads = heads.assign(pathology=heads["image_name"].map(first))
    return kept, pd.concat([cases[~several], heads], ignore_index=True)
