"""python -m pytest tests/trainables/test_losses.py: the paper's loss against values worked out by hand."""

import pytest
import torch

from trainables.step.losses import EPSILON, segmentation_loss, soft_dice_iou


def picture(*values: float) -> torch.Tensor:
    """A 2 x 2 image as (1, 1, 2, 2)."""
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 2, 2)


# probabilities, mask, sum(y p), sum y, sum p
CASES = {
    "partly right": ((0.9, 0.2, 0.6, 0.1), (1, 0, 1, 0), 1.5, 2.0, 1.8),
    "all right": ((1, 0, 1, 0), (1, 0, 1, 0), 2.0, 2.0, 2.0),
    "all wrong": ((0, 1, 0, 1), (1, 0, 1, 0), 0.0, 2.0, 2.0),
    "empty mask, some predicted": ((0.5, 0, 0, 0), (0, 0, 0, 0), 0.0, 0.0, 0.5),
    "full mask, half predicted": ((1, 1, 0, 0), (1, 1, 1, 1), 2.0, 4.0, 2.0),
}


@pytest.mark.parametrize("case", CASES)
def test_dice_and_iou_follow_equations_2_and_3(case: str) -> None:
    probability, mask, both, true, predicted = CASES[case]
    dice_B, iou_B = soft_dice_iou(picture(*probability), picture(*mask))
    assert dice_B.item() == pytest.approx((2 * both + 1e-4) / (true + predicted + 1e-4), abs=1e-6)
    assert iou_B.item() == pytest.approx((both + 1e-4) / (true + predicted - both + 1e-4), abs=1e-6)


def test_two_empty_masks_score_1_and_not_2_as_equation_2_is_printed() -> None:
    dice_B, iou_B = soft_dice_iou(picture(0, 0, 0, 0), picture(0, 0, 0, 0))
    assert (dice_B.item(), iou_B.item()) == (1.0, 1.0)
    as_printed = 2 * (0 + EPSILON) / (0 + 0 + EPSILON)
    assert as_printed == 2.0


def test_two_full_masks_score_1() -> None:
    dice_B, iou_B = soft_dice_iou(picture(1, 1, 1, 1), picture(1, 1, 1, 1))
    assert (dice_B.item(), iou_B.item()) == pytest.approx((1.0, 1.0))


def test_the_loss_is_1_minus_the_weighted_measures() -> None:
    logits = torch.logit(picture(0.9, 0.2, 0.6, 0.1))
    loss_B, dice_B, iou_B = segmentation_loss(logits, picture(1, 0, 1, 0), dice_weight=0.4, iou_weight=0.6)
    assert dice_B.item() == pytest.approx(3.0001 / 3.8001, abs=1e-6)
    assert iou_B.item() == pytest.approx(1.5001 / 2.3001, abs=1e-6)
    assert loss_B.item() == pytest.approx(1 - (0.4 * 3.0001 / 3.8001 + 0.6 * 1.5001 / 2.3001), abs=1e-6)


def test_cross_entropy_takes_its_share() -> None:
    logits, mask = torch.zeros(1, 1, 2, 2), picture(1, 1, 0, 0)
    weights = {"dice_weight": 0.25, "iou_weight": 0.25, "bce_weight": 0.5}
    loss_B, dice_B, iou_B = segmentation_loss(logits, mask, **weights)
    by_hand = 0.25 * (1 - dice_B) + 0.25 * (1 - iou_B) + 0.5 * torch.log(torch.tensor(2.0))
    assert loss_B.item() == pytest.approx(by_hand.item(), abs=1e-6)


def test_each_image_counts_alike_whatever_the_size_of_its_lesion() -> None:
    probability = torch.cat([picture(1, 0, 0, 0), picture(0, 0, 0, 0)])
    mask = torch.cat([picture(1, 0, 0, 0), picture(1, 1, 1, 1)])
    dice_B, _ = soft_dice_iou(probability, mask)
    assert dice_B.mean().item() == pytest.approx(0.5, abs=1e-4)


def test_half_precision_logits_give_a_float32_loss_with_gradients() -> None:
    logits = torch.full((1, 1, 64, 64), 3.0, dtype=torch.bfloat16, requires_grad=True)
    loss_B, _, _ = segmentation_loss(logits, torch.ones(1, 1, 64, 64), dice_weight=0.4, iou_weight=0.6)
    loss_B.sum().backward()
    assert loss_B.dtype == torch.float32
    assert logits.grad is not None and bool((logits.grad < 0).all())
