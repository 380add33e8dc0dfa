"""Shard folders from elsewhere, and caches that were damaged: nothing is believed, and nothing is written outside.

pytest tests/data_prep/test_hostile_shards.py
"""

from __future__ import annotations

import json
import logging
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from data_prep.look.report import quality_report
from data_prep.shards import fingerprint, open_shards
from tests.data_prep.small_pairs import contents
from tests.data_prep.test_shards import edit_card, write_table


@pytest.fixture
def copy(tmp_path, shards_path):
    """Shards that a test may change."""
    return Path(shutil.copytree(shards_path, tmp_path / "copy"))


def array_file(cache: Path, name: str = "train-image.npy") -> Path:
    return next(cache.rglob(name))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def overwrite(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(4000)
        stream.write(b"\xaa" * 2000)


def reshape(file: Path) -> None:
    np.save(file, np.zeros((3, 64, 64), np.uint8))


def change_type(file: Path) -> None:
    array = np.load(file)
    np.save(file, array.astype(np.int8))


def make_objects(file: Path) -> None:
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    "damage",
    [cut, overwrite, reshape, change_type, make_objects, lambda f: f.write_bytes(b""), lambda f: f.write_text("no")],
)
def test_damaged_array_is_decoded_again(shards_path, own_cache, damage: Callable[[Path], object], caplog):
    before = np.array(open_shards(shards_path).load("train", "clahe").images_NHW)
    damage(array_file(own_cache))
    with caplog.at_level(logging.WARNING):
        again = open_shards(shards_path).load("train", "clahe").images_NHW
    assert np.array_equal(again, before)
    assert "is damaged" in caplog.text and "decoded again" in caplog.text


@pytest.mark.parametrize("seal", ["", "{}", "[]", '{"bytes": 1, "xxh3": 1}', "\0\0\0"])
def test_damaged_checksum_is_made_again(shards_path, own_cache, seal):
    before = np.array(open_shards(shards_path).load("train", "clahe").images_NHW)
    array_file(own_cache, "train-image.xxh3").write_text(seal)
    assert np.array_equal(open_shards(shards_path).load("train", "clahe").images_NHW, before)


def test_what_is_kept_of_films_is_for_their_owner_alone(shards_path, own_cache):
    (own_cache / open_shards(shards_path).card.fingerprint[:32]).chmod(0o755)  # as older versions left it
    open_shards(shards_path).load("train", "clahe")
    for path in own_cache.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprint": "../../../escaped"},
        {"fingerprint": "/elsewhere"},
        {"fingerprint": "f" * 64},
        {"fingerprint": 5},
        {"created_at": "<script>alert(1)</script>"},
        {"created_at": 12},
        {"source_sha256": "<b>"},
        {"image_columns": {"clahe": "../../image"}},
        {"image_columns": {"clahe": "mask"}},
        {"samples": {"train": 5}},
        {"samples": {"train": -1, "val": 1, "test": 1}},
        {"files": {"../../etc/passwd": {"rows": 1, "bytes": 1, "sha256": "0" * 64}}},
        {"files": {"train/00000.parquet": {"rows": 1, "bytes": 1, "sha256": "x"}}},
        {"files": []},
        {"settings": {"source": "phantom", "size_px": -5}},
        {"settings": None},
    ],
)
def test_hostile_card_is_refused_in_one_message_and_nothing_is_written(copy, own_cache, changes):
    edit_card(copy, **changes)
    with pytest.raises(ValueError, match=r"_card\.json is damaged") as mistake:
        open_shards(copy)
    assert "pydantic" not in str(mistake.value) and len(str(mistake.value).splitlines()) == 1
    assert not contents(own_cache)


@pytest.mark.parametrize("text", ["", "null", "[]", "5", '"text"', "{", "\0"])
def test_card_that_is_no_card_is_refused(copy, text):
    (copy / "_card.json").write_text(text)
    with pytest.raises(ValueError, match=r"_card\.json"):
        open_shards(copy)


def test_folder_of_an_older_version_says_so(copy):
    (copy / "_card.json").rename(copy / "card.json")
    with pytest.raises(ValueError, match=r"was built by an older version of this code; build it again.*--overwrite"):
        open_shards(copy)


def test_claimed_fingerprint_does_not_spare_the_leak_check(copy, shards_path, own_cache):
    """The good folder was proven free of leaks on this machine; one with its card and other shards is looked at."""
    open_shards(shards_path).load("train", "clahe")
    file = next(copy.glob("test/*.parquet"))
    train = pd.read_parquet(next(copy.glob("train/*.parquet"))).iloc[:1].assign(split="test", sample_id="smuggled")
    write_table(file, pd.concat([pd.read_parquet(file), train]))
    with pytest.raises(ValueError, match=r"(?s)splits leak.*smuggled"):
        open_shards(copy)


def test_card_made_to_fit_other_shards_gets_no_arrays_of_the_good_folder(copy, shards_path, own_cache):
    """Images are black there, the card is whole and right for them: they have an identity and arrays of their own."""
    good = open_shards(shards_path).load("val", "clahe").images_NHW
    card = json.loads((copy / "_card.json").read_text())
    for name in list(card["files"]):
        table = pd.read_parquet(copy / name)
        write_table(copy / name, table.assign(image=[b"\0" * 64 * 64] * len(table)))
        card["files"][name] |= describe(copy / name)
    shards = open_shards(shards_path)
    files = {name: type(shards.card.files[name]).model_validate(said) for name, said in card["files"].items()}
    edit_card(copy, files=card["files"], fingerprint=fingerprint(files, shards.card.settings))
    assert good.any() and not open_shards(copy).load("val", "clahe").images_NHW.any()


def describe(file: Path) -> dict[str, object]:
    import hashlib

    content = file.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_names_of_files_and_samples_are_escaped_in_the_report(copy):
    for file in copy.glob("*/*.parquet"):
        table = pd.read_parquet(file)
        names = [f"<script>{n}</script>{name}" for n, name in enumerate(table["sample_id"])]
        table.assign(sample_id=names).to_parquet(file, schema=pq.read_schema(file), index=False)
    (copy / "_rejected.csv").write_text("path,sample_id,reason\n<img src=x>,<b>,<script>x: y\n")
    page = quality_report(open_shards(copy), damage="<script>damage</script>", pictures=False)
    assert "<script>damage" not in page and "<script>x" not in page and "<img src=x" not in page
    assert not any(f"<script>{n}</script>" in page for n in range(10))
    assert "&lt;script&gt;damage" in page
