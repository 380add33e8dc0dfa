"""The samples that a trial trains and is measured on.

Shapes: N images of a split, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import pandas as pd

from data_prep.schema import Normalisation
from data_prep.shards import open_shards

Split = Literal["train", "val", "test"]


class Samples(Protocol):
    """The samples of one split."""

    @property
    def images_NHW(self) -> np.ndarray:
        """uint8, (N, H, W)."""

    @property
    def masks_NHW(self) -> np.ndarray:
        """uint8, 0 and 1, (N, H, W)."""

    @property
    def table(self) -> pd.DataFrame:
        """One row a sample: `sample_id`, `patient_id` and what else its shard says of it."""


@dataclass(frozen=True)
class TrialData:
    """The samples that a trial trains and is measured on: square uint8 images and masks of 0 and 1, one size."""

    train: Samples
    val: Samples
    test: Samples | None = None
    fingerprint: str = ""
    """Of the shard folder they came from."""

    @classmethod
    def open(cls, shards: str, normalisation: Normalisation = "clahe") -> TrialData:
        """The samples of a shard folder (path or URI), mapped into memory: all processes of a machine share them.

        Raises:
            ValueError: there is no finished shard folder, or it was not built with this normalisation.
        """
        folder = open_shards(shards)
        train, val, test = (folder.load(split, normalisation) for split in ("train", "val", "test"))
        return cls(train, val, test, folder.card.fingerprint)

    def split(self, name: Split) -> Samples:
        """One split's samples. Raises ValueError if there is no such split."""
        samples: Samples | None = {"train": self.train, "val": self.val, "test": self.test}[name]
        if samples is None or len(samples.images_NHW) == 0:
            raise ValueError(f"the data has no {name} split, or it is empty")
        return samples
