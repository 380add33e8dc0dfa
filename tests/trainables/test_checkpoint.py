"""python -m pytest tests/trainables/test_checkpoint.py: checkpoints are whole, or passed over."""

import errno
import json
import logging
import resource
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.storage import Folder
from trainables.step import checkpoint
from trainables.step.checkpoint import Checkpoint


def state(epoch: int) -> Checkpoint:
    weight = torch.full((4, 3, 2, 2), float(epoch)).contiguous(memory_format=torch.channels_last)
    step = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": weight / 2}},
        "param_groups": [{"lr": 0.1, "params": [0]}],
    }
    return Checkpoint(
        epoch=epoch,
        weights={"weight": weight, "count": torch.tensor(epoch)},
        config={"encoder": "x"},
        history=[{"epoch": i + 1, "val_dice": 0.1 + 0.2} for i in range(epoch)],
        optimiser={"optimiser": step, "scaler": {}},
        precision="bf16",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "checkpoint")


def file_of(folder: Folder, name: str) -> Path:
    assert folder.local is not None
    return folder.local / name


def test_what_is_read_is_what_was_written(folder: Folder) -> None:
    checkpoint.save(folder, state(3))
    read = checkpoint.load(folder, "epoch_0003")
    assert torch.equal(read.weights["weight"], state(3).weights["weight"])
    assert (read.epoch, read.history, read.config) == (3, state(3).history, state(3).config)
    assert read.precision == "bf16"
    moment = read.optimiser["optimiser"]["state"][0]["exp_avg"]
    assert torch.equal(moment, state(3).weights["weight"] / 2)
    # Fused optimisers walk through memory: the layout must be the parameter's.
    assert moment.is_contiguous(memory_format=torch.channels_last)


def test_two_are_kept_and_the_best(folder: Folder) -> None:
    for epoch in range(1, 6):
        checkpoint.save(folder, state(epoch), best_epoch=min(epoch, 2))
    assert folder.names() == ["epoch_0002", "epoch_0004", "epoch_0005"]
    assert checkpoint.newest(folder) == "epoch_0005"


@pytest.mark.parametrize("room_kb", [0, 8, 40])
def test_file_that_does_not_fit_is_an_error_of_the_system(folder: Folder, room_kb: int) -> None:
    """Otherwise a full disk would be an error of torch or safetensors like any other, and the trial count as failed."""
    checkpoint.save(folder, state(1))
    large = replace(state(2), weights={"weight": torch.zeros(8192)}, optimiser={"exp_avg": torch.zeros(16384)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_kb * 1024, before[1]))
    try:
        with pytest.raises(OSError) as failure:
            checkpoint.save(folder, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert failure.value.errno == errno.EFBIG
    assert checkpoint.newest(folder) == "epoch_0001"


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink], ids=["truncated", "flipped", "gone"])
@pytest.mark.parametrize("name", ["weights.safetensors", "optimiser.pt", "checkpoint.json", "complete"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    folder: Folder, damage: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    if name == "complete" and damage is not Path.unlink:
        pytest.skip("an empty file has no bytes to damage")
    for epoch in (1, 2):
        checkpoint.save(folder, state(epoch))
    damage(file_of(folder, f"epoch_0002/{name}"))
    with caplog.at_level(logging.WARNING):
        assert checkpoint.newest(folder) == "epoch_0001"
    assert "epoch_0002 is passed over" in caplog.text
    with pytest.raises(ValueError, match="no whole checkpoint"):
        checkpoint.load(folder, "epoch_0002")


@pytest.mark.parametrize(
    "change", [{"epoch": 10**9}, {"epoch": 1}, {"history": []}, {"precision": "fp32"}, {"config": {}}, {"crc32": 0}]
)
def test_a_card_that_says_something_else_is_passed_over(folder: Folder, change: dict[str, Any]) -> None:
    for epoch in (1, 2):
        checkpoint.save(folder, state(epoch))
    card = file_of(folder, "epoch_0002/checkpoint.json")
    card.write_text(json.dumps({**json.loads(card.read_text()), **change}))
    assert checkpoint.newest(folder) == "epoch_0001"


@pytest.mark.parametrize("key", ["epoch", "history", "precision", "config", "crc32", "files"])
def test_a_card_that_lacks_something_is_passed_over(folder: Folder, key: str) -> None:
    for epoch in (1, 2):
        checkpoint.save(folder, state(epoch))
    card = file_of(folder, "epoch_0002/checkpoint.json")
    content = json.loads(card.read_text())
    del content[key]
    card.write_text(json.dumps(content))
    assert checkpoint.newest(folder) == "epoch_0001"


def test_a_card_laid_out_differently_says_the_same(folder: Folder) -> None:
    checkpoint.save(folder, state(1))
    card = file_of(folder, "epoch_0001/checkpoint.json")
    card.write_text(json.dumps(json.loads(card.read_text()), sort_keys=True))
    assert checkpoint.newest(folder) == "epoch_0001"


def test_code_in_the_optimisers_state_is_not_run(folder: Folder, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return (tmp_path / "ran").mkdir, ()

    checkpoint.save(folder, replace(state(1), optimiser={"optimiser": Payload()}))
    with pytest.raises(Exception, match="Weights only load failed"):
        checkpoint.load(folder, "epoch_0001")
    assert not (tmp_path / "ran").exists()


def test_what_a_killed_writer_left_is_cleared_away(folder: Folder) -> None:
    checkpoint.save(folder, state(1))
    for name in ("tmp-abc/checkpoint", "epoch_0002.tmp-1234"):
        file_of(folder, name).mkdir(parents=True)
    assert checkpoint.newest(folder) == "epoch_0001"
    checkpoint.save(folder, state(2))
    assert folder.names() == ["epoch_0001", "epoch_0002"]


def test_no_folder_has_no_checkpoint(folder: Folder) -> None:
    assert checkpoint.newest(folder) is None
