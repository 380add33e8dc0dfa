"""The variants of a model as a table: on the console, and in the model card."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clinic.runtime.variants import Variant, Variants

HEADINGS = ("variant", "MB", "p50 ms", "p95 ms", "memory MB", "val Dice", "test Dice", "what it is")


def variant_rows(variants: Variants) -> list[tuple[str, ...]]:
    """One row of text for each variant, under `HEADINGS`; the chosen one has a star."""
    return [_row(variant, chosen=variant.name == variants.chosen) for variant in variants.variants]


def _row(variant: Variant, *, chosen: bool) -> tuple[str, ...]:
    found = variant.measured
    name = f"{variant.name} *" if chosen else variant.name
    if found is None:
        return (name, *[""] * 6, variant.made)
    times = [_number(value, 1) for value in (found.size_mb, found.p50_ms, found.p95_ms)]
    dices = [_number(value, 4) for value in (found.val_dice, found.test_dice)]
    return (name, *times, _number(found.peak_memory_mb, 0), *dices, variant.made)


def variants_section(variants: Variants) -> str:
    """The section of the model card."""
    lines = ["## Variants", "", f"| {' | '.join(HEADINGS)} |", "|---|" + "---:|" * 6 + "---|"]
    lines += [f"| {' | '.join(row)} |" for row in variant_rows(variants)]
    lines += ["", f"Measured on {variants.machine}: one image at a time, after the film is read and before the mask is"]
    lines += ["enlarged; memory is that of the whole process. `*` is used where none is named."]
    return "\n".join(lines)


def print_variants(variants: Variants) -> None:
    """Print the table, readable in 80 columns: the last heading's text goes below."""
    table = Table(box=None, pad_edge=False)
    for heading in HEADINGS[:-1]:
        table.add_column(heading, justify="left" if heading == "variant" else "right", no_wrap=True)
    rows = variant_rows(variants)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row[:-1]))
    console = Console(highlight=False)
    console.print(table)
    console.print(Text(f"on {variants.machine}, one image at a time; * is used where none is named"))


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
