"""When a search has had its trials: budgets that are counted in trials and epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from search.sections import Budget


def trials_spent(budget: Budget, trials: Sequence[FrozenTrial], *, maximise: bool) -> str | None:
    """Why no further trial is to begin, or None.

    Args:
        budget: the study's.
        trials: its own trials, in order of number, without those of a warm start.
        maximise: whether more of the first objective is better.
    """
    if len(trials) >= budget.trials:
        return f"{budget.trials} trials"
    epochs = sum(len(t.intermediate_values) for t in trials if "repeat_of" not in t.user_attrs)
    if budget.total_epochs is not None and epochs >= budget.total_epochs:
        return f"{epochs} epochs of {budget.total_epochs}"
    if budget.no_gain_trials is not None and without_gain(trials, maximise=maximise) >= budget.no_gain_trials:
        return f"no gain in {budget.no_gain_trials} trials"
    return None


def without_gain(trials: Sequence[FrozenTrial], *, maximise: bool) -> int:
    """How many ended trials in a row, in order of number and up to the first that runs, did not better the best."""
    best, since = -math.inf, 0
    sign = 1.0 if maximise else -1.0
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            break
        value = sign * trial.values[0] if trial.values and trial.state == TrialState.COMPLETE else -math.inf
        best, since = (value, 0) if value > best else (best, since + 1)
    return since
