"""What the engine tells its listeners: the console, the journal, the trackers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from search.trials import Trial

Kind = Literal["ordered", "epoch", "paused", "ended"]


@dataclass(frozen=True)
class Event:
    """Something that happened to a trial, after it was written into its folder."""

    kind: Kind
    """`ordered`: a slot is to train it; `epoch`: it finished one, or told its last one again;
    `paused`: it lies with its checkpoint until it is ordered again; `ended`."""
    trial: Trial


Listener = Callable[[Event], None]
