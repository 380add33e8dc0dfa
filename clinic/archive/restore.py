"""An archive -> films of the original size: exact inside the regions, black elsewhere."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pydicom
from pydicom.uid import JPEGLSLossless

from clinic.archive.card import FILM, FilmCard, RegionEntry, read_card
from clinic.archive.roi import new_object, pixel_sha256, stored_values
from clinic.predict.outputs import to_bytes
from cluster.storage import Folder
from data_prep.shape.box import Box


@dataclass(frozen=True)
class Kept:
    """One film of an archive, put back."""

    card: FilmCard
    stored_HW: np.ndarray
    """Stored values: exact inside the regions, black elsewhere."""

    @property
    def boxes(self) -> list[Box]:
        """Where the regions lie."""
        return [entry.box for entry in self.card.regions]


def films_of(archive: str) -> Iterator[str]:
    """The names of an archive's films. Raises ValueError if it is none."""
    folder = Folder(archive)
    names = [name for name in folder.names() if folder.exists(f"{name}/{FILM}")]
    if not names:
        raise ValueError(f"{archive} is no archive of `python -m clinic.run archive`: it has no folder with a {FILM}")
    yield from names


def put_back(archive: str, name: str) -> Kept:
    """A film of an archive at its original size.

    Raises:
        ValueError: the film's folder is damaged; the message names the file.
    """
    folder = Folder(archive) / name
    card = read_card(folder)
    black = (1 << card.facts.bits_stored) - 1 if card.facts.photometric == "MONOCHROME1" else 0
    stored_HW = np.full((card.rows, card.columns), black, np.dtype(card.dtype))
    for entry in card.regions:
        stored_HW[entry.box.top : entry.box.bottom, entry.box.left : entry.box.right] = _region(folder, entry, card)
    return Kept(card, stored_HW)


def film_object(kept: Kept) -> bytes:
    """The film as the content of a DICOM file, compressed without loss, under the archive's pseudonyms."""
    made = new_object(kept.stored_HW, kept.card.facts, kept.card.ids, number=1)
    made.DerivationDescription = f"Film put back from {len(kept.boxes)} region(s); black elsewhere"
    made.compress(JPEGLSLossless, encoding_plugin="pyjpegls", generate_instance_uid=False)
    return to_bytes(made)


def _region(folder: Folder, entry: RegionEntry, card: FilmCard) -> np.ndarray:
    """A region's stored values, if they are what was archived."""
    try:
        dataset = pydicom.dcmread(io.BytesIO(folder.read_bytes(entry.file)))
        stored_hw = stored_values(dataset).astype(card.dtype)
    except FileNotFoundError:
        raise ValueError(f"{folder}/{entry.file} is missing") from None
    except Exception as error:  # whatever a damaged file makes pydicom and the decoder raise
        raise ValueError(f"{folder}/{entry.file} cannot be read: {type(error).__name__}") from error
    shape = (entry.box.rows, entry.box.columns)
    if stored_hw.shape != shape or pixel_sha256(stored_hw) != entry.pixel_sha256:
        raise ValueError(f"{folder}/{entry.file} is damaged: its pixels are not those that were archived")
    return stored_hw
