"""Test films for the report: a JPEG each, and the outlines of the truth and of what the finals found as SVG paths.

Films are chosen by rule, never by hand: those with the highest, the middle and the lowest mean Dice over the finals.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from trainables.record import Examples

# N: films, F: finals, H, W: rows and columns.

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


def films(examples: dict[str, Examples], thresholds: dict[str, float]) -> list[tuple[str, list[Film]]]:
    """Best, median and worst films, as (heading, films); empty where no example was kept.

    Args:
        examples: by final, best first; of several seeds of one final (`name/seed`) the first is shown.
        thresholds: by final: the probability above which a pixel is lesion; 0.5 where there is none.
    """
    shown = _one_each(examples)
    if not shown:
        return []
    first = next(iter(shown.values()))
    found_FNHW = [example.probability_NHW > thresholds.get(name, 0.5) for name, example in shown.items()]
    dice_FN = np.array(
        [[_dice(t > 0, f) for t, f in zip(first.mask_NHW, found_NHW, strict=True)] for found_NHW in found_FNHW]
    )
    names = [name.split("/")[0] for name in shown]
    groups = []
    for heading, picked in _cases(dice_FN.mean(axis=0)):
        rows = [
            _film(
                first,
                n,
                [(name, found[n], dice[n]) for name, found, dice in zip(names, found_FNHW, dice_FN, strict=True)],
            )
            for n in picked
        ]
        groups.append((heading, rows))
    return groups


def _one_each(examples: dict[str, Examples]) -> dict[str, Examples]:
    """One seed of each final, of the finals that were shown the same films."""
    shown: dict[str, Examples] = {}
    first = next(iter(examples.values()), None)
    for name, example in examples.items():
        new = name.split("/")[0] not in {known.split("/")[0] for known in shown}
        if first is not None and new and list(example.sample_ids) == list(first.sample_ids):
            shown[name] = example
    return dict(list(shown.items())[:MOST_FINALS])


def _cases(dice_N: npt.NDArray[Any]) -> list[tuple[str, list[int]]]:
    """Which films are shown under which heading; of few films each is shown once."""
    order = [int(n) for n in np.argsort(-dice_N, kind="stable")]
    wanted = sum(count for _, count in CASES)
    if len(order) <= wanted:
        return [("All that were kept, best first", order)]
    best, middle, worst = (count for _, count in CASES)
    start = (len(order) - middle) // 2
    return [("Best", order[:best]), ("Median", order[start : start + middle]), ("Worst", order[-worst:])]


def _film(example: Examples, n: int, found: list[tuple[str, npt.NDArray[np.bool_], float]]) -> Film:
    image_HW = example.image_NHW[n]
    done, jpeg = cv2.imencode(".jpg", image_HW, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return Film(
        number=n,
        sample_id=example.sample_ids[n],
        jpeg=base64.b64encode(jpeg.tobytes()).decode(),
        size=(image_HW.shape[1], image_HW.shape[0]),
        truth=outline(example.mask_NHW[n] > 0),
        found=tuple(Found(name, outline(mask_HW), float(dice)) for name, mask_HW, dice in found),
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


def _dice(truth_HW: npt.NDArray[np.bool_], found_HW: npt.NDArray[np.bool_]) -> float:
    """Hard Dice of one image; 1 where both masks are empty."""
    total = int(truth_HW.sum()) + int(found_HW.sum())
    return 2 * int((truth_HW & found_HW).sum()) / total if total else 1.0
