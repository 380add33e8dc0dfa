"""What `trainables.run` does: settings in, a trial folder out."""

from __future__ import annotations

import uuid
from functools import partial

import torch

from cluster.pools import Pool
from cluster.storage import Folder
from trainables.config import TrialConfig
from trainables.crew import LocalCrew
from trainables.data import TrialData
from trainables.life import conclude, enter, run_trial, tidy
from trainables.net.architecture import Architecture
from trainables.net.models import check_model
from trainables.order import Report, TrialOrder
from trainables.record import EpochRow, TrialInfo, TrialRecord, TrialStatus
from trainables.step.precision import check_precision
from trainables.step.worker import Worker, check_device, default_device
from trainables.trial import check_fits, untrained_measures


class TrainingFailedError(RuntimeError):
    """Training ended early: the loss was not finite, or memory ran out. The trial's status says the same."""


def measure_untrained(config: TrialConfig, shards: str, *, device: str | None, threads: int | None) -> None:
    """Print what the network scores on the validation split before any training."""
    worker = Worker(device=device or default_device(), threads=threads)
    measures = untrained_measures(config, TrialData.open(shards, config.normalisation), worker=worker)
    print(f"untrained {config.encoder}: {_text(measures)}")


def train(config: TrialConfig, shards: str, out: str, *, device: str | None, threads: int | None) -> None:
    """Train into a trial folder, from its last checkpoint if it has one, and measure the best weights on `test`.

    Raises:
        ValueError: something asked for cannot be.
        TrainingFailedError: training ended early.
    """
    worker = Worker(device=device or default_device(), threads=threads)
    data = _checked(config, shards, worker)
    record = TrialRecord(Folder(out))
    order = _order(config, data, shards=shards, out=record.folder)
    enter(order)
    if (status := record.status()).status != "complete":
        status = run_trial(order, LocalCrew(worker, data=lambda *_: data), partial(_tell, order, status.epochs))
    if status.status == "failed":
        hint = "; lower batch_size, or raise accumulation" if status.failure == "out_of_memory" else ""
        raise TrainingFailedError(status.reason + hint)
    tidy(record, keep=True)
    if (test := record.test()) is not None:
        print(f"test, epoch {test['best_epoch']}: {_text(test)}")


def _checked(config: TrialConfig, shards: str, worker: Worker) -> TrialData:
    """The samples, once it is clear that the configuration can train on them. Raises ValueError."""
    check_device(str(worker.device))
    if config.precision != "auto":
        check_precision(config.precision, torch.device(worker.device))
    data = TrialData.open(shards, config.normalisation)
    check_fits(config, data, worker)
    architecture = Architecture.of(config, data.train.images_NHW.shape[1])
    if mistakes := check_model(architecture, encoder_weights=config.encoder_weights):
        raise ValueError("\n".join(mistakes))
    return data


def _order(config: TrialConfig, data: TrialData, *, shards: str, out: Folder) -> TrialOrder:
    where = {"shards": Folder(shards).uri, "fingerprint": data.fingerprint}
    info = TrialInfo(trial_id=out.name, role="search", config=config, **where)
    session = uuid.uuid4().hex[:12]  # an interrupted command is no lost worker of the next one
    return TrialOrder(info=info, folder=out.uri, pool=Pool(name="here"), session=session, measure_test=True)


def _tell(order: TrialOrder, known: int, report: Report) -> TrialStatus | None:
    """Print an epoch that was not `known` before this command, the first with the network's size."""
    config, row = order.info.config, report.row
    if row is not None and row.epoch > known:
        if row.epoch == known + 1:
            print(f"{config.encoder} {config.decoder}: {report.status.parameters:,} parameters", flush=True)
        print(_line(row, config.epochs), flush=True)
    return conclude(order, report)


def _line(row: EpochRow, epochs: int) -> str:
    return (
        f"epoch {row.epoch:>3}/{epochs}  loss {row.train_loss:.4f}  val loss {row.val_loss:.4f}  "
        f"Dice {row.val_dice:.4f}  IoU {row.val_iou:.4f}  {row.train_s + row.val_s:.1f} s  "
        f"{row.images_per_s:.1f} images/s"
    )


def _text(measures: dict[str, float]) -> str:
    return (
        f"Dice {measures['dice']:.4f}, IoU {measures['iou']:.4f} (hard, per image), loss {measures['loss']:.4f}, "
        f"{measures['images']} images"
    )
