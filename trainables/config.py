"""`TrialConfig`: everything that decides how one trial trains. Frozen, checked, and equal if the training is equal."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cluster.settings.problems import Problem, raise_problems

Optimiser = Literal["adam", "adamw", "nadam", "radam", "rmsprop", "sgd"]
Schedule = Literal["constant", "cosine", "linear", "polynomial", "step"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]

PAPER_TO_SMP = {
    "seresnet50": "se_resnet50",
    "inceptionv3": "keras-inceptionv3",
    "densenet121": "keras-densenet121",
    "mobilenet": "tu-mobilenetv1_100",
    "vgg19": "vgg19",
}
"""The paper's name of an encoder -> smp's. A name of the paper always means the paper's variant."""
PAPER_ENCODERS = tuple(PAPER_TO_SMP)
"""The encoders of the paper's table II, by the paper's names."""

DECODERS = (
    "unet",
    "unetplusplus",
    "manet",
    "linknet",
    "fpn",
    "pspnet",
    "deeplabv3",
    "deeplabv3plus",
    "pan",
    "upernet",
    "segformer",
    "dpt",
)
"""The decoders, by their names in segmentation-models-pytorch."""

DECODERS_WITH_NORM = ("unet", "unetplusplus", "manet", "linknet", "pspnet", "upernet")
"""The decoders whose normalisation can be chosen; `decoder_norm` is of no effect with the others."""
DECODERS_WITH_DEPTH = ("unet", "unetplusplus", "manet", "linknet", "fpn", "upernet", "segformer")
"""The decoders that can leave out the encoder's deepest stages; the others use the stages that they are made for."""
DECODERS_WITHOUT_WIDTH = ("linknet",)
"""Its channels are the encoder's."""
ATTENTIVE_DECODERS = ("unet", "unetplusplus")
"""The decoders that `decoder_attention` can be put into."""


MOST_IMAGES = 65_536
"""Of a batch. Beyond it a number is a slip, and would be found only when memory runs out."""
MOST_WEIGHT = 1000
"""Of a term of the loss: only their proportions count, and those of huge numbers are lost in rounding."""


