"""What came of a study, as pandas tables. Imports neither Ray nor torch.

import results
trials = results.load("runs/phantom")      # one row per trial
results.nas_table(trials)                  # the paper's table II, with the paper's own figures beside
results.final_table(trials)                # the paper's table III
"""

from results.table import final_table, load, load_epochs, nas_table, rank_agreement

__all__ = ["final_table", "load", "load_epochs", "nas_table", "rank_agreement"]
