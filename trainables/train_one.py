"""What `trainables.run` does: settings in, a trial folder out."""

from __future__ import annotations

import traceback
from typing import Any

import torch

from cluster.storage import Folder
from trainables.config import TrialConfig
from trainables.record import TrialInfo, TrialRecord, TrialStatus, now
from trainables.step.place import Place, default_device
from trainables.trial import NonFiniteLoss, Row, TrialData, TrialSession, untrained_measures


class TrainingFailedError(RuntimeError):
    """Training ended early: the loss was not finite, or memory ran out. The trial's status says the same."""


def measure_untrained(config: TrialConfig, shards: str, *, device: str | None, threads: int | None) -> None:
    """Print what the network scores on the validation split before any training."""
    place = Place(device=device or default_device(), threads=threads)
    measures = untrained_measures(config, TrialData.open(shards, config.normalisation), place=place)
    print(f"untrained {config.encoder}: {_text(measures)}")


def train(config: TrialConfig, shards: str, out: str, *, device: str | None, threads: int | None) -> None:
    """Train into a trial folder, from its last checkpoint if it has one, and measure the best weights on `test`.

    Raises:
        ValueError: something asked for cannot be.
        TrainingFailedError: training ended early.
    """
    folder = Folder(out)
    record = TrialRecord(folder)
    data = TrialData.open(shards, config.normalisation)
    session = TrialSession(config, data, place=Place(device=device or default_device(), threads=threads))
    try:
        session.restore(folder / "checkpoint")
        record.write_info(TrialInfo(trial_id=folder.name, role="search", config=config.model_dump(mode="json")))
        status = TrialStatus(status="running", parameters=session.parameters, started_at=now())
        _train(session, record, status)
        session.restore_best()
        if data.test is not None and len(data.test.images_NHW):
            measures = session.evaluate("test")
            record.write_test(measures)
            print(f"test, epoch {session.best_epoch}: {_text(measures)}")
        session.save_weights(folder)
    finally:
        session.close()


def _train(session: TrialSession, record: TrialRecord, status: TrialStatus) -> None:
    """The epochs that are left, each with its checkpoint, its row and a line on the console."""
    print(f"{session.config.encoder} {session.config.decoder}: {session.parameters:,} parameters", flush=True)
    try:
        while session.epoch < session.config.epochs:
            record.write_status(status.model_copy(update={"epochs": session.epoch}))
            row = session.train_epoch()
            session.save(record.folder / "checkpoint")
            record.write_metrics(session.history)
            print(_line(row, session.config.epochs), flush=True)
    except (NonFiniteLoss, torch.OutOfMemoryError, MemoryError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        ended = {"status": "failed", "reason": reason, "traceback": traceback.format_exc()}
        record.write_status(_ended(status, session, ended))
        hint = "" if isinstance(error, NonFiniteLoss) else "; lower batch_size, or raise accumulation"
        raise TrainingFailedError(reason + hint) from error
    record.write_status(_ended(status, session, {"status": "complete"}))


def _ended(status: TrialStatus, session: TrialSession, changes: dict[str, Any]) -> TrialStatus:
    seconds = sum(row["train_s"] + row["val_s"] for row in session.history)
    return status.model_copy(update={"epochs": session.epoch, "slot_s": seconds, "ended_at": now(), **changes})


def _line(row: Row, epochs: int) -> str:
    return (
        f"epoch {row['epoch']:>3}/{epochs}  loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}  "
        f"Dice {row['val_dice']:.4f}  IoU {row['val_iou']:.4f}  {row['train_s'] + row['val_s']:.1f} s  "
        f"{row['images_per_s']:.1f} images/s"
    )


def _text(measures: dict[str, float]) -> str:
    return (
        f"Dice {measures['dice']:.4f}, IoU {measures['iou']:.4f} (hard, per image), loss {measures['loss']:.4f}, "
        f"{measures['images']} images"
    )
