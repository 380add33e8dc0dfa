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
from collections import defaultdict
from dataclasses import replace

import pandas as pd

from cluster.storage import Folder
from data_prep.find.cbis_cases import SPLITS, Case, worst_pathology
from data_prep.find.index import digest_uid
from data_prep.find.listing import FileRecord
from data_prep.find.tables import read_csv_text

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


def cases_of_names(files: list[FileRecord]) -> list[Case]:
    """The rows that the case CSVs would have, from the file names of the preprocessed set."""
    masks = [match for f in files if (match := PREPROCESSED.search(f.relative)) and match["role"] == "MASK"]
    numbered = {match["image"] for match in masks if match["lesion"]}
    chosen = [match for match in masks if match["lesion"] or match["image"] not in numbered]
    return [
        Case(
            patient_id=match["patient"],
            side=match["side"],
            view=match["view"],
            lesion_id=match["lesion"] or "1",
            kind=match["kind"].lower(),
            split=SPLITS[match["part"]],
            pathology="",
            density=None,
            image_name=match["image"],
            image_series="",
        )
        for match in chosen
    ]


def name_records(
    root: Folder, csvs: list[str], records: list[FileRecord], cases: list[Case]
) -> tuple[list[FileRecord], list[Case]]:
    """Give the files that are no DICOM their PatientID, SeriesInstanceUID and SeriesDescription.

    Returns:
        The records, completed; and the cases, with the lesions of an image joined where only their summed mask exists.
    """
    if all(record.dicom for record in records):
        return records, cases
    infos = _read_infos(root, csvs)
    return _use_summed([r if r.dicom else _name_record(r, infos) for r in records], cases)


def _read_infos(root: Folder, csvs: list[str]) -> dict[str, dict[str, str]]:
    """`<series>/<file>` -> the row of dicom_info.csv."""
    infos: dict[str, dict[str, str]] = {}
    for path in csvs:
        content, _ = read_csv_text(root, path)
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
        series=digest_uid(info.get("SeriesInstanceUID", "").strip() or folder),
        description=info.get("SeriesDescription", "").strip(),
    )


def _use_summed(records: list[FileRecord], cases: list[Case]) -> tuple[list[FileRecord], list[Case]]:
    """Rename summed masks to the first lesion of their image, or drop them where single masks exist."""
    names = {record.name for record in records}
    images: dict[str, list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: int(case.lesion_id)):
        images[case.image_name].append(case)
    kept = []
    for record in records:
        image, _, suffix = record.name.rpartition("_")
        if suffix != SUMMED:
            kept.append(record)
        elif image in images and not any(case.lesion_name in names for case in images[image]):
            joined = replace(images[image][0], pathology=worst_pathology(case.pathology for case in images[image]))
            images[image] = [joined]
            kept.append(replace(record, name=joined.lesion_name))
    return kept, [case for lesions in images.values() for case in lesions]
