"""What the commands `archive` and `restore` print."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from clinic.archive.check import Checked
from clinic.archive.keep import ARCHIVE_REASONS
from data_prep.schema import REASONS

MOST_LINES = 20


def archive_text(table: pd.DataFrame, out: str) -> str:
    """What an archive came to: films, regions, bytes; and why others were left out. Names no path."""
    kept = table[table["status"] == "kept"]
    lines = [f"{out}: {len(kept)} films kept in {int(kept['regions'].sum())} regions, {_saved(kept)}"]
    left = table[table["status"] != "kept"]
    words = {**REASONS, **ARCHIVE_REASONS}
    for row in left.head(MOST_LINES).itertuples():
        lines.append(f"film {row.film} of {len(table)}: {row.reason}: {words.get(str(row.reason), 'left out')}")
    if len(left) > MOST_LINES:
        lines.append(f"... and {len(left) - MOST_LINES} more, see archive.csv")
    return "\n".join(lines)


def checked_text(checked: Sequence[Checked]) -> str:
    """What a comparison with the originals came to."""
    table = pd.DataFrame({"film_bytes": [c.film_bytes for c in checked], "kept_bytes": [c.kept_bytes for c in checked]})
    exact = sum(one.exact for one in checked)
    lines = [f"{exact} of {len(checked)} films are exact inside their regions, {_saved(table)}"]
    for one in checked:
        if not one.exact:
            lines.append(f"film {one.film} ({one.name}): differs inside a region")
        if one.leaks:
            lines.append(f"film {one.film} ({one.name}): still there: {', '.join(one.leaks)}")
    if not any(one.leaks for one in checked):
        lines.append("nothing of the originals' headers is left")
    return "\n".join(lines)


def _saved(table: pd.DataFrame) -> str:
    before, after = int(table["film_bytes"].sum()), int(table["kept_bytes"].sum())
    share = f"{100 * (1 - after / before):.1f} % less" if before else "nothing to save"
    return f"{before / 1e6:.1f} MB -> {after / 1e6:.2f} MB ({share})"
