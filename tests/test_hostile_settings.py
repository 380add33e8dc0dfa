"""Whatever a settings file holds: it is taken, or refused with status 2 and the place of each mistake, and soon.

Every command that reads settings is called in this process. What it would do with good ones is replaced by noting them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from typer import Typer
from typer.testing import CliRunner

import cluster.run
import data_prep.run
import search
import search.run
import trainables
import trainables.run
from cluster.settings.listing import leaves
from data_prep.schema import BuildSettings
from search.settings.config import StudyConfig
from tests.file_tree import ROOT
from trainables.config import TrialConfig

LONGEST_S = 2.0
"""CPU seconds of one case: the file is refused, or taken, without a wait that a person would notice."""

Taken = list[BaseModel]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Taken:
    """The settings that commands took; nothing is done with them."""
    noted: Taken = []

    def note(wanted: BaseModel, *_: Any, **__: Any) -> None:
        noted.append(wanted)

    job = SimpleNamespace(dry=note, run=note)
    one = SimpleNamespace(train=note, measure_untrained=note)
    for package, name, stand_in in ((search, "job", job), (trainables, "train_one", one)):
        monkeypatch.setitem(sys.modules, f"{package.__name__}.{name}", stand_in)
        monkeypatch.setattr(package, name, stand_in, raising=False)
    build = SimpleNamespace(build=lambda wanted, *_, **__: noted.append(wanted))
    monkeypatch.setitem(sys.modules, "data_prep.build", build)
    monkeypatch.setitem(
        sys.modules, "data_prep.look.progress", SimpleNamespace(console_progress=contextlib.nullcontext)
    )
    monkeypatch.setitem(sys.modules, "data_prep.look.show", SimpleNamespace(card_text=lambda card, folder: ""))
    monkeypatch.chdir(tmp_path)
    return noted


def refused_or_taken(app: Typer, words: list[str], taken: Taken, *, place: str) -> str:
    """Calls a command; its message if it was refused, empty if it took the settings.

    Args:
        place: a pattern that each line after the first must match: where a mistake was made.
    """
    taken.clear()
    began = time.process_time()
    result = CliRunner().invoke(app, words)
    took_s = time.process_time() - began
    shown = repr(words)[:300]
    assert result.exception is None or isinstance(result.exception, SystemExit), (shown, repr(result.exception))
    assert took_s < LONGEST_S, f"{took_s:.1f} s: {shown}"
    assert "Traceback" not in result.output and "\x1b" not in result.output
    if result.exit_code == 0:
        assert all(math.isfinite(number) for one in taken for number in numbers_in(one.model_dump(mode="json"))), shown
        return ""
    assert result.exit_code == 2, (shown, result.output)
    lines = result.stderr.strip().splitlines()
    assert lines, shown
    for line in lines[1:] or lines:
        assert re.search(place, line) or re.fullmatch(r"\.\.\. and \d+ more", line), (shown, result.stderr)
    assert max(len(line) for line in lines) < 1500
    return result.stderr


def numbers_in(value: Any) -> Iterator[float]:
    """The numbers anywhere in nested lists and dicts."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from numbers_in(part)


VALUES = [
    ".inf",
    "-.inf",
    ".nan",
    "1e308",
    "1e400",
    "-1",
    "0",
    "1000000000000000000",
    "9" * 4400,
    "-0.0",
    "1e-320",
    "010",
    "1:30",
    "0x10",
    "yes",
    "true",
    "~",
    "''",
    "' '",
    "{}",
    "[]",
    "[[]]",
    "[~]",
    "[.nan]",
    "{a: 1}",
    "{low: 1, high: 1000000000000}",
    "{low: 0.0, high: 1.0, step: 1.0e-9}",
    "{low: .nan, high: .inf}",
    "{choices: [1], when: {nothing: 1}}",
    "{choices: []}",
    "2024-01-01",
    "!!timestamp 2024-01-01",
    "!!binary eA==",
    "!!bool maybe",
    "!!float x",
    "!!python/name:os.system",
    '"\\0"',
    '"\\ud83d"',
    '"\\x1b[31m"',
    "<script>",
    "../../../etc/passwd",
    "'%s%n{0}{x}'",
    "x" * 5000,
    "ünï😀",
]
"""What may stand where another value was meant."""

