"""Many films in a stream: results as they come, a table at the end, and nothing done twice after a break.

<out>/settings.json     models, threshold, outputs: what made the results
      films.csv         one row a film: segmented, or left out with the reason
      lesions.csv       one row a lesion
      <name>.mask.png   ... the files of each film (`clinic.predict.outputs`)
      .predicting/      the rows of a run under way, by blocks of films; a killed run goes on from them
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from clinic.films import FilmFile
from clinic.predict.prediction import check_models, check_view
from clinic.predict.predictor import Order
from clinic.runtime.variants import read_variants
from clinic.stream import Outcome, Spread, here
from cluster.storage import Folder
from trainables.model.info import read_info
from trainables.record import now

SETTINGS = "settings.json"
FILMS, LESIONS = "films.csv", "lesions.csv"
LESION_COLUMNS = [
    *("film", "name", "lesion", "top", "left", "bottom", "right", "area_px", "area_mm2", "diameter_px", "diameter_mm"),
    *("mean_probability", "max_probability"),
]
UNDER_WAY = ".predicting"
BLOCK_FILMS = 25
FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins with one of these is a formula to a spreadsheet."""

Progress = Callable[[int, int, int], None]
"""Told after each film: films done, films in all, films left out."""


def predict_films(
    order: Order, films: Sequence[FilmFile], *, spread: Spread = here, progress: Progress = lambda *_: None
) -> pd.DataFrame:
    """Segment films and write their tables; films whose rows are there already are not done again.

    Args:
        order: what to do with each.
        films: with names that differ.
        spread: where the work is done.
        progress: told how far it is.

    Returns:
        films.csv as a frame, in the order of `films`.

    Raises:
        ValueError: the folder holds results of another order, or a model cannot be used, or not for these films.
    """
    out = Folder(order.out)
    _claim(out, _described(order, films))
    done = {**_read_tables(out), **_read_blocks(out)}
    left = [film for film in films if done.get(film.name, _NOTHING).row.get("status", "left_out") == "left_out"]
    for film in left:
        done.pop(film.name, None)
    block: dict[str, Outcome] = {}
    total, bad = len(films), sum(outcome.row["status"] != "segmented" for outcome in done.values())
    try:
        for number, (film, outcome) in enumerate(spread(order, left) if left else (), start=1):
            block[film.name] = outcome
            bad += outcome.row["status"] != "segmented"
            progress(total - len(left) + number, total, bad)
            if len(block) == BLOCK_FILMS:
                done |= _write_block(out, block)
                block = {}
    finally:
        if block:
            done |= _write_block(out, block)
    return _write_tables(out, done, films)


_NOTHING = Outcome(row={})


def _described(order: Order, films: Sequence[FilmFile]) -> dict[str, Any]:
    """All that decides what is written about a film, after making sure that the models were made for such films."""
    infos = [read_info(Folder(path)) for path in order.models]
    check_models(infos)
    for with_box in sorted({film.lesion is not None for film in films}):
        check_view(infos[0], with_box=with_box)
    variants = [read_variants(Folder(path)).named(order.variant, path) for path in order.models]
    models = [
        {"name": info.name, "weights_sha256": info.weights_sha256, "variant": variant.name, "files": variant.files}
        for info, variant in zip(infos, variants, strict=True)
    ]
    asked = {"options": asdict(order.options), "outputs": order.outputs, "plane_geometry": order.plane_geometry}
    return dict(json.loads(json.dumps({"models": models, **asked})))


def _claim(out: Folder, settings: dict[str, Any]) -> None:
    """Make the folder ours, or go on in it. Raises ValueError if it holds results of other settings."""
    if not out.exists(SETTINGS):
        out.write_json(SETTINGS, {**settings, "created_at": now()})
        return
    there = out.read_json(SETTINGS)
    changed = [key for key in settings if not isinstance(there, dict) or there.get(key) != settings[key]]
    if changed:
        raise ValueError(
            f"{out} holds results of other settings ({', '.join(changed)} differ, see {SETTINGS}); give another --out"
        )


def _write_block(out: Folder, block: dict[str, Outcome]) -> dict[str, Outcome]:
    number = len((out / UNDER_WAY).names())
    content = [{"name": name, "row": outcome.row, "lesions": outcome.lesions} for name, outcome in block.items()]
    out.write_text(f"{UNDER_WAY}/{number:06d}.json", json.dumps(content))
    return block


def _read_blocks(out: Folder) -> dict[str, Outcome]:
    found = {}
    for name in (out / UNDER_WAY).names():
        if name.endswith(".json"):
            for item in out.read_json(f"{UNDER_WAY}/{name}"):
                found[item["name"]] = Outcome(row=item["row"], lesions=item["lesions"])
    return found


def _read_tables(out: Folder) -> dict[str, Outcome]:
    if not out.exists(FILMS):
        return {}
    films, lesions = (_records(out, name) for name in (FILMS, LESIONS))
    by_name: dict[str, list[dict[str, Any]]] = {}
    for lesion in lesions:
        by_name.setdefault(str(lesion["name"]), []).append(lesion)
    return {str(row["name"]): Outcome(row=row, lesions=by_name.get(str(row["name"]), [])) for row in films}


def _records(out: Folder, name: str) -> list[dict[str, Any]]:
    try:
        content = io.BytesIO(out.read_bytes(name))
        # An empty cell is none; a film may well be called NA.
        table = pd.read_csv(content, dtype={"name": str, "film": str}, keep_default_na=False, na_values=[""])
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return []
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _write_tables(out: Folder, done: dict[str, Outcome], films: Sequence[FilmFile]) -> pd.DataFrame:
    """Write both tables: the films asked for in their order, then those of earlier runs; then end the run."""
    names = [film.name for film in films]
    others = [name for name in done if name not in set(names)]
    kept = [done[name] for name in [*names, *others]]
    table = pd.DataFrame([outcome.row for outcome in kept])
    lesions = pd.DataFrame([row for outcome in kept for row in outcome.lesions], columns=LESION_COLUMNS)
    for name, frame in ((FILMS, table), (LESIONS, lesions)):
        out.write_bytes(name, to_csv(frame))
    out.remove(UNDER_WAY)
    return table[table["name"].isin(names)].reset_index(drop=True)


def to_csv(frame: pd.DataFrame) -> bytes:
    """The frame as CSV in which no cell is taken for a formula."""
    plain = frame.copy()
    for column in plain.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in plain.dtypes]]:
        plain[column] = [f"'{cell}" if str(cell).startswith(FORMULAS) else cell for cell in plain[column]]
    return plain.to_csv(index=False).encode()
