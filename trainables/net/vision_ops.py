"""segmentation-models-pytorch and timm, importable beside a CPU-only torch too. Import both from here, nowhere else.

Both import torchvision, whose wheel from the package index is compiled for CUDA: beside a CPU-only torch its compiled
part cannot be loaded, and `import torchvision` ends with "operator torchvision::nms does not exist"
(pytorch/vision 9077, 9085). Only the declarations of two operators are missing, so they are declared and the import is
repeated. Models and transforms then work; `torchvision.ops.nms` and `torchvision.io` do not, and are not used here.
Where the plain import works, nothing is done.
"""

from __future__ import annotations

import importlib

import torch

MISSING_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_declared: list[torch.library.Library] = []
"""Keeps the declarations alive: a library withdraws its operators when it is collected."""


def import_torchvision() -> None:
    """Import torchvision, declaring the operators that its compiled part would have brought if it cannot be loaded.

    Raises:
        ImportError, RuntimeError: torchvision is absent or broken for another reason.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _declared:
            raise
        library = torch.library.Library("torchvision", "DEF")
        for schema in MISSING_SCHEMAS:
            library.define(schema)
        _declared.append(library)
        importlib.import_module("torchvision")


import_torchvision()

import segmentation_models_pytorch as smp  # noqa: E402
import timm  # noqa: E402
from segmentation_models_pytorch.base.modules import SCSEModule  # noqa: E402
from timm.utils import ModelEmaV3  # noqa: E402
from torchvision.models.vgg import make_layers  # noqa: E402
from torchvision.ops import sigmoid_focal_loss  # noqa: E402

__all__ = ["ModelEmaV3", "SCSEModule", "import_torchvision", "make_layers", "sigmoid_focal_loss", "smp", "timm"]
