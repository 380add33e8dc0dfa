"""Colours of the encoders, by day and by night: told apart by colour-blind readers too.

The first five are the paper's encoders', in its order; further ones go to other encoders as they come. Chosen by a
search over colours that are legible on the page, for the largest distance between any two: at least 18 (light) and 13
(dark) in CIELAB, in normal, protanope, deuteranope and tritanope sight (matrices of Machado et al. 2009, severity 1).
In grey they are not told apart: figures give every encoder its own symbol or label besides.
"""

from __future__ import annotations

from collections.abc import Iterable

from trainables.config import PAPER_ENCODERS

LIGHT = ("#9a3800", "#4a90cf", "#005949", "#a75d82", "#9a8640", "#7d0df2", "#681188", "#8d77fe")
DARK = ("#cb7c6d", "#689ce0", "#8eceab", "#f482bc", "#f5cb52", "#a933fb", "#d33e14", "#cbd483")
OTHER_LIGHT, OTHER_DARK = "#696f77", "#8b919a"
"""Of the encoders beyond the eighth."""
TRUTH, FOUND = "#35d6ff", "#ffae34"
"""Outlines on films: the radiologist's, dashed, and the network's, solid."""


def encoder_order(encoders: Iterable[str]) -> list[str]:
    """The paper's encoders in its order, then the others by name."""
    found = set(encoders)
    return [name for name in PAPER_ENCODERS if name in found] + sorted(found - set(PAPER_ENCODERS))


def colour_numbers(encoders: Iterable[str]) -> dict[str, int | None]:
    """Encoder -> index into `LIGHT` and `DARK`; None beyond the last. One of the paper's always has the same."""
    ordered = encoder_order(encoders)
    numbers: dict[str, int | None] = {name: PAPER_ENCODERS.index(name) for name in ordered if name in PAPER_ENCODERS}
    free = iter([*range(len(PAPER_ENCODERS), len(LIGHT)), *(n for n in range(5) if n not in numbers.values())])
    return {name: numbers[name] if name in numbers else next(free, None) for name in ordered}
