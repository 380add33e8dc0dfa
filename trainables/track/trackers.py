"""The three trackers, each as the few calls that a mirror makes: begin a run, send epochs, end it.

Each tracker's library is imported when the tracker is made, for they are large, and one imports torch where it can.
"""

from __future__ import annotations

import importlib.util
import math
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from cluster.storage import Folder
from trainables.record import EpochRow, TrialInfo, TrialStatus, best_epoch

TrackerName = Literal["tensorboard", "mlflow", "wandb"]
LIBRARIES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


MLFLOW_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


@dataclass(frozen=True, kw_only=True)
class Mirrored:
    """What a tracker is told of a trial."""

    name: str
    """`0042`, or `final/densenet121/0`."""
    info: TrialInfo
    status: TrialStatus
    rows: Sequence[EpochRow]
    """The finished epochs."""
    test: dict[str, Any]

    def settings(self) -> dict[str, Any]:
        """Every setting as a tracker takes it: a number, a truth value, or text."""
        dumped = {**as_dict(self.info.config), "role": self.info.role, "pool": self.info.pool}
        return {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in dumped.items()}

    def results(self) -> dict[str, float]:
        """What came of it: the best epoch by validation Dice, the test split, costs."""
        best = best_epoch(self.rows)
        measures = as_dict(best) if best is not None else {}
        found = {f"best/{key}": value for key, value in measures.items() if key.startswith("val_") or key == "epoch"}
        found |= {f"test/{key.removeprefix('test_')}": value for key, value in self.test.items()}
        found |= {"parameters": self.status.parameters, "slot_s": self.status.slot_s, "usd": self.status.usd}
        return _numbers(found)


class Tracker(Protocol):
    """A tracker: where runs are begun, told their epochs, and ended."""

    def begin(self, trial: Mirrored) -> str:
        """Begin a trial's run, or find it; returns what it is called there."""

    def epochs(self, run: str, trial: Mirrored, rows: Sequence[dict[str, Any]]) -> None:
        """Send epochs that were not sent before, and wait until they are there."""

    def end(self, run: str, trial: Mirrored) -> None:
        """Say how the trial ended and what came of it."""

    def close(self) -> None:
        """Leave nothing open."""


class TensorBoard:
    """Event files below `<study>/tensorboard/`, by tensorboardX; look at them with `tensorboard --logdir`."""

    def __init__(self, study: Folder) -> None:
        from tensorboardX import SummaryWriter  # noqa: PLC0415 - imports torch where that is installed
        from tensorboardX.summary import hparams  # noqa: PLC0415

        if study.local is None:
            raise ValueError(f"TensorBoard's files lie on a disk, and {study} does not: bring the study here first")
        self._root = study.local / "tensorboard"
        self._writer_class, self._hparams = SummaryWriter, hparams
        self._writers: dict[str, Any] = {}

    def begin(self, trial: Mirrored) -> str:
        """The trial's folder."""
        return trial.name

    def epochs(self, run: str, trial: Mirrored, rows: Sequence[dict[str, Any]]) -> None:
        """One scalar a measure."""
        writer = self._writer(run)
        for row in rows:
            for name, value in _numbers(row).items():
                if name != "epoch":
                    writer.add_scalar(name, value, int(row["epoch"]))
        writer.flush()

    def end(self, run: str, trial: Mirrored) -> None:
        """The row of TensorBoard's table of hyperparameters."""
        writer = self._writer(run)
        writer.add_text("status", f"{trial.status.status} {trial.status.reason}".strip())
        results = trial.results()
        # `add_hparams` opens a second file, which within the same second has the name of the first and spoils it.
        for summary in self._hparams({**trial.settings(), "status": trial.status.status}, results):
            writer.file_writer.add_summary(summary)
        for name, value in results.items():
            writer.add_scalar(name, value, 0)
        writer.close()
        del self._writers[run]

    def close(self) -> None:
        """Close the files of trials that have not ended."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, run: str) -> Any:
        if run not in self._writers:
            suffix = f".{uuid.uuid4().hex[:8]}"  # a session that goes on may begin in the second that the last ended
            self._writers[run] = self._writer_class(str(self._root / run), filename_suffix=suffix)
        return self._writers[run]


class MLflow:
    """Runs of one experiment, at MLFLOW_TRACKING_URI or, without it, in `<study>/mlflow.db`."""

    def __init__(self, study: Folder) -> None:
        import mlflow  # noqa: PLC0415 - an extra
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415

        if study.local is None and "MLFLOW_TRACKING_URI" not in os.environ:
            raise ValueError(f"MLflow's file lies on a disk, and {study} does not: set MLFLOW_TRACKING_URI to a server")
        where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(study.local or Path()) / 'mlflow.db'}"
        self._metric, self._param, self._tag = Metric, Param, RunTag
        self._client = mlflow.MlflowClient(where)
        found = self._client.get_experiment_by_name(study.name)
        self._experiment = found.experiment_id if found else self._client.create_experiment(study.name)

    def begin(self, trial: Mirrored) -> str:
        """A run with the trial's settings as its parameters."""
        run = self._client.create_run(self._experiment, run_name=trial.name, tags={"role": trial.info.role}).info.run_id
        params = [self._param(name, str(value)) for name, value in trial.settings().items()]
        self._client.log_batch(run, params=params)
        return str(run)

    def epochs(self, run: str, trial: Mirrored, rows: Sequence[dict[str, Any]]) -> None:
        """One batch for all."""
        at_ms = int(time.time() * 1000)
        sent = [
            self._metric(name, value, at_ms, int(row["epoch"]))
            for row in rows
            for name, value in _numbers(row).items()
            if name != "epoch"
        ]
        for first in range(0, len(sent), 1000):  # MLflow's limit for one batch
            self._client.log_batch(run, metrics=sent[first : first + 1000])

    def end(self, run: str, trial: Mirrored) -> None:
        """Results as metrics, the status as MLflow names it, the reason as a tag."""
        at_ms = int(time.time() * 1000)
        results = [self._metric(name, value, at_ms, 0) for name, value in trial.results().items()]
        tags = [self._tag("status", trial.status.status), self._tag("reason", trial.status.reason[:5000])]
        self._client.log_batch(run, metrics=results, tags=tags)
        self._client.set_terminated(run, MLFLOW_STATUS[trial.status.status])

    def close(self) -> None:
        """Nothing is open."""


