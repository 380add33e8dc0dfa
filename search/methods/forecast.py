"""What configurations will be worth at full budget: a Gaussian process over configurations and epochs.

The value of configuration x after t of T epochs is taken as

    y(x, t) = f(x) + a(t) g(x) + a(t)^2 h(x) + noise,    a(t) = log(T / t) / log(T)

with a(T) = 0: f is the value at full budget, g and h the way there, each a Gaussian process over configurations. How
much a few epochs of a trial tell is thereby learnt from trials that are like it. After Swersky et al., "Freeze-Thaw
Bayesian Optimization", arXiv:1406.3896, with two terms in log t in place of its exponential kernel, so that one
factorisation answers every question; and with a mean over a few kernels by their evidence, not one fitted kernel.

Several objectives become one for each decision by weights drawn at random (Knowles, ParEGO, IEEE TEVC 2006).

Shapes: N observations, I trials, M configurations asked about, A axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.methods.known import Known, Seen
from search.methods.points import Points

Params = Mapping[str, Any]
MOST_TRIALS = 100
"""Trials that a forecast is made from at most, the best and the newest: its cost grows with the cube of them."""
KERNELS = 16
LEAST_WEIGHT = 0.02
"""A kernel whose share of the evidence is below this is left out."""
SURE = 1e-8
"""Added to the variance of every observation, so that the matrix can be factored."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """How alike configurations are taken to be. Variances are in units of the spread of the values."""

    relevance_A: np.ndarray
    """How fast likeness falls along each axis."""
    additive: float
    """Share of what the axes say each for itself; the rest they say together."""
    own: float
    """Variance of what is a configuration's own."""
    level: float
    """Standard deviation of f."""
    rise: float
    """Standard deviation of g and h, in units of what the trials have gained so far."""
    common: float
    """Share of g and h that all configurations have in common."""
    noise: float
    """Standard deviation of one value at the end of training; three times the variance at the beginning."""

    def alike(self, gap_AIM: np.ndarray, is_choice_A: np.ndarray) -> np.ndarray:
        """The likeness of configurations, (I, M), from their gaps along the axes (`Points.gaps`)."""
        squared_AIM = np.where(is_choice_A[:, None, None], gap_AIM, gap_AIM**2)
        together_IM = np.exp(-np.tensordot(self.relevance_A, squared_AIM, 1))
        each_IM = np.mean(np.exp(-2 * self.relevance_A[:, None, None] * squared_AIM), axis=0)
        return self.additive * each_IM + (1 - self.additive) * together_IM


def kernels(is_choice_A: np.ndarray) -> list[Kernel]:
    """The kernels that a forecast is averaged over: a middle one, and draws around it, always the same."""
    z_KP = np.random.default_rng(0).normal(size=(KERNELS, len(is_choice_A) + 6))
    z_KP[0] = 0
    return [
        Kernel(
            relevance_A=np.where(is_choice_A, 1.0, 2.0) * np.exp(0.8 * z_P[6:]),
            additive=float(1 / (1 + np.exp(-z_P[0]))),
            own=float(0.05 * np.exp(0.8 * z_P[1])),
            level=float(np.exp(0.4 * z_P[2])),
            rise=float(np.exp(0.4 * z_P[3])),
            common=float(1 / (1 + np.exp(-z_P[4]))),
            noise=float(0.25 * np.exp(0.5 * z_P[5])),
        )
        for z_P in z_KP
    ]


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is expected of configurations at full budget: a mixture of K normal distributions each."""

    mean_KM: np.ndarray
    sd_KM: np.ndarray
    weight_K: np.ndarray
    best_K: np.ndarray
    """The best value at full budget so far; before any, what is expected of the best one asked about."""

    def improvement_M(self) -> np.ndarray:
        """Expected improvement on the best (Jones et al. 1998)."""
        z_KM = self._z_KM()
        density_KM = np.exp(-0.5 * z_KM**2) / math.sqrt(2 * math.pi)
        return self.weight_K @ (self.sd_KM * (z_KM * _normal_below(z_KM) + density_KM))

    def chance_M(self) -> np.ndarray:
        """The probability of being better than the best."""
        return self.weight_K @ _normal_below(self._z_KM())

    def _z_KM(self) -> np.ndarray:
        return (self.mean_KM - self.best_K[:, None]) / self.sd_KM


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The values that a forecast is made from, centred, in units of their spread; more is better."""

    row_IA: np.ndarray
    trial_N: np.ndarray
    """Which of the I trials."""
    early_N: np.ndarray
    """a(t)."""
    value_N: np.ndarray
    gained: float
    """Root mean square of what trials have gained since their first epoch, or still lacked of the best then."""
    best: float | None
    """Of those at full budget."""


