"""Tables for people: titles, formatted cells, and under each table how its figures are made.

One `Shown` becomes text for a terminal (rich), Markdown or HTML. A table that is wider than the terminal is set in
several blocks below each other, each with the first column again, as pandas does; no figure is ever cut.
`results.tables` says which tables there are.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

ABSENT = "–"

WIDTH_OF_A_FILE = 150
"""Columns of text where the output is no terminal."""
LEAST_TEXT = 24
"""Columns that a text (a reason) gets at least; it is wrapped, figures and names are not."""


@dataclass(frozen=True)
class Shown:
    """A table ready to be printed."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    """What a reader must know to use the figures."""
    name: str = ""
    """What it is called on the command line, and its file."""
    texts: frozenset[int] = frozenset()
    """Columns that hold sentences, which may be wrapped."""

    def rich(self, width: int = WIDTH_OF_A_FILE) -> list[Table]:
        """For a terminal of so many columns: the table, in as many blocks as it takes to keep every figure whole."""
        widths = [self._width(index) for index in range(len(self.headings))]
        gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= width else 1
        blocks = list(self._blocks(widths, gap, width))
        return [self._block(columns, widths, gap, first=columns is blocks[0]) for columns in blocks]

    def _blocks(self, widths: Sequence[int], gap: int, width: int) -> Iterator[list[int]]:
        """The columns of each block; the first column is in all of them."""
        block, used = [0], widths[0]
        for index in range(1, len(widths)):
            if used + gap + widths[index] > width and len(block) > 1:
                yield block
                block, used = [0], widths[0]
            block.append(index)
            used += gap + widths[index]
        yield block

    def _width(self, index: int) -> int:
        words = self.headings[index].split(" ")
        if index in self.texts:
            return max(LEAST_TEXT, *map(cell_len, words))
        return max(map(cell_len, [*words, *(row[index] for row in self.rows)]))

    def _block(self, columns: Sequence[int], widths: Sequence[int], gap: int, *, first: bool) -> Table:
        # Text, not str: what stands in a study's files is no markup.
        title = Text(self.title if first else f"{self.title}, continued", style="bold")
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.padding = (0, gap - 1, 0, 0)  # the box itself puts one blank between two columns
        for index in columns:
            wrap = index in self.texts
            left = index == 0 or wrap or all(row[index][:1].isalpha() for row in self.rows if row[index] != ABSENT)
            table.add_column(
                Text(self.headings[index].replace(" ", "\n")),
                justify="left" if left else "right",
                no_wrap=not wrap,
                overflow="fold",
                min_width=None if wrap else widths[index],
            )
        for row in self.rows:
            table.add_row(*(Text(row[index]) for index in columns))
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


def shown(
    name: str,
    title: str,
    columns: Sequence[Column],
    table: pd.DataFrame,
    notes: Sequence[str],
    *,
    texts: Sequence[str] = (),
) -> Shown:
    """The cells, written; the column `status` only where there is something to tell."""
    kept = [column for column in columns if column.name != "status" or any(table.status != "complete")]
    rows = tuple(tuple(column.write(row[column.name]) for column in kept) for row in table.to_dict("records"))
    wrapped = frozenset(index for index, column in enumerate(kept) if column.name in texts)
    return Shown(title, tuple(column.heading for column in kept), rows, tuple(filter(None, notes)), name, wrapped)


def print_shown(table: Shown, console: Console, told: set[str]) -> None:
    """Print a table at the console's width, and those of its notes that are not among the `told`."""
    for block in table.rich(console.width):
        console.print(block)
    for note in table.notes:
        if note not in told:
            console.print(Text(note, style="dim"))
    told.update(table.notes)
    console.print()


def millions(parameters: Any) -> str:
    """Trainable parameters as the paper writes them: 35052097 is `35.05M`."""
    return ABSENT if pd.isna(parameters) else f"{parameters / 1e6:.2f}M"


def score(value: Any) -> str:
    """Four decimals, as in the paper's table II."""
    return ABSENT if pd.isna(value) else f"{value:.4f}"


def score3(value: Any) -> str:
    """Three decimals, as in the paper's table III."""
    return ABSENT if pd.isna(value) else f"{value:.3f}"


def between(low: Any, high: Any) -> str:
    """An interval of scores."""
    return ABSENT if pd.isna(low) or pd.isna(high) else f"{low:.3f}–{high:.3f}"


def whole(value: Any) -> str:
    """A count."""
    return ABSENT if pd.isna(value) else f"{int(value)}"


def text(value: Any) -> str:
    """As it is; numbers with four digits that matter."""
    if value is None or (isinstance(value, float) and pd.isna(value)) or value is pd.NaT:
        return ABSENT
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())


def yes_no(value: Any) -> str:
    """`yes`, `no`, or nothing known."""
    return ABSENT if value is None or pd.isna(value) else "yes" if value else "no"


def usd(value: Any) -> str:
    """Dollars, to the cent; smaller sums to two digits."""
    if pd.isna(value):
        return ABSENT
    return f"${value:.2f}" if value >= 0.095 or value == 0 else f"${value:.2g}"


def duration(seconds: Any) -> str:
    """Seconds below two minutes, minutes below two hours, hours above."""
    if pd.isna(seconds):
        return ABSENT
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60)):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 3600:.1f} h"


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
