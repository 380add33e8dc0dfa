"""Image and mask files in pairs, of any common format (DICOM, PNG, JPEG, TIFF) -> samples.

With `index_csv`, a CSV whose rows are lesions:

    image        path of the image below the root
    mask         path of the lesion's mask below the root
    patient_id   whose image it is; splits are made by it
    optional: side (L, R, LEFT, RIGHT), view (CC, MLO), lesion_id, split (train, val, test), density (1-4 or A-D),
    pathology, kind (mass, calc)

`patient` is accepted for `patient_id`; and `name` for both `image` and `mask`, meaning `images/<name>.*` and
`masks/<name>.*`. Several rows of one image are its lesions. Columns of other names are ignored.

Without it, `images/` and `masks/` below the root are matched by file name: the mask of `images/p7_left_cc.png` is
`masks/p7_left_cc.*`, or several of them `masks/p7_left_cc_1.*`, `masks/p7_left_cc_2.*` (also with `_mask` before the
number). The patient is the `P_nnnnn` in the name, else all before its first underscore; without either it is rejected.

Masks may be grey (resized, or JPEG): `dicom.read_mask` cuts them at half of the range. A mask of another size than its
image is resized if the aspect is the same within 1 %, else rejected.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from cluster.storage import Folder
from data_prep.find.cbis_cases import worst_pathology
from data_prep.find.index import FileRecord, MapBatches, build_index, compare_sizes, is_image_candidate, list_files
from data_prep.schema import SPLITS, BuildSettings, Found, Lesion, Rejected, Repaired, Sample

ALIASES = {"patient": "patient_id"}
SIDES = {"L": "LEFT", "LEFT": "LEFT", "R": "RIGHT", "RIGHT": "RIGHT"}
DENSITIES = {"A": 1, "B": 2, "C": 3, "D": 4}
PATIENT_IN_NAME = re.compile(r"P_\d+")
FIRST_WORD = re.compile(r"^[^_]+(?=_)")
MASK_SUFFIX = re.compile(r"(?:_mask)?(?:_(\d+))?$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One lesion of an image, as the CSV or the file names tell it."""

    image: str
    """Path below the root."""
    mask: str
    patient_id: str
    lesion_id: str
    side: str = ""
    view: str = ""
    kind: str = ""
    pathology: str = ""
    density: int | None = None
    split: str = ""


def find_samples(
    settings: BuildSettings, *, index_cache: Path | None = None, map_batches: MapBatches | None = None
) -> Found:
    """Find the pairs below `settings.root`; see the module's text for the rules. Reads headers, no pixel.

    Raises:
        ValueError: `root` does not exist or holds no pair, or the CSV lacks a column or names an unknown split.
    """
    root = Folder(settings.root or "")
    if not root.exists():
        raise ValueError(f"root: {root} does not exist; give the folder of the images and masks")
    files, rejected = list_files(root)
    images = [f for f in files if is_image_candidate(f)]
    log = _Log(rejected=rejected)
    rows = _rows_of_csv(settings.index_csv, images) if settings.index_csv else _rows_of_names(images, log)
    named = {path for row in rows for path in (row.image, row.mask)}
    index = build_index([f for f in images if f.relative in named], cache=index_cache, map_batches=map_batches)
    records = {record.relative: record for record in index}
    by_image: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_image[row.image].append(row)
    samples = [_to_sample(by_image[image], records, root, log) for image in sorted(by_image)]
    return Found(samples=_unique(samples, log), rejected=log.rejected, repaired=log.repaired)


@dataclass
class _Log:
    """What was left out and put right."""

    rejected: list[Rejected] = field(default_factory=list)
    repaired: list[Repaired] = field(default_factory=list)

    def reject(self, path: str, sample_id: str, reason: str) -> None:
        self.rejected.append(Rejected(path=path, sample_id=sample_id, reason=reason))

    def repair(self, path: str, sample_id: str, repair: str) -> str:
        self.repaired.append(Repaired(path=path, sample_id=sample_id, repair=repair))
        return repair


def _rows_of_csv(index_csv: str, images: list[FileRecord]) -> list[Row]:
    where = PurePosixPath(index_csv)
    folder, _, name = index_csv.rpartition("/")
    try:
        content = Folder(folder or ".").read_bytes(name)
    except FileNotFoundError:
        raise ValueError(f"index_csv: {index_csv} does not exist") from None
    table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    table.columns = pd.Index([ALIASES.get(c.strip().lower(), c.strip().lower()) for c in table.columns])
    if "name" in table and "image" not in table and "mask" not in table:
        by_stem = {f.relative.rpartition(".")[0]: f.relative for f in images}
        for column in ("image", "mask"):
            table[column] = [by_stem.get(f"{column}s/{n}", f"{column}s/{n}") for n in table["name"].str.strip()]
    missing = [c for c in ("image", "mask", "patient_id") if c not in table]
    if missing:
        raise ValueError(f"index_csv: {where} lacks the column(s) {missing}; it has {list(table.columns)}")
    rows = [_to_row(record, n) for n, record in enumerate(table.to_dict("records"), start=2)]
    unknown = sorted({row.split for row in rows} - {"", *SPLITS})
    if unknown:
        raise ValueError(f"index_csv: {where}: split {unknown} is none of {list(SPLITS)}")
    return rows


