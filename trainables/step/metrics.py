"""Hard Dice and IoU per image, and their sums, which workers can add before anything is averaged.

How the reported figures are made: the probability of each pixel is cut at the configuration's `threshold`, or at the
one of `THRESHOLDS` with the highest mean Dice on the validation split where the configuration says so; Dice and
IoU are computed for each image alone and then averaged over the images of the split. Two empty masks agree: both
measures are 1. If only one of them is empty, both are 0. No smoothing term is used.

Dice = 2 IoU / (1 + IoU) holds for each image and the function is concave, so by Jensen's inequality the mean Dice can
never exceed 2 m / (1 + m) for the mean IoU m.

Shapes: B batch, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SOFT = ("loss", "dice_soft", "iou_soft")
"""The measures that need no threshold."""
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Those that `threshold: validation` chooses from."""


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

    thresholds: tuple[float, ...]
    """T probabilities at which Dice and IoU were cut."""
    sums: Tensor
    """Float64 (1 + 3 + 2 T,): the number of images, then the sums of `SOFT`, of Dice and of IoU at each threshold."""

    @classmethod
    def none(cls, thresholds: tuple[float, ...], device: torch.device) -> MetricSums:
        """Of no images."""
        # Half the accelerators know no float64, but all that DDP runs on here do.
        return cls(thresholds, torch.zeros(1 + len(SOFT) + 2 * len(thresholds), dtype=torch.float64, device=device))

    def plus(self, logits_B1HW: Tensor, mask_B1HW: Tensor, soft_B: Sequence[Tensor]) -> MetricSums:
        """With the images of a batch: what the model gives, what is true, and the values (B,) of `SOFT`."""
        probability_B1HW = torch.sigmoid(logits_B1HW)
        hard = [hard_dice_iou(probability_B1HW, mask_B1HW, threshold=cut) for cut in self.thresholds]
        columns = [*soft_B, *(dice_B for dice_B, _ in hard), *(iou_B for _, iou_B in hard)]
        values_KB = torch.stack([torch.ones_like(columns[-1]), *(column.detach().double() for column in columns)])
        return MetricSums(self.thresholds, self.sums + values_KB.sum(dim=1))

    def means(self) -> dict[str, float]:
        """The average of each measure over the images, at the threshold with the highest Dice, which is `cut_at`.

        Of thresholds that are equally good the one nearest to 1/2. Raises ValueError if there are no images.
        """
        count, *sums = self.sums.tolist()
        if count == 0:
            raise ValueError("a split without images has no measures")
        means = [value / count for value in sums]
        dice_T, iou_T = means[len(SOFT) : -len(self.thresholds)], means[-len(self.thresholds) :]
        best = max(range(len(dice_T)), key=lambda i: (dice_T[i], -abs(self.thresholds[i] - 0.5)))
        hard = {"dice": dice_T[best], "iou": iou_T[best], "cut_at": self.thresholds[best]}
        return {**dict(zip(SOFT, means, strict=False)), **hard}
