"""What a method decides for a free slot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A configuration that a sampler proposes."""

    params: Mapping[str, Any]
    notes: Mapping[str, Any]
    """What the sampler must find again in the trial (`Seen.notes`)."""
    baseline: bool = False
    """Whether it is a baseline, which nobody proposed and nobody stops."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A new trial begins and trains up to epoch `until`."""

    proposal: Proposal
    until: int


@dataclass(frozen=True, kw_only=True)
class Resume:
    """A paused trial goes on from its checkpoint, up to epoch `until`."""

    number: int
    until: int


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A paused trial is pruned. It takes no slot: ask again."""

    number: int
    reason: str


Step = Start | Resume | Stop

Propose = Callable[[], Proposal | None]
"""Gives the proposal for the next new trial; None if no new one may begin."""
