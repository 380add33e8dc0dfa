"""python -m pytest tests/trainables/test_ddp.py: several workers (gloo) train the model that one worker trains.

Two processes are started once and go through all tasks; the tests look at what they wrote.
"""

import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from cluster.storage import Folder
from tests.trainables.fakes import disc_data, small_config, steady_config, without_times
from trainables.config import TrialConfig
from trainables.trial import NonFiniteLoss, TrialSession, Worker

pytestmark = pytest.mark.slow

WORKERS = 2
SOFT = {"rel": 1e-3, "abs": 2e-4}
"""Workers add floats in another order than one worker does; over a few epochs the difference grows to about 1e-5."""
HARD = {"abs": 1e-2}
"""A pixel at the threshold that flips changes the Dice of one small image by some thousandths."""


@dataclass(frozen=True)
class Case:
    config: TrialConfig
    size_px: int = 32


def train(case: Case, worker: Worker, folder: Folder) -> Any:
    """All epochs, from a checkpoint if there is one; the history, and the sum of all weights and statistics."""
    session = TrialSession(case.config, disc_data(train=13, size_px=case.size_px), worker=worker)
    session.restore(folder)
    while session.epoch < case.config.epochs:
        session.train_epoch()
        session.save(folder)
    total = sum(float(value.double().sum()) for value in session._learner.model.state_dict().values())
    return {"history": without_times(session.history), "total": total, "test": session.evaluate("test")}


def train_with_a_break(case: Case, worker: Worker, folder: Folder) -> Any:
    """Two epochs in one session, the rest in another."""
    session = TrialSession(case.config, disc_data(train=13, size_px=case.size_px), worker=worker)
    for _ in range(2):
        session.train_epoch()
    session.save(folder)
    session.close()
    dist.barrier()
    return train(case, worker, folder)


def fail_on_one(case: Case, worker: Worker, folder: Folder) -> Any:
    """The last rank alone meets a loss that is not finite."""
    session = TrialSession(case.config, disc_data(train=13, size_px=case.size_px), worker=worker)
    if worker.rank == worker.world_size - 1:
        with torch.no_grad():
            next(session._learner.model.parameters()).fill_(float("nan"))
    try:
        session.train_epoch()
    except NonFiniteLoss as error:
        return str(error)
    return "it went on"


