import io
import shutil
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

import results
from cluster.storage import Folder
from results.files import csv, write_tables
from results.read import read_study
from results.tables import TABLES, print_tables, shown_tables
from tests.results.example_study import write_trial
from tests.results.synthetic_study import write_synthetic

EVERY = tuple(TABLES)


def printed(study: Path, only: tuple[str, ...] = EVERY, *, width: int = 0) -> str:
    console = Console(file=io.StringIO(), width=width or None, force_terminal=bool(width), color_system=None)
    print_tables(str(study), console, only=only)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def odd_studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Studies of every kind that a table may meet."""
    root = tmp_path_factory.mktemp("odd")
    long = write_synthetic(root / "long", trials=12, finals=0)
    for number in (0, 1):
        name = f"tu-convnextv2_femto.fcmae_ft_in1k_and_even_longer_{number}"
        write_trial(Folder(long / "trials" / f"{100 + number:04d}"), encoder=name, dice=(0.1, 0.2), reason="why " * 60)
        write_trial(
            Folder(long / "final" / name / "1"), role="final", encoder=name, dice=(0.1, 0.2), test={"dice": 0.3}
        )
    return {
        "none": write_synthetic(root / "none", trials=0, finals=0),
        "one trial": write_synthetic(root / "one", trials=1, finals=0),
        "running": write_synthetic(root / "running", trials=12, finals=0, running=3),
        "old layout": write_synthetic(root / "old", trials=30, finals=2, seeds=0, patients=5, size_px=32),
        "two objectives": write_synthetic(root / "two", trials=20, finals=0, objectives=("val_dice", "usd")),
        "long names": long,
    }


@pytest.mark.parametrize("width", [80, 150])
def test_every_table_of_a_whole_study_keeps_every_digit(synthetic: Path, width: int) -> None:
    lines = printed(synthetic, width=width).splitlines()
    assert "…" not in "".join(lines)
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("kind", ["none", "one trial", "running", "old layout", "two objectives", "long names"])
def test_every_table_of_an_odd_study_keeps_every_digit_at_80_columns(odd_studies: dict[str, Path], kind: str) -> None:
    text = printed(odd_studies[kind], width=80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_verdict_comes_first(synthetic: Path, odd_studies: dict[str, Path]) -> None:
    assert printed(synthetic, width=200).splitlines()[0] == results.verdict_of(str(synthetic)).sentence
    assert printed(odd_studies["none"]).splitlines()[0] == "No trial is complete yet."


def test_rows_are_whole_lines(study: Path) -> None:
    lines = [" ".join(line.split()) for line in printed(study).splitlines()]
    assert "seresnet50 35.05M 0.6200 0.4493 6.0 s 3 – –" in lines
    assert "mobilenet 8.31M 0.5000 0.3333 6.0 s 3 0.7000 0.5385" in lines
    assert "seresnet50 35.05M 1 0.800 0.770 – – 0.626 0.620 4.0 s" in lines
    assert "seresnet50 35.05M 35.05M 0.6200 0.6642 0.4493 0.4640 6.0 s 3.4 0.800 0.836 0.667 0.717" in lines


def test_the_papers_figures_are_in_a_table_of_their_own(study: Path) -> None:
    headings = {table.name: " ".join(table.headings) for table in shown_tables(read_study(str(study)), EVERY)}
    assert [name for name, text in headings.items() if "Paper" in text] == ["paper"]


def test_every_table_of_scores_says_which_data_and_how_its_figures_are_made(study: Path) -> None:
    for table in shown_tables(read_study(str(study)), ("nas", "final")):
        notes = " ".join(table.notes)
        assert "field of view: lesion (crops around a lesion that is already found), 64 x 64 px" in notes
        assert "phantom-lesion-64px (source phantom)" in notes
        assert "120 train, 24 val, 40 test" in notes
        assert "per image, then averaged" in notes


def test_the_note_of_test_scores_has_the_rule_for_empty_masks_and_who_has_no_distance(synthetic: Path) -> None:
    (table,) = shown_tables(read_study(str(synthetic)), ("scores",))
    notes = " ".join(table.notes)
    assert "Two empty masks agree (Dice and IoU 1, distance 0)" in notes
    assert "of the predictions have no distance" in notes


def test_a_study_that_does_not_tell_its_data_is_not_guessed_at(tmp_path: Path) -> None:
    write_trial(Folder(tmp_path / "trials" / "0000"), role="baseline", dice=(0.1,))
    (table,) = shown_tables(read_study(str(tmp_path)), ("nas",))
    assert "Data: not stated in study.json." in table.notes


def test_the_order_of_two_finals_is_told_without_a_coefficient(study: Path) -> None:
    (table,) = shown_tables(read_study(str(study)), ("final",))
    notes = " ".join(table.notes)
    assert "Order of the two finals by the search and by test Dice after the full training: turned round." in notes
    assert "Kendall" not in notes


def test_the_overtaking_of_the_paper_stands_beside_ours(synthetic: Path) -> None:
    (table,) = shown_tables(read_study(str(synthetic)), ("final",))
    notes = " ".join(table.notes)
    assert "Kendall's tau" in notes
    assert "95 % interval" in notes
    assert "inceptionv3 overtakes seresnet50" in notes


def test_the_flattery_of_the_best_epoch_is_told_with_its_size(synthetic: Path) -> None:
    (table,) = shown_tables(read_study(str(synthetic)), ("final",))
    assert any(
        "the best epoch's on 44 validation images, and so too high: by about 0.0" in note for note in table.notes
    )


def test_a_running_study_prints_what_there_is(tmp_path: Path) -> None:
    write_trial(Folder(tmp_path / "trials" / "0000"), role="baseline", status="running", encoder="vgg19", dice=(0.1,))
    text = printed(tmp_path, ("nas", "final"))
    assert "running" in text
    assert "table III" not in text
    assert "1 trials: 1 running" in text


def test_a_long_list_of_trials_is_cut_and_says_so(synthetic: Path) -> None:
    text = printed(synthetic, ("trials",))
    assert "40 more in trials.csv." in text


def test_a_table_that_is_not_there_is_named_with_those_that_are(study: Path) -> None:
    with pytest.raises(ValueError, match="no table 'finals'; there is final, nas, scores"):
        print_tables(str(study), only=["finals"])


def test_written_tables_hold_the_numbers_and_the_markdown_the_notes(study: Path, tmp_path: Path) -> None:
    written = write_tables(str(study), Folder(tmp_path / "out"))
    names = [str(Path(file).relative_to(tmp_path / "out")) for file in written]
    tables = ["tables/encoders.csv", "tables/cost.csv", "tables/front.csv"]
    assert names == ["trials.csv", "nas_table.csv", "final_table.csv", *tables, "tables.md"]
    nas = pd.read_csv(tmp_path / "out" / "nas_table.csv")
    assert nas.parameters.iloc[0] == 35_052_097
    assert len(pd.read_csv(tmp_path / "out" / "trials.csv")) == 12
    markdown = (tmp_path / "out" / "tables.md").read_text()
    assert "| seresnet50 | 35.05M | 0.6200 | 0.4493 |" in markdown
    assert "- Data: phantom-lesion-64px" in markdown
    assert markdown.startswith("**No final is tested image by image yet; the best")


def test_every_csv_says_what_it_is_of(synthetic: Path, tmp_path: Path) -> None:
    for file in write_tables(str(synthetic), Folder(tmp_path / "out")):
        if file.endswith(".csv"):
            row = pd.read_csv(file).iloc[0]
            assert row[["dataset", "field_of_view", "size_px"]].to_list() == ["shards/made-up", "whole", 48]
            assert row.fingerprint == "fedcba9876543210" * 4


def test_a_cell_that_a_spreadsheet_takes_for_a_formula_is_quoted_and_numbers_are_not(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": ["=1+1", "@x", "-y", "+z", "\tq", "fine"], "b": [-1.0, 2, 3, 4, 5, 6]})
    lines = csv(frame, {}).splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["'=1+1", "'@x", "'-y", "'+z", "'\tq", "fine"]
    assert lines[1].split(",")[1] == "-1.0"


def test_names_that_are_markup_or_formulas_go_through_every_table(study: Path, tmp_path: Path) -> None:
    for number, encoder in enumerate(("x[/red]", "=cmd()")):
        write_trial(Folder(study) / "trials" / f"002{number}", role="baseline", encoder=encoder, dice=(0.3,))
    text = printed(study)
    assert "x[/red]" in text and "=cmd()" in text
    write_tables(str(study), Folder(tmp_path))
    assert set(pd.read_csv(tmp_path / "nas_table.csv").encoder) >= {"x[/red]", "'=cmd()"}


def test_a_file_that_was_not_read_is_said_under_the_finals(synthetic: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(synthetic, tmp_path / "copy")
    sorted(copy.glob("final/*/2/test.parquet"))[0].write_bytes(b"")
    assert "Not read: " in printed(copy, ("final",))


def test_the_front_is_printed_of_a_study_of_several_objectives_alone(tmp_path: Path, study: Path) -> None:
    two = write_synthetic(tmp_path / "s", trials=30, finals=1, seeds=1, objectives=("val_dice", "parameters"))
    assert "Pareto front" in printed(two, ()) and "Pareto front" not in printed(study, ())
