"""Opening shards: arrays, cache, checks, refusals, and reading them without our code.

pytest tests/data_prep/test_shards.py
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from data_prep.shards import check_leaks, open_shards
from tests.data_prep.test_build import frame

FORMATS = Path(__file__).parents[2] / "docs" / "formats.md"


@pytest.fixture
def copy(tmp_path, shards_path):
    """Shards that a test may change."""
    return Path(shutil.copytree(shards_path, tmp_path / "copy"))


def edit_card(folder: Path, **changes: object) -> None:
    card = json.loads((folder / "_card.json").read_text())
    (folder / "_card.json").write_text(json.dumps({**card, **changes}))


def write_table(file: Path, table: pd.DataFrame) -> None:
    table.to_parquet(file, schema=pq.read_schema(file), index=False)


@pytest.mark.parametrize(("normalisation", "column"), [("clahe", "image"), ("minmax", "image_minmax")])
def test_load_gives_what_the_parquet_files_hold(shards_path, normalisation, column):
    samples = open_shards(shards_path).load("train", normalisation)
    table = frame(shards_path, "train")
    assert samples.images_NHW.dtype == samples.masks_NHW.dtype == np.uint8
    assert samples.images_NHW.shape == samples.masks_NHW.shape == (len(table), 64, 64)
    assert [image.tobytes() for image in samples.images_NHW] == list(table[column])
    assert [mask.tobytes() for mask in samples.masks_NHW] == list(table["mask"])
    assert set(np.unique(samples.masks_NHW).tolist()) == {0, 1}
    assert list(samples.table["sample_id"]) == list(table["sample_id"])
    assert {"image", "mask", "image_minmax"}.isdisjoint(samples.table.columns)


def test_second_load_maps_the_cache_and_does_not_decode(copy, own_cache):
    first = open_shards(copy).load("val", "clahe")
    for file in copy.glob("val/*.parquet"):  # pixels from here on would be noticed
        table = pd.read_parquet(file)
        write_table(file, table.assign(image=[b"\0" * 64 * 64] * len(table)))
    second = open_shards(copy).load("val", "clahe")
    assert isinstance(second.images_NHW, np.memmap)
    assert np.array_equal(first.images_NHW, second.images_NHW)
    assert not second.images_NHW.flags.writeable
    assert not list(own_cache.rglob("*.tmp-*"))


def test_many_loads_at_once_agree(shards_path):
    with ThreadPoolExecutor(8) as pool:
        loads = list(pool.map(lambda _: open_shards(shards_path).load("train", "clahe").images_NHW.sum(), range(16)))
    assert len(set(loads)) == 1


def test_unknown_split_and_normalisation_are_both_named(shards_path):
    with pytest.raises(ValueError, match=r"'dev' is none of train, val, test; .*'zscore' is not in .* clahe, minmax"):
        open_shards(shards_path).load("dev", "zscore")


def test_check_names_every_damaged_shard(copy):
    shards = open_shards(copy)
    shards.check()
    first, second, *_ = shards.files("train")
    (copy / first).unlink()
    damaged = bytearray((copy / second).read_bytes())
    damaged[100] ^= 1
    (copy / second).write_bytes(damaged)
    with pytest.raises(ValueError, match=rf"(?s){first}: missing.*{second}: its SHA-256 .*") as mistake:
        shards.check()
    assert "--overwrite" in str(mistake.value)


def test_damaged_shard_is_not_loaded(copy):
    shards = open_shards(copy)
    file = copy / shards.files("val")[0]
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"val/00000\.parquet: \d+ bytes, the card says \d+"):
        shards.load("val", "clahe")


def test_missing_unfinished_and_foreign_folders_name_the_next_step(tmp_path, copy):
    with pytest.raises(ValueError, match=r"no shards at .*data_prep\.run build --out"):
        open_shards(tmp_path / "nothing")
    (tmp_path / "half" / ".building").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"has not finished; run the same .* command"):
        open_shards(tmp_path / "half")
    edit_card(copy, schema_version=99)
    with pytest.raises(ValueError, match=r"of version 99, this code reads version \d.*--overwrite"):
        open_shards(copy)
    (copy / "_card.json").write_text('{"schema_version": 2}')
    with pytest.raises(ValueError, match="damaged"):
        open_shards(copy)


def test_leaks_are_refused_when_shards_are_opened(copy):
    """The same patient and film in two splits, smuggled in behind the card's back."""
    file = next(copy.glob("test/*.parquet"))
    train = pd.read_parquet(next(copy.glob("train/*.parquet"))).iloc[:1].assign(split="test", sample_id="smuggled")
    write_table(file, pd.concat([pd.read_parquet(file), train]))
    with pytest.raises(ValueError, match=r"(?s)patient p\d\d: .*smuggled \(test\).*film [0-9a-f]{16}: .*smuggled"):
        open_shards(copy)


def test_leak_check_passes_a_film_that_is_twice_in_one_split():
    table = pd.DataFrame(
        [("a", "p1", "train", "x"), ("b", "p1", "train", "x"), ("c", "p2", "test", "y")],
        columns=["sample_id", "patient_id", "split", "pixel_hash"],
    )
    check_leaks(table)
    with pytest.raises(ValueError, match=r"patient p1: a \(train\), b \(train\), d \(val\)"):
        check_leaks(pd.concat([table, pd.DataFrame([("d", "p1", "val", "z")], columns=table.columns)]))


def test_shards_open_without_ray_and_torch(shards_path):
    code = (
        "import sys; from data_prep.shards import open_shards; "
        f"print(len(open_shards({str(shards_path)!r}).load('train', 'clahe'))); "
        "assert not {'ray', 'torch', 'cv2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0


def test_example_of_the_documentation_reads_shards(shards_path):
    """docs/formats.md: pandas and numpy only."""
    blocks = re.findall(r"```python\n(.*?)```", FORMATS.read_text(), re.DOTALL)
    example = next(block for block in blocks if "shards/phantom" in block)
    assert not {"data_prep", "ray"} & set(re.findall(r"^(?:from|import) (\w+)", example, re.MULTILINE))
    values: dict[str, object] = {}
    exec(example.replace("shards/phantom", str(shards_path)), values)
    table = frame(shards_path)
    assert list(values["table"].sort_values("sample_id").sample_id) == sorted(table["sample_id"])
    assert [image.tobytes() for image in values["images_NHW"]] == list(values["table"]["image"])
    assert values["masks_NHW"].shape == (12, 64, 64)
    assert len(values["lesions"]) == 16 and {"lesion_id", "area_px"} <= set(values["lesions"].columns)


def test_no_column_hides_an_attribute_of_pandas(shards_path):
    names = pq.read_schema(next(shards_path.glob("*/*.parquet"))).names
    assert not set(names) & (set(dir(pd.Series)) - {"mask"})


def test_huggingface_datasets_opens_the_folder(shards_path, tmp_path):
    """docs/formats.md: the splits, the lesions as structs, and pictures by one line."""
    datasets = pytest.importorskip("datasets", reason="needs the package datasets")
    from PIL import Image

    found = datasets.load_dataset(str(shards_path), cache_dir=str(tmp_path))
    assert set(found) == {"train", "validation", "test"}
    row = found["train"][0]
    picture = Image.frombytes("L", (row["size_px"], row["size_px"]), row["image"])
    assert picture.size == (64, 64) and row["lesions"][0]["area_px"] > 0
