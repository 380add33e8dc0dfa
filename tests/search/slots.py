"""Slots that train invented curves for a method, and write down every event and decision, without an engine."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from search.methods.known import Known
from search.methods.method import Method
from search.methods.names import Setup
from search.methods.steps import Resume, Start, Step, Stop
from search.settings.space import Axis, Space

SPACE = Space(
    axes={
        "encoder": Axis(choices=("mobilenet", "vgg19", "densenet121")),
        "learning_rate": Axis(low=1e-4, high=1e-2, log=True),
        "batch_size": Axis(choices=(4, 8, 16)),
        "optimiser": Axis(choices=("adam", "sgd")),
        "momentum": Axis(low=0.5, high=0.9, when={"optimiser": ("sgd",)}),
    },
    epochs=8,
)
EPOCHS = 8


def curve(params: dict[str, Any], epoch: int) -> tuple[float, float]:
    """Two objectives of a configuration: one that grows, and one that is its size."""
    gap = abs(np.log10(params["learning_rate"]) + 3) + 0.1 * (params["encoder"] == "vgg19") + params.get("momentum", 0)
    speed = {"mobilenet": 1.0, "vgg19": 3.0, "densenet121": 2.0}[params["encoder"]]
    return float((1 - 0.2 * gap) * (1 - np.exp(-epoch / speed))), float(params["batch_size"])


@dataclass
class Slots:
    """A study: `log` holds every event, and with each decision how much was known when it was made.

    Args:
        sampler, pruner, objectives, slots, trials: of the study.
        rebuild_every: so many events after which everything in memory is made anew from the log.
    """

    sampler: str
    pruner: str
    objectives: int = 1
    slots: int = 3
    trials: int = 16
    rebuild_every: int | None = None
    log: list[tuple[Any, ...]] = field(default_factory=list)
    decisions: list[tuple[int, Step]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.known, self.method = self.make()

    def make(self) -> tuple[Known, Method]:
        """A method that knows nothing yet."""
        known = Known()
        setup = Setup(
            SPACE,
            known,
            seed=3,
            epochs=EPOCHS,
            directions=["maximize", "minimize"][: self.objectives],
            startup_trials=4,
            population=4,
        )
        return known, setup.method(sampler=self.sampler, pruner=self.pruner, trials=self.trials)

    def tell(self, event: str, *args: Any, **named: Any) -> None:
        self.log.append((event, args, named))
        getattr(self.known, event)(*args, **named)
        if self.rebuild_every and len(self.log) % self.rebuild_every == 0:
            self.known, self.method = self.rebuilt()

    def rebuilt(self, upto: int | None = None) -> tuple[Known, Method]:
        """Everything made anew from the log, or from its beginning."""
        known, method = self.make()
        for event, args, named in self.log[:upto]:
            getattr(known, event)(*args, **named)
        return known, method

    def run(self) -> Slots:
        clock, running = 0.0, []
        while True:
            while len(running) < self.slots and (number := self._begin()) is not None:
                heapq.heappush(running, (clock + self._seconds(number, 1), number))
            if not running:
                return self
            clock, number = heapq.heappop(running)
            if self._epoch(number):
                heapq.heappush(running, (clock + self._seconds(number, self.known.trials[number].epoch + 1), number))

    def _begin(self) -> int | None:
        while (step := self.method.next()) is not None:
            self.decisions.append((len(self.log), step))
            match step:
                case Start(proposal=proposal, until=until):
                    number = len(self.known.trials)
                    self.tell("enter", number, proposal.params, until=until, notes=proposal.notes)
                    return number
                case Resume(number=number, until=until):
                    self.tell("resume", number, until=until)
                    return number
                case Stop(number=number):
                    self.tell("end", number, "pruned", self.known.trials[number].last)
        return None

    def _epoch(self, number: int) -> bool:
        trial = self.known.trials[number]
        epoch = trial.epoch + 1
        if number == 5 and epoch == 2:
            self.tell("end", number, "infeasible")
            return False
        values = curve(dict(trial.params), epoch)[: self.objectives]
        self.tell("report", number, epoch, values)
        if epoch == EPOCHS:
            self.tell("end", number, "complete", values)
        elif epoch == trial.until:
            self.tell("pause", number)
        return epoch < min(EPOCHS, trial.until)

    def _seconds(self, number: int, epoch: int) -> float:
        """How long an epoch takes: unequal, and the same whenever it is asked."""
        return float(np.random.default_rng([number, epoch]).uniform(0.5, 2.0))
