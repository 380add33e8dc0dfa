"""CSVs as people save them: UTF-8, or Latin-1 as spreadsheets of Western Europe write it."""

from __future__ import annotations

from cluster.storage import Folder
from data_prep.schema import Repaired


def read_csv_text(folder: Folder, name: str) -> tuple[str, list[Repaired]]:
    """A CSV's text, and what was put right.

    Raises:
        FileNotFoundError: there is no such file.
    """
    content = folder.read_bytes(name)
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        repair = f"not_utf8: byte {content[error.start]:#04x} in line {line}; read as Latin-1"
        return content.decode("latin-1"), [Repaired(path=f"{folder}/{name}", sample_id="", repair=repair)]
