"""An archive beside the films it was made from: exact inside the regions, nothing of anyone's name, bytes saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clinic.archive.identity import FilmIds, Pseudonyms
from clinic.archive.leaks import find_leaks
from clinic.archive.restore import film_object, films_of, put_back
from clinic.dicom.source import SourceError
from clinic.films import FilmFile
from cluster.storage import Folder
from data_prep.read.dicom import read_stored
from data_prep.schema import ReadError


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One film of an archive beside its original."""

    film: int
    """Its place in the list of originals, from 1."""
    name: str
    exact: bool
    """Whether every stored value inside the regions is the original's."""
    leaks: list[str]
    """What of the original's header is left, by the names of elements."""
    film_bytes: int
    kept_bytes: int


def check_archive(archive: str, originals: Sequence[FilmFile], names: Pseudonyms) -> list[Checked]:
    """Compare each film of an archive with its original.

    Args:
        archive: path or URI.
        originals: films, in any order; those that are not in the archive are passed over.
        names: of the archive's secret.

    Raises:
        ValueError: a film of the archive has no original here, or is damaged.
    """
    left = set(films_of(archive))
    checked = []
    for number, film in enumerate(originals, start=1):
        try:
            stored_HW, header = read_stored(film.path)
            name = names.film(FilmIds.of(header))
        except (ReadError, SourceError):
            continue
        if name in left:
            left.remove(name)
            checked.append(_compare(archive, name, film, number, stored_HW))
    if left:
        raise ValueError(
            f"{len(left)} films of {archive} have no original among the {len(originals)} given, {min(left)} for one; "
            "name the folder that the archive was made from, and the same secret"
        )
    return checked


def _compare(archive: str, name: str, film: FilmFile, number: int, stored_HW: np.ndarray) -> Checked:
    kept = put_back(archive, name)
    exact = kept.stored_HW.shape == stored_HW.shape and all(
        np.array_equal(kept.stored_HW[inside], stored_HW[inside])
        for inside in (np.s_[box.top : box.bottom, box.left : box.right] for box in kept.boxes)
    )
    folder = Folder(archive) / name
    contents = [folder.read_bytes(entry.file) for entry in kept.card.regions]
    leaks = [leak for content in (*contents, film_object(kept)) for leak in find_leaks(film.path, content)]
    return Checked(
        film=number,
        name=name,
        exact=exact,
        leaks=sorted(set(leaks)),
        film_bytes=kept.card.film_bytes,
        kept_bytes=sum(map(len, contents)),
    )
