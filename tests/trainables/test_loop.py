"""python -m pytest tests/trainables/test_loop.py: order, shares, schedules, accumulation."""

import numpy as np
import pytest
import torch

from tests.trainables.fakes import disc_data, small_config, steady_config, without_times
from trainables.step.loop import epoch_order, share
from trainables.step.optimisers import build_optimiser, learning_rate_factor
from trainables.step.precision import best_precision, check_precision
from trainables.trial import NonFiniteLoss, TrialSession


def rate(schedule: str, done: float, *, epochs: int = 10, warmup: int = 0) -> float:
    return learning_rate_factor(schedule, epochs_done=done, epochs=epochs, warmup_epochs=warmup)


def test_an_epoch_takes_each_image_once_and_leaves_an_incomplete_batch_out() -> None:
    order_SB = epoch_order(11, small_config(batch_size=4), 0)
    assert order_SB.shape == (2, 4)
    assert len(set(order_SB.ravel().tolist())) == 8


def test_a_split_smaller_than_a_batch_is_one_batch() -> None:
    assert sorted(epoch_order(3, small_config(batch_size=8), 0).ravel().tolist()) == [0, 1, 2]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    np.random.seed(5)
    first = epoch_order(40, small_config(), 2)
    np.random.seed(6)
    assert np.array_equal(first, epoch_order(40, small_config(learning_rate=0.5), 2))
    assert not np.array_equal(first, epoch_order(40, small_config(), 3))
    assert not np.array_equal(first, epoch_order(40, small_config(seed=1), 2))


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
    optimiser = build_optimiser(small_config(optimiser=name, weight_decay=0.1), [weight], torch.device("cpu"))
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
            hard = key in ("val_dice", "val_iou")
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


def test_a_cpu_knows_its_precision_and_refuses_fp16() -> None:
    assert best_precision(torch.device("cpu")) in ("fp32", "bf16")
    with pytest.raises(ValueError, match="fp16 needs a CUDA device"):
        check_precision("fp16", torch.device("cpu"))
    with pytest.raises(ValueError, match="fp16 needs a CUDA device"):
        TrialSession(small_config(precision="fp16"), disc_data())


@pytest.mark.parametrize(
    ("capability", "expected"), [((6, 0), "fp32"), ((7, 0), "fp16"), ((7, 5), "fp16"), ((9, 0), "bf16")]
)
def test_a_gpu_trains_in_what_it_is_fast_in(monkeypatch: pytest.MonkeyPatch, capability: tuple, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert best_precision(torch.device("cuda")) == expected
