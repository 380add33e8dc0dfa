"""The reference of `nas.yaml`, made from the settings' own declarations.

    python -m search.settings.reference    rewrites nas.schema.json beside it, and the reference in docs/nas_yaml.md

Editors that know JSON Schema complete and check a settings file whose first line is
`# yaml-language-server: $schema=search/settings/nas.schema.json`. Tests hold both files to the code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from cluster.pools import SHIPPED
from cluster.settings.listing import first_line, keys
from search.settings.config import StudyConfig
from search.settings.sections import METRICS
from search.settings.space import AXES, FIXED_ONLY, Axis, is_number
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
    properties["space"] |= {
        "properties": {n: _axis_schema(n) for n in AXES if n not in FIXED_ONLY},
        "additionalProperties": False,
    }
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


def _text(info: FieldInfo) -> str:
    return " ".join((info.description or "").split())


def _sections() -> Iterator[str]:
    yield from ("### The sections", "", *_table(StudyConfig), "")
    for key in keys(StudyConfig):
        if key.path != "space" and key.model:
            yield from _section(key.path, key.model)
    yield from ("### An axis of `space`", "", first_line(Axis), "", *_table(Axis), "")
    yield from ("### What `space` and `fixed` may name", "", *_table(TrialConfig, only=AXES), "")


def _section(path: str, model: type[BaseModel]) -> Iterator[str]:
    """A section's table, and those of the mappings inside it."""
    yield from (f"### `{path}`", "", first_line(model), "", *_table(model), "")
    for key in keys(model):
        if key.model:
            yield from _section(f"{path}.{key.path}", key.model)


def _table(model: type[BaseModel], only: tuple[str, ...] | None = None) -> Iterator[str]:
    yield from ("| key | values | default | meaning |", "|---|---|---|---|")
    for key in keys(model):
        if only is None or key.path in only:
            meaning = key.meaning.replace("|", "\\|")
            yield f"| `{key.path}` | {key.values} | {key.default} | {meaning} |"


if __name__ == "__main__":
    write()
