"""Studies of any size as a search would have written them, made up in a second or two.

For tables, figures and the page:

    write_synthetic(tmp_path / "study")                                # 200 trials, 3 finals of 3 seeds
    write_synthetic(tmp_path / "study", trials=1, finals=0)            # one trial
    write_synthetic(tmp_path / "study", trials=0, finals=0)            # a study that has just begun
    write_synthetic(tmp_path / "study", trials=40, running=4)          # one under way
    write_synthetic(tmp_path / "study", objectives=("val_dice", "parameters"))

Levels, speeds and costs differ between encoders, curves cross, ASHA prunes, some trials fail, slots stand idle now and
then. The films of the test split are noise with bright blobs; what a final predicts is its truth, distorted. Nothing
here was trained, and no figure of it means anything.
"""

from __future__ import annotations

import heapq
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cluster.storage import Folder
from search.proof.provenance import StudyInfo
from search.settings.config import StudyConfig
from trainables.config import TrialConfig
from trainables.record import Examples, TrialInfo, TrialRecord, TrialStatus
from trainables.score.tables import write_scores

ENCODERS = {
    # trainable parameters, Dice after a long training, seconds an epoch
    "seresnet50": (35_052_097, 0.395, 55.0),
    "inceptionv3": (29_896_689, 0.408, 50.0),
    "densenet121": (12_059_345, 0.372, 43.0),
    "mobilenet": (8_312_465, 0.338, 24.0),
    "vgg19": (29_057_937, 0.285, 53.0),
}
SETTINGS: dict[str, Any] = {
    "data": {"shards": "shards/made-up"},
    "space": {
        "encoder": list(ENCODERS),
        "dice_weight": {"low": 0.0, "high": 1.0},
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "batch_size": [8, 16],
        "optimiser": ["adam", "adamw", "sgd"],
        "momentum": {"low": 0.8, "high": 0.99, "when": {"optimiser": "sgd"}},
    },
    "pruner": {"name": "asha", "grace_epochs": 3, "reduction_factor": 2},
    "pools": [
        {"name": "p100", "gpus_per_worker": 1, "usd_per_hour": 1.46},
        {"name": "t4x2", "gpus_per_worker": 1, "workers": 2, "usd_per_hour": 0.70},
    ],
    "placement": {"rule": "by_size", "up_to_million": {"p100": 20, "t4x2": None}},
}
SLOTS = {"p100": 2, "t4x2": 2}
BEGAN = datetime(2026, 1, 1, 8, 0, 0, tzinfo=UTC)
FAILURE = 'Traceback (most recent call last):\n  File "loop.py", line 118, in train_epoch\n    loss.backward()\n'


@dataclass
class Planned:
    """A trial before it is written."""

    number: int
    role: str
    config: dict[str, Any]
    searched: dict[str, Any]
    dice: np.ndarray
    status: str
    reason: str
    pool: str

    @property
    def seconds(self) -> float:
        cost = ENCODERS[self.config["encoder"]][2] * (0.8 if self.pool == "t4x2" else 1.0)
        return cost * len(self.dice)


def write_synthetic(
    root: Path,
    *,
    trials: int = 200,
    finals: int = 3,
    seeds: int = 3,
    budget: int = 24,
    running: int = 0,
    patients: int = 40,
    size_px: int = 64,
    objectives: tuple[str, ...] = ("val_dice",),
    seed: int = 7,
) -> Path:
    """Write a study's folder.

    Args:
        root: where.
        trials: of the search, the first five of them baselines.
        finals: winners trained in full, of different encoders, with per-image scores.
        seeds: of each final; 0 writes one in the old layout, without a folder for its seed.
        budget: epochs of a trial; of a final twice as many.
        running: the last so many trials are under way.
        patients: of the test split, with one to three films each.
        size_px: side of a film.
        objectives: the study's.
        seed: another one, another study.

    Returns:
        `root`.
    """
    root.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    films = Films.drawn(rng, patients, size_px)
    config = StudyConfig.model_validate(
        {**SETTINGS, "objective": list(objectives), "budget": {"trials": max(trials, 5), "epochs": budget}}
    )
    (root / "study.json").write_text(json.dumps(_info(config, films, root.name).model_dump(mode="json"), indent=1))
    planned = _plan(trials, budget, running, rng)
    ends = _write_trials(root, planned)
    done = sorted((t for t in planned if t.status == "complete"), key=lambda t: -t.dice.max())
    winners = {t.config["encoder"]: t for t in reversed(done)}
    for place, encoder in enumerate(sorted(winners, key=lambda name: -winners[name].dice.max())[:finals]):
        for one in range(max(seeds, 1)):
            name = f"final/{encoder}/{one + 1}" if seeds else f"final/{encoder}"
            _write_final(root, name, winners[encoder], 2 * budget, one + 1, films, ends + place)
    return root


