"""The winners: which of the complete trials train in full, and under what name."""

from __future__ import annotations

from collections.abc import Sequence

from search.settings.sections import Final
from search.trials import Trial


def winners(complete: Sequence[Trial], final: Final) -> dict[str, Trial]:
    """The best `final.top` configurations, by the name of their folder in `final/`.

    Args:
        complete: the complete trials, best first.
        final: how many, and whether each must have another encoder.

    Returns:
        The encoder's name -> its best trial; with `distinct_encoders: false` encoder and trial number -> the trial.
    """
    chosen: dict[str, Trial] = {}
    for trial in complete:
        encoder = trial.info.config.encoder.replace("/", "-")
        name = encoder if final.distinct_encoders else f"{encoder}-{trial.info.trial_id}"
        if len(chosen) < final.top and name not in chosen:
            chosen[name] = trial
    return chosen
