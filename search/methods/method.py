"""A study's method: its sampler and its pruner put together, one decision at a time.

    method = Method(space, known, sampler=..., pruner=...)
    step = method.next()        # a free slot asks: Start, Resume, Stop (ask again), or None: nothing can be done now

Whoever asks writes the step down and tells `known` of it before anything else is asked. Nothing proposed is trained
already: a proposal that is known is replaced by another attempt, and a finite space gives what is left of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from search.methods.known import Known
from search.methods.steps import Proposal, Propose, Step
from search.settings.space import Space

ATTEMPTS = 32
"""How often a proposal that was made before is replaced by another before it counts as a repeat."""
REPEAT = "repeat"
"""The note of a proposal that was made before: it is trained with another seed."""


class Proposes(Protocol):
    """A sampler."""

    def propose(self, number: int, attempt: int) -> Proposal:
        """The proposal for trial `number`; `attempt` counts up when one was known already."""


class Chooses(Protocol):
    """A pruner: it decides what a free slot does next."""

    def choose(self, propose: Propose) -> Step | None:
        """The next step, a function of what is known and of the proposal; None if there is none."""


class Method:
    """Decisions of one study.

    Args:
        space: what is searched.
        known: what the decisions are made from; the caller tells it every event.
        sampler: who proposes.
        pruner: who decides what a free slot does.
        seed: of the study.
        trials: new trials that may begin in all, those that are known included.
        baselines: the configurations that are trained first.
        repeats: whether a proposal that was made before is proposed once more where nothing new is; its notes say so.
    """

    def __init__(
        self,
        space: Space,
        known: Known,
        *,
        sampler: Proposes,
        pruner: Chooses,
        seed: int,
        trials: int,
        baselines: Sequence[Mapping[str, Any]] = (),
        repeats: bool = False,
    ) -> None:
        self.space, self.known, self.seed, self.trials = space, known, seed, trials
        self.baselines, self.repeats = baselines, repeats
        self._sampler, self._pruner = sampler, pruner
        self._keys: dict[str, int] = {}
        """What identifies a configuration -> the trial that has it; a memory of `known`."""
        self._keyed = 0
        """Trials below this number have their key there."""
        self._size = space.size()
        self._proposed: tuple[int, Proposal | None] = (-1, None)
        """The position at which the last proposal was made, and the proposal."""

    def next(self) -> Step | None:
        """What a free slot does next."""
        return self._pruner.choose(self.propose)

    def propose(self) -> Proposal | None:
        """A configuration that was not trained yet; None if there is none, or no new trial may begin."""
        if self._proposed[0] != self.known.position:
            self._proposed = (self.known.position, self._propose())
        return self._proposed[1]

    def _propose(self) -> Proposal | None:
        number = self.known.entered
        if number >= self.trials:
            return None
        if number < len(self.baselines):
            return Proposal(params=self.baselines[number], notes={}, baseline=True)
        for trial in range(self._keyed, number):
            self._keys.setdefault(self.space.key(self.known.trials[trial].params), trial)
        self._keyed = max(self._keyed, number)
        for attempt in range(0 if self._is_exhausted() else ATTEMPTS):
            proposal = self._sampler.propose(number, attempt)
            if self.space.key(proposal.params) not in self._keys:
                return proposal
        if self.repeats:
            proposal = self._sampler.propose(number, ATTEMPTS)
            return replace(proposal, notes={**proposal.notes, REPEAT: True})
        return self._left(number)

    def _is_exhausted(self) -> bool:
        return self._size is not None and len(self._keys) >= self._size

    def _left(self, number: int) -> Proposal | None:
        """One of the configurations that a finite space still has, drawn at random."""
        if self._size is None:
            return None
        left = [cell for cell in self.space.cells() if self.space.key(cell) not in self._keys]
        if not left:
            return None
        drawn = np.random.default_rng([self.seed, number]).integers(len(left))
        return Proposal(params=left[int(drawn)], notes={})
