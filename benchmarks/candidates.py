"""Methods that were tried, beside those of the product: what they cost stands in docs/log.md.

median         Golovin et al., "Google Vizier", KDD 2017: a trial ends if its best is below the median of what the
               others had on average up to the same epoch
extrapolation  Domhan et al., IJCAI 2015, with a small ensemble: a trial ends if its own curve, drawn on to the full
               budget, has less than 5 % to pass the best
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from search.methods.known import Known, Seen
from search.methods.steps import Propose, Resume, Start, Step, Stop

LEAST_TRIALS = 5
"""Complete trials before anything is stopped."""


class EveryEpoch:
    """Trials pause after every epoch from `grace_epochs` on, and a rule says which of them end.

    Args:
        known: the trials; told on by others.
        rule: (known, trial) -> whether it ends.
        grace_epochs: no trial ends before.
        epochs: the full budget.
    """

    def __init__(self, known: Known, rule: Callable[[Known, Seen], bool], *, grace_epochs: int, epochs: int) -> None:
        self.known, self.rule, self.grace_epochs, self.epochs = known, rule, grace_epochs, epochs

    def choose(self, propose: Propose) -> Step | None:
        """A paused trial goes on by one epoch or ends; without one, the proposal begins."""
        for trial in self.known.paused():
            if not trial.baseline and self.rule(self.known, trial):
                return Stop(number=trial.number, reason="the rule")
            return Resume(number=trial.number, until=min(trial.epoch + 1, self.epochs))
        proposal = propose()
        return Start(proposal=proposal, until=self.grace_epochs) if proposal else None


def below_median(known: Known, trial: Seen) -> bool:
    """Golovin et al.'s median rule, for one objective of which more is better."""
    averages = [
        float(np.mean([values[0] for epoch, values in other.values.items() if epoch <= trial.epoch]))
        for other in known
        if other.number != trial.number and other.epoch >= trial.epoch
    ]
    return len(averages) >= LEAST_TRIALS and trial.values[trial.epoch][0] < float(np.median(averages))


def hopeless_alone(epochs: int, *, least: float = 0.05) -> Callable[[Known, Seen], bool]:
    """The rule of extrapolation: whether a trial's own curve says that it will not become the best."""

    def rule(known: Known, trial: Seen) -> bool:
        complete = [t.final[0] for t in known if t.state == "complete" and t.final is not None]
        if len(complete) < LEAST_TRIALS or trial.epoch < 3:
            return False
        mean, sd = extrapolated([trial.values[t][0] for t in sorted(trial.values)], epochs)
        return 0.5 * math.erfc((max(complete) - mean) / (sd * math.sqrt(2))) < least

    return rule


def extrapolated(values: list[float], epochs: int) -> tuple[float, float]:
    """Mean and standard deviation of a curve at its full budget, by three families of curves weighted by their fit."""
    y_T = np.array(values)
    t_T = np.arange(1, len(values) + 1)
    found = []
    for shape in (lambda t, c: -(t**-c), lambda t, c: -np.exp(-c * t), lambda t, c: -1 / np.log(t + 1 + c)):
        for c in (0.1, 0.2, 0.4, 0.8, 1.6):
            design_T2 = np.stack([np.ones(len(t_T)), shape(t_T.astype(float), c)], axis=1)
            weights, *_ = np.linalg.lstsq(design_T2, y_T, rcond=None)
            left = float(np.sum((design_T2 @ weights - y_T) ** 2))
            found.append((left, float(weights @ np.array([1.0, shape(float(epochs), c)]))))
    left, end = np.array(found).T
    noise = max(float(left.min()) / max(1, len(values) - 2), 0.005**2)
    weight = np.exp(-(left - left.min()) / (2 * noise))
    weight /= weight.sum()
    mean = float(weight @ end)
    spread = float(weight @ (end - mean) ** 2)
    return mean, math.sqrt(spread + noise * (1 + (epochs - len(values)) / len(values)))
