"""`TrialConfig`: everything that decides how one trial trains. Frozen, checked, and equal if the training is equal."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

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


LOSS_WEIGHTS = ("dice_weight", "iou_weight", "bce_weight", "focal_weight", "tversky_weight", "boundary_weight")
"""The settings that weigh the loss's terms."""
SAME_TERMS = (("focal_weight", "focal_gamma", 0, "bce_weight"), ("tversky_weight", "tversky_alpha", 0.5, "dice_weight"))
"""(term, its parameter, the value at which it is another term, that term)."""
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
    """Weight of the soft Dice in the loss. The weights of all terms are divided by their sum: (1, 1) and (2, 2) are the
    same. Every term is 0 for a perfect mask."""
    iou_weight: float = Field(default=0.6, ge=0, le=MOST_WEIGHT)
    """Weight of the soft IoU in the loss."""
    bce_weight: float = Field(default=0.0, ge=0, le=MOST_WEIGHT)
    """Weight of the binary cross entropy in the loss. It and the focal term teach images without a lesion too."""
    focal_weight: float = Field(default=0.0, ge=0, le=MOST_WEIGHT)
    """Weight of the focal loss (Lin et al. 2017): cross entropy with less weight on pixels that are right already."""
    focal_gamma: float = Field(default=2.0, ge=0, le=10)
    """How much less; at 0 it is the cross entropy."""
    tversky_weight: float = Field(default=0.0, ge=0, le=MOST_WEIGHT)
    """Weight of 1 minus the Tversky index (Salehi et al. 2017): Dice with unequal prices of false and missed pixels."""
    tversky_alpha: float = Field(default=0.3, gt=0, lt=1)
    """Price of a pixel found by mistake; a missed one costs 1 minus it. At 0.5 it is Dice."""
    boundary_weight: float = Field(default=0.0, ge=0, le=MOST_WEIGHT)
    """Weight of 1 minus the boundary F1 (Bokhovkin and Burnaev 2019): how well the lesion's edge is met."""
    boundary_tolerance_px: int = Field(default=2, ge=1, le=32)
    """How far apart, in pixels, two edges still meet."""

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

    encoder_rate_factor: float = Field(default=1.0, gt=0, le=10)
    """The encoder's learning rate as a share of the decoder's: below 1 keeps more of what is pretrained."""
    frozen_encoder_epochs: int = Field(default=0, ge=0)
    """First epochs in which only the decoder learns. The encoder's weights and norm statistics stay, so that is for
    pretrained ones."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Above 0 an exponential moving average of the weights is what is measured and kept; 0.99 to 0.9999 are usual. It
    follows faster in the first steps. `raw_val_dice` tells what the weights themselves would score."""

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

    small_lesion_power: float = Field(default=0.0, ge=0, le=2)
    """0: each image once an epoch. Above, images are drawn with replacement, with odds of their lesion's area to the
    power of minus this: at 1 an image with a lesion of half the size is drawn twice as often."""
    gamma: float = Field(default=0.0, ge=0, le=4)
    """Grey values are raised to a random power in [1 / (1 + g), 1 + g], darker and brighter alike often."""
    zoom: float = Field(default=0.0, ge=0, le=1)
    """Random zoom by a factor in [1 / (1 + z), 1 + z], smaller and larger alike often."""
    elastic: float = Field(default=0.0, ge=0, le=0.1)
    """Elastic deformation: 5 x 5 points are moved at random by at most this share of the image's side, and what lies
    between them smoothly with them."""
    cutout: float = Field(default=0.0, ge=0, le=1)
    """A black square somewhere on the image, its side this share of the image's (DeVries and Taylor 2017). The mask
    stays: what is hidden is to be guessed."""

    norm_statistics: Literal["recalibrated", "running"] = "recalibrated"
    """By which statistics batch norms normalise when the model is measured or used: those of the weights as they are,
    made anew after each epoch on at most 512 training images, or the running averages of training, which lag hundreds
    of steps behind. What is learnt is the same."""
    image_size_px: int | None = Field(default=None, ge=32, le=4096, multiple_of=32)
    """Height and width of the images that the network sees; null: the shards' own. It shrinks its images to that size
    by area, and enlarges its logits: it learns and is measured at the shards' size, so that trials of all sizes
    compare."""
    precision: PrecisionChoice = "auto"
    """Number format of the forward pass; `auto`: what is fast on the pool."""
    channels_last: bool = True
    """Memory layout that convolutions are fastest with on most hardware."""
    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["validation"] = 0.5
    """Probability above which a pixel is lesion, for the hard metrics. `validation`: of 0.05, 0.10, ... 0.95 the
    one with the highest Dice on the validation split, chosen after each epoch. No training depends on it, so it is not
    searched."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _normalise_weights(cls, values: Any) -> Any:
        """Loss weights that sum to 1, with terms that are the same one put together."""
        if not isinstance(values, dict):
            return values
        given = {name: values.get(name, cls.model_fields[name].default) for name in LOSS_WEIGHTS}
        if not all(isinstance(weight, (int, float)) and 0 <= weight <= MOST_WEIGHT for weight in given.values()):
            return values  # for the fields' own bounds to refuse
        total = float(sum(given.values()))
        if total <= 0:
            text = "0, as all weights of the loss are"
            raise_problems(Problem(("dice_weight",), text, f"one of {', '.join(LOSS_WEIGHTS)} above 0"))
        weights = {name: weight / total for name, weight in given.items()}
        for name, parameter, value, same in SAME_TERMS:
            if values.get(parameter, cls.model_fields[parameter].default) == value:
                weights[same] += weights[name]
                weights[name] = 0.0
        return {**values, **{name: round(weight, 12) for name, weight in weights.items()}}

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
        for name in ("warmup_epochs", "frozen_encoder_epochs"):
            if (first := getattr(self, name)) >= self.epochs:
                text = f"{first} is not below epochs = {self.epochs}"
                raise_problems(Problem((name,), text, f"below {self.epochs}"))
        return self

    def key(self) -> str:
        """A short hash that is equal for two configurations exactly if they train the same."""
        canonical = self.model_dump(mode="json", exclude=self._without_effect())
        canonical["encoder"] = PAPER_TO_SMP.get(self.encoder, self.encoder)
        if self.optimiser == "adamw" and self.weight_decay == 0:
            canonical["optimiser"] = "adam"  # they differ in how weight decay is applied, and in nothing else
        return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def open_ended(self) -> bool:
        """Whether its epochs are the same however many follow: no schedule is stretched over the budget."""
        return self.schedule == "constant"

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
        idle["focal_gamma"] = self.focal_weight == 0
        idle["tversky_alpha"] = self.tversky_weight == 0
        idle["boundary_tolerance_px"] = self.boundary_weight == 0
        idle["decoder_norm"] = self.decoder not in DECODERS_WITH_NORM
        idle["encoder_depth"] = self.decoder not in DECODERS_WITH_DEPTH
        idle["decoder_width"] = self.decoder in DECODERS_WITHOUT_WIDTH
        idle["decoder_attention"] = self.decoder not in ATTENTIVE_DECODERS
        return {name for name, has_none in idle.items() if has_none}
