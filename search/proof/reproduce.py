"""Train a row of a study again and say whether it agrees: `python -m search.run --space nas.yaml --reproduce 0003`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from cluster.pools import Pool, Precision
from cluster.storage import Folder
from data_prep.shards import open_shards
from search.proof.provenance import StudyInfo, commit, read_info, versions
from trainables.crew import LocalCrew
from trainables.life import conclude, run_trial
from trainables.order import Report, TrialOrder
from trainables.record import BEST_BY, MEASURES, EpochRow, TrialInfo, TrialRecord, TrialStatus, final_paths
from trainables.step.worker import Worker

GPU_TOLERANCE = 0.02
"""By how much a measure may differ on a GPU, where the order of additions is not fixed. On a CPU it may not."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a trial trained again gave what its row says."""

    agrees: bool
    differences: list[str]
    """The measures that differ, by epoch."""
    warnings: list[str]
    """What is not as it was then: packages, code, hardware."""
    epochs: int


def reproduce(study: Folder, name: str, *, tell: Callable[[str], None]) -> Verdict:
    """Train trial `name` of `study` again, as many epochs as it had, and compare every measure.

    Args:
        study: the study's folder.
        name: a trial (`0003`) or a final with its seed (`final/vgg19/1`).
        tell: is given a line an epoch.

    Raises:
        RuntimeError: it failed this time.
        ValueError: there is no such trial, it has no finished epoch, or the data are not those it was trained on; then
            the changed files are named.
    """
    info = read_info(study)
    record = _record(study, name)
    then = record.metrics()
    if not then:
        raise ValueError(f"trial {name} of {study} has no finished epoch to compare with")
    shards = open_shards(info.dataset)
    shards.check()
    if shards.card.fingerprint != info.dataset_fingerprint:
        now_is, was = shards.card.fingerprint[:12], info.dataset_fingerprint[:12]
        raise ValueError(f"{info.dataset} was built anew since: its fingerprint is {now_is}, in the study {was}")
    trial = record.info()
    pool: dict[str, Any] = next((p for p in info.config["pools"] if p["name"] == trial.pool), {})
    was_on_gpu = bool(pool.get("gpus_per_worker"))
    on_gpu = was_on_gpu and torch.cuda.is_available()
    worker = Worker(device="cuda" if on_gpu else "cpu", threads=pool.get("cpus_per_worker", 1))
    trial = trial.model_copy(update={"shards": info.dataset, "taken_from": "", "taken_epochs": 0})
    # What `precision: auto` meant there it means here, unless the hardware is of another kind.
    precision = record.status().precision if was_on_gpu == on_gpu else None
    again = _train_again(trial, then, worker, precision, tell)
    differences = list(_differences(then, again, tolerance=GPU_TOLERANCE if on_gpu else 0.0))
    return Verdict(
        agrees=not differences,
        differences=differences,
        warnings=list(_warnings(info, workers=trial.workers, was_on_gpu=was_on_gpu, on_gpu=on_gpu)),
        epochs=len(then),
    )


def _train_again(
    trial: TrialInfo, then: list[EpochRow], worker: Worker, precision: Precision | None, tell: Callable[[str], None]
) -> list[EpochRow]:
    """The rows of a trial that is trained again, as many as it had then."""
    again: list[EpochRow] = []
    with tempfile.TemporaryDirectory(prefix="mammosearch-reproduce-") as folder:
        order = TrialOrder(
            info=trial,
            folder=folder,
            pool=Pool(name="here"),
            precision=precision,
            retries=0,
            accumulate_on_oom=False,
        )

        def judge(report: Report) -> TrialStatus | None:
            if (row := report.row) is not None:
                again.append(row)
                was, found = (getattr(one, BEST_BY) for one in (then[row.epoch - 1], row))
                tell(f"epoch {row.epoch}/{len(then)}  {BEST_BY} {found:.4f}, was {was:.4f}")
            return conclude(order, report, stop="it had no more epochs" if len(again) == len(then) else None)

        status = run_trial(order, LocalCrew(worker), judge)
    if status.status == "failed":
        raise RuntimeError(f"trial {trial.trial_id} failed when it was trained again: {status.reason}")
    return again


def _record(study: Folder, name: str) -> TrialRecord:
    where = name if name.startswith("final/") else f"trials/{name}"
    if not study.exists(f"{where}/trial.json"):
        trials, finals = ", ".join((study / "trials").folders()[:8]), ", ".join(final_paths(study))
        raise ValueError(f"{study} has no trial {name!r}; it has {trials} ..., and the finals {finals or '(none yet)'}")
    return TrialRecord(study / where)


def _differences(then: list[EpochRow], again: list[EpochRow], *, tolerance: float) -> list[str]:
    return [
        f"epoch {row.epoch}: {name} was {getattr(row, name)!r}, is {getattr(new, name)!r}"
        for row, new in zip(then, again, strict=True)
        for name in MEASURES
        if getattr(row, name) is not None and abs(getattr(row, name) - getattr(new, name)) > tolerance
    ]


def _warnings(info: StudyInfo, *, workers: int, was_on_gpu: bool, on_gpu: bool) -> list[str]:
    here = versions()
    found = [
        f"{package} was {version}, is {here.get(package, 'absent')}"
        for package, version in info.versions.items()
        if here.get(package) != version
    ]
    if info.commit != commit():
        found.append(f"the code was at {info.commit or 'no commit'}, is at {commit() or 'no commit'}")
    if info.commit.endswith("+changes"):
        found.append("the code had changes that no commit holds")
    if workers > 1:
        found.append(f"it was trained by {workers} workers, here by one: sums are rounded in another order")
    if was_on_gpu != on_gpu:
        found.append("it was trained on a GPU, here on a CPU")
    return found
