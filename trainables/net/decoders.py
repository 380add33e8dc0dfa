"""What a decoder of segmentation-models-pytorch is told: depth, width, attention, normalisation.

Each architecture names these in its own way, and its channels are given by resolution. The channels here are smp's own
at width 1, which for U-Net are the paper's (256, 128, 64, 32, 16).

Shapes: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from trainables.config import ATTENTIVE_DECODERS, DECODERS_WITH_DEPTH, DECODERS_WITH_NORM
from trainables.net.architecture import Architecture
from trainables.net.vision_ops import SCSEModule, smp, timm

U_CHANNELS = (256, 128, 64, 32, 16)
"""Of the decoders that go up step by step, at 1/16, 1/8, 1/4, 1/2 and the whole resolution."""
CHANNELS: dict[str, dict[str, Any]] = {
    "manet": {"decoder_pab_channels": 64},
    "fpn": {"decoder_pyramid_channels": 256, "decoder_segmentation_channels": 128},
    "pspnet": {"psp_out_channels": 512},
    "deeplabv3": {"decoder_channels": 256},
    "deeplabv3plus": {"decoder_channels": 256},
    "pan": {"decoder_channels": 32},
    "upernet": {"decoder_channels": 256},
    "segformer": {"decoder_segmentation_channels": 256},
    "dpt": {"decoder_intermediate_channels": (256, 512, 1024, 1024), "decoder_fusion_channels": 256},
}
"""Decoder -> its arguments for channels, as smp has them by default."""
FPN_UPSAMPLING = {3: 1, 4: 2, 5: 4}
"""Depth -> what is left to enlarge at the end: FPN's maps meet at 1/4 of the resolution for five levels."""
NORM = {
    # Keras' values: epsilon 1e-3 and momentum 0.99, which is 0.01 in torch's sense of the word.
    "batchnorm": {"type": "batchnorm", "eps": 1e-3, "momentum": 0.01},
    "instancenorm": {"type": "instancenorm", "affine": True},
    "layernorm": {"type": "layernorm"},
    "identity": {"type": "identity"},
}


def create_net(architecture: Architecture, **arguments: Any) -> nn.Module:
    """smp's network with random weights: three channels in, logits of one class out.

    Args:
        architecture: the two halves and their choices.
        arguments: what the encoder must be told beside its name.

    Raises:
        ValueError: the two halves do not go together; the text says why.
    """
    encoder, decoder = architecture.smp_encoder, architecture.decoder
    arguments = {"encoder_weights": None, "in_channels": 3, "classes": 1, **_choices(architecture), **arguments}
    try:
        with warnings.catch_warnings():
            # Of attention over few channels, which is mended below.
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            net = smp.create_model(decoder, encoder, **arguments)
    except (ValueError, KeyError, RuntimeError, TypeError, NotImplementedError, AttributeError) as error:
        if "memory" in str(error):
            raise
        reason = " ".join(str(error).split())
        if "downsampling pattern" in reason:
            reason += " It has no pyramid of features; plain vision transformers go with decoder dpt"
        pair = f"encoder {architecture.encoder!r} cannot be used with decoder {decoder!r}"
        raise ValueError(f"{pair}: {reason}") from error
    _mend_attention(net)
    if decoder in DECODERS_WITH_NORM and architecture.decoder_norm == "layernorm":
        _norm_over_channels(net.get_submodule("decoder"))
    return net


def _choices(architecture: Architecture) -> dict[str, Any]:
    """The arguments that make the decoder; choices that it does not have are left out."""
    decoder, depth, width = architecture.decoder, architecture.encoder_depth, architecture.decoder_width
    arguments: dict[str, Any] = {name: _scaled(usual, width) for name, usual in CHANNELS.get(decoder, {}).items()}
    if decoder in DECODERS_WITH_DEPTH:
        arguments["encoder_depth"] = depth
    if decoder in ("unet", "unetplusplus", "manet"):
        # The levels that are left keep their channels: a shallow U-Net lacks the deepest ones.
        arguments["decoder_channels"] = _scaled(U_CHANNELS[-depth:], width)
    if decoder == "fpn":
        arguments["upsampling"] = FPN_UPSAMPLING[depth]
    if decoder in ATTENTIVE_DECODERS and architecture.decoder_attention != "none":
        arguments["decoder_attention_type"] = architecture.decoder_attention
    if decoder in DECODERS_WITH_NORM:
        arguments["decoder_use_norm"] = NORM[architecture.decoder_norm]
    return arguments


def _scaled(channels: Any, width: float) -> Any:
    """One number of channels or several times the width; all are multiples of 4, so quarters stay whole."""
    return tuple(int(c * width) for c in channels) if isinstance(channels, tuple) else int(channels * width)


def _mend_attention(net: nn.Module) -> None:
    """Give squeeze and excitation of fewer than 16 channels one channel to squeeze into: smp divides by 16, to none."""
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, SCSEModule) and child.cSE[1].out_channels == 0:
                channels = child.cSE[1].in_channels
                setattr(module, name, SCSEModule(channels, reduction=channels))


def _norm_over_channels(decoder: nn.Module) -> None:
    """Make layer norms work on (B, C, H, W): smp puts in `nn.LayerNorm`, which expects the channels last."""
    for module in decoder.modules():
        for name, child in module.named_children():
            if type(child) is nn.LayerNorm:
                setattr(module, name, timm.layers.LayerNorm2d(child.normalized_shape[0], eps=child.eps))
