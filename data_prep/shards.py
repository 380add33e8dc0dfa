"""Open a shard folder: its card, and the samples of a split as arrays. No Ray, no torch.

    folder = open_shards("shards/phantom")            # a path or URI; refuses leaks between splits
    samples = folder.load("train", "clahe")           # memory-mapped: all processes of a machine share the pages
    samples.images_NHW, samples.masks_NHW, samples.table

The first `load` on a machine decodes the Parquet files into a cache folder (`data_prep.cache`), named by the card's
fingerprint; later ones map what is there (`data_prep.decoded`).

Shapes in names: `N` samples, `H` rows, `W` columns (both equal to `card.settings.size_px`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from cluster.storage import Folder
from data_prep.cache import cache_folder, private_file
from data_prep.decoded import decoded
from data_prep.schema import (
    SCHEMA_VERSION,
    SHARD_SCHEMA,
    SPLITS,
    BuildSettings,
    DatasetCard,
    Normalisation,
    ShardFile,
)  # fmt: skip

CARD = "_card.json"
REJECTED = "_rejected.csv"
REPAIRED = "_repaired.csv"
"""What lies beside the Parquet files begins with `_`, which readers of Parquet folders pass over."""
OLD_CARD = "card.json"
TABLE_COLUMNS = [name for name in SHARD_SCHEMA.names if name not in ("image", "mask")]
LEAK_COLUMNS = ["sample_id", "patient_id", "split", "pixel_hash"]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The samples of one split, in the order of the shards."""

    images_NHW: np.ndarray
    """uint8, read-only, mapped from the cache."""
    masks_NHW: np.ndarray
    """uint8 of 0 and 1, read-only, mapped from the cache."""
    read_table: Callable[[], pd.DataFrame] = field(repr=False)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The other columns, one row a sample; read when it is first asked for."""
        return self.read_table()

    def __len__(self) -> int:
        return len(self.images_NHW)


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
        columns, size = [self.card.image_columns[normalisation], "mask"], self.card.settings.size_px
        shape = (self.card.samples.get(split, 0), size, size)
        images_NHW, masks_NHW = decoded(self._cache(), split, columns, shape, self._batches(split, columns))
        return Samples(images_NHW=images_NHW, masks_NHW=masks_NHW, read_table=lambda: self.table(split))

    def table(self, split: str, columns: Sequence[str] = TABLE_COLUMNS) -> pd.DataFrame:
        """Columns of a split, by default all but the pixels; one row a sample."""
        empty = pa.schema([SHARD_SCHEMA.field(name) for name in columns]).empty_table()
        tables = [self._open(file, columns) for file in self.files(split)]
        return pa.concat_tables([empty, *tables]).to_pandas()

    def files(self, split: str) -> list[str]:
        """The shards of a split, in order: paths inside the folder."""
        return sorted(file for file in self.card.files if file.startswith(f"{split}/"))

    def check(self) -> None:
        """Verify the size and the checksum of every shard.

        Raises:
            ValueError: names every shard that is missing or is not what the card says.
        """
        wrong = []
        for file in self.card.files:
            try:
                self._content(file)
            except ValueError as error:
                wrong.append(str(error))
        if wrong:
            raise ValueError(f"{self.folder} is damaged; build it again with --overwrite:\n  " + "\n  ".join(wrong))

    def check_leaks(self) -> None:
        """Refuse the folder if its splits leak; what was checked once on this machine is not checked again.

        Raises:
            ValueError: as `check_leaks`.
        """
        seen = json.dumps([[file, size] for file, size in self.folder.walk() if file in self.card.files])
        proof = self._cache() / "no-leak"
        if proof.exists() and proof.read_text() == seen:
            return
        check_leaks(pd.concat([self.table(split, LEAK_COLUMNS) for split in SPLITS]))
        with private_file(proof) as stream:
            stream.write(seen.encode())

    def _content(self, file: str) -> bytes:
        """A shard's bytes. Raises ValueError if they are not what the card says."""
        expected = self.card.files[file]
        try:
            content = self.folder.read_bytes(file)
        except FileNotFoundError:
            raise ValueError(f"{file}: missing") from None
        if len(content) != expected.bytes:
            raise ValueError(f"{file}: {len(content)} bytes, the card says {expected.bytes}")
        if hashlib.sha256(content).hexdigest() != expected.sha256:
            raise ValueError(f"{file}: its SHA-256 is not the card's")
        return content

    def _open(self, file: str, columns: Sequence[str]) -> pa.Table:
        try:
            return self.folder.parquet(file).read(list(columns))
        except (FileNotFoundError, ValueError) as error:
            raise ValueError(
                f"{self.folder}/{file} cannot be read ({error}); build it again with --overwrite"
            ) from error

    def _batches(self, split: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The columns of a split, each shard read once and checked."""
        for file in self.files(split):
            try:
                content = self._content(file)
            except ValueError as error:
                raise ValueError(f"{self.folder}/{error}; build it again with --overwrite") from None
            yield from pq.ParquetFile(pa.BufferReader(content)).iter_batches(batch_size=16, columns=list(columns))

    def _cache(self) -> Path:
        return cache_folder(self.card.fingerprint[:32])


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
    shards.check_leaks()
    return shards


def read_card(folder: Folder) -> DatasetCard:
    """The card of a finished shard folder.

    Raises:
        ValueError: there is none, it is of another version, or it is damaged. The message says what to do.
    """
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
        card = DatasetCard.model_validate(value)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
        raise ValueError(f"{folder}/{CARD} is damaged ({faults}); build the shards again with --overwrite") from error
    if card.fingerprint != fingerprint(card.files, card.settings):
        raise ValueError(
            f"{folder}/{CARD} is damaged: its fingerprint is not that of its files and settings; build the shards "
            "again with --overwrite"
        )
    return card


def fingerprint(files: Mapping[str, ShardFile], settings: BuildSettings) -> str:
    """The data's identity: SHA-256 over the checksums of the shards and the settings that shape samples."""
    identity = [{file: content.sha256 for file, content in sorted(files.items())}, settings.shaping()]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _no_card(folder: Folder) -> str:
    if folder.exists(OLD_CARD):
        return (
            f"{folder} was built by an older version of this code; build it again with `python -m data_prep.run build "
            f"--out {folder} --overwrite ...` and the settings that stand in its {OLD_CARD}"
        )
    if folder.exists(".building"):
        return f"the build of {folder} has not finished; run the same `python -m data_prep.run build` command to go on"
    return f"no shards at {folder} (it has no {CARD}); make them with `python -m data_prep.run build --out {folder}`"


def check_leaks(table: pd.DataFrame) -> None:
    """Refuse a dataset in which a patient, or the very same film, is in two splits.

    Args:
        table: columns `sample_id`, `patient_id`, `split`, `pixel_hash`, one row a sample.

    Raises:
        ValueError: names the patients and the films, with their splits.
    """
    lines = []
    for column, word in (("patient_id", "patient"), ("pixel_hash", "film")):
        splits = table.groupby(column)["split"].nunique()
        for value in splits[splits > 1].index:
            shared = table[table[column] == value].sort_values("sample_id")
            places = ", ".join(f"{row.sample_id} ({row.split})" for row in shared.itertuples())
            lines.append(f"{word} {str(value)[:16]}: {places}")
    if lines:
        more = f"\n  and {len(lines) - 20} more" if len(lines) > 20 else ""
        raise ValueError("splits leak: the same is in two of them:\n  " + "\n  ".join(lines[:20]) + more)
