"""Open a shard folder: its card, and the samples of a split as arrays. No Ray, no torch.

    folder = open_shards("shards/phantom")            # a path or URI; refuses leaks between splits
    samples = folder.load("train", "clahe")           # memory-mapped: all processes of a machine share the pages
    samples.images_NHW, samples.masks_NHW, samples.table

The first `load` on a machine decodes the Parquet files into .npy files in a cache folder, named by the card's
fingerprint; later ones map those. MAMMOSEARCH_CACHE names another place for the cache; it may be deleted at any time.

Shapes in names: `N` samples, `H` rows, `W` columns (both equal to `card.settings.size_px`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from pydantic import ValidationError

from cluster.storage import Folder
from data_prep.schema import SCHEMA_VERSION, SHARD_SCHEMA, SPLITS, DatasetCard, Normalisation

CARD = "card.json"
TABLE_COLUMNS = [name for name in SHARD_SCHEMA.names if name not in ("image", "mask")]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The samples of one split, in the order of the shards."""

    images_NHW: np.ndarray
    """uint8, read-only, mapped from the cache."""
    masks_NHW: np.ndarray
    """uint8 of 0 and 1, read-only, mapped from the cache."""
    table: pd.DataFrame
    """The other columns, one row a sample."""

    def __len__(self) -> int:
        return len(self.table)


@dataclass(frozen=True)
class ShardFolder:
    """A finished shard folder."""

    folder: Folder
    card: DatasetCard

    def load(self, split: str, normalisation: Normalisation) -> Samples:
        """The samples of a split under one normalisation.

        Args:
            split: `train`, `val` or `test`.
            normalisation: one that the shards were built with.

        Raises:
            ValueError: no such split or normalisation, or a shard is not what the card says.
        """
        mistakes = []
        if split not in SPLITS:
            mistakes.append(f"split {split!r} is none of {', '.join(SPLITS)}")
        if normalisation not in self.card.image_columns:
            built = ", ".join(self.card.image_columns)
            mistakes.append(
                f"normalisation {normalisation!r} is not in {self.folder}, which was built with {built}; build it with "
                f"`python -m data_prep.run build --set normalisations=[{normalisation}] ...`"
            )
        if mistakes:
            raise ValueError("; ".join(mistakes))
        column = self.card.image_columns[normalisation]
        return Samples(
            images_NHW=self._array(split, column), masks_NHW=self._array(split, "mask"), table=self.table(split)
        )

    def table(self, split: str) -> pd.DataFrame:
        """The columns of a split other than the pixels, one row a sample."""
        empty = pa.schema([SHARD_SCHEMA.field(name) for name in TABLE_COLUMNS]).empty_table()
        tables = [self._open(file).read(TABLE_COLUMNS) for file in self.files(split)]
        return pa.concat_tables([empty, *tables]).to_pandas()

    def files(self, split: str) -> list[str]:
        """The shards of a split, in order: paths inside the folder."""
        return sorted(file for file in self.card.files if file.startswith(f"{split}/"))

    def check(self) -> None:
        """Verify the size and the checksum of every shard.

        Raises:
            ValueError: names every shard that is missing or is not what the card says.
        """
        wrong = [f"{file}: {fault}" for file in self.card.files if (fault := self._fault(file))]
        if wrong:
            raise ValueError(f"{self.folder} is damaged; build it again with --overwrite:\n  " + "\n  ".join(wrong))

    def _fault(self, file: str) -> str:
        expected = self.card.files[file]
        try:
            content = self.folder.read_bytes(file)
        except FileNotFoundError:
            return "missing"
        if len(content) != expected.bytes:
            return f"{len(content)} bytes, the card says {expected.bytes}"
        return "" if hashlib.sha256(content).hexdigest() == expected.sha256 else "its SHA-256 is not the card's"

    def _open(self, file: str) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(f"{self.folder.path}/{file}", filesystem=self.folder.filesystem)
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            raise ValueError(
                f"{self.folder}/{file} cannot be read ({error}); build it again with --overwrite"
            ) from error

    def _array(self, split: str, column: str) -> np.ndarray:
        size = self.card.settings.size_px
        shape = (self.card.samples.get(split, 0), size, size)
        if shape[0] == 0:
            return np.zeros(shape, np.uint8)
        file = self._cache() / f"{split}-{column}.npy"
        with FileLock(f"{file}.lock"):  # one process decodes, the others wait for its file
            if not file.exists():
                self._decode(split, column, file, shape)
        array_NHW: np.ndarray = np.load(file, mmap_mode="r")
        return array_NHW

    def _decode(self, split: str, column: str, file: Path, shape: tuple[int, int, int]) -> None:
        aside = file.with_suffix(f".tmp-{uuid.uuid4().hex[:8]}")
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        try:
            with aside.open("wb") as stream:  # written in sequence: on a full disk a mapped file would kill the process
                np.lib.format.write_array_header_1_0(stream, header)
                for image in self._column(split, column):
                    stream.write(image)
            aside.replace(file)
        except OSError as error:
            text = f"cannot write the cache {file}: {error}; MAMMOSEARCH_CACHE names another place"
            raise OSError(error.errno or errno.EIO, text) from error
        finally:
            aside.unlink(missing_ok=True)

    def _column(self, split: str, column: str) -> Iterator[memoryview]:
        for file in self.files(split):
            fault = self._fault(file)
            if fault:
                raise ValueError(f"{self.folder}/{file}: {fault}; build it again with --overwrite")
            for batch in self._open(file).iter_batches(batch_size=16, columns=[column]):
                for value in batch.column(0):
                    yield memoryview(value.as_buffer())

    def _cache(self) -> Path:
        folder = cache_root() / self.card.fingerprint[:32]
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def open_shards(path: str | os.PathLike[str]) -> ShardFolder:
    """Open a finished shard folder, after making sure that nothing of one split is in another.

    Args:
        path: the folder's path or URI.

    Raises:
        ValueError: there is no finished shard folder of this version, or its splits leak (`check_leaks`). The message
            says what to do.
    """
    folder = Folder(path)
    shards = ShardFolder(folder, read_card(folder))
    proof = shards._cache() / "no-leak"
    if not proof.exists():
        check_leaks(pd.concat([shards.table(split) for split in SPLITS]))
        proof.touch()
    return shards


