"""Files of other makers: 297 of them, each with the verdict that is checked in (`foreign_corpus.py`).

pytest tests/data_prep/test_foreign_corpus.py
"""

from __future__ import annotations

import pytest

from tests.data_prep.foreign_corpus import FOLDERS, files, read_table, verdict

EXTRAS = {"data_store": "pydicom-data"}


@pytest.mark.slow
@pytest.mark.parametrize("package", FOLDERS)
def test_every_file_of_other_makers_is_read_or_refused_as_before(package):
    for codec in ("libjpeg", "openjpeg", "jpeg_ls"):
        pytest.importorskip(codec, reason="needs the extra codecs")
    found = files(package)
    if not found:
        pytest.skip(f"needs the package {EXTRAS.get(package, package)} (the extra corpus)")
    expected = {name: said for (of, name), said in read_table().items() if of == package}
    assert {name: verdict(path) for name, path in found.items()} == expected


def test_no_file_of_the_table_is_read_wrongly():
    said = read_table()
    assert len(said) == 297 and "differs" not in said.values()
    assert sum(word.startswith("read") for word in said.values()) == 92
