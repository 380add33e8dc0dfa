"""The winners: which of the complete trials train in full, and under what name."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from search.settings.sections import Final


def winners(complete: Sequence[FrozenTrial], final: Final) -> dict[str, FrozenTrial]:
    """The best `final.top` configurations, by the name of their folder in `final/`.

    Args:
        complete: the complete trials, best first.
        final: how many, and whether each must have another encoder.

    Returns:
        The encoder's name -> its best trial; with `distinct_encoders: false` encoder and trial number -> the trial.
    """
    chosen: dict[str, FrozenTrial] = {}
    for trial in complete:
        encoder = trial.user_attrs["config"]["encoder"].replace("/", "-")
        name = encoder if final.distinct_encoders else f"{encoder}-{trial.number:04d}"
        if len(chosen) < final.top and name not in chosen and "repeat_of" not in trial.user_attrs:
            chosen[name] = trial
    return chosen
