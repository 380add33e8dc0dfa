"""Test images with their true masks, to draw what finals predict: from the finals' folders, or from the shards."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cluster.storage import Folder
from data_prep.shards import open_shards
from results.table import finals_of, study_folder
from trainables.record import Examples

CASES = (("best", 0.9), ("median", 0.5), ("worst", 0.1))
"""Images by the quantile of their mean Dice over the finals."""


@dataclass(frozen=True)
class Picture:
    """A test image (H, W) with its true mask."""

    image_HW: npt.NDArray[np.uint8]
    truth_HW: npt.NDArray[np.bool_]


def load_examples(study: str | Folder) -> dict[str, Examples]:
    """The kept test examples by the id of the final's training; those without any, or with a damaged file, left out."""
    found = {}
    for final in finals_of(study_folder(study)):
        try:
            kept = final.record.examples()
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            continue
        if kept is not None:
            found[final.trial_id] = kept
    return found


def pictures(study: str | Folder, about: dict) -> dict[str, Picture]:  # type: ignore[type-arg]
    """Test images by sample id: all of them where the study's shards are at hand, else those that finals kept.

    Args:
        study: the study.
        about: its `study.json`.
    """
    return _of_shards(about) or {
        name: Picture(example.image_NHW[n], example.mask_NHW[n] > 0)
        for example in load_examples(study).values()
        for n, name in enumerate(example.sample_ids)
    }


def cases(images: pd.DataFrame, known: set[str]) -> list[tuple[str, str]]:
    """(what it is, sample id) of the images at the quantiles of `CASES`, by mean Dice over all networks.

    Args:
        images: `results.load_images`.
        known: the samples whose picture is there; only these are ranked.
    """
    mean = images[images.sample_id.isin(known)].groupby("sample_id").dice.mean().sort_values(kind="stable")
    if mean.empty:
        return []
    chosen = {mean.index[round(share * (len(mean) - 1))]: name for name, share in CASES}
    return [(name, str(sample)) for sample, name in chosen.items()]


def _of_shards(about: dict) -> dict[str, Picture]:  # type: ignore[type-arg]
    """Images and masks of the study's shards, where they can be opened and are the very same data."""
    try:
        shards = open_shards(str(about["dataset"]))
        if shards.card.fingerprint != about.get("dataset_fingerprint"):
            return {}
        samples = shards.load("test", next(iter(shards.card.image_columns)))  # type: ignore[arg-type]
    except (KeyError, OSError, ValueError):
        return {}
    rows = zip(samples.table.sample_id, samples.images_NHW, samples.masks_NHW, strict=True)
    return {str(name): Picture(image_HW, mask_HW > 0) for name, image_HW, mask_HW in rows}
