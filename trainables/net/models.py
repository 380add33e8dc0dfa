"""build_model(): the paper's five U-Nets to the exact parameter count, and any decoder of smp with any encoder.

    model = build_model(Architecture(encoder="vgg19", image_size_px=224))
    model = build_model(Architecture.of(config, image_size_px=224), encoder_weights=config.encoder_weights)

A model takes images in [0, 1] of shape (B, 1, H, W) and gives logits of shape (B, 1, H, W). Inside, the grey image is
repeated to the encoder's three channels (with one input channel the paper's counts would not be met) and normalised
as the encoder's published weights expect, whether it is pretrained or not.

`check_model` says what is wrong with a choice without allocating it: models are then built on torch's meta device.

Shapes: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.config import DECODERS_WITH_DEPTH, PAPER_TO_SMP
from trainables.net import encoders, pretrained
from trainables.net.architecture import Architecture
from trainables.net.decoders import create_net
from trainables.net.vision_ops import smp, timm

encoders.register()

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SMP_NORMALISATION = {
    "keras-inceptionv3": HALF,
    "inceptionresnetv2": HALF,
    "inceptionv4": HALF,
    "xception": HALF,
    "dpn": ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3),
}
"""Mean and standard deviation that weights from the hub expect, by the beginning of smp's name; all others: ImageNet's.
The hub has them too, but must not be asked to build a model."""

STRIDE_PX = 32
"""Image sides are multiples of it: every encoder with five halvings wants it."""


class Segmenter(nn.Module):
    """A network behind its input: shrunk if it is to be, grey to three channels, then (image - mean) / std.

    Args:
        net: takes (B, 3, H, W), gives logits (B, 1, H, W).
        mean: one value a channel, for images in [0, 1].
        std: one value a channel.
        shrink: (H, W) of the images and of what the net sees of them, in pixels, e.g. (224, 128); None: the same.
    """

    mean: Tensor
    std: Tensor
    area_sS: Tensor | None

    def __init__(
        self,
        net: nn.Module,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        shrink: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("area_sS", _area_shares(*shrink) if shrink else None, persistent=False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Logits (B, 1, H, W) of images in [0, 1] with one channel or three."""
        if self.area_sS is None:
            return self.net((image_BCHW - self.mean) / self.std)
        size = image_BCHW.shape[2:]
        image_BCss = self.area_sS @ image_BCHW @ self.area_sS.T
        logits_B1ss = self.net((image_BCss - self.mean) / self.std)
        return F.interpolate(logits_B1ss, size=size, mode="bilinear", align_corners=False)


def build_model(architecture: Architecture, *, encoder_weights: str | None = None) -> nn.Module:
    """A segmentation network with one output class.

    Args:
        architecture: which one.
        encoder_weights: None for random weights, `imagenet`, or a path of a file with upstream key names.

    Returns:
        A module from images (B, 1, H, W) or (B, 3, H, W) in [0, 1] to logits (B, 1, H, W).

    Raises:
        ValueError: a name is unknown, the two halves do not go together, the size does not fit, or the weights cannot
            be had or do not fit.
    """
    model = _build(architecture, encoder_weights)
    _leave_out(model, _idle_modules(architecture))
    return model


def check_model(architecture: Architecture, *, encoder_weights: str | None = None) -> list[str]:
    """Everything that would keep `build_model` from giving a network that works, one line each; empty if nothing.

    Allocates no weights and fetches none. Arguments as for `build_model`.
    """
    mistakes = _name_mistakes(architecture) + _size_mistakes(architecture)
    if mistakes:
        return mistakes
    if encoder_weights:
        mistakes += pretrained.check_weights(architecture.smp_encoder, encoder_weights)
    try:
        mistakes += _shape_mistakes(_whole_meta_model(architecture), architecture)
    except ValueError as error:
        mistakes.append(str(error))
    return mistakes


@lru_cache(maxsize=64)
def meta_model(architecture: Architecture) -> nn.Module:
    """The model without memory for its weights (torch's meta device): for counts, shapes and costs. Do not change it.

    Errors as for `build_model`.
    """
    return _on_meta(lambda: build_model(architecture))


