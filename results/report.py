"""One HTML page about a study that needs nothing beside it: verdict, tables, charts, pictures, every trial.

python -m results.run report runs/nas
"""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.storage import Folder
from data_prep.look.page import inlined_json, render_page
from results.examples import pictures
from results.gallery import films
from results.hero import forest, groups
from results.lanes import waited_for
from results.palette import DARK, LIGHT, OTHER_DARK, OTHER_LIGHT, colour_numbers
from results.read import Read, read_study
from results.report_data import common_settings, page_data, sizes
from results.show import Shown, usd
from results.tables import shown_tables

WEB = Path(__file__).parent / "web"
STYLES = (WEB / "report.css",)
SCRIPTS = (
    *(WEB / "vendor" / name for name in ("echarts.min.js", "dataTables.min.js")),
    *(WEB / name for name in ("study.js", "charts.js", "parallel.js", "list.js", "trial.js")),
)
TABLES = ("nas", "final", "scores", "froc", "encoders", "front", "cost", "paper")
LIMITS = (
    "No medical device: nothing here may decide about a patient.",
    "A validation score is that of a trial's best epoch, chosen on the same images: it flatters.",
    "Importance speaks of this space and this budget only.",
)
OF_VIEW = {
    "whole": "Whole films: on CBIS-DDSM at 224 px a single network reaches a Dice of 0.25 to 0.45; crops reach 0.85.",
    "lesion": "Crops around lesions that are already found: the scores say nothing of finding lesions on a whole film.",
}


def write_report(study: str, out: Folder) -> list[str]:
    """Write `report.html`; returns what was written.

    Raises:
        FileNotFoundError: `study` is not a study's folder.
    """
    out.write_text("report.html", render_report(study))
    return [f"{out}/report.html"]


def render_report(study: str) -> str:
    """The page as HTML text, also while the study runs and for one with failed trials, one trial, or none.

    Raises:
        FileNotFoundError: `study` is not a study's folder.
    """
    read = read_study(study)
    trials, info = read.trials, read.trials.attrs["study"]
    name = str(info.get("name") or Folder(study).name)
    gallery = _gallery(read)
    by_size = sizes(read.images)
    data = {**page_data(trials, read.epochs), **by_size, "command": _command("again.yaml", study)}
    sections = [("verdict", "Verdict"), ("tables", "Tables"), ("search", "Search"), ("pictures", "Pictures")]
    sections += [("trials", "Trials"), ("about", "Data & limits")]
    finals = read.verdict.finals
    return render_page(
        "report.html.j2",
        title=name,
        sections=[section for section in sections if section[0] != "pictures" or gallery],
        folders=[WEB],
        styles=STYLES,
        scripts=SCRIPTS,
        colours=list(zip(LIGHT, DARK, strict=True)),
        other=(OTHER_LIGHT, OTHER_DARK),
        head=_head(read),
        forest=forest(read.verdict, trials),
        facts=_facts(trials),
        tables=_tables(read),
        groups=groups(read.images, str(finals.final.iloc[0])) if len(finals) else None,
        gallery=gallery,
        has_trials=len(trials) > 0,
        has_sizes=bool(by_size["sizes"]),
        waited=waited_for(study),
        about=_about(study, trials),
        data=inlined_json(data),
    )


def _head(read: Read) -> dict[str, Any]:
    """What the first screen says."""
    running = int((read.trials.status == "running").sum())
    state = f"{counted(running, 'trial')} under way, or interrupted" if running else "No trial under way"
    made = f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC"
    return {
        "state": f"{state} · page made on {made}",
        "sentence": read.verdict.sentence,
        "explained": " ".join(read.verdict.explained),
    }


def _facts(trials: pd.DataFrame) -> list[dict[str, str]]:
    """The study in five figures."""
    ended = ", ".join(f"{count} {status}" for status, count in trials.status.value_counts().items())
    hours = pd.to_numeric(trials.slot_s).sum() / 3600
    info = trials.attrs["study"]
    view = f"{info['size_px']} px, {info['field_of_view']}" if "size_px" in info else "unknown"
    samples = info.get("samples") or {}
    split = ", ".join(f"{count} {name}" for name, count in samples.items()) or "study.json is missing"
    finals = int((trials.role == "final").sum())
    return [
        {"name": "Trials", "value": str(len(trials)), "note": f"{ended or 'none yet'}; {counted(finals, 'final')}"},
        {"name": "Slot hours", "value": f"{hours:.1f}" if hours >= 1 else f"{hours:.2f}", "note": _saved(trials)},
        {"name": "Cost", "value": usd(trials.usd.sum()), "note": "at the pools' hourly prices"},
        {"name": "Data", "value": view, "note": split},
    ]


