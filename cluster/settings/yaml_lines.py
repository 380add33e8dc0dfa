"""YAML that remembers its lines: what a settings file says, and on which line each key stands.

ruamel.yaml reads YAML 1.2, so `1e-3` is a number, `010` is ten, and `on`, `off`, `yes` and `1:30` are text; a date
stays text too. Every key that is given twice is reported. What a settings file never needs, and what would take memory
or time without end, is a mistake with its line: other tags, control characters, aliases that grow, very deep nesting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode
from ruamel.yaml.reader import ReaderError

from cluster.settings.problems import KeyPath

MAX_CHARACTERS = 100_000
MAX_VALUES = 5_000
"""Values of a file, those of an alias counted each time it is used."""
MAX_DEPTH = 40

_TAG = "tag:yaml.org,2002:"
_READ = ("str", "int", "float", "bool", "null", "seq", "map", "merge", "timestamp", "value")
"""The tags that are understood. A timestamp stays the text it is, and so does the value `=`."""
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass
class LinedYaml:
    """A parsed text: its value, the line (from 1) of every key and list item, and what is wrong with its form."""

    value: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    mistakes: list[tuple[int, KeyPath, str]] = field(default_factory=list)
    """(line, path, text) of a syntax error, of a key given twice, of a value that cannot be read."""

    def line(self, path: KeyPath) -> int:
        """The line of a path; of the nearest thing around it where the path is not in the text; 1 at the top."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _TooLargeError(Exception):
    """The text holds more than is read; the line where that is noticed, and what there is too much of."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(line, text)
        self.line, self.text = line, text


class _CountingComposer(Composer):
    """ruamel's composer, which stops where there are more values than a settings file can need."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self.count = 0
        self.warn_double_anchors = False

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.count += 1
        if self.count > 2 * MAX_VALUES:  # keys are nodes too
            raise _TooLargeError(self.parser.peek_event().start_mark.line + 1, f"more than {MAX_VALUES:,} values")
        return super().compose_node(parent, index)


def parse(text: str) -> LinedYaml:
    """Read one YAML document. Raises nothing: what is wrong stands in `mistakes`."""
    if len(text) > MAX_CHARACTERS:
        return LinedYaml(mistakes=[(1, (), f"{len(text):,} characters; at most {MAX_CHARACTERS:,} are read")])
    parsed = LinedYaml()
    reader = YAML(typ="safe", pure=True)
    reader.Composer, reader.max_depth = _CountingComposer, MAX_DEPTH
    try:
        node = reader.compose(text)
        if node is not None:
            parsed.value = _Values(reader.constructor, parsed).of(node, ())
    except _TooLargeError as error:
        parsed.mistakes.append((error.line, (), error.text))
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        parsed.mistakes.append((line, (), f"the character {_name(error.character)} has no place in a settings file"))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(str(error.problem or error.context).split()).split(", if necessary")[0]
        parsed.mistakes.append((mark.line + 1 if mark else 1, (), said))
    except (YAMLError, RecursionError, ValueError, AssertionError) as error:
        parsed.mistakes.append((1, (), f"cannot be read as YAML: {' '.join(str(error).split())[:200]}"))
    return parsed


class _Values:
    """Makes plain values of ruamel's nodes, and notes their lines and mistakes."""

    def __init__(self, constructor: Any, parsed: LinedYaml) -> None:
        self._constructor = constructor
        self._parsed = parsed
        self._above: set[int] = set()
        """The nodes that the present one lies in: an alias of one of them has no end."""
        self._count = 0

    def of(self, node: Node, path: KeyPath) -> Any:
        line = node.start_mark.line + 1
        self._parsed.lines.setdefault(path, line)
        self._count += 1
        if self._count > MAX_VALUES:
            raise _TooLargeError(
                self._parsed.line(path[:1]), f"more than {MAX_VALUES:,} values, its aliases written out"
            )
        if str(node.tag).removeprefix(_TAG) not in _READ:
            return self._mistake(line, path, f"the tag {str(node.tag).replace(_TAG, '!!')} is not understood")
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._above:
            return self._mistake(self._parsed.line(path), path, "an alias of what it stands in")
        self._above.add(id(node))
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, path)
            return [self.of(item, (*path, i)) for i, item in enumerate(node.value)]
        finally:
            self._above.remove(id(node))

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        line = node.start_mark.line + 1
        if found := _UNPRINTABLE.search(node.value):
            return self._mistake(line, path, f"holds the control character {_name(found[0])}")
        if str(node.tag).removeprefix(_TAG) in ("str", "timestamp", "value", "merge"):
            return node.value
        try:
            return self._constructor.construct_object(node)
        except (ValueError, KeyError, IndexError, AttributeError, OverflowError, YAMLError):
            kind = str(node.tag).replace(_TAG, "!!")
            return self._mistake(line, path, f"{node.value[:40]!r} cannot be read as {kind}")

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self._mistake(line, path, "a key that is no single word")
                continue
            key = key_node.value
            inside = (*path, key)
            if found := _UNPRINTABLE.search(key):
                self._mistake(line, path, f"a key holds the control character {_name(found[0])}")
            elif key in result:
                self._mistake(line, inside, f"given twice; first on line {self._parsed.lines[inside]}")
            elif str(key_node.tag) == _TAG + "merge":
                merged = self._merged(value_node, inside, line) | merged
            else:
                self._parsed.lines[inside] = line
                result[key] = self.of(value_node, inside)
        return merged | result

    def _merged(self, node: Node, path: KeyPath, line: int) -> dict[str, Any]:
        """What `<<: *one` or `<<: [*one, *two]` brings; of two, the first counts."""
        value = self.of(node, path)
        mappings = value if isinstance(value, list) else [value]
        if not all(isinstance(one, dict) for one in mappings):
            self._mistake(line, path, "only mappings can be merged")
            return {}
        found: dict[str, Any] = {}
        for one in mappings:
            found = one | found
        for key in found:
            self._parsed.lines.setdefault((*path[:-1], key), line)
        return found

    def _mistake(self, line: int, path: KeyPath, text: str) -> None:
        self._parsed.mistakes.append((line, path, text))


def _name(character: Any) -> str:
    """A character as it can be printed: U+001B."""
    return f"U+{character if isinstance(character, int) else ord(str(character)[0]):04X}"