def _to_row(record: dict, line: int) -> Row:
    def text(name: str) -> str:
        return str(record.get(name, "")).strip()

    density = text("density").upper()
    number = int(density) if density in ("1", "2", "3", "4") else DENSITIES.get(density)
    view = text("view").upper().rstrip("0123456789")
    return Row(
        image=_below(text("image")),
        mask=_below(text("mask")),
        patient_id=text("patient_id"),
        lesion_id=text("lesion_id"),
        side=SIDES.get(text("side").upper(), ""),
        view=view if view in ("CC", "MLO") else "",
        kind=text("kind").lower(),
        pathology=text("pathology").upper().replace(" ", "_"),
        density=number,
        split=text("split").lower(),
    )


def _below(path: str) -> str:
    return path.replace("\\", "/").removeprefix("./")


def _rows_of_names(images: list[FileRecord], log: _Log) -> list[Row]:
    masks: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file in images:
        if file.relative.startswith("masks/"):
            stem = file.relative.removeprefix("masks/").rpartition(".")[0]
            masks[stem].append(("1", file.relative))
            match = MASK_SUFFIX.search(stem)
            if match and match[0]:
                masks[stem[: match.start()]].append((match[1] or "1", file.relative))
    rows = []
    for file in images:
        if not file.relative.startswith("images/"):
            continue
        name = file.relative.removeprefix("images/").rpartition(".")[0]
        rows += _rows_of_image(file, name, masks.get(name, []), log)
    return rows


def _rows_of_image(file: FileRecord, name: str, masks: list[tuple[str, str]], log: _Log) -> list[Row]:
    stem = PurePosixPath(name).name
    patient = PATIENT_IN_NAME.search(stem) or FIRST_WORD.search(stem)
    if patient is None:
        detail = "no patient in its name; name files <patient>_..., or give index_csv"
        log.reject(file.path, name, f"bad_row: {detail}")
        return []
    if not masks:
        log.reject(file.path, name, f"mask_missing: no masks/{name}.*")
        return []
    words = re.split(r"[_\-. ]", stem.upper())
    side = next((SIDES[word] for word in words if word in SIDES), "")
    view = next((word for word in words if word in ("CC", "MLO")), "")
    return [
        Row(
            image=file.relative,
            mask=mask,
            patient_id=patient[0],
            lesion_id=lesion_id,
            side=side,
            view=view,
        )
        for lesion_id, mask in masks
    ]


def _to_sample(rows: list[Row], records: dict[str, FileRecord], root: Folder, log: _Log) -> Sample | None:
    """One image with its usable lesions, or None if it had to be left out."""
    first = rows[0]
    sample_id = _sample_id(first.image)
    if not first.patient_id:
        log.reject(first.image, sample_id, "bad_row: the patient_id is empty")
        return None
    image, fault = _usable(first.image, records, "image_missing")
    if image is None:
        log.reject(f"{root}/{first.image}", sample_id, fault)
        return None
    lesions, repairs = [], []
    for number, row in enumerate(rows, start=1):
        lesion_id = row.lesion_id or str(number)
        mask, fault = _usable(row.mask, records, "mask_missing")
        sizes = compare_sizes(mask, image) if mask else fault
        if mask is None or sizes.startswith("mask_other_aspect"):
            log.reject(f"{root}/{row.mask}", sample_id, f"{sizes} (lesion {lesion_id})")
            continue
        if sizes:
            repairs.append(log.repair(mask.path, sample_id, f"{sizes} (lesion {lesion_id})"))
        lesions.append(Lesion(lesion_id=lesion_id, mask=mask.path, kind=row.kind, pathology=row.pathology))
    if not lesions:
        log.reject(image.path, sample_id, "no_lesion: none of its lesions has a usable mask")
        return None
    return _build_sample(sample_id, rows, image, lesions, repairs)


def _usable(path: str, records: dict[str, FileRecord], missing: str) -> tuple[FileRecord | None, str]:
    """(the file, or None; why it cannot be used)."""
    record = records.get(path)
    if record is None:
        outside = path.startswith("/") or "://" in path or ".." in path.split("/")
        return None, f"outside_root: {path}" if outside else f"{missing}: no file {path!r} below the root"
    return (None, record.fault) if record.fault else (record, "")


def _sample_id(image: str) -> str:
    return image.removeprefix("images/").rpartition(".")[0] or image


def _build_sample(
    sample_id: str, rows: list[Row], image: FileRecord, lesions: list[Lesion], repairs: list[str]
) -> Sample:
    first = rows[0]
    return Sample(
        sample_id=sample_id,
        patient_id=first.patient_id,
        image=image.path,
        lesions=tuple(lesions),
        side=first.side,
        view=first.view,
        kind="+".join(sorted({lesion.kind for lesion in lesions} - {""}, reverse=True)),
        pathology=worst_pathology(lesion.pathology for lesion in lesions),
        density=first.density,
        split=first.split,
        repairs=tuple(repairs),
    )


def _unique(samples: list[Sample | None], log: _Log) -> list[Sample]:
    """Drop second images of the same name in another format."""
    kept: dict[str, Sample] = {}
    for sample in samples:
        if sample is None:
            continue
        if sample.sample_id in kept:
            log.reject(sample.image, sample.sample_id, f"duplicate: {kept[sample.sample_id].image} has the same name")
        else:
            kept[sample.sample_id] = sample
    return list(kept.values())
