"""One HTML page about a shard folder's quality, with everything in it: no other file, no network.

python -m data_prep.run report shards/phantom --out quality.html
"""

from __future__ import annotations

import base64
import io
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from data_prep.look.figure import lesion_tile, png, spread_over
from data_prep.look.page import render_page
from data_prep.look.whole_film import WholeFilm
from data_prep.schema import REASONS, REPAIRS, SPLITS
from data_prep.shards import REJECTED, REPAIRED, ShardFolder, check_leaks

SMALL_PX = 4.0
"""Lesions below this diameter at the target size are counted apart."""
EDGES_PX = (0, 4, 8, 12, 16, 24, 40, 80, 1e9)
SHOWN = 16
"""Samples shown of each split."""
ENTRIES = 200
"""Rows shown of each list."""
SECTIONS = {"summary": "Summary", "counts": "Counts", "lesions": "Lesions", "lists": "Left out", "samples": "Samples"}
Values = dict[str, Any]


def quality_report(
    shards: ShardFolder, *, damage: str = "", pictures: bool = True, whole: WholeFilm | None = None
) -> str:
    """The page as HTML.

    Args:
        shards: an opened folder.
        damage: what `ShardFolder.check` complained of, if it did.
        pictures: whether samples are shown.
        whole: a film as it was before it was cut, if the source is at hand.
    """
    card = shards.card
    table = pd.concat([shards.table(split) for split in SPLITS], ignore_index=True)
    sections = [(anchor, name) for anchor, name in SECTIONS.items() if pictures or anchor != "samples"]
    return render_page(
        "quality.html.j2",
        title=f"Data quality: {card.name}",
        sections=[*sections, ("settings", "Settings")],
        name=card.name,
        summary=_summary(shards),
        facts=_facts(shards),
        damage=damage,
        leaks=_leaks(table),
        remarks=card.warnings,
        counts=_counts(table),
        lesions=_lesions(lesion_table(table), card.settings.size_px),
        lists=[_log(shards, REJECTED, "reason", "Left out"), _log(shards, REPAIRED, "repair", "Put right")],
        pictures=pictures,
        whole={"caption": whole.caption, "png": _base64(whole.picture)} if whole else None,
        sheets=_sheets(shards) if pictures else [],
        settings=card.settings.model_dump_json(indent=2),
    )


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


def _summary(shards: ShardFolder) -> Values:
    card, settings = shards.card, shards.card.settings
    counts = (sum(count.values()) for count in (card.samples, card.patients, card.lesions))
    return {
        "counts": "{} samples of {} patients with {} lesions".format(*counts),
        "made": f"From {settings.source}, view {settings.field_of_view}, {settings.size_px} x {settings.size_px} px, "
        f"{', '.join(settings.normalisations)}. Fingerprint {card.fingerprint[:16]}, built {card.created_at}.",
    }


def _facts(shards: ShardFolder) -> list[Values]:
    card = shards.card
    splits = [
        {
            "name": split,
            "value": card.samples[split],
            "note": f"{card.patients[split]} patients, {card.lesions[split]} lesions",
        }
        for split in SPLITS
    ]
    return [
        *splits,
        {"name": "left out", "value": card.rejected, "note": "inputs, by name below"},
        {"name": "put right", "value": card.repaired, "note": "inputs, by name below"},
    ]


def _leaks(table: pd.DataFrame) -> str:
    try:
        check_leaks(table)
    except ValueError as error:
        return str(error)
    return ""


def _counts(table: pd.DataFrame) -> list[Values]:
    patients = table.groupby("split")["patient_id"].nunique().rename("patients").to_frame()
    patients.insert(0, "samples", table.groupby("split").size())
    tables = [_grid("Samples and patients", _in_order(patients))]
    for column in ("view", "side", "density", "pathology", "kind"):
        values = table[column].astype(object).where(table[column].notna(), "unknown").replace("", "unknown")
        values = values.map(lambda value: f"{value:g}" if isinstance(value, float) else value)
        tables.append(_grid(column.capitalize(), _in_order(pd.crosstab(table["split"], values.rename(column)))))
    return tables


