"""Tables for people: titles, formatted cells, and under each table how its figures are made. For `run.py`, `report.py`.

One `Shown` becomes text for a terminal (rich), Markdown or HTML; the numbers stay in the frames of `table.py`.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from cluster.storage import Folder
from results.paper import TABLE_II, TABLE_III
from results.ranks import RankAgreement, agreement_of
from results.table import final_scores, final_table, load, nas_table

ABSENT = "–"

WIDTH_OF_A_FILE = 150
"""Columns of text where the output is no terminal."""


@dataclass(frozen=True)
class Shown:
    """A table ready to be printed."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    """What a reader must know to use the figures."""

    def rich(self) -> Table:
        """For a terminal: headings a word a line, so that the table is narrow. The first column is a name."""
        table = Table(title=self.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        table.padding, table.pad_edge = (0, 1, 0, 0), False
        for index, heading in enumerate(self.headings):
            justify: Literal["left", "right"] = "left" if index == 0 else "right"
            table.add_column(heading.replace(" ", "\n"), justify=justify, no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """GitHub's Markdown, the notes as a list."""
        lines = [f"### {self.title}", "", _line(self.headings), _line(("---", *["---:"] * (len(self.headings) - 1)))]
        lines += [_line(row) for row in self.rows]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)]) + "\n"

    def html(self) -> str:
        """A section with a heading, the table and its notes; every text escaped."""
        head = "".join(f"<th>{html.escape(heading)}</th>" for heading in self.headings)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in self.rows
        )
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return (
            f"<section><h2>{html.escape(self.title)}</h2>\n<table><thead><tr>{head}</tr></thead>\n"
            f"<tbody>{body}</tbody></table>\n<ul class='notes'>{notes}</ul></section>\n"
        )


@dataclass(frozen=True)
class Column:
    """A column of a printed table: its heading, where its figure comes from, how it is written."""

    heading: str
    name: str
    write: Callable[[Any], str]


def show_nas(table: pd.DataFrame) -> Shown:
    """`nas_table` for people: the paper's columns, the best searched trial, and the paper's own figures."""
    columns = (
        Column("Backbone", "encoder", str),
        Column("Params", "parameters", millions),
        Column("Dice", "dice", score),
        Column("IoU", "iou", score),
        Column("Training time", "train_s", duration),
        Column("Epochs", "epochs", whole),
        Column("Status", "status", str),
        Column("Best searched Dice", "best_dice", score),
        Column("Best searched IoU", "best_iou", score),
        Column("Paper Dice", "paper_dice", score),
        Column("Paper IoU", "paper_iou", score),
        Column("Paper time", "paper_time", text),
    )
    notes = (
        dataset_note(table),
        "Dice, IoU, Training time: the paper's setting (loss 0.4 Dice + 0.6 IoU), every encoder with the same budget, "
        "never pruned. " + HOW_SCORED,
        "Best searched: the best of the other trials of that encoder which had the whole search budget.",
        "Training time: seconds of training, validation and start apart, summed over the epochs.",
        "Paper: table II, on CBIS-DDSM at 224 px; its time has no unit. Each of its Dice exceeds 2 IoU / (1 + IoU), "
        "which means over the same masks cannot do, so its two columns were made in different ways.",
    )
    return _shown("Architecture search (table II)", columns, table, notes)


def show_final(table: pd.DataFrame) -> Shown:
    """`final_table` for people, with the rank agreement of search and full training under it."""
    columns = (
        Column("Backbone", "encoder", str),
        Column("Params", "parameters", millions),
        Column("Val Dice", "val_dice", score),
        Column("Val IoU", "val_iou", score),
        Column("Test Dice", "test_dice", score),
        Column("Test IoU", "test_iou", score),
        Column("Search Dice", "search_dice", score),
        Column("Training time", "train_s", duration),
        Column("Epochs", "epochs", whole),
        Column("Status", "status", str),
        Column("Paper Dice", "paper_dice", score),
        Column("Paper IoU", "paper_iou", score),
    )
    notes = (
        dataset_note(table),
        "Winners of the search, trained again with the full budget. " + HOW_SCORED,
        "Test: measured once, after training, on patients that no choice has seen. "
        "Search Dice: the best that the encoder reached with the search's budget.",
        rank_note(table),
        "Paper: table III, its validation set.",
    )
    return _shown("Full training (table III)", columns, table, tuple(filter(None, notes)))


HOW_SCORED = (
    "Dice and IoU: hard, at the trial's threshold, per image, then averaged over the images, at the epoch with the "
    "best validation Dice."
)


VIEWS = {"whole": "whole mammograms", "lesion": "crops around a lesion that is already found"}