STUDY = "data: {build: {source: phantom}}\nspace: {encoder: [vgg19]}\n"
PLACE = r"^  \w\S+: |(s\.yaml|study\.yaml)(:\d+)?  \S|^(search|trainables|data_prep|cluster): \S+\.yaml|--set  \S"


def study_keys() -> list[str]:
    """Every key of a study, those in sections with a dot."""
    found = [key.path for key in leaves(StudyConfig)] + ["data.shards", "data.build"]
    found += [f"data.build.{key.path}" for key in leaves(BuildSettings)]
    found += [f"{section}.{name}" for section in ("space", "fixed") for name in TrialConfig.model_fields]
    found += [f"placement.{name}" for name in ("rule", "pool", "up_to_million")]
    return list(dict.fromkeys(found))


def nested(key: str, value: str) -> str:
    """`a.b` and a value as YAML, under the lines of a study that stays otherwise right."""
    section, _, inside = key.partition(".")
    body = value
    for step in reversed(inside.split(".") if inside else []):
        body = f"{{{step}: {body}}}"
    kept = [line for line in STUDY.splitlines() if not line.startswith(f"{section}:")]
    return "\n".join([*kept, f"{section}: {body}"]) + "\n"


@pytest.mark.parametrize("key", study_keys())
def test_any_value_at_any_key_of_a_study_is_taken_or_refused_with_its_line(key: str, taken: Taken) -> None:
    for value in VALUES[study_keys().index(key) % 3 :: 3] if "." in key else VALUES:
        Path("study.yaml").write_text(nested(key, value))
        refused_or_taken(search.run.app, ["--space", "study.yaml", "--dry-run"], taken, place=PLACE)


def test_any_value_in_a_pool_is_taken_or_refused_alike_for_study_and_cluster(taken: Taken) -> None:
    from cluster.pools import Pool

    for i, (name, value) in enumerate(itertools.product(Pool.model_fields, VALUES)):
        if i % 7:
            continue
        pool = f"{{name: mine, {name}: {value}}}" if name != "name" else f"{{name: {value}}}"
        Path("study.yaml").write_text(STUDY + f"pools: [{pool}]\n")
        said = refused_or_taken(search.run.app, ["--space", "study.yaml", "--dry-run"], taken, place=PLACE)
        words = ["check", str(ROOT / "cluster/files/gcp.yaml"), "--space", "study.yaml"]
        result = CliRunner().invoke(cluster.run.app, words)
        assert result.exit_code == 2  # gcp.yaml has no machine for the pool `mine`
        if "pools.1" in said:
            pools = [line for line in said.splitlines() if "pools.1" in line]
            assert pools == [line for line in result.stderr.splitlines() if "pools.1" in line]


FLAGS = {
    "trainables": (trainables.run.app, TrialConfig, ["--shards", "s", "--out", "o"], "--config"),
    "data_prep": (data_prep.run.app, BuildSettings, ["build", "--workers", "0"], "--settings"),
}


@pytest.mark.parametrize("command", FLAGS)
def test_any_value_is_taken_or_refused_from_a_file_and_from_the_command_line(command: str, taken: Taken) -> None:
    app, model, words, option = FLAGS[command]
    for key, value in itertools.islice(itertools.product([key.path for key in leaves(model)], VALUES), 0, None, 5):
        Path("s.yaml").write_text(nested(key, value).removeprefix(STUDY))
        from_file = refused_or_taken(app, [*words, option, "s.yaml"], taken, place=PLACE)
        from_word = refused_or_taken(app, [*words, "--set", f"{key}={value}"], taken, place=PLACE)
        assert bool(from_file) == bool(from_word), (key, value, from_file, from_word)


