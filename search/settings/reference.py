"""The reference of `nas.yaml`, made from the settings' own declarations.

    python -m search.settings.reference    rewrites nas.schema.json beside it, and the reference in docs/nas_yaml.md

Editors that know JSON Schema complete and check a settings file whose first line is
`# yaml-language-server: $schema=search/settings/nas.schema.json`. Tests hold both files to the code.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cluster.pools import SHIPPED
from search.settings.config import StudyConfig
from search.settings.sections import METRICS, settings_class_in
from search.settings.space import AXES, Axis, is_number
from trainables.config import DECODERS, PAPER_ENCODERS, TrialConfig

ROOT = Path(__file__).resolve().parents[2]
SCHEMA_FILE = ROOT / "search" / "settings" / "nas.schema.json"
DOCS_FILE = ROOT / "docs" / "nas_yaml.md"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"
EXAMPLES = {"encoder": list(PAPER_ENCODERS), "decoder": list(DECODERS)}


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a settings file, its short forms included."""
    schema = StudyConfig.model_json_schema()
    schema["title"] = "nas.yaml of MammoSearch"
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    properties = schema["properties"]
    properties["space"] |= {"properties": {n: _axis_schema(n) for n in AXES}, "additionalProperties": False}
    properties["fixed"] |= {"properties": {n: _setting_schema(n) for n in AXES}, "additionalProperties": False}
    objective = properties["objective"]
    one = [{"enum": list(METRICS)}, objective.pop("items")]
    many = {"type": "array", "items": {"anyOf": one}, "minItems": objective.pop("minItems")}
    del objective["type"]
    objective["anyOf"] = [*one, many | {"maxItems": objective.pop("maxItems")}]
    pools = properties["pools"]
    pools["items"] = {"anyOf": [{"enum": list(SHIPPED)}, pools["items"]]}
    properties["placement"]["anyOf"].insert(0, {"type": "string", "description": "auto, or the name of a pool"})
    return schema


def markdown() -> str:
    """The tables of every key, section by section."""
    return "\n".join(_sections()).strip() + "\n"


def write() -> None:
    """Bring both files up to date."""
    SCHEMA_FILE.write_text(json.dumps(json_schema(), indent=1) + "\n")
    DOCS_FILE.write_text(with_reference(DOCS_FILE.read_text()))


def with_reference(text: str) -> str:
    """The page with its generated part made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{markdown()}\n{END}{after}"


def _setting_schema(name: str) -> dict[str, Any]:
    info = TrialConfig.model_fields[name]
    schema = TypeAdapter(info.annotation).json_schema()  # type: ignore[arg-type]
    examples = {"examples": EXAMPLES[name]} if name in EXAMPLES else {}
    return schema | {"description": _text(info)} | examples


def _axis_schema(name: str) -> dict[str, Any]:
    value = {key: part for key, part in _setting_schema(name).items() if key != "description"}
    choices = {"type": "array", "items": value, "minItems": 1}
    when = {"type": "object", "description": _text(Axis.model_fields["when"])}
    forms: list[dict[str, Any]] = [
        choices,
        {
            "type": "object",
            "properties": {"choices": choices, "when": when},
            "required": ["choices"],
            "additionalProperties": False,
        },
    ]
    if is_number(name):
        number = {"type": "number"}
        parts = {"low": number, "high": number, "step": number, "log": {"type": "boolean"}, "when": when}
        forms.append(
            {"type": "object", "properties": parts, "required": ["low", "high"], "additionalProperties": False}
        )
    return {"description": _text(TrialConfig.model_fields[name]), "anyOf": forms}


def _sections() -> Iterator[str]:
    yield from ("### The sections", "", *_table(StudyConfig), "")
    for name, info in StudyConfig.model_fields.items():
        if name != "space" and (model := settings_class_in(info.annotation)):
            yield from _section(name, model)
    yield from ("### An axis of `space`", "", _first_line(Axis), "", *_table(Axis), "")
    yield from ("### What `space` and `fixed` may name", "", *_table(TrialConfig, only=AXES), "")


def _section(path: str, model: type[BaseModel]) -> Iterator[str]:
    """A section's table, and those of the mappings inside it."""
    yield from (f"### `{path}`", "", _first_line(model), "", *_table(model), "")
    for name, info in model.model_fields.items():
        if inner := settings_class_in(info.annotation):
            yield from _section(f"{path}.{name}", inner)


def _table(model: type[BaseModel], only: tuple[str, ...] | None = None) -> Iterator[str]:
    yield from ("| key | values | default | meaning |", "|---|---|---|---|")
    for name, info in model.model_fields.items():
        if only is None or name in only:
            yield f"| `{name}` | {_values(info)} | {_default(info)} | {_text(info) or _about(info)} |"


def _values(info: FieldInfo) -> str:
    bounds = [str(m) for m in info.metadata if type(m).__name__ in ("Ge", "Gt", "Le", "Lt", "MultipleOf")]
    words = [re.sub(r"(\w+)\(\w+=(.*)\)", lambda m: f"{_BOUNDS[m[1]]} {m[2]}", bound) for bound in bounds]
    return ", ".join([_type(info.annotation), *words])


_BOUNDS = {"Ge": "at least", "Gt": "above", "Le": "at most", "Lt": "below", "MultipleOf": "a multiple of"}


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
    names = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`", type(None): "null", Any: "any"}
    return names.get(annotation, str(annotation))


def _default(info: FieldInfo) -> str:
    if info.is_required() or info.default is PydanticUndefined:
        return "required"
    value = info.default
    if isinstance(value, BaseModel) or (isinstance(value, list) and value and isinstance(value[0], BaseModel)):
        return "see below"
    return f"`{json.dumps(value)}`"


def _text(info: FieldInfo) -> str:
    return " ".join((info.description or "").split()).replace("|", "\\|")


def _about(info: FieldInfo) -> str:
    model = settings_class_in(info.annotation)
    return _first_line(model) if model else ""


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().split("\n\n")[0]


if __name__ == "__main__":
    write()
