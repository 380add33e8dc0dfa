"""One shard: prepare its samples in order, write the Parquet file aside, move it into place, leave a report.

The report (`.building/<split>-<number>.json`) tells a later build that the shard is finished and what is in it. Which
worker writes a shard, and how many there are, leaves no trace in its bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from pydantic import TypeAdapter, ValidationError

from cluster.storage import Folder
from data_prep.read.ahead import Fetched, fetch_ahead
from data_prep.schema import SHARD_SCHEMA, BuildSettings, Rejected, Repaired, Sample, ShardFile
from data_prep.shape.prepare import image_columns, prepare_sample

BUILDING = ".building"
"""Folder of an unfinished build's reports; gone when the card is written."""
ROW_GROUP_BYTES = 32 * 1024 * 1024
"""Samples are held in memory up to this size, then written."""


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h (mallopt(3))."""


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """A shard to be written."""

    file: str
    """Path inside the shard folder, e.g. `train/00000.parquet`."""
    key: str
    """SHA-256 over all that decides the shard's bytes; a finished shard of another key is written again."""
    samples: tuple[Sample, ...]
    settings: BuildSettings

    @property
    def report_file(self) -> str:
        """Path of the shard's report inside the shard folder."""
        return f"{BUILDING}/{self.file.replace('/', '-').removesuffix('.parquet')}.json"


@dataclass(frozen=True, kw_only=True)
class SampleReport:
    """What a finished shard tells about one of its rows."""

    sample_id: str
    patient_id: str
    pixel_hash: str
    mask_hash: str
    diameters_px: list[float]
    """Of its lesions at the size of the sample, each as wide as a disc of its area."""
    incomplete: bool
    """Whether it has lost a lesion."""


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What is in a finished shard, and what was left out of it."""

    file: str
    key: str
    content: ShardFile
    samples: list[SampleReport]
    rejected: list[Rejected]
    repaired: list[Repaired]
    read: int
    """Samples that were tried."""


TASK = TypeAdapter(ShardTask)
REPORT = TypeAdapter(ShardReport)


def write_shard(task: ShardTask, out: Folder | str) -> ShardReport:
    """Write one shard and its report, unless both are there already.

    Args:
        task: what to write.
        out: the shard folder, or its path or URI.

    Returns:
        The report.

    Raises:
        OSError: the disk or the network does not answer, or is full.
    """
    out = out if isinstance(out, Folder) else Folder(out)
    done = finished(task, out)
    if done is not None:
        return done
    cv2.setNumThreads(1)  # one process a core; OpenCV's own threads would only take turns
    with scratch_folder(out) as scratch:
        file = Path(scratch) / "shard.parquet"
        writer = _Writer(file, task)
        content = writer.write()
        move_in(file, out, task.file)
    report = ShardReport(
        file=task.file,
        key=task.key,
        content=content,
        samples=writer.samples,
        rejected=writer.rejected,
        repaired=writer.repaired,
        read=len(task.samples),
    )
    out.write_bytes(task.report_file, REPORT.dump_json(report))
    return report


@cache
def keep_freed_memory() -> None:
    """Let this process keep what it frees for its next film, where the C library is glibc.

    By default the arrays of a film, tens of MB each, are given back to the kernel and fetched anew, page by page: a
    sixth of a film's time.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def finished(task: ShardTask, out: Folder) -> ShardReport | None:
    """The report of a shard that is there and is what the report says; None otherwise."""
    try:
        report = REPORT.validate_json(out.read_bytes(task.report_file))
        whole = sha256_of(out, task.file) == report.content.sha256
    except (FileNotFoundError, ValidationError):
        return None
    return report if whole and report.key == task.key else None


def sha256_of(folder: Folder, name: str) -> str:
    """The SHA-256 of a file in a folder, read piece by piece. Raises FileNotFoundError."""
    digest = hashlib.sha256()
    with folder.open_input(name) as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def shard_schema(settings: BuildSettings) -> pa.Schema:
    """The columns of a shard, further normalisations included."""
    schema = SHARD_SCHEMA
    for column in list(image_columns(settings).values())[1:]:
        schema = schema.append(pa.field(column, pa.binary()))
    return schema


def describe_file(file: Path, rows: int) -> ShardFile:
    """The card's entry for a shard on this machine's disk."""
    return ShardFile(rows=rows, bytes=file.stat().st_size, sha256=sha256_of(Folder(file.parent), file.name))


def write_rows(file: Path, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> int:
    """Write row groups to a Parquet file (zstd, no dictionaries: pixels repeat nothing). Returns the rows."""
    rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=False) as parquet:
        for batch in batches:
            parquet.write_batch(batch)
            rows += batch.num_rows
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    return rows


class _Writer:
    """Prepares a task's samples one after the other, and remembers what became of them."""

    def __init__(self, file: Path, task: ShardTask) -> None:
        self.samples: list[SampleReport] = []
        self.rejected: list[Rejected] = []
        self.repaired: list[Repaired] = []
        self._file = file
        self._task = task
        self._schema = shard_schema(task.settings)

    def write(self) -> ShardFile:
        rows = write_rows(self._file, self._batches(), self._schema)
        return describe_file(self._file, rows)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        pending: list[dict[str, Any]] = []
        size = len(image_columns(self._task.settings)) + 1
        row_bytes = size * self._task.settings.size_px**2
        for sample, fetched in fetch_ahead(self._task.samples):
            pending += self._prepare(sample, fetched)
            if len(pending) * row_bytes >= ROW_GROUP_BYTES:
                yield pa.RecordBatch.from_pylist(pending, schema=self._schema)
                pending = []
        if pending:
            yield pa.RecordBatch.from_pylist(pending, schema=self._schema)

    def _prepare(self, sample: Sample, fetched: Fetched) -> list[dict[str, Any]]:
        prepared = prepare_sample(sample, self._task.settings, fetched)
        self.rejected += prepared.rejected
        self.repaired += prepared.repaired
        self.samples += [_report(row) for row in prepared.rows]
        return prepared.rows


def _report(row: dict[str, Any]) -> SampleReport:
    return SampleReport(
        sample_id=row["sample_id"],
        patient_id=row["patient_id"],
        pixel_hash=row["pixel_hash"],
        mask_hash=xxhash.xxh3_128_hexdigest(row["mask"]),
        diameters_px=[round(2 * math.sqrt(lesion["exact_area_px"] / math.pi), 2) for lesion in row["lesions"]],
        incomplete="lesions_left_out" in row["repairs"],
    )


def scratch_folder(out: Folder) -> tempfile.TemporaryDirectory[str]:
    """A folder to write in: on the disk of `out`, so that moving is renaming, or this machine's own."""
    if out.local is None:
        return tempfile.TemporaryDirectory()
    (out.local / BUILDING).mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=out.local / BUILDING)


def move_in(file: Path, out: Folder, name: str) -> None:
    """Move a finished file from `scratch_folder` into the shard folder, as a whole."""
    if out.local is None:
        out.write_bytes(name, file.read_bytes())
        return
    target = out.local / name
    target.parent.mkdir(parents=True, exist_ok=True)
    file.replace(target)
