"""What stands under the tables: which data they are of, how their figures are made, and how far they carry."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from results.optimism import Optimism
from results.paper import TABLE_II, TABLE_III
from results.ranks import FEWEST_ENCODERS, RankAgreement, agreement_of
from trainables.score.image import FOUND_SHARE

HOW_SCORED = (
    "Dice and IoU: hard, at the trial's threshold, per image, then averaged over the images, at the epoch with the "
    "best validation Dice."
)

PAPER_NOTE = (
    "Paper: tables II (search) and III (full training), on CBIS-DDSM at 224 px. Its time has no unit, and its "
    "validation set is not described. In the paper's table II every mean Dice is larger than 2 IoU / (1 + IoU). "
    "Averages over the same masks cannot be, so its Dice and IoU were computed differently and should not be compared "
    "with each other. Its 29.90M for SEResNet50 in table III is 35.05M in table II."
)

VIEWS = {"whole": "whole mammograms", "lesion": "crops around a lesion that is already found"}

PAPER_RANKS = {encoder: (TABLE_II[encoder].dice, row.dice) for encoder, row in TABLE_III.items()}
"""Dice of tables II and III for the encoders that the paper trained in full."""


def dataset_note(table: pd.DataFrame) -> str:
    """Data, field of view and size, from `study.json`; says so where a study does not tell."""
    study: dict[str, Any] = table.attrs.get("study", {})
    if "dataset" not in study:
        return "Data: not stated in study.json."
    data = study.get("config", {}).get("data")
    build = data.get("build") if isinstance(data, dict) else None
    source = f" (source {build['source']})" if isinstance(build, dict) and "source" in build else ""
    counts = ", ".join(f"{count} {split}" for split, count in study.get("samples", {}).items())
    view, size = study.get("field_of_view", "not stated"), study.get("size_px", "?")
    return (
        f"Data: {str(study['dataset']).rstrip('/').rsplit('/', 1)[-1]}{source}; field of view: {view} "
        f"({VIEWS.get(str(view), 'unknown')}), {size} x {size} px; images: {counts or 'not stated'}; "
        f"fingerprint {str(study.get('dataset_fingerprint', ''))[:12]}."
    )


def scores_note(images: pd.DataFrame) -> str:
    """How the scores of test images are made, with the rule for empty masks and how many have no distance."""
    once = images.drop_duplicates("sample_id")
    without = images.hd95_px.isna().mean()
    missing = f" {without:.0%} of the predictions have no distance." if without else ""
    return (
        f"{len(once)} images of {once.patient_id.nunique()} patients; in brackets the 95 % interval by patient and "
        "seed. Mean: per image, then averaged. Pooled: of all pixels together. Two empty masks agree (Dice and IoU 1, "
        "distance 0). If one alone is empty, Dice and IoU are 0 and there is no HD95, which is averaged over the "
        f"others.{missing} Lesions found: share of which {FOUND_SHARE:.0%} or more is covered. False positives: "
        "predicted parts per image that touch no lesion."
    )


def taken_note(trials: pd.DataFrame) -> list[str]:
    """A sentence where finals went on from their trials of the search; else none."""
    taken = trials[trials.taken_epochs.fillna(0) > 0] if "taken_epochs" in trials else trials.head(0)
    if taken.empty:
        return []
    epochs = " or ".join(str(int(count)) for count in sorted(set(taken.taken_epochs)))
    return [
        f"With one seed each final went on from its trial of the search: its first {epochs} epochs are the search's, "
        "so Search Dice and Val Dice are of one training."
    ]


def optimism_note(optimism: Optimism) -> str:
    """How much too high a validation Dice is by having been chosen; empty where that cannot be told."""
    if math.isnan(optimism.final):
        return ""
    images = f" on {optimism.images} validation images" if optimism.images else ""
    best = ""
    if optimism.trials > 1 and not math.isnan(optimism.best_trial):
        best = f", that of the best of {optimism.trials} trials by about {optimism.best_trial:.3f}"
    return (
        f"Val Dice is the best epoch's{images}, and so too high: by about {optimism.final:.3f} for a final{best} "
        f"(simulated from this study's curves, whose epochs vary by {optimism.noise_sd:.3f}). Test Dice is not."
    )


def rank_note(ours: RankAgreement, *, tested: bool) -> str:
    """One sentence on `results.rank_agreement`, beside that of the paper; empty with fewer than two finals."""
    if ours.encoders < 2:
        return ""
    measure = "test Dice" if tested else "validation Dice"
    if ours.encoders < FEWEST_ENCODERS:
        turned = "turned round" if ours.overtakes else "the same"
        return f"Order of the two finals by the search and by {measure} after the full training: {turned}."
    return (
        f"Order by the search's validation Dice against order by {measure} after the full training: "
        f"{_agreement(ours)}. The paper's, of its validation set: {_agreement(agreement_of(PAPER_RANKS))}."
    )


def _agreement(ranks: RankAgreement) -> str:
    turned = "; ".join(f"{winner} overtakes {loser}" for winner, loser in ranks.overtakes) or "no overtaking"
    known = not math.isnan(ranks.tau_low)
    interval = f" (95 % interval {ranks.tau_low:.2f} to {ranks.tau_high:.2f} over patients and seeds)" if known else ""
    return f"Kendall's tau {ranks.kendall_tau:.2f}{interval} over {ranks.encoders} encoders ({turned})"
