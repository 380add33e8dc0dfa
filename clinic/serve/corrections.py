"""Where a person's masks are kept: a `pairs` source for the next training, and the DICOM segmentations.

    <folder>/pairs.csv            one row a lesion, as data_prep.find.pairs reads it
             images/<film>.png    the film's grey values alone: no header
             masks/<film>_1.png   one a lesion, 255 inside
             decisions.csv        one row a film: accept, redraw or reject; by which model; when
             seg/<film>.seg.dcm   the mask as DICOM, of the film's patient: for the archive it came from

Films and patients have pseudonyms (clinic.archive.identity). `seg/` holds patients' data, for its owner's eyes alone.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from clinic.archive.identity import Pseudonyms
from clinic.serve.review import Decision, Review
from cluster.storage import Folder
from trainables.record import now

PAIRS, MADE = "pairs.csv", "decisions.csv"
PAIR_COLUMNS = ("image", "mask", "patient_id", "lesion_id", "side", "view")
DECISION_COLUMNS = ("film", "decision", "lesions", "model", "at")


class Corrections:
    """The folder of one service. Called by one thread at a time.

    Args:
        folder: on this machine's disk; made for its owner alone.
        names: pseudonyms.
    """

    def __init__(self, folder: Path, names: Pseudonyms) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path, self._folder, self._names = folder, Folder(folder), names

    def keep(self, review: Review, decision: Decision, model: str) -> str:
        """Write what comes of a decision; one on the same film before is replaced. Gives the film's name."""
        film, patient = self._named(review)
        self._forget(film)
        if review.regions:
            self._folder.write_bytes(f"images/{film}.png", _png(review.image_HW))
        rows = []
        for number, mask_HW in enumerate(review.regions, start=1):
            file = f"masks/{film}_{number}.png"
            self._folder.write_bytes(file, _png(mask_HW * np.uint8(255)))
            rows.append([f"images/{film}.png", file, patient, str(number), review.side, review.view])
        self._add(PAIRS, PAIR_COLUMNS, rows)
        self._add(MADE, DECISION_COLUMNS, [[film, decision, str(len(rows)), model, now()]])
        if review.segmentation is not None:
            self._write_private(f"seg/{film}.seg.dcm", review.segmentation)
        return film

    def _named(self, review: Review) -> tuple[str, str]:
        """The names of a film and its patient; of a film without a header both are its pixels'."""
        if review.ids is None:
            name = hashlib.sha256(np.ascontiguousarray(review.image_HW).tobytes()).hexdigest()[:20]
            return name, name
        return self._names.film(review.ids), self._names.of(review.ids, "film").patient

    def _forget(self, film: str) -> None:
        for name, columns in ((PAIRS, PAIR_COLUMNS), (MADE, DECISION_COLUMNS)):
            rows = [row for row in self._rows(name) if row[0] not in (film, f"images/{film}.png")]
            self._write(name, columns, rows)
        for file in (self._folder / "masks").names():
            if file.rpartition("_")[0] == film:
                self._folder.remove(f"masks/{file}")
        for file in (f"images/{film}.png", f"seg/{film}.seg.dcm"):
            self._folder.remove(file)

    def _add(self, name: str, columns: Sequence[str], rows: list[list[str]]) -> None:
        self._write(name, columns, [*self._rows(name), *rows])

    def _rows(self, name: str) -> list[list[str]]:
        if not self._folder.exists(name):
            return []
        return list(csv.reader(io.StringIO(self._folder.read_text(name))))[1:]

    def _write(self, name: str, columns: Sequence[str], rows: list[list[str]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([columns, *rows])
        self._folder.write_text(name, text.getvalue())

    def _write_private(self, name: str, content: bytes) -> None:
        (self._path / "seg").mkdir(mode=0o700, exist_ok=True)
        self._folder.write_bytes(name, content)
        (self._path / name).chmod(0o600)


def _png(picture: np.ndarray) -> bytes:
    done, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done, picture.shape
    return bytes(data.tobytes())