WHOLE = [
    "",
    "# nothing\n",
    "~\n",
    "just words\n",
    "5\n",
    "- a\n- b\n",
    "data\n",
    "{}\n",
    "\x00",
    "\x1b[31mred",
    "\ufeff" + STUDY + "bugdet: 1\n",
    STUDY.replace("\n", "\r\n") + "bugdet: 1\r\n",
    STUDY.replace("\n", "\r") + "bugdet: 1\r",
    "a: b: c\n",
    "\tdata: 1\n",
    "data: [\n",
    "data: {shards: x\nspace: {}\n",
    STUDY + STUDY,
    STUDY + "---\n" + STUDY,
    STUDY + "...\nmore\n",
    "%YAML 1.1\n---\n" + STUDY + "budget: {trials: yes}\n",
    "%YAML 7.0\n---\n" + STUDY,
    "%FOO bar\n---\nx: 1\n",
    "&a [*a]\n",
    "&a {data: *a, space: *a}\n",
    "space: &s {encoder: *s}\n",
    "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in itertools.pairwise("abcdefghi")),
    "[" * 5000,
    "[" * 1200 + "]" * 1200,
    "{a: " * 1200 + "1" + "}" * 1200,
    "\n".join(" " * i + "a:" for i in range(1200)),
    "data: " + "x" * 10_000_000,
    "space: {encoder: [" + ",".join(f"e{i}" for i in range(20_000)) + "]}\n",
    "data: {shards: .}\nspace: {encoder: [" + ",".join(f"e{i}" for i in range(4_000)) + "]}\n",
    "data: {shards: .}\nspace: {encoder: [vgg19], learning_rate: [" + ",".join(["0.1"] * 5_000) + "]}\n",
    "data: {shards: .}\nspace: {learning_rate: [" + ",".join(f"{i}.5" for i in range(900)) + "]}\n",
    "".join(f"k{i}: 1\n" for i in range(9_000)),
    "data: {shards: .}\npools: [" + ",".join(["{}"] * 3_000) + "]\nspace: {}\n",
    "space: {" + ",".join(f"k{i}: 1" for i in range(3_000)) + "}\ndata: {shards: .}\n",
    "data: {shards: .}\nspace: {"
    + ",".join(f"k{i}: {{low: 2, high: 1, when: {{k{i + 1}: 1}}}}" for i in range(500))
    + "}\n",
    "data: {shards: .}\nspace: {batch_size: {low: 1, high: 4096}, accumulation: {low: 1, high: 4096}}\n",
    "data: {shards: .}\nspace: {batch_size: {low: 4096, high: 65536, step: 4096}, accumulation: [1, 2, 3]}\n",
    "data: {shards: .}\nspace: {optimiser: {choices: [adam], when: {schedule: step}}, schedule: {choices: [step], "
    "when: {optimiser: adam}}}\n",
    "data: {shards: .}\nspace: {encoder: [vgg19]}\nobjective: [val_dice, usd, parameters, epoch_s]\n",
    "data: {shards: .}\nspace: {encoder: [vgg19]}\nbaselines: [1, 2]\n",
    "data: {shards: .}\nspace: {encoder: [vgg19]}\nplacement: {rule: by_size, up_to_million: {cpu: -1, x: .nan}}\n",
    "data: {build: {kinds: [], normalisations: []}}\nspace: {encoder: [vgg19]}\n",
    "data: {build: {source: pairs}}\nspace: {encoder: [vgg19]}\n",
    "data: {shards: .}\nspace: {encoder: [vgg19]}\nwarm_start: [/nowhere]\n",
    "data: {shards: .}\nspace: {encoder: ['', ' ', '../x', 'hf-hub:a/b', 'tu-hf-hub:a/b', 'tu-local-dir:/etc']}\n",
    "data: {shards: ~nobody-here/x}\nspace: {encoder: [vgg19]}\n",
    "? {a: 1}\n: x\n",
    "? [a]\n: x\n",
    "1: 2\ntrue: 3\n~: 4\n1.5: 6\n",
    '"a\\nb": 1\n',
    "'': 1\n",
    "<<: {data: 1}\n",
    "<<: 5\n",
]
"""Files that are wrong as a whole."""


