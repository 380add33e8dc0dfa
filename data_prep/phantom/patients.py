"""Mammograms that the project makes, written as a CBIS-DDSM download: the source that needs no data.

    write_phantoms(PhantomSettings(patients=60, rows=768), Path("phantoms"))

    phantoms/csv/        the four case-description CSVs, with the official columns and their quirks
    phantoms/CBIS-DDSM/  <PatientID>/<StudyInstanceUID>/<SeriesInstanceUID>/1-1.dcm, as the classic NBIA layout has it
    phantoms/phantom.json  the settings they were made from

Full mammograms and crops have 16 bits, masks 8 with values 0 and 255. As in the real download, crop and mask come in
either order, a few in two series, file names differ from those in the CSVs, and films differ in size. What a film
shows is drawn by `phantom/film.py`. The bytes depend on the settings alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, SecondaryCaptureImageStorage

from data_prep.find import cbis_ddsm
from data_prep.find.index import MapBatches
from data_prep.phantom.film import FilmPlan, LesionPlan, draw_film
from data_prep.schema import BuildSettings, Found, PhantomSettings

PHANTOM_VERSION = 1
"""Raised when the same settings give other bytes."""
SETTINGS_FILE = "phantom.json"
FIRST_PATIENT = 80_001
TEST_SHARE = 0.2
SHAPES = {"round": "ROUND", "lobulated": "LOBULATED", "spiculated": "IRREGULAR"}
MARGINS = {"round": "CIRCUMSCRIBED", "lobulated": "MICROLOBULATED", "spiculated": "SPICULATED"}
MALIGNANT_SHARE = {"round": 0.1, "lobulated": 0.5, "spiculated": 0.9, "cluster": 0.5}
DENSITY_COLUMNS = {"mass": "breast_density", "calc": "breast density"}
KIND_NAMES = {"mass": "mass", "calc": "calcification"}
CaseRows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Patient:
    """One made patient: what `write_patient` needs."""

    number: int
    kind: str
    split: str


def find_samples(
    settings: BuildSettings, *, index_cache: Path | None = None, map_batches: MapBatches | None = None
) -> Found:
    """Make the phantoms in `settings.root` if they are not there, or were made from other settings; then find them.

    Raises:
        ValueError: `root` is missing, not on a disk, or holds something else.
    """
    folder = _folder(settings)
    if not is_made(settings.phantom, folder):
        write_phantoms(settings.phantom, folder)
    found_in = settings.model_copy(update={"root": str(folder), "index_csv": None})
    return cbis_ddsm.find_samples(found_in, index_cache=index_cache, map_batches=map_batches)


def lock_file(settings: BuildSettings) -> Path:
    """The file beside the phantoms' folder by which one build at a time makes or reads them."""
    folder = _folder(settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.with_name(f".{folder.name}.lock")


def _folder(settings: BuildSettings) -> Path:
    if settings.root is None or "://" in settings.root.removeprefix("file://"):
        raise ValueError(f"root: {settings.root!r}; phantoms are written to a folder on a disk, give its path")
    return Path(settings.root.removeprefix("file://")).expanduser().absolute()


def is_made(settings: PhantomSettings, folder: Path) -> bool:
    """Whether the folder holds the phantoms of exactly these settings."""
    marker = folder / SETTINGS_FILE
    return marker.exists() and json.loads(marker.read_text()) == _marker(settings)


def write_phantoms(
    settings: PhantomSettings,
    folder: Path,
    *,
    map_patients: Callable[[Callable[[Patient], CaseRows], list[Patient]], Iterable[CaseRows]] = map,
) -> None:
    """Write the phantoms of `settings` to `folder`, aside first and then moved there; older phantoms are replaced.

    Args:
        settings: what to make.
        folder: where; it must be absent, empty, or hold phantoms.
        map_patients: `map` or a parallel one (`ProcessPoolExecutor(2).map`) that keeps the order.

    Raises:
        ValueError: the folder holds something that is no phantom.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / SETTINGS_FILE).exists():
        raise ValueError(f"{folder} holds files that are no phantoms; give an empty folder for them")
    aside = folder.with_name(f".{folder.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        rows = [row for part in map_patients(_PatientWriter(settings, aside), plan_patients(settings)) for row in part]
        _write_csvs(rows, aside / "csv")
        (aside / SETTINGS_FILE).write_text(json.dumps(_marker(settings), indent=2) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        aside.replace(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def plan_patients(settings: PhantomSettings) -> list[Patient]:
    """Kind and official split of each patient: about a fifth has calcifications, about a fifth tests."""
    rng = np.random.default_rng([settings.seed, 0])
    test_count = max(1, round(TEST_SHARE * settings.patients))
    test = set(rng.permutation(settings.patients)[:test_count].tolist())
    kinds = rng.choice(["mass", "calc"], settings.patients, p=[0.8, 0.2])
    return [
        Patient(number=n, kind=str(kinds[n]), split="Test" if n in test else "Training")
        for n in range(settings.patients)
    ]


def _marker(settings: PhantomSettings) -> dict[str, Any]:
    return {"version": PHANTOM_VERSION, "settings": settings.model_dump(mode="json")}


@dataclass(frozen=True)
class _PatientWriter:
    """Writes the films of a patient and returns the CSV rows; a class so that it can be sent to other processes."""

    settings: PhantomSettings
    root: Path

    def __call__(self, patient: Patient) -> CaseRows:
        rng = np.random.default_rng([self.settings.seed, 1, patient.number])
        sides = ["LEFT", "RIGHT"] if rng.random() < 0.35 else [str(rng.choice(["LEFT", "RIGHT"]))]
        rows: CaseRows = []
        for side in sides:
            density = int(rng.choice([1, 2, 3, 4], p=[0.15, 0.4, 0.3, 0.15]))
            lesions = tuple(self._plan_lesion(rng, patient.kind, n + 1) for n in range(2 if rng.random() < 0.15 else 1))
            columns = round(self.settings.rows * rng.uniform(0.55, 0.65))
            for view in ("CC", "MLO"):
                plan = FilmPlan(
                    rows=round(self.settings.rows * rng.uniform(0.94, 1.06)),
                    columns=columns,
                    side=side,
                    view=view,
                    density=density,
                    mirrored=bool(rng.random() < 0.03),
                    lesions=lesions,
                    seed=(self.settings.seed, 2, patient.number, side == "LEFT", view == "CC"),
                )
                rows += self._write_film(rng, patient, plan)
        return rows

    def _plan_lesion(self, rng: np.random.Generator, kind: str, number: int) -> LesionPlan:
        shape = "cluster" if kind == "calc" else str(rng.choice(list(SHAPES)))
        malignant = rng.random() < MALIGNANT_SHARE[shape]
        diameter = 0.04 * 5 ** rng.uniform()  # log-uniform, 4 to 20 % of the breast's height
        return LesionPlan(
            lesion_id=str(number),
            shape=shape,
            pathology="MALIGNANT" if malignant else str(rng.choice(["BENIGN", "BENIGN_WITHOUT_CALLBACK"])),
            diameter=0.8 * diameter,  # the breast fills about 0.8 of the film's height
            contrast=self.settings.visibility * rng.uniform(0.26, 0.36),
        )

    def _write_film(self, rng: np.random.Generator, patient: Patient, plan: FilmPlan) -> CaseRows:
        film = draw_film(plan)
        prefix = {"mass": "Mass", "calc": "Calc"}[patient.kind]
        patient_id = f"P_{FIRST_PATIENT + patient.number:05d}"
        name = f"{prefix}-{patient.split}_{patient_id}_{plan.side}_{plan.view}"
        study, series = self._uid(name, "study"), self._uid(name, "series")
        place = self.root / "CBIS-DDSM"
        _write_dicom(place / name / study / series / "1-1.dcm", film.image_HW, name, "full mammogram images", plan)
        rows = []
        for lesion, mask_HW in zip(plan.lesions, film.masks, strict=True):
            crop_path, mask_path = self._write_lesion(rng, f"{name}_{lesion.lesion_id}", film.image_HW, mask_HW, plan)
            row = _case_row(patient_id, plan, lesion, patient.kind)
            row["image file path"] = f"{name}/{study}/{series}/000000.dcm"
            row["cropped image file path"], row["ROI mask file path"] = crop_path, mask_path
            rows.append({"kind": patient.kind, "split": patient.split, **row})
        return rows

    def _write_lesion(
        self, rng: np.random.Generator, name: str, image_HW: np.ndarray, mask_HW: np.ndarray, plan: FilmPlan
    ) -> tuple[str, str]:
        """Write crop and mask in either order, now and then in two series; return what the CSV says of them."""
        study, series = self._uid(name, "study"), self._uid(name, "series")
        apart = rng.random() < 0.07
        crop_first = rng.random() < 0.5
        mask_series = self._uid(name, "mask series") if apart else series
        crop_file, mask_file = ("1-1.dcm", "1-2.dcm") if crop_first else ("1-2.dcm", "1-1.dcm")
        if apart:
            crop_file = mask_file = "1-1.dcm"
        place = self.root / "CBIS-DDSM" / name / study
        _write_dicom(place / series / crop_file, _crop(image_HW, mask_HW), name, "cropped images", plan)
        _write_dicom(place / mask_series / mask_file, mask_HW, name, "ROI mask images", plan)
        said = ("000000.dcm", "000000.dcm" if apart else "000001.dcm")
        if name.startswith("Calc") and not apart:
            said = said[::-1]
        return f"{name}/{study}/{series}/{said[0]}", f"{name}/{study}/{mask_series}/{said[1]}"

    def _uid(self, *words: str) -> str:
        """A UUID-derived UID (DICOM PS3.5, B.2) that depends on the settings and the words alone."""
        text = "/".join((self.settings.model_dump_json(), *words))
        return f"2.25.{int(hashlib.sha256(text.encode()).hexdigest()[:32], 16)}"


def _crop(image_HW: np.ndarray, mask_HW: np.ndarray) -> np.ndarray:
    """The lesion's box with a margin of a quarter of its size."""
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    margin = max(4, (bottom - top) // 4)
    return image_HW[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin]


def _write_dicom(path: Path, image_HW: np.ndarray, name: str, description: str, plan: FilmPlan) -> None:
    """Write uint8 or uint16 of shape (H, W) with the thin header of CBIS-DDSM."""
    instance = f"2.25.{int(hashlib.sha256(str(path.parts[-4:]).encode()).hexdigest()[:32], 16)}"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, instance
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    meta.ImplementationClassUID = "2.25.119450126512083447390285031604178913722"
    meta.ImplementationVersionName = "MAMMOSEARCH"
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, instance
    data.Modality, data.StudyDate, data.StudyID = "MG", "20160720", "DDSM"
    data.SeriesDescription = description
    data.PatientName = data.PatientID = name
    data.StudyInstanceUID, data.SeriesInstanceUID = path.parts[-3], path.parts[-2]
    data.SeriesNumber = data.InstanceNumber = 1
    data.PatientOrientation, data.Laterality = plan.view, plan.side[0]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.Rows, data.Columns = image_HW.shape
    data.BitsAllocated = data.BitsStored = 8 * image_HW.itemsize
    data.HighBit = data.BitsStored - 1
    data.SmallestImagePixelValue, data.LargestImagePixelValue = int(image_HW.min()), int(image_HW.max())
    raw = image_HW.tobytes()
    data.PixelData = raw + b"\0" * (len(raw) % 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def _case_row(patient_id: str, plan: FilmPlan, lesion: LesionPlan, kind: str) -> dict[str, Any]:
    """The columns of the official CSVs for one lesion, without the paths."""
    malignant = lesion.pathology == "MALIGNANT"
    if kind == "mass":
        findings = {"mass shape": SHAPES[lesion.shape], "mass margins": MARGINS[lesion.shape]}
    else:
        findings = {"calc type": "PLEOMORPHIC" if malignant else "N/A", "calc distribution": "CLUSTERED"}
    return {
        "patient_id": patient_id,
        DENSITY_COLUMNS[kind]: plan.density,
        "left or right breast": plan.side,
        "image view": plan.view,
        "abnormality id": lesion.lesion_id,
        "abnormality type": KIND_NAMES[kind],
        **findings,
        "assessment": 5 if malignant else 3,
        "pathology": lesion.pathology,
        "subtlety": 3,
    }


def _write_csvs(rows: CaseRows, folder: Path) -> None:
    """The four CSVs, with CRLF line ends and a line feed in one path column, as the official ones have them."""
    folder.mkdir(parents=True)
    for kind, broken in (("mass", "ROI mask file path"), ("calc", "cropped image file path")):
        for split, name in (("Training", "train"), ("Test", "test")):
            chosen = [row for row in rows if (row["kind"], row["split"]) == (kind, split)]
            part = [{**row, broken: row[broken] + "\n"} for row in chosen]
            table = pd.DataFrame(part, columns=_columns(kind))
            table.to_csv(folder / f"{kind}_case_description_{name}_set.csv", index=False, lineterminator="\r\n")


def _columns(kind: str) -> list[str]:
    findings = ["mass shape", "mass margins"] if kind == "mass" else ["calc type", "calc distribution"]
    before = ["left or right breast", "image view", "abnormality id", "abnormality type"]
    after = ["assessment", "pathology", "subtlety", "image file path", "cropped image file path", "ROI mask file path"]
    return ["patient_id", DENSITY_COLUMNS[kind], *before, *findings, *after]