def _info(config: StudyConfig, films: Films, name: str) -> StudyInfo:
    return StudyInfo(
        name=name,
        config=config.model_dump(mode="json"),
        dataset="shards/made-up",
        dataset_fingerprint="fedcba9876543210" * 4,
        field_of_view="whole",
        size_px=films.images_NHW.shape[1],
        samples={"train": 400, "val": 44, "test": len(films.table)},
        slots=SLOTS,
        lag=1,
        seed=0,
        versions={"python": "3.11.15", "torch": "2.9.0"},
        commit="",
        created_at=BEGAN.isoformat(),
    )


def _plan(trials: int, budget: int, running: int, rng: np.random.Generator) -> list[Planned]:
    seen: dict[int, list[float]] = {rung: [] for rung in (3, 6, 12)}
    planned = []
    for number in range(trials):
        baseline = number < len(ENCODERS)
        encoder = (
            list(ENCODERS)[number] if baseline else str(rng.choice(list(ENCODERS), p=[0.27, 0.3, 0.21, 0.14, 0.08]))
        )
        paper = {"dice_weight": 0.4, "learning_rate": 1e-3, "batch_size": 8, "optimiser": "adam"}
        searched = {"encoder": encoder, **paper} if baseline else _searched(encoder, rng)
        config = {**searched, "epochs": budget, "batch_size": searched.get("batch_size", 8)}
        config["iou_weight"] = 1 - config.setdefault("dice_weight", 0.4)
        pool = "p100" if ENCODERS[encoder][0] < 20e6 else "t4x2"
        dice = _curve(config, budget, rng)
        status, reason = "complete", ""
        if number >= trials - running:
            status, dice = "running", dice[: rng.integers(0, budget)]
        elif not baseline and rng.random() < 0.04:
            status, reason, dice = "failed", "OutOfMemoryError: CUDA out of memory", dice[: rng.integers(0, 4)]
        elif not baseline:
            for rung, values in seen.items():
                values.append(float(dice[:rung].max()))
                if len(values) >= 4 and values[-1] < np.median(values):
                    status, reason, dice = "pruned", f"not among the best 1/2 after {rung} epochs", dice[:rung]
                    break
        role = "baseline" if baseline else "search"
        planned.append(Planned(number, role, config, searched, dice, status, reason, pool))
    return planned


def _searched(encoder: str, rng: np.random.Generator) -> dict[str, Any]:
    optimiser = str(rng.choice(["adam", "adamw", "sgd"]))
    searched: dict[str, Any] = {
        "encoder": encoder,
        "dice_weight": round(float(rng.uniform(0, 1)), 3),
        "learning_rate": float(f"{10 ** rng.uniform(-4, -2):.3g}"),
        "batch_size": int(rng.choice([8, 16])),
        "optimiser": optimiser,
    }
    return {**searched, "momentum": round(float(rng.uniform(0.8, 0.99)), 3)} if optimiser == "sgd" else searched


def _curve(config: dict[str, Any], epochs: int, rng: np.random.Generator) -> np.ndarray:
    """Validation Dice by epoch: a level, a speed, noise, and now and then a fall near the end."""
    level = ENCODERS[config["encoder"]][1]
    level -= (
        0.085 * (np.log10(config.get("learning_rate", 1e-3)) + 3.0) ** 2 + 0.03 * (config["dice_weight"] - 0.5) ** 2
    )
    level -= 0.05 * (config.get("optimiser") == "sgd")
    epoch = np.arange(1, epochs + 1)
    noise = rng.normal(0, 0.011, epochs) * (1 - 0.4 * epoch / epochs)
    fall = 0.02 * (epoch > 0.75 * epochs) * (rng.random() < 0.3)
    rise = 1 - np.exp(-epoch / rng.uniform(2.5, 5.5))
    return np.clip((level + rng.normal(0, 0.016)) * rise + noise - fall, 0.002, 0.98)


