"""The finals image by image: what `trainables.score` wrote into their folders, as one pandas table.

images = load_images("runs/nas")       # one row a test image and network
images.groupby("final").dice.describe()
scores(images)                         # every measure of every final, with its interval
scores(images, by="lesion size")       # the same by group
"""

from __future__ import annotations

import pandas as pd

from cluster.storage import Folder
from results.table import finals_of, study_folder
from trainables.score.groups import GROUPS, NAMES, summary
from trainables.score.marks import Froc, froc
from trainables.score.tables import IMAGE_SCHEMA, MARK_SCHEMA, ScoredSplit, read_images, read_marks

NETWORK = ["final", "trial_id"]


def load_images(study: str | Folder, split: ScoredSplit = "test") -> pd.DataFrame:
    """One row per image of a split and network of a final: `final`, `trial_id`, and the columns of the final's file.

    `attrs["read"]` names the networks whose file was read, `attrs["problems"]` the files that could not be.

    Raises:
        FileNotFoundError: as `results.load`.
    """
    return _gathered(study, lambda folder: read_images(folder, split), IMAGE_SCHEMA.names)


def load_marks(study: str | Folder) -> pd.DataFrame:
    """One row per mark on a test image and network of a final; for the rest as `load_images`."""
    return _gathered(study, read_marks, MARK_SCHEMA.names)


def scores(images: pd.DataFrame, *, by: str | None = None, names: tuple[str, ...] = NAMES) -> pd.DataFrame:
    """Every measure of every final with its interval: `final`, then the columns of `trainables.score.groups.summary`.

    Args:
        images: from `load_images`.
        by: one of `trainables.score.groups.GROUPS`; None: all images together.
        names: the measures wanted.

    Raises:
        ValueError: there is no such way to group.
    """
    if by is not None and by not in GROUPS:
        raise ValueError(f"images are not grouped by {by!r}; there is {', '.join(GROUPS)}")
    groups = GROUPS[by](images) if by and len(images) else None
    parts = [
        summary(part, by=None if groups is None else groups.loc[part.index], names=names).assign(final=final)
        for final, part in images.groupby("final", sort=False)
    ]
    empty = summary(images.head(0), names=()).assign(final="")
    table = pd.concat(parts, ignore_index=True) if parts else empty
    return table[["final", *(name for name in table.columns if name != "final")]]


def froc_of(images: pd.DataFrame, marks: pd.DataFrame, *, draws: int = 1000) -> dict[str, Froc]:
    """The free-response curve of each final, from `load_images` and `load_marks`; of several seeds the mean.

    Finals whose images have no lesion, or whose marks were not kept, are left out.
    """
    curves = {}
    for final, part in images.groupby("final", sort=False):
        found = [
            froc(network, marks[marks.trial_id == trial_id], draws=draws)
            for trial_id, network in part.groupby("trial_id")
            if network.lesions.sum() and trial_id in marks.attrs["read"]
        ]
        if found:
            curves[str(final)] = _mean(found)
    return curves


def _mean(found: list[Froc]) -> Froc:
    """The mean of several networks' curves, read at the same rates; the curve itself is the first one's."""
    at = pd.concat([one.at for one in found]).groupby("false_positives", as_index=False).mean()
    return Froc(found[0].curve, at)


def _gathered(study: str | Folder, read, columns: list[str]) -> pd.DataFrame:  # type: ignore[no-untyped-def]
    frames, problems, found = [pd.DataFrame(columns=[*columns, *NETWORK])], [], []
    for final in finals_of(study_folder(study)):
        try:
            rows = read(final.record.folder)
        except (OSError, ValueError) as error:
            problems.append(f"{final.trial_id}: {error}")
            continue
        if rows is not None:
            found.append(final.trial_id)
            frames.append(rows.assign(final=final.name, trial_id=final.trial_id))
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    table = pd.concat(filled, ignore_index=True)[[*NETWORK, *columns]]
    table.attrs["problems"], table.attrs["read"] = problems, found
    return table
