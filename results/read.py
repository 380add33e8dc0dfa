"""All that was read of a study, once for several tables and figures.

read = read_study("runs/nas")
read.verdict.sentence
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from cluster.storage import Folder
from results.per_image import load_images, load_marks
from results.summary import final_table
from results.table import load, load_epochs
from results.verdict import Cost, Verdict, judge


@dataclass(frozen=True)
class Read:
    """All that was read of a study, and what is derived of it once for several tables."""

    study: str | Folder
    trials: pd.DataFrame
    cheapest_by: Cost = "parameters"

    @cached_property
    def images(self) -> pd.DataFrame:
        """`results.load_images`."""
        return load_images(self.study)

    @cached_property
    def val_images(self) -> pd.DataFrame:
        """The same of the validation split."""
        return load_images(self.study, "val")

    @cached_property
    def marks(self) -> pd.DataFrame:
        """`results.per_image.load_marks`."""
        return load_marks(self.study)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """`results.load_epochs`."""
        return load_epochs(self.study)

    @cached_property
    def finals(self) -> pd.DataFrame:
        """`results.final_table`."""
        return final_table(self.trials, self.images)

    @cached_property
    def verdict(self) -> Verdict:
        """`results.verdict.judge`."""
        return judge(self.trials, self.images, cheapest_by=self.cheapest_by)


def read_study(study: str | Folder, *, cheapest_by: Cost = "parameters") -> Read:
    """Read a study. Raises FileNotFoundError as `results.load`."""
    return Read(study, load(study), cheapest_by)
