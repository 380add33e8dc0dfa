"""Mirrors of a study's trial folders in TensorBoard, MLflow and Weights & Biases, while it runs and afterwards.

    track: [tensorboard]                                          one line of nas.yaml
    python -m results.run export runs/nas --to tensorboard        the same for a study that is there

The trial folders stay the truth. What was sent of a trial is kept in `tracked-<tracker>.json` beside them, so that a
study that goes on sends no epoch twice, and one whose tracker was down for a while catches up. A tracker that fails is
told of once and never stops a study.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from cluster.storage import Folder
from trainables.record import ENDED, TrialRecord, trial_paths
from trainables.track.trackers import TRACKERS, Mirrored, Tracker, as_dict, missing_library

LOG = logging.getLogger("mammosearch")
REPEAT = "repeat of "
"""How the reason of a trial begins that took over the result of an earlier one: it has nothing of its own to send."""
PAUSE_S = 2.0
"""Least time between two looks at the folders of a running study."""
WHERE = {
    "tensorboard": "tensorboard/ in its folder: tensorboard --logdir FOLDER/tensorboard",
    "mlflow": "MLflow, at MLFLOW_TRACKING_URI or in mlflow.db in its folder",
    "wandb": "Weights & Biases; what is in wandb/ of its folder is offline: wandb sync",
}
LAST_WAIT_S = 30.0
"""How long the end of a study waits for its trackers."""


class Mirror:
    """Sends to one tracker what the trial folders of a study hold and it has not been told.

    Args:
        study: the study's folder.
        name: of the tracker.

    Raises:
        ImportError: its library is not installed; the message names the extra.
    """

    def __init__(self, study: Folder, name: str) -> None:
        if (missing := missing_library(name)) is not None:
            raise ImportError(missing)
        self.name = name
        self._study = study
        self._tracker: Tracker | None = None

    def catch_up(self) -> int:
        """Send every epoch and every end that was not sent; returns how many trials there was something to send of.

        Raises:
            Exception: whatever the tracker raises; what was sent before it is remembered.
        """
        told, sent = 0, self._sent()
        for trial_folder in trial_paths(self._study):
            over = sent.get(trial_folder, {}).get("ended", False)
            if not over and (trial := _read(self._study, trial_folder)) is not None:
                told += self._send(trial_folder, trial, sent)
        return told

    def close(self) -> None:
        """Leave nothing open."""
        if self._tracker is not None:
            self._tracker.close()

    def _send(self, trial_folder: str, trial: Mirrored, sent: dict[str, Any]) -> bool:
        known = sent.get(trial_folder, {"epochs": 0, "ended": False})
        ended = trial.status.status in ENDED
        new = [as_dict(row) for row in trial.rows if row.epoch > known["epochs"]]
        if not new and not ended:
            return False
        if self._tracker is None:
            self._tracker = TRACKERS[self.name](self._study)
        assert self._tracker is not None
        if "run" not in known:
            known = {**known, "run": self._tracker.begin(trial)}
            self._remember(sent, trial_folder, known)
        if new:
            self._tracker.epochs(known["run"], trial, new)
            known = {**known, "epochs": new[-1]["epoch"]}
            self._remember(sent, trial_folder, known)
        if ended:
            self._tracker.end(known["run"], trial)
            self._remember(sent, trial_folder, {**known, "ended": True})
        return True

    @property
    def _file(self) -> str:
        return f"tracked-{self.name}.json"

    def _sent(self) -> dict[str, Any]:
        return dict(self._study.read_json(self._file)) if self._study.exists(self._file) else {}

    def _remember(self, sent: dict[str, Any], trial_folder: str, known: dict[str, Any]) -> None:
        sent[trial_folder] = known
        self._study.write_json(self._file, sent)


def export_trials(study: Folder, name: str) -> str:
    """Send a study to a tracker now; returns what was sent, and where it lies.

    Raises:
        ImportError: the tracker's library is not installed.
        RuntimeError: the tracker could not take it; the same call goes on where this one stopped.
    """
    mirror = Mirror(study, name)
    try:
        told = mirror.catch_up()
        mirror.close()
    except (ImportError, ValueError):
        raise
    except Exception as error:  # of any kind: the libraries have their own
        raise RuntimeError(f"{name} could not take the trials: {type(error).__name__}: {error}") from error
    return f"{told} trials of {study} to {WHERE[name]}"


class LiveMirrors:
    """The trackers of a running study, served in a thread of their own: the study never waits for one.

    Use it as a context, and call `changed` after whatever changes the study.
    """

    def __init__(self, study: Folder, names: Sequence[str]) -> None:
        self._mirrors = [Mirror(study, name) for name in names]
        self._complained: set[str] = set()
        self._news = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="trackers", daemon=True)

    def __enter__(self) -> LiveMirrors:
        if self._mirrors:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._news.set()
        if self._mirrors:
            self._thread.join(LAST_WAIT_S)
        if self._thread.is_alive():
            LOG.warning("trackers were not done %d s after the study; `results.run export` sends the rest", LAST_WAIT_S)

    def changed(self) -> None:
        """There may be something new; returns at once."""
        self._news.set()

    def _serve(self) -> None:
        while not self._over.is_set():
            self._news.wait()
            self._news.clear()
            self._all(Mirror.catch_up)
            self._over.wait(PAUSE_S)
        self._all(Mirror.catch_up)
        self._all(Mirror.close)

    def _all(self, action: Any) -> None:
        for mirror in self._mirrors:
            try:
                action(mirror)
            except Exception as error:  # a tracker's troubles are of any kind, and none may end the study
                if mirror.name not in self._complained:
                    self._complained.add(mirror.name)
                    reason = f"{type(error).__name__}: {error}".splitlines()[0]
                    LOG.warning("%s could not be told (%s); the study goes on, and tries again", mirror.name, reason)


def _read(study: Folder, trial_folder: str) -> Mirrored | None:
    """A trial as it stands; None if it cannot be read now, or only took over another's result."""
    record = TrialRecord(study / trial_folder)
    try:
        info, status, rows, test = record.info(), record.status(), record.metrics(), record.test()
    except (OSError, ValueError, TypeError):
        return None
    if status.reason.startswith(REPEAT):
        return None
    name = trial_folder.removeprefix("trials/")
    return Mirrored(name=name, info=info, status=status, rows=rows, test=test or {})
