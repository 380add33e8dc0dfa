"""The shipped studies, `nas.yaml` and `configs/`, as files that a user can have: for `mammosearch init`.

In a checkout they are the checkout's own; a wheel carries copies in `mammosearch/shipped/` (see setup.py).
"""

from __future__ import annotations

import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
SCHEMA = PACKAGE.parent / "search" / "settings" / "nas.schema.json"


class SettingsExistError(ValueError):
    """There are files of these names already; the message lists them."""


def shipped() -> dict[str, Path]:
    """Name below a user's folder -> the file."""
    root = PACKAGE / "shipped" if (PACKAGE / "shipped").is_dir() else PACKAGE.parent
    files = [root / "nas.yaml", *sorted((root / "configs").glob("*.yaml"))]
    return {str(file.relative_to(root)): file for file in files}


def write_settings(folder: Path, *, force: bool = False) -> list[Path]:
    """Write them all, or none. The line that tells an editor the schema names the installed one.

    Raises:
        SettingsExistError: some are there already, and `force` was not given.
        OSError: the folder cannot be written.
    """
    there = [name for name in shipped() if (folder / name).exists()]
    if there and not force:
        raise SettingsExistError(f"{', '.join(there)} already in {folder.resolve()}; --force writes over them")
    for name, file in shipped().items():
        text = file.read_text(encoding="utf-8")
        text = re.sub(r"(?<=\$schema=)\S+", lambda _: SCHEMA.as_posix(), text, count=1)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in shipped()]
