"""MammoSearch by its own name: the readers of what it writes, and one command over its packages'.

    import mammosearch
    trials = mammosearch.load("runs/nas")              # one row per trial, as a pandas table
    mammosearch.nas_table(trials)                      # the paper's table II
    shards = mammosearch.open_shards("shards/phantom")
    shards.table("val")                                # one row per sample

Readers need neither torch nor Ray. A folder or file named `results`, `search` or the like beside a notebook does not
hide the project's packages from this one.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_prep.shards import open_shards
    from results.front import front_table
    from results.importance import importance
    from results.per_image import load_images, load_marks, scores
    from results.report import write_report
    from results.summary import cost_table, encoder_table, final_table, nas_table, rank_agreement, trial_table
    from results.table import load, load_epochs
    from results.verdict import verdict_of

__all__ = [
    "cost_table",
    "encoder_table",
    "final_table",
    "front_table",
    "importance",
    "load",
    "load_epochs",
    "load_images",
    "load_marks",
    "nas_table",
    "open_shards",
    "rank_agreement",
    "scores",
    "trial_table",
    "verdict_of",
    "write_report",
]

PACKAGES = ("cluster", "data_prep", "trainables", "search", "results", "clinic")
HOMES = {
    "open_shards": "data_prep.shards",
    "importance": "results.importance",
    "write_report": "results.report",
}
"""Reader -> the module it lies in, imported when the reader is first asked for; `results` knows where others lie."""
ROOT = str(Path(__file__).resolve().parents[1])


class _Ours:
    """Finds the project's packages beside this one, whatever of their names lies in the working folder."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [ROOT]) if path is None and name in PACKAGES else None


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mammosearch' has no {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(HOMES.get(name, "results")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _refuse_others() -> None:
    """Say so where a module of one of our names was imported before, for then ours cannot be."""
    for name in PACKAGES:
        file = getattr(sys.modules.get(name), "__file__", None)
        if name in sys.modules and (file is None or Path(file).resolve() != Path(ROOT, name, "__init__.py")):
            raise ImportError(
                f"mammosearch needs its own package {name!r}, but another was imported before, from "
                f"{file or 'a folder of that name'}: import mammosearch first, or rename the other"
            )


_refuse_others()
if not any(finder is _Ours for finder in sys.meta_path):
    sys.meta_path.insert(0, _Ours)  # type: ignore[arg-type]
