"""python -m pytest tests/trainables/test_axes.py: every setting of a trial does what it says, over a resume too."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from cluster.storage import Folder
from tests.trainables.fakes import disc_data, small_config, train, without_times
from trainables.config import TrialConfig
from trainables.net.architecture import Architecture
from trainables.net.models import build_model
from trainables.record import CHECKPOINTS, checkpoint_name
from trainables.step import checkpoint
from trainables.trial import TrialSession

BASE = {"flip_horizontal": False, "brightness": 0.0, "contrast": 0.0, "epochs": 2}
UNET = {"decoder": "unet"}
CHANGES: dict[str, dict[str, Any]] = {
    "encoder": {"encoder": "tu-test_convnext"},
    "decoder": {"decoder": "fpn"},
    "decoder_norm": {"decoder_norm": "identity"},
    "encoder_depth": {"encoder_depth": 4},
    "decoder_width": {**UNET, "decoder_width": 0.25},
    "decoder_attention": {**UNET, "decoder_attention": "scse"},
    "dice_weight": {"dice_weight": 1.0},
    "iou_weight": {"iou_weight": 0.1},
    "bce_weight": {"bce_weight": 1.0},
    "focal_weight": {"focal_weight": 1.0},
    "focal_gamma": {"focal_weight": 1.0, "focal_gamma": 4.0},
    "tversky_weight": {"tversky_weight": 1.0},
    "tversky_alpha": {"tversky_weight": 1.0, "tversky_alpha": 0.7},
    "boundary_weight": {"boundary_weight": 1.0},
    "boundary_tolerance_px": {"boundary_weight": 1.0, "boundary_tolerance_px": 4},
    "optimiser": {"optimiser": "nadam"},
    "learning_rate": {"learning_rate": 1e-4},
    "weight_decay": {"weight_decay": 0.5},
    "momentum": {"optimiser": "sgd", "momentum": 0.1},
    "schedule": {"schedule": "linear"},
    "warmup_epochs": {"warmup_epochs": 1},
    "gradient_clip_norm": {"optimiser": "sgd", "gradient_clip_norm": 1e-3},
    "encoder_rate_factor": {"encoder_rate_factor": 0.1},
    "frozen_encoder_epochs": {"frozen_encoder_epochs": 1},
    "ema_decay": {"ema_decay": 0.9},
    "batch_size": {"batch_size": 6},
    "accumulation": {"accumulation": 2},
    "rotation_degrees": {"rotation_degrees": 90.0},
    "flip_horizontal": {"flip_horizontal": True},
    "flip_vertical": {"flip_vertical": True},
    "brightness": {"brightness": 0.5},
    "contrast": {"contrast": 0.5},
    "gamma": {"gamma": 1.0},
    "zoom": {"zoom": 0.5},
    "elastic": {"elastic": 0.1},
    "cutout": {"cutout": 0.5},
    "small_lesion_power": {"small_lesion_power": 2.0},
    "image_size_px": {"image_size_px": 32},
    "norm_statistics": {"norm_statistics": "running"},
    "precision": {"precision": "bf16"},
    "threshold": {"threshold": "validation"},
    "seed": {"seed": 1},
}
"""A setting -> a configuration that differs in it (and in what it needs to matter)."""
ELSEWHERE = {
    "encoder_weights": "test_pretrained.py",
    "normalisation": "tests/data_prep/test_shards.py",
    "channels_last": "changes the layout in memory, and results by rounding alone",
    "epochs": "the budget: test_trial.py",
}
MEASURED_ONLY = ("ema_decay", "norm_statistics", "threshold")
"""Settings that change what is measured, not what is learnt."""
WITHOUT = {"focal_gamma": {"focal_weight": 1.0}, "tversky_alpha": {"tversky_weight": 1.0}}
WITHOUT |= {"boundary_tolerance_px": {"boundary_weight": 1.0}, "momentum": {"optimiser": "sgd"}}
WITHOUT |= {"gradient_clip_norm": {"optimiser": "sgd"}, "decoder_width": UNET, "decoder_attention": UNET}
"""What each is compared with, where that is not the base."""


def data() -> Any:
    return disc_data(train=12, val=4, test=2, size_px=64)


def trained(**changes: Any) -> list[dict[str, Any]]:
    return without_times(train(small_config(**{**BASE, **changes}), data=data()))


@pytest.fixture(scope="module")
def plain() -> dict[str, list[dict[str, Any]]]:
    """Rows of the configurations that others are compared with, as they are asked for."""
    return {}


def test_every_setting_of_a_trial_is_looked_at() -> None:
    assert set(CHANGES) | set(ELSEWHERE) == set(TrialConfig.model_fields)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_changes_the_training_and_has_a_key_of_its_own(name: str, plain: dict[str, Any]) -> None:
    base = WITHOUT.get(name, {})
    if str(base) not in plain:
        plain[str(base)] = trained(**base)
    rows, before = trained(**CHANGES[name]), plain[str(base)]
    losses = ([row["train_loss"] for row in rows], [row["train_loss"] for row in before])
    assert (losses[0] == losses[1]) == (name in MEASURED_ONLY)
    assert rows != before
    same_key = small_config(**{**BASE, **CHANGES[name]}).key() == small_config(**{**BASE, **base}).key()
    assert same_key == (name == "threshold")


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_a_resumed_trial_equals_an_undisturbed_one_to_the_bit(name: str, tmp_path: Path) -> None:
    config = small_config(**{**BASE, **CHANGES[name], "epochs": 3})
    undisturbed = without_times(train(config, data=data()))
    train(config, tmp_path, until=lambda row: row.epoch == 1, data=data())
    torch.manual_seed(5)
    assert without_times(train(config, tmp_path, data=data())) == undisturbed


def weights(session: TrialSession, part: str) -> torch.Tensor:
    named = session._learner.model.named_parameters()
    return torch.cat([p.detach().reshape(-1).clone() for n, p in named if n.startswith(f"net.{part}.")])


def test_the_encoder_learns_at_its_share_of_the_rate() -> None:
    moved = {}
    for factor in (1.0, 0.1):
        plain_sgd = {"optimiser": "sgd", "momentum": 0.0, "batch_size": 12, "learning_rate": 0.01}
        session = TrialSession(small_config(**BASE, **plain_sgd, encoder_rate_factor=factor), data())
        before = {part: weights(session, part) for part in ("encoder", "decoder")}
        session.train_epoch()  # one step
        moved[factor] = {part: (weights(session, part) - before[part]).norm().item() for part in before}
    assert moved[0.1]["encoder"] == pytest.approx(0.1 * moved[1.0]["encoder"], rel=1e-3)
    assert moved[0.1]["decoder"] == pytest.approx(moved[1.0]["decoder"], rel=1e-3)


def test_a_frozen_encoder_stays_weights_and_statistics_and_learns_afterwards() -> None:
    session = TrialSession(small_config(**BASE, frozen_encoder_epochs=1), data())
    encoder = session._learner.model.get_submodule("net.encoder")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    decoder = weights(session, "decoder")
    session.train_epoch()
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not torch.equal(weights(session, "decoder"), decoder)
    assert session.parameters == TrialSession(small_config(**BASE), data()).parameters
    session.train_epoch()
    assert not torch.equal(torch.cat([p.detach().reshape(-1) for p in encoder.parameters()]), _flat(before, encoder))


def _flat(state: dict[str, torch.Tensor], module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([state[name].reshape(-1) for name, _ in module.named_parameters()])


def test_the_average_is_measured_kept_and_told_beside_the_weights_themselves(tmp_path: Path) -> None:
    config = small_config(**BASE, ema_decay=0.9)
    session = TrialSession(config, data())
    rows = [session.train_epoch() for _ in range(2)]
    assert any(row.raw_val_dice != row.val_dice for row in rows)
    raw, kept = session._learner.model.state_dict(), session._learner.judged.state_dict()
    moving = [name for name, value in raw.items() if value.is_floating_point() and not torch.equal(value, kept[name])]
    assert len(moving) > 10
    session.save(Folder(tmp_path))
    saved = checkpoint.load(Folder(tmp_path), "epoch_0002")
    assert all(torch.equal(saved.weights[name], kept[name]) for name in moving)
    assert all(torch.equal(saved.optimiser["weights"][name], raw[name]) for name in moving)


def test_the_average_follows_the_weights_by_its_decay() -> None:
    session = TrialSession(small_config(**BASE, ema_decay=0.3, batch_size=6, norm_statistics="running"), data())
    name = "net.segmentation_head.0.weight"
    seen, step = [], session._learner.optimiser.step

    def record(*arguments: Any, **keywords: Any) -> Any:
        result = step(*arguments, **keywords)
        seen.append(session._learner.model.state_dict()[name].clone())
        return result

    session._learner.optimiser.step = record  # type: ignore[method-assign]
    session.train_epoch()
    average = session._learner.judged.state_dict()[name]
    assert len(seen) == 2
    # After the first step a copy; at the second min(0.3, 1 - 2 ** (-2 / 3)) of the old is kept.
    assert torch.allclose(average, seen[0] + 0.7 * (seen[1] - seen[0]), atol=1e-7)


def test_a_network_that_sees_less_learns_and_is_measured_at_the_shards_size() -> None:
    session = TrialSession(small_config(**BASE, image_size_px=32), data())
    seen: list[torch.Size] = []
    hook = session._learner.model.get_submodule("net").register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].shape)
    )
    session.train_epoch()
    hook.remove()
    assert {tuple(shape[1:]) for shape in seen} == {(3, 32, 32)}
    assert session.predict(data().val.images_NHW[:2]).shape == (2, 64, 64)


@pytest.mark.parametrize(("size_px", "smaller_px"), [(64, 32), (224, 96), (224, 192)])
def test_a_network_shrinks_its_images_by_area(size_px: int, smaller_px: int) -> None:
    image_HW = np.random.default_rng(0).random((size_px, size_px)).astype(np.float32)
    expected = cv2.resize(image_HW, (smaller_px, smaller_px), interpolation=cv2.INTER_AREA)
    architecture = Architecture(encoder="tu-test_efficientnet", image_size_px=size_px, shrunk_to_px=smaller_px)
    model = build_model(architecture)
    area_sS = model.area_sS
    found = area_sS @ torch.from_numpy(image_HW) @ area_sS.T
    assert found.numpy() == pytest.approx(expected, abs=1e-5)
    assert not any("area" in name for name in model.state_dict())


def test_larger_images_than_the_shards_have_are_refused() -> None:
    with pytest.raises(ValueError, match="image_size_px 96 is above the samples' 64 px"):
        TrialSession(small_config(image_size_px=96), data())


def test_a_threshold_chosen_on_validation_is_never_worse_there_and_is_used_on_test() -> None:
    chosen = TrialSession(small_config(**BASE, threshold="validation"), data())
    fixed = TrialSession(small_config(**BASE), data())
    rows = [(chosen.train_epoch(), fixed.train_epoch()) for _ in range(2)]
    for one, other in rows:
        assert one.val_dice >= other.val_dice
        assert one.val_loss == other.val_loss
    best = max((row for row, _ in rows), key=lambda row: row.val_dice)
    assert best.cut_at != 0.5
    chosen.restore_best()
    again = TrialSession(small_config(**BASE, threshold=best.cut_at), data())
    while again.epoch < best.epoch:
        again.train_epoch()
    assert chosen.evaluate("test") == again.evaluate("test")
    assert chosen.evaluate("test")["cut_at"] == best.cut_at


@pytest.mark.parametrize(("batch", "workers", "accumulation"), [(1, 1, 1), (4, 1, 4)])
def test_one_image_in_a_part_is_refused_where_batch_norm_would_see_one_pixel(
    batch: int, workers: int, accumulation: int
) -> None:
    config = small_config(encoder="mobilenet", decoder="unet", batch_size=batch, accumulation=accumulation)
    with pytest.raises(ValueError, match="one image in a part of a batch"):
        TrialSession(config, disc_data())


def test_a_short_last_batch_is_split_no_further_than_two_images_a_part() -> None:
    """Seven images in four parts would leave one alone."""
    config = small_config(encoder="mobilenet", decoder="unet", batch_size=8, accumulation=4, epochs=1)
    assert train(config, data=disc_data(train=7))[0].train_loss > 0


def test_a_checkpoint_keeps_the_number_format_it_was_trained_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.step.learner.best_precision", lambda device: "bf16")
    config = small_config(**BASE, precision="auto")
    train(config, tmp_path, until=lambda row: True, data=data())
    monkeypatch.setattr("trainables.step.learner.best_precision", lambda device: "fp32")
    session = TrialSession(config, data())
    assert session.precision == "fp32"
    session.restore(Folder(tmp_path / CHECKPOINTS))
    assert session.precision == "bf16"


def test_without_the_best_epochs_weights_a_trial_begins_anew(tmp_path: Path) -> None:
    """To go on without them would give another model than an undisturbed trial."""
    config = small_config(**{**BASE, "epochs": 6, "learning_rate": 0.05, "optimiser": "sgd"})
    train(config, tmp_path, until=lambda row: row.epoch == 5, data=data())
    checkpoints = tmp_path / CHECKPOINTS
    session = TrialSession(config, data())
    session.restore(Folder(checkpoints))
    best = session.best_epoch
    assert best is not None
    (checkpoints / checkpoint_name(best) / "weights.safetensors").write_bytes(b"damaged")
    session = TrialSession(config, data())
    went_on = session.restore(Folder(checkpoints))
    assert session.best_epoch != best
    assert went_on == (best == 5) or session.history == []
