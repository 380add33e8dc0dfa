"""Which slot held which trial when, from the times in a study's folder, and what idle slots waited for."""

from __future__ import annotations

import pandas as pd

from cluster.storage import Folder
from results.table import rows_of

COLUMNS = ["lane", "pool", "trial_id", "encoder", "role", "status", "start_s", "end_s"]


def waited_for(study: str | Folder) -> str:
    """What the study itself counted in `slots.json`, in a sentence; empty where it did not, or it cannot be read."""
    try:
        found = (study if isinstance(study, Folder) else Folder(study)).read_json("slots.json")
        share, idle_s = float(found["busy_share"]), {str(why): float(s) for why, s in found["idle_s"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    waits = [f"{seconds:.0f} s for {why}" for why, seconds in idle_s.items() if seconds >= 1]
    rest = f"; the rest waited {', '.join(waits)}" if waits else ""
    return f"By the study's own count its slots were busy {share:.0%} of the time{rest}."


def lanes_of(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per trial that began, by slot: `lane`, `start_s`, `end_s` since the first began, what it was.

    A trial's slot is what it says in `slot`, where the study wrote that. Else trials are put side by side: each into
    the first lane of its pool that was free when it began, which shows how many ran at once and what stood idle. A
    trial that is under way ends with the last time that is known.

    Args:
        trials: `results.load`.
    """
    began = trials[trials.started_at.notna() & trials.repeat_of.isna()].sort_values(["started_at", "trial_id"])
    if began.empty:
        return pd.DataFrame(columns=COLUMNS)
    zero, last = began.started_at.min(), max(began.ended_at.dropna().max(), began.started_at.max())
    start_s = (began.started_at - zero).dt.total_seconds()
    end_s = (began.ended_at.fillna(last) - zero).dt.total_seconds()
    table = began[["pool", "trial_id", "encoder", "role", "status"]].assign(start_s=start_s, end_s=end_s)
    table["pool"] = table.pool.fillna("")
    named = began["slot"].fillna("") if "slot" in began else pd.Series("", began.index)
    table["lane"] = named.where(named != "", _side_by_side(table))
    return table.sort_values(["pool", "lane", "start_s"])[COLUMNS].reset_index(drop=True)


def _side_by_side(table: pd.DataFrame) -> pd.Series:
    """A lane for each trial, in the order in which they began."""
    free_at: dict[str, list[float]] = {}
    lanes = []
    for row in rows_of(table):
        ends = free_at.setdefault(row.pool, [])
        # Times are whole seconds: one that ended in the second in which another began was out of its way.
        lane = next((n for n, end in enumerate(ends) if end <= row.start_s + 1), len(ends))
        ends[lane : lane + 1] = [row.end_s]
        lanes.append(f"{row.pool} {lane + 1}".strip())
    return pd.Series(lanes, table.index)
