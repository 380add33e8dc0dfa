"""Decoded samples on this machine: pixels of a split as .npy files, which all its processes map and share.

The first `load` decodes the Parquet files, each read and checked once; later ones map what is there, after its size,
shape, dtype and checksum have been found right. What is not right is decoded again.

Shapes in names: `N` samples, `H` rows, `W` columns.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import xxhash
from filelock import FileLock

from data_prep.cache import PRIVATE_FILE, private_file

LOG = logging.getLogger(__name__)
Shape = tuple[int, int, int]


def decoded(
    cache: Path, split: str, columns: Sequence[str], shape: Shape, batches: Iterable[pa.RecordBatch]
) -> list[np.ndarray]:
    """The columns of a split as arrays.

    Args:
        cache: an existing folder for this shard folder's arrays.
        split: `train`, `val` or `test`.
        columns: binary columns, each of H x W bytes a row.
        shape: (N, H, W) of each.
        batches: the columns' values; read only where something has to be decoded.

    Returns:
        uint8 arrays of `shape`, read-only, mapped from `cache`.

    Raises:
        OSError: the cache cannot be written.
        ValueError: the batches are not of `shape`.
    """
    if shape[0] == 0:
        return [np.zeros(shape, np.uint8) for _ in columns]
    with FileLock(cache / f"{split}.lock", mode=PRIVATE_FILE):  # one process decodes, the others wait for its files
        wrong = [column for column in columns if _mapped(_file(cache, split, column), shape) is None]
        if wrong:
            _decode(cache, split, wrong, shape, batches)
        arrays = [_mapped(_file(cache, split, column), shape) for column in columns]
    for column, array in zip(columns, arrays, strict=True):
        if array is None:
            raise OSError(errno.EIO, f"what was written to {_file(cache, split, column)} is not what is read from it")
    return [array for array in arrays if array is not None]


def _file(cache: Path, split: str, column: str) -> Path:
    return cache / f"{split}-{column}.npy"


def _seal(file: Path) -> Path:
    """Where the checksum of a decoded file stands."""
    return file.with_suffix(".xxh3")


def _mapped(file: Path, shape: Shape) -> np.ndarray | None:
    """The file's array, or None where there is none, or it is not what was decoded."""
    try:
        said = json.loads(_seal(file).read_text())
        if said["bytes"] != file.stat().st_size:
            raise ValueError(f"{file.stat().st_size} bytes for {said['bytes']}")
        array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
        if array.shape != shape or array.dtype != np.uint8:
            raise ValueError(f"{array.dtype} of shape {array.shape} for uint8 of {shape}")
        if xxhash.xxh3_128_hexdigest(array.data) != said["xxh3"]:
            raise ValueError("another checksum")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, EOFError) as error:
        LOG.warning("%s is damaged (%s) and is decoded again", file, error)
        return None
    return array


def _decode(cache: Path, split: str, columns: Sequence[str], shape: Shape, batches: Iterable[pa.RecordBatch]) -> None:
    """Write the columns' files, then their seals: a file without one counts as none."""
    files = [_file(cache, split, column) for column in columns]
    try:
        for file in files:
            _seal(file).unlink(missing_ok=True)
        with ExitStack() as stack:
            writers = [_Writer(stack.enter_context(private_file(file)), shape) for file in files]
            for batch in batches:
                for writer, column in zip(writers, columns, strict=True):
                    writer.write(_images(batch.column(batch.schema.get_field_index(column))))
            seals = [writer.seal() for writer in writers]
        for file, seal in zip(files, seals, strict=True):
            with private_file(_seal(file)) as stream:
                stream.write(json.dumps(seal).encode())
    except OSError as error:
        text = f"cannot write the cache {cache}: {error.strerror}; MAMMOSEARCH_CACHE names another place"
        raise OSError(error.errno or errno.EIO, text) from error


def _images(column: pa.Array) -> Iterator[memoryview]:
    for value in column:
        yield memoryview(value.as_buffer())


class _Writer:
    """Writes images one after the other: on a full disk a mapped file would kill the process."""

    def __init__(self, stream: BinaryIO, shape: Shape) -> None:
        self._stream, self._shape = stream, shape
        self._count, self._hash = 0, xxhash.xxh3_128()
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})

    def write(self, images: Iterable[memoryview]) -> None:
        for image in images:
            if len(image) != self._shape[1] * self._shape[2]:
                raise ValueError(f"a sample has {len(image)} bytes; {self._shape[1]} x {self._shape[2]} are wanted")
            self._stream.write(image)
            self._hash.update(image)
            self._count += 1

    def seal(self) -> dict[str, object]:
        """What the file must be."""
        if self._count != self._shape[0]:
            raise ValueError(f"the shards hold {self._count} samples, the card says {self._shape[0]}")
        return {"bytes": self._stream.tell(), "xxh3": self._hash.hexdigest()}
