"""Command lines that are wrong end with status 2, one message that says what is wrong, and nothing begun.

All are called in this process. Torch is imported for few of them, Ray for none.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

import cluster.run
import data_prep.run
import mammosearch.run
import results.run
import search.run
import trainables.run

APPS: dict[str, Typer] = {
    "cluster": cluster.run.app,
    "data_prep": data_prep.run.app,
    "mammosearch": mammosearch.run.app,
    "results": results.run.app,
    "search": search.run.app,
    "trainables": trainables.run.app,
}
LONGEST_S = 2.0
"""CPU seconds of one line."""

PATHS = [
    "nofile",
    "~nobody-here/x",
    "",
    " ",
    "a\x1b[31mb",
    "x\ny",
    "\udcffx",
    "/dev/null/x",
    "/proc/self/mem/x",
    "a" * 300,
    "ab/" * 1500,
    "s3://",
    "s3:/bucket/x",
    "gs:bucket",
    "ftp://host/x",
    "http://host/x",
    "file:///nowhere/x",
    "://x",
    "%00",
    "nofile?x=1",
    "-",
]
"""What is no file and no folder."""

TAKES_A_PATH = [
    "results table {}",
    "results figures {}",
    "results report {}",
    "data_prep inspect {}",
    "data_prep report {}",
    "data_prep figure {}",
    "data_prep build --settings {}",
    "data_prep build --source pairs --workers 0 --root {}",
    "data_prep build --source cbis_ddsm --workers 0 --root {}",
    "data_prep amdahl --settings {}",
    "search --space {}",
    "search --dry-run --space {}",
    "search --resume --space {}",
    "trainables --shards s --out o --config {}",
    "cluster check {}",
    "cluster check nofile --space {}",
    "cluster launch {} --space nas.yaml --out runs/x",
]
"""Command lines in which the braces stand for a path that must be there."""

LINES = """
search
search nas.yaml
search --spaces nas.yaml
search --space
search --space good.yaml --max-usd -1
search --space good.yaml --max-usd nan
search --space good.yaml --max-usd inf
search --space good.yaml --max-usd ten
search --space good.yaml --max-usd 1e400
search --space good.yaml --verify-resume 0
search --space good.yaml --verify-resume x
search --space good.yaml --out
search --space wrong.yaml
search --space wrong.yaml --dry-run
search --space wrong.yaml --resume
search --space wrong.yaml --reproduce 0001
search --space wrong.yaml --verify-resume 3
search --space a_folder
search --space good.yaml --dryrun
trainables
trainables --shards s
trainables --out o
trainables --shards s --out o --set
trainables --shards s --out o --set x
trainables --shards s --out o --set =
trainables --shards s --out o --set learning_rate=
trainables --shards s --out o --set learning_rate=fast
trainables --shards s --out o --set learning_rate=.nan
trainables --shards s --out o --set learning_rate=-1
trainables --shards s --out o --set learning_rate=[1]
trainables --shards s --out o --set learning_rate.low=1
trainables --shards s --out o --set learningrate=1
trainables --shards s --out o --set batch_size=1000000000000000000
trainables --shards s --out o --set batch_size=8.5
trainables --shards s --out o --set batch_size=9 --set accumulation=2
trainables --shards s --out o --set batch_size=1:30
trainables --shards s --out o --set batch_size=!!binary
trainables --shards s --out o --set epochs=0
trainables --shards s --out o --set epochs=1 --set epochs=2
trainables --shards s --out o --set warmup_epochs=10
trainables --shards s --out o --set encoder=mobilnet
trainables --shards s --out o --set encoder=
trainables --shards s --out o --set encoder=[vgg19]
trainables --shards s --out o --encoder mobilnet
trainables --shards s --out o --encoder hf-hub:someone/model
trainables --shards s --out o --encoder vgg19 --set encoder=vgg16
trainables --shards s --out o --set decoder=unett
trainables --shards s --out o --set optimiser=adma
trainables --shards s --out o --set dice_weight=0 --set iou_weight=0
trainables --shards s --out o --set dice_weight=1e308
trainables --shards s --out o --set seed=-1
trainables --shards s --out o --set *x=1
trainables --shards s --out o --set batch_size=*a
trainables --shards s --out o --set batch_size={
trainables --shards s --out o --config a_folder
trainables --shards s --out o --config list.yaml
trainables --shards s --out o --config wrong.yaml
trainables --shards s --out o --threads 0
trainables --shards s --out o --threads many
trainables --shards s --out o --device cuda:99
trainables --shards s --out o --device gpu
trainables --shards s --out o --device xpu:zz
trainables --shards s --out o --device meta
trainables --shards s --out o --device cuda:-1
trainables --shards s --untrained --device tpu
trainables --shards nofile --out o
trainables --shards a_folder --out o
trainables --shards nofile --untrained
data_prep
data_prep biuld
data_prep build --size-px 64
data_prep build --source
data_prep build --source cbis
data_prep build --source pairs
data_prep build --source cbis_ddsm
data_prep build --source pairs --root nofile --workers 0
data_prep build --source pairs --root good.yaml --workers 0
data_prep build --source pairs --root a_folder --set index_csv=nofile --workers 0
data_prep build --workers -1
data_prep build --workers two
data_prep build --set size_px=100
data_prep build --set size_px=0
data_prep build --set size_px=1000000000000
data_prep build --set size_px=.inf
data_prep build --set size_px
data_prep build --set phantom=5
data_prep build --set phantom.patients=1
data_prep build --set phantom.patient=3
data_prep build --set phantom.rows.x=3
data_prep build --set kinds=[]
data_prep build --set kinds=mass
data_prep build --set kinds=[mas]
data_prep build --set normalisations=[]
data_prep build --set normalisations=[clahe,clahe]
data_prep build --set val_fraction=1
data_prep build --set val_fraction=.nan
data_prep build --set crop_to_breast=yes
data_prep build --set lesion_margin=-0.1
data_prep build --source pairs --set source=phantom
data_prep build --settings wrong.yaml
data_prep build --settings list.yaml
data_prep build --settings a_folder
data_prep inspect
data_prep inspect a_folder
data_prep inspect good.yaml
data_prep inspect nofile --sheet x.png
data_prep report a_folder
data_prep figure
data_prep figure a_folder
data_prep figure good.yaml
data_prep amdahl --max-workers 1
data_prep amdahl --set size_px=1
results
results tables runs/x
results table
results table a_folder
results table good.yaml
results figures a_folder
results report a_folder
results table nofile --out x
cluster
cluster check
cluster check --space good.yaml
cluster check good.yaml
cluster check list.yaml
cluster check wrong.yaml
cluster check a_folder
cluster check --storage
cluster check --storage good.yaml
cluster check --storage good.yaml/x
cluster launch
cluster launch good.yaml
cluster launch good.yaml --space good.yaml
cluster launch good.yaml --space good.yaml --out runs/x
cluster launch good.yaml --space good.yaml --out runs/x --max-usd -1
cluster launch good.yaml --space good.yaml --out runs/x --max-usd nan
mammosearch
mammosearch serach
mammosearch search --space nofile
mammosearch train --shards s
mammosearch results table nofile
mammosearch cluster check nofile
mammosearch prepare inspect nofile
"""
"""Command lines that are wrong in themselves."""

CASES = [line.split() for line in LINES.strip().splitlines()]
PATH_CASES = [
    [word.replace("{}", path) for word in line.split()] for line in TAKES_A_PATH for path in PATHS
]  # `split` first, so that a path with blanks stays one word


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good study, a wrong one, a list, and an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / "good.yaml").write_text("data: {build: {source: phantom}}\nspace: {encoder: [vgg19]}\n")
    (tmp_path / "wrong.yaml").write_text("data: {shards: 5}\nspaces: {}\n")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    (tmp_path / "a_folder").mkdir()
    return tmp_path


def ends_well(words: list[str], here: Path) -> str:
    """What a wrong line says, after all that must hold of it."""
    before = sorted(str(file) for file in here.rglob("*"))
    began = time.process_time()
    result = CliRunner().invoke(APPS[words[0]], words[1:])
    took_s = time.process_time() - began
    assert result.exception is None or isinstance(result.exception, SystemExit), (words, repr(result.exception))
    assert result.exit_code == 2, (words, result.exit_code, result.output)
    assert "Traceback" not in result.output and "Errno" not in result.output, (words, result.output)
    assert "\x1b" not in result.output and result.output.strip(), words
    assert took_s < LONGEST_S or "torch" in result.output or words[0] == "trainables", (words, took_s)
    assert sorted(str(file) for file in here.rglob("*")) == before, words
    return result.output


@pytest.mark.parametrize("words", CASES, ids=" ".join)
def test_a_wrong_line_ends_with_status_two_and_a_message_and_leaves_nothing(words: list[str], here: Path) -> None:
    ends_well(words, here)


@pytest.mark.parametrize("line", TAKES_A_PATH)
def test_a_path_that_is_none_is_named(line: str, here: Path) -> None:
    for words in PATH_CASES[TAKES_A_PATH.index(line) * len(PATHS) :][: len(PATHS)]:
        ends_well(words, here)


def test_a_missing_settings_file_is_named_with_the_next_step(here: Path) -> None:
    assert "there is no nas.yaml here" in (said := ends_well(["search"], here)) and "mammosearch init" in said
    assert "name the settings file" in ends_well(["search", "--space", "x.yaml"], here)


def test_there_are_enough_lines() -> None:
    assert len(CASES) + len(PATH_CASES) >= 125
    assert len({tuple(words) for words in CASES}) == len(CASES)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(here: Path) -> None:
    (here / "good.yaml").chmod(0)
    assert "good.yaml cannot be read: Permission denied" in ends_well(["search", "--space", "good.yaml"], here)
