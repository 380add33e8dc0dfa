"""A space as Optuna sees it: the distributions of its axes, and how a trial of Optuna's is asked for a point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.settings.space import Axis, Params, Space, is_integer


def distribution(axis: Axis, name: str) -> BaseDistribution:
    """The distribution of an axis as the field `name` of `TrialConfig`."""
    if axis.choices is not None:
        return CategoricalDistribution(axis.choices)
    assert axis.low is not None and axis.high is not None
    if is_integer(name):
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
    return FloatDistribution(float(axis.low), float(axis.high), log=axis.log, step=axis.step)


def distributions(space: Space, params: Mapping[str, Any] | None = None) -> dict[str, BaseDistribution]:
    """The distributions of all axes, or of those that are active at `params`."""
    names = [n for n in space.order if params is None or space.is_active(n, params)]
    return {name: distribution(space.axes[name], name) for name in names}


def suggest(space: Space, trial: optuna.trial.BaseTrial) -> Params:
    """Ask a trial for a value of every active axis."""
    params: Params = {}
    for name in space.order:
        if space.is_active(name, params):
            params[name] = _suggest(trial, name, distribution(space.axes[name], name))
    return params


def _suggest(trial: optuna.trial.BaseTrial, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_float(name, low, high, log=log, step=step)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
    raise AssertionError(distribution)
