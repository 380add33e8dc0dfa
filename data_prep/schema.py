"""The contracts of data preparation: what a source yields, what is in a shard, and what the card says.

    source (cbis_ddsm, pairs, phantom) --> list[Sample], list[Rejected], list[Repaired]
    build                              --> shards/<name>/  card.json rejected.csv repaired.csv  train/ val/ test/

Everything below `data_prep` reads only what this module declares.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.settings.problems import Problem, raise_problems

SCHEMA_VERSION = 1
SPLITS = ("train", "val", "test")

Normalisation = Literal["clahe", "minmax", "zscore"]
FieldOfView = Literal["whole", "lesion"]
SourceName = Literal["cbis_ddsm", "pairs", "phantom"]


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One annotated abnormality of a sample, before its mask is read."""

    lesion_id: str
    """Unique inside the sample; the abnormality id of CBIS-DDSM."""
    mask: str
    """Path or URI of its mask file."""
    kind: str = ""
    """`mass`, `calc`, or empty."""
    pathology: str = ""
    """`MALIGNANT`, `BENIGN`, `BENIGN_WITHOUT_CALLBACK`, or empty."""
    crop: str = ""
    """Path of the crop that came with it, where there is one."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image with its lesions, before any pixel is read: what a source yields."""

    sample_id: str
    patient_id: str
    image: str
    """Path or URI of the image file."""
    lesions: tuple[Lesion, ...]
    side: str = ""
    """`LEFT`, `RIGHT`, or empty."""
    view: str = ""
    """`CC`, `MLO`, or empty."""
    kind: str = ""
    """`mass`, `calc`, `mass+calc`, or empty."""
    pathology: str = ""
    """The worst of its lesions."""
    density: int | None = None
    """BI-RADS breast density 1-4."""
    split: str = ""
    """`train`, `val`, `test` where the source is official about it; empty: to be assigned by `split.py`."""
    repairs: tuple[str, ...] = field(default=())
    """What the source had to put right, e.g. `no_description: role found by content`."""


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """An input that was left out. `reason` begins with one of `REASONS`, then a colon and the detail."""

    path: str
    sample_id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """An input that was put right and kept. `repair` begins with one of `REPAIRS`, then a colon and the detail."""

    path: str
    sample_id: str
    repair: str

    def __post_init__(self) -> None:
        assert self.repair.split(":")[0] in REPAIRS, self.repair


REASONS = {
    "empty_file": "the file has no bytes",
    "truncated": "the file ends before its pixel data does",
    "not_dicom": "the file is not DICOM (or not an image of a known format)",
    "unreadable": "the file cannot be decoded",
    "absurd_size": "the header claims an image larger than any mammogram",
    "wrong_depth": "the bit depth is none that a mammogram or a mask has",
    "outside_root": "a link that leads out of the source's folder",
    "image_missing": "the full mammogram is not on disk",
    "mask_missing": "a lesion's mask is not on disk",
    "mask_black": "a lesion's mask marks no pixel",
    "mask_other_aspect": "a mask's aspect ratio differs from the image's by more than 1 %",
    "no_lesion": "no usable lesion is left",
    "no_breast": "no breast is found in the image",
    "split_conflict": "the patient is in both official splits; kept in test only",
    "duplicate": "the same film is there twice",
    "bad_row": "the CSV row cannot be understood",
}
"""Every reason for which an input is left out."""


REPAIRS = {
    "newline_in_path": "file names of a CSV held a line feed, which was taken out",
    "no_description": "the header does not say whether a file is film, mask or crop; decided by its content",
    "wrong_description": "the header calls a file film, mask or crop and it is another; decided by its content",
    "mask_rescaled": "a mask of another size than its film was brought to the film's size",
    "lesions_left_out": "some of a film's lesions have no usable mask; the film is kept with the others",
    "box_missed_lesion": "the breast's box would have cut off a lesion; the whole film is shown",
}


class ReadError(ValueError):
    """A file that cannot be used: a code of `REASONS` and the detail."""

    def __init__(self, code: str, detail: str) -> None:
        assert code in REASONS, code
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a source found: samples to build, and all that was left out or put right on the way."""

    samples: list[Sample]
    rejected: list[Rejected]
    repaired: list[Repaired]


SHARD_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("patient_id", pa.string()),
        ("side", pa.string()),
        ("view", pa.string()),
        ("kind", pa.string()),
        ("pathology", pa.string()),
        ("density", pa.int8()),
        ("split", pa.string()),
        ("image", pa.binary()),
        ("mask", pa.binary()),
        ("shape", pa.list_(pa.int32(), 2)),
        ("dtype", pa.string()),
        ("lesions", pa.string()),
        ("rows", pa.int32()),
        ("columns", pa.int32()),
        ("box", pa.list_(pa.int32(), 4)),
        ("flipped", pa.bool_()),
        ("pixel_sha256", pa.string()),
        ("repairs", pa.string()),
    ]
)
"""The columns of a shard, in order; docs/formats.md explains each.

