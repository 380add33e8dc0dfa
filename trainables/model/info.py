"""`model.json`: what a trained network is, what it was made for, and what must be done to a film before it sees it.

Knows neither torch nor Ray, so that a model in another format (ONNX) is used without them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.storage import Folder
from data_prep.schema import BuildSettings, DatasetCard, FieldOfView, Normalisation

FORMAT = 1
INFO = "model.json"


class Network(BaseModel):
    """The network: what it takes to build it again, with segmentation-models-pytorch alone too."""

    model_config = ConfigDict(frozen=True)

    encoder: str
    decoder: str
    decoder_norm: str
    encoder_depth: int
    decoder_width: float
    decoder_attention: str
    mean: tuple[float, ...]
    """Subtracted from images in [0, 1], one value a channel; a grey image is each of the three channels."""
    std: tuple[float, ...]
    """Divided by afterwards, one value a channel."""
    parameters: int
    """Trainable parameters."""


class Preprocessing(BaseModel):
    """From a film to the network's input, as the training samples were made (`data_prep.shape`)."""

    model_config = ConfigDict(frozen=True)

    field_of_view: FieldOfView
    """`whole`: it is shown whole films. `lesion`: it is shown crops around a lesion that is already found."""
    lesion_margin: float
    """`lesion`: margin on each side of the lesion's box, as a share of the box's longer side."""
    size_px: int = Field(ge=32, multiple_of=32)
    """Height and width of the input."""
    normalisation: Normalisation
    crop_to_breast: bool
    orient: bool
    """Whether films are mirrored so that the chest wall lies on the left."""
    window: Literal["header", "breast"] = "header"
    """Which grey values are black and white: `header`, as the file's window and the part shown have it; `breast`, by
    the breast alone."""

    @classmethod
    def of(cls, settings: BuildSettings, normalisation: Normalisation) -> Preprocessing:
        """What the samples of a build went through, under one of its normalisations."""
        names = ("field_of_view", "lesion_margin", "size_px", "crop_to_breast", "orient", "window")
        return cls(normalisation=normalisation, **{name: getattr(settings, name) for name in names})

    @property
    def film_window(self) -> Literal["header", "none"]:
        """Whether the window in a film's header counts when it is read."""
        return "header" if self.window == "header" else "none"


class TrainedOn(BaseModel):
    """The data that the network has learnt from."""

    model_config = ConfigDict(frozen=True)

    source: str
    """`cbis_ddsm`, `pairs` or `phantom`."""
    fingerprint: str
    """Of the shard folder (`card.json`)."""
    samples: dict[str, int]
    """Split -> number of samples."""
    patients: dict[str, int]
    """Split -> number of patients; empty where it is not known."""

    @classmethod
    def of(cls, card: DatasetCard) -> TrainedOn:
        """What a shard folder's card says."""
        return cls(
            source=card.settings.source, fingerprint=card.fingerprint, samples=card.samples, patients=card.patients
        )


class ModelInfo(BaseModel):
    """`model.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    network: Network
    preprocessing: Preprocessing
    threshold: float = Field(gt=0, lt=1)
    """Probability above which a pixel is lesion."""
    data: TrainedOn
    config: dict[str, Any]
    """Every setting of the training (`trainables/config.py`)."""
    study: str = ""
    """Name of the study, empty where the network was trained alone."""
    trial: str
    epoch: int | None
    """The epoch whose weights these are; None where it is not recorded."""
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    versions: dict[str, str]
    """Packages that the network was packed with."""
    created_at: str
    """ISO 8601, UTC."""

    def check_size(self, rows: int, columns: int) -> None:
        """Refuse images of another size than the network was trained at. Raises ValueError."""
        size_px = self.preprocessing.size_px
        if (rows, columns) != (size_px, size_px):
            raise ValueError(
                f"{self.name} was trained on images of {size_px} x {size_px} px and is given {rows} x {columns}; shape "
                f"films with data_prep.shape (size_px={size_px}), or train a model at the other size"
            )


def read_info(folder: Folder) -> ModelInfo:
    """What a model folder's `model.json` says. Raises ValueError that names the next step."""
    try:
        value: Any = folder.read_json(INFO)
    except FileNotFoundError:
        raise ValueError(
            f"no model at {folder} (it has no {INFO}); make one with `python -m clinic.run pack TRIAL_FOLDER {folder}`"
        ) from None
    version = value.get("format") if isinstance(value, dict) else None
    if version != FORMAT:
        raise ValueError(f"{folder}/{INFO} is of format {version!r}, this code reads {FORMAT}; pack the model again")
    try:
        return ModelInfo.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{folder}/{INFO}: {place} cannot be used: {first['msg']}; pack the model again") from error
