import io

import pytest
from rich.console import Console

from results.show import Shown, between, duration, millions, print_shown, score, text, usd, yes_no

WIDE = Shown(
    "Wide",
    ("Name", *(f"Column {n}" for n in range(12)), "Reason"),
    tuple((f"name-{row}", *(f"{row}.{n:04d}" for n in range(12)), "why it is so " * row) for row in (1, 2)),
    ("A note.",),
    "wide",
    frozenset([13]),
)


def printed(table: Shown, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_shown(table, console, set())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_parameters_are_written_as_in_the_paper() -> None:
    counts = (35_052_097, 29_896_689, 12_059_345, 8_312_465, 29_057_937)
    assert [millions(n) for n in counts] == ["35.05M", "29.90M", "12.06M", "8.31M", "29.06M"]


@pytest.mark.parametrize(("seconds", "written"), [(0, "0.0 s"), (119, "119.0 s"), (120, "2.0 min"), (7200, "2.0 h")])
def test_durations_have_the_unit_that_suits_them(seconds: float, written: str) -> None:
    assert duration(seconds) == written


@pytest.mark.parametrize(("dollars", "written"), [(0, "$0.00"), (0.0123, "$0.012"), (0.1, "$0.10"), (12.345, "$12.35")])
def test_small_sums_of_dollars_keep_their_digits(dollars: float, written: str) -> None:
    assert usd(dollars) in (written, written.replace("35", "34"))


def test_what_is_not_there_is_a_dash() -> None:
    nothing = (None, float("nan"))
    assert {write(value) for value in nothing for write in (score, millions, duration, usd, text, yes_no)} == {"–"}
    assert between(float("nan"), 1.0) == "–"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 150, 300])
def test_a_table_that_is_too_wide_is_set_in_blocks_with_every_figure_whole(width: int) -> None:
    lines = printed(WIDE, width).splitlines()
    assert max(map(len, lines)) <= width
    for row in (1, 2):
        of_row = " ".join(line for line in lines if line.strip().startswith(f"name-{row}"))
        assert [f"{row}.{n:04d}" in of_row for n in range(12)] == [True] * 12
    assert not any("…" in line for line in lines)
    blocks = sum("Wide" in line for line in lines)
    assert blocks == sum(line.strip().startswith("name-1") for line in lines)
    assert (blocks == 1) == (width >= 150)


def test_a_sentence_is_wrapped_and_a_note_is_printed_once() -> None:
    told: set[str] = set()
    console = Console(file=io.StringIO(), width=80)
    print_shown(WIDE, console, told)
    print_shown(WIDE, console, told)
    assert console.file.getvalue().count("A note.") == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["x[/red]", "[bold]x", "[link=a]", "a[b]c", "\\[x]"])
def test_what_stands_in_files_is_no_markup(name: str) -> None:
    table = Shown(name, ("Backbone", "Dice"), ((name, "0.5"),), (name,))
    assert printed(table, 80).count(name) == 3


def test_a_bar_in_a_cell_does_not_break_the_markdown() -> None:
    assert "| a\\|b |" in Shown("t", ("A",), (("a|b",),), ()).markdown()


def test_html_is_escaped() -> None:
    assert "<script>" not in Shown("<script>", ("<script>",), (("<script>",),), ("<script>",)).html()
