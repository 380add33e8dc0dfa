"""Choices of the command line, as the values that predicting takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from clinic.predict.outputs import DEFAULT_OUTPUTS, OUTPUTS, Output
from clinic.runtime.model import AXES, Flip


def to_outputs(text: str | None) -> tuple[Output, ...]:
    """`mask,seg` as a tuple; None: the default ones. Raises ValueError that lists what there is."""
    if text is None:
        return DEFAULT_OUTPUTS
    names = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in names if name not in OUTPUTS]
    if unknown or not names:
        raise ValueError(f"write: {text!r} names {unknown or 'nothing'}; there are {', '.join(OUTPUTS)}")
    return tuple(cast(Output, name) for name in dict.fromkeys(names))


def to_flips(names: Sequence[str]) -> tuple[Flip, ...]:
    """Names of flips as a tuple without repetitions. Raises ValueError that lists what there is."""
    unknown = [name for name in names if name not in AXES]
    if unknown:
        raise ValueError(f"flips: {', '.join(unknown)} is unknown; there are {', '.join(AXES)}")
    return tuple(cast(Flip, name) for name in dict.fromkeys(names))
