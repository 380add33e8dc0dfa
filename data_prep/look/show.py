"""What the commands `build`, `inspect` and `report` print and write."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_prep.look.figure import contact_sheet, png
from data_prep.look.report import lesion_table, quality_report, reason_counts
from data_prep.look.whole_film import whole_film
from data_prep.schema import SPLITS, DatasetCard
from data_prep.shards import REJECTED, REPAIRED, ShardFolder, open_shards


def card_text(card: DatasetCard, place: str) -> str:
    """The card in a few lines."""
    settings = card.settings
    lines = [
        f"{place}: {settings.source}, view {settings.field_of_view}, {settings.size_px} px, "
        f"{', '.join(settings.normalisations)}",
        "split   samples  patients  lesions",
        *(f"{s:6s} {card.samples[s]:8d} {card.patients[s]:9d} {card.lesions[s]:8d}" for s in SPLITS),
        f"{card.rejected} inputs left out ({REJECTED}), {card.repaired} put right ({REPAIRED})",
        *(f"note: {warning}" for warning in card.warnings),
        f"fingerprint {card.fingerprint[:16]}",
    ]
    return "\n".join(lines)


def inspection(shards: ShardFolder) -> str:
    """The card, the rejects and repairs by code, and the sizes of the lesions."""
    lines = [card_text(shards.card, str(shards.folder))]
    for file, column, title in ((REJECTED, "reason", "left out"), (REPAIRED, "repair", "put right")):
        counts = reason_counts(shards, file, column)
        lines += [f"{title}: {count} x {code}" for code, count in counts.items()]
    for split in SPLITS:
        lesions = lesion_table(shards.table(split))
        if len(lesions):
            low, middle, high = lesions["diameter_px"].quantile([0.05, 0.5, 0.95])
            lines.append(
                f"lesions of {split}: median diameter {middle:.1f} px (5 % under {low:.1f}, 5 % over {high:.1f}), "
                f"{int((lesions['area_px'] == 0).sum())} vanish at {shards.card.settings.size_px} px"
            )
    return "\n".join(lines)


def write_sheet(shards: ShardFolder, target: Path | None) -> Path:
    """Write a contact sheet of all splits; its default name is the folder's with `-samples.png`."""
    name = shards.card.settings.normalisations[0]
    sheets = [contact_sheet(shards.load(s, name), count=16) for s in SPLITS if shards.card.samples[s]]
    width = max(sheet.shape[1] for sheet in sheets)
    padded = [np.pad(s, ((0, 6), (0, width - s.shape[1]), (0, 0)), constant_values=24) for s in sheets]
    target = target or Path(f"{shards.folder.name}-samples.png")
    target.write_bytes(png(np.vstack(padded)))
    return target


def write_report(folder: str, target: Path | None) -> Path:
    """Write the quality report; its default name is the folder's with `-quality.html`."""
    shards = open_shards(folder)
    try:
        shards.check()
        damage = ""
    except ValueError as error:
        damage = str(error)
    target = target or Path(f"{shards.folder.name}-quality.html")
    target.write_text(quality_report(shards, damage=damage, whole=whole_film(shards)), encoding="utf-8")
    return target
