"""What a study shows of itself while it runs: plain figures for the console."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.record import Role


@dataclass(kw_only=True)
class Seen:
    """What is known of a trial at this moment, for the console."""

    role: Role
    encoder: str
    pool: str
    epochs: int
    epoch: int = 0
    rung: int = 0
    """The highest rung it has reached, in epochs."""
    value: float | None = None
    """Its first objective so far."""
    slot_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the study stands, for the console."""

    entered: int
    trials: int
    counts: dict[str, int]
    """Ended trials by status."""
    best: float | None
    best_trial: str
    left_s: float | None
