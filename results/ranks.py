"""Whether the order of the encoders after the search is their order after the full training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class RankAgreement:
    """How far the order of the encoders after the search is their order after the full training."""

    encoders: int
    """Encoders that have both scores."""
    kendall_tau: float
    """Kendall's tau-b, in [-1, 1]; NaN with fewer than two encoders."""
    spearman_rho: float
    """Spearman's rank correlation, in [-1, 1]; NaN with fewer than two encoders."""
    overtakes: tuple[tuple[str, str], ...]
    """Pairs (winner, loser) whose order the full training turned round."""


def agreement_of(scores: dict[str, tuple[float, float]]) -> RankAgreement:
    """Rank agreement of (first score, second score) by name; names with a NaN are left out."""
    known = {name: pair for name, pair in scores.items() if not any(pd.isna(score) for score in pair)}
    table = pd.DataFrame(known.values(), index=list(known), columns=["first", "second"], dtype=float)
    pairs = [(a, b) for a in table.index for b in table.index if a != b]
    turned = [(a, b) for a, b in pairs if known[a][0] < known[b][0] and known[a][1] > known[b][1]]
    ranks = table.rank()
    rho = _correlation(ranks["first"], ranks["second"])
    return RankAgreement(len(known), _kendall_tau(table), rho, tuple(turned))


def _kendall_tau(table: pd.DataFrame) -> float:
    """Kendall's tau-b: the correlation of the signs of all pairwise differences."""
    points = list(zip(table["first"], table["second"], strict=True))
    signs = [(_sign(a[0] - b[0]), _sign(a[1] - b[1])) for a in points for b in points]
    concordance = sum(x * y for x, y in signs)
    scale = math.sqrt(sum(x * x for x, _ in signs) * sum(y * y for _, y in signs))
    return concordance / scale if scale else math.nan


def _correlation(first: pd.Series, second: pd.Series) -> float:
    varied = len(first) > 1 and first.nunique() > 1 and second.nunique() > 1
    return float(first.corr(second)) if varied else math.nan


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
