"""build_model(): the paper's five U-Nets to the exact parameter count, and any decoder of smp with any encoder.

A model takes images in [0, 1] of shape (B, 1, H, W) and gives logits of shape (B, 1, H, W). Inside, the grey image is
repeated to the encoder's three channels (with one input channel the paper's counts would not be met) and normalised
as the encoder's published weights expect, whether it is pretrained or not.

`check_model` says what is wrong with a choice without allocating it: models are then built on torch's meta device.

Shapes: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

import difflib
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from trainables.config import DECODERS_WITH_NORM, PAPER_TO_SMP
from trainables.net import encoders, pretrained
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

DECODER_NORM = {
    # Keras' values: epsilon 1e-3 and momentum 0.99, which is 0.01 in torch's sense of the word.
    "batchnorm": {"type": "batchnorm", "eps": 1e-3, "momentum": 0.01},
    "instancenorm": {"type": "instancenorm", "affine": True},
    "layernorm": {"type": "layernorm"},
    "identity": {"type": "identity"},
}


class Segmenter(nn.Module):
    """A network behind its input: grey to three channels, then (image - mean) / std.

    Args:
        net: takes (B, 3, H, W), gives logits (B, 1, H, W).
        mean: one value a channel, for images in [0, 1].
        std: one value a channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Logits (B, 1, H, W) of images in [0, 1] with one channel or three."""
        return self.net((image_BCHW - self.mean) / self.std)


def build_model(
    *,
    encoder: str,
    decoder: str,
    encoder_weights: str | None = None,
    decoder_norm: str = "batchnorm",
    image_size_px: int | None = None,
) -> nn.Module:
    """A segmentation network with one output class.

    Args:
        encoder: one of the paper's five names, a name of smp, or `tu-<timm name>`.
        decoder: an smp architecture: `unet`, `fpn`, ... (`smp.MODEL_ARCHITECTURES_MAPPING`).
        encoder_weights: None for random weights, `imagenet`, or a path of a file with upstream key names.
        decoder_norm: `batchnorm`, `layernorm`, `instancenorm` or `identity`; of no effect where the architecture has
            no choice (`config.DECODERS_WITH_NORM`).
        image_size_px: height and width of the images; encoders with a fixed size (ViT, Swin) are made for it.

    Returns:
        A module from images (B, 1, H, W) or (B, 3, H, W) in [0, 1] to logits (B, 1, H, W).

    Raises:
        ValueError: a name is unknown, the two halves do not go together, the size does not fit, or the weights cannot
            be had or do not fit.
    """
    if mistakes := _name_mistakes(encoder, decoder) + _size_mistakes(image_size_px):
        raise ValueError("; ".join(mistakes))
    name = PAPER_TO_SMP.get(encoder, encoder)
    extra: dict[str, Any] = _timm_arguments(name, image_size_px)
    if encoder_weights is None:
        net = _build_net(encoder, name, decoder, decoder_norm, extra)
    else:
        weights = pretrained.weights_file(name, encoder_weights)
        state = pretrained.read_state(weights)
        if name.startswith("tu-"):
            # timm loads with its own adaptations (position embeddings, key names of older files).
            extra |= {"encoder_weights": True, "pretrained_cfg_overlay": {"state_dict": dict(state)}}
        net = _build_net(encoder, name, decoder, decoder_norm, extra)
        pretrained.load_encoder(net.get_submodule("encoder"), state, weights, timm=name.startswith("tu-"))
    mean, std = input_normalisation(encoder)
    return Segmenter(net, mean=mean, std=std)


def check_model(
    *,
    encoder: str,
    decoder: str,
    encoder_weights: str | None = None,
    decoder_norm: str = "batchnorm",
    image_size_px: int | None = None,
) -> list[str]:
    """Everything that would keep `build_model` from giving a network that works, one line each; empty if nothing.

    Allocates no weights and fetches none. Arguments as for `build_model`.
    """
    mistakes = _name_mistakes(encoder, decoder) + _size_mistakes(image_size_px)
    if mistakes:
        return mistakes
    if encoder_weights:
        mistakes += pretrained.check_weights(PAPER_TO_SMP.get(encoder, encoder), encoder_weights)
    try:
        model = meta_model(encoder=encoder, decoder=decoder, decoder_norm=decoder_norm, image_size_px=image_size_px)
        mistakes += _shape_mistakes(model, encoder, decoder, image_size_px or 224)
    except ValueError as error:
        mistakes.append(str(error))
    return mistakes


@lru_cache(maxsize=64)
def meta_model(*, encoder: str, decoder: str, decoder_norm: str = "batchnorm", image_size_px: int | None) -> nn.Module:
    """The model without memory for its weights (torch's meta device): for counts, shapes and costs. Do not change it.

    Arguments and errors as for `build_model`.
    """

    def build() -> nn.Module:
        return build_model(encoder=encoder, decoder=decoder, decoder_norm=decoder_norm, image_size_px=image_size_px)

    try:
        with torch.device("meta"):
            return build()
    except ValueError as error:
        if "meta tensors" not in str(error):
            raise
        # Some constructors read a tensor's value, which needs memory for a moment.
        return build().to("meta")


def parameter_count(model: nn.Module) -> int:
    """Trainable parameters, which is what the paper's table II counts."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@lru_cache(maxsize=64)
def unused_parameters(model: nn.Module, image_size_px: int) -> tuple[str, ...]:
    """Names of parameters that no output depends on, e.g. the stages that PSPNet leaves out.

    Args:
        model: from `meta_model`.
        image_size_px: height and width of the images.
    """
    logits_BCHW = model(torch.zeros(2, 1, image_size_px, image_size_px, device="meta"))
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(logits_BCHW.sum(), [parameter for _, parameter in named], allow_unused=True)
    return tuple(name for (name, _), gradient in zip(named, gradients, strict=True) if gradient is None)


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


def _build_net(encoder: str, name: str, decoder: str, decoder_norm: str, extra: dict[str, Any]) -> nn.Module:
    arguments: dict[str, Any] = {"encoder_weights": None, "in_channels": 3, "classes": 1, **extra}
    if decoder in DECODERS_WITH_NORM:
        arguments["decoder_use_norm"] = DECODER_NORM[decoder_norm]
    try:
        net = smp.create_model(decoder, name, **arguments)
    except (ValueError, KeyError, RuntimeError, TypeError, NotImplementedError, AttributeError) as error:
        if "memory" in str(error):
            raise
        reason = " ".join(str(error).split())
        if "downsampling pattern" in reason:
            reason += " It has no pyramid of features; plain vision transformers go with decoder dpt"
        raise ValueError(f"encoder {encoder!r} cannot be used with decoder {decoder!r}: {reason}") from error
    if decoder in DECODERS_WITH_NORM and decoder_norm == "layernorm":
        _norm_over_channels(net.get_submodule("decoder"))
    return net


def _norm_over_channels(decoder: nn.Module) -> None:
    """Make layer norms work on (B, C, H, W): smp puts in `nn.LayerNorm`, which expects the channels last."""
    for module in decoder.modules():
        for name, child in module.named_children():
            if type(child) is nn.LayerNorm:
                setattr(module, name, timm.layers.LayerNorm2d(child.normalized_shape[0], eps=child.eps))


def _timm_arguments(name: str, image_size_px: int | None) -> dict[str, Any]:
    """What timm must be told besides the name: the image size, where the encoder is made for one."""
    config = timm.get_pretrained_cfg(name[3:]) if name.startswith("tu-") else None
    return {"img_size": image_size_px} if config and config.fixed_input_size and image_size_px else {}


def _name_mistakes(encoder: str, decoder: str) -> list[str]:
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


def _size_mistakes(image_size_px: int | None) -> list[str]:
    if image_size_px is None or (image_size_px > 0 and image_size_px % STRIDE_PX == 0):
        return []
    below = max(image_size_px // STRIDE_PX, 1) * STRIDE_PX
    return [
        f"image size: {image_size_px} px is not a multiple of {STRIDE_PX}; the nearest that work are {below} and "
        f"{below + STRIDE_PX}"
    ]


def _shape_mistakes(model: nn.Module, encoder: str, decoder: str, size_px: int) -> list[str]:
    """Run the model on the meta device and see whether the mask has the size of the image."""
    pair = f"encoder {encoder!r} with decoder {decoder!r} at {size_px} px"
    try:
        shape = tuple(model(torch.zeros(2, 1, size_px, size_px, device="meta")).shape)
    except (RuntimeError, ValueError, AssertionError) as error:
        return [f"{pair} does not work: {' '.join(str(error).split())}"]
    wanted = (2, 1, size_px, size_px)
    return [] if shape == wanted else [f"{pair} gives masks of {shape[2]} x {shape[3]} px instead of the image's size"]
