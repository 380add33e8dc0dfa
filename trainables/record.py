"""The trial folder: what is written of a trial while it runs, and how it is read back. Knows no torch.

<folder>/trial.json       what was to be trained: id, role, configuration, pool
         metrics.jsonl    one line per finished epoch
         status.json      how it stands or how it ended, with the traceback of a failure
         test.json        measures on the test split (finals only)
         examples.npz     a few test samples with what the model predicts for them (finals only)
         log.txt          what happened to it, with the time
         checkpoint/      trainables/step/checkpoint.py
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cluster.storage import Folder

Status = Literal["pending", "running", "complete", "pruned", "failed"]
Role = Literal["baseline", "search", "final"]


class TrialInfo(BaseModel):
    """`trial.json`."""

    model_config = ConfigDict(frozen=True)

    trial_id: str
    role: Role
    config: dict[str, Any]
    """`TrialConfig.model_dump()`."""
    params: dict[str, Any] = {}
    """The values that were searched, by their names in the space."""
    pool: str = ""
    workers: int = 1
    usd_per_hour: float = 0.0


class TrialStatus(BaseModel):
    """`status.json`."""

    model_config = ConfigDict(frozen=True)

    status: Status = "pending"
    reason: str = ""
    """One line: why it was pruned or failed."""
    traceback: str = ""
    epochs: int = 0
    """Epochs finished."""
    parameters: int | None = None
    """Trainable parameters of the model."""
    slot_s: float = 0.0
    """Seconds a slot was held, retries included."""
    usd: float = 0.0
    retries: int = 0
    """How often it went on from its checkpoint because its workers died; lost machines are not counted."""
    session: str = ""
    """The run of the driver that it was last trained in."""
    started_at: str = ""
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
        """Read `trial.json`. Raises FileNotFoundError."""
        return TrialInfo.model_validate(self.folder.read_json("trial.json"))

    def write_status(self, status: TrialStatus) -> None:
        """Write `status.json`."""
        self.folder.write_json("status.json", status.model_dump(mode="json"))

    def status(self) -> TrialStatus:
        """Read `status.json`; a trial that has none is pending."""
        if not self.folder.exists("status.json"):
            return TrialStatus()
        return TrialStatus.model_validate(self.folder.read_json("status.json"))

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Write all epochs so far: the file as a whole, so that a replayed epoch never stands twice."""
        self.folder.write_text("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def metrics(self) -> list[dict[str, Any]]:
        """One dict per finished epoch, in order; empty if none."""
        if not self.folder.exists("metrics.jsonl"):
            return []
        return [json.loads(line) for line in self.folder.read_text("metrics.jsonl").splitlines()]

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


def now() -> str:
    """The time in ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
