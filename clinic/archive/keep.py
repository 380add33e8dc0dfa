"""Films in, regions out: an archive that holds of each film the parts around its lesions, and no one's name.

    <out>/archive.csv          a row a film by its place in the list, not by its path: kept, or left out with the reason
          <film>/region_1.dcm  a region at full resolution, lossless (`clinic.archive.roi`)
                 film.json     the film's size and where its regions lie; written last: with it the film is kept

A film's folder has a pseudonym for a name. Paths may hold names, so none is written or printed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from clinic.archive.card import FILM, FilmCard, RegionEntry
from clinic.archive.identity import FilmFacts, FilmIds, Pseudonyms
from clinic.archive.regions import regions_to_keep
from clinic.archive.roi import pixel_sha256, roi_object
from clinic.dicom.source import SourceError
from clinic.films import FilmFile
from clinic.predict.outputs import to_bytes
from clinic.predict.prediction import Options, predict_film
from clinic.progress import Tell
from clinic.runtime.model import Model, open_model
from clinic.stream import Outcome, Spread, here
from cluster.storage import Folder
from data_prep.read.dicom import read_film, read_stored
from data_prep.read.files import FilePath, open_file, read_all
from data_prep.schema import ReadError
from data_prep.shape.box import Box
from data_prep.shape.breast import find_breast

TABLE = "archive.csv"
ARCHIVE_REASONS = {
    "not_dicom": "the file is no DICOM",
    "no_identity": "the header lacks the UIDs that pseudonyms are made from",
    "not_grey": "the pixels are not MONOCHROME1 or MONOCHROME2",
    "signed": "signed pixels are not archived",
    "modality_lut": "the film has a Modality LUT of its own, whose place the archive needs",
    "no_breast": "no breast is found, so nothing says where the film's labels lie",
    "box_outside_breast": "a lesion's box leaves the breast's box, where the film's labels may lie",
    "no_lesion": "nothing was marked, so nothing is kept",
}
"""Reasons for which a film is not kept, beside those of reading."""


@dataclass(frozen=True, kw_only=True)
class ArchiveJob:
    """What an archivist is to do with each film; can be sent to another process."""

    out: str
    """Path or URI of the archive."""
    names: Pseudonyms
    model: str | None = None
    """Path or URI of a whole-view model that marks the lesions; None: each film comes with a lesion's box."""
    variant: str | None = None
    margin: float = 0.5
    """Kept on each side of a lesion, as a share of its longer side."""
    options: Options = field(default_factory=Options)
    threads: int | None = None

    def open(self) -> Callable[[FilmFile], Outcome]:
        """An archivist in this process. Raises ValueError where the model cannot be opened."""
        model = None if self.model is None else open_model(self.model, variant=self.variant, threads=self.threads)
        return Archivist(self, model)


class Archivist:
    """Films to regions, by one job."""

    def __init__(self, job: ArchiveJob, model: Model | None) -> None:
        self._job, self._model = job, model
        self._out = Folder(job.out)

    def __call__(self, film: FilmFile) -> Outcome:
        """Keep the regions of one film; what cannot be kept comes back with a code as the reason, no detail."""
        row: dict[str, Any] = {"name": "", "status": "left_out", "reason": "", "regions": 0}
        row |= {"film_bytes": 0, "kept_bytes": 0}
        try:
            return Outcome(row={**row, **self._keep(film)})
        except ReadError as error:
            return Outcome(row={**row, "reason": error.code})
        except SourceError as error:
            return Outcome(row={**row, "reason": str(error)})
        except MemoryError:
            return Outcome(row={**row, "reason": "absurd_size"})

    def _keep(self, film: FilmFile) -> dict[str, Any]:
        path: FilePath = read_all(film.path) if "://" in film.path else film.path
        stored_HW, header = read_stored(path)
        if stored_HW.dtype.kind != "u":
            raise SourceError("signed")
        facts, ids = FilmFacts.of(header), FilmIds.of(header)
        name = self._job.names.film(ids)
        window = self._model.info.preprocessing.film_window if self._model else "header"
        boxes = self._boxes(read_film(path, window).image_HW, film)
        entries = []
        for number, box in enumerate(boxes, start=1):
            part_hw = stored_HW[box.top : box.bottom, box.left : box.right]
            made = roi_object(part_hw, facts, self._job.names.of(ids, f"region {number}"), box, number)
            entries.append(self._write(f"{name}/region_{number}.dcm", to_bytes(made), box, part_hw))
        with open_file(path) as (_, film_bytes):
            card = FilmCard(
                rows=stored_HW.shape[0],
                columns=stored_HW.shape[1],
                dtype="uint8" if stored_HW.itemsize == 1 else "uint16",
                facts=facts,
                ids=self._job.names.of(ids, "film"),
                film_bytes=film_bytes,
                regions=tuple(entries),
            )
        self._out.write_json(f"{name}/{FILM}", card.model_dump(mode="json"))
        kept = sum(entry.bytes for entry in entries)
        return {"name": name, "status": "kept", "regions": len(entries), "film_bytes": film_bytes, "kept_bytes": kept}

    def _boxes(self, image_HW: np.ndarray, film: FilmFile) -> list[Box]:
        found = find_breast(image_HW)
        if found is None:
            raise SourceError("no_breast")
        breast = found.box
        if film.lesion is not None:
            lesions = [film.lesion, *film.others]
        else:
            assert self._model is not None, "a film without a box needs a model"
            regions = predict_film(image_HW, [self._model], self._job.options).regions
            lesions = [region.box for region in regions]
        if not lesions:
            raise SourceError("no_lesion")
        if not all(breast.covers(box) for box in lesions):
            raise SourceError("box_outside_breast")
        return regions_to_keep(lesions, breast, margin=self._job.margin)

    def _write(self, file: str, content: bytes, at: Box, part_hw: np.ndarray) -> RegionEntry:
        self._out.write_bytes(file, content)
        name = file.rpartition("/")[2]
        return RegionEntry(file=name, box=at, bytes=len(content), pixel_sha256=pixel_sha256(part_hw))


def archive_films(
    job: ArchiveJob, films: Sequence[FilmFile], *, spread: Spread = here, progress: Tell = lambda *_: None
) -> pd.DataFrame:
    """Keep the regions of many films, and write the table.

    Args:
        job: what to do.
        films: each once (`clinic.films.one_a_film`).
        spread: where the work is done.
        progress: told how far it is.

    Returns:
        archive.csv as a frame: `film` is a film's place in the list, from 1.
    """
    places = {film.name: number for number, film in enumerate(films, start=1)}
    rows: list[dict[str, Any]] = []
    for film, outcome in spread(job, films):
        rows.append({"film": places[film.name], **outcome.row})
        bad = sum(row["status"] != "kept" for row in rows)
        progress(len(rows), len(films), bad)
    table = pd.DataFrame(rows).sort_values("film").reset_index(drop=True)
    Folder(job.out).write_bytes(TABLE, table.to_csv(index=False).encode())
    return table