def parameter_count(model: nn.Module) -> int:
    """Trainable parameters, which is what the paper's table II counts."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@lru_cache(maxsize=64)
def unused_parameters(architecture: Architecture) -> tuple[str, ...]:
    """Names of trainable parameters that no output depends on, though they are part of a module that is called."""
    return tuple(_without_gradient(meta_model(architecture), architecture.size_px))


@lru_cache(maxsize=256)
def trains_on_one_image(architecture: Architecture) -> bool:
    """Whether one image alone can be trained on: batch norm has nothing to normalise by where it sees one pixel."""
    try:
        _forward_on_meta(meta_model(architecture), 1, architecture.size_px)
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            return False
        raise
    return True


def input_normalisation(encoder: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, for images in [0, 1], that the encoder's published weights expect."""
    name = PAPER_TO_SMP.get(encoder, encoder)
    if name.startswith("tu-"):
        config = timm.get_pretrained_cfg(name[3:])
        return (tuple(config.mean), tuple(config.std)) if config else IMAGENET
    return next((pair for start, pair in SMP_NORMALISATION.items() if name.startswith(start)), IMAGENET)


def decoder_names() -> list[str]:
    """The decoders that can be built."""
    return list(smp.MODEL_ARCHITECTURES_MAPPING)


def encoder_names() -> list[str]:
    """The encoders that can be asked for: the paper's, smp's, and timm's with `tu-` before them."""
    own = [name for name in smp.encoders.get_encoder_names() if not name.startswith("keras-")]
    return list(dict.fromkeys([*PAPER_TO_SMP, *own, *(f"tu-{name}" for name in timm.list_models())]))


def _build(architecture: Architecture, encoder_weights: str | None) -> Segmenter:
    """The whole network, with the stages that a shallow one leaves idle."""
    if mistakes := _name_mistakes(architecture) + _size_mistakes(architecture):
        raise ValueError("; ".join(mistakes))
    name = architecture.smp_encoder
    extra: dict[str, Any] = _timm_arguments(name, architecture.seen_px)
    if encoder_weights is None:
        net = create_net(architecture, **extra)
    else:
        weights = pretrained.weights_file(name, encoder_weights)
        state = pretrained.read_state(weights)
        if name.startswith("tu-"):
            # timm loads with its own adaptations (position embeddings, key names of older files).
            extra |= {"encoder_weights": True, "pretrained_cfg_overlay": {"state_dict": dict(state)}}
        net = create_net(architecture, **extra)
        pretrained.load_encoder(net.get_submodule("encoder"), state, weights, timm=name.startswith("tu-"))
    mean, std = input_normalisation(architecture.encoder)
    shrink = (architecture.size_px, architecture.shrunk_to_px) if architecture.shrunk_to_px else None
    return Segmenter(net, mean=mean, std=std, shrink=shrink)


def _area_shares(size: int, smaller: int) -> Tensor:
    """The share of each of `size` pixels in each of `smaller` ones that cover the same row: (smaller, size)."""
    edges_s = torch.arange(smaller + 1, dtype=torch.float64) * size / smaller
    left_S = torch.arange(size, dtype=torch.float64)
    covered_sS = torch.minimum(edges_s[1:, None], left_S + 1) - torch.maximum(edges_s[:-1, None], left_S)
    return (covered_sS.clamp(min=0) * smaller / size).float()


@lru_cache(maxsize=64)
def _whole_meta_model(architecture: Architecture) -> nn.Module:
    return _on_meta(lambda: _build(architecture, None))


def _leave_out(model: nn.Module, names: Iterable[str]) -> None:
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())


@lru_cache(maxsize=64)
def _idle_modules(architecture: Architecture) -> tuple[str, ...]:
    """The topmost modules on whose parameters no output depends: an encoder's stages below the depth in use.

    smp and timm keep them, and some are even run: they would count as parameters, be saved, and cost time and memory.
    """
    if architecture.encoder_depth == 5 and architecture.decoder in DECODERS_WITH_DEPTH:
        return ()  # nothing is left out, which need not be found by a pass
    try:
        model = _whole_meta_model(architecture)
        names = tuple(_topmost_idle(model, "", set(_without_gradient(model, architecture.size_px))))
        lean = _on_meta(lambda: _build(architecture, None))
        _leave_out(lean, names)
        _forward_on_meta(lean, 2, architecture.size_px)
    except (RuntimeError, ValueError, AssertionError, TypeError):
        return ()  # the size does not work, or a module that is idle is needed for the course of the others
    return names


