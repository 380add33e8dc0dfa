"""Every image file below a folder, by its header: the step that reads a download once and remembers it.

Nothing is taken from a file's path, name or order that its header can tell. `build_index` lists the files, reads
their headers in threads (or wherever `map_batches` sends them), and keeps what it read in a cache by size and time of
the files, so that a second look costs one listing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from pyarrow import fs

from cluster.storage import Folder
from data_prep.read.dicom import HeaderError, is_dicom, read_header, read_shape
from data_prep.schema import ReadError, Rejected

CACHE_VERSION = 1
BATCH_FILES = 64
THREADS = 8
ASPECT_TOLERANCE = 0.01
SIDE_FILES = frozenset({".csv", ".json", ".txt", ".md", ".xml", ".html", ".xlsx", ".tcia", ".pdf", ".parquet", ".log"})
SIDE_NAMES = frozenset({"LICENSE", "README", "DICOMDIR", "Thumbs.db", "desktop.ini", "complete"})


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One image file as its header tells it."""

    path: str
    """Path or URI to read it by."""
    relative: str
    """Path below the root, with forward slashes."""
    bytes: int
    mtime_ns: int
    fault: str = ""
    """Why the file cannot be used, as a `Rejected.reason`; empty if it can."""
    dicom: bool = True
    name: str = ""
    """PatientID: CBIS-DDSM keeps the image's name there, with `_<abnormality id>` for crops and masks."""
    series_uid: str = ""
    description: str = ""
    """SeriesDescription; empty where the file has none."""
    rows: int = 0
    columns: int = 0
    bits: int = 8
    largest_value: int | None = None


Batches = Iterable[list[FileRecord]]
MapBatches = Callable[[Callable[[list[FileRecord]], list[FileRecord]], list[list[FileRecord]]], Batches]
"""Applies a function to each batch, anywhere, and yields the results in the order of the batches."""


def list_files(root: Folder) -> tuple[list[FileRecord], list[Rejected]]:
    """Every file below `root`, in sorted order, headers not yet read; and the links that lead out of it.

    Links to places inside `root` are passed over in silence: the target is listed itself.
    """
    if root.local is None:
        return _list_remote(root), []
    files: list[FileRecord] = []
    rejected: list[Rejected] = []
    top = root.local.resolve()
    pending = [(root.local, "")]
    while pending:
        folder, above = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                relative = f"{above}{entry.name}"
                if entry.is_symlink():
                    target = Path(entry.path).resolve()
                    if not target.is_relative_to(top):
                        reason = f"outside_root: a link to {target}"
                        rejected.append(Rejected(path=entry.path, sample_id="", reason=reason))
                elif entry.is_dir():
                    pending.append((Path(entry.path), f"{relative}/"))
                elif entry.is_file():
                    status = entry.stat()
                    files.append(_listed(entry.path, relative, status.st_size, status.st_mtime_ns))
    return sorted(files, key=lambda f: f.relative), sorted(rejected, key=lambda r: r.path)


def _list_remote(root: Folder) -> list[FileRecord]:
    selector = fs.FileSelector(root.path, recursive=True, allow_not_found=True)
    skip = len(root.path) + 1
    infos = [info for info in root.filesystem.get_file_info(selector) if info.type == fs.FileType.File]
    files = [_listed((root / i.path[skip:]).uri, i.path[skip:], i.size, i.mtime_ns or 0) for i in infos]
    return sorted(files, key=lambda f: f.relative)


def _listed(path: str, relative: str, size: int, mtime_ns: int) -> FileRecord:
    return FileRecord(path=path, relative=relative, bytes=size, mtime_ns=mtime_ns)


def is_image_candidate(file: FileRecord) -> bool:
    """Whether a file may be an image: not a hidden file, nor one of those that lie beside a download."""
    path = PurePosixPath(file.relative)
    return not (path.name.startswith(".") or path.name in SIDE_NAMES or path.suffix.lower() in SIDE_FILES)


def compare_sizes(mask: FileRecord, image: FileRecord) -> str:
    """What a mask's size says beside its image's.

    Returns:
        Empty if they are equal; `mask_rescaled: ...`, a repair, if the aspect ratios are within 1 % (the mask is then
        resized when it is read); else `mask_other_aspect: ...`, a rejection.
    """
    if (mask.rows, mask.columns) == (image.rows, image.columns):
        return ""
    ratio = (mask.rows / mask.columns) / (image.rows / image.columns)
    verdict = "mask_rescaled" if abs(ratio - 1) <= ASPECT_TOLERANCE else "mask_other_aspect"
    return f"{verdict}: mask {mask.rows} x {mask.columns}, image {image.rows} x {image.columns}"


def build_index(
    files: list[FileRecord], *, cache: Path | None = None, map_batches: MapBatches | None = None
) -> list[FileRecord]:
    """Read the headers of `files` and return them filled in, in the same order.

    Args:
        files: image candidates, as `list_files` gives them.
        cache: a JSON file of earlier records; read if it is there, written if anything was new.
        map_batches: where headers are read; threads of this process by default.
    """
    known = _read_cache(cache)
    fresh = [f for f in files if _key(f) not in known]
    batches = [fresh[i : i + BATCH_FILES] for i in range(0, len(fresh), BATCH_FILES)]
    for batch in (map_batches or _map_in_threads)(read_batch, batches):
        known.update((_key(record), record) for record in batch)
    records = [replace(known[_key(f)], path=f.path) for f in files]
    if cache is not None and fresh:
        _write_cache(cache, records)
    return records


def read_batch(files: list[FileRecord]) -> list[FileRecord]:
    """Read the headers of some files; a file that cannot be used comes back with its fault."""
    return [_read_record(file) for file in files]


def _map_in_threads(
    function: Callable[[list[FileRecord]], list[FileRecord]], batches: list[list[FileRecord]]
) -> Batches:
    with ThreadPoolExecutor(THREADS) as threads:
        yield from threads.map(function, batches)


def _read_record(file: FileRecord) -> FileRecord:
    try:
        if not is_dicom(file.path):
            rows, columns = read_shape(file.path)
            return replace(file, dicom=False, rows=rows, columns=columns)
        header = read_header(file.path)
        fault = ""
    except HeaderError as error:
        header, fault = error.header, str(error)
    except ReadError as error:
        return replace(file, fault=str(error))
    return replace(
        file,
        fault=fault,
        name=header.patient_id,
        series_uid=header.series_uid,
        description=header.series_description,
        rows=header.rows,
        columns=header.columns,
        bits=header.bits_allocated,
        largest_value=header.largest_value,
    )


def _key(file: FileRecord) -> tuple[str, int, int]:
    return file.relative, file.bytes, file.mtime_ns


def _read_cache(cache: Path | None) -> dict[tuple[str, int, int], FileRecord]:
    if cache is None or not cache.exists():
        return {}
    try:
        content = json.loads(cache.read_text())
        if content["version"] != CACHE_VERSION:
            return {}
        records = [FileRecord(path="", **record) for record in content["files"]]
    except (ValueError, TypeError, KeyError):  # a cache that cannot be read is made again
        return {}
    return {_key(record): record for record in records}


def _write_cache(cache: Path, records: list[FileRecord]) -> None:
    files = [{k: v for k, v in asdict(record).items() if k != "path"} for record in records]
    content = json.dumps({"version": CACHE_VERSION, "files": files}, separators=(",", ":"))
    Folder(cache.parent).write_text(cache.name, content)
