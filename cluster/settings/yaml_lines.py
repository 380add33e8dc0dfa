"""YAML that remembers its lines: what a settings file says, and on which line each key stands.

PyYAML's nodes carry the marks; the loader below differs from `SafeLoader` in three points that catch people out:
`1e-3` is a number (YAML 1.1 reads a string), `on`, `off`, `yes` and `no` are words, and a date stays text. A key that
is given twice is reported instead of silently losing its first value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]
"""The way to a value: keys and list positions from the top of the file."""


@dataclass
class LinedYaml:
    """A parsed file: its value, the line (from 1) of every key and list item, and what is wrong with its syntax."""

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    mistakes: list[tuple[int, Path, str]] = field(default_factory=list)
    """(line, path, text) of a syntax error or of a key given twice."""

    def line(self, path: Path) -> int:
        """The line of a path; of the nearest thing around it where the path is not in the file; 1 at the top."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _Loader(yaml.SafeLoader):
    """`SafeLoader` with YAML 1.2's booleans and numbers, and without dates."""


_CHANGED = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag not in _CHANGED]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^(?:[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+.0123456789"),
)


def parse(text: str) -> LinedYaml:
    """Read one YAML document. Raises nothing: what is wrong stands in `mistakes`."""
    parsed = LinedYaml()
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            parsed.value = _value(loader, node, (), parsed)
    except yaml.MarkedYAMLError as error:
        parsed.mistakes.append((*_place(error), str(error.problem or error)))
    except yaml.YAMLError as error:
        parsed.mistakes.append((1, (), str(error)))
    finally:
        loader.dispose()
    return parsed


def _place(error: yaml.MarkedYAMLError) -> tuple[int, Path]:
    mark = error.problem_mark or error.context_mark
    return (mark.line + 1 if mark else 1), ()


def _value(loader: _Loader, node: yaml.Node, path: Path, parsed: LinedYaml) -> Any:
    parsed.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, path, parsed)
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*path, i), parsed) for i, item in enumerate(node.value)]
    return loader.construct_object(node)


def _mapping(loader: _Loader, node: yaml.MappingNode, path: Path, parsed: LinedYaml) -> dict[str, Any]:
    loader.flatten_mapping(node)
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        line = key_node.start_mark.line + 1
        inside = (*path, key)
        if key in result:
            parsed.mistakes.append((line, inside, f"given twice; first on line {parsed.lines[inside]}"))
            continue
        parsed.lines[inside] = line
        result[key] = _value(loader, value_node, inside, parsed)
    return result
