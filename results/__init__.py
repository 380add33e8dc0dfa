"""What came of a study, as pandas tables. Imports neither Ray nor torch.

import results
trials = results.load("runs/phantom")      # one row per trial
results.nas_table(trials)                  # the paper's table II, with the paper's own figures beside
results.final_table("runs/phantom")        # the paper's table III, with intervals
results.verdict_of("runs/phantom").sentence
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.front import front_table
    from results.per_image import load_images, load_marks, scores
    from results.summary import cost_table, encoder_table, final_table, nas_table, rank_agreement, trial_table
    from results.table import load, load_epochs
    from results.verdict import verdict_of

__all__ = [
    "cost_table",
    "encoder_table",
    "final_table",
    "front_table",
    "load",
    "load_epochs",
    "load_images",
    "load_marks",
    "nas_table",
    "rank_agreement",
    "scores",
    "trial_table",
    "verdict_of",
]

HOMES = {
    "front_table": "results.front",
    "verdict_of": "results.verdict",
    **dict.fromkeys(("load", "load_epochs"), "results.table"),
    **dict.fromkeys(("load_images", "load_marks", "scores"), "results.per_image"),
    **dict.fromkeys(
        ("cost_table", "encoder_table", "final_table", "nas_table", "rank_agreement", "trial_table"), "results.summary"
    ),
}
"""Reader -> its module, imported when the reader is first asked for: a command's `--help` needs no pandas."""


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'results' has no {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
