"""A small study as a search would have written it, for tests of what reads one. Made by hand, figures known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cluster.storage import Folder
from search.proof.provenance import StudyInfo
from trainables.config import TrialConfig
from trainables.record import EpochRow, Examples, Role, Status, TrialInfo, TrialRecord, TrialStatus

INFO = StudyInfo(
    name="example",
    config={"data": {"build": {"source": "phantom"}}},
    dataset="/data/shards/phantom-lesion-64px",
    dataset_fingerprint="0123456789abcdef" * 4,
    field_of_view="lesion",
    size_px=64,
    samples={"train": 120, "val": 24, "test": 40},
    slots={"cpu": 2},
    lag=2,
    seed=0,
    versions={},
    commit="",
    created_at="2026-01-01T00:00:00+00:00",
)

BASELINES = {
    "seresnet50": (35_052_097, (0.30, 0.62, 0.58)),
    "inceptionv3": (29_896_689, (0.20, 0.40, 0.60)),
    "densenet121": (12_059_345, (0.25, 0.50, 0.55)),
    "mobilenet": (8_312_465, (0.10, 0.30, 0.50)),
    "vgg19": (29_057_937, (0.05, 0.10, 0.15)),
}
"""Encoder -> trainable parameters, validation Dice by epoch."""


def epoch_rows(dice: tuple[float, ...], *, train_s: float = 2.0) -> list[EpochRow]:
    """Lines of metrics.jsonl; IoU is that of masks that all have the same Dice."""
    return [
        EpochRow.model_validate(
            {
                **{"epoch": epoch, "train_loss": 1 - value, "val_loss": 1 - value, "val_dice": value},
                **{"val_iou": value / (2 - value), "val_dice_soft": value / 2, "val_iou_soft": value / 3},
                **{"train_s": train_s, "val_s": 1.0, "images_per_s": 50.0, "peak_memory_gb": 0.5, "learning_rate": 0.5},
            }
        )
        for epoch, value in enumerate(dice, start=1)
    ]


def write_trial(
    folder: Folder,
    *,
    role: Role = "search",
    status: Status = "complete",
    encoder: str = "mobilenet",
    dice: tuple[float, ...] = (),
    reason: str = "",
    traceback: str = "",
    test: dict[str, float] | None = None,
    **settings: float,
) -> TrialRecord:
    """One trial folder, whose name is the trial's id."""
    record = TrialRecord(folder)
    config = TrialConfig.model_validate({"encoder": encoder, "epochs": 3, **settings})
    info = TrialInfo(trial_id=folder.name, role=role, config=config, params={"encoder": encoder, **settings})
    record.write_info(info.model_copy(update={"pool": "cpu", "usd_per_hour": 0.36}))
    record.write_metrics(epoch_rows(dice))
    record.write_status(
        TrialStatus(
            status=status,
            reason=reason,
            traceback=traceback,
            epochs=len(dice),
            parameters=BASELINES.get(encoder, (None,))[0],
            slot_s=10.0,
            usd=0.001,
        )
    )
    if test is not None:
        record.write_test(test)
    return record


def write_study(root: Path) -> Path:
    """Five baselines, two searched trials, one pruned, one failed, one repeat, two finals. Returns `root`."""
    folder = Folder(root)
    folder.write_json("study.json", INFO.model_dump(mode="json"))
    trials = folder / "trials"
    for number, (encoder, (_, dice)) in enumerate(BASELINES.items()):
        write_trial(trials / f"{number:04d}", role="baseline", encoder=encoder, dice=dice)
    write_trial(trials / "0005", dice=(0.2, 0.45, 0.70), learning_rate=2e-3)
    write_trial(trials / "0006", dice=(0.2, 0.55, 0.65), learning_rate=5e-4)
    write_trial(trials / "0007", status="pruned", dice=(0.9,), reason="not among the best 1/2 after 1 epochs")
    write_trial(
        trials / "0008",
        status="failed",
        reason="ValueError: <loss> is nan",
        traceback="Traceback (most recent call last):\n  <loss>\nValueError: <loss> is nan",
    )
    write_trial(trials / "0009", dice=(0.2, 0.45, 0.70), reason="repeat of 0005", learning_rate=2e-3)
    _write_finals(folder / "final")
    return root


def _write_finals(finals: Folder) -> None:
    rng = np.random.default_rng(0)
    mask_NHW = np.zeros((2, 16, 16), np.uint8)
    mask_NHW[:, 4:9, 4:9] = 1
    image_NHW = rng.integers(0, 256, (2, 16, 16), dtype=np.uint8)
    for encoder, dice, test in (("mobilenet", (0.5, 0.72), 0.68), ("seresnet50", (0.6, 0.80), 0.77)):
        measures = {"dice": test, "iou": test / (2 - test)}
        record = write_trial(finals / encoder, role="final", encoder=encoder, dice=dice, test=measures, epochs=2)
        record.write_examples(
            Examples(
                sample_ids=["a", "b"],
                image_NHW=image_NHW,
                mask_NHW=mask_NHW,
                probability_NHW=mask_NHW * rng.uniform(0.6, 1.0, mask_NHW.shape),
            )
        )
