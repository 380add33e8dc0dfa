"""Hard Dice and IoU per image, and their sums, which workers can add before anything is averaged.

How the reported figures are made: the probability of each pixel is cut at the configuration's `threshold`; Dice and
IoU are computed for each image alone and then averaged over the images of the split. Two empty masks agree: both
measures are 1. If only one of them is empty, both are 0. No smoothing term is used.

Dice = 2 IoU / (1 + IoU) holds for each image and the function is concave, so by Jensen's inequality the mean Dice can
never exceed 2 m / (1 + m) for the mean IoU m.

Shapes: B batch, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.record import VAL_MEASURES

MEASURES = tuple(name.removeprefix("val_") for name in VAL_MEASURES)
"""What is summed over images, in this order."""


def hard_dice_iou(probability_B1HW: Tensor, mask_B1HW: Tensor, *, threshold: float = 0.5) -> tuple[Tensor, Tensor]:
    """Dice and IoU of the thresholded prediction, for each image.

    Args:
        probability_B1HW: float, in [0, 1].
        mask_B1HW: 0 and 1, any type.
        threshold: a pixel is lesion if its probability is above it.

    Returns:
        Dice and IoU, each a float64 tensor (B,) in [0, 1]; 1 where both masks are empty, 0 where one of them is.
    """
    axes = (1, 2, 3)
    predicted = probability_B1HW > threshold
    true = mask_B1HW > 0
    both_B = (predicted & true).sum(axes).double()
    sizes_B = (predicted.sum(axes) + true.sum(axes)).double()
    empty_B = sizes_B == 0
    dice_B = torch.where(empty_B, 1.0, 2 * both_B / sizes_B.clamp(min=1))
    iou_B = torch.where(empty_B, 1.0, both_B / (sizes_B - both_B).clamp(min=1))
    return dice_B, iou_B


@dataclass(frozen=True)
class MetricSums:
    """Sums of measures over images; sums of parts add up to the sums of the whole."""

    sums: Tensor
    """Float64 (1 + len(MEASURES),): the number of images, then the sum of each measure."""

    @classmethod
    def none(cls, device: torch.device) -> MetricSums:
        """Of no images."""
        # Half the accelerators know no float64, but all that DDP runs on here do.
        return cls(torch.zeros(1 + len(MEASURES), dtype=torch.float64, device=device))

    @classmethod
    def of(cls, measures_B: dict[str, Tensor]) -> MetricSums:
        """Of one batch: one tensor (B,) for each of MEASURES."""
        columns = [measures_B[name].detach().double() for name in MEASURES]
        return cls(torch.stack([torch.ones_like(columns[0]), *columns]).sum(dim=1))

    def __add__(self, other: MetricSums) -> MetricSums:
        return MetricSums(self.sums + other.sums)

    def means(self) -> dict[str, float]:
        """The average of each measure over the images. Raises ValueError if there are none."""
        count, *sums = self.sums.tolist()
        if count == 0:
            raise ValueError("a split without images has no measures")
        return {name: value / count for name, value in zip(MEASURES, sums, strict=True)}
