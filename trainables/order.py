"""What a slot is told to train, and what its workers answer when they cannot. Knows neither torch nor Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cluster.cli import DISK_FULL as DISK_FULL  # no fault of the trial, which is resumed later
from cluster.pools import Pool
from trainables.record import TrialInfo

SESSION = "session.json"
"""In a study's folder: which run of the driver is in charge."""

ErrorKind = Literal["exception", "not_finite", "out_of_memory", "worker_died", "disk_full"]


class TrialOrder(BaseModel):
    """All that a slot needs to train one trial."""

    model_config = ConfigDict(frozen=True)

    info: TrialInfo
    folder: str
    """Path or URI of the trial folder."""
    shards: str
    """Path or URI of the shard folder."""
    pool: Pool
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
    keep_weights: bool = False
    """Whether the best weights are written into the trial folder at the end (finals)."""


@dataclass(frozen=True)
class TrialError:
    """What a worker answers instead of a result."""

    kind: ErrorKind
    reason: str
    traceback: str


def short_reason(error: BaseException) -> str:
    """The exception in one line of at most 300 characters, for a table."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]
