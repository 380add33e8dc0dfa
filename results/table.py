"""A study's folder as a pandas table: one row per trial, the finals last.

    trials = load("runs/nas")
    trials[trials.status == "complete"].sort_values("val_dice")[["encoder", "learning_rate", "val_dice"]]
    trials.attrs["field_of_view"], trials.attrs["fingerprint"]

Reads only what stands in the folder, so it works while the study runs, on another machine, and on a folder that was
cut short: what cannot be read is said in the row's `problem`. `results.summary` makes the paper's tables of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cluster.storage import Folder
from trainables.config import TrialConfig
from trainables.record import (
    BEST_BY,
    EpochRow,
    TrialInfo,
    TrialRecord,
    TrialStatus,
    best_epoch,
    final_paths,
    trial_paths,
)

SCORE = BEST_BY
"""The measure by which the best epoch and the best trial are chosen: mean hard Dice over the validation images."""

OUTCOME = (
    *("trial_id", "role", "final", "status", "encoder", "parameters", "val_dice", "val_iou", "best_epoch", "epochs"),
    *(
        "budget",
        "train_s",
        "slot_s",
        "usd",
        "pool",
        "workers",
        "retries",
        "repeat_of",
        "reason",
        "traceback",
        "problem",
    ),
    *("started_at", "ended_at", "searched", "folder"),
)
"""The columns every table of trials has, first and in this order; measures and settings follow."""

TIMES = ("started_at", "ended_at")

REPEAT = "repeat of "
"""How the reason of a trial begins that took over the result of an earlier one with the same settings, untrained."""

SETTINGS = tuple(name for name in TrialConfig.model_fields if name not in ("encoder", "epochs"))
"""The settings of a trial that are columns by their own names; `epochs` of the settings is the column `budget`."""

DATA = ("dataset", "field_of_view", "size_px", "fingerprint")
"""What a study was trained on: keys of `DataFrame.attrs`, and the last columns of the CSV files."""


def load(study: str | Folder) -> pd.DataFrame:
    """One row per trial of a study, in the order of their ids, the finals last.

    Columns: `OUTCOME`; the measures of the best epoch by `val_dice` under their own names (`val_iou`, ...) and of the
    last epoch with `last_` before them; seconds (`*_s`) summed over the epochs; the measures on the test split with
    `test_` before them; every setting by its name in `TrialConfig`, except that its `epochs` is `budget`. `epochs` are
    the finished ones. `searched` names the settings that were searched in this trial, separated by blanks. `final` is
    the winner's name in the rows of finals, which are one a seed. A trial that only took over the result of an earlier
    one with the same settings names it in `repeat_of` and has no seconds of its own. A final that went on from its
    trial of the search names it in `taken_from`, and its `taken_epochs` first epochs were trained there. `folder` is
    the trial's own inside the study's.

    `DataFrame.attrs` says what the table is of: `study` (`study.json`), `DATA`, and `searched` (all searched settings).

    Args:
        study: path or URI of the study's folder.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no trial and no `study.json`.
    """
    folder = study_folder(study)
    rows = [_row(listed) for listed in trial_folders(folder)]
    found = {name for row in rows for name in row}
    first = [*OUTCOME, *sorted(name for name in found if name.startswith("val_") and name not in OUTCOME)]
    rest = sorted(found - set(first) - set(SETTINGS), key=_column_order)
    table = pd.DataFrame(rows, columns=[*first, *rest, *SETTINGS])
    for name in TIMES:
        table[name] = pd.to_datetime(table[name], utc=True, errors="coerce", format="ISO8601")
    about = _Shared(study_json(folder))
    table.attrs = {"study": about, **{name: about.get(name) for name in DATA}}
    table.attrs["fingerprint"] = about.get("dataset_fingerprint")
    table.attrs["searched"] = _searched(about, table.searched)
    return table


def load_epochs(study: str | Folder) -> pd.DataFrame:
    """One row per finished epoch of every trial: `trial_id`, `role`, `final`, `encoder`, and the epoch's measures.

    Raises:
        FileNotFoundError: as `load`.
    """
    rows = []
    first = ["trial_id", "role", "final", "encoder", "epoch"]
    for listed in trial_folders(study_folder(study)):
        info, _ = _read("trial.json", listed.record.info)
        epochs, _ = _epochs(listed.record)
        about = (listed.trial_id, _role(info, listed), listed.name, _encoder(info))
        rows += [{**dict(zip(first, about, strict=False)), **epoch.model_dump()} for epoch in epochs]
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*first, *_keys(rows)])))


class _Shared(dict[str, Any]):
    """A dict that copies share: pandas copies `attrs` deeply with every operation, which takes longer than most."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """A table's rows as named tuples. By the stubs of pandas a cell of one could be of nearly any type."""
    return table.itertuples()  # type: ignore[return-value]


@dataclass(frozen=True)
class Listed:
    """A trial's folder inside a study's."""

    record: TrialRecord
    path: str
    """Inside the study's folder: `trials/0005`, `final/densenet121/1`."""

    @property
    def final(self) -> bool:
        """Whether it is a final."""
        return self.path.startswith("final/")

    @property
    def trial_id(self) -> str:
        """`0005`; of a final its path below `final/`."""
        return self.path.split("/", 1)[1]

    @property
    def name(self) -> str | None:
        """The winner's name, of a final; seeds of one winner share it."""
        return self.path.split("/")[1] if self.final else None


