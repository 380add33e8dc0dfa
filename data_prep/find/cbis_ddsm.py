"""CBIS-DDSM: a download in any of its layouts -> samples.

    find_samples(BuildSettings(source="cbis_ddsm", root="/data/CBIS-DDSM"))

Files are found by header and content, joined with the case-description CSVs on the image's name in PatientID (or, where
that was changed, on the SeriesInstanceUID in the CSV's paths). The rules, one by one:

- full mammogram: PatientID without `_<abnormality id>`. A second file of the same image is a `duplicate`.
- mask or crop: 8 bits against 16; where that does not tell, the file of the full image's size; where that does not
  tell either, the file of two values. SeriesDescription and the order of files are never believed; if the description
  is missing or says otherwise, that is logged as a repair.
- mask of another size than its image: same aspect within 1 % is resized when it is read (`mask_rescaled`), any other is
  rejected (`mask_other_aspect`).
- a lesion without a mask is rejected, the image's other lesions stay, and the image is marked; an image without
  lesions is rejected.
- a view that is there as a mass and as a calcification image of the same pixels is one sample.
- the patient is the `P_nnnnn` in the name; the split is the official one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cluster.storage import Folder
from data_prep.find.cbis_cases import IMAGE_NAME, Case, read_case_csvs, read_cases, worst_pathology
from data_prep.find.index import MapBatches, build_index, compare_sizes, digest_uid
from data_prep.find.kaggle import cases_of_names, is_preprocessed, name_records
from data_prep.find.listing import FileRecord, is_image_candidate, list_files, what_is_there
from data_prep.find.views import join_views
from data_prep.read.dicom import read_image
from data_prep.schema import BuildSettings, Found, Lesion, ReadError, Rejected, Repaired, Sample

__all__ = ["find_samples", "read_case_csvs"]

LOOKED_FOR = (
    "looked for DICOM files whose PatientID is an image's name (Mass-Training_P_00001_LEFT_CC), or the JPEG or PNG set"
)
MASK_DESCRIPTION = "roi mask"
CROP_DESCRIPTION = "cropped"


def find_samples(
    settings: BuildSettings, *, index_cache: Path | None = None, map_batches: MapBatches | None = None
) -> Found:
    """Find the samples of a download: one an image, with one lesion an abnormality. Reads headers, hardly any pixel.

    Args:
        settings: `root`, `index_csv` (folder of the CSVs) and `kinds` are used.
        index_cache: a file that remembers the headers by size and time of the files.
        map_batches: where headers are read; threads by default.

    Raises:
        ValueError: `root` does not exist, or no case-description CSV is found.
    """
    root = Folder(settings.root or "")
    if not root.exists():
        raise ValueError(f"root: {root} does not exist; give the folder of the CBIS-DDSM download")
    files, links = list_files(root)
    images = [f for f in files if is_image_candidate(f.relative)]
    cases, rejected, repaired = _read_cases(settings, root, files)
    records = build_index(images, cache=index_cache, map_batches=map_batches)
    records, cases = name_records(root, _csvs(files), records, cases)
    join = _Join(cases=cases, rejected=[*links, *rejected], repaired=repaired)
    join.sort_in(records)
    wanted = _by_image(case for case in cases if case.kind in settings.kinds)
    samples = [sample for name in sorted(wanted) if (sample := join.to_sample(name, wanted[name])) is not None]
    join.reject_unused(settings.kinds)
    samples, joined = join_views(samples, {record.path: record for record in records})
    return Found(
        samples=samples,
        rejected=join.rejected,
        repaired=[*join.repaired, *joined],
        sizes={record.path: record.bytes for record in records},
        looked_for="" if samples else f"{LOOKED_FOR}; {what_is_there(root, images, links)}",
        warnings=_missing_csvs(cases, settings.kinds, join.unknown),
    )


def _missing_csvs(cases: list[Case], kinds: tuple[str, ...], unknown: int) -> tuple[str, ...]:
    """A word on CSVs that are not there, where there are files that no CSV names."""
    there = {(case.kind, case.split) for case in cases}
    missing = [f"{kind} {split}" for kind in kinds for split in ("train", "test") if (kind, split) not in there]
    if not missing or not unknown:
        return ()
    return (f"no case-description CSV of {', '.join(missing)} was found: {unknown} files are named by none",)


def _read_cases(
    settings: BuildSettings, root: Folder, files: list[FileRecord]
) -> tuple[list[Case], list[Rejected], list[Repaired]]:
    if settings.index_csv is not None:
        folder = Folder(settings.index_csv)
        return read_cases(folder, [path for path, _ in folder.walk() if path.lower().endswith(".csv")])
    try:
        return read_cases(root, _csvs(files))
    except ValueError:
        if not is_preprocessed(files):
            raise
        return cases_of_names(files), [], []


def _by_image(cases: Iterable[Case]) -> dict[str, list[Case]]:
    """Image name -> its rows, in the order of the abnormality ids."""
    images: dict[str, list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: int(case.lesion_id)):
        images[case.image_name].append(case)
    return images


def _csvs(files: list[FileRecord]) -> list[str]:
    return [f.relative for f in files if f.relative.lower().endswith(".csv")]


@dataclass(kw_only=True)
class _Join:
    """The files of each name, and what was left out or put right while they are joined with the CSVs."""

    cases: list[Case]
    rejected: list[Rejected]
    repaired: list[Repaired]
    files: dict[str, list[FileRecord]] = field(default_factory=lambda: defaultdict(list))
    """Image or lesion name -> its files."""
    unnamed: list[FileRecord] = field(default_factory=list)
    unknown: int = 0
    """Files whose name no CSV has."""

    def sort_in(self, records: Iterable[FileRecord]) -> None:
        """Gather the files by name: from PatientID, else from the series, else (broken files) from the path."""
        series = _names_by_series(self.cases)
        for record in records:
            name = record.name
            if not IMAGE_NAME.match(name):
                name = series.get(record.series, "") or (_name_in_path(record.relative) if record.fault else "")
            if name:
                self.files[name].append(record)
            else:
                self.unnamed.append(record)

    def to_sample(self, name: str, cases: list[Case]) -> Sample | None:
        """One image with its usable lesions, or None if it had to be left out."""
        image = self._pick_image(name)
        if image is None:
            self._reject_lesion_files(name, cases)
            return None
        repairs = self._describe(image, name, "full")
        lesions = []
        for case in cases:
            lesion, notes = self._to_lesion(case, image, name)
            repairs += notes
            if lesion is not None:
                lesions.append(lesion)
        if not lesions:
            self._reject(image.path, name, "no_lesion: none of its lesions has a usable mask")
            return None
        lost = len(cases) - len(lesions)
        if lost:
            text = f"lesions_left_out: {lost} of {len(cases)}; its other files have the reason"
            repairs.append(self._repair(image.path, name, text))
        return _build_sample(cases[0], image, lesions, repairs, lost=lost)

    def reject_unused(self, kinds: tuple[str, ...]) -> None:
        """Give a reason for each file that no sample took and no rule has named yet."""
        known = {name for case in self.cases for name in (case.image_name, case.lesion_name)}
        for name, records in self.files.items():
            for record in records:
                if record.fault:
                    self._reject(record.path, _image_of(name), record.fault)
                elif name.split("-")[0].lower() in kinds and name not in known:
                    self.unknown += 1
                    self._reject(record.path, _image_of(name), f"no_lesion: no row of the case CSVs names {name!r}")
        for record in self.unnamed:
            reason = record.fault or "bad_row: neither its PatientID nor its series is in the case CSVs"
            self._reject(record.path, "", reason)

    def _pick_image(self, name: str) -> FileRecord | None:
        """The full mammogram; others of the same name are duplicates."""
        usable = [r for r in self.files[name] if not r.fault]
        if not usable:
            broken = self._take_faults(name)
            path = broken[0].path if broken else name
            self._reject(path, name, broken[0].fault if broken else f"image_missing: no file of {name!r}")
            return None
        best = max(usable, key=lambda r: r.rows * r.columns)
        self._reject_duplicates([r for r in usable if r is not best], best, name)
        return best

    def _reject_lesion_files(self, name: str, cases: list[Case]) -> None:
        """Give a reason for the masks and crops of an image that is not there."""
        for case in cases:
            for record in self.files.get(case.lesion_name, []):
                if not record.fault:
                    self._reject(record.path, name, "without_film: the film of this lesion cannot be used")

    def _take_faults(self, name: str) -> list[FileRecord]:
        """Remove and return the broken files of a name: the caller reports them."""
        broken = [r for r in self.files[name] if r.fault]
        self.files[name] = [r for r in self.files[name] if not r.fault]
        return broken

    def _to_lesion(self, case: Case, image: FileRecord, name: str) -> tuple[Lesion | None, list[str]]:
        """The lesion of a row, and what was repaired; None if it had to be left out."""
        lesion_name, lesion_id = case.lesion_name, case.lesion_id
        mask, crop = self._pick_mask(lesion_name, image, name)
        if mask is None:
            broken = self._take_faults(lesion_name)
            fault = broken[0].fault if broken else "mask_missing: no mask on disk"
            self._reject(broken[0].path if broken else lesion_name, name, f"{fault} (lesion {lesion_id})")
            return None, []
        notes = self._describe(mask, name, "mask")
        if mask.largest_value == 0:
            self._reject(mask.path, name, f"mask_black: LargestImagePixelValue is 0 (lesion {lesion_id})")
            return None, []
        sizes = compare_sizes(mask, image)
        if sizes.startswith("mask_other_aspect"):
            self._reject(mask.path, name, f"{sizes} (lesion {lesion_id})")
            return None, []
        if sizes:
            notes.append(self._repair(mask.path, name, f"{sizes} (lesion {lesion_id})"))
        return _build_lesion(case, mask, crop, image), notes

    def _pick_mask(self, lesion_name: str, image: FileRecord, name: str) -> tuple[FileRecord | None, FileRecord | None]:
        """(mask, crop) among the files of a lesion, told apart by content."""
        usable = [r for r in self.files[lesion_name] if not r.fault]
        masks = _find_masks(usable, image)
        crops = [r for r in usable if r not in masks]
        if masks:
            self._reject_duplicates(masks[1:], masks[0], name)
        return (masks[0] if masks else None), (crops[0] if crops else None)

    def _describe(self, record: FileRecord, name: str, role: str) -> list[str]:
        """Log a repair if the SeriesDescription is missing or names another role."""
        text = record.description.lower()
        said = "mask" if MASK_DESCRIPTION in text else "crop" if CROP_DESCRIPTION in text else "full"
        if record.dicom and not text:
            return [self._repair(record.path, name, f"no_description: taken as {role} by its header and content")]
        if text and said != role:
            repair = f"wrong_description: says {record.description!r}, taken as {role} by its header and content"
            return [self._repair(record.path, name, repair)]
        return []

    def _reject_duplicates(self, records: list[FileRecord], kept: FileRecord, name: str) -> None:
        for record in records:
            self._reject(record.path, name, f"duplicate: {kept.path} is the same film")

    def _reject(self, path: str, sample_id: str, reason: str) -> None:
        self.rejected.append(Rejected(path=path, sample_id=sample_id, reason=reason))

    def _repair(self, path: str, sample_id: str, repair: str) -> str:
        self.repaired.append(Repaired(path=path, sample_id=sample_id, repair=repair))
        return repair


def _names_by_series(cases: list[Case]) -> dict[str, str]:
    """Digest of the SeriesInstanceUID in a CSV path -> image or lesion name."""
    names: dict[str, str] = {}
    for case in cases:
        names |= {digest_uid(uid): case.lesion_name for uid in (case.crop_series, case.mask_series)}
    names |= {digest_uid(case.image_series): case.image_name for case in cases}
    names.pop("", None)
    return names


def _name_in_path(relative: str) -> str:
    """The image or lesion name among a path's parts: only to say whose file a broken one was."""
    return next((part for part in reversed(relative.split("/")) if IMAGE_NAME.match(part)), "")


