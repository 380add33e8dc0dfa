"""Freeze and thaw: every trial pauses at its rungs, and a free slot does what is expected to bring most.

That is to take up a paused trial from its checkpoint, or to begin the sampler's proposal: whichever has the largest
expected improvement on the best trial at full budget (`search.methods.forecast`). Nothing is lost by pausing: a slow
starter is taken up again once the quick ones have shown what they are worth. A paused trial ends only when it has
next to no chance left to become the best. After Swersky et al., "Freeze-Thaw Bayesian Optimization", arXiv:1406.3896.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search.methods.forecast import Forecast, Outlook
from search.methods.known import Known, Seen
from search.methods.points import Params, Points
from search.methods.rungs import Ladder
from search.methods.steps import Proposal, Propose, Resume, Start, Step, Stop

CANDIDATES = 256
"""Configurations of a large space that are compared for one proposal."""
NEAR = 10
"""How many of the best trials half of them are drawn near to."""


class ForecastSampler:
    """Proposes the configuration with the largest expected improvement at full budget.

    Of a finite space of up to a thousand configurations it looks at all, of another at some drawn at random and some
    near the best trials.

    Args:
        points: the space.
        forecast: what is expected.
        known: the trials; told on by others.
        seed: of the study.
    """

    def __init__(self, points: Points, forecast: Forecast, known: Known, *, seed: int) -> None:
        self.points, self.forecast, self.known, self.seed = points, forecast, known, seed

    def propose(self, number: int, attempt: int) -> Proposal:
        """The proposal for trial `number`; at random while nothing is known, or once everything was proposed."""
        rng = np.random.default_rng([self.seed, number, attempt])
        pool = self._pool(rng)
        if not pool:
            return Proposal(params=self.points.draw(rng), notes={})
        outlook = self.forecast.outlook(pool, [None] * len(pool))
        chosen = int(rng.integers(len(pool))) if outlook is None else int(np.argmax(outlook.improvement_M()))
        return Proposal(params=pool[chosen], notes={})

    def _pool(self, rng: np.random.Generator) -> list[Params]:
        taken = {_identity(trial.params) for trial in self.known}
        pool = self.points.cells
        if pool is None:
            best = self.forecast.best(NEAR)
            count = CANDIDATES // 2 if best else CANDIDATES
            pool = [self.points.draw(rng) for _ in range(count)]
            pool += [self.points.near(best[i % len(best)].params, rng) for i in range(CANDIDATES - count)]
        return [params for params in pool if _identity(params) not in taken]


class FreezeThaw:
    """The pruner that goes with it, and with any other sampler.

    Args:
        known: the trials; told on by others.
        ladder: the rungs at which trials pause.
        forecast: what is expected.
        stop_below: a paused trial ends when its chance to become the best falls below this.
    """

    def __init__(self, known: Known, ladder: Ladder, *, forecast: Forecast, stop_below: float = 0.01) -> None:
        self.known, self.ladder, self.forecast, self.stop_below = known, ladder, forecast, stop_below

    def choose(self, propose: Propose) -> Step | None:
        """Baselines first; then whatever is expected to bring most."""
        paused = self.known.paused()
        for trial in paused:
            if trial.baseline:
                return self._resume(trial)
        proposal = propose()
        asked = [trial.params for trial in paused] + ([proposal.params] if proposal else [])
        if not asked:
            return None
        outlook = self.forecast.outlook(asked, [*(trial.number for trial in paused), None][: len(asked)])
        if outlook is None:
            return Start(proposal=proposal, until=self.ladder.after(0)) if proposal else self._resume(paused[0])
        if (hopeless := self._hopeless(paused, outlook)) is not None:
            return hopeless
        most = int(np.argmax(outlook.improvement_M()))
        if proposal is not None and most == len(paused):
            return Start(proposal=proposal, until=self.ladder.after(0))
        return self._resume(paused[most])

    def _hopeless(self, paused: Sequence[Seen], outlook: Outlook) -> Stop | None:
        for trial, chance in zip(paused, outlook.chance_M(), strict=False):
            if chance < self.stop_below:
                reason = f"after {trial.epoch} epochs its chance to become the best is {chance:.1%}"
                return Stop(number=trial.number, reason=reason)
        return None

    def _resume(self, trial: Seen) -> Resume:
        return Resume(number=trial.number, until=self.ladder.after(trial.epoch))


def _identity(params: Params) -> tuple[tuple[str, object], ...]:
    return tuple(sorted(params.items()))
