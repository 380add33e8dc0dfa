"""Encoders that smp lacks as the paper had them: Keras' DenseNet-121 and Inception-v3; and a VGG that starts at once.

The paper's models are qubvel's Keras `segmentation_models`; with these two encoders a U-Net of smp has the paper's
parameter counts to the last one. All take the key names of the usual ImageNet weights. Registered with smp as
`keras-densenet121`, `keras-inceptionv3` and in the place of its `vgg*`.

Shapes: B batch, C channels, H rows, W columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.net.vision_ops import make_layers, smp, timm


class KerasDenseNetEncoder(smp.encoders.densenet.DenseNetEncoder):
    """DenseNet-121 with Keras' skips: after each transition's 1x1 convolution, before its pooling.

    smp's own takes them before that convolution (256, 512, 1024 channels instead of 128, 256, 512) and leaves out the
    ReLU after the last normalisation.
    """

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Feature maps at strides 1, 2, 4, 8, 16, 32, as many as the encoder's depth + 1."""
        layers = self.features
        features = [image_BCHW]
        x = layers.relu0(layers.norm0(layers.conv0(image_BCHW)))
        features.append(x)
        x = layers.pool0(x)
        for stage in (1, 2, 3):
            if len(features) > self._depth:
                return features[: self._depth + 1]
            transition = getattr(layers, f"transition{stage}")
            x = getattr(layers, f"denseblock{stage}")(x)
            x = transition.conv(transition.relu(transition.norm(x)))
            features.append(x)
            x = transition.pool(x)
        if len(features) <= self._depth:
            features.append(F.relu(layers.norm5(layers.denseblock4(x))))
        return features[: self._depth + 1]


class _PadEndConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 2 padded as TensorFlow's "same" pads an even input: right and bottom by one."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (0, 1, 0, 1)))


class KerasInceptionEncoder(timm.models.InceptionV3, smp.encoders._base.EncoderMixin):
    """Inception-v3 with "same" padding throughout and no trainable scale in its batch norms, as Keras has it.

    The features have strides 2, 4, 8, 16, 32 exactly (timm's "valid" padding gives 109, 52, 25, 12, 5 pixels at 224).
    The batch-norm scales are buffers: they are loaded and saved, not trained.
    """

    def __init__(self, out_channels: list[int], depth: int = 5, output_stride: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._depth = depth
        self._in_channels = 3
        self._out_channels = out_channels
        self._output_stride = output_stride
        del self.fc, self.global_pool, self.head_drop
        for name in ("Conv2d_2a_3x3", "Conv2d_4a_3x3"):
            getattr(self, name).conv.padding = (1, 1)
        for block in (
            self.Conv2d_1a_3x3,
            self.Mixed_6a.branch3x3,
            self.Mixed_6a.branch3x3dbl_3,
            self.Mixed_7a.branch3x3_2,
            self.Mixed_7a.branch7x7x3_4,
        ):
            # The class alone changes: parameters, their names and initial values stay timm's.
            block.conv.__class__ = _PadEndConv2d
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                scale_C = module.weight.detach()
                del module.weight
                module.register_buffer("weight", scale_C)

    def make_dilated(self, output_stride: int) -> None:
        """Not possible. Raises ValueError."""
        raise ValueError("Inception-v3 does not support dilated mode due to pooling operation for downsampling!")

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Feature maps at strides 1, 2, 4, 8, 16, 32, as many as the encoder's depth + 1. H and W multiples of 32."""
        stages = (self._stage_2, self._stage_4, self._stage_8, self._stage_16, self._stage_32)
        features = [image_BCHW]
        for stage in stages[: self._depth]:
            features.append(stage(features[-1]))
        return features

    def _stage_2(self, x: Tensor) -> Tensor:
        return self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))

    def _stage_4(self, x: Tensor) -> Tensor:
        return self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_halve(x)))

    def _stage_8(self, x: Tensor) -> Tensor:
        return self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(_halve(x))))

    def _stage_16(self, x: Tensor) -> Tensor:
        reduce = self.Mixed_6a
        double = reduce.branch3x3dbl_3(reduce.branch3x3dbl_2(reduce.branch3x3dbl_1(x)))
        x = torch.cat([reduce.branch3x3(x), double, _halve(x)], dim=1)
        return self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))

    def _stage_32(self, x: Tensor) -> Tensor:
        reduce = self.Mixed_7a
        single = reduce.branch3x3_2(reduce.branch3x3_1(x))
        seven = reduce.branch7x7x3_3(reduce.branch7x7x3_2(reduce.branch7x7x3_1(x)))
        x = torch.cat([single, reduce.branch7x7x3_4(seven), _halve(x)], dim=1)
        return self.Mixed_7c(self.Mixed_7b(x))

    def load_state_dict(self, state_dict: dict[str, Tensor], **kwargs: Any) -> Any:
        """Load weights with timm's key names; the classifier heads (`fc`, `AuxLogits`) are left out."""
        kept = {key: value for key, value in state_dict.items() if not key.startswith(("fc.", "AuxLogits."))}
        return super().load_state_dict(kept, **kwargs)


class LeanVGGEncoder(smp.encoders.vgg.VGGEncoder):
    """smp's VGG encoder without the classifier of 124 million weights that is made first and then thrown away.

    It would cost two to five seconds and half a gigabyte for every trial. Layers, names and initial distribution are
    torchvision's.
    """

    def __init__(self, out_channels: list[int], config: list[int | str], batch_norm: bool = False, **kwargs: Any):
        with torch.device("meta"):
            super().__init__(out_channels, config, batch_norm, init_weights=False, **kwargs)
        self.features = make_layers(config, batch_norm=batch_norm)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _halve(x_BCHW: Tensor) -> Tensor:
    """Max pooling 3x3 of stride 2 that keeps the last row and column: H and W are halved exactly."""
    return F.max_pool2d(x_BCHW, kernel_size=3, stride=2, ceil_mode=True)


def register() -> None:
    """Put these encoders into smp's registry; once is enough."""
    registry = smp.encoders.encoders
    densenet = registry["densenet121"]
    registry["keras-densenet121"] = {
        "encoder": KerasDenseNetEncoder,
        "params": {**densenet["params"], "out_channels": [3, 64, 128, 256, 512, 1024]},
        "pretrained_settings": densenet["pretrained_settings"],
    }
    registry["keras-inceptionv3"] = {
        "encoder": KerasInceptionEncoder,
        "params": {"out_channels": [3, 64, 192, 288, 768, 2048]},
        "pretrained_settings": {
            "imagenet": {"repo_id": "timm/inception_v3.tf_in1k", "revision": None},
        },
    }
    for name, entry in registry.items():
        if name.startswith("vgg"):
            entry["encoder"] = LeanVGGEncoder
