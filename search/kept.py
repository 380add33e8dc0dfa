"""What stays of ended trials: weights, by `study.keep_checkpoints`, and checkpoints that finals go on from."""

from __future__ import annotations

from cluster.storage import Folder
from search.final import to_be_kept
from search.settings.config import StudyConfig
from search.trials import Trial, Trials
from trainables.life import tidy
from trainables.record import TrialRecord


class Kept:
    """Takes away what is not to stay.

    Args:
        config: the study.
        folder: the study's folder.
        trials: those of the search.
    """

    def __init__(self, config: StudyConfig, folder: Folder, trials: Trials) -> None:
        self._config, self._folder, self._trials = config, folder, trials
        self._for_finals: set[int] = set()
        """Numbers of the trials whose checkpoints are kept, as a final may go on from them."""

    def tidy(self, trial: Trial, bettered: Trial | None) -> None:
        """Leave of an ended trial's checkpoints the weights that are to be kept.

        Args:
            trial: it has ended.
            bettered: the trial that was the best until then, if this one is better.
        """
        if trial.info.role == "final":
            tidy(TrialRecord(self._folder / trial.info.path), keep=True)
            return
        before, self._for_finals = self._for_finals, to_be_kept(self._trials, self._config)
        numbers = {trial.number, *(before - self._for_finals), *({bettered.number} if bettered else ())}
        for number in numbers:
            self._tidy_one(self._trials[number])

    def tidy_again(self, last: Trial, bettered: Trial | None) -> None:
        """As `tidy`, for the trial that ended last in an earlier session, whose driver may have died before."""
        earlier = Trials([trial for trial in self._trials if trial is not last], self._config.objective)
        self._for_finals = to_be_kept(earlier, self._config)
        self.tidy(last, bettered)

    def for_no_final(self) -> None:
        """Keep no checkpoint for a final any more."""
        before, self._for_finals = self._for_finals, set()
        for number in before:
            self._tidy_one(self._trials[number])

    def _tidy_one(self, trial: Trial) -> None:
        kept = self._config.study.keep_checkpoints
        keep = kept == "all" or (kept == "best" and trial is self._trials.best)
        tidy(TrialRecord(self._folder / trial.info.path), keep=keep, checkpoints=trial.number in self._for_finals)
