"""How much the best epoch flatters itself: the validation Dice that chose an epoch is too high by about how much?

The best of several noisy values is higher than what it measures. How much depends on the noise of a validation Dice and
on how many epochs and trials it was the best of; both are in the study. The size is simulated: curves like the study's
own, smoothed, with the study's own noise put on again; then the best is picked as the study picks it, and compared with
the smooth curve at that epoch.

The noise of an epoch is taken from the epochs themselves: from how far each lies from the middle of its neighbours
(T. Gasser, L. Sroka and C. Jennen-Steinmetz, Biometrika 73, 1986). What truly goes up and down from epoch to epoch
counts as noise, so the size is an upper estimate; noise that neighbouring epochs share does not count.
`benchmarks/calibration.py` compares it with curves whose truth is known.

Shapes: E epochs, B draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from results.table import SCORE

Floats = npt.NDArray[np.float64]

FEWEST_EPOCHS = 4
"""A curve needs this many epochs for its noise to be seen."""
WINDOW = 5
"""Epochs over which a curve is smoothed."""
DRAWS = 500


@dataclass(frozen=True)
class Optimism:
    """About how much too high validation Dice are; NaN where it cannot be told."""

    noise_sd: float
    """Standard deviation of one epoch's validation Dice."""
    final: float
    """Of a final's best epoch, in the mean over the finals."""
    best_trial: float
    """Of the best epoch of the best trial of the search."""
    trials: int
    """Trials that the best one was chosen from."""
    images: int | None
    """Validation images, where the study tells."""


def optimism_of(trials: pd.DataFrame, epochs: pd.DataFrame) -> Optimism:
    """Simulate it from `results.load` and `results.load_epochs`."""
    curves = {
        str(name): rows[SCORE].to_numpy(float)
        for name, rows in epochs.sort_values("epoch").groupby("trial_id", sort=False)
        if len(rows) >= FEWEST_EPOCHS and np.isfinite(rows[SCORE].astype(float)).all()
    }
    own = trials[trials.repeat_of.isna() & (trials.status == "complete")].set_index("trial_id")
    finals = [curves[name] for name in own.index[own.role == "final"] if name in curves]
    searched = [curves[name] for name in own.index[own.role != "final"] if name in curves]
    sds = [noise_sd(curve) for curve in [*finals, *searched]]
    sd = math.sqrt(float(np.mean(np.square(sds)))) if sds else math.nan
    samples = trials.attrs.get("study", {}).get("samples", {}).get("val")
    each = [_flattery([curve], sd) for curve in finals]
    return Optimism(
        noise_sd=sd,
        final=float(np.mean(each)) if each else math.nan,
        best_trial=_flattery(searched, sd) if searched else math.nan,
        trials=len(searched),
        images=samples if isinstance(samples, int) else None,
    )


def noise_sd(curve_E: Floats) -> float:
    """Standard deviation of a curve's noise, from its second differences: a straight rise does not count."""
    second = curve_E[2:] - 2 * curve_E[1:-1] + curve_E[:-2]
    # Half of the epochs, the later ones: at first a curve bends by itself.
    later = second[len(second) // 2 :]
    return math.sqrt(float(np.mean(later**2)) / 6)


def _flattery(curves: list[Floats], sd: float) -> float:
    """Mean of (picked value - smooth value there) over draws of new noise on all curves."""
    smooth = np.concatenate([smoothed(curve_E) for curve_E in curves])
    noise_BE = np.random.default_rng(0).normal(0, sd, (DRAWS, len(smooth)))
    picked_B = (smooth + noise_BE).argmax(axis=1)
    return float(noise_BE[np.arange(DRAWS), picked_B].mean())


def smoothed(curve_E: Floats) -> Floats:
    """The mean over a window of epochs, cut at both ends."""
    half = WINDOW // 2
    return np.array([curve_E[max(0, e - half) : e + half + 1].mean() for e in range(len(curve_E))])
