"""Image and mask files in pairs, of any common format (DICOM, PNG, JPEG, TIFF) -> samples.

With `index_csv`, a CSV whose rows are lesions:

    image        path of the image below the root
    mask         path of the lesion's mask below the root; empty: the film shows no lesion
    patient_id   whose image it is; splits are made by it
    optional: side (L, R, LEFT, RIGHT), view (CC, MLO), lesion_id, split (train, val, test), density (1-4 or A-D),
    pathology, kind (mass, calc)

`patient` is accepted for `patient_id`; and `name` for both `image` and `mask`, meaning `images/<name>.*` and
`masks/<name>.*`. Several rows of one image are its lesions. Columns of other names are ignored.

Without it, `images/` and `masks/` below the root are matched by file name: the mask of `images/p7_left_cc.png` is
`masks/p7_left_cc.*`, or several of them `masks/p7_left_cc_1.*`, `masks/p7_left_cc_2.*` (also with `_mask` before the
number). The patient is the `P_nnnnn` in the name, else all before its first underscore; without either it is rejected.

Masks may be grey (resized, or JPEG) and label maps: `read.masks.read_mask` has the rule. A mask of another size than
its image is resized if the aspect is the same within 1 %, else rejected.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

from cluster.storage import Folder
from data_prep.find.cbis_cases import worst_pathology
from data_prep.find.index import MapBatches, build_index, compare_sizes
from data_prep.find.listing import FileRecord, is_image_candidate, list_files, what_is_there
from data_prep.find.pair_rows import PairRow, rows_of_csv, rows_of_names
from data_prep.schema import BuildSettings, Found, Lesion, Rejected, Repaired, Sample

LOOKED_FOR = "looked for `images/` and `masks/` with files of equal names (or give index_csv)"


def find_samples(
    settings: BuildSettings, *, index_cache: Path | None = None, map_batches: MapBatches | None = None
) -> Found:
    """Find the pairs below `settings.root`; see the module's text for the rules. Reads headers, no pixel.

    Raises:
        ValueError: `root` does not exist, or the CSV lacks a column or names an unknown split.
    """
    root = Folder(settings.root or "")
    if not root.exists():
        raise ValueError(f"root: {root} does not exist; give the folder of the images and masks")
    files, left_out = list_files(root)
    images = [f for f in files if is_image_candidate(f.relative)]
    log = _Log(rejected=list(left_out))
    if settings.index_csv:
        rows, repaired = rows_of_csv(settings.index_csv, root, images)
        log.repaired += repaired
    else:
        rows, rejected = rows_of_names(images)
        log.rejected += rejected
    index = build_index(_named(images, rows), cache=index_cache, map_batches=map_batches)
    join = _Join(settings=settings, root=root, records={record.relative: record for record in index}, log=log)
    by_image: dict[str, list[PairRow]] = defaultdict(list)
    for row in rows:
        by_image[row.image].append(row)
    samples = [sample for image in sorted(by_image) if (sample := join.to_sample(by_image[image])) is not None]
    looked_for = "" if samples else f"{LOOKED_FOR}; {what_is_there(root, images, left_out)}"
    return Found(
        samples=_unique(samples, log),
        rejected=log.rejected,
        repaired=log.repaired,
        sizes={record.path: record.bytes for record in index},
        looked_for=looked_for,
    )


def _named(images: list[FileRecord], rows: list[PairRow]) -> list[FileRecord]:
    """The files of the rows; masks are to be measured where splits will be drawn by size too."""
    films, masks = {row.image for row in rows}, {row.mask for row in rows}
    drawn = not any(row.split for row in rows)
    files = [f for f in images if f.relative in films or f.relative in masks]
    return [replace(f, measured=drawn and f.relative in masks) for f in files]


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


@dataclass(frozen=True, kw_only=True)
class _Join:
    """The rows of each image joined with the headers of its files."""

    settings: BuildSettings
    root: Folder
    records: dict[str, FileRecord]
    """Path below the root -> header."""
    log: _Log

    def to_sample(self, rows: list[PairRow]) -> Sample | None:
        """One image with its usable lesions, or None if it had to be left out."""
        first, log = rows[0], self.log
        sample_id = _sample_id(first.image)
        if not first.patient_id:
            log.reject(first.image, sample_id, "bad_row: the patient_id is empty")
            return None
        image, fault = self._usable(first.image, "image_missing")
        if image is None:
            log.reject(f"{self.root}/{first.image}", sample_id, fault)
            return None
        marked = _with_ids([row for row in rows if row.mask])
        if not marked:
            return self._healthy(sample_id, first, image)
        found = [self._lesion(row, image, sample_id) for row in marked]
        lesions = [lesion for lesion, _ in found if lesion is not None]
        repairs = [repair for _, repair in found if repair]
        lost = len(marked) - len(lesions)
        if not lesions:
            log.reject(image.path, sample_id, "no_lesion: none of its lesions has a usable mask")
            return None
        if lost:
            text = f"lesions_left_out: {lost} of {len(marked)}; its other files have the reason"
            repairs.append(log.repair(image.path, sample_id, text))
        return _build_sample(sample_id, rows, image, lesions, repairs, lost=lost)

    def _healthy(self, sample_id: str, row: PairRow, image: FileRecord) -> Sample | None:
        if self.settings.healthy == "keep":
            return _build_sample(sample_id, [row], image, [], [], healthy=True)
        self.log.reject(image.path, sample_id, "healthy: its mask cell is empty")
        return None

    def _lesion(self, row: PairRow, image: FileRecord, sample_id: str) -> tuple[Lesion | None, str]:
        """The lesion of a row, or None if it had to be left out; and what was put right."""
        mask, fault = self._usable(row.mask, "mask_missing")
        sizes = compare_sizes(mask, image) if mask else fault
        if mask is None or sizes.startswith("mask_other_aspect"):
            self.log.reject(f"{self.root}/{row.mask}", sample_id, f"{sizes} (lesion {row.lesion_id})")
            return None, ""
        if sizes:
            sizes = self.log.repair(mask.path, sample_id, f"{sizes} (lesion {row.lesion_id})")
        lesion = Lesion(
            lesion_id=row.lesion_id,
            mask=mask.path,
            kind=row.kind,
            pathology=row.pathology,
            extent=mask.marked_share,
        )
        return lesion, sizes

    def _usable(self, path: str, missing: str) -> tuple[FileRecord | None, str]:
        """(the file, or None; why it cannot be used)."""
        record = self.records.get(path)
        if record is None:
            outside = path.startswith("/") or "://" in path or ".." in path.split("/")
            return None, f"outside_root: {path}" if outside else f"{missing}: no file {path!r} below the root"
        return (None, record.fault) if record.fault else (record, "")


def _with_ids(rows: list[PairRow]) -> list[PairRow]:
    """Lesion ids that are unique in the image: those of the rows, or the rows' numbers where one is there twice."""
    ids = [row.lesion_id for row in rows if row.lesion_id]
    unique = len(set(ids)) == len(ids)
    return [row.named(row.lesion_id if unique and row.lesion_id else str(n)) for n, row in enumerate(rows, start=1)]


def _sample_id(image: str) -> str:
    folder, _, rest = image.partition("/")
    name = rest if rest and folder.lower() == "images" else image
    return name.rpartition(".")[0] or image


def _build_sample(
    sample_id: str,
    rows: list[PairRow],
    image: FileRecord,
    lesions: list[Lesion],
    repairs: list[str],
    *,
    lost: int = 0,
    healthy: bool = False,
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
        pathology=worst_pathology(lesion.pathology for lesion in lesions) if lesions else first.pathology,
        density=first.density,
        split=first.split,
        healthy=healthy,
        lost=lost,
        repairs=tuple(repairs),
    )


def _unique(samples: list[Sample], log: _Log) -> list[Sample]:
    """Drop second images of the same name in another format."""
    kept: dict[str, Sample] = {}
    for sample in samples:
        if sample.sample_id in kept:
            log.reject(sample.image, sample.sample_id, f"duplicate: {kept[sample.sample_id].image} has the same name")
        else:
            kept[sample.sample_id] = sample
    return list(kept.values())
