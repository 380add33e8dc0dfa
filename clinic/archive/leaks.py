"""Whether anything of a film's header is left in its archive: an independent look at bytes, not at how they were made.

Every value of the original is searched for in the bytes of the new file: of every element, those in sequences, private
ones, overlays, curves, the file meta and the preamble. Words that many films share (`BREAST`, `MONOCHROME2`) are no
one's. What the new file holds is looked at as well: no private element, no overlay, no curve.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from data_prep.read.dicom import read_dataset
from data_prep.read.files import FilePath, open_file, read_at

LEAST_LETTERS = 4
"""Shorter values (`L`, `CC`, `1`) are in any file."""
SHARED_WORDS = frozenset(
    {"BREAST", "MONOCHROME1", "MONOCHROME2", "DERIVED", "SECONDARY", "OTHER", "ORIGINAL", "PRIMARY", "NONE", "REMOVED"}
)
STANDARD_UIDS = re.compile(rb"1\.2\.840\.10008\.[\d.]+")
"""DICOM's own: classes and transfer syntaxes."""
OVERLAYS_AND_CURVES = frozenset({*range(0x5000, 0x5020, 2), *range(0x6000, 0x6020, 2)})
NUMBERS = frozenset({"US", "SS", "UL", "SL", "FL", "FD", "AT", "OF", "OD", "OL", "OV", "SV", "UV"})
"""Value representations that hold no text."""
PIXELS = (0x7FE00010, 0x7FE00008, 0x7FE00009)


def find_leaks(original: FilePath, content: bytes) -> list[str]:
    """What of an original is left in a new file: keywords or tags of elements, never their values; empty if nothing.

    Args:
        original: the film that the file was made from.
        content: of the new file.
    """
    made = pydicom.dcmread(io.BytesIO(content))
    outside = _without_pixels(made, content)
    found = [f"{name} of the original" for name, value in _values(original) if value in outside]
    for element in made.iterall():
        if element.tag.is_private:
            found.append(f"private element {element.tag}")
        if element.tag.group in OVERLAYS_AND_CURVES:
            found.append(f"overlay or curve {element.tag}")
    if any(content[:128]):
        found.append("preamble")
    return sorted(set(found))


def _values(original: FilePath) -> Iterator[tuple[str, bytes]]:
    """(name, value) of all that the original says in words: preamble, meta and elements at any depth."""
    header = read_dataset(original)
    with open_file(original) as (file, _):
        preamble = read_at(file, 0, 128).strip(b"\0 ")
    if len(preamble) >= LEAST_LETTERS:
        yield "preamble", preamble
    for part in (header.file_meta, header):
        for element in part.iterall():
            if element.VR not in NUMBERS and element.VR != "SQ" and element.tag not in PIXELS:
                for value in _words(element.value):
                    yield str(element.keyword or element.tag), value


def _words(value: Any) -> Iterator[bytes]:
    """The words of an element's value as bytes, in the encodings that a file may hold them in."""
    for part in value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]:
        if isinstance(part, bytes):
            texts = [part.strip(b"\0 ")]
        else:
            text = str(part).strip()
            texts = [text.encode(encoding, errors="ignore") for encoding in ("utf-8", "latin-1", "utf-16-le")]
        for word in texts:
            plain = word.decode("latin-1")
            if len(word) >= LEAST_LETTERS and plain not in SHARED_WORDS and not STANDARD_UIDS.fullmatch(word):
                yield word


def _without_pixels(made: Dataset, content: bytes) -> bytes:
    """A file's bytes without its pixels and its table of grey values, in which any word may occur by chance."""
    parts = [content]
    for element in made.iterall():
        if element.keyword in ("PixelData", "LUTData"):
            parts = [piece for part in parts for piece in part.split(bytes(element.value))]
    return b"\0".join(parts)
