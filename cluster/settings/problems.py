"""Mistakes in settings, gathered: each with its place, its value, what was probably meant and what is allowed there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic_core import ErrorDetails, PydanticCustomError

KeyPath = tuple[str | int, ...]
"""The way to a value: keys and list positions from the top of the file."""
UNKNOWN_KEY = "unknown key"
LISTED_BESIDE, LISTED = 12, 40
"""The allowed words are listed beside the one that was probably meant if they are no more than the first; where none is
close, so many as the second."""


@dataclass(frozen=True)
class Problem:
    """One mistake: where, what, and what would be right."""

    path: KeyPath
    message: str
    allowed: str = ""
    line: int | None = None
    """The line, where it is not the one of the path."""
    meant: str = ""
    """The word that was probably meant."""

    def below(self, *prefix: str | int) -> Problem:
        """The same problem, its path begun by `prefix`."""
        return replace(self, path=(*prefix, *self.path))


def not_one_of(path: KeyPath, message: str, word: object, legal: Sequence[str]) -> Problem:
    """A word that is none of the legal ones: the closest of them, if one is close, and the list if it is short."""
    close = difflib.get_close_matches(str(word)[:80], legal, n=1)
    if close and len(legal) > LISTED_BESIDE:
        return Problem(path, message, meant=close[0])
    more = f" and {len(legal) - LISTED} more" if len(legal) > LISTED else ""
    return Problem(path, message, ", ".join(legal[:LISTED]) + more, meant=close[0] if close else "")


def raise_problems(*problems: Problem) -> None:
    """Inside a pydantic validator: raise all problems as one error, which `from_pydantic` takes apart again."""
    if problems:
        text = "; ".join(".".join(map(str, p.path)) + f" {p.message}; allowed: {p.allowed}" for p in problems)
        raise PydanticCustomError("problems", "{text}", {"text": text.strip(), "problems": problems})


def from_pydantic(error: ErrorDetails) -> Iterator[Problem]:
    """The problems in one of pydantic's errors."""
    context, path = error.get("ctx", {}), tuple(error["loc"])
    if error["type"] == "problems":
        yield from (problem.below(*path) for problem in context["problems"])
    elif error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        yield not_one_of(path, "not one of the choices", error["input"], choices)
    elif error["type"] in _WORDS:
        message, allowed = (words.format(**context) for words in _WORDS[error["type"]])
        yield Problem(path, message, allowed)
    else:
        yield Problem(path, error["msg"])


_WORDS = {
    "extra_forbidden": (UNKNOWN_KEY, ""),
    "missing": ("missing", ""),
    "greater_than": ("too small", "above {gt}"),
    "greater_than_equal": ("too small", "at least {ge}"),
    "less_than": ("too large", "below {lt}"),
    "less_than_equal": ("too large", "at most {le}"),
    "multiple_of": ("not a multiple of {multiple_of}", "multiples of {multiple_of}"),
    "int_parsing_size": ("too large", "fewer digits"),
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
    "string_too_long": ("too long", "at most {max_length} characters"),
    "too_short": ("too few", "at least {min_length}"),
    "too_long": ("too many", "at most {max_length}"),
    "value_error": ("{error}", ""),
}
"""pydantic's error type -> our words: what is wrong, and what is allowed."""


_KINDS = {message for kind, (message, _) in _WORDS.items() if kind.endswith("_type")}
_KINDS |= {"not one of the choices", "not finite"}


def together(problems: Sequence[Problem]) -> list[Problem]:
    """The problems of one round; what the branches of a union say of one value is one problem."""
    merged: dict[tuple[KeyPath, str], Problem] = {}
    for problem in problems:
        key = (problem.path, "" if problem.message in _KINDS else problem.message)
        before = merged.get(key, problem)
        allowed = " or ".join(dict.fromkeys(filter(None, (before.allowed, problem.allowed))))
        merged[key] = replace(before if before.message == "not finite" else problem, allowed=allowed)
    return list(merged.values())
