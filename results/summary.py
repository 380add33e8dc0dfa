"""The tables of a study, from `results.load`'s frame: the paper's tables II and III, encoders, cost.

    nas_table(trials)                    the paper's table II: one row per encoder, all at the search's budget
    final_table(trials, images)          the paper's table III: one row per winner, with intervals from its test images
    encoder_table(trials)                best and spread of every encoder's trials
    cost_table(trials)                   slot hours and dollars by pool and role

Every function takes a study's path too. The numbers stay numbers here; `results.tables` writes them for people.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from cluster.storage import Folder
from results.palette import encoder_order
from results.paper import TABLE_II, TABLE_III, PaperRow
from results.per_image import load_images
from results.ranks import RankAgreement, agreement_of, tau_interval
from results.table import SCORE, load
from results.verdict import Verdict, judge
from trainables.score.groups import interval_of


def nas_table(study: str | Folder | pd.DataFrame) -> pd.DataFrame:
    """The paper's table II: one row per encoder, all at the budget of the search.

    `dice`, `iou`, `train_s`, `epochs` and `status` are those of the encoder's baseline, the paper's setting;
    `best_dice` and `best_iou` those of the best searched trial of that encoder which had the full search budget;
    `paper_*` what the paper prints. Dice and IoU are hard, per validation image, then averaged, at the epoch with the
    best Dice.
    """
    trials = trials_of(study)
    rows = [_nas_row(encoder, trials) for encoder in _encoders(trials[trials.role != "final"])]
    columns = ["encoder", "parameters", "dice", "iou", "train_s", "epochs", "status", "best_dice", "best_iou"]
    return _table(rows, [*columns, "best_trial", *_paper_columns()], trials)


def final_table(study: str | Folder | pd.DataFrame, images: pd.DataFrame | None = None) -> pd.DataFrame:
    """The paper's table III: one row per winner, trained with the full budget, best test Dice first.

    Every figure is the mean over the winner's seeds. `val_dice` and `val_iou` are those of the epoch with the best
    validation Dice; `test_*` were measured once, after training, on patients that no choice has seen, with `_low` and
    `_high` the 95 % interval by patient; `tied` says whether the winner can be told from the best, `p` how surely
    (`results.verdict`); `search_dice` is what the same settings reached with the search's budget, in the trial
    `search_trial`; `paper_*` what the paper prints, for its validation set. `status` is `complete`, or how many of the
    seeds are.

    Args:
        study: a study, or its table.
        images: `results.load_images`; without them, and where they cannot be read, there are no intervals.
    """
    trials = trials_of(study)
    if images is None and not isinstance(study, pd.DataFrame):
        images = load_images(study)
    verdict = judge(trials, images) if images is not None and len(images) else None
    finals = trials[trials.role == "final"]
    rows = [_final_row(str(name), group, trials, images, verdict) for name, group in finals.groupby("final")]
    columns = ["final", "encoder", "parameters", "seeds", "val_dice", "val_iou", "test_dice", "test_dice_low"]
    columns += ["test_dice_high", "test_iou", "test_iou_low", "test_iou_high", "tied", "p", "search_dice"]
    columns += ["search_trial", "train_s", "slot_s", "usd", "epochs", "status"]
    table = _table(rows, [*columns, *(name for name in _paper_columns() if name != "paper_time")], trials)
    return table.sort_values(["test_dice", "val_dice"], ascending=False, na_position="last", ignore_index=True)


def encoder_table(study: str | Folder | pd.DataFrame) -> pd.DataFrame:
    """One row per encoder of the search: how its trials ended, and how far the complete ones lie apart.

    `best_dice`, `quarter_dice`, `median_dice`, `three_quarter_dice`: the best of the complete trials that were trained
    themselves, and their quartiles; `slot_s` and `usd` are of all its trials.
    """
    trials = trials_of(study)
    searched = trials[(trials.role != "final") & trials.repeat_of.isna()]
    rows = [_encoder_row(encoder, searched[searched.encoder == encoder]) for encoder in _encoders(searched)]
    columns = ["encoder", "parameters", "trials", "complete", "pruned", "failed", "best_dice", "best_trial"]
    columns += ["quarter_dice", "median_dice", "three_quarter_dice", "epochs", "slot_s", "usd"]
    table = _table(rows, columns, trials)
    return table.sort_values("best_dice", ascending=False, na_position="last", kind="stable", ignore_index=True)


def cost_table(study: str | Folder | pd.DataFrame) -> pd.DataFrame:
    """What the study took: `part` (search or finals), `pool`, `trials`, `epochs`, `slot_s`, `usd`; the last row is all.

    `pruned_s` are the seconds of slots that pruned trials took, `failed_s` those of failed ones.
    """
    trials = trials_of(study)
    parts = trials.assign(
        part=trials.role.eq("final").map({True: "finals", False: "search"}), pool=trials.pool.fillna("")
    )
    rows = [
        {"part": part, "pool": pool, **_costs(group)}
        for (part, pool), group in parts.groupby(["part", "pool"], sort=True)
    ]
    rows = sorted(rows, key=lambda row: (row["part"] != "search", row["pool"]))
    rows.append({"part": "all", "pool": "", **_costs(trials)})
    return _table(rows, ["part", "pool", "trials", "epochs", "slot_s", "pruned_s", "failed_s", "usd"], trials)


def trial_table(study: str | Folder | pd.DataFrame) -> pd.DataFrame:
    """Every trial of the search with its searched settings, best Dice first, without what was never started.

    A setting that is searched under a condition is NaN in the trials in which it was not.
    """
    trials = trials_of(study)
    shown = trials[(trials.role != "final") & (trials.status != "pending")]
    columns = ["trial_id", "role", "status", "encoder", "val_dice", "val_iou", "best_epoch", "epochs", "slot_s", "usd"]
    table = shown[[*columns, "reason"]].copy()
    for name in trials.attrs["searched"]:
        if name in shown and name not in table:
            table.insert(len(table.columns) - 1, name, _where_active(shown, name))
    table.attrs = trials.attrs
    return table.sort_values("val_dice", ascending=False, na_position="last", kind="stable", ignore_index=True)


def rank_agreement(
    study: str | Folder | pd.DataFrame, images: pd.DataFrame | None = None, val_images: pd.DataFrame | None = None
) -> RankAgreement:
    """Does the search's order of the encoders hold after the full training? Its validation Dice against test Dice.

    Args:
        study: a study, or its table.
        images: `results.load_images`, and
        val_images: the same of the validation split: with both, tau has an interval.
    """
    if not isinstance(study, pd.DataFrame):
        images = load_images(study) if images is None else images
        val_images = load_images(study, "val") if val_images is None else val_images
    scores = final_scores(final_table(trials_of(study)))
    agreement = agreement_of(scores)
    if images is None or val_images is None:
        return agreement
    low, high = tau_interval(scores, images, val_images)
    return replace(agreement, tau_low=low, tau_high=high)


def final_scores(finals: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """(`search_dice`, `test_dice`) by final, from `final_table`; `val_dice` where no final was tested."""
    second = "test_dice" if finals.test_dice.notna().any() else "val_dice"
    return {str(row["final"]): (row["search_dice"], row[second]) for row in finals.to_dict("records")}


def trials_of(study: str | Folder | pd.DataFrame) -> pd.DataFrame:
    """The study's table, given or loaded."""
    return study if isinstance(study, pd.DataFrame) else load(study)