def _topmost_idle(module: nn.Module, name: str, idle: set[str]) -> Iterator[str]:
    """Names of the largest parts of a module of which no trainable parameter has a gradient."""
    trainable = [f"{name}.{n}" for n, p in module.named_parameters() if p.requires_grad]
    if name and trainable and idle.issuperset(trainable):
        yield name
        return
    for child_name, child in module.named_children():
        yield from _topmost_idle(child, f"{name}.{child_name}".lstrip("."), idle)


def _without_gradient(model: nn.Module, size_px: int) -> list[str]:
    """Names of the trainable parameters of a model on the meta device that no output depends on."""
    logits_BCHW = _forward_on_meta(model, 2, size_px)
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(logits_BCHW.sum(), [parameter for _, parameter in named], allow_unused=True)
    return [name for (name, _), gradient in zip(named, gradients, strict=True) if gradient is None]


def _forward_on_meta(model: nn.Module, images: int, size_px: int) -> Tensor:
    return model(torch.zeros(images, 1, size_px, size_px, device="meta"))


def _on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    try:
        with torch.device("meta"):
            return build()
    except ValueError as error:
        if "meta tensors" not in str(error):
            raise
        # Some constructors read a tensor's value, which needs memory for a moment.
        return build().to("meta")


def _timm_arguments(name: str, image_size_px: int | None) -> dict[str, Any]:
    """What timm must be told besides the name: the image size, where the encoder is made for one."""
    config = timm.get_pretrained_cfg(name[3:]) if name.startswith("tu-") else None
    return {"img_size": image_size_px} if config and config.fixed_input_size and image_size_px else {}


def _name_mistakes(architecture: Architecture) -> list[str]:
    encoder, decoder = architecture.encoder, architecture.decoder
    mistakes = []
    if decoder not in smp.MODEL_ARCHITECTURES_MAPPING:
        mistakes.append(f"decoder: {decoder!r} is unknown; use one of {', '.join(decoder_names())}")
    known = encoder in PAPER_TO_SMP or encoder in smp.encoders.encoders
    if not known and not (encoder.startswith("tu-") and timm.is_model(encoder[3:])):
        close = difflib.get_close_matches(encoder, encoder_names(), n=4, cutoff=0.6)
        close += [name for name in (f"tu-{encoder}",) if timm.is_model(encoder) and name not in close]
        hint = f"; did you mean {', '.join(close)}?" if close else "."
        mistakes.append(
            f"encoder: {encoder!r} is unknown{hint} The paper's are {', '.join(PAPER_TO_SMP)}; others are listed by "
            '`python -c "from trainables.net.models import encoder_names; print(*encoder_names())"`'
        )
    return mistakes


def _size_mistakes(architecture: Architecture) -> list[str]:
    size_px, whole_px = architecture.seen_px, architecture.image_size_px
    if architecture.shrunk_to_px and architecture.shrunk_to_px > architecture.size_px:
        return [f"image_size_px: {architecture.shrunk_to_px} is above the images' {architecture.size_px} px"]
    if size_px is None or (size_px > 0 and size_px % STRIDE_PX == 0):
        return []
    below = max(size_px // STRIDE_PX, 1) * STRIDE_PX
    name = "image size" if size_px == whole_px else "image_size_px"
    return [
        f"{name}: {size_px} px is not a multiple of {STRIDE_PX}; the nearest that work are {below} and "
        f"{below + STRIDE_PX}"
    ]


def _shape_mistakes(model: nn.Module, architecture: Architecture) -> list[str]:
    """Run the model on the meta device and see whether the mask has the size of the image."""
    size_px = architecture.size_px
    pair = f"encoder {architecture.encoder!r} with decoder {architecture.decoder!r} at {size_px} px"
    try:
        shape = tuple(_forward_on_meta(model, 2, size_px).shape)
    except (RuntimeError, ValueError, AssertionError) as error:
        return [f"{pair} does not work: {' '.join(str(error).split())}"]
    wanted = (2, 1, size_px, size_px)
    return [] if shape == wanted else [f"{pair} gives masks of {shape[2]} x {shape[3]} px instead of the image's size"]
