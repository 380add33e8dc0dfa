import io
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

import results
from cluster.storage import Folder
from results.show import duration, millions, print_tables, score, show_final, show_nas, write_tables
from tests.results.example_study import write_trial


def printed(study: Path) -> str:
    console = Console(file=io.StringIO())
    print_tables(str(study), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_parameters_are_written_as_in_the_paper() -> None:
    counts = (35_052_097, 29_896_689, 12_059_345, 8_312_465, 29_057_937)
    assert [millions(n) for n in counts] == ["35.05M", "29.90M", "12.06M", "8.31M", "29.06M"]


@pytest.mark.parametrize(("seconds", "written"), [(0, "0.0 s"), (119, "119.0 s"), (120, "2.0 min"), (7200, "2.0 h")])
def test_durations_have_the_unit_that_suits_them(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_what_is_not_there_is_a_dash() -> None:
    assert {score(None), score(float("nan")), millions(None), duration(None)} == {"–"}


def test_printed_rows_are_whole_lines_with_the_papers_figures_beside_ours(study: Path) -> None:
    lines = [" ".join(line.split()) for line in printed(study).splitlines()]
    assert "seresnet50 35.05M 0.6200 0.4493 6.0 s 3 – – 0.6642 0.4640 3.4" in lines
    assert "mobilenet 8.31M 0.5000 0.3333 6.0 s 3 0.7000 0.5385 0.6498 0.4106 1.6" in lines
    assert "seresnet50 35.05M 0.8000 0.6667 0.7700 0.6260 0.6200 4.0 s 2 0.8360 0.7170" in lines


def test_a_terminal_of_100_columns_holds_every_line_of_a_table(study: Path) -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    print_tables(str(study), console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    row = next(line for line in lines if line.strip().startswith("inceptionv3"))
    assert row.split()[-3:] == ["0.6544", "0.4568", "3.1"]


def test_every_table_says_which_data_and_how_its_figures_are_made(study: Path) -> None:
    for shown in (show_nas(results.nas_table(str(study))), show_final(results.final_table(str(study)))):
        notes = " ".join(shown.notes)
        assert "field of view: lesion (crops around a lesion that is already found), 64 x 64 px" in notes
        assert "phantom-lesion-64px (source phantom)" in notes
        assert "120 train, 24 val, 40 test" in notes
        assert "per image, then averaged" in notes


def test_a_study_that_does_not_tell_its_data_is_not_guessed_at(tmp_path: Path) -> None:
    write_trial(Folder(tmp_path / "trials" / "0000"), role="baseline", dice=(0.1,))
    assert "Data: not stated in study.json." in show_nas(results.nas_table(str(tmp_path))).notes


def test_the_overtaking_of_the_paper_stands_beside_ours(study: Path) -> None:
    notes = " ".join(show_final(results.final_table(str(study))).notes)
    assert "seresnet50 overtakes mobilenet" in notes
    assert "inceptionv3 overtakes seresnet50" in notes


def test_a_running_study_prints_what_there_is(tmp_path: Path) -> None:
    write_trial(Folder(tmp_path / "trials" / "0000"), role="baseline", status="running", encoder="vgg19", dice=(0.1,))
    text = printed(tmp_path)
    assert "running" in text
    assert "table III" not in text
    assert "1 trials: 1 running" in text


def test_written_tables_hold_the_numbers_and_the_markdown_the_notes(study: Path, tmp_path: Path) -> None:
    written = write_tables(str(study), Folder(tmp_path / "out"))
    assert [Path(file).name for file in written] == ["trials.csv", "nas_table.csv", "final_table.csv", "tables.md"]
    nas = pd.read_csv(tmp_path / "out" / "nas_table.csv")
    assert nas.parameters.iloc[0] == 35_052_097
    assert len(pd.read_csv(tmp_path / "out" / "trials.csv")) == 12
    markdown = (tmp_path / "out" / "tables.md").read_text()
    assert "| seresnet50 | 35.05M | 0.6200 | 0.4493 |" in markdown
    assert "- Data: phantom-lesion-64px" in markdown


def test_a_bar_in_a_cell_does_not_break_the_markdown(tmp_path: Path) -> None:
    write_trial(Folder(tmp_path / "trials" / "0000"), role="baseline", encoder="a|b", dice=(0.1,))
    assert "| a\\|b |" in show_nas(results.nas_table(str(tmp_path))).markdown()