def _rows(dice: np.ndarray, seconds: float, learning_rate: float) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl."""
    each = seconds / max(len(dice), 1)
    return [
        {
            **{"epoch": epoch, "learning_rate": learning_rate},
            **{"train_loss": round(1 - 1.1 * value, 5), "val_loss": round(1 - value + 0.002 * epoch, 5)},
            **{"val_dice": round(value, 5), "val_iou": round(value / (2 - value), 5)},
            **{"val_dice_soft": round(0.97 * value, 5), "val_iou_soft": round(0.97 * value / (2 - value), 5)},
            **{"train_s": round(0.85 * each, 3), "val_s": round(0.15 * each, 3)},
            **{"images_per_s": round(400 / (0.85 * each), 2), "peak_memory_gb": 6.2},
        }
        for epoch, value in enumerate(map(float, dice), start=1)
    ]


def _write_trials(root: Path, planned: list[Planned]) -> float:
    """Write every trial with the times at which a free slot of its pool took it; seconds until the last one ended."""
    free = {pool: [(0.0, f"{pool}-{number}") for number in range(count)] for pool, count in SLOTS.items()}
    last = 0.0
    for trial in planned:
        began, slot = heapq.heappop(free[trial.pool])
        ended = began + trial.seconds + 2.0
        heapq.heappush(free[trial.pool], (ended, slot))
        last = max(last, ended)
        price = {pool["name"]: pool["usd_per_hour"] for pool in SETTINGS["pools"]}[trial.pool]
        info = TrialInfo(
            trial_id=f"{trial.number:04d}",
            role=trial.role,  # type: ignore[arg-type]
            config=TrialConfig.model_validate(trial.config).model_dump(mode="json"),
            params=trial.searched,
            pool=trial.pool,
            usd_per_hour=price,
        )
        status = _status(trial, began, ended, price)
        rows = _rows(trial.dice, trial.seconds, trial.config.get("learning_rate", 1e-3))
        _write_trial(root / "trials" / info.trial_id, info, status, rows)
    return last


def _status(trial: Planned, began: float, ended: float, price: float) -> TrialStatus:
    seconds = ended - began
    return TrialStatus(
        status=trial.status,  # type: ignore[arg-type]
        reason=trial.reason,
        traceback=FAILURE + trial.reason if trial.status == "failed" else "",
        epochs=len(trial.dice),
        parameters=ENCODERS[trial.config["encoder"]][0],
        slot_s=round(seconds, 3),
        usd=round(seconds / 3600 * price, 6),
        started_at=_at(began),
        ended_at="" if trial.status == "running" else _at(ended),
    )


def _at(seconds: float) -> str:
    return (BEGAN + timedelta(seconds=seconds)).isoformat(timespec="seconds")


def _write_trial(folder: Path, info: TrialInfo, status: TrialStatus, rows: list[dict[str, Any]]) -> None:
    """What `TrialRecord` writes, without waiting for the disk after each file."""
    folder.mkdir(parents=True)
    (folder / "trial.json").write_text(json.dumps(info.model_dump(mode="json")))
    (folder / "status.json").write_text(json.dumps(status.model_dump(mode="json")))
    if rows:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_final(root: Path, name: str, winner: Planned, epochs: int, seed: int, films: Films, began: float) -> None:
    encoder = winner.config["encoder"]
    rng = np.random.default_rng([seed, *encoder.encode()])
    config = {**winner.config, "epochs": epochs, "seed": seed}
    trial = Planned(
        0, "final", config, winner.searched, _curve(config, epochs, rng) + 0.02, "complete", "", winner.pool
    )
    info = TrialInfo(
        trial_id=name.removeprefix("final/"),
        role="final",
        config=TrialConfig.model_validate(config).model_dump(mode="json"),
        params=winner.searched,
        pool=winner.pool,
        usd_per_hour=1.46,
    )
    start = began + (seed - 1) * (trial.seconds + 2)
    rows = _rows(trial.dice, trial.seconds, config.get("learning_rate", 1e-3))
    _write_trial(root / name, info, _status(trial, start, start + trial.seconds, 1.46), rows)
    record = TrialRecord(Folder(root / name))
    quality = ENCODERS[encoder][1] + rng.normal(0, 0.01)

    def predict(images_BHW: np.ndarray) -> np.ndarray:
        return np.stack([films.predicted(int(image_HW[0, 0]), quality, rng) for image_HW in images_BHW])

    for split in ("val", "test"):
        scores = write_scores(record.folder, predict, films, split=split, threshold=0.5)  # type: ignore[arg-type]
    measures = {"dice": float(scores.dice.mean()), "iou": float(scores.iou.mean()), "images": len(scores)}
    record.write_test({**measures, "loss": 0.6, "dice_soft": 0.3, "iou_soft": 0.2, "best_epoch": epochs})
    kept = np.unique(np.linspace(0, len(films.table) - 1, 6).astype(int))
    record.write_examples(
        Examples(
            sample_ids=list(films.table.sample_id.iloc[kept]),
            image_NHW=films.images_NHW[kept],
            mask_NHW=films.masks_NHW[kept],
            probability_NHW=predict(films.images_NHW[kept]),
        )
    )


@dataclass
class Films:
    """A made-up split: noise, a bright breast, blobs as lesions. The first pixel of a film is its number."""

    images_NHW: np.ndarray
    masks_NHW: np.ndarray
    table: pd.DataFrame

    @classmethod
    def drawn(cls, rng: np.random.Generator, patients: int, size_px: int) -> Films:
        images, masks, rows = [], [], []
        for patient in range(patients):
            density, pathology = int(rng.integers(1, 5)), str(rng.choice(["MALIGNANT", "BENIGN"]))
            for film in range(rng.integers(1, 4)):
                image_HW, mask_HW = _film(rng, size_px)
                image_HW[0, 0] = len(images)
                images.append(image_HW)
                masks.append(mask_HW)
                about = {"sample_id": f"P_{patient:05d}_{film}", "patient_id": f"P_{patient:05d}", "kind": "mass"}
                where = {"side": "LEFT", "view": ("CC", "MLO")[film % 2]}
                rows.append({**about, **where, "density": density, "pathology": pathology})
        assert len(images) < 256
        return cls(np.stack(images), np.stack(masks), pd.DataFrame(rows))

    def predicted(self, number: int, quality: float, rng: np.random.Generator) -> np.ndarray:
        """Probabilities: the truth shifted, grown or shrunk and smeared, or missed; now and then something else."""
        truth_HW = self.masks_NHW[number].astype(np.float32)
        side = truth_HW.shape[0]
        ease = np.log(truth_HW.sum() + 1) / 6 + quality + rng.normal(0, 0.25)
        map_HW = np.zeros_like(truth_HW)
        if ease > 0.75:
            shift = rng.integers(-2, 3, 2) if ease < 1.3 else (0, 0)
            map_HW = cv2.GaussianBlur(np.roll(truth_HW, tuple(shift), (0, 1)), (0, 0), 1.0 + 0.8 * rng.random())
        if rng.random() < 0.3:
            row, column = rng.integers(4, side - 8, 2)
            map_HW[row : row + 4, column : column + 4] = rng.uniform(0.2, 0.9)
        return np.clip(map_HW + rng.normal(0, 0.01, map_HW.shape), 0, 1).astype(np.float32)


def _film(rng: np.random.Generator, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:size_px, 0:size_px] / size_px
    breast = ((x / 0.8) ** 2 + ((y - 0.5) / 0.48) ** 2 < 1).astype(np.float32)
    tissue = cv2.GaussianBlur(rng.random((size_px, size_px)).astype(np.float32), (0, 0), size_px / 20) - 0.5
    radius = np.exp(rng.normal(np.log(0.055), 0.4))
    centre = rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.5)
    mask = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2).astype(np.uint8)
    if not mask.any():
        mask[int(centre[0] * size_px), int(centre[1] * size_px)] = 1
    grey = breast * (90 + 900 * tissue) + 70 * cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.5)
    return np.clip(grey + 4 * rng.normal(0, 1, grey.shape), 0, 255).astype(np.uint8), mask
