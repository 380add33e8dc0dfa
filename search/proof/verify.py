"""Kill a study at random and compare it with an undisturbed one: `python -m search.run --space S --verify-resume N`.

Two studies of the same settings are run in a temporary folder, one undisturbed, one whose driver (two times in three)
or one of whose workers is killed by SIGKILL N times at random moments, and which is resumed after each kill of the
driver. Every decision of the killed one must come out the same again (`search.proof.audit`), and no trial be lost,
doubled or left open. Where decisions depend on no clock (`study.repeatable`, or one slot) every trial, its state,
parameters, epochs, measures and rungs, and every final must equal the undisturbed. Needs a CPU pool.

Most of a small study's time is the start of Ray. So that kills fall into all of it, half of the driver's come after a
random time, half a moment after the end of an epoch; a worker's come a moment after there is one.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from cluster.storage import Folder
from search.journal import JOURNAL
from search.proof.audit import audit
from search.proof.provenance import read_info
from trainables.order import SESSION
from trainables.record import ENDED, TIMES, TrialRecord, trial_paths

ROOT = Path(__file__).resolve().parents[2]
WORKER = "RayTrainWorker"
MOMENT_S = 4.0
"""How long after an event a kill comes at the latest."""


@dataclass
class Disturbance:
    """One study under way that is killed and resumed.

    Args:
        space: the settings.
        scratch: where its folders lie: a new one each time a study ended before enough kills were made.
        rng: decides when and whom.
        tell: is given a line a kill.
        retries: how often a trial may lose its worker.
        options: further words of the study's command.
        victims: `driver` or `worker`, the next one last.
    """

    space: Path
    scratch: Path
    rng: random.Random
    tell: Callable[[str], None]
    retries: int
    options: tuple[str, ...]
    victims: list[str]
    studies: int = 1
    killed_under: Counter[str] = field(default_factory=Counter)
    """How often a worker was killed while a trial of this study was under way; no more often than it may be retried."""

    @property
    def folder(self) -> Path:
        """The study that is killed now."""
        return self.scratch / f"killed-{self.studies}" / "study"

    def next_study(self) -> None:
        """Go on with a study of its own."""
        self.studies += 1
        self.killed_under.clear()

    def disturb(self, *, within_s: float) -> bool:
        """Start or resume the study, and kill until the driver is gone. Returns False if the study ended before."""
        process = start(self.space, self.folder, *self.options)
        while self.victims:
            done = self._kill_worker(process) if self.victims[-1] == "worker" else self._kill_driver(process, within_s)
            if not done:
                return False
            if self.victims.pop() == "driver":
                return True
        finish(process, self.folder)
        return False

    def _kill_driver(self, process: subprocess.Popen[bytes], within_s: float) -> bool:
        if self.rng.random() < 1 / 2:
            lives = _wait(process, self.rng.uniform(0, within_s), self.folder)
        else:
            epochs = self._epochs() + self.rng.randint(0, 2)
            lives = _wait_until(process, self.folder, lambda: self._epochs() >= epochs)
            lives = lives and _wait(process, self.rng.uniform(0, MOMENT_S), self.folder)
        if lives:
            self._say(f"SIGKILL to the driver {process.pid}")
            process.kill()
            process.wait()
        return lives

    def _kill_worker(self, process: subprocess.Popen[bytes]) -> bool:
        workers: list[psutil.Process] = []
        while not workers:  # a trial may end in the moment before the kill
            if not _wait_until(process, self.folder, lambda: self._may_be_killed(process)):
                return False
            if not _wait(process, self.rng.uniform(0, MOMENT_S), self.folder):
                return False
            workers = self._may_be_killed(process)
        victim = self.rng.choice(workers)
        self._say(f"SIGKILL to worker {victim.pid}")
        victim.kill()
        self.killed_under.update(self._running())
        return True

    def _may_be_killed(self, process: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """The workers, unless a trial under way may not be retried once more, or none is."""
        running = self._running()
        # One less than the settings allow: a worker that is killed in a trial's last moment counts as the next one's.
        spared = any(self.killed_under[name] >= max(self.retries - 1, 1) for name in running)
        return [] if spared or not running else _workers(process)

    def _records(self) -> dict[str, TrialRecord]:
        study = Folder(self.folder)
        return {path: TrialRecord(study / path) for path in trial_paths(study)}

    def _running(self) -> list[str]:
        return [name for name, record in self._records().items() if record.status().status == "running"]

    def _epochs(self) -> int:
        return sum(len(record.metrics()) for record in self._records().values())

    def _say(self, what: str) -> None:
        records = self._records().values()
        ended = sum(record.status().status in ENDED for record in records)
        self.tell(f"{what}, at {len(records)} trials and finals, {ended} of them ended, {self._epochs()} epochs")


def verify_resume(
    space: Path, *, kills: int, seed: int, retries: int, here: bool, tell: Callable[[str], None]
) -> list[str]:
    """Run the two studies; returns every difference, empty if there is none.

    Args:
        space: the settings.
        kills: how many; two in three are the driver's, and all of a study in one process.
        seed: of the order of the victims and of the moments.
        retries: how often a trial of these settings may lose its worker.
        here: whether the studies run in one process each, without Ray.
        tell: is given a line a kill.

    Raises:
        RuntimeError: the undisturbed study failed, or the killed one could not be resumed.
    """
    with tempfile.TemporaryDirectory(prefix="mammosearch-verify-") as scratch:
        whole, options = Path(scratch) / "whole" / "study", ("--here",) if here else ()
        began = time.monotonic()
        finish(start(space, whole, *options), whole)
        took_s = time.monotonic() - began
        tell(f"undisturbed: {took_s:.0f} s")
        rng = random.Random(seed)
        workers = kills // 3 if retries and not here else 0
        victims = ["worker"] * workers + ["driver"] * (kills - workers)
        rng.shuffle(victims)
        state = Disturbance(space, Path(scratch), rng, tell, retries, options, victims)
        differences: list[str] = []
        while state.victims:
            if not state.disturb(within_s=took_s):
                found = list(differences_of(whole, state.folder))
                tell(f"study {state.studies} ended, {len(found)} differences")
                differences += found
                state.next_study()
        if state.folder.exists():
            finish(start(space, state.folder, *options), state.folder)
            differences += differences_of(whole, state.folder)
        studies = len(list(Path(scratch).glob("killed-*")))
        killed = f"{kills - workers} kills of the driver, {workers} of workers"
        tell(f"{killed}, {studies} studies: {len(differences)} differences")
        return differences


def start(space: Path, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """Begin the study in a process of its own, or go on with it."""
    folder.mkdir(parents=True, exist_ok=True)
    resume = ["--resume"] if (folder / SESSION).exists() else []
    command = [sys.executable, "-m", "search.run", "--space", str(space), "--out", str(folder), *options, *resume]
    output = (folder.parent / "output.txt").open("ab")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for the end of the study in `folder`. Raises RuntimeError with the end of its output if it failed."""
    if process.wait() != 0:
        end = (folder.parent / "output.txt").read_text()[-2000:]
        raise RuntimeError(f"the study ended with status {process.returncode}:\n{end}")


