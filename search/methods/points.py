"""Points of a space as numbers: drawn, changed in one axis, and laid side by side for a model.

An axis of numbers, a list of numbers included, runs from 0 to 1 by ratio or by rank; any other axis is a choice.
Shapes: N points, M other points, A axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from search.settings.space import Axis, Space, is_integer, is_number

Params = Mapping[str, Any]
CELLS_AT_ONCE = 1_000
"""Up to this many cells a finite space is looked at whole."""


class Points:
    """A space for models.

    Args:
        space: what is searched.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.names = list(space.order)
        size = space.size()
        self.cells: list[Params] | None = list(space.cells()) if size is not None and size <= CELLS_AT_ONCE else None
        """Every point of a small finite space, else None."""
        self.is_choice_A = np.array([_is_choice(name, space.axes[name]) for name in self.names])

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """A point at random, each axis evenly."""
        return self._point(lambda name: self._draw(name, rng))

    def near(self, params: Params, rng: np.random.Generator) -> dict[str, Any]:
        """A point that differs from `params` in one axis, a number by a small step; and in what that axis decides."""
        changed = self.names[int(rng.integers(len(self.names)))]

        def value(name: str) -> Any:
            if name not in params:
                return self._draw(name, rng)
            return self._step(name, params[name], rng) if name == changed else params[name]

        return self._point(value)

    def rows(self, points: Sequence[Params]) -> np.ndarray:
        """The points as (N, A): numbers from 0 to 1, choices by index, NaN where an axis is inactive."""
        rows = [[self._number(n, p[n]) if n in p else np.nan for n in self.names] for p in points]
        return np.array(rows, float).reshape(len(points), len(self.names))

    def gaps(self, row_NA: np.ndarray, row_MA: np.ndarray) -> np.ndarray:
        """How far apart points are along each axis, (A, N, M): of numbers the difference, of choices 0 or 1.

        An axis that one of two points lacks is 1 apart, one that both lack 0.
        """
        gap_ANM = np.abs(row_NA.T[:, :, None] - row_MA.T[:, None, :])
        gap_ANM[self.is_choice_A] = np.minimum(np.ceil(gap_ANM[self.is_choice_A]), 1)
        lacks_NA, lacks_MA = np.isnan(row_NA), np.isnan(row_MA)
        both = lacks_NA.T[:, :, None] & lacks_MA.T[:, None, :]
        return np.where(np.isnan(gap_ANM), np.where(both, 0.0, 1.0), gap_ANM)

    def _point(self, value: Any) -> dict[str, Any]:
        params: dict[str, Any] = {}
        for name in self.names:
            if self.space.is_active(name, params):
                params[name] = value(name)
        return params

    def _number(self, name: str, value: Any) -> float:
        """Where a value lies on its axis, from 0 to 1; of a choice its index."""
        axis = self.space.axes[name]
        if axis.choices is not None:
            if _is_choice(name, axis):
                return float(axis.choices.index(value))
            return sorted(axis.choices).index(value) / max(1, len(axis.choices) - 1)
        low, high, at = _scaled(axis, axis.low), _scaled(axis, axis.high), _scaled(axis, value)
        return (at - low) / (high - low)

    def _value(self, name: str, number: float) -> Any:
        """The axis' value at a number from 0 to 1."""
        axis = self.space.axes[name]
        if axis.choices is not None:
            return sorted(axis.choices)[round(number * (len(axis.choices) - 1))]
        assert axis.low is not None and axis.high is not None
        low, high = _scaled(axis, axis.low), _scaled(axis, axis.high)
        found = low + number * (high - low)
        found = min(float(axis.high), max(float(axis.low), math.exp(found) if axis.log else found))
        step = axis.step or (1 if is_integer(name) else None)
        if step is not None:
            most = math.floor((axis.high - axis.low) / step + 1e-8)
            found = axis.low + step * min(most, round((found - axis.low) / step))
        return int(found) if is_integer(name) else float(found)

    def _draw(self, name: str, rng: np.random.Generator) -> Any:
        choices = self.space.axes[name].choices
        if choices is not None:
            return choices[int(rng.integers(len(choices)))]
        return self._value(name, float(rng.random()))

    def _step(self, name: str, value: Any, rng: np.random.Generator) -> Any:
        if _is_choice(name, self.space.axes[name]):
            return self._draw(name, rng)
        moved = self._number(name, value) + 0.2 * float(rng.normal())
        return self._value(name, min(1.0, max(0.0, moved)))


def _is_choice(name: str, axis: Axis) -> bool:
    """Whether an axis has no order: a list of anything but numbers."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in axis.choices or ())
    return axis.choices is not None and not (is_number(name) and numbers)


def _scaled(axis: Axis, value: float | None) -> float:
    assert value is not None
    return math.log(value) if axis.log else float(value)
