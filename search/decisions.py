"""The decisions of a search, each from all that is known, written into the study's log before it is acted on.

    decisions = Decisions(config, Log(folder), lag=None)
    step = decisions.next()                # Start, Resume, Stop, or None: nothing to be done before more is known
    decisions.report(7, 1, (0.41,))        # what came of it
    decisions.pause(7)

A decision is a function of (seed, what was known). A study that resumes tells its log again and goes on; an audit
(`search.proof.audit`) tells it again and asks again.

With a lag (`study.repeatable`) what is known depends on no clock either. A stretch is one Start or Resume, up to its
rung. What came of stretch m is told in order of m, once the decision for stretch m + lag is due; a decision that is
None is asked again after one stretch more. So the same seed and lag give the same study, whatever trials take.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from search.budget import Limit
from search.log import Line, Log
from search.methods.known import ENDED, Known, State
from search.methods.names import Setup
from search.methods.steps import Resume, Start, Step, Stop
from search.settings.config import StudyConfig
from search.trials import Trial


def lag_of(slots: int) -> int:
    """How many stretches before its own the newest lies that a decision of a repeatable study may know."""
    return 2 * slots - 1


@dataclass
class Stretch:
    """One Start or Resume of a repeatable study, and what came of it as long as that is not told."""

    trial: int
    lines: list[Line] = field(default_factory=list)
    done: bool = False


class Decisions:
    """Decides, and keeps what the decisions are made from.

    Args:
        config: the study.
        log: its log; what it holds is told first.
        lag: None: every decision knows all that has happened.
        warm: ended trials of earlier studies; they get the numbers ..., -2, -1.
    """

    def __init__(self, config: StudyConfig, log: Log, *, lag: int | None, warm: Sequence[Trial] = ()) -> None:
        self.known, self.lag = Known(), lag
        self.method = Setup.of(config, self.known).method_of(config)
        self._limit = Limit(config, self.known)
        self._log = log
        self._stretches: list[Stretch] = []
        """Of a repeatable study, in order."""
        self._told = 0
        """How many of them were told."""
        self._stretch_of: dict[int, Stretch] = {}
        self.reasons: dict[int, str] = {}
        """Why trials were stopped, by number."""
        tell_warm(self.known, warm)
        for line in log.lines:
            self._take(line)
        log.lines = []

    def next(self) -> Step | None:
        """What a free slot does next; it is written down."""
        if self.lag is not None and not self._tell_stretches(len(self._stretches) - self.lag + 1):
            return None
        while (step := self._ask()) is None and self._told < len(self._stretches):
            if not self._tell_stretches(self._told + 1):
                return None
        if step is not None:
            self._write({**line_of(step, self.known.entered), "known": self.known.position})
            self._log.flush()
        return step

    def over(self) -> str:
        """Why no further trial begins, once `next` gives None and nothing is open."""
        size = self.method.space.size()
        none_left = f"all {size} configurations of the space are trained" if size else "nothing new is proposed"
        return self._limit.reason or none_left

    @property
    def no_more_begin(self) -> bool:
        """Whether no further trial may begin, so that only those that are open can still change the search."""
        return self._limit.is_final

    def until(self, trial: int) -> int:
        """The epoch to which a trial may train before it is decided about again."""
        return self.known.trials[trial].until

    def report(self, trial: int, epoch: int, values: Sequence[float]) -> None:
        """A trial finished an epoch. One that was told already keeps its first values."""
        held = self._stretch_of.get(trial)
        told_there = held is not None and any(line.get("epoch") == epoch for line in held.lines)
        if epoch not in self.known.trials[trial].values and not told_there and all(map(math.isfinite, values)):
            self._note(trial, {"what": "report", "trial": trial, "epoch": epoch, "values": list(values)})

    def pause(self, trial: int) -> None:
        """A trial stands at its rung."""
        self._note(trial, {"what": "pause", "trial": trial}, done=True)

    def end(self, trial: int, state: State, values: Sequence[float] | None) -> None:
        """A trial ended, by itself or for a reason outside of the search's method."""
        told = None if values is None or not all(map(math.isfinite, values)) else list(values)
        self._note(trial, {"what": "end", "trial": trial, "state": state, "values": told}, done=True)
        self._log.flush()

    def is_done(self, trial: int) -> bool:
        """Whether a trial stands at its rung or has ended, told or not."""
        held = self._stretch_of.get(trial)
        return self.known.trials[trial].state != "running" or (held is not None and held.done)

    def _ask(self) -> Step | None:
        limit = self._limit.trials()
        if limit != self.method.trials:
            self._write({"what": "limit", "trials": limit, "reason": self._limit.reason})
        return self.method.next()

    def _note(self, trial: int, line: Line, *, done: bool = False) -> None:
        """Tell an event, or keep it until its stretch is told."""
        held = self._stretch_of.get(trial)
        if held is None:
            self._write(line)
        else:
            held.lines.append(line)
            held.done = held.done or done

    def _tell_stretches(self, count: int) -> bool:
        """Tell what came of the first `count` stretches; False if one of them is not done."""
        while self._told < count:
            stretch = self._stretches[self._told]
            if not stretch.done:
                return False
            del self._stretch_of[stretch.trial]
            for line in stretch.lines:
                self._log.add(line)
                self._tell(line)
            stretch.lines = []
            self._told += 1
        return True

    def _write(self, line: Line) -> None:
        self._log.add(line)
        self._take(line)

    def _take(self, line: Line) -> None:
        """Tell a line; and of a repeatable study note its stretch."""
        if self.lag is not None and line["what"] in ("pause", "end") and line["trial"] in self._stretch_of:
            del self._stretch_of[line["trial"]]
            self._told += 1
        self._tell(line)
        if self.lag is not None and line["what"] in ("start", "resume"):
            self._stretches.append(Stretch(line["trial"]))
            self._stretch_of[line["trial"]] = self._stretches[-1]

    def _tell(self, line: Line) -> None:
        if line["what"] == "limit":
            self.method.trials = line["trials"]
        elif line["what"] == "stop":
            self.reasons[line["trial"]] = line["reason"]
        tell(self.known, line)