def _lesions(lesions: pd.DataFrame, size_px: int) -> Values:
    if lesions.empty:
        return {"text": ["No lesion."], "vanished": "", "charts": []}
    vanished = lesions[lesions["area_px"] == 0]
    small = lesions[lesions["diameter_px"] < SMALL_PX]
    error = (lesions["area_px"] / lesions["exact_area_px"].clip(lower=1e-6) - 1).abs()
    middling = error[(lesions["diameter_px"] >= SMALL_PX) & (lesions["diameter_px"] <= 40)]
    quantiles = lesions["diameter_px"].quantile([0.05, 0.5, 0.95])
    names = ", ".join(f"{lesion.sample_id}/{lesion.lesion_id}" for lesion in vanished.head(10).itertuples())
    drawn = f"Mean area error from 4 to 40 px: {middling.mean():.1%}. " if len(middling) else ""
    text = (
        f"Median diameter {quantiles[0.5]:.1f} px of {size_px} (5th to 95th percentile {quantiles[0.05]:.1f} to "
        f"{quantiles[0.95]:.1f}); {len(small)} are under {SMALL_PX:g} px. {drawn}"
        f"{'' if len(vanished) else 'None vanishes.'}"
    )
    told = f"{len(vanished)} vanish: {names}" if len(vanished) else ""
    return {"text": [text], "vanished": told, "charts": _charts(lesions)}


def _charts(lesions: pd.DataFrame) -> list[Values]:
    """A histogram of the diameters of each split's lesions, on a drawing of 300 x 128."""
    charts = []
    labels = [f"{low:g}-{high:g}" if high < 1e9 else f"{low:g}+" for low, high in pairwise(EDGES_PX)]
    step = 300 / len(labels)
    for split in SPLITS:
        diameters = lesions.loc[lesions["split"] == split, "diameter_px"]
        if diameters.empty:
            continue
        counts = pd.cut(diameters, EDGES_PX, labels=labels, right=False).value_counts().reindex(labels)
        bars = [
            {
                "x": round(at * step + 3, 1),
                "middle": round((at + 0.5) * step, 1),
                "width": round(step - 6, 1),
                "height": round(86 * int(count) / int(counts.max()), 1),
                "count": int(count),
                "label": label,
            }
            for at, (label, count) in enumerate(counts.items())
        ]
        note = f"{len(diameters)} lesions, median {diameters.median():.1f} px"
        told = ", ".join(f"{label}: {count}" for label, count in counts.items())
        charts.append({"split": split, "note": note, "bars": bars, "told": told})
    return charts


def _log(shards: ShardFolder, file: str, column: str, title: str) -> Values:
    counts = reason_counts(shards, file, column)
    rows = [(code, int(count), (REASONS | REPAIRS).get(str(code), "")) for code, count in counts.items()]
    log = pd.read_csv(io.BytesIO(shards.folder.read_bytes(file)), dtype=str, keep_default_na=False)
    shown = log[["sample_id", column, "path"]].head(ENTRIES)
    more = f", the first {ENTRIES} of them; all are in {file}" if len(log) > ENTRIES else ""
    return {
        "title": title,
        "codes": {"title": title, "words": True, "columns": ["code", "count", "meaning"], "rows": rows},
        "shown": f"{len(log)} entries{more}",
        "entries": {
            "title": f"{title}: entries",
            "words": True,
            "columns": ["sample", column, "file"],
            "rows": shown.to_numpy().tolist(),
        },
    }


def _sheets(shards: ShardFolder) -> list[Values]:
    sheets = []
    for split in SPLITS:
        if not shards.card.samples[split]:
            continue
        samples = shards.load(split, next(iter(shards.card.image_columns)))
        films = []
        for number in spread_over(len(samples), SHOWN):
            row = samples.table.iloc[number]
            picture = lesion_tile(samples.images_NHW[number], samples.masks_NHW[number])
            note = ", ".join(str(row[name]) for name in ("side", "view", "kind", "pathology") if row[name])
            films.append({"name": row["sample_id"], "note": note, "png": _base64(picture)})
        sheets.append({"split": split, "samples": len(samples), "shown": len(films), "films": films})
    return sheets


def _base64(picture: np.ndarray) -> str:
    return base64.b64encode(png(picture)).decode()


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    ordered = table.reindex([split for split in SPLITS if split in table.index])
    ordered.loc["all"] = ordered.sum()
    return ordered.astype(int)


def _grid(title: str, table: pd.DataFrame) -> Values:
    rows = [list(row) for row in table.itertuples(name=None)]
    return {"title": title, "words": False, "columns": ["split", *map(str, table.columns)], "rows": rows}
