"""A dry run for people: tables that fit a terminal of 80 columns, and then every mistake.

The tables come first, so that a bill can be had for data that are not on this machine.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from search.bill.dry_run import BillRow, DryRun, dry_run
from search.settings.config import StudyConfig


def print_dry_run(config: StudyConfig, console: Console) -> None:
    """Print what a study would do and cost.

    Raises:
        SettingsError: after the tables, with every mistake that was found, with file, line and key.
    """
    report = dry_run(config)
    show(report, console)
    if report.problems:
        raise config.error(list(report.problems))


def show(report: DryRun, console: Console) -> None:
    """Print the report as tables."""
    data = report.data
    samples = "number unknown until built"
    if data.samples is not None:
        samples = ", ".join(f"{count} {split}" for split, count in data.samples.items())
    state = "" if data.built else " (to be built; numbers are estimates)"
    lines = [
        f"{report.name} -> {report.out}",
        f"data: {data.folder}, {data.field_of_view} view, {data.size_px} px: {samples}{state}",
        f"space: {'endless' if report.size is None else f'{report.size} different trials'}; "
        + (f"compared after epochs {', '.join(map(str, report.rungs))}" if report.rungs else "no pruning"),
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False)
    console.print(_models_table(report.rows))
    console.print(_bill_table(report))
    for note in (_about_time(report), *report.notes):
        console.print(note, markup=False, highlight=False)


def hours(value_h: float | None) -> str:
    """A time in the unit that people would use: `40 s`, `12 min`, `3.4 h`; `?` where it is not known."""
    if value_h is None:
        return "?"
    if value_h < 2 / 60:
        return f"{value_h * 3600:.0f} s"
    return f"{value_h * 60:.0f} min" if value_h < 2 else f"{value_h:.1f} h"


def dollars(value_usd: float | None) -> str:
    """An amount of money; two digits that count where it is small."""
    if value_usd is None:
        return "?"
    return f"{value_usd:.2f}" if value_usd >= 0.1 or value_usd == 0 else f"{value_usd:#.2g}"


def _models_table(rows: Sequence[BillRow]) -> Table:
    """Names are folded where they are long; figures never are."""
    table = _table("models at their real size")
    for name in ("encoder", "decoder", "pool"):
        table.add_column(name, overflow="fold", ratio=1 if name == "encoder" else None, min_width=7)
    for name in ("M para-\nmeters", "batch", "memory\nGB", "of\nGB", "s per\nepoch", "$ per\nepoch"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.encoder,
            row.decoder,
            row.pool,
            f"{row.parameters / 1e6:.2f}",
            _span([str(batch) for batch in row.batch_sizes]),
            _span([f"{need:.2f}" for need in row.need_gb]),
            "-" if row.limit_gb is None else f"{row.limit_gb:.1f}",
            "?" if row.epoch_s is None else f"{row.epoch_s:.1f}",
            "?" if row.epoch_s is None else dollars(row.epoch_usd),
        )
    return table


def _bill_table(report: DryRun) -> Table:
    table = _table("the bill, predicted")
    for name in ("", "trials", "epochs", "of slots", "by the clock", "dollars"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for part in report.parts:
        times = hours(part.slot_h), hours(part.wall_h)
        table.add_row(part.name, str(part.trials), f"{part.epochs:.0f}", *times, dollars(part.usd))
    trials, epochs = sum(part.trials for part in report.parts), sum(part.epochs for part in report.parts)
    slot_h, wall_h = (_sum(times) for times in ([p.slot_h for p in report.parts], [p.wall_h for p in report.parts]))
    usd = _sum([part.usd for part in report.parts])
    table.add_row("all", str(trials), f"{epochs:.0f}", hours(slot_h), hours(wall_h), dollars(usd))
    return table


def _about_time(report: DryRun) -> str:
    if report.slots is None:
        return "by the clock: not known, for it depends on how many slots the cluster has; give pools max_slots"
    slots = "1 slot" if report.slots == 1 else f"{report.slots} slots at once"
    return f"by the clock: with {slots}, all of them busy; building the data and starting Ray come on top"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _sum(values: Sequence[float | None]) -> float | None:
    return None if any(value is None for value in values) else sum(value or 0.0 for value in values)


def _span(values: Sequence[str]) -> str:
    return values[0] if values[0] == values[-1] else f"{values[0]}-{values[-1]}"