def differences_of(whole: Path, killed: Path) -> Iterator[str]:
    """What is wrong with the killed study."""
    yield from audit(Folder(killed))
    info = read_info(Folder(whole))
    if info.lag is not None or sum(info.slots.values()) == 1:
        yield from compare(whole, killed)
    else:
        yield from complete(whole, killed)


def complete(whole: Path, killed: Path) -> Iterator[str]:
    """Trials that are lost, one too many, or not ended; two studies whose decisions depend on the clock."""
    names = {folder: {path.name for path in (folder / "trials").glob("*")} for folder in (whole, killed)}
    for name in sorted(names[whole] ^ names[killed]):
        yield f"trials/{name} is {'lost' if name in names[whole] else 'one too many'}"
    for path in sorted([*(killed / "trials").glob("*"), *(killed / "final").glob("*")]):
        record = TrialRecord(Folder(path))
        if record.status().status not in ENDED:
            yield f"{path.parent.name}/{path.name} is {record.status().status} though the study is over"


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
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    study = optuna.load_study(study_name=None, storage=storage)
    trials = {
        f"trial {t.number}": {
            "state": t.state.name,
            "params": dict(t.params),
            "values": t.values,
            "intermediate values": dict(t.intermediate_values),
        }
        for t in study.get_trials(deepcopy=False)
    }
    for path in trial_paths(Folder(folder)):
        record = TrialRecord(Folder(folder) / path)
        rows = [row.model_dump(exclude=set(TIMES)) for row in record.metrics()]
        status = record.status()
        trials[path] = {
            "status": status.status,
            "reason": status.reason,
            "rows": rows,
            "test": record.test(),
            "config": record.info().config.model_dump(),
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


def _wait_until(process: subprocess.Popen[bytes], folder: Path, condition: Callable[[], object]) -> bool:
    """Wait for a condition; otherwise as `_wait`."""
    while not condition():
        if not _wait(process, 0.1, folder):
            return False
    return True


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
