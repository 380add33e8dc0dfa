"""python -m pytest tests/trainables/test_loop.py: order, shares, schedules, accumulation."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.trainables.fakes import ArraySamples, disc_data, small_config, steady_config, without_times
from trainables.step.batches import Batches, draw_odds, epoch_order, share
from trainables.step.optimisers import build_optimiser, learning_rate_factor
from trainables.trial import NonFiniteLoss, TrialSession


def rate(schedule: str, done: float, *, epochs: int = 10, warmup: int = 0) -> float:
    return learning_rate_factor(schedule, epochs_done=done, epochs=epochs, warmup_epochs=warmup)


def order(images: int, epoch: int, **settings: Any) -> np.ndarray:
    """The order of an epoch over images whose lesions grow by one pixel each, from none."""
    masks_NHW = np.arange(16) < np.arange(images)[:, None, None]
    samples = ArraySamples(np.zeros((images, 1, 16), np.uint8), masks_NHW.astype(np.uint8))
    return epoch_order(Batches(samples, torch.device("cpu")), small_config(**settings), epoch)


def test_an_epoch_takes_each_image_once_and_leaves_an_incomplete_batch_out() -> None:
    order_SB = order(11, 0, batch_size=4)
    assert order_SB.shape == (2, 4)
    assert len(set(order_SB.ravel().tolist())) == 8


def test_a_split_smaller_than_a_batch_is_one_batch() -> None:
    assert sorted(order(3, 0, batch_size=8).ravel().tolist()) == [0, 1, 2]


@pytest.mark.parametrize("power", [0, 1])
def test_the_order_depends_on_seed_and_epoch_alone(power: float) -> None:
    np.random.seed(5)
    first = order(40, 2, small_lesion_power=power)
    np.random.seed(6)
    assert np.array_equal(first, order(40, 2, small_lesion_power=power, learning_rate=0.5))
    assert not np.array_equal(first, order(40, 3, small_lesion_power=power))
    assert not np.array_equal(first, order(40, 2, small_lesion_power=power, seed=1))


def test_small_lesions_are_drawn_more_often_by_the_power_of_their_area() -> None:
    odds_N = draw_odds(np.array([50, 100, 200, 0]), 1.0)
    assert odds_N.sum() == pytest.approx(1)
    assert odds_N / odds_N[1] == pytest.approx([2, 1, 0.5, 1])  # without a lesion: as the median one
    assert draw_odds(np.array([50, 100, 200]), 0.5) == pytest.approx(np.array([2, 2**0.5, 1]) / (3 + 2**0.5))
    assert draw_odds(np.array([0, 0]), 1.0) == pytest.approx([0.5, 0.5])
    drawn = np.concatenate([order(16, epoch, small_lesion_power=2, batch_size=16).ravel() for epoch in range(40)])
    assert np.count_nonzero(drawn == 1) > 20 * np.count_nonzero(drawn == 15)


@pytest.mark.parametrize(("images", "workers"), [(8, 1), (8, 2), (7, 2), (9, 4), (2, 3), (0, 2)])
def test_shares_are_contiguous_and_cover_all(images: int, workers: int) -> None:
    parts = [list(range(images))[share(images, rank, workers)] for rank in range(workers)]
    assert [i for part in parts for i in part] == list(range(images))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_schedules_at_chosen_points() -> None:
    assert [rate("constant", t) for t in (0, 5, 10)] == [1, 1, 1]
    assert [rate("cosine", t) for t in (0, 5, 10)] == pytest.approx([1, 0.5, 0])
    assert [rate("linear", t) for t in (0, 2.5, 10)] == pytest.approx([1, 0.75, 0])
    assert [rate("polynomial", t) for t in (0, 5, 10)] == pytest.approx([1, 0.5**0.9, 0])
    assert [rate("step", t) for t in (0, 4.9, 5, 7.5, 10)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])


def test_warm_up_rises_linearly_and_the_schedule_takes_what_is_left() -> None:
    assert [rate("cosine", t, warmup=2) for t in (0, 0.5, 1, 2, 6, 10)] == pytest.approx([0, 0.25, 0.5, 1, 0.5, 0])


def test_a_trial_follows_its_schedule() -> None:
    session = TrialSession(small_config(schedule="linear", warmup_epochs=1, learning_rate=0.01), disc_data())
    rates = [session.train_epoch().learning_rate for _ in range(3)]
    # 3 steps an epoch: the last of warm-up has the whole rate, then 1 - t at the last step of each epoch.
    assert rates == pytest.approx([0.01, 0.01 * (1 - 2 / 6), 0.01 * (1 - 5 / 6)])


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "radam", "rmsprop", "sgd"])
def test_every_optimiser_moves_the_weights_and_can_be_saved(name: str) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    model = torch.nn.ParameterList([weight])
    optimiser = build_optimiser(small_config(optimiser=name, weight_decay=0.1), model, torch.device("cpu"))
    (weight**2).sum().backward()
    optimiser.step()
    assert bool((weight < 1).all())
    optimiser.load_state_dict(optimiser.state_dict())


@pytest.mark.parametrize("parts", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_accumulation_changes_nothing_but_rounding(parts: int) -> None:
    rows = []
    for accumulation in (1, parts):
        # SGD: Adam divides by the gradient's size, which makes a large step of a rounding error around 0.
        config = steady_config(accumulation=accumulation, optimiser="sgd", learning_rate=0.05, epochs=2)
        session = TrialSession(config, disc_data())
        rows.append(without_times([session.train_epoch() for _ in range(2)]))
    for whole, split in zip(*rows, strict=True):
        for key, value in whole.items():
            # A pixel at the threshold that flips changes the hard measures of one small image by some thousandths.
            hard = key in ("val_dice", "val_iou", "raw_val_dice")
            assert split[key] == pytest.approx(value, rel=5e-4, abs=1e-2 if hard else 5e-5), key


def test_clipping_bounds_the_step() -> None:
    def weights(session: TrialSession) -> torch.Tensor:
        return torch.cat([p.detach().reshape(-1) for p in session._learner.model.parameters()])

    def moved(clip: float | None) -> float:
        config = steady_config(optimiser="sgd", momentum=0, learning_rate=1.0, gradient_clip_norm=clip, batch_size=12)
        session = TrialSession(config, disc_data())
        before = weights(session)
        session.train_epoch()
        return float((weights(session) - before).norm())

    assert moved(0.01) == pytest.approx(0.01, rel=1e-3)
    assert moved(None) > 0.02


def test_a_loss_that_is_not_finite_ends_the_trial_and_says_where() -> None:
    session = TrialSession(small_config(optimiser="sgd", learning_rate=10.0), disc_data())
    with torch.no_grad():
        next(session._learner.model.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteLoss, match=r"epoch 1, step 1;.*learning_rate"):
        session.train_epoch()