def _image_of(name: str) -> str:
    match = IMAGE_NAME.match(name)
    return name[: -len(match[6]) - 1] if match and match[6] else name


def _find_masks(records: list[FileRecord], image: FileRecord) -> list[FileRecord]:
    """The masks among a lesion's usable files: by depth, then by size, then by their values."""
    eight = [r for r in records if r.bits == 8]
    if len(eight) == 1 and len(records) > 1:
        return eight
    large = [r for r in eight or records if _near_size(r, image)]
    if len(large) == 1 and large[0].bits == 8:
        return large
    return [r for r in large or eight or records if _is_two_valued(r)]


def _near_size(record: FileRecord, image: FileRecord) -> bool:
    return 0.7 <= record.rows / image.rows <= 1.4 and 0.7 <= record.columns / image.columns <= 1.4


def _is_two_valued(record: FileRecord) -> bool:
    """Whether nearly all pixels have one of two extreme values (JPEG rings a little around the edge)."""
    try:
        image_HW = read_image(record.path)
    except ReadError:
        return False
    low, high = int(image_HW.min()), int(image_HW.max())
    near = (high - low) // 16
    extreme = (image_HW <= low + near) | (image_HW >= high - near)
    return bool(np.mean(extreme) > 0.995)


def _build_lesion(case: Case, mask: FileRecord, crop: FileRecord | None, image: FileRecord) -> Lesion:
    return Lesion(
        lesion_id=case.lesion_id,
        mask=mask.path,
        kind=case.kind,
        pathology=case.pathology,
        crop=crop.path if crop else "",
        extent=crop.rows * crop.columns / (image.rows * image.columns) if crop else None,
    )


def _build_sample(case: Case, image: FileRecord, lesions: list[Lesion], repairs: list[str], *, lost: int) -> Sample:
    return Sample(
        sample_id=case.image_name,
        patient_id=case.patient_id,
        image=image.path,
        lesions=tuple(lesions),
        side=case.side,
        view=case.view,
        kind=case.kind,
        pathology=worst_pathology(lesion.pathology for lesion in lesions),
        density=case.density,
        split=case.split,
        lost=lost,
        repairs=tuple(repairs),
    )
