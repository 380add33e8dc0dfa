"""Test films for the report: a JPEG each, and the outlines of the truth and of what the finals found as SVG paths.

Films are chosen by rule, never by hand: those with the highest, the middle and the lowest mean Dice over the finals.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from results.examples import Picture
from trainables.score.tables import found_mask

# H, W: rows and columns.

CASES = (("Best", 2), ("Median", 3), ("Worst", 3))
MOST_FINALS = 4
JPEG_QUALITY = 82


@dataclass(frozen=True)
class Found:
    """What one final found on one film."""

    final: str
    path: str
    """Outline as the `d` of an SVG path, in pixels of the film."""
    dice: float


@dataclass(frozen=True)
class Film:
    """One test film with its outlines."""

    number: int
    sample_id: str
    jpeg: str
    """Base64."""
    size: tuple[int, int]
    """Width and height in pixels."""
    truth: str
    found: tuple[Found, ...]


def films(images: pd.DataFrame, known: Mapping[str, Picture], finals: Sequence[str]) -> list[tuple[str, list[Film]]]:
    """Best, median and worst films, as (heading, films); empty where there is no picture of a tested film.

    Args:
        images: `results.load_images`: the mean of its Dice over all networks ranks the films.
        known: `results.examples.pictures`: the films that can be shown; only these are ranked.
        finals: whose outlines are drawn, best first; of each its first network's.
    """
    ranked = images[images.sample_id.isin(list(known))].groupby("sample_id").dice.mean()
    ranked = ranked.sort_values(ascending=False, kind="stable")
    networks = images.groupby("final").trial_id.min()
    first = images[images.trial_id.isin(networks)].to_dict("records")
    drawn = {(row["sample_id"], row["final"]): row for row in first}
    shown = [name for name in finals if name in networks.index][:MOST_FINALS]
    groups, number = [], 0
    for heading, samples in _cases([str(sample) for sample in ranked.index]):
        rows = []
        for sample in samples:
            found = [_found(name, drawn[sample, name]) for name in shown if (sample, name) in drawn]
            rows.append(_film(number, sample, known[sample], found))
            number += 1
        groups.append((heading, rows))
    return groups


def _cases(ranked: list[str]) -> list[tuple[str, list[str]]]:
    """Which films are shown under which heading, from all, best first; of few films each is shown once."""
    if not ranked:
        return []
    best, middle, worst = (count for _, count in CASES)
    if len(ranked) <= best + middle + worst:
        return [("All that can be shown, best first", ranked)]
    start = (len(ranked) - middle) // 2
    picked = (ranked[:best], ranked[start : start + middle], ranked[-worst:])
    return [(heading, samples) for (heading, _), samples in zip(CASES, picked, strict=True)]


def _found(final: str, row: Mapping[Any, Any]) -> Found:
    """A final's outline on a film; none where its mask is damaged."""
    path = ""
    with contextlib.suppress(ValueError, TypeError):
        path = outline(found_mask(row["found"]))
    return Found(final, path, float(row["dice"]))


def _film(number: int, sample: str, picture: Picture, found: list[Found]) -> Film:
    done, jpeg = cv2.imencode(".jpg", picture.image_HW, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return Film(
        number=number,
        sample_id=sample,
        jpeg=base64.b64encode(jpeg.tobytes()).decode(),
        size=(picture.image_HW.shape[1], picture.image_HW.shape[0]),
        truth=outline(picture.truth_HW),
        found=tuple(found),
    )


def outline(mask_HW: npt.NDArray[np.bool_]) -> str:
    """The borders of a mask as an SVG path, smoothed, at half a pixel: some 200 to 2,000 bytes."""
    twice = cv2.resize(mask_HW.astype(np.float32), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    smooth = (cv2.GaussianBlur(twice, (0, 0), 1.2) > 0.5).astype(np.uint8)
    if not smooth.any():
        smooth = twice.astype(np.uint8)
    contours, _ = cv2.findContours(smooth, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parts = (cv2.approxPolyDP(contour, 0.7, True)[:, 0] / 2 for contour in contours)
    return "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in part) + "Z" for part in parts)
