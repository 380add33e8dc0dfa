"""Settings against their model: every mistake in one message.

    config = validate(TrialConfig, read_settings(Path("trial.yaml")))

pydantic stops a model's own checks at the first mistaken field. So what is mistaken is taken out and the rest checked
again, until nothing new is found. When the model as a whole has been checked, what follows from a mistake taken out is
no mistake of its own, and only `also` is still asked.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from cluster.settings.listing import keys_at
from cluster.settings.problems import UNKNOWN_KEY, KeyPath, Problem, from_pydantic, not_one_of, together
from cluster.settings.source import NOTHING, Source, value_at

M = TypeVar("M", bound=BaseModel)

ROUNDS = 20
"""So often mistaken values are taken out and the rest is checked again; settings of people need two or three."""
MANY = 200
"""After so many mistakes no further ones are looked for."""


def validate(model: type[M], source: Source, *, also: Callable[[M], Iterable[Problem]] = lambda checked: ()) -> M:
    """What was written, as its model.

    Args:
        model: what the settings must be.
        source: what was written, and where.
        also: further checks, of what is left of the settings without the mistakes found so far.

    Raises:
        SettingsError: with every mistake, one a line: file and line or option, key, value, what is allowed.
    """
    if not isinstance(source.value, dict):
        nothing = Problem(
            (), "holds no settings", f"{', '.join(list(model.model_fields)[:3])}, ... as `key: value` lines"
        )
        raise source.error(source.problems or [nothing])
    checked, problems = _checked(model, source)
    if checked is not None:
        told = _and_around(p.path for p in problems)
        problems += [p for p in also(checked) if source.written(p.path) not in told]
    if problems := [*source.problems, *problems]:
        raise source.error(problems)
    assert checked is not None
    return checked


def _checked(model: type[M], source: Source) -> tuple[M | None, list[Problem]]:
    """The model of what is sound, or None, and all problems."""
    rest = _Rest(source)
    for problem in source.problems:
        rest.take_out(problem.path)
    told = _and_around(p.path for p in source.problems)
    problems: list[Problem] = []
    as_a_whole = False
    for _ in range(ROUNDS):
        try:
            return model.model_validate_json(json.dumps(rest.value), strict=True), problems
        except ValidationError as error:
            errors = error.errors(include_url=False)
        found = [p for one in errors for p in from_pydantic(one)]
        found = together([replace(p, path=rest.original(p.path)) for p in found])
        new = [p for p in found if p.path not in told and not as_a_whole]  # no mere consequences
        problems += [_with_legal_keys(model, p) for p in new[:MANY]] + new[MANY:]
        told |= _and_around(p.path for p in new)
        as_a_whole = as_a_whole or any(not one["loc"] for one in errors)
        places = [rest.original(tuple(one["loc"])) for one in errors] if not as_a_whole else [p.path for p in found]
        taken = [rest.take_out(place) for place in dict.fromkeys(places)]
        if len(problems) > MANY or not any(taken):
            break
    return None, problems


def _and_around(paths: Iterable[KeyPath]) -> set[KeyPath]:
    """The paths and those of all that they lie in."""
    return {path[:depth] for path in paths for depth in range(len(path) + 1)}


def _with_legal_keys(model: type[BaseModel], problem: Problem) -> Problem:
    """An unknown key with the keys that are known there, the closest first."""
    if problem.message != UNKNOWN_KEY:
        return problem
    *where, key = problem.path
    return not_one_of(problem.path, UNKNOWN_KEY, key, keys_at(model, tuple(where)))


class _Rest:
    """What is left of settings when mistaken values are taken out, under the paths that they had at first."""

    def __init__(self, source: Source) -> None:
        self.value = copy.deepcopy(source.value)
        self._source = source
        self._gone: dict[KeyPath, set[int]] = {}
        """Path of a list -> the positions that were taken out of it."""

    def original(self, path: KeyPath) -> KeyPath:
        """Where what now stands at `path` was written."""
        at_first: KeyPath = ()
        known: KeyPath = ()
        for step in path:
            if isinstance(step, int) and (gone := self._gone.get(known)):
                step = [i for i in range(step + len(gone) + 1) if i not in gone][step]
            at_first = (*at_first, step)
            known = (*known, step) if self._source.knows((*known, step)) else known
        return self._source.written(at_first)

    def take_out(self, path: KeyPath) -> bool:
        """Remove what was written at the path, or the innermost thing around it that is there; whether any was."""
        while path and value_at(self._now(path), self.value) is NOTHING:
            path = path[:-1]
        if not path:
            return False
        *around, last = self._now(path)
        del value_at(tuple(around), self.value)[last]
        if isinstance(last, int) and isinstance(path[-1], int):
            self._gone.setdefault(path[:-1], set()).add(path[-1])
        return True

    def _now(self, path: KeyPath) -> KeyPath:
        """Where what was written at the path stands now; a path that nothing has if it is gone."""
        now: KeyPath = ()
        for depth, step in enumerate(path):
            gone = self._gone.get(path[:depth], set())
            if step in gone:
                return (*now, "(gone)")
            now = (*now, step - sum(g < step for g in gone) if isinstance(step, int) else step)
        return now