@pytest.mark.parametrize("number", range(len(WHOLE)))
def test_a_file_that_is_wrong_as_a_whole_is_refused_by_every_command(number: int, taken: Taken) -> None:
    Path("s.yaml").write_bytes(WHOLE[number].encode("utf-8", "surrogatepass"))
    assert refused_or_taken(search.run.app, ["--space", "s.yaml"], taken, place=PLACE)
    refused_or_taken(search.run.app, ["--space", "s.yaml", "--dry-run"], taken, place=PLACE)
    refused_or_taken(trainables.run.app, ["--shards", "s", "--out", "o", "--config", "s.yaml"], taken, place=PLACE)
    refused_or_taken(data_prep.run.app, ["build", "--settings", "s.yaml"], taken, place=PLACE)
    refused_or_taken(cluster.run.app, ["check", "s.yaml"], taken, place=PLACE)


@pytest.mark.parametrize("content", [b"a: \xff\n", b"\xff\xfe" + "data: 1".encode("utf-16-le"), b"\xc3", b"\x80" * 100])
def test_bytes_that_are_no_text_are_refused(content: bytes, taken: Taken) -> None:
    Path("s.yaml").write_bytes(content)
    for app, words in everywhere("s.yaml"):
        assert "is not UTF-8" in refused_or_taken(app, words, taken, place=PLACE)


def everywhere(file: str) -> list[tuple[Typer, list[str]]]:
    """Every command that reads a settings file, reading this one."""
    return [
        (search.run.app, ["--space", file, "--dry-run"]),
        (trainables.run.app, ["--shards", "s", "--out", "o", "--config", file]),
        (data_prep.run.app, ["build", "--settings", file]),
        (cluster.run.app, ["check", file]),
    ]


SHIPPED = {
    str(file.relative_to(ROOT)): file.read_text()
    for file in [
        ROOT / "nas.yaml",
        *sorted((ROOT / "configs").glob("*.yaml")),
        *sorted((ROOT / "cluster/files").glob("*")),
    ]
}
WORDS = sorted({word for text in SHIPPED.values() for word in re.findall(r"[\w.]+|[^\w\s]", text)} | set(VALUES[:20]))


@st.composite
def changed(draw: st.DrawFn) -> tuple[str, str]:
    """A shipped file in which some lines and words were taken out, doubled, moved or put in another's place."""
    name = draw(st.sampled_from(sorted(SHIPPED)))
    lines = SHIPPED[name].splitlines()
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        parts = re.split(r"(\W)", lines[at])
        word = draw(st.integers(0, len(parts) - 1))
        kind = draw(st.sampled_from(["drop", "double", "indent", "word", "word", "word", "cut", "swap"]))
        if kind == "drop":
            del lines[at]
        elif kind == "double":
            lines.insert(at, lines[at])
        elif kind == "indent":
            lines[at] = " " * draw(st.integers(0, 6)) + lines[at].lstrip()
        elif kind == "word":
            parts[word] = draw(st.sampled_from(WORDS))
            lines[at] = "".join(parts)
        elif kind == "cut":
            lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
        else:
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        lines = lines or [""]
    return name, "\n".join(lines) + "\n"


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(changed())
def test_a_shipped_file_with_slips_is_taken_or_refused_with_its_line(taken: Taken, case: tuple[str, str]) -> None:
    name, text = case
    Path("s.yaml").write_text(text)
    if name.startswith("cluster/"):
        refused_or_taken(cluster.run.app, ["check", "s.yaml"], taken, place=PLACE)
    else:
        refused_or_taken(search.run.app, ["--space", "s.yaml", "--dry-run"], taken, place=PLACE)


def test_what_is_taken_is_what_was_written(taken: Taken) -> None:
    """A value that passes means what it says: it comes back from the settings as YAML 1.2 has it."""
    for text, value in (("010", 10), ("0x10", 16), ("1_000", 1000), ("7", 7)):
        Path("s.yaml").write_text(STUDY + f"budget: {{trials: {text}}}\n")
        assert refused_or_taken(search.run.app, ["--space", "s.yaml", "--dry-run"], taken, place=PLACE) == ""
        assert json.loads(taken[0].model_dump_json())["budget"]["trials"] == value


def test_there_are_enough_cases() -> None:
    keys = study_keys() + [key.path for _, model, _, _ in FLAGS.values() for key in leaves(model)]
    assert len(VALUES) * len(keys) // 5 + len(WHOLE) > 500
