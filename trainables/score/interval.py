"""How sure a mean is: intervals by patient, since images of one patient are not independent.

An interval is a symmetric studentised bootstrap (P. Hall, "On symmetric bootstrap confidence intervals", J. R. Stat.
Soc. B 50, 1988) of a ratio of sums over patients: a mean per image is the sum of the values over the number of images,
a pooled Dice 2 |both| over |truth| + |found|. A measure without an upper bound (false positives, a distance) is skewed
by the few patients who have most of it. Its interval has equal tails instead (B. Efron and R. Tibshirani, "An
Introduction to the Bootstrap", 1993, section 12.5), and so reaches farther up than down. Where a configuration was
trained with several seeds, the seeds are a second source of variation. `benchmarks/calibration.py` measures how often
an interval holds the true value.

Shapes: P patients, S seeds, B bootstrap draws, N images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FEWEST_PATIENTS = 10
"""With fewer patients no interval is given: what comes out is too wide and too uncertain itself."""
LEVEL = 0.95
LEAST_VARIANCE = 0.1
"""Least variance of a draw, as a share of the sample's; measured: of no effect on Dice, right for rare events."""
DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """A value and the interval that holds its true value in `LEVEL` of samples; NaN where none can be given."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def known(self) -> bool:
        """Whether there is an interval beside the value."""
        return not math.isnan(self.low)


def ratio_interval(
    numerator_PS: Floats, denominator_PS: Floats, *, lowest: float = 0.0, highest: float = math.inf, draws: int = DRAWS
) -> Interval:
    """The ratio of two sums over patients, averaged over seeds, with its interval.

    Args:
        numerator_PS: each patient's part of the sum above, one column a seed.
        denominator_PS: each patient's part of the sum below.
        lowest: the interval is cut there.
        highest: and there; infinite: the measure has no upper bound, and the interval equal tails.
        draws: of the bootstrap.

    Returns:
        NaN as value where the denominator is 0; no interval with fewer than `FEWEST_PATIENTS` patients, or where no
        patient differs from another.
    """
    numerator_P, denominator_P = numerator_PS.mean(axis=1), denominator_PS.mean(axis=1)
    total = denominator_P.sum()
    if total == 0:
        return Interval(math.nan)
    value = float(numerator_P.sum() / total)
    patients, seeds = numerator_PS.shape
    variance = _variance(numerator_P - value * denominator_P) / total**2 if patients > 1 else 0.0
    if patients < FEWEST_PATIENTS or variance <= 1e-15:
        return Interval(value)
    between = seed_variance(numerator_PS, denominator_PS) / seeds
    weights_BP = _weights(patients, draws)
    sums_B, totals_B = weights_BP @ numerator_P, weights_BP @ denominator_P
    ratio_B = sums_B / np.maximum(totals_B, 1e-12)
    squares_B = (
        weights_BP @ numerator_P**2
        - 2 * ratio_B * (weights_BP @ (numerator_P * denominator_P))
        + ratio_B**2 * (weights_BP @ denominator_P**2)
    )
    variance_B = squares_B * patients / (patients - 1) / np.maximum(totals_B, 1e-12) ** 2
    # Of rare events (a false positive in a hundred patients) some draws hold none and would have no variance at all.
    variance_B = np.maximum(variance_B, LEAST_VARIANCE * variance)
    rng = np.random.default_rng(1)
    luck_B = rng.normal(0, math.sqrt(between), draws)
    # The deviation between seeds is estimated itself, from few of them.
    between_B = between * rng.chisquare(seeds - 1, draws) / (seeds - 1) if seeds > 1 else 0.0
    drawn_B = (ratio_B - value + luck_B) / np.sqrt(variance_B + between_B)
    if math.isinf(highest):
        below, above = np.quantile(drawn_B, [(1 + LEVEL) / 2, (1 - LEVEL) / 2])
    else:
        below = np.quantile(np.abs(drawn_B), LEVEL)
        above = -below
    deviation = math.sqrt(variance + between)
    return Interval(
        value, max(lowest, value - float(below) * deviation), min(highest, value - float(above) * deviation)
    )


def median_interval(values_N: Floats, patient_N: npt.NDArray[np.intp], *, draws: int = DRAWS) -> Interval:
    """The median over images with its interval: expanded percentiles of the medians of patients drawn anew.

    Plain percentiles are too narrow for few patients, as a normal interval is beside Student's. They are therefore
    taken further out (T. Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69,
    2015, section 4.3).

    Args:
        values_N: one value an image; NaN are left out.
        patient_N: the image's patient, from 0.
        draws: of the bootstrap.
    """
    kept = ~np.isnan(values_N)
    values_N, (_, patient_N) = values_N[kept], np.unique(patient_N[kept], return_inverse=True)
    if not len(values_N):
        return Interval(math.nan)
    value = float(np.median(values_N))
    patients = int(patient_N.max()) + 1
    if patients < FEWEST_PATIENTS:
        return Interval(value)
    order_N = np.argsort(values_N, kind="stable")
    counts_BN = _weights(patients, draws)[:, patient_N[order_N]].cumsum(axis=1)
    half_B = counts_BN[:, -1:] / 2
    median_B = values_N[order_N][(counts_BN >= half_B).argmax(axis=1)]
    outside = _expanded_tail(patients)
    low, high = np.quantile(median_B, [outside, 1 - outside])
    return Interval(value, float(low), float(high))


def _expanded_tail(patients: int) -> float:
    """Share of draws beyond each end: as far out as Student's interval with the unbiased variance reaches."""
    normal, freedom = NormalDist(), patients - 1
    z = normal.inv_cdf((1 + LEVEL) / 2)
    # Student's quantile to 0.1 % from 9 degrees of freedom on (Abramowitz and Stegun, 26.7.5).
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return normal.cdf(-t * math.sqrt(patients / freedom))


def seed_variance(numerator_PS: Floats, denominator_PS: Floats) -> float:
    """Variance between the seeds of a network's ratio; 0 with one seed."""
    ratio_S = numerator_PS.sum(axis=0) / np.maximum(denominator_PS.sum(axis=0), 1e-12)
    return float(ratio_S.var(ddof=1)) if len(ratio_S) > 1 else 0.0


def _variance(influence_P: Floats) -> float:
    """Variance of the sum of patients drawn anew."""
    return float((influence_P**2).sum() * len(influence_P) / (len(influence_P) - 1))


@lru_cache(maxsize=16)
def _weights(patients: int, draws: int) -> Floats:
    """How often each patient is drawn: the same for all measures, so that a table agrees with itself."""
    return np.random.default_rng(0).multinomial(patients, np.full(patients, 1 / patients), size=draws).astype(float)
