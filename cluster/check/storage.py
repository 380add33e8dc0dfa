"""Whether a folder, wherever it lies, can do what a study asks of it: write, read, list and delete."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from cluster.storage import Folder

SIZE_BYTES = 1 << 20


def check_storage(folder: Folder, *, tell: Callable[[str], None]) -> None:
    """Write a file of 1 MB below the folder, read it, list it and remove it again.

    Raises:
        OSError: a step failed; the message names the step and the folder.
        ValueError: what came back is not what was written.
    """
    name = f"check-{uuid.uuid4().hex[:8]}"
    content = uuid.uuid4().bytes * (SIZE_BYTES // 16)
    place = folder / name
    steps: list[tuple[str, Callable[[], object]]] = [
        ("write", lambda: place.write_bytes("a/b.bin", content)),
        ("read", lambda: _same(place.read_bytes("a/b.bin"), content)),
        ("list", lambda: _same(list(place.walk()), [("a/b.bin", len(content))])),
        ("delete", lambda: folder.remove(name)),
        ("list again", lambda: _same(place.names(), [])),
    ]
    made = folder.local is not None and not folder.exists()
    for step, action in steps:
        began = time.perf_counter()
        try:
            action()
        except (OSError, ValueError) as error:
            kind = ValueError if isinstance(error, ValueError) else type(error)
            raise kind(f"{folder}: cannot {step}: {error}") from error
        tell(f"{step}: {time.perf_counter() - began:.3f} s")
    if made and folder.local is not None:
        folder.local.rmdir()


def _same(found: object, expected: object) -> None:
    if found != expected:
        raise ValueError("what came back is not what was written")
