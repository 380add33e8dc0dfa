"""The paper's soft Dice and IoU (equations 2 and 3) and its loss, per image.

With e = 0.0001, y the mask (0 or 1) and p the probability of lesion, sums over the pixels of one image:

    Dice = (2 sum(y p) + e) / (sum y + sum p + e)                equation 2
    IoU  = (sum(y p) + e) / (sum y + sum p - sum(y p) + e)       equation 3
    loss = 1 - (w_dice Dice + w_iou IoU)                         section II C, 0.4 and 0.6 in the paper

Equation 2 is printed as 2 (sum(y p) + e) / (sum y + sum p + e), by which two empty masks would score 2; the factor is
taken to the sum alone, so that they score 1 and no value exceeds it.

All are computed per image and then averaged over images, not over the pixels of a whole batch: so the loss of a batch
does not depend on how it is split over workers or accumulation steps, and a large lesion does not hide a small one.

Shapes: B batch, H rows, W columns.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-4
"""The paper's auxiliary value against division by zero."""


def soft_dice_iou(probability_B1HW: Tensor, mask_B1HW: Tensor) -> tuple[Tensor, Tensor]:
    """Equations 2 and 3 for each image.

    Args:
        probability_B1HW: float32, in [0, 1].
        mask_B1HW: float32, 0 and 1.

    Returns:
        Dice and IoU, each a float32 tensor (B,) in [0, 1].
    """
    axes = (1, 2, 3)
    both_B = (probability_B1HW * mask_B1HW).sum(axes)
    sizes_B = probability_B1HW.sum(axes) + mask_B1HW.sum(axes)
    dice_B = (2 * both_B + EPSILON) / (sizes_B + EPSILON)
    iou_B = (both_B + EPSILON) / (sizes_B - both_B + EPSILON)
    return dice_B, iou_B


def segmentation_loss(
    logits_B1HW: Tensor, mask_B1HW: Tensor, *, dice_weight: float, iou_weight: float, bce_weight: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """The paper's loss for each image, with an optional share of binary cross-entropy.

    loss = 1 - (w_dice Dice + w_iou IoU) - w_bce (1 - BCE), with weights that sum to 1: each term weighs a measure
    that is 0 for a perfect mask, and with w_bce = 0 it is the paper's.

    Args:
        logits_B1HW: what the model gives, of any float type; the loss is computed in float32.
        mask_B1HW: 0 and 1, float32.
        dice_weight: w_dice, not negative; the three sum to 1.
        iou_weight: w_iou.
        bce_weight: w_bce.

    Returns:
        Loss, soft Dice and soft IoU, each a float32 tensor (B,); Dice and IoU carry gradients too.
    """
    logits_B1HW = logits_B1HW.float()
    dice_B, iou_B = soft_dice_iou(torch.sigmoid(logits_B1HW), mask_B1HW)
    loss_B = 1 - (dice_weight * dice_B + iou_weight * iou_B)
    if bce_weight:
        bce_B = F.binary_cross_entropy_with_logits(logits_B1HW, mask_B1HW, reduction="none").mean((1, 2, 3))
        loss_B = loss_B - bce_weight * (1 - bce_B)
    return loss_B, dice_B, iou_B
