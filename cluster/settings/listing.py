"""The keys of a settings model, in words: for `--help`, and for the reference of `nas.yaml`.

for key in keys(TrialConfig): print(key.path, key.values, key.default, key.meaning)
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cluster.settings.problems import KeyPath

_BOUNDS = {"Ge": "at least", "Gt": "above", "Le": "at most", "Lt": "below", "MultipleOf": "a multiple of"}
_KINDS = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`", type(None): "null", Any: "any"}


@dataclass(frozen=True)
class Key:
    """One key of a settings model; `values` and `default` are marked up with backquotes."""

    path: str
    values: str
    default: str
    """As JSON; `required`, or `see below` for a section."""
    meaning: str
    model: type[BaseModel] | None
    """What is inside, where the key is a section."""


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """The keys of one mapping, in the order of the model."""
    for name, info in model.model_fields.items():
        inside = settings_class_in(info.annotation)
        meaning = " ".join((info.description or "").split()) or (first_line(inside) if inside else "")
        yield Key(prefix + name, _values(info), _default(info), meaning, inside)


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """The keys that `--set` can give: those of sections one by one, with a dot."""
    for key in keys(model, prefix):
        if key.model is not None and key.default == "see below":
            yield from leaves(key.model, f"{key.path}.")
        else:
            yield key


def settings_class_in(annotation: Any) -> type[BaseModel] | None:
    """The settings class in an annotation such as `list[Pool] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := settings_class_in(part))), None)


def keys_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys that the mapping at a path may have."""
    for step in path:
        if step in model.model_fields:
            model = settings_class_in(model.model_fields[str(step)].annotation) or model
    return list(model.model_fields)


def first_line(model: type[BaseModel]) -> str:
    """What a section is for."""
    return (model.__doc__ or "").strip().split("\n\n")[0]


def _values(info: FieldInfo) -> str:
    bounds = [str(m) for m in info.metadata if type(m).__name__ in _BOUNDS]
    words = [re.sub(r"(\w+)\(\w+=(.*)\)", lambda m: f"{_BOUNDS[m[1]]} {m[2]}", bound) for bound in bounds]
    return ", ".join([_type(info.annotation), *words])


def _type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part) for part in parts)
    if origin in (list, tuple):
        return f"list of {_type(parts[0])}"
    if origin is dict:
        return "mapping"
    if origin is not None and parts:
        return _type(parts[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return _KINDS.get(annotation, str(annotation))


def _default(info: FieldInfo) -> str:
    if info.is_required() or info.default is PydanticUndefined:
        return "required"
    value = info.default
    if isinstance(value, BaseModel) or (isinstance(value, list) and value and isinstance(value[0], BaseModel)):
        return "see below"
    return f"`{json.dumps(value)}`"
