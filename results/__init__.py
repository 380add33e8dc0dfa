"""What came of a study, as pandas tables. Imports neither Ray nor torch.

import results
trials = results.load("runs/phantom")      # one row per trial
results.nas_table(trials)                  # the paper's table II, with the paper's own figures beside
results.final_table("runs/phantom")        # the paper's table III, with intervals
results.verdict_of("runs/phantom").sentence
"""

from results.front import front_table
from results.scores import load_images, load_marks, scores
from results.summary import cost_table, encoder_table, final_table, nas_table, rank_agreement, trial_table
from results.table import load, load_epochs
from results.verdict import verdict_of

__all__ = [
    "cost_table",
    "encoder_table",
    "final_table",
    "front_table",
    "load",
    "load_epochs",
    "load_images",
    "load_marks",
    "nas_table",
    "rank_agreement",
    "scores",
    "trial_table",
    "verdict_of",
]
