"""python -m pytest tests/trainables/test_losses.py: the paper's loss against values worked out by hand."""

import pytest
import torch

from trainables.config import TrialConfig
from trainables.step.losses import EPSILON, boundary_score, segmentation_loss, soft_dice_iou


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
    loss_B, dice_B, iou_B = segmentation_loss(logits, picture(1, 0, 1, 0), TrialConfig())
    assert dice_B.item() == pytest.approx(3.0001 / 3.8001, abs=1e-6)
    assert iou_B.item() == pytest.approx(1.5001 / 2.3001, abs=1e-6)
    assert loss_B.item() == pytest.approx(1 - (0.4 * 3.0001 / 3.8001 + 0.6 * 1.5001 / 2.3001), abs=1e-6)


def test_cross_entropy_takes_its_share() -> None:
    logits, mask = torch.zeros(1, 1, 2, 2), picture(1, 1, 0, 0)
    config = TrialConfig(dice_weight=0.25, iou_weight=0.25, bce_weight=0.5)
    loss_B, dice_B, iou_B = segmentation_loss(logits, mask, config)
    by_hand = 0.25 * (1 - dice_B) + 0.25 * (1 - iou_B) + 0.5 * torch.log(torch.tensor(2.0))
    assert loss_B.item() == pytest.approx(by_hand.item(), abs=1e-6)


def test_each_image_counts_alike_whatever_the_size_of_its_lesion() -> None:
    probability = torch.cat([picture(1, 0, 0, 0), picture(0, 0, 0, 0)])
    mask = torch.cat([picture(1, 0, 0, 0), picture(1, 1, 1, 1)])
    dice_B, _ = soft_dice_iou(probability, mask)
    assert dice_B.mean().item() == pytest.approx(0.5, abs=1e-4)


def test_half_precision_logits_give_a_float32_loss_with_gradients() -> None:
    logits = torch.full((1, 1, 64, 64), 3.0, dtype=torch.bfloat16, requires_grad=True)
    loss_B, _, _ = segmentation_loss(logits, torch.ones(1, 1, 64, 64), TrialConfig())
    loss_B.sum().backward()
    assert loss_B.dtype == torch.float32
    assert logits.grad is not None and bool((logits.grad < 0).all())


def only(term: str, **settings: float) -> TrialConfig:
    """A configuration whose loss is one term."""
    return TrialConfig(**{"dice_weight": 0, "iou_weight": 0, term: 1, **settings})


def test_focal_loss_is_cross_entropy_with_less_weight_on_what_is_right() -> None:
    q = torch.tensor([0.9, 0.8, 0.6, 0.9])  # the probability of what is true
    logits, mask = torch.logit(picture(0.9, 0.2, 0.6, 0.1)), picture(1, 0, 1, 0)
    for gamma in (0.5, 2.0):
        (loss,) = segmentation_loss(logits, mask, only("focal_weight", focal_gamma=gamma))[0]
        assert loss.item() == pytest.approx((-((1 - q) ** gamma) * q.log()).mean().item(), abs=1e-6)


def test_tversky_prices_false_and_missed_pixels_apart() -> None:
    probability, mask = picture(0.9, 0.2, 0.6, 0.1), picture(1, 0, 1, 0)
    both, false_found, missed = 1.5, 0.3, 0.5
    for alpha in (0.3, 0.7):
        (loss,) = segmentation_loss(torch.logit(probability), mask, only("tversky_weight", tversky_alpha=alpha))[0]
        expected = 1 - (both + 5e-5) / (both + alpha * false_found + (1 - alpha) * missed + 5e-5)
        assert loss.item() == pytest.approx(expected, abs=1e-6)


def disc(*, shift: int = 0, radius: int = 5) -> torch.Tensor:
    y_HW, x_HW = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    return ((y_HW - 12) ** 2 + (x_HW - 10 - shift) ** 2 <= radius**2).float()[None, None]


def test_the_boundary_term_asks_for_the_edge_within_its_tolerance() -> None:
    scores = [boundary_score(disc(shift=shift), disc(), tolerance_px=2).item() for shift in (0, 1, 2, 4, 8)]
    assert scores[0] == pytest.approx(1)
    assert scores[1] > 0.99
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.5
    assert boundary_score(disc(shift=4), disc(), tolerance_px=4).item() > scores[3]


def test_two_empty_masks_have_no_edges_to_miss() -> None:
    empty = torch.zeros(1, 1, 8, 8)
    assert boundary_score(empty, empty, tolerance_px=2).item() == pytest.approx(1)
    assert boundary_score(disc(), torch.zeros(1, 1, 24, 24), tolerance_px=2).item() < 0.1


def test_an_even_prediction_has_a_bounded_gradient_at_the_edge() -> None:
    logits = torch.zeros(1, 1, 64, 64, requires_grad=True)
    boundary_score(torch.sigmoid(logits), torch.zeros(1, 1, 64, 64), tolerance_px=2).sum().backward()
    assert logits.grad is not None and logits.grad.norm() < 10


TERMS = ("dice_weight", "iou_weight", "bce_weight", "focal_weight", "tversky_weight", "boundary_weight")


@pytest.mark.parametrize("term", TERMS)
def test_every_term_is_0_for_a_perfect_mask_and_goes_down_by_its_gradient(term: str) -> None:
    mask = disc()
    (perfect,) = segmentation_loss((mask * 2 - 1) * 40, mask, only(term))[0]
    assert perfect.item() == pytest.approx(0, abs=1e-4)
    logits = torch.randn(1, 1, 24, 24, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = segmentation_loss(logits, mask, only(term))[0].sum()
    before.backward()
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())
    after = segmentation_loss(logits.detach() - 0.1 * logits.grad / logits.grad.norm(), mask, only(term))[0].sum()
    assert after < before


@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_taken_image_by_image(term: str) -> None:
    logits = torch.randn(3, 1, 24, 24, generator=torch.Generator().manual_seed(1))
    mask = torch.cat([disc(), disc(radius=2), torch.zeros(1, 1, 24, 24)])
    together = segmentation_loss(logits, mask, only(term))[0]
    alone = torch.cat([segmentation_loss(logits[i : i + 1], mask[i : i + 1], only(term))[0] for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize(("term", "teaches"), [(t, t in ("bce_weight", "focal_weight")) for t in TERMS[:-1]])
def test_an_empty_mask_teaches_by_cross_entropy_and_focal_and_hardly_by_overlap(term: str, teaches: bool) -> None:
    logits = torch.zeros(1, 1, 224, 224, requires_grad=True)
    segmentation_loss(logits, torch.zeros(1, 1, 224, 224), only(term))[0].sum().backward()
    assert logits.grad is not None
    assert (logits.grad.norm().item() > 1e-4) == teaches


def test_the_papers_loss_is_not_changed_by_terms_of_weight_0() -> None:
    logits = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    mask = (logits > 1).float()
    loss_B, dice_B, iou_B = segmentation_loss(logits, mask, TrialConfig())
    assert torch.equal(loss_B, 1 - (0.4 * dice_B + 0.6 * iou_B))
