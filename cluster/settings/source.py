"""Where settings were written: a file, `KEY=VALUE` words of the command line, or both.

    source = read_settings(Path("trial.yaml"), words=["learning_rate=3e-4"], options={"encoder": "vgg19"})
    config = validate(TrialConfig, source)      # cluster.settings.validate

Words and options go before the file. A mistake is told with its line in the file, or with the option's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.settings.problems import UNKNOWN_KEY, KeyPath, Problem
from cluster.settings.yaml_lines import parse

NOTHING = object()
"""Stands for "no value to show"."""
_AFTER_THE_FILE = 1_000_000
SHOWN = 50
"""So many mistakes are listed."""


class SettingsError(ValueError):
    """Settings with mistakes; the text lists all of them, one a line, with file, line and key."""


@dataclass
class Source:
    """Settings as they were written, and where each key stands."""

    name: str = "the settings"
    """The file, as it was named; what the text of an error calls the whole."""
    value: Any = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    """Path -> line of the file."""
    options: dict[KeyPath, str] = field(default_factory=dict)
    """Path -> option of the command line that gave it."""
    problems: list[Problem] = field(default_factory=list)
    """What is wrong with the form: syntax, keys given twice, words that are no `KEY=VALUE`."""

    def knows(self, path: KeyPath) -> bool:
        """Whether something was written at this path."""
        return path in self.lines or path in self.options

    def written(self, path: KeyPath) -> KeyPath:
        """The path as it was written: without the steps that only the long form of a setting has."""
        found: KeyPath = ()
        for step in path:
            if self.knows((*found, step)):
                found = (*found, step)
        missing = path[-1:] if path and found[-1:] != path[-1:] else ()
        return found + (missing if isinstance(value_at(found, self.value), dict) else ())

    def put(self, path: KeyPath, value: Any, option: str) -> None:
        """Lay a value of the command line over what the file says."""
        if path in self.options:
            self.problems.append(Problem(path, "given twice on the command line", "once"))
            return
        self.mark(path[:-1], option)
        at = self.value
        for step in path[:-1]:
            if isinstance(at, dict):
                at[step] = {} if at.get(step) is None else at[step]
                at = at[step]
        if isinstance(at, dict):
            self.lines = {known: line for known, line in self.lines.items() if known[: len(path)] != path}
            at[path[-1]] = value
            self.options |= {(*path, *inside): option for inside in _paths(value)}
        elif path[:-1]:
            self.problems.append(Problem(path[:-1], "not a mapping", "key: value lines"))

    def mark(self, path: KeyPath, option: str) -> None:
        """Note that an option named the path."""
        around = [path[:depth] for depth in range(1, len(path) + 1)]
        self.options |= {one: option for one in around if not self.knows(one)}

    def error(self, problems: Sequence[Problem]) -> SettingsError:
        """All problems as one error, one line each, in the file's order:
        `nas.yaml:12  budget.trials: too small (got 0); allowed: at least 1`.
        """
        placed = [(*self._place(problem), problem) for problem in problems]
        placed.sort(key=lambda item: item[0])
        lines = list(dict.fromkeys(self._line(where, path, problem) for _, where, path, problem in placed))
        count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        verb = "have" if self.name.endswith("settings") else "has"
        more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        return SettingsError("\n".join([f"{self.name} {verb} {count}:", *lines[:SHOWN], *more]))

    def _place(self, problem: Problem) -> tuple[int, str, KeyPath]:
        """A number to sort by, the file and line or the option, and the path as it was written."""
        path = self.written(problem.path)
        around = path
        while around and not self.knows(around):
            around = around[:-1]
        if problem.line is None and around in self.options:
            return _AFTER_THE_FILE + [*self.options].index(around), self.options[around], path
        line = problem.line or self.lines.get(around, 1)
        return line, f"{self.name}:{line}" if self.lines else "", path

    def _line(self, where: str, path: KeyPath, problem: Problem) -> str:
        key = ".".join(_cut(step, 60) if isinstance(step, str) else f"{step + 1}" for step in path) or "(the whole)"
        got = value_at(path, self.value)
        hidden = got is NOTHING or not path or problem.line or problem.message == UNKNOWN_KEY
        shown = "" if hidden else f" (got {_short(got)})"
        meant = f"; did you mean {problem.meant}?" if problem.meant else ""
        allowed = f"{'' if meant else ';'} allowed: {problem.allowed}" if problem.allowed else ""
        return f"{where}  {key}: {_cut(problem.message, 600)}{shown}{meant}{_cut(allowed, 800)}".replace("\n", "\\n")


def read_settings(file: Path | None, *, words: Sequence[str] = (), options: Mapping[str, Any] | None = None) -> Source:
    """What was written in a file and on the command line. What is wrong with its form stands in `problems`.

    Args:
        file: YAML; None: there is only the command line.
        words: `KEY=VALUE`, the key with dots for what is inside (`phantom.rows`), the value as YAML.
        options: key -> value of an option that stands for one setting (`--encoder`); None where it was not given.

    Raises:
        SettingsError: the file is not there or cannot be read; the text says what to do.
    """
    source = Source() if file is None else _read(file)
    for key, value in (options or {}).items():
        if value is not None:
            source.put(tuple(key.split(".")), value, f"--{key.rsplit('.', 1)[-1].replace('_', '-')}")
    for word in words:
        _put_word(source, word)
    return source


def _put_word(source: Source, word: str) -> None:
    key, equals, text = word.partition("=")
    path = tuple(key.strip().split("."))
    parsed = parse(text)
    if not equals or not all(path):
        source.options[(word,)] = "--set"
        source.problems.append(Problem((word,), "not of the form KEY=VALUE", "batch_size=8"))
    elif parsed.mistakes:
        source.mark(path, "--set")
        source.problems.append(
            Problem(path, f"{text[:60]!r}: {parsed.mistakes[0][2]}", "a value, in quotes if need be")
        )
    else:
        source.put(path, parsed.value, "--set")


def value_at(path: KeyPath, value: Any) -> Any:
    """The value at a path of nested dicts and lists, or `NOTHING`."""
    for step in path:
        in_list = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if not in_list and not (isinstance(value, dict) and step in value):
            return NOTHING
        value = value[step]
    return value


def read_text(file: Path) -> str:
    """A settings file's text.

    Raises:
        SettingsError: it is not there or cannot be read; the text says what to do.
    """
    try:
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise SettingsError(f"there is no file {file}; name the settings file that you mean") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{file}:{line}  byte {error.start + 1} is not UTF-8; save the file as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"{file} cannot be read: {reason}") from error


def _read(file: Path) -> Source:
    parsed = parse(read_text(file))
    problems = [Problem(path, text, line=line) for line, path, text in parsed.mistakes]
    empty = parsed.value is None and not problems
    lines = parsed.lines or {(): 1}
    return Source(str(file), {} if empty else parsed.value, lines, problems=problems)


def _paths(value: Any) -> Iterator[KeyPath]:
    """The paths of a value and of all that is inside it."""
    yield ()
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in inside:
        yield from ((step, *path) for path in _paths(part))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str).replace("Infinity", ".inf").replace("NaN", ".nan")
    return _cut(text, 60)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
