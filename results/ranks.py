"""Whether the order of the encoders after the search is their order after the full training, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainables.score.groups import patient_sums

FEWEST_ENCODERS = 3
"""With two encoders the order is one comparison, and every coefficient is 1 or -1."""
DRAWS = 2000

# P patients, F finals, S seeds, B bootstrap draws.


@dataclass(frozen=True)
class RankAgreement:
    """How far the order of the encoders after the search is their order after the full training."""

    encoders: int
    """Encoders that have both scores."""
    kendall_tau: float
    """Kendall's tau-b, in [-1, 1]; NaN with fewer than `FEWEST_ENCODERS` encoders."""
    spearman_rho: float
    """Spearman's rank correlation, in [-1, 1]; NaN alike."""
    overtakes: tuple[tuple[str, str], ...]
    """Pairs (winner, loser) whose order the full training turned round."""
    tau_low: float = math.nan
    tau_high: float = math.nan
    """The middle 95 % of tau when patients and seeds are drawn anew; NaN where that cannot be done."""


def agreement_of(scores: dict[str, tuple[float, float]]) -> RankAgreement:
    """Rank agreement of (first score, second score) by name; names with a NaN are left out."""
    known = {name: pair for name, pair in scores.items() if not any(pd.isna(score) for score in pair)}
    turned = [(a, b) for a in known for b in known if known[a][0] < known[b][0] and known[a][1] > known[b][1]]
    if len(known) < FEWEST_ENCODERS:
        return RankAgreement(len(known), math.nan, math.nan, tuple(turned))
    table = pd.DataFrame(known.values(), index=list(known), columns=["first", "second"], dtype=float)
    ranks = table.rank()
    rho = _correlation(ranks["first"], ranks["second"])
    tau = float(_kendall_tau(table["first"].to_numpy()[None], table["second"].to_numpy()[None])[0])
    return RankAgreement(len(known), tau, rho, tuple(turned))


def tau_interval(
    scores: dict[str, tuple[float, float]], test: pd.DataFrame, val: pd.DataFrame, *, draws: int = DRAWS
) -> tuple[float, float]:
    """The middle 95 % of Kendall's tau over patients and seeds drawn anew; NaN where no final has several seeds.

    The second scores are drawn from the finals' test images. The first ones were measured once, of one network each:
    they are moved as the finals' means over the validation images move, and by the deviation between seeds.

    Args:
        scores: (score of the search, score after the full training) by final.
        test: `results.load_images` of these finals.
        val: the same of the validation split.
        draws: of the bootstrap.
    """
    names = [name for name, pair in scores.items() if not any(map(pd.isna, pair)) and (test.final == name).any()]
    seeds = test.groupby("final").trial_id.nunique()
    if len(names) < FEWEST_ENCODERS or seeds.get(names[0], 1) < 2 or not set(names) <= set(val.final):
        return math.nan, math.nan
    rng = np.random.default_rng(0)
    moved_test_BF, spread = _moves(test, names, draws, rng)
    moved_val_BF, _ = _moves(val, names, draws, rng)
    first_F, second_F = (np.array([scores[name][side] for name in names]) for side in (0, 1))
    seeds_F = seeds[names].to_numpy(float)
    first_BF = first_F + moved_val_BF + rng.normal(0, spread, (draws, len(names)))
    second_BF = second_F + moved_test_BF + rng.normal(0, spread, (draws, len(names))) / np.sqrt(seeds_F)
    low, high = np.nanquantile(_kendall_tau(first_BF, second_BF), [0.025, 0.975])
    return float(low), float(high)


def _moves(
    images: pd.DataFrame, names: list[str], draws: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], float]:
    """How each final's mean Dice moves when patients are drawn anew, and its deviation between seeds, pooled."""
    parts = [images[images.final == name] for name in names]
    sums = [patient_sums(part.dice, part) for part in parts]
    images_P = patient_sums(pd.Series(1.0, parts[0].index), parts[0]).mean(axis=1)
    networks = [sums_PS.sum(axis=0) / images_P.sum() for sums_PS in sums]
    freedom = sum(len(network_S) - 1 for network_S in networks)
    squares = sum(float(((network_S - network_S.mean()) ** 2).sum()) for network_S in networks)
    sums_PF = np.stack([sums_PS.mean(axis=1) for sums_PS in sums], axis=1)
    weights_BP = rng.multinomial(len(images_P), np.full(len(images_P), 1 / len(images_P)), size=draws)
    means_BF = (weights_BP @ sums_PF) / (weights_BP @ images_P)[:, None]
    return means_BF - sums_PF.sum(axis=0) / images_P.sum(), math.sqrt(squares / freedom) if freedom else 0.0


def _kendall_tau(first_BF: npt.NDArray, second_BF: npt.NDArray) -> npt.NDArray[np.float64]:
    """Kendall's tau-b of each row, the correlation of the signs of all differences; NaN where all are equal."""
    one, other = np.triu_indices(first_BF.shape[1], 1)
    signs = [np.sign(values[:, one] - values[:, other]) for values in (first_BF, second_BF)]
    scale_B = np.sqrt((signs[0] ** 2).sum(axis=1) * (signs[1] ** 2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        tau_B: npt.NDArray[np.float64] = np.where(scale_B > 0, (signs[0] * signs[1]).sum(axis=1) / scale_B, np.nan)
    return tau_B


def _correlation(first: pd.Series, second: pd.Series) -> float:
    varied = len(first) > 1 and first.nunique() > 1 and second.nunique() > 1
    return float(first.corr(second)) if varied else math.nan
