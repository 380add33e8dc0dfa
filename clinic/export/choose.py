"""Which variant is used: within the limits, the fastest of those that are as good as the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinic.runtime.variants import Measured, Variant

AS_GOOD = 0.01
"""A variant whose validation Dice is no more than this below the best within the limits is as good."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the machine that will use a model can bear; None: no limit."""

    max_latency_ms: float | None = None
    """Of the 95th percentile, one image at a time."""
    max_mb: float | None = None
    """Of the file."""
    min_dice: float | None = None
    """On the validation split: the test split chooses nothing."""

    def broken_by(self, measured: Measured) -> list[str]:
        """The limits that a variant breaks, in words; empty if none."""
        broken = []
        if self.max_latency_ms is not None and not (measured.p95_ms or float("inf")) <= self.max_latency_ms:
            broken.append(f"p95 {_shown(measured.p95_ms)} ms > {self.max_latency_ms:g}")
        if self.max_mb is not None and measured.size_mb > self.max_mb:
            broken.append(f"{measured.size_mb:.1f} MB > {self.max_mb:g}")
        if self.min_dice is not None and not (measured.val_dice or 0.0) >= self.min_dice:
            broken.append(f"val Dice {_shown(measured.val_dice)} < {self.min_dice:g}")
        return broken


def choose(variants: Sequence[Variant], limits: Limits) -> Variant:
    """The variant to use.

    Args:
        variants: measured ones are looked at.
        limits: that it must keep.

    Raises:
        RuntimeError: none keeps them; the message has a line for each.
    """
    measured = [(variant, variant.measured) for variant in variants if variant.measured is not None]
    within = [(variant, found) for variant, found in measured if not limits.broken_by(found)]
    if not within:
        lines = [f"{variant.name}: {', '.join(limits.broken_by(found))}" for variant, found in measured]
        raise RuntimeError("no variant keeps the limits:\n  " + "\n  ".join(lines or ["none was measured"]))
    best = max(found.val_dice or 0.0 for _, found in within)
    good = [(variant, found) for variant, found in within if (found.val_dice or 0.0) >= best - AS_GOOD]
    return min(good, key=lambda pair: pair[1].p50_ms or float("inf"))[0]


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
