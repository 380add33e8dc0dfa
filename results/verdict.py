"""What a study comes to, in one sentence: the finals that cannot be told from the best, and the cheapest of them.

    verdict_of("runs/nas").sentence        # Two of three finals cannot be told apart ...

Compared is the mean test Dice per image, over patients and seeds (`results.ties`). With one seed each only the trained
networks can be compared, and with few patients nothing can: the sentence then says so instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from cluster.storage import Folder
from results.per_image import load_images
from results.table import load
from results.ties import Ties, ties_of
from trainables.score.groups import interval_of, patient_sums
from trainables.score.interval import FEWEST_PATIENTS

Cost = Literal["parameters", "seconds", "dollars"]

COST_COLUMNS: dict[Cost, str] = {"parameters": "parameters", "seconds": "slot_s", "dollars": "usd"}
"""Where a final's cost stands in `results.load`; of several seeds the mean."""
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Verdict:
    """The outcome of a study."""

    sentence: str
    """To be read first."""
    explained: tuple[str, ...]
    """What it is about and how it was found, sentence by sentence."""
    finals: pd.DataFrame
    """One row a tested final, highest test Dice first: `final`, `encoder`, `seeds`, `dice`, `low`, `high` (its 95 %
    interval, NaN where none is given), `network_dice` (a tuple, one value a seed), `p` and `tied` (NaN and None where
    finals were not compared), `parameters`, `seconds`, `dollars` (means over the seeds)."""
    cheapest: str | None
    """The cheapest of the tied finals; None where there are no ties."""


def verdict_of(study: str | Folder, *, cheapest_by: Cost = "parameters") -> Verdict:
    """The verdict on a study's folder. Raises FileNotFoundError as `results.load`."""
    return judge(load(study), load_images(study), cheapest_by=cheapest_by)


def judge(trials: pd.DataFrame, images: pd.DataFrame, *, cheapest_by: Cost = "parameters") -> Verdict:
    """The verdict from `results.load` and `results.load_images`."""
    images = on_common_images(images)
    if images.empty:
        return Verdict(_without_finals(trials), (), _finals_table(trials, images, None), None)
    patients = images.patient_id.nunique()
    seeds = images.groupby("final").trial_id.nunique()
    compared = len(seeds) > 1 and patients >= FEWEST_PATIENTS and bool((seeds > 1).any())
    names = [str(name) for name in seeds.index]
    sums_KPS = [patient_sums(part.dice, part) for _, part in images.groupby("final")]
    first = images[images.trial_id == images.trial_id.iloc[0]]
    images_P = patient_sums(pd.Series(1.0, first.index), first)[:, 0]
    ties = ties_of(sums_KPS, images_P) if compared else None
    finals = _finals_table(trials, images, dict(zip(names, _columns(ties, len(names)), strict=True)))
    cheapest = _cheapest(finals, cheapest_by)
    sentence = _compared(finals, cheapest, cheapest_by) if compared else _not_compared(finals, patients)
    return Verdict(sentence, tuple(_explained(images, finals, ties)), finals, cheapest)


def on_common_images(images: pd.DataFrame) -> pd.DataFrame:
    """The rows of the images that every final was tested on; all of them, unless a study's finals differ."""
    networks = images.trial_id.nunique()
    return images[images.groupby("sample_id").trial_id.transform("nunique") == networks]


def _columns(ties: Ties | None, finals: int) -> list[tuple[float, bool | None]]:
    if ties is None:
        return [(math.nan, None)] * finals
    return [(float(p), bool(tied)) for p, tied in zip(ties.p_K, ties.tied_K, strict=True)]


def _finals_table(
    trials: pd.DataFrame, images: pd.DataFrame, outcome: dict[str, tuple[float, bool | None]] | None
) -> pd.DataFrame:
    rows = []
    for name, part in images.groupby("final"):
        p, tied = (outcome or {}).get(str(name), (math.nan, None))
        found = interval_of(part, "dice")
        of_final = trials[trials.final == name]
        rows.append(
            {
                **{"final": name, "encoder": of_final.encoder.iloc[0], "seeds": part.trial_id.nunique()},
                **{"dice": found.value, "low": found.low, "high": found.high},
                **{"network_dice": tuple(part.groupby("trial_id").dice.mean()), "p": p, "tied": tied},
                **_costs(of_final),
            }
        )
    columns = ["final", "encoder", "seeds", "dice", "low", "high", "network_dice", "p", "tied", *COST_COLUMNS]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("dice", ascending=False, kind="stable", ignore_index=True)


