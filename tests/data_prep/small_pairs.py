"""A small source for tests of the build: PNG films of a drawn breast with disc-shaped lesions, and their CSV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from data_prep.schema import BuildSettings

ROWS, COLUMNS = 240, 160


def draw_film(seed: int, *, side: str = "LEFT") -> np.ndarray:
    """uint16 (240, 160): a breast at the left edge, or at the right one for RIGHT."""
    rng = np.random.default_rng(seed)
    film = np.zeros((ROWS, COLUMNS), np.uint16)
    cv2.ellipse(film, (0, 120), (100 + seed % 7, 90), 0, -90, 90, 20000, -1)
    film[film > 0] += rng.integers(0, 6000, int((film > 0).sum())).astype(np.uint16)
    return film if side == "LEFT" else np.ascontiguousarray(film[:, ::-1])


def draw_lesion(x: int, y: int, radius: int, *, side: str = "LEFT") -> np.ndarray:
    """uint8 (240, 160) of 0 and 255."""
    mask = np.zeros((ROWS, COLUMNS), np.uint8)
    cv2.circle(mask, (x, y), radius, 255, -1)
    return mask if side == "LEFT" else np.ascontiguousarray(mask[:, ::-1])


def write_pairs(root: Path, *, patients: int = 12, changes: dict[str, np.ndarray | bytes] | None = None) -> Path:
    """Films of `patients` patients, one each; every third has two lesions. `changes` replaces files by their path."""
    rows = []
    for number in range(patients):
        side = "RIGHT" if number % 2 else "LEFT"
        name = f"p{number:02d}_{side}_CC"
        _write(root / "images" / f"{name}.png", draw_film(number, side=side))
        for lesion in range(2 if number % 3 == 0 else 1):
            mask = draw_lesion(30 + 30 * lesion, 90 + 40 * lesion, 6 + number % 4, side=side)
            _write(root / "masks" / f"{name}_{lesion}.png", mask)
            rows.append(_row(number, name, side, lesion))
    for path, content in (changes or {}).items():
        if isinstance(content, bytes):
            (root / path).write_bytes(content)
        else:
            _write(root / path, content)
    pd.DataFrame(rows).to_csv(root / "index.csv", index=False)
    return root


def settings_for(root: Path, **changes: object) -> BuildSettings:
    """Settings of a build of `write_pairs`: 64 px, four samples a shard."""
    values = {"source": "pairs", "root": str(root), "index_csv": str(root / "index.csv"), "size_px": 64}
    return BuildSettings.model_validate({**values, "samples_per_shard": 4, "val_fraction": 0.2, **changes})


def contents(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Path -> bytes of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {name: path.read_bytes() for path in files if (name := path.relative_to(folder).as_posix()) not in without}


def _row(number: int, name: str, side: str, lesion: int) -> dict[str, object]:
    return {
        "image": f"images/{name}.png",
        "mask": f"masks/{name}_{lesion}.png",
        "patient_id": f"p{number:02d}",
        "side": side,
        "view": "CC",
        "lesion_id": str(lesion),
        "density": number % 4 + 1,
        "pathology": "MALIGNANT" if number % 2 else "BENIGN",
        "kind": "mass",
    }


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
