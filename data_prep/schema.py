"""The contracts of data preparation: what a source yields, what is in a shard, and what the card says.

    source (cbis_ddsm, pairs, phantom) --> list[Sample], list[Rejected], list[Repaired]
    build                              --> shards/<name>/  _card.json _rejected.csv _repaired.csv  train/ val/ test/

Everything below `data_prep` reads only what this module declares.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from cluster.settings.problems import Problem, raise_problems

SCHEMA_VERSION = 2
SPLITS = ("train", "val", "test")

Normalisation = Literal["clahe", "minmax", "zscore"]
FieldOfView = Literal["whole", "lesion"]
SourceName = Literal["cbis_ddsm", "pairs", "phantom"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ShardName = Annotated[str, StringConstraints(pattern=r"^(train|val|test)/[0-9]{5}\.parquet$")]
"""A shard's path inside its folder. A card that comes from elsewhere cannot name any other file."""

ImageColumn = Annotated[str, StringConstraints(pattern=r"^image(_[a-z]+)?$")]

PLACES = ("root", "index_csv")
"""Settings that say where the source lies. Its content is in `source_sha256`; moving it changes nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
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
    extent: float | None = None
    """About which share of the film it takes, where that is known before its mask is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
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
    healthy: bool = False
    """Whether the source says that there is no lesion, and means it."""
    lost: int = 0
    """Lesions that the source knows of and whose masks it cannot use."""
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
    "no_image": "a DICOM file that holds no image: a report, a plan, a presentation state, a header alone",
    "unreadable": "the file cannot be decoded",
    "bad_name": "the file's name is not UTF-8",
    "no_file": "a link that leads nowhere, a pipe, a socket or a device",
    "absurd_size": "the header claims an image larger than any mammogram",
    "wrong_depth": "the bit depth is none that a mammogram or a mask has",
    "outside_root": "a link that leads out of the source's folder",
    "not_grey": "the pixel values are no grey values: a palette, or colour",
    "image_missing": "the full mammogram is not on disk",
    "without_film": "a mask or crop whose film is not there or cannot be used",
    "mask_missing": "a lesion's mask is not on disk",
    "mask_black": "a lesion's mask marks no pixel",
    "mask_other_aspect": "a mask's aspect ratio differs from the image's by more than 1 %",
    "mask_inverted": "a mask marks the air around the breast",
    "mask_too_large": "a mask marks more than half of the breast",
    "no_lesion": "no usable lesion is left",
    "healthy": "a film without a lesion; `healthy: keep` takes such films",
    "incomplete": "some of a film's lesions have no usable mask; the setting `incomplete` decides what becomes of it",
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
    "views_joined": "a mass and a calcification image show the same film; they are one sample with the lesions of both",
    "not_utf8": "a CSV is not UTF-8; it was read as Latin-1",
    "window_ignored": "the header's window would show nothing sensible; the film is shown without it",
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
    sizes: dict[str, int] = field(default_factory=dict)
    """Path -> bytes of every file of the samples."""
    looked_for: str = ""
    """What was looked for and what is there, for the message where nothing was found."""
    warnings: tuple[str, ...] = ()
    """What a person should know of the source, though samples were found."""


LESION_TYPE = pa.struct(
    [
        ("lesion_id", pa.string()),
        ("kind", pa.string()),
        ("pathology", pa.string()),
        ("area_px", pa.int32()),
        ("exact_area_px", pa.float64()),
    ]
)
"""An entry of the column `lesions`: `area_px` as in the mask, `exact_area_px` before the mask was cut to 0 and 1."""

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
        ("size_px", pa.int32()),
        ("lesions", pa.list_(LESION_TYPE)),
        ("film_rows", pa.int32()),
        ("film_columns", pa.int32()),
        ("box", pa.list_(pa.int32(), 4)),
        ("flipped", pa.bool_()),
        ("spacing_mm", pa.list_(pa.float64(), 2)),
        ("pixel_hash", pa.string()),
        ("repairs", pa.string()),
    ]
)
"""The columns of a shard, in order; docs/formats.md explains each.

`image` and `mask` are raw bytes of a C-ordered uint8 array of shape (`size_px`, `size_px`); the mask holds 0 and 1.
Further normalisations, if built, follow as binary columns `image_<normalisation>`. `lesions` has one entry a lesion;
its areas are in pixels of the sample. `box` is (top, left, bottom, right) in pixels of the film, of `film_rows` x
`film_columns`; `flipped` tells whether the box was mirrored afterwards. `spacing_mm` is the distance of the film's rows
and of its columns, null where the file does not tell. `pixel_hash` is the XXH3-128 of the film's decoded pixels.
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
    window: Literal["header", "breast"] = "header"
    """Which grey values are black and white: `header`, as the file's window and the part shown have it; `breast`, by
    the percentiles (z-score: mean and deviation) of the breast, whatever the header says."""
    healthy: Literal["drop", "keep"] = "drop"
    """`keep`: films without a lesion (`pairs`: an empty mask cell, or a black mask) are samples with an empty mask."""
    incomplete: Literal["train", "keep", "drop"] = "train"
    """Films that lost a lesion because its mask is missing or broken. `train`: kept and marked in train, left out of
    val and test. `keep`: kept and marked everywhere. `drop`: left out."""
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

    @property
    def film_window(self) -> Literal["header", "none"]:
        """Whether the window in a film's header counts when it is read."""
        return "header" if self.window == "header" else "none"

    def keeps_incomplete(self, split: str) -> bool:
        """Whether a film of this split that has lost a lesion is kept, and marked."""
        return self.incomplete == "keep" or (self.incomplete == "train" and split == "train")

    def shaping(self) -> dict[str, Any]:
        """The settings that shape the samples: all but those that say where the source lies."""
        return self.model_dump(mode="json", exclude=set(PLACES))


class ShardFile(BaseModel):
    """One Parquet file of a shard folder."""

    model_config = ConfigDict(frozen=True)

    rows: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: Sha256


class DatasetCard(BaseModel):
    """`_card.json`: what a shard folder holds and how to make it again."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    name: str
    settings: BuildSettings
    source_sha256: Sha256
    """Over the sorted list of source files with their sizes and the CSVs' content."""
    columns: list[str]
    image_columns: dict[Normalisation, ImageColumn]
    """Normalisation -> column."""
    samples: dict[str, int]
    """Split -> number of samples."""
    patients: dict[str, int]
    """Split -> number of patients."""
    lesions: dict[str, int]
    """Split -> number of lesions."""
    rejected: int
    repaired: int
    warnings: list[str] = Field(default_factory=list)
    """What a person should know of the data."""
    files: dict[ShardName, ShardFile]
    """Path inside the folder -> what it must be."""
    fingerprint: Sha256
    """SHA-256 over `files` and the settings that shape the samples: the data's identity in a study."""
    versions: dict[str, str]
    """Packages that shaped the bytes."""
    created_at: str
    """ISO 8601, UTC; not part of the fingerprint."""

    @field_validator("samples", "patients", "lesions")
    @classmethod
    def _counts_each_split(cls, value: dict[str, int]) -> dict[str, int]:
        if set(value) != set(SPLITS) or min(value.values()) < 0:
            raise ValueError(f"a count of {', '.join(SPLITS)} is wanted")
        return value

    @field_validator("created_at")
    @classmethod
    def _is_time(cls, value: str) -> str:
        datetime.fromisoformat(value)
        return value
