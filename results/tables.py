"""Every table of a study for people, each with the notes that its figures need; `results.files` writes them.

for table in shown_tables(read_study("runs/nas")): ...
print_tables("runs/nas", only=["final", "groups"])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from results.front import Aim, front_table
from results.grid import LEVELS, grid_cost
from results.notes import HOW_SCORED, PAPER_NOTE, dataset_note, optimism_note, rank_note, scores_note, taken_note
from results.optimism import optimism_of
from results.per_image import froc_of, scores
from results.read import Read, read_study
from results.show import (
    ABSENT,
    WIDTH_OF_A_FILE,
    Column,
    Shown,
    between,
    duration,
    millions,
    print_shown,
    score,
    score3,
    shown,
    text,
    usd,
    whole,
    yes_no,
)
from results.summary import cost_table, encoder_table, nas_table, rank_agreement, trial_table
from results.verdict import Cost
from trainables.score.groups import GROUPS

TRIALS_SHOWN = 20
"""Trials that are printed unless all are asked for; the file has all."""


def show_final(read: Read) -> Shown | None:
    """The paper's table III: the winners, trained in full, with intervals; None while there is none."""
    if read.finals.empty:
        return None
    table = read.finals.assign(interval=list(map(between, read.finals.test_dice_low, read.finals.test_dice_high)))
    columns = (
        Column("Final", "final", str),
        Column("Params", "parameters", millions),
        Column("Seeds", "seeds", whole),
        Column("Val Dice", "val_dice", score3),
        Column("Test Dice", "test_dice", score3),
        Column("95\u00a0% interval", "interval", str),
        Column("Tied", "tied", yes_no),
        Column("Test IoU", "test_iou", score3),
        Column("Search Dice", "search_dice", score3),
        Column("Training time", "train_s", duration),
        Column("Status", "status", str),
    )
    longest = int(read.finals.epochs.max())
    notes = (
        dataset_note(read.trials),
        f"Winners of the search, trained in full ({longest} epochs); figures are means over the seeds. " + HOW_SCORED,
        "Test: measured once, after training, on patients that no choice has seen; the interval is by patient and "
        "seed. Tied: whether it cannot be told from the best. Search Dice: the same settings with the search's budget.",
        *taken_note(read.trials),
        *_unread(read.images),
        optimism_note(optimism_of(read.trials, read.epochs)),
        rank_note(
            rank_agreement(read.trials, read.images, read.val_images), tested=bool(read.finals.test_dice.notna().any())
        ),
    )
    return shown("final", "Full training (table III)", columns, table, notes)


def show_nas(read: Read) -> Shown:
    """The paper's table II: every encoder with the paper's setting, and the best searched trial."""
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
    )
    notes = (
        dataset_note(read.trials),
        "Dice, IoU, Training time: the paper's setting (loss 0.4 Dice + 0.6 IoU), every encoder with the same budget, "
        "never pruned. " + HOW_SCORED,
        "Best searched: the best of the other trials of that encoder which had the whole search budget.",
        "Training time: seconds of training, validation and start apart, summed over the epochs.",
    )
    return shown("nas", "Architecture search (table II)", columns, nas_table(read.trials), notes)


def show_paper(read: Read) -> Shown:
    """The paper's own figures beside ours."""
    nas = nas_table(read.trials).set_index("encoder")
    finals = read.finals.drop_duplicates("encoder").set_index("encoder")
    ours = finals[["val_dice", "val_iou", "paper_dice", "paper_iou"]]
    table = nas.join(ours.add_suffix("_final"), how="outer").reindex(nas.index).reset_index()
    columns = (
        Column("Backbone", "encoder", str),
        Column("Params", "parameters", millions),
        Column("Paper params", "paper_parameters", text),
        Column("Search Dice", "dice", score),
        Column("Paper Dice", "paper_dice", score),
        Column("Search IoU", "iou", score),
        Column("Paper IoU", "paper_iou", score),
        Column("Training time", "train_s", duration),
        Column("Paper time", "paper_time", text),
        Column("Full Dice", "val_dice_final", score3),
        Column("Paper Dice (III)", "paper_dice_final", score3),
        Column("Full IoU", "val_iou_final", score3),
        Column("Paper IoU (III)", "paper_iou_final", score3),
    )
    return shown(
        "paper", "Beside the paper's tables II and III", columns, table, (dataset_note(read.trials), PAPER_NOTE)
    )