def dataset_note(table: pd.DataFrame) -> str:
    """Data, field of view and size, from `study.json`; says so where a study does not tell."""
    study = table.attrs.get("study", {})
    if "dataset" not in study:
        return "Data: not stated in study.json."
    build = study.get("config", {}).get("data", {}).get("build") or {}
    source = f" (source {build['source']})" if "source" in build else ""
    counts = ", ".join(f"{count} {split}" for split, count in study.get("samples", {}).items())
    view, size = study.get("field_of_view", "not stated"), study.get("size_px", "?")
    return (
        f"Data: {str(study['dataset']).rstrip('/').rsplit('/', 1)[-1]}{source}; field of view: {view} "
        f"({VIEWS.get(view, 'unknown')}), {size} x {size} px; images: {counts}; "
        f"fingerprint {str(study.get('dataset_fingerprint', ''))[:12]}."
    )


PAPER_RANKS = {encoder: (TABLE_II[encoder].dice, row.dice) for encoder, row in TABLE_III.items()}
"""Dice of tables II and III for the encoders that the paper trained in full."""


def rank_note(finals: pd.DataFrame) -> str:
    """One sentence on `rank_agreement`, beside that of the paper; empty with fewer than two finals."""
    ours = agreement_of(final_scores(finals))
    if ours.encoders < 2:
        return ""
    return (
        f"Order after the search against order after the full training: {_agreement(ours)}. "
        f"The paper's: {_agreement(agreement_of(PAPER_RANKS))}."
    )


def _agreement(ranks: RankAgreement) -> str:
    turned = "; ".join(f"{winner} overtakes {loser}" for winner, loser in ranks.overtakes) or "no overtaking"
    return (
        f"Kendall's tau {ranks.kendall_tau:.2f}, Spearman's rho {ranks.spearman_rho:.2f} over {ranks.encoders} "
        f"encoders ({turned})"
    )


def millions(parameters: Any) -> str:
    """Trainable parameters as the paper writes them: 35052097 is `35.05M`."""
    return ABSENT if pd.isna(parameters) else f"{parameters / 1e6:.2f}M"


def score(value: Any) -> str:
    """Four decimals, as in the paper's table II."""
    return ABSENT if pd.isna(value) else f"{value:.4f}"


def whole(value: Any) -> str:
    """A count."""
    return ABSENT if pd.isna(value) else f"{int(value)}"


def text(value: Any) -> str:
    """As it is."""
    return ABSENT if pd.isna(value) else f"{value}"


def duration(seconds: Any) -> str:
    """Seconds below two minutes, minutes below two hours, hours above."""
    if pd.isna(seconds):
        return ABSENT
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60)):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 3600:.1f} h"


def _shown(title: str, columns: tuple[Column, ...], table: pd.DataFrame, notes: tuple[str, ...]) -> Shown:
    """The cells, written; the column of statuses only where there is something to tell."""
    kept = [column for column in columns if column.name != "status" or any(table.status != "complete")]
    rows = tuple(tuple(column.write(row[column.name]) for column in kept) for row in table.to_dict("records"))
    return Shown(title, tuple(column.heading for column in kept), rows, notes)


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def shown_tables(trials: pd.DataFrame) -> list[Shown]:
    """Table II, and table III once there is a final, from `load`'s frame."""
    finals = final_table(trials)
    return [show_nas(nas_table(trials)), *([show_final(finals)] if len(finals) else [])]


def print_tables(study: str, console: Console | None = None) -> None:
    """Print the tables of a study, and how its trials ended.

    Raises:
        FileNotFoundError: `study` is not a study's folder.
    """
    console = console or Console()
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    trials = load(study)
    for shown in shown_tables(trials):
        console.print(shown.rich())
        for note in shown.notes:
            console.print(f"  {note}", style="dim", markup=False, highlight=False)
        console.print()
    ended = ", ".join(f"{count} {status}" for status, count in trials.status.value_counts().items())
    console.print(f"{len(trials)} trials: {ended or 'none yet'}", markup=False, highlight=False)


def write_tables(study: str, out: Folder) -> list[str]:
    """Write `trials.csv`, `nas_table.csv`, `final_table.csv` and `tables.md`; returns what was written.

    Raises:
        FileNotFoundError: `study` is not a study's folder.
    """
    trials = load(study)
    finals = final_table(trials)
    frames = {"trials": trials, "nas_table": nas_table(trials), **({"final_table": finals} if len(finals) else {})}
    for name, frame in frames.items():
        out.write_text(f"{name}.csv", frame.to_csv(index=False))
    out.write_text("tables.md", "\n".join(shown.markdown() for shown in shown_tables(trials)))
    return [f"{out}/{name}.csv" for name in frames] + [f"{out}/tables.md"]