def trial_folders(folder: Folder) -> Iterator[Listed]:
    """The trial folders of a study in order of name, the finals last, each with its seeds in order."""
    return (Listed(TrialRecord(folder / path), path) for path in trial_paths(folder))


def finals_of(folder: Folder) -> Iterator[Listed]:
    """The finals: `final/<name>/<seed>/`, or `final/<name>/` where a study wrote one training of each winner."""
    return (Listed(TrialRecord(folder / path), path) for path in final_paths(folder))


def study_folder(study: str | Folder) -> Folder:
    """The folder of a study. Raises FileNotFoundError where there is none."""
    folder = study if isinstance(study, Folder) else Folder(study)
    if not any(folder.exists(name) for name in ("study.json", "trials", "final")):
        raise FileNotFoundError(f"{folder} is not a study: it holds no study.json and no trials/")
    return folder


def study_json(folder: Folder) -> dict[str, Any]:
    """What `study.json` says, without what is not of its kind; `problem` says what is wrong with the file."""
    content, problem = _read("study.json", lambda: folder.read_json("study.json"))
    if not isinstance(content, dict):
        content, problem = {}, problem or f"study.json: holds {type(content).__name__}, not a mapping"
    wrong = [name for name in ("config", "samples", "slots", "versions") if not isinstance(content.get(name, {}), dict)]
    if wrong:
        problem = f"study.json: {', '.join(wrong)} should be a mapping"
    kept = {name: value for name, value in content.items() if name not in wrong}
    return {**kept, "problem": problem} if problem and folder.exists("study.json") else kept


def _row(listed: Listed) -> dict[str, Any]:
    record = listed.record
    info, no_info = _read("trial.json", record.info)
    status, no_status = _read("status.json", record.status)
    epochs, no_epochs = _epochs(record)
    test, no_test = _read("test.json", record.test)
    if test is not None and not isinstance(test, dict):
        test, no_test = None, f"test.json: holds {type(test).__name__}, not a mapping"
    status = status or TrialStatus()
    repeat_of = status.reason.removeprefix(REPEAT) if status.reason.startswith(REPEAT) else None
    return {
        **_measures(epochs, trained=repeat_of is None),
        **{_test_column(key): value for key, value in (test or {}).items() if _is_scalar(value)},
        **(_about(info) if info else {}),
        **status.model_dump(),
        "trial_id": listed.trial_id,
        "folder": listed.path,
        "final": listed.name,
        "role": _role(info, listed),
        "epochs": max(status.epochs, len(epochs)),
        "repeat_of": repeat_of,
        "problem": "; ".join(filter(None, (no_info, no_status, no_epochs, no_test))),
    }


def _read(file: str, read: Callable[[], Any]) -> tuple[Any, str]:
    """What `read` returns and an empty text, or None and what is wrong: one broken file does not hide a study."""
    try:
        return read(), ""
    except (OSError, ValueError, TypeError) as error:
        return None, f"{file}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _epochs(record: TrialRecord) -> tuple[list[EpochRow], str]:
    """The epochs of `metrics.jsonl`, and what is wrong with the file."""
    rows, problem = _read("metrics.jsonl", record.metrics)
    return rows or [], problem


def _about(info: TrialInfo) -> dict[str, Any]:
    return {
        **info.config.model_dump(include=set(SETTINGS)),
        "searched": " ".join(sorted(info.params)),
        "encoder": info.config.encoder,
        "budget": info.config.epochs,
        "pool": info.pool,
        "workers": info.workers,
        "usd_per_hour": info.usd_per_hour,
        "taken_from": info.taken_from or None,
        "taken_epochs": info.taken_epochs,
    }


def _searched(about: dict[str, Any], column: pd.Series) -> list[str]:
    """The searched settings: those of the study's space in its order, or what the trials say."""
    space = about.get("config", {}).get("space")
    if isinstance(space, dict):
        return [str(name) for name in space]
    told = {name for names in column.dropna() for name in names.split()}
    return [name for name in ("encoder", *SETTINGS) if name in told]


def _measures(rows: list[EpochRow], *, trained: bool) -> dict[str, Any]:
    """The best epoch's measures, the last one's with `last_`, and the seconds summed if it was `trained` itself."""
    if not rows:
        return {}
    epochs = [row.model_dump() for row in rows]
    best_row = best_epoch(rows)
    best = best_row.model_dump() if best_row else {}
    seconds = {key for key in _keys(epochs) if key.endswith("_s") and not key.endswith("_per_s")}
    summed = {
        key: sum(float(epoch[key]) for epoch in epochs if _is_finite(epoch.get(key))) for key in seconds if trained
    }
    measures = {key: value for key, value in best.items() if key not in {"epoch", *seconds} and _is_scalar(value)}
    last = {f"last_{key}": value for key, value in epochs[-1].items() if key.startswith("val_") and key not in seconds}
    return {**measures, **last, **summed, "best_epoch": best.get("epoch")}


def _role(info: TrialInfo | None, listed: Listed) -> str:
    if listed.final:
        return "final"
    return info.role if info is not None else ""


def _encoder(info: TrialInfo | None) -> Any:
    return info.config.encoder if info else None


def _keys(rows: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _test_column(key: str) -> str:
    return key if key.startswith("test_") else f"test_{key}"


def _column_order(name: str) -> tuple[int, str]:
    prefixes = ("test_", "last_", "train_")
    return next((i for i, prefix in enumerate(prefixes) if name.startswith(prefix)), len(prefixes)), name


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (int, float, str, bool))


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