class TrialConfig(BaseModel):
    """One configuration. The defaults are the paper's: U-Net, 1 - (0.4 Dice + 0.6 IoU), Adam, batch 8, rotation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    encoder: str = "seresnet50"
    """One of the paper's five, any smp encoder, or `tu-<timm name>`."""
    encoder_weights: str | None = None
    """`imagenet`, a path of a weights file, or None for random weights."""
    decoder: str = "unet"
    """An smp architecture: unet, unetplusplus, manet, linknet, fpn, pspnet, deeplabv3, deeplabv3plus, pan, upernet,
    segformer, dpt."""
    decoder_norm: Literal["batchnorm", "layernorm", "instancenorm", "identity"] = "batchnorm"
    """Normalisation inside the decoder's blocks, where the architecture has the choice."""
    encoder_depth: int = Field(default=5, ge=3, le=5)
    """How often the encoder halves the image; below 5 its deepest stages are left out. For unet, unetplusplus, manet,
    linknet, fpn, upernet and segformer; the others have a depth of their own."""
    decoder_width: float = Field(default=1.0, ge=0.25, le=4)
    """Factor of the decoder's channels, rounded to quarters; 1: smp's, for U-Net the paper's. Of no effect with
    linknet, whose channels are the encoder's."""
    decoder_attention: Literal["none", "scse"] = "none"
    """`scse`: concurrent spatial and channel squeeze and excitation (Roy et al. 2018) in unet and unetplusplus."""
    normalisation: Literal["clahe", "minmax", "zscore"] = "clahe"
    """Which of the shard's image columns is trained on."""

    dice_weight: float = Field(default=0.4, ge=0, le=MOST_WEIGHT)
    """Weight of the soft Dice in the loss. The weights are divided by their sum: (1, 1) and (2, 2) are the same."""
    iou_weight: float = Field(default=0.6, ge=0, le=MOST_WEIGHT)
    """Weight of the soft IoU in the loss."""
    bce_weight: float = Field(default=0.0, ge=0, le=MOST_WEIGHT)
    """Weight of the binary cross entropy in the loss."""

    optimiser: Optimiser = "adam"
    """With torch's default values for all that is not named here."""
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    """The highest rate; `schedule` lowers it from there."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """Decoupled for `adamw`, added to the gradient for the others, as torch has it."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """For `sgd` and `rmsprop`; of no effect otherwise."""
    schedule: Schedule = "constant"
    """How the learning rate goes down over the budget."""
    warmup_epochs: int = Field(default=0, ge=0)
    """Epochs in which the learning rate rises from near 0."""
    gradient_clip_norm: float | None = Field(default=None, gt=0, le=1e6)
    """Largest norm of all gradients together; null: no limit."""

    batch_size: int = Field(default=8, ge=1, le=MOST_IMAGES)
    """Global: split over workers and over accumulation steps."""
    accumulation: int = Field(default=1, ge=1, le=MOST_IMAGES)
    """Each batch is processed in this many parts whose gradients are added. Batch norm sees each part alone, so
    where a network has it, another number of parts is another training."""
    epochs: int = Field(default=10, ge=1)
    """The trial's full budget; a pruned trial ends before it. The schedule is stretched over it."""

    rotation_degrees: float = Field(default=15.0, ge=0, le=180)
    """Rotation by a random angle in [-r, r], the paper's augmentation; 0 switches it off."""
    flip_horizontal: bool = False
    """Mirror half of the images left to right."""
    flip_vertical: bool = False
    """Mirror half of the images top to bottom."""
    brightness: float = Field(default=0.0, ge=0, le=1)
    """Random shift in [-b, b] of images in [0, 1]."""
    contrast: float = Field(default=0.0, ge=0, lt=1)
    """Random factor in [1 - c, 1 + c] around each image's mean."""

    precision: PrecisionChoice = "auto"
    """Number format of the forward pass; `auto`: what is fast on the pool."""
    channels_last: bool = True
    """Memory layout that convolutions are fastest with on most hardware."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Probability above which a pixel is lesion, for the hard metrics."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _normalise_weights(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        names = ("dice_weight", "iou_weight", "bce_weight")
        weights = [values.get(name, cls.model_fields[name].default) for name in names]
        if not all(isinstance(w, (int, float)) and 0 <= w <= MOST_WEIGHT for w in weights):
            return values  # for the fields' own bounds to refuse
        total = float(sum(weights))
        if total <= 0:
            text = "0, as all weights of the loss are"
            raise_problems(Problem(("dice_weight",), text, "one of dice_weight, iou_weight and bce_weight above 0"))
        return {**values, **{n: round(float(w) / total, 12) for n, w in zip(names, weights, strict=True)}}

    @field_validator("decoder_width")
    @classmethod
    def _in_quarters(cls, value: float) -> float:
        """So that every decoder's channels are whole numbers, and equal widths are equal networks."""
        return round(value * 4) / 4

    @field_validator("encoder", "decoder")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise_problems(Problem((), "empty", "a name"))
        return value

    @model_validator(mode="after")
    def _check(self) -> TrialConfig:
        if self.batch_size % self.accumulation:
            text = f"{self.batch_size} is not divisible by accumulation {self.accumulation}"
            raise_problems(Problem(("batch_size",), text, "a multiple of accumulation"))
        if self.warmup_epochs >= self.epochs:
            text = f"{self.warmup_epochs} is not below epochs = {self.epochs}"
            raise_problems(Problem(("warmup_epochs",), text, f"below {self.epochs}"))
        return self

    def key(self) -> str:
        """A short hash that is equal for two configurations exactly if they train the same."""
        canonical = self.model_dump(mode="json", exclude=self._without_effect())
        canonical["encoder"] = PAPER_TO_SMP.get(self.encoder, self.encoder)
        if self.optimiser == "adamw" and self.weight_decay == 0:
            canonical["optimiser"] = "adam"  # they differ in how weight decay is applied, and in nothing else
        return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()[:16]

    def next_accumulation(self, workers: int) -> int | None:
        """Into how many parts each batch can be split next, when memory was short; None: into no more.

        Twice as many as now, and never so many that a worker has fewer than two images in a part: batch norm has
        nothing to normalise by in one image whose deepest features are of one pixel.

        Args:
            workers: workers of the pool.
        """
        parts = 2 * self.accumulation
        images, left = divmod(self.batch_size, parts * workers)
        return parts if images >= 2 and not left else None

    def _without_effect(self) -> set[str]:
        """The settings that change nothing in how this configuration trains."""
        idle = {"threshold": True}  # measures are cut by it, training is not
        idle["momentum"] = self.optimiser not in ("sgd", "rmsprop")
        idle["decoder_norm"] = self.decoder not in DECODERS_WITH_NORM
        idle["encoder_depth"] = self.decoder not in DECODERS_WITH_DEPTH
        idle["decoder_width"] = self.decoder in DECODERS_WITHOUT_WIDTH
        idle["decoder_attention"] = self.decoder not in ATTENTIVE_DECODERS
        return {name for name, has_none in idle.items() if has_none}
