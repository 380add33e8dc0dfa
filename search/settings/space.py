"""The space: which settings of a trial are searched, and over what.

Each axis is a field of `TrialConfig`: a list of choices or a range, active always or only under a condition. A point of
the space is `params`, a dict of the active axes' values; `to_config` makes the `TrialConfig` of a point, in one
canonical form, so that two points that train the same have the same `key`.

The loss weights follow one rule. Of `dice_weight` and `iou_weight` name one (in `space` or `fixed`), and the other is 1
minus it; name both, and they are taken as they are; name none, and they are the paper's 0.4 and 0.6. The weights of the
loss's other terms stand relative to these two. All are then divided by their sum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from cluster.settings.problems import Problem, raise_problems
from trainables.config import TrialConfig

Scalar = str | int | float | bool | None
Params = dict[str, Any]

NOT_SEARCHED = {"epochs": "budget.epochs", "seed": "study.seed"}
"""Fields of a trial that another section of the file decides."""
AXES = tuple(name for name in TrialConfig.model_fields if name not in NOT_SEARCHED)
"""Every name that `fixed` may hold, and `space` but for `FIXED_ONLY`."""
FIXED_ONLY = {"threshold": "no training depends on it; `validation` chooses it for each trial"}
"""Settings that are not searched -> why."""
MOST_CHOICES, MOST_STEPS = 1_000, 4_096
"""Values of one axis: in a list, and in a range of whole numbers or steps. More are a range without steps."""
COUNTED_CELLS = 100_000
"""More cells of conditional axes than these are not counted, and the space passes for endless."""
EXACT_SIZE_LIMIT = 5_000
"""Up to this many cells, `Space.size` counts the distinct configurations; above, the cells."""


class Axis(BaseModel):
    """One searched setting: a list `[a, b]`, or `{low, high, log, step}`, or `{choices, when}`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    choices: tuple[Any, ...] | None = Field(default=None, max_length=MOST_CHOICES)
    """The values to choose from; a plain list means the same."""
    low: int | float | None = None
    """Lowest value of a range, included."""
    high: int | float | None = None
    """Highest value of a range, included."""
    log: bool = False
    """Whether the range is searched by ratio (1e-4 to 1e-3 as often as 1e-3 to 1e-2)."""
    step: int | float | None = Field(default=None, gt=0)
    """Distance between neighbouring values of a range; not together with `log`."""
    when: dict[str, tuple[Any, ...]] = {}
    """The axis exists only while each named setting has one of these values."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return {"choices": tuple(value)}
        if not isinstance(value, dict):
            raise_problems(Problem((), "a single value is not an axis", allowed=f"[{value}] here, or put it in fixed"))
        value = dict(value)
        if isinstance(value.get("choices"), list):
            value["choices"] = tuple(value["choices"])
        if isinstance(when := value.get("when"), dict):
            value["when"] = {k: tuple(v) if isinstance(v, list | tuple) else (v,) for k, v in when.items()}
        return value

    @model_validator(mode="after")
    def _check(self) -> Axis:
        raise_problems(*(self._list_problems() if self.choices is not None else self._range_problems()))
        return self

    def _list_problems(self) -> Iterator[Problem]:
        assert self.choices is not None
        if given := [n for n in ("low", "high", "step") if getattr(self, n) is not None] + ["log"] * self.log:
            yield Problem((given[0],), "a list of choices has no range", allowed="choices, or low and high, not both")
        if not self.choices:
            yield Problem(("choices",), "empty", allowed="at least one value")
        seen: set[tuple[bool, Any]] = set()
        for i, value in enumerate(self.choices):
            if not isinstance(value, Scalar):
                yield Problem(("choices", i), "not a single value", allowed="text, a number, true, false or null")
            elif (key := (isinstance(value, bool), value)) in seen:
                yield Problem(("choices", i), "named twice", allowed="each value once")
            else:
                seen.add(key)

    def _range_problems(self) -> Iterator[Problem]:
        if self.low is None or self.high is None:
            missing = "low" if self.low is None else "high"
            yield Problem((), f"{missing} is missing", allowed="[a, b, ...], or {low: .., high: ..}")
            return
        if not (math.isfinite(self.low) and math.isfinite(self.high)) or self.low >= self.high:
            yield Problem(("low",), f"the range is empty (high is {self.high})", allowed="low below high, both finite")
        elif self.step is not None and self.step > self.high - self.low:
            yield Problem(("step",), "wider than the range", allowed=f"at most {self.high - self.low:g}")
        if self.log and self.low <= 0:
            yield Problem(("low",), "a log range begins above 0", allowed="low > 0, or log: false")
        if self.log and self.step is not None:
            yield Problem(("step",), "a log range has no step", allowed="log or step, not both")

    @model_serializer
    def _shortest(self) -> Any:
        if self.choices is not None:
            body: dict[str, Any] = {"choices": list(self.choices)}
        else:
            body = {"low": self.low, "high": self.high}
            body |= {"log": True} if self.log else {}
            body |= {"step": self.step} if self.step is not None else {}
        if not self.when:
            return body["choices"] if self.choices is not None else body
        return body | {"when": {name: list(values) for name, values in self.when.items()}}

    def count(self, name: str) -> int | None:
        """How many values the axis has, or None for a continuous range."""
        if self.choices is not None:
            return len(self.choices)
        assert self.low is not None and self.high is not None
        if is_integer(name):
            return int((int(self.high) - int(self.low)) // int(self.step or 1)) + 1
        return None if self.step is None else math.floor((self.high - self.low) / self.step + 1e-8) + 1

    def values(self, name: str) -> tuple[Any, ...] | None:
        """Every value of the axis, or None for a continuous range."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None and self.high is not None
        if is_integer(name):
            return tuple(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        if self.step is None:
            return None
        return tuple(float(self.low + i * self.step) for i in range(self.count(name) or 0))

    def holds(self, name: str, value: Any) -> bool:
        """Whether `value` is one of the axis' values."""
        if self.choices is not None:
            return any(_same(value, choice) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        assert self.low is not None and self.high is not None
        if not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / (self.step or 1)
        return abs(steps - round(steps)) < 1e-8 or (self.step is None and not is_integer(name))

    def nearest(self, name: str, value: Any) -> Any:
        """`value` if the axis holds it, else the nearest number, else the first choice."""
        if self.holds(name, value):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return (self.values(name) or (None,))[0]
        numbers = [v for v in self.values(name) or (self.low, self.high) if isinstance(v, int | float)]
        return min(numbers, key=lambda v: abs(v - value)) if numbers else (self.values(name) or (None,))[0]


@dataclass(frozen=True)
class Space:
    """The axes with what is fixed beside them; immutable."""

    axes: Mapping[str, Axis]
    """In the order of the file."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Settings that are not searched. For a conditional axis: its value while the axis is inactive."""
    epochs: int = 10
    """Budget of a trial."""
    seed: int = 0

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The axes such that each comes after those that its condition names."""
        done: list[str] = []
        while len(done) < len(self.axes):
            ready = [n for n in self.axes if n not in done and all(c in done for c in self._parents(n))]
            if not ready:
                raise ValueError(f"space: the conditions of {sorted(set(self.axes) - set(done))} form a circle")
            done.append(ready[0])
        return tuple(done)

    def is_active(self, name: str, params: Mapping[str, Any]) -> bool:
        """Whether the axis `name` exists, given the values of the axes before it."""
        return all(self._is_met(setting, allowed, params) for setting, allowed in self.axes[name].when.items())

    def constant(self, name: str) -> Any:
        """The value of a setting that is not searched, or whose axis is inactive."""
        return self.fixed.get(name, TrialConfig.model_fields[name].default)

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Whether `params` is a point of the space: exactly the active axes, each with one of its values."""
        active = [n for n in self.order if self.is_active(n, params)]
        return set(active) == set(params) and all(self.axes[n].holds(n, params[n]) for n in active)

    def active(self, params: Mapping[str, Any]) -> Params:
        """`params` without the values of inactive and unknown axes.

        Raises:
            ValueError: an active axis has no value.
        """
        kept: Params = {}
        for name in self.order:
            if self.is_active(name, kept):
                if name not in params:
                    raise ValueError(f"params {dict(params)} have no value for {name}")
                kept[name] = params[name]
        return kept

    def to_config(
        self, params: Mapping[str, Any], *, seed: int | None = None, epochs: int | None = None
    ) -> TrialConfig:
        """The configuration of a point, in canonical form.

        Args:
            params: a value for each active axis; values of inactive axes are dropped.
            seed: the trial's seed; None: the study's.
            epochs: the full budget, e.g. of a final; None: the search's.

        Raises:
            ValueError: an active axis has no value, or the values do not fit together.
        """
        values: Params = {**self.fixed, **self.active(params)}
        values |= _complement(values)
        values["seed"] = self.seed if seed is None else seed
        return TrialConfig(**values, epochs=self.epochs if epochs is None else epochs)

    def key(self, params: Mapping[str, Any], *, seed: int | None = None) -> str:
        """What identifies a point: equal for two points exactly if they train the same. Without `seed`, up to it."""
        return self.to_config(params, seed=seed or 0).key()

    def cells(self) -> Iterator[Params]:
        """Every point of a finite space, conditional axes included, in order.

        Raises:
            ValueError: an axis is continuous.
        """
        if endless := [n for n in self.axes if self.axes[n].count(n) is None]:
            raise ValueError(f"the space is not finite: {endless[0]} is a range without step")
        yield from self._cells({}, self.order)

    def size(self) -> int | None:
        """How many different trials the space holds, or None if it has a continuous axis or very many conditions.

        Distinct configurations up to 5,000 cells; above that, cells.
        """
        if any(self.axes[n].count(n) is None for n in self.axes):
            return None
        free = [n for n in self.order if not self.axes[n].when and not any(n in a.when for a in self.axes.values())]
        rest = tuple(n for n in self.order if n not in free)
        cells = sum(1 for _ in itertools.islice(self._cells({}, rest), COUNTED_CELLS + 1))
        if cells > COUNTED_CELLS:
            return None
        count = cells * math.prod(self.axes[n].count(n) or 1 for n in free)
        return count if count > EXACT_SIZE_LIMIT else len({self.key(params) for params in self.cells()})

    def encoders(self) -> tuple[str, ...]:
        """The encoders that the space holds, in the file's order."""
        axis = self.axes.get("encoder")
        return tuple(axis.choices or ()) if axis else (self.constant("encoder"),)

    def baselines(self, encoders: tuple[str, ...] | None = None) -> list[Params]:
        """The paper's setting for each encoder, as points of the space.

        Loss 0.4 Dice + 0.6 IoU, batch 8, and `TrialConfig`'s defaults otherwise; what the file fixes stays fixed, and
        where an axis does not hold the paper's value, its nearest one is taken.
        """
        return [self._baseline(encoder) for encoder in encoders or self.encoders()]

    def _baseline(self, encoder: str) -> Params:
        params: Params = {}
        for name in self.order:
            if self.is_active(name, params):
                default = encoder if name == "encoder" else TrialConfig.model_fields[name].default
                params[name] = self.axes[name].nearest(name, default)
        return params

    def _parents(self, name: str) -> list[str]:
        return [setting for setting in self.axes[name].when if setting in self.axes]

    def _is_met(self, setting: str, allowed: tuple[Any, ...], params: Mapping[str, Any]) -> bool:
        if setting not in self.axes:
            return any(_same(self.constant(setting), value) for value in allowed)
        return setting in params and any(_same(params[setting], value) for value in allowed)

    def _cells(self, params: Params, left: tuple[str, ...]) -> Iterator[Params]:
        if not left:
            yield params
            return
        name, *rest = left
        values = self.axes[name].values(name) if self.is_active(name, params) else None
        for value in values or (None,):
            yield from self._cells(params if values is None else {**params, name: value}, tuple(rest))


def is_integer(name: str) -> bool:
    """Whether the field of `TrialConfig` is a whole number."""
    return TrialConfig.model_fields[name].annotation is int


def is_number(name: str) -> bool:
    """Whether the field of `TrialConfig` is a number, so that it can have a range."""
    annotation = TrialConfig.model_fields[name].annotation
    return annotation in (int, float) or float in get_args(annotation)


def numbers_of(space: Space, name: str) -> tuple[Any, ...]:
    """Every value a whole-number setting can have, its fixed value or default included where that applies."""
    axis = space.axes.get(name)
    values = (axis.values(name) or ()) if axis else ()
    return values if axis and not axis.when else tuple(dict.fromkeys(itertools.chain(values, (space.constant(name),))))


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a == b if isinstance(a, bool) or isinstance(b, bool) else bool(a == b)


def _complement(values: Mapping[str, Any]) -> Params:
    """The weight that the file does not name: 1 minus the one it names."""
    match "dice_weight" in values, "iou_weight" in values:
        case True, False:
            return {"iou_weight": round(1 - values["dice_weight"], 12)}
        case False, True:
            return {"dice_weight": round(1 - values["iou_weight"], 12)}
    return {}
