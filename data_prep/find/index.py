"""The headers of many files: the step that reads a download once and remembers it.

Nothing is taken from a file's path, name or order that its header can tell. What was read is remembered on this machine
by path, size and time of each file, so that a second look costs one listing. The memory holds no path and no patient:
files are known by a digest, and PatientID is kept only where it is an image's name of CBIS-DDSM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.cache import private_file
from data_prep.find.cbis_cases import IMAGE_NAME
from data_prep.find.listing import FileRecord
from data_prep.read.dicom import Header, HeaderError, read_any_header
from data_prep.read.files import is_remote
from data_prep.read.masks import read_mask
from data_prep.schema import ReadError
from data_prep.shape.box import same_aspect

BATCH_FILES = 256
REQUESTS = 32
"""Requests to a store at the same time, of one process."""

ReadBatch = Callable[[list[FileRecord]], list[FileRecord]]
MapBatches = Callable[[ReadBatch, list[list[FileRecord]]], Iterable[list[FileRecord]]]
"""Applies a function to each batch, anywhere, and yields the results in any order."""

_CACHE = pa.schema(
    [
        ("key", pa.binary(16)),
        ("fault", pa.string()),
        ("dicom", pa.bool_()),
        ("name", pa.string()),
        ("series", pa.string()),
        ("description", pa.string()),
        ("rows", pa.int32()),
        ("columns", pa.int32()),
        ("bits", pa.int8()),
        ("largest_value", pa.int64()),
        ("measured", pa.bool_()),
        ("marked_share", pa.float64()),
    ],
    metadata={"version": "2"},
)
"""What is remembered of a file; `key` is a digest of its path below the root, its size and its time."""


def compare_sizes(mask: FileRecord, image: FileRecord) -> str:
    """What a mask's size says beside its image's.

    Returns:
        Empty if they are equal; `mask_rescaled: ...`, a repair, if the aspect ratios are within 1 % (the mask is then
        resized when it is read); else `mask_other_aspect: ...`, a rejection.
    """
    sizes = (mask.rows, mask.columns), (image.rows, image.columns)
    if sizes[0] == sizes[1]:
        return ""
    verdict = "mask_rescaled" if same_aspect(*sizes) else "mask_other_aspect"
    return f"{verdict}: mask {mask.rows} x {mask.columns}, image {image.rows} x {image.columns}"


def digest_uid(uid: str) -> str:
    """A UID as it is remembered: two are equal where their UIDs are."""
    return hashlib.blake2b(uid.encode(), digest_size=8).hexdigest() if uid else ""


def build_index(
    files: list[FileRecord], *, cache: Path | None = None, map_batches: MapBatches | None = None
) -> list[FileRecord]:
    """Read the headers of `files` and return them filled in, in the same order.

    Args:
        files: image candidates, as `list_files` gives them.
        cache: a Parquet file of earlier records; read if it is there, written if anything was new.
        map_batches: where headers are read; this process by default.
    """
    known = _read_cache(cache)
    keys = [_key(file) for file in files]
    fresh = [f for f, key in zip(files, keys, strict=True) if key not in known or f.measured > known[key]["measured"]]
    batches = [fresh[i : i + BATCH_FILES] for i in range(0, len(fresh), BATCH_FILES)]
    read = {r.relative: r for batch in (map_batches or map)(read_batch, batches) for r in batch}
    records = [
        read[file.relative] if file.relative in read else replace(file, **known[key])
        for file, key in zip(files, keys, strict=True)
    ]
    if cache is not None and fresh:
        _write_cache(cache, dict(zip(keys, records, strict=True)))
    return records


def read_batch(files: list[FileRecord]) -> list[FileRecord]:
    """Read the headers of some files; a file that cannot be used comes back with its fault."""
    if not files or not is_remote(files[0].path):
        return [_measure(_read_record(file)) for file in files]
    with ThreadPoolExecutor(REQUESTS) as threads:  # a disk answers at once, a store after a while
        return list(threads.map(lambda file: _measure(_read_record(file)), files))


def _read_record(file: FileRecord) -> FileRecord:
    try:
        header, fault = read_any_header(file.path), ""
    except HeaderError as error:
        header, fault = error.header, str(error)
    except ReadError as error:
        return replace(file, fault=str(error))
    if not isinstance(header, Header):
        return replace(file, dicom=False, rows=header[0], columns=header[1])
    return replace(
        file,
        fault=fault,
        name=header.patient_id if IMAGE_NAME.match(header.patient_id) else "",
        series=digest_uid(header.series_uid),
        description=header.series_description,
        rows=header.rows,
        columns=header.columns,
        bits=header.bits_allocated,
        largest_value=header.largest_value,
    )


def _measure(record: FileRecord) -> FileRecord:
    """The record with its share of marked pixels, where that is wanted and can be told."""
    if not record.measured or record.fault:
        return record
    try:
        share = read_mask(record.path).area_px / (record.rows * record.columns)
    except ReadError:  # told of when the sample is prepared
        return record
    return replace(record, marked_share=share)


def _key(file: FileRecord) -> bytes:
    return hashlib.blake2b(f"{file.relative}\0{file.bytes}\0{file.mtime_ns}".encode(), digest_size=16).digest()


def _read_cache(cache: Path | None) -> dict[bytes, dict[str, Any]]:
    """Key -> what is remembered of that file."""
    if cache is None or not cache.exists():
        return {}
    try:
        table = pq.read_table(cache)
        if not table.schema.equals(_CACHE, check_metadata=True):
            return {}
    except (OSError, pa.ArrowException):  # a cache that cannot be read is made again
        return {}
    keys = table.column("key").to_pylist()
    return dict(zip(keys, table.drop_columns("key").to_pylist(), strict=True))


def _write_cache(cache: Path, records: dict[bytes, FileRecord]) -> None:
    """Write what can be remembered: not what the disk said of a file that it would not open."""
    kept = {key: r for key, r in records.items() if not r.fault.startswith("unreadable: cannot be opened")}
    columns = {name: [getattr(r, name) for r in kept.values()] for name in _CACHE.names if name != "key"}
    table = pa.table({"key": list(kept), **columns}, schema=_CACHE)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with private_file(cache) as stream:
        pq.write_table(table, stream, compression="zstd")
