"""The trial folder: what is written of a trial while it runs, and how it is read back. Knows no torch.

<folder>/trial.json       what was to be trained: id, role, configuration, pool
         metrics.jsonl    one `EpochRow` per finished epoch
         status.json      how it stands or how it ended, with the traceback of a failure
         weights.safetensors   of the best epoch, where a trial's weights are kept
         test.json        measures on the test split (finals only)
         examples.npz     a few test samples with what the model predicts for them (finals only)
         log.txt          what happened to it, with the time
         checkpoint/      trainables/step/checkpoint.py
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.pools import Precision
from cluster.storage import Folder
from trainables.config import TrialConfig

Status = Literal["pending", "running", "paused", "complete", "pruned", "failed"]
"""`paused`: it stands at a rung with its checkpoint, and may be taken up again."""
ENDED: tuple[Status, ...] = ("complete", "pruned", "failed")
Role = Literal["baseline", "search", "final"]
ErrorKind = Literal["exception", "not_finite", "out_of_memory", "worker_died", "disk_full"]
WEIGHTS = "weights.safetensors"
CHECKPOINTS = "checkpoint"
BEST_BY = "val_dice"
"""The measure whose highest value makes the best epoch, and the best trial."""
Model = TypeVar("Model", bound=BaseModel)


class EpochRow(BaseModel):
    """One finished epoch: a line of `metrics.jsonl`. Losses, Dice and IoU are means over images."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    epoch: int
    """From 1."""
    learning_rate: float
    """Of the epoch's last step."""
    train_loss: float
    """With augmentation and dropout."""
    val_loss: float
    val_dice: float
    """Hard, at the configuration's threshold, per image, then averaged; `val_iou` alike."""
    val_iou: float
    val_dice_soft: float
    """Of the probabilities, as in the paper's equation 2; `val_iou_soft` by equation 3."""
    val_iou_soft: float
    cut_at: float = 0.5
    """The probability above which a pixel counted as lesion: the configuration's threshold, or the one chosen."""
    raw_val_dice: float | None = None
    """`val_dice` of the weights that train; another one where a moving average of them is what is measured."""
    train_s: float
    """Seconds of the slowest worker; `val_s` alike."""
    val_s: float
    images_per_s: float
    """Of training."""
    peak_memory_gb: float
    """Of the largest worker, in GB (1e9 bytes)."""


TIMES = ("train_s", "val_s", "images_per_s", "peak_memory_gb")
"""What may differ between two trainings of one configuration."""
MEASURES = tuple(name for name in EpochRow.model_fields if name not in ("epoch", "learning_rate", *TIMES))
"""What an epoch measures, by the names in its row."""
VAL_MEASURES = tuple(name for name in MEASURES if name.startswith("val_"))
"""Those of the validation split."""


def best_epoch(rows: Iterable[EpochRow]) -> EpochRow | None:
    """The row with the highest finite `BEST_BY`, the first of equals; None if there is none."""
    scored = [row for row in rows if math.isfinite(getattr(row, BEST_BY))]
    return max(scored, key=lambda row: (getattr(row, BEST_BY), -row.epoch), default=None)


class BrokenRecordError(ValueError):
    """A file of a study or a trial that does not hold what it should; the message names file, line and fault."""


class TrialInfo(BaseModel):
    """`trial.json`."""

    model_config = ConfigDict(frozen=True)

    trial_id: str
    """Its number in the study, `0003`; of a final its winner's name and its seed, `vgg19/1`."""
    role: Role
    config: TrialConfig
    params: dict[str, Any] = {}
    """The values that were searched, by their names in the space."""
    notes: dict[str, Any] = {}
    """What the sampler must find again of its proposal, e.g. NSGA-II the generation."""
    pool: str = ""
    workers: int = 1
    usd_per_hour: float = 0.0
    shards: str = ""
    """Path or URI of the shard folder."""
    fingerprint: str = ""
    """Of the samples."""
    taken_from: str = ""
    """Of a final that goes on from its trial of the search: the path of that trial's folder."""
    taken_epochs: int = 0
    """So many first epochs were trained there."""

    @property
    def path(self) -> str:
        """The trial folder's path in a study's folder: `trials/0003`, `final/vgg19/1`."""
        return f"{'final' if self.role == 'final' else 'trials'}/{self.trial_id}"

    def usd(self, slot_s: float) -> float:
        """Dollars of a slot that was held so long."""
        return slot_s / 3600 * self.usd_per_hour


class TrialStatus(BaseModel):
    """`status.json`."""

    model_config = ConfigDict(frozen=True)

    status: Status = "pending"
    reason: str = ""
    """One line: why it was pruned or failed."""
    traceback: str = ""
    failure: ErrorKind | None = None
    """What kind of failure it was."""
    epochs: int = 0
    """Epochs finished."""
    parameters: int | None = None
    """Trainable parameters of the model."""
    precision: Precision | None = None
    """The number format it trains in; None: not known yet."""
    slot: str = ""
    """Which slot had it last."""
    slot_s: float = 0.0
    """Seconds a slot was held, retries included."""
    usd: float = 0.0
    retries: int = 0
    """How often it went on from its checkpoint because its workers died; lost machines are not counted."""
    session: str = ""
    """The run of the driver that it was last trained in."""
    started_at: str = ""
    """When a worker first began it."""
    ended_at: str = ""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """`examples.npz`: N test samples of H x W, and what the model predicts for them."""

    sample_ids: list[str]
    image_NHW: npt.NDArray[np.uint8]
    mask_NHW: npt.NDArray[np.uint8]
    """0 and 1."""
    probability_NHW: npt.NDArray[np.floating[Any]]
    """In [0, 1]; stored as float16."""


