"""Which of several configurations cannot be told from the best: a model confidence set. numpy alone.

The set is that of P. R. Hansen, A. Lunde and J. M. Nason, "The model confidence set", Econometrica 79, 2011, with two
sources of chance instead of one. Patients are drawn at random, the same for all configurations, so they are compared in
pairs. Seeds are drawn at random too, each configuration's its own: two networks of one configuration differ, and a test
by patient alone calls that difference real, the more surely the more patients there are.

What it promises: all configurations that are truly best are in the set in at least 1 - alpha of studies. It is
conservative: the noise of a patient under one network counts in both sources. `benchmarks/calibration.py` measures it.

Shapes: P patients, K configurations, S seeds of one configuration, B bootstrap draws, N pairs of configurations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ALPHA = 0.05
DRAWS = 4000


@dataclass(frozen=True)
class Ties:
    """The outcome for K configurations, in the order in which they were given."""

    mean_K: Floats
    """Mean over images and seeds."""
    p_K: Floats
    """The p-value at which each leaves the set; 1 for the one that is left."""
    tied_K: npt.NDArray[np.bool_]
    """Whether it cannot be told from the best."""
    seed_sd: float
    """Standard deviation of a network's mean between seeds, pooled over the configurations; NaN with one seed each."""


def ties_of(sums_KPS: Sequence[Floats], images_P: Floats, *, alpha: float = ALPHA, draws: int = DRAWS) -> Ties:
    """Compare configurations on the same images.

    Args:
        sums_KPS: for each configuration the sum of a measure over each patient's images, one column a seed; the
            numbers of seeds may differ.
        images_P: images of each patient.
        alpha: share of studies in which one that is truly best may be left out.
        draws: of the bootstrap.

    Returns:
        With one seed each the seeds' deviation is not known and taken as 0: then the outcome is about these trained
        networks and not about their configurations.
    """
    rng = np.random.default_rng(0)
    patients, total = len(images_P), images_P.sum()
    seeds_K = np.array([sums_PS.shape[1] for sums_PS in sums_KPS])
    networks = [sums_PS.sum(axis=0) / total for sums_PS in sums_KPS]
    mean_K = np.array([network_S.mean() for network_S in networks])
    freedom = int((seeds_K - 1).sum())
    squares = sum(float(((network_S - network_S.mean()) ** 2).sum()) for network_S in networks)
    seed_variance = squares / freedom if freedom else 0.0
    # How far each patient pulls a configuration's mean: their average is 0.
    pull_PK = np.stack([s.mean(axis=1) - m * images_P for s, m in zip(sums_KPS, mean_K, strict=True)], axis=1)
    pull_PK = pull_PK * patients / total
    weights_BP = rng.multinomial(patients, np.full(patients, 1 / patients), size=draws) / patients
    # The deviation between seeds is itself estimated, from few of them.
    spread_B1 = np.sqrt(freedom / rng.chisquare(freedom, (draws, 1))) if freedom else np.ones((draws, 1))
    luck_BK = rng.normal(0, np.sqrt(seed_variance / seeds_K), (draws, len(seeds_K))) * spread_B1
    noise_BK = (weights_BP @ pull_PK) * math.sqrt(patients / (patients - 1)) + luck_BK
    covariance_KK = np.atleast_2d(np.cov(pull_PK.T)) / patients + np.diag(seed_variance / seeds_K)
    variances = covariance_KK.diagonal()
    error_KK = np.sqrt(np.maximum(variances[:, None] + variances - 2 * covariance_KK, 1e-12))
    p_K = _leave_one_by_one((mean_K - mean_K[:, None]) / error_KK, noise_BK, error_KK)
    return Ties(mean_K, p_K, p_K >= alpha, math.sqrt(seed_variance) if freedom else math.nan)


def _leave_one_by_one(lead_KK: Floats, noise_BK: Floats, error_KK: Floats) -> Floats:
    """The p-values: the configuration furthest behind another leaves, then the next, each at least the one before.

    Args:
        lead_KK: [i, j]: how far j is above i, in standard errors.
        noise_BK: draws of the means' errors.
        error_KK: standard error of each difference.
    """
    first_N, second_N = np.triu_indices(len(lead_KK), 1)
    chance_BN = np.abs(noise_BK[:, first_N] - noise_BK[:, second_N]) / error_KK[first_N, second_N]
    p_K, left_K, p = np.ones(len(lead_KK)), np.ones(len(lead_KK), bool), 0.0
    while left_K.sum() > 1:
        left = np.flatnonzero(left_K)
        lead = lead_KK[np.ix_(left, left)]
        largest_B = chance_BN[:, left_K[first_N] & left_K[second_N]].max(axis=1)
        p = max(p, (1 + int((largest_B >= lead.max()).sum())) / (len(noise_BK) + 1))
        worst = left[lead.max(axis=1).argmax()]
        p_K[worst], left_K[worst] = p, False
    return p_K
