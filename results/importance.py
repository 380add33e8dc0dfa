"""Which searched settings decide whether a trial is among the best, by Optuna's PED-ANOVA.

PED-ANOVA (S. Watanabe et al., 2023, arXiv:2304.10255) compares where the best tenth of the trials lie on each setting
with where all lie. It says what to search finely, on this space, with this budget; it is no statement about networks.
The one module outside `search` that knows Optuna, which it imports when it is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

SCORE = "val_dice"
FEWEST_TRIALS = 10
"""Below this many complete trials the best tenth is not even one: nothing is said."""
LOG_ABOVE = 100
"""Without the study's settings: a setting whose largest value is this many times its smallest counts as logarithmic."""
COLUMNS = ["name", "share", "low", "high"]


def importance(trials: pd.DataFrame, *, draws: int = 30, seed: int = 0) -> pd.DataFrame:
    """The share of each searched setting in what makes a trial one of the best, largest first.

    Counts complete trials that were trained themselves. A setting is left out where it has one value only, or where
    some trials have none of it (it is searched under a condition); `attrs["left_out"]` names these.

    Args:
        trials: what `results.load` gives.
        draws: how often the trials are drawn anew, with replacement, for the interval.
        seed: of these draws.

    Returns:
        `name`, `share` (of 1 in all), `low` and `high` (around the middle 90 % of the draws); `attrs["trials"]` is the
        number of trials, `attrs["method"]` the method's name, `attrs["why_empty"]` why there is no row.
    """
    names, values = searched_values(trials)
    counted, dice = values[_counted(trials)], trials[SCORE][_counted(trials)].astype(float)
    kept = [name for name in names if counted[name].notna().all() and counted[name].nunique() > 1]
    table = pd.DataFrame(columns=COLUMNS)
    if len(counted) >= FEWEST_TRIALS and kept and dice.nunique() > 1:
        logarithmic = {name for name in kept if is_logarithmic(trials, name)}
        table = _table(counted[kept], dice, logarithmic, draws=draws, seed=seed)
    table.attrs["method"] = "PED-ANOVA"
    table.attrs["trials"] = len(counted)
    table.attrs["left_out"] = [name for name in names if name not in kept]
    table.attrs["why_empty"] = "" if len(table) else _why_empty(len(counted))
    return table


def searched_values(trials: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """The names of the searched settings, and their values per trial; NaN where a trial has none of a setting."""
    prefixed = [name for name in trials.columns if name.startswith("param_")]
    names = [str(name) for name in trials.attrs.get("searched", [name.removeprefix("param_") for name in prefixed])]
    if prefixed or not names:
        values = trials[prefixed].rename(columns=lambda name: name.removeprefix("param_"))
        return names, values.reindex(columns=names).astype(object)
    active = pd.Series([names] * len(trials), trials.index)
    if "searched" in trials:
        # A baseline has the paper's value of every setting, searched or not.
        active = active.where(trials.role == "baseline", trials["searched"].fillna("").str.split())
    values = trials.reindex(columns=names).astype(object)
    for name in names:
        values[name] = values[name].where(active.map(lambda listed, name=name: name in listed))
    return names, values


def is_logarithmic(trials: pd.DataFrame, name: str) -> bool:
    """Whether a setting is searched on a logarithmic scale, by the study's settings or, without them, by its values."""
    space = (trials.attrs.get("study", {}).get("config") or {}).get("space")
    if isinstance(space, dict):
        return isinstance(space.get(name), dict) and bool(space[name].get("log"))
    searched = searched_values(trials)[1]
    values = pd.to_numeric(searched[name] if name in searched else trials[name], errors="coerce")
    return bool(values.min() > 0 and values.max() / values.min() > LOG_ABOVE)


def _counted(trials: pd.DataFrame) -> pd.Series:
    """Complete trials of the search with a score, trained themselves."""
    return (trials.status == "complete") & (trials.role != "final") & trials.repeat_of.isna() & trials[SCORE].notna()


def _why_empty(trials: int) -> str:
    if trials < FEWEST_TRIALS:
        return f"{trials} complete trials: with fewer than {FEWEST_TRIALS} nothing can be said of their settings"
    return "no setting differs between the trials"


def _table(values: pd.DataFrame, dice: pd.Series, logarithmic: set[str], *, draws: int, seed: int) -> pd.DataFrame:
    with _quiet_optuna() as optuna:
        spaces = {str(name): _space(optuna.distributions, values[name], log=name in logarithmic) for name in values}
        rows = zip(values.to_dict("records"), dice, strict=True)
        done = [optuna.create_trial(params=row, distributions=spaces, value=float(score)) for row, score in rows]
        rng = np.random.default_rng(seed)
        shares = _shares(optuna, done)
        again = [_shares(optuna, [done[i] for i in rng.integers(len(done), size=len(done))]) for _ in range(draws)]
    drawn = pd.DataFrame([shares, *again])
    table = pd.DataFrame({"name": list(shares), "share": list(shares.values())})
    # Few trials drawn with repeats can all miss the share itself, which belongs into its interval.
    table["low"] = np.minimum(table.share, table.name.map(drawn.quantile(0.05)))
    table["high"] = np.maximum(table.share, table.name.map(drawn.quantile(0.95)))
    return table.sort_values("share", ascending=False, ignore_index=True)


@contextmanager
def _quiet_optuna() -> Iterator[Any]:
    """Optuna, imported now, without a line on the log for every study that is made."""
    import optuna  # noqa: PLC0415 - see the module

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(level)


def _space(distributions: Any, values: pd.Series, *, log: bool) -> Any:
    """Optuna's distribution that covers the values: a range for numbers, a choice for all else."""
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return distributions.CategoricalDistribution(sorted(set(values), key=str))
    return distributions.FloatDistribution(float(min(values)), float(max(values)), log=log and min(values) > 0)


def _shares(optuna: Any, done: list[Any]) -> dict[str, float]:
    """PED-ANOVA's importance of each setting, as shares of 1."""
    study = optuna.create_study(direction="maximize")
    study.add_trials(done)
    return dict(optuna.importance.get_param_importances(study))
