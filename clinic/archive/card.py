"""`film.json`: what an archive says of one film. All that it takes to put the regions back, under pseudonyms."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clinic.archive.identity import FilmFacts, FilmIds
from cluster.storage import Folder
from data_prep.read.images import check_size
from data_prep.shape.box import Box

FILM = "film.json"


class RegionEntry(BaseModel):
    """One region of a film."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^region_\d{1,4}\.dcm$")
    box: Box
    """In pixels of the film."""
    bytes: int = Field(ge=0)
    """Of the file."""
    pixel_sha256: str
    """Of the stored values, row by row, 16-bit ones little-endian."""


class FilmCard(BaseModel):
    """One film of an archive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    rows: int
    columns: int
    dtype: Literal["uint8", "uint16"]
    facts: FilmFacts
    ids: FilmIds
    film_bytes: int = Field(ge=0)
    """Of the original file."""
    regions: tuple[RegionEntry, ...]

    @model_validator(mode="after")
    def _check(self) -> FilmCard:
        check_size(self.rows, self.columns)
        whole = Box(0, 0, self.rows, self.columns)
        if not all(whole.covers(entry.box) and entry.box.rows > 0 and entry.box.columns > 0 for entry in self.regions):
            raise ValueError("a region leaves the film")
        return self


def read_card(folder: Folder) -> FilmCard:
    """The card of a film's folder. Raises ValueError that names the file."""
    try:
        return FilmCard.model_validate(folder.read_json(FILM))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{folder}/{FILM} is damaged: {place}: {first['msg']}") from error
