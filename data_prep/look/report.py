"""One HTML page about a shard folder's quality, with everything in it: no other file, no script, no network.

python -m data_prep.run report shards/phantom --out quality.html
"""

from __future__ import annotations

import base64
import io
from html import escape
from itertools import pairwise

import numpy as np
import pandas as pd

from data_prep.look.figure import contact_sheet, png
from data_prep.schema import REASONS, REPAIRS, SPLITS
from data_prep.shards import REJECTED, REPAIRED, ShardFolder, check_leaks

SMALL_PX = 4.0
"""Lesions below this diameter at the target size are counted apart."""
EDGES_PX = (0, 4, 8, 12, 16, 24, 40, 80, 1e9)

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; color: #1c2733 }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin: 1.8em 0 .5em; border-bottom: 1px solid #d5dbe1 }
table { border-collapse: collapse; margin: .4em 1.6em .4em 0; display: inline-table; vertical-align: top }
th, td { padding: .15em .7em; text-align: right; border-bottom: 1px solid #e6eaee } th { font-weight: 600 }
td:first-child, th:first-child { text-align: left } img { max-width: 100% } .bad { color: #b3261e; font-weight: 600 }
.good { color: #1b6e3c } code { background: #f2f4f6; padding: 0 .25em } .wide td, .wide th { text-align: left }
"""


def quality_report(shards: ShardFolder, *, damage: str = "", pictures: bool = True) -> str:
    """The page as HTML.

    Args:
        shards: an opened folder.
        damage: what `ShardFolder.check` complained of, if it did.
        pictures: whether samples are shown.
    """
    table = pd.concat([shards.table(split) for split in SPLITS], ignore_index=True)
    parts = [
        f"<h1>Data quality: {escape(shards.card.name)}</h1>",
        _summary(shards, damage),
        _leaks(table),
        "<h2>Counts by split</h2>" + _counts(table),
        "<h2>Lesions at the target size</h2>" + _lesions(lesion_table(table), shards.card.settings.size_px),
        "<h2>Left out</h2>" + _log(shards, REJECTED, "reason"),
        "<h2>Put right</h2>" + _log(shards, REPAIRED, "repair"),
        "<h2>Samples</h2>" + _sheets(shards) if pictures else "",
        "<h2>Settings</h2><pre>" + escape(shards.card.settings.model_dump_json(indent=2)) + "</pre>",
    ]
    title = f"Data quality: {escape(shards.card.name)}"
    head = f"<meta charset='utf-8'><title>{title}</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def lesion_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row a lesion: `split sample_id lesion_id area_px exact_area_px diameter_px` (of a disc of the exact area)."""
    samples = zip(table["split"], table["sample_id"], table["lesions"], strict=True)
    rows = [{"split": split, "sample_id": name, **lesion} for split, name, lesions in samples for lesion in lesions]
    columns = ["split", "sample_id", "lesion_id", "kind", "pathology", "area_px", "exact_area_px"]
    lesions = pd.DataFrame(rows, columns=columns)
    return lesions.assign(diameter_px=2 * np.sqrt(lesions["exact_area_px"].astype(float) / np.pi))


def reason_counts(shards: ShardFolder, file: str, column: str) -> pd.Series:
    """Code -> how often, of the list of what was left out (`reason`) or put right (`repair`)."""
    log = pd.read_csv(io.BytesIO(shards.folder.read_bytes(file)), dtype=str, keep_default_na=False)
    codes = log[column].str.split(":").str[0].rename("code")
    return codes.value_counts()


def _summary(shards: ShardFolder, damage: str) -> str:
    card, settings = shards.card, shards.card.settings
    films = sum(card.samples.values())
    state = f"<span class='bad'>{escape(damage)}</span>" if damage else "<span class='good'>all checksums agree</span>"
    return (
        f"<p>{films} samples of {sum(card.patients.values())} patients with {sum(card.lesions.values())} lesions, "
        f"from <code>{settings.source}</code>, view <code>{settings.field_of_view}</code>, {settings.size_px} x "
        f"{settings.size_px} px, {', '.join(settings.normalisations)}; {card.rejected} inputs left out, "
        f"{card.repaired} put right. {state}; fingerprint <code>{escape(card.fingerprint[:16])}</code>, "
        f"built {escape(card.created_at)}.</p>"
    )


def _leaks(table: pd.DataFrame) -> str:
    try:
        check_leaks(table)
    except ValueError as error:
        return f"<pre class='bad'>{escape(str(error))}</pre>"
    return "<p class='good'>Leak check: no patient and no film (by the hash of its pixels) is in two splits.</p>"


def _counts(table: pd.DataFrame) -> str:
    patients = table.groupby("split")["patient_id"].nunique().rename("patients").to_frame()
    patients.insert(0, "samples", table.groupby("split").size())
    tables = [_html(_in_order(patients))]
    for column in ("view", "side", "density", "pathology", "kind"):
        values = table[column].astype(object).where(table[column].notna(), "unknown").replace("", "unknown")
        values = values.map(lambda value: f"{value:g}" if isinstance(value, float) else value)
        tables.append(_html(_in_order(pd.crosstab(table["split"], values.rename(column)))))
    return "".join(tables)


def _lesions(lesions: pd.DataFrame, size_px: int) -> str:
    if lesions.empty:
        return "<p>No lesion.</p>"
    labels = [f"{a:g}-{b:g}" if b < 1e9 else f"{a:g}+" for a, b in pairwise(EDGES_PX)]
    size = pd.cut(lesions["diameter_px"], EDGES_PX, labels=labels, right=False).rename("diameter, px")
    histogram = _in_order(pd.crosstab(lesions["split"], size))
    vanished = lesions[lesions["area_px"] == 0]
    small = lesions[lesions["diameter_px"] < SMALL_PX]
    error = (lesions["area_px"] / lesions["exact_area_px"].clip(lower=1e-6) - 1).abs()
    middling = error[(lesions["diameter_px"] >= SMALL_PX) & (lesions["diameter_px"] <= 40)]
    quantiles = lesions["diameter_px"].quantile([0.05, 0.5, 0.95])
    names = ", ".join(escape(f"{v.sample_id}/{v.lesion_id}") for v in vanished.head(10).itertuples())
    gone = f"<span class='{'bad' if len(vanished) else 'good'}'>{len(vanished)} vanish</span>" + (
        f": {names}" * bool(names)
    )
    drawn = f"Mean area error from 4 to 40 px: {middling.mean():.1%}." if len(middling) else ""
    return (
        f"<p>Median diameter {quantiles[0.5]:.1f} px of {size_px} (5th to 95th percentile {quantiles[0.05]:.1f} to "
        f"{quantiles[0.95]:.1f}); {len(small)} are under {SMALL_PX:g} px; {gone}. {drawn}</p>{_html(histogram)}"
    )


def _log(shards: ShardFolder, file: str, column: str) -> str:
    counts = reason_counts(shards, file, column)
    if counts.empty:
        return "<p>Nothing.</p>"
    rows = [(code, count, (REASONS | REPAIRS).get(str(code), "")) for code, count in counts.items()]
    summary = pd.DataFrame(rows, columns=["code", "count", "meaning"]).set_index("code")
    log = pd.read_csv(io.BytesIO(shards.folder.read_bytes(file)), dtype=str, keep_default_na=False)
    detail = _html(log[["sample_id", column, "path"]].head(200).set_index("sample_id"), wide=True)
    return f"{_html(summary, wide=True)}<details><summary>{len(log)} entries</summary>{detail}</details>"


def _sheets(shards: ShardFolder) -> str:
    name = next(iter(shards.card.image_columns))
    sheets = []
    for split in SPLITS:
        if shards.card.samples[split]:
            picture = base64.b64encode(png(contact_sheet(shards.load(split, name), count=16))).decode()  # type: ignore[arg-type]
            alt = f"samples of {split} with their lesions outlined"
            sheets.append(f"<h3>{split}</h3><img alt='{alt}' src='data:image/png;base64,{picture}'>")
    return "".join(sheets)


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    ordered = table.reindex([split for split in SPLITS if split in table.index])
    ordered.loc["all"] = ordered.sum()
    return ordered.astype(int)


def _html(table: pd.DataFrame, *, wide: bool = False) -> str:
    flat = table.rename_axis(columns=None).reset_index().rename(columns={"split": table.columns.name or "split"})
    return flat.to_html(index=False, border=0, classes="wide" if wide else None, escape=True)
