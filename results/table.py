"""A study's folder as pandas tables: one row per trial, the paper's table II, the paper's table III.

    trials = load("runs/phantom")
    trials[trials.status == "complete"].sort_values("val_dice")[["encoder", "learning_rate", "val_dice"]]
    nas_table(trials); final_table(trials)

Reads only what stands in the folder, so it works while the study runs, on another machine, and on a folder that was
cut short: what cannot be read is said in the row's `problem`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
from pyarrow import fs

from cluster.storage import Folder
from results.paper import TABLE_II, TABLE_III, PaperRow
from results.ranks import RankAgreement, agreement_of
from trainables.config import TrialConfig
from trainables.record import TrialInfo, TrialRecord, TrialStatus

SCORE = "val_dice"
"""The measure by which the best epoch and the best trial are chosen: mean hard Dice over the validation images."""

OUTCOME = (
    *("trial_id", "role", "status", "encoder", "parameters", "val_dice", "val_iou", "best_epoch", "epochs", "budget"),
    *("train_s", "slot_s", "usd", "pool", "workers", "retries", "repeat_of", "reason", "traceback", "problem"),
    *("started_at", "ended_at"),
)
"""The columns every table of trials has, first and in this order; measures, settings and parameters follow."""

REPEAT = "repeat of "
"""How the reason of a trial begins that took over the result of an earlier one with the same settings, untrained."""

SETTINGS = tuple(name for name in TrialConfig.model_fields if name not in ("encoder", "epochs"))
"""The settings of a trial that are columns by their own names; `epochs` of the settings is the column `budget`."""


def load(study: str | Folder) -> pd.DataFrame:
    """One row per trial of a study, in the order of their ids, the finals last.

    Columns: `OUTCOME`; the measures of the best epoch by `val_dice` under their own names (`val_iou`, ...) and of the
    last epoch with `last_` before them; seconds (`*_s`) summed over the epochs; the measures on the test split with
    `test_` before them; every setting by its name in `TrialConfig`, except that its `epochs` is `budget`; the searched
    parameters with `param_` before them. `epochs` are the finished ones. A trial that only took over the result of an
    earlier one with the same settings names it in `repeat_of` and has no seconds of its own.
    `DataFrame.attrs["study"]` is `study.json`.

    Args:
        study: path or URI of the study's folder.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no trial and no `study.json`.
    """
    folder = study_folder(study)
    rows = [_row(record, final) for record, final in records(folder)]
    found = {name for row in rows for name in row}
    first = [*OUTCOME, *sorted(name for name in found if name.startswith("val_") and name not in OUTCOME)]
    rest = sorted(found - set(first) - set(SETTINGS), key=_column_order)
    table = pd.DataFrame(rows, columns=[*first, *rest, *SETTINGS])
    table.attrs["study"] = _study_json(folder)
    return table


def load_epochs(study: str | Folder) -> pd.DataFrame:
    """One row per finished epoch of every trial: `trial_id`, `role`, `encoder`, and the epoch's measures as written.

    Raises:
        FileNotFoundError: as `load`.
    """
    rows = []
    for record, final in records(study_folder(study)):
        info, _ = _read(record.info)
        epochs, _ = _read(record.metrics)
        about = {"trial_id": record.folder.name, "role": _role(info, final), "encoder": _encoder(info)}
        rows += [{**about, **epoch} for epoch in epochs or []]
    return pd.DataFrame(rows, columns=list(dict.fromkeys(["trial_id", "role", "encoder", "epoch", *_keys(rows)])))


def nas_table(study: str | Folder | pd.DataFrame) -> pd.DataFrame:
    """The paper's table II: one row per encoder, all at the budget of the search.

    `dice`, `iou`, `train_s`, `epochs` and `status` are those of the encoder's baseline, the paper's setting;
    `best_dice` and `best_iou` those of the best searched trial of that encoder which had the full search budget;
    `paper_*` what the paper prints. Dice and IoU are hard, per validation image, then averaged, at the epoch with the
    best Dice.
    """
    trials = _trials(study)
    rows = [_nas_row(encoder, trials) for encoder in _encoders(trials[trials.role != "final"])]
    columns = ["encoder", "parameters", "dice", "iou", "train_s", "epochs", "status", "best_dice", "best_iou"]
    paper = ["paper_parameters", "paper_dice", "paper_iou", "paper_time"]
    table = pd.DataFrame(rows, columns=[*columns, "best_trial", *paper])
    table.attrs["study"] = trials.attrs.get("study", {})
    return table


def final_table(study: str | Folder | pd.DataFrame) -> pd.DataFrame:
    """The paper's table III: one row per winner, trained with the full budget, best validation Dice first.

    `val_dice` and `val_iou` are those of the epoch with the best validation Dice; `test_dice` and `test_iou` were
    measured once, after training, on patients that no choice has seen; `search_dice` is the best that the same encoder
    reached with the search's budget; `paper_*` what the paper prints, for its validation set.
    """
    trials = _trials(study)
    finals = trials[trials.role == "final"].sort_values(SCORE, ascending=False, na_position="last")
    rows = [_final_row(row, trials) for _, row in finals.iterrows()]
    columns = ["encoder", "parameters", "val_dice", "val_iou", "test_dice", "test_iou", "search_dice"]
    paper = ["paper_parameters", "paper_dice", "paper_iou"]
    table = pd.DataFrame(rows, columns=[*columns, "train_s", "epochs", "status", *paper])
    table.attrs["study"] = trials.attrs.get("study", {})
    return table


def rank_agreement(study: str | Folder | pd.DataFrame) -> RankAgreement:
    """Compare `search_dice` and `val_dice` of the finals: does the search's order hold after the full training?"""
    return agreement_of(final_scores(final_table(study)))


