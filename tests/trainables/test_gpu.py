"""python -m pytest -m gpu tests/trainables/test_gpu.py: what only a CUDA device shows. Skipped where there is none."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.fakes import disc_data, small_config, train
from trainables.step.precision import best_precision
from trainables.trial import TrialSession, Worker

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = Worker(device="cuda")


def losses(**changes: Any) -> list[float]:
    return [row.train_loss for row in train(small_config(**changes), worker=CUDA)]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "auto"])
def test_a_gpu_follows_the_curve_of_a_cpu(precision: str) -> None:
    on_cpu = [row.train_loss for row in train(small_config())]
    assert losses(precision=precision) == pytest.approx(on_cpu, abs=1e-3 if precision == "fp32" else 2e-2)


def test_a_resumed_trial_goes_on_from_where_it_was(tmp_path: Path) -> None:
    config = small_config(precision="fp16")
    train(config, tmp_path, until=lambda row: row.epoch == 2, worker=CUDA)
    history = train(config, tmp_path, worker=CUDA)
    assert [row.train_loss for row in history] == pytest.approx(losses(precision="fp16"), abs=5e-3)


def test_a_closed_session_leaves_no_memory_on_the_gpu() -> None:
    before = torch.cuda.memory_allocated()
    session = TrialSession(small_config(precision="auto"), disc_data(), worker=CUDA)
    row = session.train_epoch()
    assert row.peak_memory_gb > 0
    assert torch.cuda.memory_allocated() > before
    session.close()
    assert torch.cuda.memory_allocated() == before


def test_samples_that_do_not_fit_stay_in_host_memory_and_train_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu = losses()
    monkeypatch.setattr("trainables.step.batches.ON_DEVICE_SHARE", 0.0)
    assert losses() == pytest.approx(on_gpu, abs=1e-3)


def test_auto_is_half_precision_where_the_gpu_is_fast_in_it() -> None:
    major, _ = torch.cuda.get_device_capability()
    assert best_precision(torch.device("cuda")) == ("fp32" if major < 7 else "fp16" if major == 7 else "bf16")
