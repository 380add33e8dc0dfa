"""Who builds in a folder, and what: one build at a time, never over files that no build makes.

    with only_builder(out):                 # waits for another build of the same folder
        claim(out, Claim(...))

A shard folder holds its card, the two lists, `train/00000.parquet` and so on, and while it is built `.building/`. A
folder with anything else is refused, so that nothing of a user's is ever removed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from cluster.storage import Folder
from data_prep.schema import PLACES, SPLITS, BuildSettings
from data_prep.shards import CARD, OLD_CARD, REJECTED, REPAIRED
from data_prep.write import BUILDING

LOG = logging.getLogger(__name__)
LOCK = ".lock"
CLAIM = f"{BUILDING}/settings.json"
_ASIDE = r"(\.tmp-[0-9a-f]{8})?"
_BESIDE = "|".join(re.escape(name) for name in (CARD, REJECTED, REPAIRED, OLD_CARD, "rejected.csv", "repaired.csv"))
OURS = re.compile(
    rf"({_BESIDE}){_ASIDE}|(train|val|test)/\d{{5}}\.parquet{_ASIDE}|{re.escape(BUILDING)}/.*|{re.escape(LOCK)}"
)
"""What a build makes, this version's and the last one's."""
FOLDERS = (BUILDING, *SPLITS)


def check_place(out: Folder, root: str | None) -> None:
    """Refuse a folder for shards in which a user's files are, or could come to lie.

    Args:
        out: the shard folder.
        root: of the source, where it has one.

    Raises:
        ValueError: `out` holds files that no build makes, or is the source's folder, above or below it.
    """
    if root is not None:
        here, there = _parts(out), _parts(Folder(root))
        shorter = min(len(here), len(there))
        if here[:shorter] == there[:shorter]:
            word = "is" if here == there else "lies inside of" if len(here) > shorter else "contains"
            raise ValueError(f"out: {out} {word} the source's folder {root}; give the shards a folder of their own")
    others = foreign(out)
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        raise ValueError(f"{out} holds {', '.join(others[:5])}{more}, which no build makes; choose another folder")


def check_source(settings: BuildSettings) -> None:
    """Refuse a source that is not there, before anything is made for its shards.

    Raises:
        ValueError: names the setting.
    """
    if settings.source == "phantom":
        return
    root = Folder(settings.root or "")
    if not root.exists():
        raise ValueError(f"root: {root} does not exist; give the folder of the source's files")
    if root.local is not None and not root.local.is_dir():
        raise ValueError(f"root: {root} is no folder; give the folder of the source's files")
    if settings.index_csv and not Folder(settings.index_csv).exists():
        raise ValueError(f"index_csv: {settings.index_csv} does not exist")


def foreign(out: Folder) -> list[str]:
    """The files and folders of a folder that no build makes; those at its top alone where there are any."""
    at_top = [name for name in out.names() if name not in (*FOLDERS, LOCK) and not OURS.fullmatch(name)]
    return at_top or [file for file, _ in out.walk() if not OURS.fullmatch(file)]


@contextmanager
def only_builder(out: Folder, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a folder on a disk alone; wait, after calling `waiting`, where another process holds it.

    The lock goes with its process, however that ends. In an object store there is none: two builds there write the same
    bytes to the same names.
    """
    if out.local is None:
        yield
        return
    out.local.mkdir(parents=True, exist_ok=True)
    with locked(out.local / LOCK, waiting):
        yield


@contextmanager
def locked(file: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock file of this machine, or of a shared disk; wait, after calling `waiting`, where another holds it."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    except NotImplementedError:
        LOG.warning("%s: the disk knows no locks; do not build there twice at the same time", file)
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a build makes of which source."""

    settings: BuildSettings
    source_sha256: str


CLAIMS = TypeAdapter(Claim)


def claim(out: Folder, mine: Claim) -> None:
    """Say in the folder what is being built, or make sure that a killed build began the same.

    Raises:
        ValueError: another build has finished shards there; the message has the difference.
    """
    earlier: Any = out.read_json(CLAIM) if out.exists(CLAIM) else None
    if earlier is not None and _has_reports(out):
        refuse_other(out, CLAIMS.validate_python(earlier), mine)
    out.write_json(CLAIM, CLAIMS.dump_python(mine, mode="json"))


def refuse_other(out: Folder, earlier: Claim, mine: Claim) -> None:
    """Refuse to go on with shards of other settings or another source. Raises ValueError with the difference."""
    before, now = earlier.settings.shaping(), mine.settings.shaping()
    differences = [f"{key}: {before[key]} there, {now[key]} now" for key in now if before[key] != now[key]]
    if not differences and earlier.source_sha256 != mine.source_sha256:
        places = " ".join(str(place) for name in PLACES if (place := getattr(mine.settings, name)))
        differences = [f"the source's files have changed {f'({places})' if places else ''}".rstrip()]
    if differences:
        raise ValueError(
            f"{out} was built differently: {'; '.join(differences)}. Choose another folder, or build this one again "
            "with --overwrite"
        )


def remove_shards(out: Folder) -> None:
    """Remove what builds have made in a folder, finished or not, and nothing else."""
    files = [file for file, _ in out.walk() if OURS.fullmatch(file) and file != LOCK]
    for file in [CARD, *files]:  # the card first: a folder with a card is complete
        out.remove(file)
    for folder in FOLDERS:
        if folder == BUILDING or not (out / folder).names():
            out.remove(folder)


def _has_reports(out: Folder) -> bool:
    return any(name.endswith(".json") and name != Path(CLAIM).name for name in (out / BUILDING).names())


def _parts(folder: Folder) -> tuple[str, ...]:
    """A folder's place in parts that can be compared: links resolved, the store's scheme first."""
    if folder.local is not None:
        return folder.local.resolve().parts
    return tuple(str(folder).split("/"))
