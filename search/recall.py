"""A trial's folder and what its study knows of it, brought up to each other after their driver died between the two."""

from __future__ import annotations

from search.decisions import Decisions, state_of
from search.orders import Orders
from search.trials import Trial, Trials
from trainables.life import Ending, end_trial, pause_trial
from trainables.order import TrialOrder

NOT_FINITE = "an objective is not finite"


def take_up(trial: Trial, decisions: Decisions, orders: Orders, trials: Trials) -> TrialOrder | None:
    """Go on with a trial of an earlier session; the order to train it, if it was under way.

    Args:
        trial: as its folder has it.
        decisions: made from the study's log, which may be behind the folder by what nothing was decided on.
        orders: makes the order.
        trials: the study's.
    """
    number = trial.number
    if number in decisions.reasons and not trial.ended:
        ending = Ending(status="pruned", reason=decisions.reasons[number])
        trial.status = end_trial(orders.order(trial.info), ending)
    if decisions.is_done(number):
        return None
    for epoch, values in sorted(trial.curve.items()):
        decisions.report(number, epoch, values)
    if trial.ended:
        decisions.end(number, state_of(trial), trial.values)
        return None
    order = orders.order(trial.info, trials)
    epoch = max(trial.curve, default=0)
    if not trial.finite or epoch < decisions.until(number) or epoch == trial.info.config.epochs:
        return order  # after its last epoch too: its life tells that once more, and ends
    decisions.pause(number)
    trial.status = pause_trial(order)
    return None


def truthful(ending: Ending, trial: Trial) -> Ending:
    """A trial whose objective is not finite has failed, even if it reported completion."""
    if ending.status == "failed":
        return ending
    if not trial.curve:
        return Ending(status="failed", reason="ended without a finished epoch", failure="exception")
    return ending if trial.finite else Ending(status="failed", reason=NOT_FINITE, failure="not_finite")
