"""How often intervals hold the true value and the verdict is right, on simulated studies whose truth is known.

    python benchmarks/calibration.py                    # every part, some minutes
    python benchmarks/calibration.py --only verdict --repeats 1000

intervals   share of samples whose 95 % interval holds the true value, for the measures of a final's test images
verdict     share of studies in which all identical (or equally good) finals stay tied, in which the best is among the
            tied, and how many are tied where finals truly differ
optimism    the flattery of the best epoch that `results.optimism` tells, beside the true one

The simulated images: a latent score of patient, patient x configuration, seed, patient x network and image; below 0 the
lesion is missed (Dice 0), above there is a hump near 0.7, as on whole mammograms. One to four images a patient.

Shapes: R repeats, P patients, K configurations, S seeds, E epochs, T trials.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from results.optimism import optimism_of
from results.ties import ties_of
from trainables.score.interval import Interval, median_interval, ratio_interval

MOST_IMAGES = 4
PATIENTS = (10, 20, 40, 87, 300)


def simulated(
    rng: np.random.Generator,
    patients: int,
    levels_K: list[float],
    seeds: int,
    *,
    identical: bool = False,
    seed_sd: float = 0.10,
) -> tuple[np.ndarray, np.ndarray]:
    """Dice of every image, (P, MOST_IMAGES, K, S) with NaN where a patient has no such image, and the images' number.

    Args:
        rng: of all draws.
        patients: P.
        levels_K: latent level of each configuration.
        seeds: S.
        identical: configurations differ by seed alone; else each is also better on some patients than on others.
        seed_sd: how far a whole network is lucky.
    """
    configurations = len(levels_K)
    shape = (patients, 1, configurations, seeds)
    own = shape if identical else (patients, 1, configurations, 1)
    score = (
        np.asarray(levels_K)[None, None, :, None] + rng.normal(0, 1.6, (patients, 1, 1, 1)) + rng.normal(0, 0.5, own)
    )
    score = score + rng.normal(0, seed_sd, (1, 1, configurations, seeds)) + rng.normal(0, 0.45, shape)
    images = (patients, MOST_IMAGES, configurations, seeds)
    # A film's own difficulty is shared by all networks.
    score = score + rng.normal(0, 0.8, (patients, MOST_IMAGES, 1, 1)) + rng.normal(0, 0.2, images)
    found = 0.93 / (1 + np.exp(-(1.4 * score - 0.6 + rng.normal(0, 0.6, images))))
    dice = np.where(score < 0, 0.0, found)
    count_P = rng.integers(1, MOST_IMAGES + 1, patients)
    dice[np.arange(MOST_IMAGES)[None, :] >= count_P[:, None]] = np.nan
    return dice, count_P.astype(float)


# -- intervals -------------------------------------------------------------------------------------------------------


def intervals(repeats: int) -> Iterator[dict[str, object]]:
    """Coverage of the mean Dice (one seed, three seeds), of its median, of lesion recall and of false positives."""
    for level in (-0.3, 0.4, 1.6):
        true_mean, true_median = _truth(level)
        for patients in PATIENTS:
            rng = np.random.default_rng([patients, int(100 * level) + 1000])
            yield {"measure": "mean Dice", "true": round(true_mean, 3), "patients": patients} | _coverage(
                repeats, true_mean, lambda rng=rng, n=patients, a=level: _mean_of(simulated(rng, n, [a], 1, seed_sd=0))
            )
            yield {"measure": "median Dice", "true": round(true_median, 3), "patients": patients} | _coverage(
                repeats,
                true_median,
                lambda rng=rng, n=patients, a=level: _median_of(simulated(rng, n, [a], 1, seed_sd=0)[0]),
            )
    for patients in PATIENTS:
        for seeds in (2, 3, 5):
            rng = np.random.default_rng([patients, seeds])
            yield (
                {"measure": f"mean Dice over {seeds} seeds", "true": round(_truth(0.4, seed_sd=0.1)[0], 3)}
                | {"patients": patients}
                | _coverage(
                    repeats,
                    _truth(0.4, seed_sd=0.1)[0],
                    lambda rng=rng, n=patients, s=seeds: _mean_of(simulated(rng, n, [0.4], s)),
                )
            )
    for name, true, draw in (("lesions found", 0.8, _found), ("false positives an image", 0.5, _false)):
        for patients in PATIENTS:
            rng = np.random.default_rng(patients)
            yield {"measure": name, "true": true, "patients": patients} | _coverage(
                repeats, true, lambda rng=rng, n=patients, make=draw, t=true: make(rng, n, t)
            )


def _coverage(repeats: int, true: float, draw: Callable[[], Interval]) -> dict[str, object]:
    found = [draw() for _ in range(repeats)]
    known = [interval for interval in found if interval.known]
    held = float(np.mean([interval.low <= true <= interval.high for interval in known]))
    width = float(np.median([interval.high - interval.low for interval in known]))
    return {"covered": round(held, 3), "median_width": round(width, 3), "without": len(found) - len(known)}


def _truth(level: float, *, seed_sd: float = 0.0) -> tuple[float, float]:
    """Mean and median over the images of many patients and networks."""
    parts = [simulated(np.random.default_rng(k), 4000, [level], 1, seed_sd=seed_sd)[0] for k in range(40)]
    dice = np.concatenate([part[np.isfinite(part)] for part in parts])
    return float(dice.mean()), float(np.median(dice))


def _mean_of(drawn: tuple[np.ndarray, np.ndarray]) -> Interval:
    dice, images_P = drawn
    sums_PS = np.nansum(dice[:, :, 0, :], axis=1)
    return ratio_interval(sums_PS, np.repeat(images_P[:, None], sums_PS.shape[1], axis=1), highest=1.0)


def _median_of(dice: np.ndarray) -> Interval:
    values = dice[:, :, 0, 0]
    patient = np.repeat(np.arange(len(values)), values.shape[1])
    return median_interval(values.ravel(), patient)


def _found(rng: np.random.Generator, patients: int, share: float) -> Interval:
    """Lesions found: patients differ in how easily theirs are."""
    lesions_P = rng.integers(1, 5, patients)
    found_P = rng.binomial(lesions_P, rng.beta(3 * share, 3 * (1 - share), patients))
    return ratio_interval(found_P[:, None].astype(float), lesions_P[:, None].astype(float), highest=1.0)


def _false(rng: np.random.Generator, patients: int, rate: float) -> Interval:
    """False positives: patients differ in how many their films invite."""
    images_P = rng.integers(1, 5, patients)
    false_P = rng.poisson(rate * images_P * rng.gamma(1, 1, patients))
    return ratio_interval(false_P[:, None].astype(float), images_P[:, None].astype(float))


# -- verdict ---------------------------------------------------------------------------------------------------------


def verdict(repeats: int) -> Iterator[dict[str, object]]:
    """Identical finals, finals of equal mean, and finals that truly differ."""
    for kind in ("identical", "equal means", "apart"):
        for patients in (20, 87, 300):
            for configurations, seeds in ((2, 2), (2, 3), (4, 2), (4, 3), (8, 3), (8, 5)):
                rng = np.random.default_rng([patients, configurations, seeds])
                levels = _levels(kind, configurations)
                tied = np.array([_tied(rng, patients, levels, seeds, kind) for _ in range(repeats)])
                yield {
                    **{"kind": kind, "patients": patients, "finals": configurations, "seeds": seeds},
                    "all_tied": round(float(tied.all(axis=1).mean()), 3),
                    "best_in": round(float(tied[:, 0].mean()), 3),
                    "tied": round(float(tied.sum(axis=1).mean()), 2),
                }


def _levels(kind: str, configurations: int) -> list[float]:
    """Latent levels; those that lie apart begin at a mean Dice of about 0.46 and end at 0.28."""
    if kind != "apart":
        return [0.4] * configurations
    return [0.7, 0.1] if configurations == 2 else [0.7, *np.linspace(0.55, -0.4, configurations - 1)]


def _tied(rng: np.random.Generator, patients: int, levels: list[float], seeds: int, kind: str) -> np.ndarray:
    dice, images_P = simulated(rng, patients, levels, seeds, identical=kind == "identical")
    sums_PKS = np.nansum(dice, axis=1)
    return ties_of([sums_PKS[:, k] for k in range(len(levels))], images_P, draws=1000).tied_K


# -- optimism --------------------------------------------------------------------------------------------------------


def optimism(repeats: int) -> Iterator[dict[str, object]]:
    """What is told beside what is true, for several noises of an epoch and true wobbles from epoch to epoch."""
    for epochs, trials in ((12, 9), (27, 60), (100, 3)):
        for noise in (0.01, 0.03):
            for wobble in (0.0, 0.01):
                rng = np.random.default_rng([epochs, trials, int(1000 * noise), int(1000 * wobble)])
                told, true = np.array([_flattered(rng, epochs, trials, noise, wobble) for _ in range(repeats)]).T
                yield {
                    **{"epochs": epochs, "trials": trials, "noise": noise, "wobble": wobble},
                    "true": round(float(true.mean()), 4),
                    "told": round(float(told.mean()), 4),
                    "told_5_to_95": [round(float(q), 4) for q in np.quantile(told, [0.05, 0.95])],
                }


def _flattered(rng: np.random.Generator, epochs: int, trials: int, noise: float, wobble: float) -> tuple[float, float]:
    """(told, true) flattery of the best epoch of the best of some trials."""
    epoch_E = np.arange(1, epochs + 1)
    level_T1 = rng.normal(0.5, 0.03, (trials, 1))
    truth_TE = level_T1 * (1 - np.exp(-epoch_E / rng.uniform(1, 0.25 * epochs, (trials, 1))))
    truth_TE = truth_TE + rng.normal(0, 1e-12 + wobble, truth_TE.shape)
    seen_TE = truth_TE + rng.normal(0, noise, truth_TE.shape)
    best = np.unravel_index(seen_TE.argmax(), seen_TE.shape)
    names = [f"{number:04d}" for number in range(trials)]
    table = pd.DataFrame({"trial_id": names, "role": "search", "status": "complete", "repeat_of": None})
    curves = pd.DataFrame(
        {"trial_id": np.repeat(names, epochs), "epoch": np.tile(epoch_E, trials), "val_dice": seen_TE.ravel()}
    )
    return optimism_of(table, curves).best_trial, float(seen_TE[best] - truth_TE[best])


PARTS: dict[str, Callable[[int], Iterator[dict[str, object]]]] = {
    "intervals": intervals,
    "verdict": verdict,
    "optimism": optimism,
}


def main() -> None:
    """Print one JSON object a cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; may be given again")
    parser.add_argument("--repeats", type=int, default=400, help="simulated studies a cell (standard error 1.1 points)")
    given = parser.parse_args()
    for name in given.only or PARTS:
        for row in PARTS[name](given.repeats):
            print(json.dumps({"part": name, **row}), flush=True)


if __name__ == "__main__":
    main()
