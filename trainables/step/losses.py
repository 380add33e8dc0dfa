"""The paper's soft Dice and IoU (equations 2 and 3) and its loss, per image, and further terms beside them.

With e = 0.0001, y the mask (0 or 1) and p the probability of lesion, sums over the pixels of one image:

    Dice     (2 sum(y p) + e) / (sum y + sum p + e)                equation 2
    IoU      (sum(y p) + e) / (sum y + sum p - sum(y p) + e)       equation 3
    BCE      mean of -log q, where q = p on the lesion and 1 - p elsewhere
    focal    mean of -(1 - q)^gamma log q                          Lin et al. 2017, without its class weights
    Tversky  (sum(y p) + e/2) / (sum(y p) + a sum((1 - y) p) + (1 - a) sum(y (1 - p)) + e/2)     Salehi et al. 2017
    boundary 2 P R / (P + R), precision and recall of the edges within a tolerance               Bokhovkin, Burnaev 2019

    loss = w_dice (1 - Dice) + w_iou (1 - IoU) + w_bce BCE + w_focal focal
           + w_tversky (1 - Tversky) + w_boundary (1 - boundary)            the weights sum to 1

With w_dice + w_iou = 1 this is the paper's 1 - (w_dice Dice + w_iou IoU), section II C, with 0.4 and 0.6. Equation 2 is
printed as 2 (sum(y p) + e) / (sum y + sum p + e), by which two empty masks would score 2; the factor is taken to the
sum alone, so that they score 1 and no value exceeds it. Tversky is Dice at a = 1/2.

All are computed per image and then averaged over images, not over the pixels of a whole batch: so the loss of a batch
does not depend on how it is split over workers or accumulation steps, and a large lesion does not hide a small one.
That is why the losses of segmentation-models-pytorch, which take a batch as one picture, are not used; torchvision's
focal loss works pixel by pixel, and is.

**An image without a lesion teaches next to nothing by Dice, IoU and Tversky alone**: any prediction scores about 0
against an empty mask, and the gradient vanishes. BCE and focal do teach it, and boundary that it has no edges.

Shapes: B batch, H rows, W columns.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from trainables.config import TrialConfig
from trainables.net.vision_ops import sigmoid_focal_loss

EPSILON = 1e-4
"""The paper's auxiliary value against division by zero."""
PIXELS = (1, 2, 3)
"""The axes of one image."""


def soft_dice_iou(probability_B1HW: Tensor, mask_B1HW: Tensor) -> tuple[Tensor, Tensor]:
    """Equations 2 and 3 for each image.

    Args:
        probability_B1HW: float32, in [0, 1].
        mask_B1HW: float32, 0 and 1.

    Returns:
        Dice and IoU, each a float32 tensor (B,) in [0, 1].
    """
    both_B = (probability_B1HW * mask_B1HW).sum(PIXELS)
    sizes_B = probability_B1HW.sum(PIXELS) + mask_B1HW.sum(PIXELS)
    dice_B = (2 * both_B + EPSILON) / (sizes_B + EPSILON)
    iou_B = (both_B + EPSILON) / (sizes_B - both_B + EPSILON)
    return dice_B, iou_B


def segmentation_loss(logits_B1HW: Tensor, mask_B1HW: Tensor, config: TrialConfig) -> tuple[Tensor, Tensor, Tensor]:
    """The configuration's loss for each image; a term whose weight is 0 is not computed.

    Args:
        logits_B1HW: what the model gives, of any float type; the loss is computed in float32.
        mask_B1HW: 0 and 1, float32.
        config: the terms' weights, which sum to 1, and their parameters.

    Returns:
        Loss, soft Dice and soft IoU, each a float32 tensor (B,); Dice and IoU carry gradients too.
    """
    logits_B1HW = logits_B1HW.float()
    probability_B1HW = torch.sigmoid(logits_B1HW)
    dice_B, iou_B = soft_dice_iou(probability_B1HW, mask_B1HW)
    # Written as 1 minus what is gained, so that with the paper's two terms it is the paper's formula to the bit.
    loss_B = 1 - (config.dice_weight * dice_B + config.iou_weight * iou_B)
    if config.bce_weight:
        bce_B = F.binary_cross_entropy_with_logits(logits_B1HW, mask_B1HW, reduction="none").mean(PIXELS)
        loss_B = loss_B - config.bce_weight * (1 - bce_B)
    if config.focal_weight:
        focal_B1HW = sigmoid_focal_loss(logits_B1HW, mask_B1HW, alpha=-1, gamma=config.focal_gamma, reduction="none")
        loss_B = loss_B - config.focal_weight * (1 - focal_B1HW.mean(PIXELS))
    if config.tversky_weight:
        tversky_B = _tversky(probability_B1HW, mask_B1HW, config.tversky_alpha)
        loss_B = loss_B - config.tversky_weight * tversky_B
    if config.boundary_weight:
        boundary_B = boundary_score(probability_B1HW, mask_B1HW, tolerance_px=config.boundary_tolerance_px)
        loss_B = loss_B - config.boundary_weight * boundary_B
    return loss_B, dice_B, iou_B


def boundary_score(probability_B1HW: Tensor, mask_B1HW: Tensor, *, tolerance_px: int) -> Tensor:
    """How well the edge of the predicted lesion lies on the true one, for each image.

    The edge is the inner rim of one pixel (Bokhovkin and Burnaev 2019). Precision is the share of
    the predicted edge that lies within the tolerance of the true one, recall the reverse; the score is their F1.

    Args:
        probability_B1HW: float32, in [0, 1].
        mask_B1HW: float32, 0 and 1.
        tolerance_px: how far an edge may lie from the other.

    Returns:
        float32 (B,) in [0, 1]; 1 where both masks are empty.
    """
    found_B1HW, true_B1HW = _edge(probability_B1HW), _edge(mask_B1HW)
    precision_B = _share_near(found_B1HW, true_B1HW, tolerance_px)
    recall_B = _share_near(true_B1HW, found_B1HW, tolerance_px)
    return 2 * precision_B * recall_B / (precision_B + recall_B)


def _tversky(probability_B1HW: Tensor, mask_B1HW: Tensor, alpha: float) -> Tensor:
    both_B = (probability_B1HW * mask_B1HW).sum(PIXELS)
    false_found_B = (probability_B1HW * (1 - mask_B1HW)).sum(PIXELS)
    missed_B = ((1 - probability_B1HW) * mask_B1HW).sum(PIXELS)
    half = EPSILON / 2  # with which it is Dice at alpha = 1/2
    return (both_B + half) / (both_B + alpha * false_found_B + (1 - alpha) * missed_B + half)


def _edge(values_B1HW: Tensor) -> Tensor:
    """The inner rim: what is in the lesion and touches a pixel that is not."""
    outside_B1HW = 1 - values_B1HW
    return F.max_pool2d(outside_B1HW, kernel_size=3, stride=1, padding=1) - outside_B1HW


def _share_near(edge_B1HW: Tensor, other_B1HW: Tensor, tolerance_px: int) -> Tensor:
    """The share of an edge that lies within the tolerance of another; 1 if there is no edge.

    Of one pixel more on both sides: with less, an even prediction, which has hardly an edge, has a gradient of 10,000s.
    """
    size = 2 * tolerance_px + 1
    near_B1HW = F.max_pool2d(other_B1HW, kernel_size=size, stride=1, padding=tolerance_px)
    return ((edge_B1HW * near_B1HW).sum(PIXELS) + 1) / (edge_B1HW.sum(PIXELS) + 1)