def _costs(seeds: pd.DataFrame) -> dict[str, float]:
    """Each cost of a final, the mean over its seeds."""
    return {cost: float(seeds[column].astype(float).mean()) for cost, column in COST_COLUMNS.items()}


def _cheapest(finals: pd.DataFrame, cost: Cost) -> str | None:
    tied = finals[finals.tied.eq(True) & finals[cost].notna()]
    return str(tied.sort_values([cost, "dice"], ascending=[True, False]).final.iloc[0]) if len(tied) else None


def _without_finals(trials: pd.DataFrame) -> str:
    done = trials[(trials.status == "complete") & (trials.role != "final") & trials.val_dice.notna()]
    if done.empty:
        return "No trial is complete yet."
    best = done.sort_values("val_dice", ascending=False, kind="stable").iloc[0]
    return (
        f"No final is tested image by image yet; the best of {_counted(len(done), 'complete trial')} is "
        f"{best.trial_id} ({best.encoder}), validation Dice {best.val_dice:.3f}."
    )


def _not_compared(finals: pd.DataFrame, patients: int) -> str:
    best = finals.iloc[0]
    if len(finals) == 1:
        return f"One final, {best.final}: test Dice {_with_interval(best)}; there is nothing to compare it with."
    highest = f"{best.final} has the highest test Dice of {_number(len(finals))} finals, {_with_interval(best)}"
    if patients < FEWEST_PATIENTS:
        return f"{highest}; {_counted(patients, 'patient')} are too few to tell finals apart."
    return f"{highest}; with one seed each this compares these networks, not their configurations."


def _compared(finals: pd.DataFrame, cheapest: str | None, cost: Cost) -> str:
    tied, best = finals[finals.tied.eq(True)], finals.iloc[0]
    if len(tied) == 1:
        return f"{best.final} is the best of {_number(len(finals))} finals: test Dice {_with_interval(best)}."
    every = len(tied) == len(finals)
    who = f"the {_number(len(tied))} finals" if every else f"{_number(len(tied))} of {_number(len(finals))} finals"
    named = "" if every and len(tied) > 3 else f" ({', '.join(tied.final)})"
    price = finals.loc[finals.final == cheapest, cost].iloc[0]
    spent = {"parameters": f"{price / 1e6:.2f}M parameters", "seconds": f"{price:.0f} s", "dollars": f"${price:.2f}"}
    cheaper = "cheaper" if len(tied) == 2 else "cheapest"
    return f"{who[0].upper()}{who[1:]} cannot be told apart{named}; {cheapest} is the {cheaper}, {spent[cost]}."


def _explained(images: pd.DataFrame, finals: pd.DataFrame, ties: Ties | None) -> list[str]:
    count, patients = images.sample_id.nunique(), images.patient_id.nunique()
    seeds = sorted(set(finals.seeds))
    each = f"{seeds[0]} seed{'s' * (seeds[0] > 1)} each" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds each"
    told = [f"Test Dice per image on {count} images of {patients} patients that no choice has seen, {each}."]
    if ties is None:
        return told
    return [
        *told,
        f"Between seeds a network's mean varies with a standard deviation of {ties.seed_sd:.3f}.",
        "A final leaves the set of ties where it lies further behind than patients and seeds explain (a model "
        "confidence set, 5 % over the whole set).",
        "The intervals of two finals may overlap although they differ: both were tested on the same patients.",
    ]


def _with_interval(final: pd.Series) -> str:
    interval = f" ({final.low:.3f} to {final.high:.3f})" if not math.isnan(final.low) else ""
    return f"{final.dice:.3f}{interval}"


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