def begin_on_unlike_machines(case: Case, worker: Worker, folder: Folder) -> Any:
    """The ranks would choose different number formats."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainables.step.learner.best_precision", lambda device: ("bf16", "fp32")[worker.rank])
        return TrialSession(case.config, disc_data(train=13), worker=worker).precision


SGD = {"optimiser": "sgd", "learning_rate": 0.05}
VGG = {"encoder": "vgg19", "decoder_norm": "identity", "batch_size": 4, "epochs": 2, "precision": "fp32"}
SAME = {
    "even shares": Case(steady_config(**SGD)),
    "uneven shares, clipped, scheduled": Case(
        steady_config(
            **{**SGD, "momentum": 0.5, "weight_decay": 0.01, "schedule": "cosine", "warmup_epochs": 1},
            **{"batch_size": 5, "gradient_clip_norm": 0.1, "channels_last": False, "seed": 3},
        )
    ),
    "accumulation": Case(steady_config(**SGD, batch_size=6, accumulation=2)),
    "adam": Case(steady_config(learning_rate=1e-4)),
    "vgg19": Case(TrialConfig(**VGG, optimiser="sgd", learning_rate=0.003), size_px=64),
    "a shallow, narrow U-Net with attention": Case(
        steady_config(
            **{"optimiser": "sgd", "learning_rate": 0.01, "decoder": "unet", "encoder_depth": 4},
            **{"decoder_width": 0.5, "decoder_attention": "scse"},
        )
    ),
    "encoder apart, frozen first, averaged": Case(
        steady_config(
            **SGD, encoder_rate_factor=0.1, frozen_encoder_epochs=1, ema_decay=0.9, threshold="validation", batch_size=5
        )
    ),
    "all terms of the loss": Case(
        steady_config(
            **{**SGD, "batch_size": 5, "bce_weight": 1, "focal_weight": 1, "focal_gamma": 1, "tversky_weight": 1},
            **{"tversky_alpha": 0.6, "boundary_weight": 1, "boundary_tolerance_px": 3},
        )
    ),
    "strong augmentation, small lesions, smaller images": Case(
        steady_config(
            **{**SGD, "zoom": 0.2, "elastic": 0.05, "gamma": 0.5, "cutout": 0.3, "small_lesion_power": 1},
            **{"flip_vertical": True, "rotation_degrees": 40, "image_size_px": 32, "batch_size": 5},
        ),
        size_px=64,
    ),
}
NOT_COMPARED = {
    "encoder_weights": "where training begins: read by every worker alike",
    "normalisation": "which images are read",
    "norm_statistics": "each worker's are averaged: `batch statistics`",
    "precision": "rounds sums that one worker adds in another order; agreed on in `unlike machines`",
}
# pspnet leaves the last stages of its encoder unused, which DDP must be told; batch norms are averaged.
BATCH_STATISTICS = Case(small_config(decoder="pspnet", batch_size=8, epochs=1))
TASKS: dict[str, tuple[Callable[[Case, Worker, Folder], Any], Case]] = {
    **{name: (train, case) for name, case in SAME.items()},
    "batch statistics": (train, BATCH_STATISTICS),
    "break": (train_with_a_break, SAME["even shares"]),
    "break of an average": (train_with_a_break, SAME["encoder apart, frozen first, averaged"]),
    "unlike machines": (begin_on_unlike_machines, Case(steady_config(precision="auto"))),
    "not finite": (fail_on_one, SAME["even shares"]),
}


def work(rank: int, port: int, out: str) -> None:
    """One of the processes."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", rank=rank, world_size=WORKERS)
    worker = Worker(rank=rank, world_size=WORKERS, threads=1)
    seen = {name: task(case, worker, Folder(out) / name) for name, (task, case) in TASKS.items()}
    (Path(out) / f"{rank}.json").write_text(json.dumps(seen))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank saw, by task."""
    out = tmp_path_factory.mktemp("ddp")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(work, args=(port, str(out)), nprocs=WORKERS)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(WORKERS)]


def assert_same_measures(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        hard = key.removeprefix("raw_").removeprefix("val_") in ("dice", "iou")
        assert found[key] == pytest.approx(value, **(HARD if hard else SOFT)), key


@pytest.mark.parametrize("case", SAME)
def test_two_workers_follow_the_curve_of_one(seen: list, case: str, tmp_path: Path) -> None:
    alone = train(SAME[case], Worker(threads=1), Folder(tmp_path))
    together = seen[0][case]
    for row, wanted in zip(together["history"], alone["history"], strict=True):
        assert_same_measures(row, wanted)
    assert_same_measures(together["test"], alone["test"])
    assert together["history"][0]["train_loss"] == pytest.approx(alone["history"][0]["train_loss"], rel=1e-4)


@pytest.mark.parametrize("case", [*SAME, "batch statistics"])
def test_all_workers_hold_the_same_model_and_give_the_same_rows(seen: list, case: str) -> None:
    assert seen[0][case] == seen[1][case]


@pytest.mark.parametrize(
    ("case", "after"),
    [("even shares", "break"), ("encoder apart, frozen first, averaged", "break of an average")],
)
def test_workers_resume_to_the_bit(seen: list, case: str, after: str) -> None:
    assert seen[0][after] == seen[0][case]


def test_workers_on_unlike_machines_train_in_one_number_format(seen: list) -> None:
    assert [of_rank["unlike machines"] for of_rank in seen] == ["bf16", "bf16"]


def test_every_setting_is_trained_by_two_workers() -> None:
    defaults = TrialConfig()
    tried = {n for case in SAME.values() for n in TrialConfig.model_fields if vars(case.config)[n] != vars(defaults)[n]}
    assert tried | set(NOT_COMPARED) == set(TrialConfig.model_fields)


def test_a_loss_that_is_not_finite_on_one_worker_ends_all(seen: list) -> None:
    assert all("not finite in epoch 1, step 1" in of_rank["not finite"] for of_rank in seen)


def test_a_batch_too_small_for_the_workers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_size 1 .* 2 workers"):
        TrialSession(small_config(batch_size=1), disc_data(), worker=Worker(rank=0, world_size=2))
