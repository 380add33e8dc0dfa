"""A parsed file against a JSON schema: every mistake with its place, not the first alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError

from cluster.settings.problems import UNKNOWN_KEY, Problem, not_one_of

FOLDER = Path(__file__).resolve().parent


def load(file: str) -> dict[str, Any]:
    """A schema of this package."""
    schema: dict[str, Any] = json.loads((FOLDER / file).read_text(encoding="utf-8"))
    return schema


def problems(value: Any, schema: Mapping[str, Any]) -> Iterator[Problem]:
    """What of a value is not as its schema (draft 7) says."""
    for error in Draft7Validator(dict(schema)).iter_errors(value):
        yield from _of(error)


def _of(error: ValidationError) -> Iterator[Problem]:
    path, wanted, instance = tuple(error.absolute_path), cast(Any, error.validator_value), cast(Any, error.instance)
    if error.validator == "anyOf" and error.context:  # what is wrong with the alternative that is nearest
        deepest = max(error.context, key=lambda inner: len(inner.absolute_path))
        yield from _of(deepest)
    elif error.validator == "additionalProperties":
        legal = list(cast(Any, error.schema).get("properties", {}))
        for key in instance:
            if key not in legal:
                yield not_one_of((*path, key), UNKNOWN_KEY, key, legal)
    elif error.validator == "required":
        for key in wanted:
            if key not in instance:
                yield Problem(path, f"{key} is missing")
    else:
        yield Problem(path, *_words(error))


def _words(error: ValidationError) -> tuple[str, str]:
    wanted = cast(Any, error.validator_value)
    match error.validator:
        case "type":
            return "of the wrong type", " or ".join(wanted) if isinstance(wanted, list) else str(wanted)
        case "enum":
            return "not one of the choices", ", ".join(map(str, wanted))
        case "minimum":
            return "too small", f"at least {wanted}"
        case "pattern":
            return "not of the right form", f"text that matches {wanted}"
        case "minItems":
            return "too few", f"at least {wanted}"
    return error.message, ""