def show_scores(read: Read) -> Shown | None:
    """Every measure of every final on the test split, with its interval."""
    if read.images.empty:
        return None
    table = scores(read.images)
    rows = [
        (heading, *(_estimate(table, name, measure, digits) for name in _final_names(read)))
        for measure, (heading, digits) in SCORE_ROWS.items()
        if table[table.measure == measure].counted.sum()
    ]
    headings = ("Test images", *_final_names(read))
    notes = (dataset_note(read.trials), scores_note(read.images))
    return Shown("Scores on the test split", headings, tuple(rows), tuple(filter(None, notes)), "scores")


SCORE_ROWS: dict[str, tuple[str, int]] = {
    "dice": ("Dice, mean", 3),
    "dice_median": ("Dice, median", 3),
    "dice_pooled": ("Dice, pooled", 3),
    "iou": ("IoU, mean", 3),
    "iou_median": ("IoU, median", 3),
    "iou_pooled": ("IoU, pooled", 3),
    "sensitivity": ("sensitivity, pixels", 3),
    "hd95_px": ("HD95, mean, px", 1),
    "hd95_px_median": ("HD95, median, px", 1),
    "hd95_mm": ("HD95, mean, mm", 1),
    "hd95_mm_median": ("HD95, median, mm", 1),
    "lesions_found": ("lesions found", 3),
    "false_positives": ("false positives", 2),
}
"""Measures in the order of the printed table, with their headings and decimals."""


def show_groups(read: Read) -> Shown | None:
    """Dice of every final by lesion size, density, view, pathology and kind."""
    if read.images.empty:
        return None
    rows = []
    for by in GROUPS:
        table = scores(read.images, by=by, names=("dice", "lesions_found"))
        groups = table.drop_duplicates("group")
        if len(groups) < 2 and by != "lesion size":
            continue
        for group in groups.itertuples():
            part = table[table.group == group.group]
            cells = [f"{by}: {group.group}", str(group.images), str(group.patients)]
            for name in _final_names(read):
                cells += [_estimate(part, name, "dice", 2), _estimate(part, name, "lesions_found", 2, interval=False)]
            rows.append(tuple(cells))
    per_final = [heading for name in _final_names(read) for heading in (f"{name} Dice", f"{name} found")]
    notes = (
        dataset_note(read.trials),
        "Dice: per image, then averaged, with its 95 % interval by patient where there are at least 10. Found: share "
        "of the lesions of which a tenth or more is covered.",
    )
    headings = ("Group", "Images", "Patients", *per_final)
    return Shown("Test Dice by group", headings, tuple(rows), notes, "groups")


def show_froc(read: Read) -> Shown | None:
    """Sensitivity at given numbers of false positives per image."""
    curves = froc_of(read.images, read.marks) if len(read.images) else {}
    if not curves:
        return None
    first = next(iter(curves.values()))
    rows = [
        (f"{row.false_positives:g}", *(_at(curves[name].at.iloc[n]) for name in curves))
        for n, row in enumerate(first.at.itertuples())
    ]
    rows.append(("mean", *(f"{curves[name].score:.3f}" for name in curves)))
    notes = (
        dataset_note(read.trials),
        "Share of lesions hit at so many false positives per image, with the middle 95 % over patients; mean over "
        "seeds. A mark is a connected part above probability 0.1, its score its highest probability. It hits the "
        f"lesion that its peak lies on. Images without a lesion: {_without_lesion(read.images)}.",
    )
    headings = ("False positives", *curves)
    return Shown("Free-response curve (FROC), test split", headings, tuple(rows), notes, "froc")