def _saved(trials: pd.DataFrame) -> str:
    """What pruning saved: the epochs that pruned trials did not train, of all that the search would have."""
    searched = trials[(trials.role == "search") & trials.repeat_of.isna() & trials.status.isin(("complete", "pruned"))]
    wanted = float(searched.budget.sum())
    left = float((searched.budget - searched.epochs)[searched.status == "pruned"].sum())
    return f"pruning saved {left / wanted:.0%} of the search's epochs" if left else "nothing was pruned"


def _tables(read: Read) -> list[dict[str, Any]]:
    """The study's tables; a note that stood under one is not said again."""
    tables = [_table(shown, read.trials) for shown in shown_tables(read, TABLES)]
    told: set[str] = set()
    for table in tables:
        table["notes"] = [note for note in table["notes"] if note not in told]
        told.update(table["notes"])
    return tables


def _table(shown: Shown, trials: pd.DataFrame) -> dict[str, Any]:
    """A table of `results.show`: cells with what they sort by, an encoder with its colour."""
    numbers = colour_numbers(trials.encoder.dropna())
    texts = {number for row in shown.rows for number, cell in enumerate(row) if _order(cell) is None and cell != "–"}
    columns = [
        {
            "heading": heading,
            "look": " ".join(filter(None, ("theirs" * heading.startswith("Paper"), "l" * (n in texts)))),
        }
        for n, heading in enumerate(shown.headings)
    ]
    rows = [[_cell(cell, numbers) for cell in row] for row in shown.rows]
    return {"title": shown.title, "columns": columns, "rows": rows, "notes": list(shown.notes)}


def _cell(text: str, colours: dict[str, int | None]) -> dict[str, Any]:
    order = _order(text)
    return {"text": text, "order": text if order is None else order, "colour": colours.get(text.split(" ")[0], "")}


def _order(text: str) -> float | None:
    """The number that a cell begins with, in one unit for all durations; -1 for an absent one, None for words."""
    if text in ("–", ""):
        return -1.0
    found = re.match(r"[$<±]?\s*(-?[\d,]*\.?\d+)\s*(s|min|h)?\b|[$]?(-?[\d,]*\.?\d+)M", text)
    if found is None:
        return None
    number = float((found[1] or found[3]).replace(",", ""))
    return number * {"min": 60, "h": 3600}.get(found[2] or "", 1)


def _gallery(read: Read) -> dict[str, Any] | None:
    """Films with the finals' outlines, and what they were chosen from; None where there is nothing to show."""
    if read.images.empty:
        return None
    known = pictures(read.study, read.trials.attrs["study"])
    groups = films(read.images, known, [str(name) for name in read.verdict.finals.final])
    tested = set(read.images.sample_id)
    there = len(tested & set(known))
    told = f"all {there}" if there == len(tested) else f"the {there} of {len(tested)} whose pictures are at hand,"
    return {"groups": groups, "told": told} if groups else None


def counted(number: int, what: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _about(study: str, trials: pd.DataFrame) -> dict[str, Any]:
    info = trials.attrs["study"]
    view = str(info.get("field_of_view", ""))
    failed = int((trials.status == "failed").sum())
    limits = [*LIMITS, *([OF_VIEW[view]] if view in OF_VIEW else [])]
    if failed:
        limits.append(f"{counted(failed, 'trial')} failed; its own part has the reason and the traceback.")
    config = info.get("config")
    return {
        "data": _data_sentence(info),
        "limits": limits,
        "commands": _commands(study, info),
        "settings": json.dumps(config, indent=2, ensure_ascii=False) if config else "",
        "common": "\n".join(f"{key}: {value}" for key, value in common_settings(trials).items()),
        "versions": "\n".join(f"{key} {value}" for key, value in (info.get("versions") or {}).items()),
    }


def _data_sentence(info: dict[str, Any]) -> str:
    if "dataset" not in info:
        return "study.json is missing or cannot be read, so what the study was trained on is not known."
    samples = ", ".join(f"{count} {split}" for split, count in (info.get("samples") or {}).items())
    return (
        f"{info['dataset']}: {info.get('field_of_view')} view, {info.get('size_px')} px, {samples} samples, split by "
        f"patient; fingerprint {str(info.get('dataset_fingerprint'))[:16]}. Study of seed {info.get('seed')}, begun "
        f"{info.get('created_at')}."
    )


def _command(space: str, out: str) -> str:
    """The command of a study with its settings in a file named `space`."""
    return shlex.join(["python", "-m", "search.run", "--space", space, "--out", out])


def _commands(study: str, info: dict[str, Any]) -> str:
    commit = str(info.get("commit") or "").removesuffix("+changes")
    lines = [f"git checkout {shlex.quote(commit)}"] if commit else []
    return "\n".join([*lines, _command("again.yaml", "runs/again"), "python -m results.run report runs/again"])
