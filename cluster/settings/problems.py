"""Mistakes in a settings file, gathered: each with its place, its value and what is allowed there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import ErrorDetails, PydanticCustomError

from cluster.settings.yaml_lines import LinedYaml, Path

NOTHING = object()
"""Stands for "no value to show"."""


@dataclass(frozen=True)
class Problem:
    """One mistake: where, what, and what would be right."""

    path: Path
    message: str
    allowed: str = ""
    line: int | None = None
    """The line, where it is not the one of the path."""

    def below(self, *prefix: str | int) -> Problem:
        """The same problem, its path begun by `prefix`."""
        return replace(self, path=(*prefix, *self.path))


def raise_problems(*problems: Problem) -> None:
    """Inside a pydantic validator: raise all problems as one error, which `from_pydantic` takes apart again."""
    if problems:
        text = "; ".join(".".join(map(str, p.path)) + f" {p.message}; allowed: {p.allowed}" for p in problems)
        raise PydanticCustomError("problems", "{text}", {"text": text.strip(), "problems": problems})


def from_pydantic(error: ErrorDetails) -> Iterator[Problem]:
    """The problems in one of pydantic's errors."""
    context = error.get("ctx", {})
    if error["type"] == "problems":
        yield from (problem.below(*error["loc"]) for problem in context["problems"])
        return
    message, allowed = _WORDS.get(error["type"], (error["msg"], ""))
    yield Problem(tuple(error["loc"]), message.format(**context), allowed.format(**context))


_WORDS = {
    "extra_forbidden": ("unknown key", ""),
    "missing": ("missing", ""),
    "literal_error": ("not one of the choices", "{expected}"),
    "greater_than": ("too small", "above {gt}"),
    "greater_than_equal": ("too small", "at least {ge}"),
    "less_than": ("too large", "below {lt}"),
    "less_than_equal": ("too large", "at most {le}"),
    "multiple_of": ("not a multiple of {multiple_of}", "multiples of {multiple_of}"),
    "int_type": ("not a whole number", "a whole number"),
    "int_from_float": ("not a whole number", "a whole number"),
    "finite_number": ("not finite", "a finite number"),
    "float_type": ("not a number", "a number"),
    "bool_type": ("neither true nor false", "true, false"),
    "string_type": ("not text", "text"),
    "list_type": ("not a list", "a list"),
    "tuple_type": ("not a list", "a list"),
    "dict_type": ("not a mapping", "key: value lines"),
    "model_type": ("not a mapping", "key: value lines"),
    "model_attributes_type": ("not a mapping", "key: value lines"),
    "string_pattern_mismatch": ("not of the right form", "text that matches {pattern}"),
    "string_too_short": ("empty", "text"),
    "too_short": ("too few", "at least {min_length}"),
    "too_long": ("too many", "at most {max_length}"),
    "value_error": ("{error}", ""),
}
"""pydantic's error type -> our words: what is wrong, and what is allowed."""


def render(problems: list[Problem], *, file: str, source: LinedYaml) -> str:
    """One line a problem, in the file's order: `nas.yaml:12  budget.trials: too small (got 0); allowed: at least 1`."""
    placed = []
    for problem in problems:
        path = in_file(problem.path, source)
        placed.append((problem.line or source.line(path), path, problem))
    placed.sort(key=lambda item: item[0])
    return "\n".join(_line(file, line, path, problem, source) for line, path, problem in placed)


def in_file(path: Path, source: LinedYaml) -> Path:
    """The path as the file writes it: without the steps that only the long form of a setting has."""
    written: Path = ()
    for step in path:
        if (*written, step) in source.lines:
            written = (*written, step)
    missing = path[-1:] if path and written[-1:] != path[-1:] else ()
    return written + (missing if isinstance(value_at(written, source.value), dict) else ())


def value_at(path: Path, value: Any) -> Any:
    """The value at a path of nested dicts and lists, or `NOTHING`."""
    for step in path:
        in_list = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if not in_list and not (isinstance(value, dict) and step in value):
            return NOTHING
        value = value[step]
    return value


def _line(file: str, line: int, path: Path, problem: Problem, source: LinedYaml) -> str:
    where = ".".join(str(step) if isinstance(step, str) else f"{step + 1}" for step in path) or "(the whole file)"
    got = value_at(path, source.value)
    shown = "" if got is NOTHING or not path or problem.line else f" (got {_short(got)})"
    allowed = f"; allowed: {problem.allowed}" if problem.allowed else ""
    return f"{file}:{line}  {where}: {problem.message}{shown}{allowed}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