def show_encoders(read: Read) -> Shown:
    """Best and spread of every encoder's trials."""
    columns = (
        Column("Backbone", "encoder", str),
        Column("Params", "parameters", millions),
        Column("Trials", "trials", whole),
        Column("Complete", "complete", whole),
        Column("Pruned", "pruned", whole),
        Column("Failed", "failed", whole),
        Column("Best Dice", "best_dice", score),
        Column("Median Dice", "median_dice", score),
        Column("Quarter to three", "quartiles", str),
        Column("Slot time", "slot_s", duration),
    )
    table = encoder_table(read.trials)
    table["quartiles"] = list(map(between, table.quarter_dice, table.three_quarter_dice))
    notes = (
        dataset_note(read.trials),
        "Validation Dice of the best epoch over the complete trials; repeats do not count. Trials of one encoder "
        "differ in their settings: the spread is the search's, not that of chance.",
    )
    return shown("encoders", "Trials by encoder", columns, table, notes)


def show_trials(read: Read, *, all_of_them: bool = False) -> Shown:
    """The trials of the search with their settings, best first."""
    whole_table = trial_table(read.trials)
    table = whole_table if all_of_them else whole_table.head(TRIALS_SHOWN)
    searched = [name for name in read.trials.attrs["searched"] if name in table and name != "encoder"]
    columns = (
        Column("Trial", "trial_id", str),
        Column("Role", "role", str),
        Column("State", "status", str),
        Column("Backbone", "encoder", text),
        Column("Dice", "val_dice", score),
        Column("Best epoch", "best_epoch", whole),
        Column("Epochs", "epochs", whole),
        Column("Slot time", "slot_s", duration),
        *(Column(name.replace("_", " "), name, text) for name in searched),
        Column("Reason", "reason", text),
    )
    cells = tuple(tuple(column.write(row[column.name]) for column in columns) for row in table.to_dict("records"))
    left = len(whole_table) - len(table)
    notes = (dataset_note(read.trials), f"{left} more in trials.csv." if left else "")
    headings = tuple(column.heading for column in columns)
    return Shown("Trials", headings, cells, tuple(filter(None, notes)), "trials", frozenset([len(columns) - 1]))


def show_front(read: Read) -> Shown:
    """The trials on the Pareto front."""
    table = front_table(read.trials)
    aims: list[Aim] = table.attrs["aims"]
    known = [
        Column("Trial", "trial_id", str),
        Column("Backbone", "encoder", text),
        Column("Dice", "val_dice", score),
        Column("Params", "parameters", millions),
        Column("Training time", "train_s", duration),
    ]
    names = {column.name for column in known}
    columns = [*known, *(Column(aim.metric, aim.metric, text) for aim in aims if aim.metric not in names)]
    told = " and ".join(f"{aim.metric} ({'high' if aim.maximise else 'low'})" for aim in aims)
    volume = table.attrs["hypervolume"]
    notes = (
        dataset_note(read.trials),
        f"Of {table.attrs['of']} complete trials those that no other beats in {told}. All values of a trial are of one "
        "model, that of its best epoch by validation Dice.",
        ""
        if math.isnan(volume)
        else f"Hypervolume {volume:.3f}: the share of the box between the worst and the best "
        "value of each that the front covers.",
    )
    return shown("front", "Pareto front", columns, table, notes)


def show_cost(read: Read) -> Shown:
    """Slot hours and dollars, and what a grid would have cost."""
    table = cost_table(read.trials)
    columns: list[tuple[str, Callable[[Any], str]]] = [("trials", whole), ("epochs", whole), ("slot_s", duration)]
    columns += [("pruned_s", duration), ("failed_s", duration), ("usd", usd)]
    rows: list[tuple[str, ...]] = [
        (f"{row['part']} {row['pool']}".strip(), *(write(row[name]) for name, write in columns))
        for row in table.to_dict("records")
    ]
    grid = grid_cost(read.trials)
    if grid is not None:
        blank = (ABSENT, ABSENT)
        unpruned = (
            whole(grid.search_trials),
            ABSENT,
            duration(3600 * grid.unpruned_hours),
            *blank,
            usd(grid.unpruned_usd),
        )
        full = (whole(grid.grid_trials), ABSENT, duration(3600 * grid.grid_hours), *blank, usd(grid.grid_usd))
        rows += [("search, unpruned", *unpruned), ("grid", *full)]
    notes = (
        "Slot time: a slot was held, retries included; dollars by the hourly price of its pool.",
        ""
        if grid is None
        else "Search, unpruned: the same trials to their full budget. Grid: every choice of the space "
        f"and {LEVELS} values of each range to the full budget, at what this study's trials took per epoch.",
    )
    headings = ("Part", "Trials", "Epochs", "Slot time", "of it pruned", "of it failed", "Dollars")
    return Shown("Cost", headings, tuple(rows), tuple(filter(None, notes)), "cost")