class TrialRecord:
    """One trial folder, for writing and reading."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def write_info(self, info: TrialInfo) -> None:
        """Write `trial.json`."""
        self.folder.write_json("trial.json", info.model_dump(mode="json"))

    def info(self) -> TrialInfo:
        """Read `trial.json`. Raises FileNotFoundError or BrokenRecordError."""
        return read_model(self.folder, "trial.json", TrialInfo)

    def write_status(self, status: TrialStatus) -> None:
        """Write `status.json`."""
        self.folder.write_json("status.json", status.model_dump(mode="json"))

    def status(self) -> TrialStatus:
        """Read `status.json`; a trial that has none is pending. Raises BrokenRecordError."""
        if not self.folder.exists("status.json"):
            return TrialStatus()
        return read_model(self.folder, "status.json", TrialStatus)

    def write_metrics(self, rows: Sequence[EpochRow]) -> None:
        """Write all epochs so far: the file as a whole, so that a replayed epoch never stands twice."""
        self.folder.write_text("metrics.jsonl", "".join(json.dumps(row.model_dump()) + "\n" for row in rows))

    def metrics(self) -> list[EpochRow]:
        """One row per finished epoch, in order; empty if none. Raises BrokenRecordError."""
        if not self.folder.exists("metrics.jsonl"):
            return []
        lines = _text(self.folder, "metrics.jsonl").splitlines()
        where = f"{self.folder}/metrics.jsonl, line"
        rows = [_parsed(line, EpochRow, f"{where} {number}") for number, line in enumerate(lines, start=1)]
        for number, row in enumerate(rows, start=1):
            if row.epoch != number:
                raise BrokenRecordError(f"{self.folder}/metrics.jsonl, line {number}: epoch is {row.epoch}")
        return rows

    def write_test(self, measures: dict[str, Any]) -> None:
        """Write `test.json`."""
        self.folder.write_json("test.json", measures)

    def test(self) -> dict[str, Any] | None:
        """Read `test.json`, or None if the trial was not measured on the test split."""
        return self.folder.read_json("test.json") if self.folder.exists("test.json") else None

    def log(self, line: str) -> None:
        """Add a line with the time to `log.txt`."""
        before = self.folder.read_text("log.txt") if self.folder.exists("log.txt") else ""
        self.folder.write_text("log.txt", f"{before}{now()}  {line}\n")

    def write_examples(self, examples: Examples) -> None:
        """Write `examples.npz`."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            sample_ids=np.array(examples.sample_ids, dtype=np.str_),
            image_NHW=examples.image_NHW,
            mask_NHW=examples.mask_NHW,
            probability_NHW=examples.probability_NHW.astype(np.float16),
        )
        self.folder.write_bytes("examples.npz", buffer.getvalue())

    def examples(self) -> Examples | None:
        """Read `examples.npz`, or None if none were kept."""
        if not self.folder.exists("examples.npz"):
            return None
        with np.load(io.BytesIO(self.folder.read_bytes("examples.npz")), allow_pickle=False) as arrays:
            return Examples(
                sample_ids=[str(name) for name in arrays["sample_ids"]],
                image_NHW=arrays["image_NHW"],
                mask_NHW=arrays["mask_NHW"],
                probability_NHW=arrays["probability_NHW"],
            )


def trial_paths(study: Folder) -> Iterator[str]:
    """The trial folders of a study, by their paths in it: `trials/0003`, and so on, then `final_paths`."""
    for name in _folders(study / "trials"):
        yield f"trials/{name}"
    yield from final_paths(study)


def final_paths(study: Folder) -> Iterator[str]:
    """The trial folders of a study's finals: `final/vgg19/1`, one a seed.

    An older version trained each winner once, in `final/vgg19` itself.
    """
    for name in _folders(study / "final"):
        inside = study / "final" / name
        old = any(file in ("trial.json", "status.json", "metrics.jsonl") for file in inside.names())
        seeds = [] if old else sorted(_folders(inside), key=lambda seed: (len(seed), seed))
        yield from (f"final/{name}/{seed}" for seed in seeds) if seeds else (f"final/{name}",)


def _folders(folder: Folder) -> list[str]:
    """The names of the folders directly inside, without those that are being written."""
    return [name for name in folder.folders() if ".tmp-" not in name]


def read_model(folder: Folder, name: str, model: type[Model]) -> Model:
    """A JSON file as what it should hold. Raises FileNotFoundError, or BrokenRecordError that names file and fault."""
    return _parsed(_text(folder, name), model, f"{folder}/{name}")


def _text(folder: Folder, name: str) -> str:
    try:
        return folder.read_text(name)
    except ValueError as error:  # it is no text; the message names the file
        raise BrokenRecordError(str(error)) from error


def _parsed(text: str, model: type[Model], where: str) -> Model:
    try:
        return model.model_validate(json.loads(text))  # Python's JSON knows NaN, as it is written
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "its value"
        raise BrokenRecordError(f"{where}: {key}: {first['msg']}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise BrokenRecordError(f"{where}: not JSON: {error}") from error


def checkpoint_name(epoch: int) -> str:
    """The name of the checkpoint after `epoch` finished epochs."""
    return f"epoch_{epoch:04d}"


def now() -> str:
    """The time in ISO 8601, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