class Forecast:
    """Forecasts of one study.

    Args:
        points: the space.
        known: the trials; told on by others.
        epochs: T, the full budget.
        directions: `maximize` or `minimize` per objective.
        seed: draws the weights of several objectives.
    """

    def __init__(self, points: Points, known: Known, *, epochs: int, directions: Sequence[str], seed: int) -> None:
        self.points, self.known, self.epochs, self.seed = points, known, epochs, seed
        self.signs = np.array([1.0 if direction == "maximize" else -1.0 for direction in directions])
        self._kernels = kernels(points.is_choice_A)
        self._looked_at = _spread(epochs)
        self._made: tuple[int, list[_Fit], dict[int, int]] = (-1, [], {})
        """The position it was made at, a fit per kernel that counts, and the row of each trial."""

    def outlook(self, asked: Sequence[Params], numbers: Sequence[int | None]) -> Outlook | None:
        """What is expected of configurations; None while no value is known.

        Args:
            asked: the configurations.
            numbers: for each the number of its trial, None where it is new.
        """
        if self._made[0] != self.known.position:
            self._made = (self.known.position, *self._fit())
        _, fits, row_of = self._made
        if not fits:
            return None
        gap_AIM = self.points.gaps(fits[0].observed.row_IA, self.points.rows(asked))
        own = [(row_of[number], m) for m, number in enumerate(numbers) if number in row_of]
        told = [fit.normal(gap_AIM, own, self.points.is_choice_A) for fit in fits]
        mean_KM, sd_KM = np.stack([mean_M for mean_M, _ in told]), np.stack([sd_M for _, sd_M in told])
        evidence_K = np.array([fit.evidence for fit in fits])
        weight_K = np.exp(evidence_K - evidence_K.max())
        best = fits[0].observed.best
        best_K = np.full(len(fits), best) if best is not None else mean_KM.max(axis=1)
        return Outlook(mean_KM=mean_KM, sd_KM=sd_KM, weight_K=weight_K / weight_K.sum(), best_K=best_K)

    def best(self, count: int) -> list[Seen]:
        """The trials with the best values so far."""
        return sorted((trial for trial in self.known if trial.values), key=self._badness)[:count]

    def _fit(self) -> tuple[list[_Fit], dict[int, int]]:
        trials = self._trials()
        if not any(trial.values for trial in trials):
            return [], {}
        observed = self._observed(trials)
        gap_AII = self.points.gaps(observed.row_IA, observed.row_IA)
        fits = [_Fit.of(kernel, observed, gap_AII, self.points.is_choice_A) for kernel in self._kernels]
        most = max(fit.evidence for fit in fits)
        kept = [fit for fit in fits if fit.evidence > most + math.log(LEAST_WEIGHT)]
        return kept, {trial.number: i for i, trial in enumerate(trials)}

    def _trials(self) -> list[Seen]:
        told = [trial for trial in self.known if trial.values or trial.state == "infeasible"]
        if len(told) <= MOST_TRIALS:
            return told
        kept = {trial.number for trial in (*self.best(MOST_TRIALS // 2), *told[-MOST_TRIALS // 2 :])}
        return [self.known.trials[number] for number in sorted(kept)]

    def _badness(self, trial: Seen) -> tuple[float, int]:
        """Smaller is better; of equals the earlier."""
        return (-self.signs[0] * trial.last[0] if trial.last else math.inf), trial.number

    def _observed(self, trials: Sequence[Seen]) -> Observed:
        points = [(i, t, trial.values[t]) for i, trial in enumerate(trials) for t in self._shown(trial)]
        value_N = self._one_objective(np.array([values for _, _, values in points]))
        # One that no slot has the memory for is taken to be as bad as the worst.
        too_large = [i for i, trial in enumerate(trials) if trial.state == "infeasible"]
        trial_N = np.array([i for i, _, _ in points] + too_large)
        epoch_N = np.array([t for _, t, _ in points] + [self.epochs] * len(too_large))
        value_N = np.append(value_N, np.full(len(too_large), value_N.min()))
        is_full_N = epoch_N == self.epochs
        level = value_N[is_full_N] if is_full_N.sum() > 2 else value_N
        spread = float(np.std(level)) or 0.05 * max(1.0, float(np.abs(level).max()))
        value_N = (value_N - np.mean(level)) / spread
        first_N = value_N[np.unique(trial_N, return_index=True)[1]]
        return Observed(
            row_IA=self.points.rows([trial.params for trial in trials]),
            trial_N=trial_N,
            early_N=np.log(self.epochs / epoch_N) / max(math.log(self.epochs), 1e-9),
            value_N=value_N,
            gained=max(1.0, float(np.sqrt(np.mean((value_N.max() - first_N) ** 2)))),
            best=float(value_N[is_full_N].max()) if is_full_N.any() else None,
        )

    def _one_objective(self, value_NO: np.ndarray) -> np.ndarray:
        """One value per observation, more is better."""
        signed_NO = value_NO * self.signs
        if len(self.signs) == 1:
            return signed_NO[:, 0]
        low_O, high_O = signed_NO.min(axis=0), signed_NO.max(axis=0)
        unit_NO = (signed_NO - low_O) / np.maximum(high_O - low_O, 1e-12)
        weight_O = np.random.default_rng([self.seed, len(self.known.trials)]).dirichlet(np.ones(len(self.signs)))
        weighted_NO = unit_NO * weight_O
        chebyshev_N: np.ndarray = weighted_NO.min(axis=1) + 0.05 * weighted_NO.sum(axis=1)
        return chebyshev_N

    def _shown(self, trial: Seen) -> list[int]:
        """A trial's epochs that are looked at: a few, spread evenly by ratio, and its last."""
        return sorted({t for t in (*self._looked_at, trial.epoch) if t in trial.values})


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """The Gaussian process of one kernel."""

    kernel: Kernel
    observed: Observed
    inverse_NN: np.ndarray
    """The inverse of the Cholesky factor of the observations' covariance."""
    evidence: float
    """Logarithm of the density of what was observed, up to a constant."""

    @classmethod
    def of(cls, kernel: Kernel, observed: Observed, gap_AII: np.ndarray, is_choice_A: np.ndarray) -> _Fit:
        alike_II = kernel.alike(gap_AII, is_choice_A) + kernel.own * np.eye(len(observed.row_IA))
        alike_NN = alike_II[np.ix_(observed.trial_N, observed.trial_N)]
        way_NN = np.outer(observed.early_N, observed.early_N)
        rise = (kernel.rise * observed.gained) ** 2
        covariance_NN = kernel.level**2 * alike_NN
        covariance_NN += rise * (kernel.common + (1 - kernel.common) * alike_NN) * (way_NN + way_NN**2)
        noise_N = kernel.noise**2 * (1 + 2 * observed.early_N) + SURE
        factor_NN = np.linalg.cholesky(covariance_NN + np.diag(noise_N))
        inverse_NN = np.linalg.inv(factor_NN)
        evidence = -0.5 * float(np.sum((inverse_NN @ observed.value_N) ** 2)) - float(np.log(np.diag(factor_NN)).sum())
        return cls(kernel=kernel, observed=observed, inverse_NN=inverse_NN, evidence=evidence)

    def normal(
        self, gap_AIM: np.ndarray, own: Sequence[tuple[int, int]], is_choice_A: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of f, (M,) each; `own` pairs a trial's row with the question that is about it."""
        alike_IM = self.kernel.alike(gap_AIM, is_choice_A)
        for i, m in own:
            alike_IM[i, m] += self.kernel.own
        half_NM = self.inverse_NN @ (self.kernel.level**2 * alike_IM[self.observed.trial_N])
        mean_M = half_NM.T @ (self.inverse_NN @ self.observed.value_N)
        variance_M = self.kernel.level**2 * (1 + self.kernel.own) - np.sum(half_NM**2, axis=0)
        return mean_M, np.sqrt(np.maximum(variance_M, 1e-9))


def _spread(epochs: int) -> list[int]:
    """1, 2, 4, ... and the last epoch."""
    return [*(2**k for k in range(epochs.bit_length()) if 2**k < epochs), epochs]


def _normal_below(z: np.ndarray) -> np.ndarray:
    """The standard normal's share below z."""
    return np.vectorize(lambda value: 0.5 * (1 + math.erf(value / math.sqrt(2))), otypes=[float])(z)
