"""What a life is told to train, and what it and its workers say of it. Knows neither torch nor Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cluster.cli import DISK_FULL as DISK_FULL  # no fault of the trial, which is resumed later
from cluster.pools import Pool, Precision
from cluster.storage import Folder
from trainables.record import EpochRow, ErrorKind, Examples, TrialInfo, TrialStatus

SESSION = "session.json"
"""In a study's folder: which run of the driver is in charge."""

Command = Literal["begin", "epoch", "test", "end"]
"""What a worker can be told (`trainables.crew.Member`)."""


class TrialOrder(BaseModel):
    """All that is needed to train one trial."""

    model_config = ConfigDict(frozen=True)

    info: TrialInfo
    folder: str
    """Path or URI of the trial folder."""
    pool: Pool
    precision: Precision | None = None
    """What `precision: auto` means for it; None: what is fast where it trains."""
    session: str = ""
    """Which run of the driver this is. A worker that outlives its driver stops when another one has taken over."""
    study: str = ""
    """Path or URI of the study's folder, where `session.json` names the run that is in charge; empty: none does."""
    retries: int = 2
    """How often a trial whose worker died goes on from its checkpoint before it counts as failed."""
    accumulate_on_oom: bool = True
    """Whether a trial that is out of memory is begun again with its batch split in two."""
    measure_test: bool = False
    """Whether the trained model is measured on the test split (finals)."""

    def check_in_charge(self) -> None:
        """Refuse to write for a study that another run of its driver goes on with. Raises NotInChargeError."""
        if not self.study:
            return
        in_charge = Folder(self.study).read_json(SESSION)["session"]
        if in_charge != self.session:
            raise NotInChargeError(f"the study goes on in session {in_charge}; this is session {self.session}")


class NotInChargeError(RuntimeError):
    """The driver that gave the order was killed and another has taken over: who is late writes nothing more."""


@dataclass(frozen=True)
class TrialError:
    """What a worker answers instead of a result."""

    kind: ErrorKind
    reason: str
    traceback: str


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What a worker answers to `begin`."""

    history: list[EpochRow]
    """The epochs that the trial's checkpoint has."""
    parameters: int
    """Trainable parameters of the model."""
    precision: Precision
    left_gb: float
    """Memory of the GPU that the trial before left allocated, in GB (1e9 bytes)."""


@dataclass(frozen=True, kw_only=True)
class Tested:
    """What a worker answers to `test`."""

    measures: dict[str, float]
    examples: Examples | None


class Report(BaseModel):
    """What a life says after an epoch, or instead of one."""

    model_config = ConfigDict(frozen=True)

    row: EpochRow | None = None
    """The last finished epoch; None: there is none."""
    failure: TrialError | None = None
    """Why it cannot go on; None: it can."""
    done: bool = False
    """Whether no epoch follows."""
    status: TrialStatus = TrialStatus()
    """What its folder says now."""


def short_reason(error: BaseException) -> str:
    """The exception in one line of at most 300 characters, for a table."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]
