"""Kill a study at random and compare it with an undisturbed one: `python -m search.run --space S --verify-resume N`.

Two studies of the same settings are run in a temporary folder, one undisturbed, one whose driver (two times in three)
or one of whose workers is killed by SIGKILL N times at random moments, and which is resumed after each kill of the
driver. Every trial, its state, parameters, epochs, measures and rungs, and every final must be equal. Needs settings
that are deterministic: a CPU pool.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil

from cluster.storage import Folder
from search.ledger import JOURNAL, open_journal
from trainables.record import TrialRecord

TIMES = ("train_s", "val_s", "images_per_s", "peak_memory_gb")
"""What may differ between two runs of the same trial."""
ROOT = Path(__file__).resolve().parent.parent
WORKER = "RayTrainWorker"
ENDED = ("complete", "pruned", "failed")


@dataclass
class Disturbance:
    """One study under way that is killed and resumed.

    Args:
        space: the settings.
        scratch: where its folders lie: a new one each time a study ended before enough kills were made.
        rng: decides when and whom.
        tell: is given a line a kill.
    """

    space: Path
    scratch: Path
    rng: random.Random
    tell: Callable[[str], None]
    studies: int = 1
    drivers_killed: int = 0
    workers_killed: int = 0

    @property
    def folder(self) -> Path:
        """The study that is killed now."""
        return self.scratch / f"killed-{self.studies}" / "study"

    def disturb(self, *, within_s: float) -> bool:
        """Start or resume the study, wait a while, kill. Returns False if the study ended before."""
        process = start(self.space, self.folder)
        if not _wait(process, self.rng.uniform(0, within_s), self.folder):
            return False
        while self.rng.random() < 1 / 3 and (workers := _workers(process)):
            victim = self.rng.choice(workers)
            self._say(f"SIGKILL to worker {victim.pid}")
            victim.kill()
            self.workers_killed += 1
            if not _wait(process, self.rng.uniform(0, within_s), self.folder):
                return False
        self._say(f"SIGKILL to the driver {process.pid}")
        process.kill()
        process.wait()
        self.drivers_killed += 1
        return True

    def _say(self, what: str) -> None:
        records = [TrialRecord(Folder(p)) for p in sorted((self.folder / "trials").glob("*"))]
        ended = sum(r.status().status in ENDED for r in records)
        epochs = sum(len(r.metrics()) for r in records)
        self.tell(f"{what}, at {len(records)} trials, {ended} of them ended, {epochs} epochs")


def verify_resume(space: Path, *, kills: int, seed: int, tell: Callable[[str], None]) -> list[str]:
    """Run the two studies; returns every difference, empty if there is none.

    Raises:
        RuntimeError: the undisturbed study failed, or the killed one could not be resumed.
    """
    with tempfile.TemporaryDirectory(prefix="mammosearch-verify-") as scratch:
        whole = Path(scratch) / "whole" / "study"
        began = time.monotonic()
        finish(start(space, whole), whole)
        took_s = time.monotonic() - began
        tell(f"undisturbed: {took_s:.0f} s")
        state = Disturbance(space, Path(scratch), random.Random(seed), tell)
        differences: list[str] = []
        while state.drivers_killed + state.workers_killed < kills:
            if not state.disturb(within_s=took_s):
                found = list(compare(whole, state.folder))
                tell(f"study {state.studies} ended, {len(found)} differences")
                differences += found
                state.studies += 1
        finish(start(space, state.folder), state.folder)
        differences += compare(whole, state.folder)
        killed = f"{state.drivers_killed} kills of the driver, {state.workers_killed} of workers"
        tell(f"{killed}: {len(differences)} differences")
        return differences


def start(space: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Begin the study in a process of its own, or go on with it."""
    folder.mkdir(parents=True, exist_ok=True)
    resume = ["--resume"] if (folder / "study.json").exists() else []
    command = [sys.executable, "-m", "search.run", "--space", str(space), "--out", str(folder), *resume]
    output = (folder.parent / "output.txt").open("ab")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for the end of the study in `folder`. Raises RuntimeError with the end of its output if it failed."""
    if process.wait() != 0:
        end = (folder.parent / "output.txt").read_text()[-2000:]
        raise RuntimeError(f"the study ended with status {process.returncode}:\n{end}")


def compare(whole: Path, killed: Path) -> Iterator[str]:
    """Every difference between two studies, but for times."""
    expected, found = _trials(whole), _trials(killed)
    for name in sorted(set(expected) | set(found)):
        if name not in found:
            yield f"{name} is lost"
        elif name not in expected:
            yield f"{name} is one too many"
        else:
            for key in expected[name]:
                if expected[name][key] != found[name][key]:
                    yield f"{name}: {key} is {found[name][key]!r}, undisturbed {expected[name][key]!r}"


def _trials(folder: Path) -> dict[str, dict[str, Any]]:
    """What must be equal of every trial and final, by name. The rungs are the trials' intermediate values."""
    study = optuna.load_study(study_name=folder.name, storage=open_journal(folder / JOURNAL))
    trials = {
        f"trial {t.number}": {
            "state": t.state.name,
            "params": dict(t.params),
            "values": t.values,
            "intermediate values": dict(t.intermediate_values),
        }
        for t in study.get_trials(deepcopy=False)
    }
    for kind in ("trials", "final"):
        for path in sorted((folder / kind).glob("*")):
            record = TrialRecord(Folder(path))
            rows = [{k: v for k, v in row.items() if k not in TIMES} for row in record.metrics()]
            status = record.status()
            trials[f"{kind}/{path.name}"] = {
                "status": status.status,
                "reason": status.reason,
                "rows": rows,
                "test": record.test(),
                "config": record.info().config,
            }
    return trials


def _wait(process: subprocess.Popen[bytes], seconds: float, folder: Path) -> bool:
    """Wait; False if the process ended well meanwhile. Raises RuntimeError if it failed."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    finish(process, folder)
    return False


def _workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The training processes below a driver."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if any(WORKER in word for word in child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found
