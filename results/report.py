"""One HTML page about a study that needs nothing beside it: tables, curves, settings, every trial, failures."""

from __future__ import annotations

import base64
import html
import json

import pandas as pd

from cluster.storage import Folder
from results.figures import encoded, load_examples, mask_pictures, validation_curves
from results.show import shown_tables
from results.table import OUTCOME, load, load_epochs

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.notes { color: #666; font-size: 13px; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 12px; }
img, svg { max-width: 100%; height: auto; }
"""

NOT_IN_THE_LIST = ("traceback", "started_at", "ended_at", "workers", "usd_per_hour")


def render_report(study: str) -> str:
    """The page as HTML text. Curves and pictures are drawn where matplotlib is installed; else the page says so.

    Raises:
        FileNotFoundError: `study` is not a study's folder.
    """
    trials = load(study)
    title = f"Study {Folder(study).name}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(_summary(trials))}</p>",
        *(shown.html() for shown in shown_tables(trials)),
        _drawings(study),
        _failures(trials),
        _trial_list(trials),
        _settings(trials.attrs["study"]),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def write_report(study: str, out: Folder) -> list[str]:
    """Write `report.html`; returns what was written.

    Raises:
        FileNotFoundError: `study` is not a study's folder.
    """
    out.write_text("report.html", render_report(study))
    return [f"{out}/report.html"]


def _summary(trials: pd.DataFrame) -> str:
    ended = ", ".join(f"{count} {status}" for status, count in trials.status.value_counts().items())
    hours = pd.to_numeric(trials.slot_s).sum() / 3600
    return f"{len(trials)} trials ({ended or 'none yet'}), {hours:.2f} slot hours, {trials.usd.sum():.2f} US dollars."


def _drawings(study: str) -> str:
    """Curves as inline SVG and pictures of masks as an embedded PNG."""
    epochs = load_epochs(study)
    if epochs.empty:
        return ""
    try:
        curves = encoded(validation_curves(epochs), "svg").decode()
        examples = load_examples(study)
        masks = encoded(mask_pictures(examples), "png") if examples else b""
    except ImportError as error:
        return f"<p class='notes'>{html.escape(str(error))}</p>"
    section = f"<section><h2>Validation curves</h2>{curves[curves.index('<svg') :]}</section>"
    if masks:
        data = base64.b64encode(masks).decode()
        section += "<section><h2>Test images: truth green, prediction red</h2>"
        section += f"<img alt='masks' src='data:image/png;base64,{data}'></section>"
    return section


def _failures(trials: pd.DataFrame) -> str:
    """Every failed or unreadable trial with its reason and its traceback folded away."""
    wrong = trials[(trials.status == "failed") | (trials.problem != "")]
    items = [
        f"<details><summary>{html.escape(f'{row.trial_id} ({row.encoder}): {row.reason} {row.problem}')}</summary>"
        f"<pre>{html.escape(str(row.traceback))}</pre></details>"
        for row in wrong.itertuples()
    ]
    return f"<section><h2>Failures</h2>{''.join(items)}</section>" if items else ""


def _trial_list(trials: pd.DataFrame) -> str:
    searched = [name for name in trials.columns if name.startswith("param_")]
    columns = [name for name in OUTCOME if name not in NOT_IN_THE_LIST]
    listed = trials[[*columns, *searched]].to_html(index=False, na_rep="–", float_format="{:.4g}".format, border=0)
    return f"<section><h2>Trials</h2>{listed}</section>"


def _settings(study: dict) -> str:
    return f"<section><h2>Settings</h2><pre>{html.escape(json.dumps(study, indent=2))}</pre></section>"
