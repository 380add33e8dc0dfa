"""Settings are read as YAML 1.2 with their lines, and every mistake is told where it was written."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator
from ruamel.yaml import YAML

from cluster.pools import SHIPPED, parse_pools
from cluster.settings.problems import Problem, raise_problems
from cluster.settings.source import SettingsError, read_settings
from cluster.settings.validate import validate
from cluster.settings.yaml_lines import MAX_CHARACTERS, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E4", 10000.0),
        (".5", 0.5),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", 1000),
        ("-.inf", float("-inf")),
        ("1:30", "1:30"),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("true", True),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01 10:00:00", "2024-01-01 10:00:00"),
        ("~", None),
        ("", None),
        ("'010'", "010"),
        ("=", "="),
        ("é", "é"),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    parsed = parse(f"a: {text}\n")
    assert parsed.mistakes == []
    assert parsed.value == {"a": value} and type(parsed.value["a"]) is type(value)


def test_every_key_and_item_has_its_line() -> None:
    parsed = parse("# first\na:\n  - x\n  - {b: 1,\n     c: 2}\nd: 3\n")
    lines = {(): 2, ("a",): 2, ("a", 0): 3, ("a", 1): 4, ("a", 1, "b"): 4, ("a", 1, "c"): 5, ("d",): 6}
    assert parsed.lines == lines
    assert parsed.line(("a", 1, "nothing")) == 4


def test_merged_keys_are_read_and_the_own_ones_win() -> None:
    parsed = parse("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {x: 5, z: 1}]}\n")
    assert parsed.mistakes == []
    assert parsed.value["b"] == {"x": 1, "y": 3}
    assert parsed.value["c"] == {"x": 1, "y": 2, "z": 1}


LETTERS = "abcdefghi"
BOMB = "\n".join(f"{one}: &{one} [{', '.join([f'*{before}'] * 9)}]" for before, one in itertools.pairwise(LETTERS))
MERGE_BOMB = "\n".join(
    f"{one}: &{one} {{<<: [{', '.join([f'*{before}'] * 9)}], k{one}: 1}}" for before, one in itertools.pairwise(LETTERS)
)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: \x00\n", 2, "U+0000"),
        ("a: 1\nb: \x1b[0m\n", 2, "U+001B"),
        ('a: 1\nb: "\\x07"\n', 2, "U+0007"),
        ('a: 1\nb: "\\ud800"\n', 2, "U+D800"),
        ('a: 1\n"\\x00": 1\n', 2, "U+0000"),
        ("\ta: 1\n", 1, "cannot start any token"),
        ("a: [1\nb: 2\n", 2, "expected"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: *b\n", 1, "undefined alias"),
        ("a: 1\nb: 2\na: 3\n", 3, "given twice; first on line 1"),
        ("a: {x: 1, x: 1}\n", 1, "given twice"),
        ("x: 1\na: !!bool maybe\n", 2, "'maybe' cannot be read as !!bool"),
        ("a: !!int abc\n", 1, "cannot be read as !!int"),
        ("a: !!float x\n", 1, "cannot be read as !!float"),
        ("a: !!binary eA==\n", 1, "the tag !!binary is not understood"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "is not understood"),
        ("a: !mine x\n", 1, "the tag !mine is not understood"),
        ("a: !!set {x}\n", 1, "the tag !!set is not understood"),
        ("a: 0x_\n", 1, "cannot be read as !!int"),
        (f"a: {'9' * 5000}\n", 1, "cannot be read as !!int"),
        ("a: &a [*a]\n", 1, "an alias of what it stands in"),
        ("a: &a {b: *a}\n", 1, "an alias of what it stands in"),
        ("a: &a {<<: *a}\n", 1, "an alias of what it stands in"),
        ("a: {<<: 5}\n", 1, "only mappings can be merged"),
        ("? [a]\n: 1\n", 1, "no single word"),
        ("a: &a [x]\n" + BOMB, 5, "more than 5,000 values"),
        ("a: &a {x: 1}\n" + MERGE_BOMB, 5, "more than 5,000 values"),
        ("[" * 1200 + "]" * 1200, 1, "depth"),
        ("\n".join(" " * i + "a:" for i in range(400)), 40, "depth"),
        ("a: " + "[{" * 20_000, 1, "depth"),
        ("a: [" + "1," * 30_000 + "]", 1, "more than 5,000 values"),
        ("a: " + "x" * 10_000_000, 1, "characters"),
        ("a:\n" + "".join(f"- {i}\n" for i in range(9_000)), 5_002, "more than 5,000 values"),
        ("%YAML 3.0\n---\na: 1\n", 1, "incompatible"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_what_cannot_be_read_is_told_with_its_line_and_soon(text: str, line: int, said: str) -> None:
    began = time.process_time()
    parsed = parse(text)
    assert time.process_time() - began < 2
    assert any(said in mistake[2] for mistake in parsed.mistakes), parsed.mistakes
    found = next(mistake[0] for mistake in parsed.mistakes if said in mistake[2])
    assert abs(found - line) <= (0 if line < 1000 else 10_000)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#%@,? \n\t0.e~<"), max_size=60))
def test_no_text_is_too_strange_to_be_read(text: str) -> None:
    parsed = parse(text)
    for line, _, said in parsed.mistakes:
        assert line >= 1 and said
    if not parsed.mistakes and "<<" not in text:
        plain = YAML(typ="safe", pure=True)
        plain.version = (1, 2)
        assert (plain.load(text) is None) == (parsed.value is None)


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    size: int = Field(default=1, ge=1, le=8)
    ratio: float | int = 0.5
    kind: Literal["round", "square"] = "round"


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str
    inner: Inner = Inner()
    many: list[Inner] = []
    few: tuple[Annotated[int, Field(ge=0)], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Outer:
        if self.inner.size == 7:
            raise_problems(Problem(("inner", "size"), "unlucky", "another"))
        return self


def told(tmp_path: Path, text: str, **more: Any) -> list[str]:
    """The lines of the message about a file, without the first."""
    file = tmp_path / "s.yaml"
    file.write_text(text)
    also = more.pop("also", lambda checked: ())
    with pytest.raises(SettingsError) as caught:
        validate(Outer, read_settings(file, **more), also=also)
    head, *lines = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
    assert head == ("s.yaml has 1 mistake:" if len(lines) == 1 else f"s.yaml has {len(lines)} mistakes:")
    return lines


def test_all_mistakes_come_in_one_message_in_the_files_order(tmp_path: Path) -> None:
    text = "name: 3\ninner:\n  siez: 3\n  ratio: x\n  kind: rond\nmany: [{size: 0}, {size: 3}, {size: 9}]\n"
    assert told(tmp_path, text) == [
        "s.yaml:1  name: not text (got 3); allowed: text",
        "s.yaml:3  inner.siez: unknown key; did you mean size? allowed: size, ratio, kind",
        's.yaml:4  inner.ratio: not a whole number (got "x"); allowed: a number or a whole number',
        's.yaml:5  inner.kind: not one of the choices (got "rond"); did you mean round? allowed: round, square',
        "s.yaml:6  many.1.size: too small (got 0); allowed: at least 1",
        "s.yaml:6  many.3.size: too large (got 9); allowed: at most 8",
    ]


def test_what_a_model_finds_as_a_whole_is_told_beside_mistakes_of_fields(tmp_path: Path) -> None:
    assert told(tmp_path, "name: x\ninner: {size: 7}\nfew: [1, -2, 3, -4]\n") == [
        "s.yaml:2  inner.size: unlucky (got 7); allowed: another",
        "s.yaml:3  few.2: too small (got -2); allowed: at least 0",
        "s.yaml:3  few.4: too small (got -4); allowed: at least 0",
    ]


def test_further_checks_see_what_is_sound(tmp_path: Path) -> None:
    seen = []

    def also(outer: Outer) -> list[Problem]:
        seen.append(outer)
        return [
            Problem(("many", 1, "kind"), "round ones are gone", "square"),
            Problem(("inner", "size"), "told already"),
        ]

    text = "name: x\ninner: {size: 9}\nmany: [{size: 0}, {kind: round}]\n"
    assert told(tmp_path, text, also=also) == [
        "s.yaml:2  inner.size: too large (got 9); allowed: at most 8",
        "s.yaml:3  many.1.size: too small (got 0); allowed: at least 1",
        's.yaml:3  many.2.kind: round ones are gone (got "round"); allowed: square',
    ]
    assert [len(outer.many) for outer in seen] == [2]


def test_positions_stay_those_of_the_file_when_items_before_were_taken_out(tmp_path: Path) -> None:
    class Listed(BaseModel):
        items: list[Annotated[int, Field(ge=0)]]

        @model_validator(mode="after")
        def _check(self) -> Listed:
            raise_problems(*(Problem(("items", i), "five") for i, item in enumerate(self.items) if item == 5))
            return self

    (tmp_path / "s.yaml").write_text("items:\n- -1\n- 1\n- -2\n- 5\n- 2\n")
    with pytest.raises(SettingsError) as caught:
        validate(Listed, read_settings(tmp_path / "s.yaml"))
    assert [line.rsplit("/", 1)[1] for line in str(caught.value).splitlines()[1:]] == [
        "s.yaml:2  items.1: too small (got -1); allowed: at least 0",
        "s.yaml:4  items.3: too small (got -2); allowed: at least 0",
        "s.yaml:5  items.4: five (got 5)",
    ]


def test_words_and_options_lie_over_the_file_and_are_named(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: x\ninner: {size: 3, ratio: 1.5}\n")
    source = read_settings(tmp_path / "s.yaml", words=["inner.size=4", "few=[1, 2]"], options={"name": "y: z"})
    outer = validate(Outer, source)
    assert (outer.name, outer.inner.size, outer.inner.ratio, outer.few) == ("y: z", 4, 1.5, (1, 2))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inner.size=0"], "--set  inner.size: too small (got 0); allowed: at least 1"),
        (["inner.siez=0"], "--set  inner.siez: unknown key; did you mean size? allowed: size, ratio, kind"),
        (["inner.ratio=.inf"], "--set  inner.ratio: not finite"),
        (["few=[1, -1]"], "--set  few.2: too small (got -1); allowed: at least 0"),
        (["inner.size"], "--set  inner.size: not of the form KEY=VALUE"),
        (["=3"], "--set  =3: not of the form KEY=VALUE"),
        ([".=3"], "--set  .=3: not of the form KEY=VALUE"),
        (["inner.size=[1"], "--set  inner.size: '[1': "),
        (["inner.size=1", "inner.size=2"], "--set  inner.size: given twice on the command line"),
        (["name.first=1"], "s.yaml:1  name: not a mapping"),
        (["inner=3"], "--set  inner: not a mapping (got 3)"),
        (["inner={size: 0}"], "--set  inner.size: too small (got 0)"),
        (["name=!!binary eA=="], "the tag !!binary"),
    ],
)
def test_a_mistaken_word_is_told_as_one(tmp_path: Path, words: list[str], said: str) -> None:
    (line,) = told(tmp_path, "name: x\n", words=words)
    assert line.startswith(said) if not said.startswith("the tag") else said in line


def test_without_a_file_only_the_key_is_named() -> None:
    with pytest.raises(SettingsError) as caught:
        validate(Outer, read_settings(None))
    assert str(caught.value) == "the settings have 1 mistake:\n  name: missing"


def test_a_file_that_is_not_there_or_no_text_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no file .*none\.yaml"):
        read_settings(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        read_settings(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("a: 1\nb: \xe9\n".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"latin\.yaml:2  byte 9 is not UTF-8; save the file as UTF-8"):
        read_settings(tmp_path / "latin.yaml")
    (tmp_path / "bom.yaml").write_bytes("\ufeffname: x\n".encode())
    assert validate(Outer, read_settings(tmp_path / "bom.yaml")).name == "x"


def test_many_mistakes_are_counted_and_the_first_listed_and_it_takes_no_time(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: x\n" + "".join(f"k{i}: 1\n" for i in range(4_000)))
    began = time.process_time()
    with pytest.raises(SettingsError) as caught:
        validate(Outer, read_settings(tmp_path / "s.yaml"))
    assert time.process_time() - began < 4
    lines = str(caught.value).splitlines()
    assert "has 4000 mistakes" in lines[0] and lines[-1] == "... and 3950 more"
    assert len(lines) == 52


def test_a_message_is_no_longer_than_its_mistakes(tmp_path: Path) -> None:
    (line,) = told(tmp_path, f"name: [{'x' * (MAX_CHARACTERS - 50)}]\n")
    assert len(line) < 200


@pytest.mark.parametrize(
    ("pools", "said"),
    [
        ("[v100]", 's.yaml:1  pools.1: unknown pool (got "v100"); did you mean p100?'),
        ("[{name: t4, worker: 2}]", "s.yaml:1  pools.1.worker: unknown key; did you mean workers?"),
        ("[5]", "s.yaml:1  pools.1: not a mapping (got 5)"),
        ("[{workers: 2}]", "s.yaml:1  pools.1.name: missing"),
        ("[cpu, cpu]", 's.yaml:1  pools.2: listed twice (got "cpu")'),
        ("[]", "s.yaml:1  pools: too few"),
        ("{}", "s.yaml:1  pools: not a list"),
        ("[{name: mine, workers: .inf}]", "s.yaml:1  pools.1.workers: not"),
        ("[{name: mine, usd_per_hour: .nan}]", "s.yaml:1  pools.1.usd_per_hour: not finite"),
        ("[{name: mine, workers: 1000000000000000000}]", "s.yaml:1  pools.1.workers: too large"),
    ],
)
def test_pools_are_read_alike_for_a_study_and_for_a_cluster(tmp_path: Path, pools: str, said: str) -> None:
    (tmp_path / "s.yaml").write_text(f"pools: {pools}\nspace: whatever\n")
    with pytest.raises(SettingsError) as caught:
        parse_pools(read_settings(tmp_path / "s.yaml"))
    assert str(caught.value).splitlines()[1].replace(f"{tmp_path}/", "").startswith(said)


def test_a_study_without_pools_has_the_cpu(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("data: 1\n")
    assert parse_pools(read_settings(tmp_path / "s.yaml")) == [SHIPPED["cpu"]]
