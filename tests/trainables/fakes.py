"""Small samples and a small configuration, with which a trial takes parts of a second."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cluster.pools import Pool
from cluster.storage import Folder
from trainables.config import TrialConfig
from trainables.crew import LocalCrew
from trainables.data import TrialData
from trainables.life import conclude, run_trial
from trainables.order import Begun, Command, Report, Tested, TrialError, TrialOrder
from trainables.record import TIMES, EpochRow, TrialInfo, TrialRecord, TrialStatus
from trainables.step.worker import Worker

SIZE_PX = 32

Curve = Callable[[TrialOrder, int], EpochRow]
Fail = Callable[[TrialOrder, int], TrialError | Exception | None]


@dataclass(frozen=True)
class ArraySamples:
    """Samples that are just arrays."""

    images_NHW: np.ndarray
    masks_NHW: np.ndarray

    @property
    def table(self) -> pd.DataFrame:
        return pd.DataFrame({"sample_id": [f"disc-{i}" for i in range(len(self.images_NHW))]})


def discs(images: int, *, seed: int, size_px: int = SIZE_PX) -> ArraySamples:
    """Bright discs, the lesions, on a dark noisy ground."""
    generator = np.random.default_rng(seed)
    image_NHW = generator.integers(0, 60, (images, size_px, size_px)).astype(np.uint8)
    y_HW, x_HW = np.mgrid[:size_px, :size_px] / size_px
    centre_N2 = generator.uniform(0.3, 0.7, (images, 2))
    radius_N = generator.uniform(0.12, 0.28, images)
    distance_NHW = np.hypot(y_HW - centre_N2[:, :1, None], x_HW - centre_N2[:, 1:, None])
    mask_NHW = (distance_NHW < radius_N[:, None, None]).astype(np.uint8)
    return ArraySamples(image_NHW + 120 * mask_NHW, mask_NHW)


def disc_data(*, train: int = 12, val: int = 5, test: int = 4, size_px: int = SIZE_PX) -> TrialData:
    """Three splits of discs."""
    return TrialData(
        discs(train, seed=1, size_px=size_px),
        discs(val, seed=2, size_px=size_px),
        discs(test, seed=3, size_px=size_px),
    )


def small_config(**changes: Any) -> TrialConfig:
    """A configuration with a network of 95,000 parameters, in float32."""
    defaults = {
        "encoder": "tu-test_efficientnet",
        "decoder": "linknet",
        "batch_size": 4,
        "epochs": 3,
        "precision": "fp32",
        "flip_horizontal": True,
        "brightness": 0.1,
        "contrast": 0.1,
    }
    return TrialConfig(**{**defaults, **changes})


def steady_config(**changes: Any) -> TrialConfig:
    """A configuration whose network has no batch statistics and no dropout: its result does not depend on shares."""
    return small_config(encoder="tu-test_convnext", decoder_norm="layernorm", **changes)


def order_for(config: TrialConfig, folder: Path | str, **changes: Any) -> TrialOrder:
    """An order to train a configuration into a folder, in a session of its own."""
    info = TrialInfo(trial_id=Path(folder).name, role="search", config=config)
    fields = {"folder": str(folder), "pool": Pool(name="cpu"), "session": uuid.uuid4().hex, **changes}
    return TrialOrder(info=info, **fields)


def train(
    config: TrialConfig,
    folder: Path | str | None = None,
    *,
    until: Callable[[EpochRow], bool] = lambda row: False,
    worker: Worker | None = None,
    data: TrialData | None = None,
) -> list[EpochRow]:
    """Train in this process as a study does, to the full budget or `until` an epoch; every row of the folder."""
    with tempfile.TemporaryDirectory() as scratch:
        order = order_for(config, folder or scratch)

        def judge(report: Report) -> TrialStatus | None:
            return conclude(order, report, stop="enough" if report.row and until(report.row) else None)

        status = run_trial(order, LocalCrew(worker or Worker(threads=1), data=lambda *_: data or disc_data()), judge)
        assert status.status in ("complete", "pruned"), status.traceback
        return TrialRecord(Folder(order.folder)).metrics()


class MadeUpCrew:
    """A crew that trains nothing: it makes up the rows, one a second. A trial's checkpoint are its own rows.

    Args:
        curve: order, epoch -> the epoch's row.
        fail: order, epoch -> a `TrialError` instead of the epoch, an exception to raise, or None.
    """

    name = "made up"

    def __init__(self, curve: Curve | None = None, fail: Fail = lambda order, epoch: None) -> None:
        self.now_s = 0.0
        self.told: list[str] = []
        """The commands, in order."""
        self._curve = curve or (lambda order, epoch: epoch_row(epoch, 1 - 0.5**epoch))
        self._fail = fail

    def call(self, command: Command, payload: Any = None) -> dict[int, Any]:
        self.told.append(command)
        return {0: getattr(self, f"_{command}")(payload)}

    def clock(self) -> float:
        """Seconds that it has trained."""
        return self.now_s

    def _begin(self, order: TrialOrder) -> Begun:
        self._order, self._history = order, TrialRecord(Folder(order.folder)).metrics()
        return Begun(history=self._history, parameters=1_000, precision="fp32", left_gb=0.0)

    def _epoch(self, _: None) -> EpochRow | TrialError:
        epoch = len(self._history) + 1
        self.now_s += 1.0
        failure = self._fail(self._order, epoch)
        if isinstance(failure, Exception):
            raise failure
        if failure is not None:
            return failure
        self._history = [*self._history, self._curve(self._order, epoch)]
        return self._history[-1]

    def _test(self, _: None) -> Tested:
        return Tested(measures={"dice": 0.5, "iou": 1 / 3, "best_epoch": 1}, examples=None)

    def _end(self, _: None) -> None:
        return None


def epoch_row(epoch: int, dice: float, **changes: float) -> EpochRow:
    """A row of masks that all have this Dice."""
    measures = {"val_loss": 1 - dice, "val_dice": dice, "val_iou": dice / (2 - dice)}
    soft = {"val_dice_soft": dice / 2, "val_iou_soft": dice / 3}
    times = {"train_s": 0.5, "val_s": 0.25, "images_per_s": 24.0, "peak_memory_gb": 0.5}
    row = {"epoch": epoch, "learning_rate": 1e-3, "train_loss": 1 - dice, **measures, **soft, **times, **changes}
    return EpochRow.model_validate(row)


def without_times(history: list[EpochRow]) -> list[dict[str, Any]]:
    """The rows without what differs from run to run."""
    return [row.model_dump(exclude=set(TIMES)) for row in history]
