"""Where a study stands: how many of its trials ended how, and what time and money are left, from events."""

from __future__ import annotations

import math

from search.budget import Spent
from search.busy import Busy
from search.events import Event
from search.final import epochs_of_final, gains
from search.settings.config import StudyConfig
from search.trials import Trial, Trials
from trainables.pareto import hypervolume, pareto_front
from trainables.record import ENDED


class Standing:
    """By the trials that are there when a session begins, and the events since. It is a listener.

    Args:
        config: the study.
        trials: its trials.
        spent: the time and the money that it has taken.
    """

    def __init__(self, config: StudyConfig, trials: Trials, spent: Spent) -> None:
        self._config, self._trials, self.spent = config, trials, spent
        self.busy: Busy | None = None
        """Counts the slots' time."""
        self._began_s = spent.elapsed_s
        self._epochs_here = 0
        """Epochs that were trained in this session."""
        self._under_way: dict[str, Trial] = {}
        self.paused = {trial.info.path for trial in trials if trial.status.status == "paused"}
        """The folders of the trials that lie paused."""
        self._finals, self._final_epochs = 0, epochs_of_final(config)
        self._searched = self._searched_epochs = 0
        """Search trials that ended, and their epochs."""
        self.counts = dict.fromkeys(ENDED, 0)
        """Ended trials by status, finals apart."""
        for trial in trials:
            if trial.ended:
                self._note_end(trial)

    def __call__(self, event: Event) -> None:
        """Note an event."""
        trial = event.trial
        if event.kind == "ordered":
            self._under_way[trial.info.path] = trial
            self._finals += trial.info.role == "final"
            self.paused.discard(trial.info.path)
        elif event.kind == "epoch":
            self._epochs_here += 1
        elif event.kind == "paused":
            del self._under_way[trial.info.path]
            self.paused.add(trial.info.path)
        else:
            self._under_way.pop(trial.info.path, None)
            self.paused.discard(trial.info.path)
            self._note_end(trial)

    @property
    def left_s(self) -> float | None:
        """Seconds that are left: the epochs that are expected, at the pace of this session; None: not known yet."""
        took_s = self.spent.elapsed_s - self._began_s
        return self._epochs_left() * took_s / self._epochs_here if self._epochs_here and took_s > 0 else None

    def headline(self, counts: str = "") -> str:
        """Trial k of n, the best so far, the time, what is left of it, the money.

        Args:
            counts: put in after the first of them.
        """
        best = self._trials.best
        found = f"best {best.values[0]:.4f} ({best.info.trial_id})" if best and best.values else "no result yet"
        left = "" if self.left_s is None else f", about {clock(self.left_s)} left"
        money = f", ${self.spent.usd:.2f}" if self.spent.usd else ""
        slots = f"slots {self.busy.share:.0%} busy" if self.busy and self.busy.share else ""
        where = f"trial {len(self._trials)} of {self._config.budget.trials}"
        return " | ".join(filter(None, (where, counts, found, f"{clock(self.spent.elapsed_s)}{left}{money}", slots)))

    def front(self) -> str:
        """Of several objectives: how many trials no other beats, and how much of the room they cover; else empty."""
        complete = self._trials.complete()
        if len(self._config.objective) == 1 or not complete:
            return ""
        gain_NA = gains(complete, self._config)
        on, volume = int(pareto_front(gain_NA).sum()), hypervolume(gain_NA)
        covered = "" if math.isnan(volume) else f", hypervolume {volume:.3f}"
        return f"Pareto front: {on} of {len(complete)} complete trials{covered}"

    def _note_end(self, trial: Trial) -> None:
        if trial.info.role != "final":
            self.counts[trial.status.status] += 1
        if trial.info.role == "search":
            self._searched += 1
            self._searched_epochs += len(trial.curve)

    def _epochs_left(self) -> float:
        """What is still to be trained: a search trial as long as those that ended on average, the rest in full."""
        budget, final = self._config.budget, self._config.final
        each = self._searched_epochs / self._searched if self._searched else budget.epochs
        planned = {"search": each, "baseline": budget.epochs, "final": self._final_epochs}
        left = sum(
            max(0.0, planned[t.info.role] + t.info.taken_epochs - len(t.curve)) for t in self._under_way.values()
        )
        trials, finals = budget.trials - len(self._trials), final.top * final.seeds - self._finals
        return left + max(0, trials) * each + max(0, finals) * self._final_epochs


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