TABLES: dict[str, Callable[[Read], Shown | None]] = {
    "final": show_final,
    "nas": show_nas,
    "scores": show_scores,
    "groups": show_groups,
    "froc": show_froc,
    "encoders": show_encoders,
    "trials": show_trials,
    "front": show_front,
    "cost": show_cost,
    "paper": show_paper,
}
"""Every table by its name, in the order of `tables.md`."""
PRINTED = ("nas", "final")
"""What is printed when nothing is asked for; of a study of several objectives their front too."""


def shown_tables(read: Read, names: Sequence[str] = PRINTED) -> list[Shown]:
    """The tables of these names that the study has something for."""
    return [table for name in names if (table := TABLES[name](read)) is not None]


def print_tables(
    study: str, console: Console | None = None, *, only: Sequence[str] | None = None, cheapest_by: Cost = "parameters"
) -> None:
    """Print the verdict, tables of a study (None: `PRINTED`), and how its trials ended.

    Raises:
        FileNotFoundError: `study` is not a study's folder.
        ValueError: there is no table of one of the names.
    """
    if unknown := [name for name in only or () if name not in TABLES]:
        raise ValueError(f"there is no table {', '.join(map(repr, unknown))}; there is {', '.join(TABLES)}")
    console = console or Console()
    if not console.is_terminal:
        console.width = WIDTH_OF_A_FILE
    read = read_study(study, cheapest_by=cheapest_by)
    console.print(Text(read.verdict.sentence, style="bold"))
    for sentence in read.verdict.explained:
        console.print(Text(f"  {sentence}", style="dim"))
    console.print()
    told: set[str] = set()
    for table in shown_tables(read, only or _printed(read)):
        print_shown(table, console, told)
    ended = ", ".join(f"{count} {status}" for status, count in read.trials.status.value_counts().items())
    console.print(Text(f"{len(read.trials)} trials: {ended or 'none yet'}"))


def _printed(read: Read) -> Sequence[str]:
    objectives = read.trials.attrs.get("study", {}).get("config", {}).get("objective")
    return (*PRINTED, "front") if isinstance(objectives, list) and len(objectives) > 1 else PRINTED


def _final_names(read: Read) -> list[str]:
    known = set(read.images.final)
    return [name for name in read.finals.final if name in known]


def _estimate(table: pd.DataFrame, final: str, measure: str, digits: int, *, interval: bool = True) -> str:
    """`0.471 (0.40–0.54)`: a value with its interval, where there is one."""
    rows = table[(table.final == final) & (table.measure == measure)]
    if rows.empty or pd.isna(rows.value.iloc[0]):
        return ABSENT
    row = rows.iloc[0]
    value = f"{row.value:.{digits}f}"
    return value if not interval or pd.isna(row.low) else f"{value} ({row.low:.{digits}f}–{row.high:.{digits}f})"


def _at(row: pd.Series) -> str:
    interval = "" if pd.isna(row.low) else f" ({row.low:.2f}–{row.high:.2f})"
    return f"{row.sensitivity:.3f}{interval}"


def _without_lesion(images: pd.DataFrame) -> int:
    return int((images.drop_duplicates("sample_id").lesions == 0).sum())


def _unread(images: pd.DataFrame) -> list[str]:
    return [f"Not read: {problem}" for problem in images.attrs.get("problems", [])]
