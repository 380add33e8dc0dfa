"""Every file below a folder, headers not yet read; and what lies there that is none.

A folder that is not as it should be costs its own part alone: a name that is not UTF-8, a link that loops or leads
nowhere, a pipe, a sub-folder that cannot be read or lies too deep are rows of the list of what was left out.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cluster.storage import Folder
from data_prep.read.files import OWN_FAULTS, patiently
from data_prep.schema import Rejected

SIDE_FILES = frozenset({".csv", ".json", ".txt", ".md", ".xml", ".html", ".xlsx", ".tcia", ".pdf", ".parquet", ".log"})
SIDE_NAMES = frozenset({"LICENSE", "README", "DICOMDIR", "Thumbs.db", "desktop.ini", "complete"})


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """One file: as it is listed, and once its header was read (`data_prep.find.index`), as that tells it."""

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
    """The image's name that CBIS-DDSM keeps in PatientID, with `_<abnormality id>` for crops and masks; else empty."""
    series: str = ""
    """`digest_uid` of the SeriesInstanceUID."""
    description: str = ""
    """SeriesDescription; empty where the file has none."""
    rows: int = 0
    columns: int = 0
    bits: int = 8
    largest_value: int | None = None
    measured: bool = False
    """Whether the share of marked pixels is wanted: of masks, where splits are to be drawn."""
    marked_share: float | None = None
    """Share of the file's pixels that are marked; None where it was not wanted or cannot be told."""


def list_files(root: Folder, *, any_name: bool = False) -> tuple[list[FileRecord], list[Rejected]]:
    """Every file below `root`, in sorted order; and what is left out: links out of it, pipes, what cannot be listed.

    Links to places inside `root` are passed over in silence: the target is listed itself.

    Args:
        root: an existing folder.
        any_name: whether names that are not UTF-8 are taken, as `os.fsdecode` gives them.

    Raises:
        OSError: the disk does not answer, or the root itself cannot be listed.
    """
    if root.local is None:
        return _list_remote(root), []
    files: list[FileRecord] = []
    rejected: list[Rejected] = []
    top = root.local.resolve()
    pending = [(str(root.local), "")]
    while pending:
        folder, above = pending.pop()
        try:
            entries = patiently(lambda at: list(os.scandir(at)))(folder)
        except OSError as error:
            if error.errno not in OWN_FAULTS or not above:
                raise
            rejected.append(_rejected(folder, f"unreadable: the folder cannot be listed: {error.strerror}"))
            continue
        for entry in entries:
            relative = f"{above}{entry.name}"
            if reason := _fault(entry, top, any_name):
                if is_image_candidate(relative):
                    rejected.append(_rejected(entry.path, reason))
            elif entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, f"{relative}/"))
            elif entry.is_file(follow_symlinks=False):
                status = entry.stat()
                files.append(_listed(entry.path, relative, status.st_size, status.st_mtime_ns))
    return sorted(files, key=lambda f: f.relative), sorted(rejected, key=lambda r: r.path)


def _fault(entry: os.DirEntry[str], top: Path, any_name: bool) -> str:
    """Why an entry of a folder is neither a file nor a folder to look into, or empty."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        if not any_name:
            return "bad_name: its name is not UTF-8; rename it"
    if entry.is_symlink():
        return _link_fault(entry.path, top)
    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
        return ""
    return "no_file: a pipe, a socket or a device"


def _link_fault(path: str, top: Path) -> str:
    try:
        target = Path(path).resolve(strict=True)
    except (OSError, RuntimeError) as error:  # a loop is a RuntimeError up to Python 3.12
        end = "which is not there" if isinstance(error, FileNotFoundError) else "which leads nowhere"
        return f"no_file: a link to {str(Path(path).readlink())!r}, {end}"
    return "" if target.is_relative_to(top) else f"outside_root: a link to {target}"


def _rejected(path: str, reason: str) -> Rejected:
    """A row of the list; names that are not UTF-8 are written with backslashes."""
    return Rejected(
        path=path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
        sample_id="",
        reason=reason.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
    )


def _list_remote(root: Folder) -> list[FileRecord]:
    base, mark, options = root.uri.partition("?")
    return [_listed(f"{base}/{i.path}{mark}{options}", i.path, i.size, i.mtime_ns) for i in root.infos()]


def _listed(path: str, relative: str, size: int, mtime_ns: int) -> FileRecord:
    return FileRecord(path=path, relative=relative, bytes=size, mtime_ns=mtime_ns)


def is_image_candidate(relative: str) -> bool:
    """Whether a file may be an image: not a hidden file, nor one of those that lie beside a download."""
    path = PurePosixPath(relative)
    return not (path.name.startswith(".") or path.name in SIDE_NAMES or path.suffix.lower() in SIDE_FILES)


def what_is_there(root: Folder, files: Iterable[FileRecord], rejected: Iterable[Rejected]) -> str:
    """What lies below a root in which nothing was found, for the message: folders with files, and links out of it."""
    tops = Counter(f"{parts[0]}/" if len(parts := f.relative.split("/")) > 1 else "(at its top)" for f in files)
    listed = ", ".join(f"{top} with {count} files" for top, count in tops.most_common(6))
    links = [item for item in rejected if item.reason.startswith("outside_root: a link")]
    text = f"below {root} there is {listed or 'no file'}"
    if links:
        first = links[0].reason.removeprefix("outside_root: a link to ")
        text += f"; links out of it are not followed, as {links[0].path} to {first}: give that as root"
    return text
