"""What decisions cost in a large study: CPU milliseconds per trial of a method at ever more trials, without training.

    python -m benchmarks.search_scale                                  # 10,000 trials, 256 slots
    python -m benchmarks.search_scale --trials 2000 --methods "tpe + asha"

Slots finish an epoch each in turn, of curves that are invented on the spot, over a space with conditions. Everything
but the decisions is left out: no journal, no folders. Printed: the cost at some trials (mean of 100), how
many times that of the thousandth trial the last one costs, the process' memory, and the seconds in which the study's
events are told to a new `Known`, as a resume does.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import deque
from typing import Any

import numpy as np

from benchmarks.rivals import quiet
from search.methods.known import Known
from search.methods.names import Setup
from search.methods.steps import Resume, Start, Stop
from search.settings.space import Axis, Space

SPACE = Space(
    axes={
        "encoder": Axis(choices=("seresnet50", "inceptionv3", "densenet121", "mobilenet", "vgg19")),
        "learning_rate": Axis(low=1e-4, high=1e-2, log=True),
        "dice_weight": Axis(low=0.0, high=1.0),
        "batch_size": Axis(choices=(4, 8, 16)),
        "optimiser": Axis(choices=("adam", "sgd")),
        "momentum": Axis(low=0.5, high=0.99, when={"optimiser": ("sgd",)}),
    },
    epochs=9,
)
EPOCHS = 9
METHODS = {
    "random + asha": ("random", "asha"),
    "tpe + asha": ("tpe", "asha"),
    "forecast + freeze": ("forecast", "freeze"),
}


class Study:
    """Slots that take turns, and the log of what happened."""

    def __init__(self, sampler: str, pruner: str, *, trials: int, slots: int) -> None:
        self.known, self.slots = Known(), slots
        setup = Setup(SPACE, self.known, seed=0, epochs=EPOCHS, directions=["maximize"], reduction_factor=3)
        self.method = setup.method(sampler=sampler, pruner=pruner, trials=trials)
        self.running: deque[int] = deque()
        self.log: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.ends: dict[int, tuple[float, float]] = {}

    def run(self) -> dict[int, float]:
        """CPU seconds of the decisions until each thousandth trial began."""
        spent, told = 0.0, {}
        while True:
            while len(self.running) < self.slots:
                began = time.process_time()
                goes_on = self._decide()
                spent += time.process_time() - began
                if not goes_on:
                    break
                told[len(self.known.trials)] = spent
            if not self.running:
                return told
            self._epoch(self.running.popleft())

    def _decide(self) -> bool:
        while (step := self.method.next()) is not None:
            match step:
                case Start(proposal=proposal, until=until):
                    number = len(self.known.trials)
                    self._tell("enter", number, proposal.params, until=until, notes=proposal.notes)
                case Resume(number=number, until=until):
                    self._tell("resume", number, until=until)
                case Stop(number=number):
                    self._tell("end", number, "pruned", self.known.trials[number].last)
                    continue
            self.running.append(number)
            return True
        return False

    def _epoch(self, number: int) -> None:
        trial = self.known.trials[number]
        epoch = trial.epoch + 1
        draw = np.random.default_rng([number, epoch])
        end = 0.8 - 0.1 * abs(np.log10(trial.params["learning_rate"]) + 3) + 0.02 * draw.normal()
        value = max(end * (1 - np.exp(-epoch / 3)), *(trial.last or (0.0,)), 0.0)
        self._tell("report", number, epoch, (float(value),))
        if epoch == EPOCHS:
            self._tell("end", number, "complete", (float(value),))
        elif epoch == trial.until:
            self._tell("pause", number)
        else:
            self.running.append(number)

    def _tell(self, event: str, *args: Any, **named: Any) -> None:
        self.log.append((event, args, named))
        getattr(self.known, event)(*args, **named)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    arguments = parser.parse_args()
    quiet()
    for name in arguments.methods:
        study = Study(*METHODS[name], trials=arguments.trials, slots=arguments.slots)
        told = study.run()
        steps = [n for n in (250, 500, 1_000, 2_000, 5_000, 10_000) if n <= arguments.trials]
        cost_ms = {n: 1e3 * (told[n] - told[n - 100]) / 100 for n in steps}
        began, known = time.process_time(), Known()
        for event, args, named in study.log:
            getattr(known, event)(*args, **named)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"{name}: ms a trial " + ", ".join(f"{cost:.1f} at {n}" for n, cost in cost_ms.items()), end="; ")
        ratio = cost_ms[steps[-1]] / cost_ms[min(1_000, steps[-1])]
        print(f"{ratio:.2f} times; {peak_mb:.0f} MB; told again in {time.process_time() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
