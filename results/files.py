"""Every table of a study as files: CSV for programs, one Markdown file for people.

write_tables("runs/nas", Folder("runs/nas"))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cluster.storage import Folder
from results.front import front_table
from results.per_image import scores
from results.read import Read, read_study
from results.show import Shown
from results.summary import cost_table, encoder_table, nas_table
from results.table import DATA
from results.tables import TABLES, show_trials
from results.verdict import Cost
from trainables.score.groups import GROUPS

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes a cell for a formula by."""


def write_tables(study: str, out: Folder, *, cheapest_by: Cost = "parameters") -> list[str]:
    """Write every table: `trials.csv`, `nas_table.csv`, `final_table.csv`, the others below `tables/`, and `tables.md`.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: `study` is not a study's folder.
    """
    read = read_study(study, cheapest_by=cheapest_by)
    written = []
    for name, frame in _frames(read).items():
        out.write_text(name, csv(frame, read.trials.attrs))
        written.append(f"{out}/{name}")
    tables = [table for name in TABLES if (table := _in_full(name, read)) is not None]
    lines = [f"**{read.verdict.sentence}**", "", " ".join(read.verdict.explained), ""]
    out.write_text("tables.md", "\n".join([*lines, *(table.markdown() for table in tables)]))
    return [*written, f"{out}/tables.md"]


def csv(frame: pd.DataFrame, attrs: Mapping[Any, Any]) -> str:
    """A frame as CSV with the columns `DATA` at the end; a text that a spreadsheet takes for a formula gets a `'`."""
    safe = frame.map(lambda cell: f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell)
    return str(safe.assign(**{name: attrs.get(name) for name in DATA}).to_csv(index=False))


def _frames(read: Read) -> dict[str, pd.DataFrame]:
    """The frames by the file that they are written to; those that hold nothing are left out, but for the first two."""
    frames = {
        "final_table.csv": read.finals,
        "tables/encoders.csv": encoder_table(read.trials),
        "tables/cost.csv": cost_table(read.trials),
        "tables/front.csv": front_table(read.trials),
        "tables/scores.csv": scores(read.images),
        "tables/groups.csv": _all_groups(read.images),
    }
    kept = {name: frame for name, frame in frames.items() if len(frame)}
    return {"trials.csv": read.trials, "nas_table.csv": nas_table(read.trials), **kept}


def _all_groups(images: pd.DataFrame) -> pd.DataFrame:
    if images.empty:
        return images
    return pd.concat([scores(images, by=by).assign(by=by) for by in GROUPS], ignore_index=True)


def _in_full(name: str, read: Read) -> Shown | None:
    return show_trials(read, all_of_them=True) if name == "trials" else TABLES[name](read)
