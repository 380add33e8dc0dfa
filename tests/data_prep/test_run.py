"""The commands: what they print and write, and how mistakes end.

pytest tests/data_prep/test_run.py
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from data_prep.run import app
from tests.data_prep.small_pairs import draw_film


def command(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def build_words(root: Path, out: Path) -> list[object]:
    words = ["build", "--source", "pairs", "--root", root, "--out", out]
    return [*words, "--set", f"index_csv={root}/index.csv", "--set", "size_px=64", "--workers", 0]


def test_build_prints_the_counts_and_builds_once(tmp_path, pairs_root):
    first = command(*build_words(pairs_root, tmp_path / "out"))
    assert first.exit_code == 0, first.output
    assert re.search(r"train +(\d+) +\1 +\d+\n", first.output)
    assert "0 inputs left out" in first.output
    stamp = (tmp_path / "out/_card.json").stat().st_mtime_ns
    assert command(*build_words(pairs_root, tmp_path / "out")).exit_code == 0
    assert (tmp_path / "out/_card.json").stat().st_mtime_ns == stamp


def test_words_go_before_the_settings_file(tmp_path, pairs_root):
    file = tmp_path / "settings.yaml"
    file.write_text(f"source: pairs\nroot: {pairs_root}\nindex_csv: {pairs_root}/index.csv\nsize_px: 64\n")
    out = tmp_path / "out"
    words = ["--set", "size_px=96", "--set", "normalisations=[minmax]", "--out", out, "--workers", 0]
    done = command("build", "--settings", file, *words)
    assert done.exit_code == 0, done.output
    assert "96 px, minmax" in done.output


def test_all_mistakes_in_settings_are_told_at_once(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("source: pairs\nroot: x\nsizepx: 224\nphantom: {patients: 1}\n")
    words = ["--set", "size_px=100", "--set", "normalisations=[gamma]", "--set", "val_fraction=2", "--set", "seed"]
    done = command("build", "--settings", file, *words)
    assert done.exit_code == 2
    assert done.output.splitlines() == [
        f"data_prep: {file} has 6 mistakes:",
        f"{file}:3  sizepx: unknown key; did you mean size_px?",
        f"{file}:4  phantom.patients: too small (got 1); allowed: at least 3",
        "--set  size_px: not a multiple of 32 (got 100); allowed: multiples of 32",
        '--set  normalisations.1: not one of the choices (got "gamma"); allowed: clahe, minmax, zscore',
        "--set  val_fraction: too large (got 2); allowed: below 0.5",
        "--set  seed: not of the form KEY=VALUE; allowed: batch_size=8",
    ]
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "nowhere"], "no shards at"),
        (["report", "nowhere"], "no shards at"),
        (["figure", "nowhere.dcm"], "nowhere.dcm"),
        (["build", "--source", "pairs", "--root", "nowhere", "--workers", "0"], "nowhere"),
        (["build", "--source", "pairs"], "root: missing: source pairs needs it; allowed: the folder of its files"),
        (["build", "--settings", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_mistakes_end_with_status_two_and_one_message(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(*words)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert "Traceback" not in done.output


def test_inspect_shows_counts_and_a_contact_sheet_and_finds_damage(tmp_path, pairs_root):
    out = tmp_path / "out"
    command(*build_words(pairs_root, out))
    done = command("inspect", out, "--sheet", tmp_path / "sheet.png")
    assert done.exit_code == 0, done.output
    assert "are as the card says" in done.output
    assert "lesions of train: median diameter" in done.output
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    reds = (sheet[..., 2] > 200) & (sheet[..., 0] < 120)
    assert reds.sum() > 200  # the lesions' outlines
    (out / "train/00000.parquet").write_bytes(b"")
    assert command("inspect", out, "--sheet", tmp_path / "sheet.png").exit_code == 2


def test_figure_shows_four_pictures(tmp_path):
    cv2.imwrite(str(tmp_path / "film.png"), draw_film(0))
    done = command("figure", tmp_path / "film.png", "--out", tmp_path / "figure.png")
    assert done.exit_code == 0, done.output
    picture = cv2.imread(str(tmp_path / "figure.png"))
    assert picture.shape[1] == pytest.approx(4 * picture.shape[0], rel=0.05)
    quarters = [part.std() for part in cv2.split(picture)[0].reshape(picture.shape[0], 4, -1).transpose(1, 0, 2)]
    assert min(quarters) > 20


def test_help_does_not_wait_for_ray():
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "data_prep.run", "build", "--help"], capture_output=True, check=True)
    assert time.perf_counter() - begun < 5
    code = "import sys, data_prep.run; assert not {'ray', 'cv2', 'pandas', 'pydicom'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
