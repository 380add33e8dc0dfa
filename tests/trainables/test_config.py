"""python -m pytest tests/trainables/test_config.py: what a configuration may be, and which are the same training."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from trainables.config import PAPER_TO_SMP, TrialConfig

SAME = {
    "adam and adamw without weight decay": ({"optimiser": "adam"}, {"optimiser": "adamw"}),
    "the momentum of adam": ({"momentum": 0.9}, {"momentum": 0.5}),
    "the norm of a decoder without the choice": (
        {"decoder": "fpn"},
        {"decoder": "fpn", "decoder_norm": "identity"},
    ),
    "where probabilities are cut": ({"threshold": 0.4}, {"threshold": 0.5}),
    "proportional loss weights": ({"dice_weight": 1, "iou_weight": 1}, {"dice_weight": 2, "iou_weight": 2}),
    "tversky at 1/2 and dice": (
        {"dice_weight": 0, "iou_weight": 1, "tversky_weight": 1, "tversky_alpha": 0.5},
        {"dice_weight": 1, "iou_weight": 1},
    ),
    "focal at 0 and cross entropy": ({"focal_weight": 1, "focal_gamma": 0}, {"bce_weight": 1}),
    "parameters of terms of weight 0": (
        {"focal_gamma": 1, "tversky_alpha": 0.7, "boundary_tolerance_px": 5},
        {},
    ),
    "depth, width and attention where there are none": (
        {"decoder": "pspnet"},
        {"decoder": "pspnet", "encoder_depth": 4, "decoder_attention": "scse"},
    ),
    "the width of linknet": ({"decoder": "linknet"}, {"decoder": "linknet", "decoder_width": 2}),
    "widths of the same quarter": ({"decoder_width": 0.5}, {"decoder_width": 0.52}),
    **{f"the two names of {name}": ({"encoder": name}, {"encoder": smp}) for name, smp in PAPER_TO_SMP.items()},
}
OTHER = {
    "adam and adamw with weight decay": (
        {"optimiser": "adam", "weight_decay": 0.1},
        {"optimiser": "adamw", "weight_decay": 0.1},
    ),
    "the momentum of sgd": ({"optimiser": "sgd", "momentum": 0.9}, {"optimiser": "sgd", "momentum": 0.5}),
    "parts of a batch": ({"accumulation": 1}, {"accumulation": 2}),
    "depths": ({"encoder_depth": 4}, {}),
    "widths": ({"decoder_width": 0.5}, {}),
    "attention": ({"decoder_attention": "scse"}, {}),
    "focal": ({"focal_weight": 1}, {"bce_weight": 1}),
    "gammas": ({"focal_weight": 1, "focal_gamma": 1}, {"focal_weight": 1}),
    "tversky": ({"tversky_weight": 1}, {"tversky_weight": 1, "tversky_alpha": 0.7}),
    "tolerances": ({"boundary_weight": 1}, {"boundary_weight": 1, "boundary_tolerance_px": 4}),
    "seeds": ({"seed": 1}, {"seed": 2}),
    "budgets": ({"epochs": 4}, {"epochs": 5}),
    "vgg19 and vgg19_bn": ({"encoder": "vgg19"}, {"encoder": "vgg19_bn"}),
}


def keys(pair: tuple[dict[str, Any], dict[str, Any]]) -> set[str]:
    return {TrialConfig(**settings).key() for settings in pair}


@pytest.mark.parametrize("case", SAME)
def test_what_trains_the_same_has_one_key(case: str) -> None:
    assert len(keys(SAME[case])) == 1


@pytest.mark.parametrize("case", OTHER)
def test_what_trains_differently_has_two_keys(case: str) -> None:
    assert len(keys(OTHER[case])) == 2


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e308])
@pytest.mark.parametrize(
    "name", ["dice_weight", "bce_weight", "learning_rate", "gradient_clip_norm", "rotation_degrees"]
)
def test_numbers_that_are_no_settings_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        TrialConfig(**{name: value})


def test_a_batch_of_a_slip_is_refused() -> None:
    with pytest.raises(ValidationError, match="batch_size"):
        TrialConfig(batch_size=10**18)


@pytest.mark.parametrize(
    ("batch", "parts", "workers", "next_parts"),
    [
        (8, 1, 1, 2),
        (8, 2, 1, 4),
        (8, 4, 1, None),
        (8, 1, 2, 2),
        (8, 2, 2, None),
        (2, 1, 1, None),
        (6, 1, 1, 2),
        (6, 2, 1, None),
    ],
)
def test_a_batch_is_split_in_two_until_a_part_would_have_one_image(
    batch: int, parts: int, workers: int, next_parts: int | None
) -> None:
    assert TrialConfig(batch_size=batch, accumulation=parts).next_accumulation(workers) == next_parts