def complete(trials: pd.DataFrame) -> pd.DataFrame:
    """The complete trials of the search that were trained themselves."""
    return trials[(trials.status == "complete") & (trials.role != "final") & trials.repeat_of.isna()]


def _where_active(trials: pd.DataFrame, name: str) -> pd.Series:
    """A setting's values; of a trial in which it was searched under a condition that did not hold, none."""
    return trials[name].where(trials.searched.fillna("").str.split().map(lambda names: name in names))


def _table(rows: list[dict[str, Any]], columns: list[str], trials: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=columns)
    table.attrs = dict(trials.attrs)
    return table


def _nas_row(encoder: str, trials: pd.DataFrame) -> dict[str, Any]:
    of_encoder = trials[trials.encoder == encoder]
    baseline = _first(of_encoder[of_encoder.role == "baseline"])
    done = complete(of_encoder)
    best = _best(done[done.role == "search"])
    return {
        "encoder": encoder,
        "parameters": _any(of_encoder.parameters),
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


def _final_row(
    name: str, seeds: pd.DataFrame, trials: pd.DataFrame, images: pd.DataFrame | None, verdict: Verdict | None
) -> dict[str, Any]:
    done = int((seeds.status == "complete").sum())
    source = _source(seeds.iloc[0], trials)
    means = {name: _mean(seeds, name) for name in ("val_dice", "val_iou", "test_dice", "test_iou", "train_s", "slot_s")}
    return {
        "final": name,
        "encoder": seeds.encoder.iloc[0],
        "parameters": _any(seeds.parameters),
        "seeds": len(seeds),
        **means,
        **_intervals(name, images),
        **_outcome(name, verdict),
        "search_dice": source.get("val_dice"),
        "search_trial": source.get("trial_id"),
        "usd": seeds.usd.astype(float).sum(),
        "epochs": seeds.epochs.max(),
        "status": seeds.status.iloc[0] if seeds.status.nunique() == 1 else f"{done} of {len(seeds)} complete",
        **_paper(TABLE_III.get(seeds.encoder.iloc[0])),
    }


def _intervals(name: str, images: pd.DataFrame | None) -> dict[str, Any]:
    if images is None or not (images.final == name).any():
        return {}
    found = {measure: interval_of(images[images.final == name], measure) for measure in ("dice", "iou")}
    return {
        f"test_{measure}{end}": value
        for measure, interval in found.items()
        for end, value in (("", interval.value), ("_low", interval.low), ("_high", interval.high))
    }


def _outcome(name: str, verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {}
    rows = verdict.finals[verdict.finals.final == name]
    return {"tied": rows.tied.iloc[0], "p": rows.p.iloc[0]} if len(rows) else {}


def _source(final: pd.Series, trials: pd.DataFrame) -> dict[str, Any]:
    """The search's trial with the same searched settings; else the best of the same encoder."""
    same = trials[(trials.encoder == final.encoder) & (trials.role != "final") & (trials.status == "complete")]
    settings = [name for name in str(final.searched or "").split() if name in trials and name != "encoder"]
    equal = same[(same[settings] == final[settings]).all(axis=1)] if settings else same.head(0)
    return _best(equal if len(equal) else same)


def _encoder_row(encoder: str, trials: pd.DataFrame) -> dict[str, Any]:
    done = complete(trials)
    best, quartiles = _best(done), done[SCORE].astype(float).quantile([0.25, 0.5, 0.75])
    return {
        "encoder": encoder,
        "parameters": _any(trials.parameters),
        "trials": len(trials),
        **{status: int((trials.status == status).sum()) for status in ("complete", "pruned", "failed")},
        "best_dice": best.get("val_dice"),
        "best_trial": best.get("trial_id"),
        **dict(zip(("quarter_dice", "median_dice", "three_quarter_dice"), quartiles, strict=True)),
        "epochs": int(trials.epochs.sum()),
        "slot_s": trials.slot_s.astype(float).sum(),
        "usd": trials.usd.astype(float).sum(),
    }


def _taken(trials: pd.DataFrame) -> pd.Series | int:
    """The epochs of each trial that were trained by another, from which it went on."""
    return trials.taken_epochs.fillna(0) if "taken_epochs" in trials else 0


def _costs(trials: pd.DataFrame) -> dict[str, Any]:
    seconds = trials.slot_s.astype(float)
    return {
        "trials": len(trials),
        "epochs": int((trials.epochs - _taken(trials))[trials.repeat_of.isna()].sum()),
        "slot_s": seconds.sum(),
        "pruned_s": seconds[trials.status == "pruned"].sum(),
        "failed_s": seconds[trials.status == "failed"].sum(),
        "usd": trials.usd.astype(float).sum(),
    }


def _paper(row: PaperRow | None) -> dict[str, Any]:
    if row is None:
        return {}
    return dict(zip(_paper_columns(), (row.parameters, row.dice, row.iou, row.time), strict=True))


def _paper_columns() -> list[str]:
    return ["paper_parameters", "paper_dice", "paper_iou", "paper_time"]


def _encoders(trials: pd.DataFrame) -> list[str]:
    """Encoders in the paper's order, then the others by name."""
    return encoder_order(trials.encoder.dropna())


def _mean(rows: pd.DataFrame, name: str) -> float | None:
    """The mean over the rows that have a number."""
    values = pd.to_numeric(rows[name], errors="coerce").dropna() if name in rows else pd.Series(dtype=float)
    return float(values.mean()) if len(values) else None


def _any(values: pd.Series) -> Any:
    known = values.dropna()
    return known.iloc[0] if len(known) else None


def _first(trials: pd.DataFrame) -> dict[str, Any]:
    """The first complete trial, or, if there is none, the first of any status."""
    ordered = pd.concat([trials[trials.status == "complete"], trials[trials.status != "complete"]])
    return dict(ordered.iloc[0]) if len(ordered) else {}


def _best(trials: pd.DataFrame) -> dict[str, Any]:
    scored = trials[trials[SCORE].notna()].sort_values(SCORE, ascending=False, kind="stable")
    return dict(scored.iloc[0]) if len(scored) else {}
