"""Whose film it is, told no more: names made from a secret, and the few facts of a header that are kept.

Nothing is removed from a header: a new one is written, from an allow-list. What is not named here cannot get in.
The same secret gives the same pseudonyms, so that the films of one patient stay together, and a film's derived objects
keep referring to it. Without the secret nobody can find a film's UID from its pseudonym, or test a guess.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from clinic.dicom.source import SourceError, spacing_mm
from clinic.private_file import read_private

SECRET_BYTES = 32
LEAST_SECRET_BYTES = 16
VIEWS = frozenset({"CC", "MLO", "ML", "LM", "LMO", "SIO", "XCC", "XCCL", "XCCM", "FB", "ISO"})
"""View Position (0018,5101) and, in CBIS-DDSM, Patient Orientation; words of DICOM's, no one's name."""
PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2")


@dataclass(frozen=True, kw_only=True)
class FilmIds:
    """Whose film it is: a header's own, or pseudonyms."""

    patient: str
    study_uid: str
    series_uid: str
    sop_uid: str

    @classmethod
    def of(cls, header: Dataset) -> FilmIds:
        """Those of a header. Raises SourceError where it lacks a UID."""
        if not all(header.get(name) for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")):
            raise SourceError("no_identity")
        return cls(
            patient=str(header.get("PatientID") or ""),
            study_uid=str(header.StudyInstanceUID),
            series_uid=str(header.SeriesInstanceUID),
            sop_uid=str(header.SOPInstanceUID),
        )


class Pseudonyms:
    """Names made from a secret.

    Args:
        secret: at least 16 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < LEAST_SECRET_BYTES:
            raise ValueError(f"the secret has {len(secret)} bytes; fewer than {LEAST_SECRET_BYTES} can be guessed")
        self._secret = secret

    def of(self, ids: FilmIds, kind: str) -> FilmIds:
        """The pseudonyms of an object made from a film.

        Args:
            ids: of the film.
            kind: what the object is; objects of one kind and film have the same.
        """
        return FilmIds(
            patient=self._digest("patient", ids.patient or ids.study_uid).hex()[:16],
            study_uid=self._uid(ids.study_uid, ""),
            series_uid=self._uid(ids.series_uid, kind),
            sop_uid=self._uid(ids.sop_uid, kind),
        )

    def film(self, ids: FilmIds) -> str:
        """What a film's folder is called."""
        return self._digest("film", ids.sop_uid).hex()[:20]

    def _uid(self, old: str, kind: str) -> str:
        """`2.25.` and a number (PS3.5, B.2)."""
        return f"2.25.{int.from_bytes(self._digest('uid', old, kind)[:16], 'big')}"

    def _digest(self, *parts: str) -> bytes:
        return hmac.new(self._secret, "\0".join(parts).encode(), hashlib.sha256).digest()


def read_secret(file: Path, *, make: bool) -> Pseudonyms:
    """The pseudonyms of the secret in a file.

    Args:
        file: its content is the secret.
        make: whether it is made, of mode 0600, where there is none.

    Raises:
        ValueError: there is none, it is too short, or others may read it.
    """
    try:
        return Pseudonyms(read_private(file, make=secrets.token_bytes(SECRET_BYTES) if make else None))
    except ValueError as error:
        raise ValueError(f"secret: {error}") from error


@dataclass(frozen=True, kw_only=True)
class FilmFacts:
    """All that an archive keeps of a header."""

    photometric: str
    bits_stored: int
    laterality: str
    """`L`, `R`, or empty."""
    view: str
    """One of `VIEWS`, or empty."""
    spacing: tuple[float, float] | None
    """Millimetres in the breast between rows and between columns."""
    rescale: tuple[float, float] | None
    """Slope and intercept, where they change anything."""
    window: tuple[float, float] | None
    """Centre and width."""

    @classmethod
    def of(cls, header: Dataset) -> FilmFacts:
        """The facts of a header. Raises SourceError where its pixels cannot be kept as they are."""
        photometric = _word(header, "PhotometricInterpretation", PHOTOMETRIC)
        if not photometric:
            raise SourceError("not_grey")
        if "ModalityLUTSequence" in header:
            raise SourceError("modality_lut")  # its place is taken by the table of grey values
        return cls(
            photometric=photometric,
            bits_stored=int(header.get("BitsStored") or header.BitsAllocated),
            laterality=_word(header, "Laterality", "LR") or _word(header, "ImageLaterality", "LR"),
            view=_word(header, "ViewPosition", VIEWS) or _word(header, "PatientOrientation", VIEWS),
            spacing=spacing_mm(header),
            rescale=_rescale(header),
            window=_numbers(header, "WindowCenter", "WindowWidth"),
        )


def _word(header: Dataset, name: str, allowed: frozenset[str] | tuple[str, ...] | str) -> str:
    """A value, if it is one of the allowed words."""
    value = str(header.get(name) or "").strip()
    return value if value and value in tuple(allowed) else ""


def _rescale(header: Dataset) -> tuple[float, float] | None:
    pair = _numbers(header, "RescaleSlope", "RescaleIntercept")
    return None if pair in (None, (1.0, 0.0)) else pair


def _numbers(header: Dataset, first: str, second: str) -> tuple[float, float] | None:
    """Two numbers, the first of each where there are several."""
    found = []
    for name in (first, second):
        value = header.get(name)
        if value is not None and not isinstance(value, (str, bytes, int, float)) and hasattr(value, "__len__"):
            value = value[0] if len(value) else None
        try:
            found.append(float(value))
        except (TypeError, ValueError):
            return None
    return (found[0], found[1]) if all(abs(number) < 1e9 for number in found) else None
