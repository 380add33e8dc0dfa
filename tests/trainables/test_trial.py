"""python -m pytest tests/trainables/test_trial.py: a trial learns, repeats, goes on where it stopped, and lets go."""

import math
import random
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.storage import Folder
from tests.trainables.fakes import ArraySamples, disc_data, discs, epoch_row, small_config, train, without_times
from trainables.record import CHECKPOINTS, MEASURES, TIMES, best_epoch
from trainables.trial import TrialData, TrialSession, untrained_measures


def test_a_row_says_what_it_should() -> None:
    (row,) = train(small_config(epochs=1))
    assert list(row.model_dump()) == ["epoch", "learning_rate", *MEASURES, *TIMES]
    assert row.epoch == 1
    assert row.images_per_s == pytest.approx(12 / row.train_s)
    assert 0.05 < row.peak_memory_gb < 64
    assert row.val_dice <= 2 * row.val_iou / (1 + row.val_iou) + 1e-12
    assert row.val_loss == pytest.approx(1 - 0.4 * row.val_dice_soft - 0.6 * row.val_iou_soft, abs=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_figures_to_the_bit(precision: str) -> None:
    config = small_config(precision=precision)
    first = without_times(train(config))
    torch.rand(17), np.random.rand(3), random.random()  # another trial has used the random states in between
    assert without_times(train(config)) == first
    assert without_times(train(small_config(precision=precision, seed=1))) != first


def test_a_trial_learns_discs() -> None:
    data = TrialData(discs(48, seed=1), discs(16, seed=2))
    config = small_config(epochs=16, batch_size=8, learning_rate=3e-3, dice_weight=0.5, iou_weight=0.5)
    before = untrained_measures(config, data)["dice"]
    history = train(config, data=data, until=lambda row: row.val_dice > 0.85)
    assert before < 0.4
    assert history[-1].val_dice > 0.85
    assert history[-1].train_loss < history[0].train_loss


# fpn draws random numbers for its dropout while it trains.
@pytest.mark.parametrize("changes", [{}, {"decoder": "fpn"}, {"precision": "bf16", "schedule": "cosine"}])
def test_a_resumed_trial_equals_an_undisturbed_one_to_the_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = small_config(**changes)
    undisturbed = without_times(train(config))
    stopped = train(config, tmp_path, until=lambda row: row.epoch == 2)
    assert without_times(stopped) == undisturbed[:2]
    random.seed(0), torch.manual_seed(0)
    assert without_times(train(config, tmp_path)) == undisturbed


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    train(small_config(), tmp_path, until=lambda row: row.epoch == 1)
    session = TrialSession(small_config(learning_rate=0.5), disc_data())
    with pytest.raises(ValueError, match=r"learning_rate 0\.001 there, 0\.5 here"):
        session.restore(Folder(tmp_path) / CHECKPOINTS)


def test_batches_in_more_parts_are_another_training(tmp_path: Path) -> None:
    """Batch norm sees the parts: a checkpoint of fewer is none to go on from."""
    train(small_config(), tmp_path, until=lambda row: row.epoch == 1)
    with pytest.raises(ValueError, match="accumulation 1 there, 2 here"):
        TrialSession(small_config(accumulation=2), disc_data()).restore(Folder(tmp_path) / CHECKPOINTS)


def test_nothing_to_restore_changes_nothing(tmp_path: Path) -> None:
    session = TrialSession(small_config(), disc_data())
    assert not session.restore(Folder(tmp_path / "none"))
    assert (session.epoch, session.history, session.best_epoch) == (0, [], None)


def test_the_best_epochs_weights_are_kept_and_come_back(tmp_path: Path) -> None:
    config = small_config(epochs=6)
    session = TrialSession(config, disc_data())
    for _ in range(6):
        session.train_epoch()
        session.save(Folder(tmp_path / "checkpoint"))
    best = session.best_epoch
    assert best is not None
    wanted = session.history[best - 1].val_dice
    assert session.restore_best() == best
    assert session.evaluate("val")["dice"] == wanted

    again = TrialSession(config, disc_data())
    again.restore(Folder(tmp_path / "checkpoint"))
    assert again.restore_best() == best
    assert again.evaluate("val")["dice"] == wanted


def test_the_first_of_equal_epochs_is_the_best() -> None:
    history = [epoch_row(i + 1, dice) for i, dice in enumerate((0.1, 0.7, 0.3, 0.7, math.nan))]
    assert best_epoch(history) == history[1]
    assert best_epoch([epoch_row(1, math.nan)]) is best_epoch([]) is None


def test_a_closed_session_lets_its_model_go() -> None:
    session = TrialSession(small_config(), disc_data())
    session.train_epoch()
    model = weakref.ref(session._learner.model)
    session.close()
    assert model() is None


def test_measures_of_a_split_are_means_over_its_images() -> None:
    data = disc_data()
    session = TrialSession(small_config(), data)
    whole = session.evaluate("val")
    parts = [
        TrialSession(small_config(), TrialData(data.train, ArraySamples(data.val.images_NHW[p], data.val.masks_NHW[p])))
        for p in (slice(0, 3), slice(3, 5))
    ]
    measures = [part.evaluate("val") for part in parts]
    for name in ("loss", "dice", "iou", "dice_soft", "iou_soft"):
        assert whole[name] == pytest.approx((3 * measures[0][name] + 2 * measures[1][name]) / 5, abs=1e-6)
    assert whole["images"] == 5


def test_a_missing_split_is_named() -> None:
    data = disc_data()
    with pytest.raises(ValueError, match="no test split"):
        TrialSession(small_config(), TrialData(data.train, data.val)).evaluate("test")
    with pytest.raises(ValueError, match="no val split"):
        TrialSession(small_config(), TrialData(data.train, discs(0, seed=0)))


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="48 px is not a multiple of 32; the nearest that work are 32 and 64"):
        TrialSession(small_config(), disc_data(size_px=48))
    with pytest.raises(ValueError, match="of one size"):
        TrialSession(small_config(), TrialData(discs(4, seed=0), discs(4, seed=0, size_px=64)))


def test_learning_rates_and_losses_are_plain_finite_numbers() -> None:
    for row in train(small_config(epochs=2)):
        assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in row.model_dump().values())