def final_scores(finals: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """(`search_dice`, `val_dice`) by encoder, from `final_table`; of several finals of one encoder the best."""
    best_last = reversed(finals.to_dict("records"))
    return {row["encoder"]: (row["search_dice"], row["val_dice"]) for row in best_last}


def study_folder(study: str | Folder) -> Folder:
    """The folder of a study. Raises FileNotFoundError where there is none."""
    folder = study if isinstance(study, Folder) else Folder(study)
    if not any(folder.exists(name) for name in ("study.json", "trials", "final")):
        raise FileNotFoundError(f"{folder} is not a study: it holds no study.json and no trials/")
    return folder


def _study_json(folder: Folder) -> dict[str, Any]:
    content, _ = _read(lambda: folder.read_json("study.json"))
    return content if isinstance(content, dict) else {}


def records(folder: Folder) -> Iterable[tuple[TrialRecord, bool]]:
    """The trial folders of a study in order of name, each with whether it is a final; the finals last."""
    for part, final in (("trials", False), ("final", True)):
        selector = fs.FileSelector((folder / part).path, allow_not_found=True)
        for info in sorted(folder.filesystem.get_file_info(selector), key=lambda info: info.base_name):
            if info.type == fs.FileType.Directory and ".tmp-" not in info.base_name:
                yield TrialRecord(folder / part / info.base_name), final


def _row(record: TrialRecord, final: bool) -> dict[str, Any]:
    info, no_info = _read(record.info)
    status, no_status = _read(record.status)
    epochs, no_epochs = _read(record.metrics)
    test, no_test = _read(record.test)
    status = status or TrialStatus()
    repeat_of = status.reason.removeprefix(REPEAT) if status.reason.startswith(REPEAT) else None
    return {
        **_measures(epochs or [], trained=repeat_of is None),
        **{_test_column(key): value for key, value in (test or {}).items() if _is_scalar(value)},
        **(_about(info) if info else {}),
        **status.model_dump(),
        "trial_id": info.trial_id if info else record.folder.name,
        "role": _role(info, final),
        "epochs": max(status.epochs, len(epochs or [])),
        "repeat_of": repeat_of,
        "problem": "; ".join(filter(None, (no_info, no_status, no_epochs, no_test))),
    }


def _read(read: Callable[[], Any]) -> tuple[Any, str]:
    """What `read` returns and an empty text, or None and what is wrong: one broken file does not hide a study."""
    try:
        return read(), ""
    except (OSError, ValueError, TypeError) as error:
        return None, f"{type(error).__name__}: {str(error).splitlines()[0]}"


def _about(info: TrialInfo) -> dict[str, Any]:
    settings = {name: info.config.get(name) for name in SETTINGS}
    return {
        **settings,
        **{f"param_{name}": value for name, value in info.params.items()},
        "encoder": info.config.get("encoder"),
        "budget": info.config.get("epochs"),
        "pool": info.pool,
        "workers": info.workers,
        "usd_per_hour": info.usd_per_hour,
    }


def _measures(epochs: list[dict[str, Any]], *, trained: bool) -> dict[str, Any]:
    """The best epoch's measures, the last one's with `last_`, and the seconds summed if it was `trained` itself."""
    if not epochs:
        return {}
    scored = [epoch for epoch in epochs if _is_finite(epoch.get(SCORE))]
    best = max(scored, key=lambda epoch: epoch[SCORE]) if scored else {}
    seconds = {key for key in _keys(epochs) if key.endswith("_s") and not key.endswith("_per_s")}
    summed = {
        key: sum(float(epoch[key]) for epoch in epochs if _is_finite(epoch.get(key))) for key in seconds if trained
    }
    measures = {key: value for key, value in best.items() if key not in {"epoch", *seconds} and _is_scalar(value)}
    last = {f"last_{key}": value for key, value in epochs[-1].items() if key.startswith("val_") and key not in seconds}
    return {**measures, **last, **summed, "best_epoch": best.get("epoch")}


def _nas_row(encoder: str, trials: pd.DataFrame) -> dict[str, Any]:
    of_encoder = trials[trials.encoder == encoder]
    baseline = _first(of_encoder[of_encoder.role == "baseline"])
    searched = of_encoder[(of_encoder.role == "search") & (of_encoder.status == "complete")]
    best = _best(searched[searched.repeat_of.isna()])
    parameters = of_encoder.parameters.dropna()
    return {
        "encoder": encoder,
        "parameters": parameters.iloc[0] if len(parameters) else None,
        "dice": baseline.get("val_dice"),
        "iou": baseline.get("val_iou"),
        "train_s": baseline.get("train_s"),
        "epochs": baseline.get("epochs"),
        "status": baseline.get("status", "none"),
        "best_dice": best.get("val_dice"),
        "best_iou": best.get("val_iou"),
        "best_trial": best.get("trial_id"),
        **_paper(TABLE_II.get(encoder)),
    }


def _final_row(final: pd.Series, trials: pd.DataFrame) -> dict[str, Any]:
    same = trials[(trials.encoder == final.encoder) & (trials.role != "final") & (trials.status == "complete")]
    copied = ("encoder", "parameters", "val_dice", "val_iou", "test_dice", "test_iou", "train_s", "epochs", "status")
    paper = _paper(TABLE_III.get(final.encoder))
    return {**{name: final.get(name) for name in copied}, "search_dice": _best(same).get("val_dice"), **paper}


def _paper(row: PaperRow | None) -> dict[str, Any]:
    if row is None:
        return {}
    return {
        "paper_parameters": row.parameters,
        "paper_dice": row.dice,
        "paper_iou": row.iou,
        "paper_time": row.time,
    }


def _encoders(trials: pd.DataFrame) -> list[str]:
    """Encoders in the paper's order, then the others by name."""
    found = set(trials.encoder.dropna())
    return [name for name in TABLE_II if name in found] + sorted(found - set(TABLE_II))


def _trials(study: str | Folder | pd.DataFrame) -> pd.DataFrame:
    return study if isinstance(study, pd.DataFrame) else load(study)


def _first(trials: pd.DataFrame) -> dict[str, Any]:
    """The first complete trial, or, if there is none, the first of any status."""
    ordered = pd.concat([trials[trials.status == "complete"], trials[trials.status != "complete"]])
    return dict(ordered.iloc[0]) if len(ordered) else {}


def _best(trials: pd.DataFrame) -> dict[str, Any]:
    scored = trials[trials[SCORE].notna()].sort_values(SCORE, ascending=False, kind="stable")
    return dict(scored.iloc[0]) if len(scored) else {}


def _role(info: TrialInfo | None, final: bool) -> str:
    if info is not None:
        return info.role
    return "final" if final else ""


def _encoder(info: TrialInfo | None) -> Any:
    return info.config.get("encoder") if info else None


def _keys(rows: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _test_column(key: str) -> str:
    return key if key.startswith("test_") else f"test_{key}"


def _column_order(name: str) -> tuple[int, str]:
    prefixes = ("test_", "last_", "train_", "param_")
    return next((i for i, prefix in enumerate(prefixes) if name.startswith(prefix)), len(prefixes)), name


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (int, float, str, bool))


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
