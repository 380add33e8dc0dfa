"""A study as tables and figures: a notebook whose cells begin with `# %%`, which also runs as a script."""

# %% [markdown]
# # A study as tables and figures
#
# From a study's folder to a figure. Open this file as a notebook (VS Code, PyCharm and Spyder do; `jupytext --to ipynb
# docs/study.py` makes an .ipynb), or run it: `python docs/study.py`. It needs neither torch nor Ray, and works while
# the study runs; the figure needs matplotlib (the extra `figures`). Run it in the folder that holds `runs/`, or set
# `STUDY`. For a page with everything in it: `python -m results.run report runs/nas`.

# %%
import os

from matplotlib.figure import Figure

import mammosearch

STUDY = os.environ.get("STUDY", "runs/nas")
trials = mammosearch.load(STUDY)
print(
    f"{len(trials)} trials:", ", ".join(f"{count} {status}" for status, count in trials.status.value_counts().items())
)

# %% [markdown]
# ## The paper's tables
# Table II: every encoder with the paper's settings and the same budget. Table III: the winners, trained in full.

# %%
print(mammosearch.nas_table(trials)[["encoder", "parameters", "dice", "iou", "best_dice", "paper_dice"]].to_string())
print(mammosearch.final_table(trials).to_string())

# %% [markdown]
# ## The best trials, with their settings
# A trial that only took over the result of an earlier one with the same settings names it in `repeat_of`.

# %%
searched = trials[(trials.role != "final") & (trials.status == "complete") & trials.repeat_of.isna()]
best = searched.sort_values("val_dice", ascending=False)
print(best[["trial_id", "encoder", "learning_rate", "batch_size", "val_dice", "slot_s", "usd"]].head(10).to_string())

# %% [markdown]
# ## Which settings mattered
# The share of each searched setting in what makes a trial one of the best (PED-ANOVA), from ten complete trials on.

# %%
importance = mammosearch.importance(trials)
print(importance.to_string() if len(importance) else importance.attrs["why_empty"])

# %% [markdown]
# ## Every epoch
# One row per trial and epoch, with losses, scores, seconds and learning rate.

# %%
epochs = mammosearch.load_epochs(STUDY)
curves = epochs[epochs.role != "final"].pivot_table(index="epoch", columns="encoder", values="val_dice", aggfunc="max")
print(curves.round(3).to_string())

# %% [markdown]
# ## A figure
# The best Dice of each encoder by epoch, and what a better Dice costs.

# %%
figure = Figure(figsize=(9, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
for encoder, curve in curves.items():
    left.plot(curve.index, curve, label=encoder)
left.set(xlabel="epoch", ylabel="best validation Dice")
left.legend(fontsize="small")
for encoder, rows in searched.groupby("encoder"):
    right.scatter(rows.parameters / 1e6, rows.val_dice, label=encoder)
right.set(xlabel="parameters, million", ylabel="validation Dice")
figure.savefig("study.png", dpi=150)
print("wrote study.png")