def tell(known: Known, line: Line) -> None:
    """Tell a line of the log."""
    trial = line.get("trial", -1)
    match line["what"]:
        case "start":
            baseline = line.get("role") == "baseline"
            known.enter(trial, line["params"], until=line["until"], baseline=baseline, notes=line["notes"])
        case "resume":
            known.resume(trial, until=line["until"])
        case "stop":
            known.end(trial, "pruned", known.trials[trial].last)
        case "report":
            known.report(trial, line["epoch"], line["values"])
        case "pause":
            known.pause(trial)
        case "end":
            known.end(trial, line["state"], line["values"])


def line_of(step: Step, entered: int) -> Line:
    """A decision as it is written down."""
    match step:
        case Start(proposal=proposal, until=until):
            role = "baseline" if proposal.baseline else "search"
            params: dict[str, Any] = dict(proposal.params)
            found: Line = {"what": "start", "trial": entered, "role": role, "until": until, "params": params}
            return {**found, "notes": dict(proposal.notes)}
        case Resume(number=number, until=until):
            return {"what": "resume", "trial": number, "until": until}
        case Stop(number=number, reason=reason):
            return {"what": "stop", "trial": number, "reason": reason}


def tell_warm(known: Known, trials: Sequence[Trial]) -> None:
    """Tell of ended trials of earlier studies, before any of this one."""
    for number, trial in enumerate(trials, start=-len(trials)):
        epochs = max(trial.curve, default=0)
        known.enter(number, trial.info.params, until=epochs, notes=trial.info.notes)
        for epoch, values in sorted(trial.curve.items()):
            if all(map(math.isfinite, values)):
                known.report(number, epoch, values)
        known.end(number, state_of(trial), trial.values)


def state_of(trial: Trial) -> State:
    """How a trial ended, as methods know it: infeasible where no slot has the memory for it."""
    if trial.status.failure == "out_of_memory":
        return "infeasible"
    found = [state for state in ENDED if state == trial.status.status]
    assert found, f"trial {trial.info.trial_id} has not ended"
    return found[0]
