"""What is known of a study's trials when a decision is made, told event by event in the order of the study's log.

    known = Known()
    known.enter(0, params, until=4)            # trial 0 begins, to train up to epoch 4
    known.report(0, 1, (0.31,))                # its objectives after epoch 1: of its best epoch so far
    known.pause(0)                             # it stands at epoch 4; a later decision may take it up again
    known.resume(0, until=16)
    known.end(0, "complete", (0.74,))

A decision is a function of the seed and of what is known. `Known` therefore holds nothing that depends on when it was
asked, only on what it was told: a study that resumes, or an audit, tells the same events again and decides the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["running", "paused", "complete", "pruned", "failed", "infeasible"]
ENDED: tuple[State, ...] = ("complete", "pruned", "failed", "infeasible")

Values = tuple[float, ...]
"""One value per objective."""


@dataclass
class Seen:
    """One trial, as far as it is known."""

    number: int
    params: Mapping[str, Any]
    """The values of the active axes (`Space`)."""
    until: int
    """The epoch up to which it may train before the next decision about it."""
    baseline: bool = False
    """Whether it is a baseline, which is never stopped."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What the sampler wrote down with its proposal, e.g. NSGA-II the generation."""
    values: dict[int, Values] = field(default_factory=dict)
    """Epoch -> its objectives then: those of its best epoch so far."""
    epoch: int = 0
    """Its last reported epoch; 0 before the first."""
    last: Values | None = None
    """Its newest objectives."""
    state: State = "running"
    final: Values | None = None
    """The objectives it ended with; None while it runs, and for a failed one."""
    changes: int = 0
    """Counts what was told of it."""


class Known:
    """The trials of a study, and in which order they ended."""

    def __init__(self) -> None:
        self.trials: dict[int, Seen] = {}
        """By number; those of earlier studies (a warm start) have negative ones."""
        self.entered = 0
        """How many trials of this study were entered: the number of its next one."""
        self.epochs = 0
        """How many epochs of this study's trials were reported."""
        self.ended: list[int] = []
        """Numbers of the ended trials, in the order in which they ended."""
        self.open: dict[int, Seen] = {}
        """The trials that have not ended, in order of number."""
        self.reached: dict[int, list[Seen]] = {}
        """Epoch -> the trials that have been trained to it, in the order in which they reached it."""
        self.position = 0
        """How many events were told: what a decision is written down with."""

    def __iter__(self) -> Iterator[Seen]:
        return iter(self.trials.values())

    def enter(
        self,
        number: int,
        params: Mapping[str, Any],
        *,
        until: int,
        baseline: bool = False,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        """A trial begins."""
        self._told()
        self.entered += number >= 0
        trial = Seen(number=number, params=dict(params), until=until, baseline=baseline, notes=dict(notes or {}))
        self.trials[number] = self.open[number] = trial

    def report(self, number: int, epoch: int, values: Sequence[float]) -> None:
        """A trial has these objectives after `epoch` epochs. An epoch that is told again keeps its first ones.

        (A trial whose slot was lost trains from its last checkpoint; what was decided on an epoch stays decided on it.)
        """
        trial = self._of(number)
        if epoch not in trial.values:
            trial.epoch, trial.last = epoch, tuple(values)
            trial.values[epoch] = trial.last
            self.reached.setdefault(epoch, []).append(trial)
            self.epochs += number >= 0

    def pause(self, number: int) -> None:
        """A trial reached the epoch it was to train to, and waits for a decision."""
        self._of(number).state = "paused"

    def resume(self, number: int, *, until: int) -> None:
        """A paused trial goes on, up to epoch `until`."""
        trial = self._of(number)
        trial.state, trial.until = "running", until

    def end(self, number: int, state: State, values: Sequence[float] | None = None) -> None:
        """A trial ended."""
        assert state in ENDED, state
        trial = self._of(number)
        trial.state = state
        trial.final = tuple(values) if values is not None else None
        self.ended.append(number)
        del self.open[number]

    def paused(self) -> list[Seen]:
        """The trials that wait for a decision, in order of number."""
        return [trial for trial in self.open.values() if trial.state == "paused"]

    def _of(self, number: int) -> Seen:
        self._told()
        trial = self.trials[number]
        trial.changes += 1
        return trial

    def _told(self) -> None:
        self.position += 1
