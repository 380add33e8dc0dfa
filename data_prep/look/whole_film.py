"""A film of a shard folder as it was before it was cut, where its source is at hand.

Shards hold no path: the source is looked through again, by the settings on the card and the headers that this machine
remembers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_prep.build import find_again
from data_prep.look.figure import film_with_box
from data_prep.read.dicom import read_film
from data_prep.read.masks import read_mask
from data_prep.schema import ReadError, Sample
from data_prep.shards import ShardFolder


@dataclass(frozen=True)
class WholeFilm:
    """A film with the box that its sample shows, and its lesions."""

    picture: np.ndarray
    """uint8 (rows, columns, 3): blue, green, red."""
    caption: str


def whole_film(shards: ShardFolder) -> WholeFilm | None:
    """The film of `train` whose lesion is of middling size; None where its source is not at hand, or has changed."""
    try:
        row = _middling(shards.table("train"))
        if row is None:
            return None
        sample = _source_of(find_again(shards.folder, shards.card.settings), str(row["sample_id"]))
        return _drawn(sample, row) if sample is not None else None
    except (ValueError, OSError):  # ReadError is a ValueError
        return None


def _middling(table: pd.DataFrame) -> pd.Series | None:
    """The row whose lesions' area is the median of those that have any."""
    areas = table["lesions"].map(lambda lesions: sum(lesion["exact_area_px"] for lesion in lesions))
    in_order = areas[areas > 0].sort_values(kind="stable").index
    return table.loc[in_order[len(in_order) // 2]] if len(in_order) else None


def _source_of(samples: list[Sample], name: str) -> Sample | None:
    """The film of a sample; in the lesion view a sample's name ends with its lesion's."""
    for sample in samples:
        if name == sample.sample_id or name in {f"{sample.sample_id}_{lesion.lesion_id}" for lesion in sample.lesions}:
            return sample
    return None


def _drawn(sample: Sample, row: pd.Series) -> WholeFilm:
    film = read_film(sample.image)
    picture = film_with_box(film.image_HW, row["box"], list(_masks(sample)))
    box, lesions = "the box that the sample shows", "its lesions' outlines"
    rows, columns = film.image_HW.shape
    return WholeFilm(picture, f"{sample.sample_id}, {columns} x {rows} pixels, with {box} and {lesions}")


def _masks(sample: Sample) -> Iterator[np.ndarray]:
    for lesion in sample.lesions:
        try:
            yield read_mask(lesion.mask).full()
        except ReadError:  # a broken mask is in the list of what was left out
            continue
