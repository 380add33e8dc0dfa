"""python -m pytest tests/trainables/test_metrics.py: hard measures by hand, and sums that add up."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.step.metrics import SOFT, THRESHOLDS, MetricSums, hard_dice_iou

EMPTY, FULL, LEFT, TOP = (0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 1, 0), (1, 1, 0, 0)


def picture(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 2, 2)


@pytest.mark.parametrize(
    ("predicted", "true", "dice", "iou"),
    [
        (LEFT, TOP, 0.5, 1 / 3),
        (LEFT, LEFT, 1.0, 1.0),
        (LEFT, (0, 1, 0, 1), 0.0, 0.0),
        (FULL, LEFT, 2 / 3, 0.5),
        (FULL, FULL, 1.0, 1.0),
        (EMPTY, EMPTY, 1.0, 1.0),
        (EMPTY, LEFT, 0.0, 0.0),
        (LEFT, EMPTY, 0.0, 0.0),
    ],
)
def test_hard_measures_by_hand(predicted: tuple, true: tuple, dice: float, iou: float) -> None:
    dice_B, iou_B = hard_dice_iou(0.98 * picture(predicted) + 0.01, picture(true))
    assert (dice_B.item(), iou_B.item()) == pytest.approx((dice, iou))


def test_a_pixel_is_lesion_only_above_the_threshold() -> None:
    probability, mask = picture((0.3, 0.5, 0.7, 0.1)), picture((0, 1, 1, 0))
    assert hard_dice_iou(probability, mask, threshold=0.5)[0].item() == pytest.approx(2 / 3)
    assert hard_dice_iou(probability, mask, threshold=0.4)[0].item() == 1.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=12))
def test_mean_dice_never_exceeds_what_jensen_allows(pairs: list[tuple[int, int]]) -> None:
    bits = torch.tensor([[[(n >> bit) & 1 for bit in range(8)] for n in pair] for pair in pairs]).float()
    dice_B, iou_B = hard_dice_iou(bits[:, 0].view(-1, 1, 2, 4), bits[:, 1].view(-1, 1, 2, 4))
    mean_iou = iou_B.mean().item()
    assert dice_B.mean().item() <= 2 * mean_iou / (1 + mean_iou) + 1e-12


CPU = torch.device("cpu")


def batch(images: int = 7) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Logits, masks, and three values an image."""
    generator = torch.Generator().manual_seed(0)
    logits_B1HW = torch.randn(images, 1, 8, 8, generator=generator)
    mask_B1HW = (logits_B1HW + torch.randn(images, 1, 8, 8, generator=generator) > 0.5).float()
    return logits_B1HW, mask_B1HW, [torch.rand(images, generator=generator) for _ in SOFT]


def test_sums_of_parts_are_the_sums_of_the_whole() -> None:
    logits, mask, soft = batch()
    for thresholds in ((0.5,), THRESHOLDS):
        whole = MetricSums.none(thresholds, CPU).plus(logits, mask, soft).means()
        parts = MetricSums.none(thresholds, CPU)
        for part in (slice(3), slice(3, 7)):
            parts = parts.plus(logits[part], mask[part], [value[part] for value in soft])
        assert parts.means() == pytest.approx(whole, rel=1e-12)
        assert whole["loss"] == pytest.approx(soft[0].double().mean().item(), rel=1e-12)


def test_of_several_thresholds_the_one_with_the_highest_mean_dice_counts() -> None:
    logits, mask, soft = batch()
    found = MetricSums.none(THRESHOLDS, CPU).plus(logits, mask, soft).means()
    by_hand = {cut: hard_dice_iou(torch.sigmoid(logits), mask, threshold=cut) for cut in THRESHOLDS}
    best = max(by_hand, key=lambda cut: by_hand[cut][0].mean())
    assert found["cut_at"] == best
    assert found["dice"] == pytest.approx(by_hand[best][0].mean().item())
    assert found["iou"] == pytest.approx(by_hand[best][1].mean().item())


def test_of_equally_good_thresholds_the_one_nearest_to_a_half_counts() -> None:
    logits = torch.tensor([5.0, -5.0]).view(1, 1, 1, 2)
    found = MetricSums.none(THRESHOLDS, CPU).plus(logits, (logits > 0).float(), [torch.zeros(1)] * 3).means()
    assert (found["cut_at"], found["dice"]) == (0.5, 1.0)


def test_no_images_have_no_mean() -> None:
    with pytest.raises(ValueError, match="without images"):
        MetricSums.none((0.5,), CPU).means()