class Wandb:
    """Runs of one project; offline below `<study>/wandb/` unless WANDB_MODE or WANDB_API_KEY say otherwise."""

    def __init__(self, study: Folder) -> None:
        import wandb  # noqa: PLC0415 - an extra

        if study.local is None:
            raise ValueError(f"Weights & Biases' files lie on a disk, and {study} does not: bring the study here first")
        self._wandb, self._folder, self._project = wandb, study.local, study.name
        self._mode = os.environ.get("WANDB_MODE") or ("online" if "WANDB_API_KEY" in os.environ else "offline")
        self._runs: dict[str, Any] = {}

    def begin(self, trial: Mirrored) -> str:
        """The run's id, which is the same whenever the trial is sent."""
        return f"{self._project}-{trial.name.replace('/', '-')}"

    def epochs(self, run: str, trial: Mirrored, rows: Sequence[dict[str, Any]]) -> None:
        """One step an epoch."""
        for row in rows:
            self._run(run, trial).log(_numbers(row), step=int(row["epoch"]))

    def end(self, run: str, trial: Mirrored) -> None:
        """Results as the run's summary; a failed trial's run has failed."""
        opened = self._run(run, trial)
        opened.summary.update({**trial.results(), "status": trial.status.status, "reason": trial.status.reason})
        opened.finish(exit_code=1 if trial.status.status == "failed" else 0)
        del self._runs[run]

    def close(self) -> None:
        """End the runs of trials that have not ended; they go on under the same id."""
        for opened in self._runs.values():
            opened.finish()
        self._runs.clear()

    def _run(self, run: str, trial: Mirrored) -> Any:
        if run not in self._runs:
            quiet = self._wandb.Settings(x_disable_stats=True, x_disable_meta=True, console="off", silent=True)
            where: dict[str, Any] = {"project": self._project, "group": self._project, "dir": str(self._folder)}
            about: dict[str, Any] = {"id": run, "name": trial.name, "job_type": trial.info.role, "mode": self._mode}
            self._runs[run] = self._wandb.init(
                **where,
                **about,
                config=trial.settings(),
                resume="allow" if self._mode == "online" else None,
                reinit="create_new",
                settings=quiet,
            )
        return self._runs[run]


TRACKERS: dict[str, Any] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": Wandb}


def missing_library(name: str) -> str | None:
    """What to install before a tracker can be used; None if it can."""
    if importlib.util.find_spec(LIBRARIES[name]) is not None:
        return None
    extra = "study" if name == "tensorboard" else name
    return f"{name} needs {LIBRARIES[name]}: pip install 'mammosearch[{extra}]'"


def as_dict(part: BaseModel) -> dict[str, Any]:
    """A record's part as a mapping of plain values."""
    return part.model_dump(mode="json")


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if _finite(value)}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