`image` and `mask` are raw bytes of a C-ordered uint8 array of shape `shape` = (H, W); the mask holds 0 and 1. Further
normalisations, if built, follow as binary columns `image_<normalisation>`. `lesions` is JSON: one object a lesion with
`lesion_id kind pathology area_px` (area at the target size). `box` is (top, left, bottom, right) in pixels of the
original image, of `rows` x `columns`; `flipped` tells whether the box was mirrored afterwards. `pixel_sha256` is the
SHA-256 of the decoded original pixels.
"""


class PhantomSettings(BaseModel):
    """What the phantom source makes. Same settings, same DICOM bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    patients: int = Field(default=60, ge=3)
    """Patients, each with one or two breasts in CC and MLO views."""
    rows: int = Field(default=768, ge=64, le=8192)
    """Height of a film in pixels; films vary by some per cent around it, and their width follows."""
    seed: int = Field(default=0, ge=0)
    """Another seed, other patients."""
    visibility: float = Field(default=1.0, gt=0, le=3)
    """Contrast of lesions against tissue; 1 is plainly visible, 0.3 hard to see."""


class BuildSettings(BaseModel):
    """Everything that decides what shards hold. Same settings and same source files, same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: SourceName = "phantom"
    """Where the samples come from: a CBIS-DDSM download, a folder or CSV of images and masks, or made here."""
    root: str | None = None
    """Folder or URI of the source's files; for `phantom` where its DICOMs are written (default: beside the shards)."""
    index_csv: str | None = None
    """`pairs`: a CSV of image and mask files; None: `images/` and `masks/` are matched by name.
    `cbis_ddsm`: the folder of the case-description CSVs; None: they are searched for below `root`."""
    kinds: tuple[Literal["mass", "calc"], ...] = ("mass", "calc")
    """CBIS-DDSM abnormalities to take."""
    phantom: PhantomSettings = PhantomSettings()
    field_of_view: FieldOfView = "whole"
    """`whole`: the breast's box, one sample an image. `lesion`: a crop around each lesion, one sample a lesion."""
    lesion_margin: float = Field(default=0.5, ge=0, le=5)
    """`lesion`: margin on each side of the lesion's box, as a share of the box's longer side."""
    size_px: int = Field(default=224, ge=32, le=4096, multiple_of=32)
    """Height and width of the square samples."""
    normalisations: tuple[Normalisation, ...] = ("clahe",)
    """The first is the shard's column `image`, others follow as `image_<normalisation>`."""
    crop_to_breast: bool = True
    """Whether a whole view is cut to the breast's box."""
    orient: bool = True
    """Mirror images so that the chest wall lies on the left, decided from the pixels."""
    val_fraction: float = Field(default=0.15, gt=0, lt=0.5)
    """Share of the training patients that validates."""
    test_fraction: float = Field(default=0.2, gt=0, lt=0.5)
    """Share of patients that tests, for sources without an official split."""
    split_seed: int = Field(default=0, ge=0)
    """Draws the patients that validate and, without an official split, those that test."""
    samples_per_shard: int = Field(default=64, ge=1)
    """Samples in one Parquet file."""

    @model_validator(mode="after")
    def _check(self) -> BuildSettings:
        if self.source != "phantom" and self.root is None:
            raise_problems(Problem(("root",), f"missing: source {self.source} needs it", "the folder of its files"))
        if len(set(self.normalisations)) != len(self.normalisations) or not self.normalisations:
            raise_problems(Problem(("normalisations",), "none, or one of them twice", "at least one, each once"))
        if not self.kinds:
            raise_problems(Problem(("kinds",), "none", "mass, calc"))
        return self


class ShardFile(BaseModel):
    """One Parquet file of a shard folder."""

    model_config = ConfigDict(frozen=True)

    rows: int
    bytes: int
    sha256: str


class DatasetCard(BaseModel):
    """`card.json`: what a shard folder holds and how to make it again."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    name: str
    settings: BuildSettings
    source_sha256: str
    """Over the sorted list of source files with their sizes and the CSVs' content."""
    columns: list[str]
    image_columns: dict[str, str]
    """Normalisation -> column."""
    samples: dict[str, int]
    """Split -> number of samples."""
    patients: dict[str, int]
    """Split -> number of patients."""
    lesions: dict[str, int]
    """Split -> number of lesions."""
    rejected: int
    repaired: int
    files: dict[str, ShardFile]
    """Path inside the folder -> what it must be."""
    fingerprint: str
    """SHA-256 over `files` and the settings that shape the samples: the data's identity in a study."""
    versions: dict[str, str]
    """Packages that shaped the bytes."""
    created_at: str
    """ISO 8601, UTC; not part of the fingerprint."""