def read_card(folder: Folder) -> DatasetCard:
    """The card of a finished shard folder. Raises ValueError that names the next step."""
    try:
        value: Any = folder.read_json(CARD)
    except FileNotFoundError:
        raise ValueError(_no_card(folder)) from None
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{folder}/{CARD} is of version {version}, this code reads version {SCHEMA_VERSION}; build the shards "
            "again with `python -m data_prep.run build --overwrite`"
        )
    try:
        return DatasetCard.model_validate(value)
    except ValidationError as error:
        raise ValueError(f"{folder}/{CARD} is damaged; build the shards again with --overwrite: {error}") from error


def _no_card(folder: Folder) -> str:
    if folder.exists(".building"):
        return f"the build of {folder} has not finished; run the same `python -m data_prep.run build` command to go on"
    return f"no shards at {folder} (it has no {CARD}); make them with `python -m data_prep.run build --out {folder}`"


def check_leaks(table: pd.DataFrame) -> None:
    """Refuse a dataset in which a patient, or the very same film, is in two splits.

    Args:
        table: columns `sample_id`, `patient_id`, `split`, `pixel_sha256`, one row a sample.

    Raises:
        ValueError: names the patients and the films, with their splits.
    """
    lines = []
    for column, word in (("patient_id", "patient"), ("pixel_sha256", "film")):
        splits = table.groupby(column)["split"].nunique()
        for value in splits[splits > 1].index:
            shared = table[table[column] == value].sort_values("sample_id")
            places = ", ".join(f"{row.sample_id} ({row.split})" for row in shared.itertuples())
            lines.append(f"{word} {str(value)[:16]}: {places}")
    if lines:
        more = f"\n  and {len(lines) - 20} more" if len(lines) > 20 else ""
        raise ValueError("splits leak: the same is in two of them:\n  " + "\n  ".join(lines[:20]) + more)


def cache_root() -> Path:
    """The folder of decoded shards on this machine: MAMMOSEARCH_CACHE, or `mammosearch` in the user's cache folder."""
    named = os.environ.get("MAMMOSEARCH_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "mammosearch"
