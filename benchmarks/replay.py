"""Slots that train recorded curves: an event simulation, without any training.

    world = recorded("lesion")                    # or synthetic(seed)
    told = replay(world, contestant, slots=4)     # when the target was found, at what cost; what became of the winner

A contestant is asked for work whenever a slot is free, from all that it was told so far; it is told of an epoch when
that epoch's time has come. A slot's epoch takes the CPU seconds that it took when it was recorded.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from search.settings.config import StudyConfig
from search.settings.space import Space

CURVES = Path(__file__).parent / "data" / "curves.parquet"
WITHIN = 0.005
"""A configuration this close to the grid's best Dice is what a search is after."""
Params = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class World:
    """A grid of configurations whose curves are known. Shapes: N cells, T epochs."""

    name: str
    space: Space
    cells: list[Params]
    value_NT: np.ndarray
    """The objective of the best epoch so far."""
    cost_s_NT: np.ndarray
    """CPU seconds of each epoch."""

    @property
    def epochs(self) -> int:
        """A trial's full budget."""
        return int(self.value_NT.shape[1])

    @property
    def grid_epochs(self) -> int:
        """What the whole grid costs."""
        return len(self.cells) * self.epochs

    @cached_property
    def targets(self) -> frozenset[int]:
        """The cells whose last value is within `WITHIN` of the best."""
        last_N = self.value_NT[:, -1]
        return frozenset(np.flatnonzero(last_N >= last_N.max() - WITHIN).tolist())

    @cached_property
    def winner(self) -> int:
        """The cell with the best last value."""
        return int(self.value_NT[:, -1].argmax())

    @cached_property
    def _index(self) -> dict[tuple[tuple[str, Any], ...], int]:
        return {tuple(sorted(cell.items())): i for i, cell in enumerate(self.cells)}

    def cell(self, params: Params) -> int:
        """The number of a cell."""
        return self._index[tuple(sorted(params.items()))]


class Contestant(Protocol):
    """A search method under test."""

    def ask(self) -> tuple[int, int] | None:
        """A trial's number and cell, to train from where it stands; None: nothing to do before something is told."""

    def tell(self, trial: int, epoch: int, value: float) -> bool:
        """A trial's objective after an epoch. Gives whether it goes on in its slot."""


@dataclass(kw_only=True)
class Told:
    """What became of a study."""

    found_epochs: float = float("inf")
    """Epochs trained by all slots until a target cell was trained in full."""
    found_s: float = float("inf")
    """The study's clock then."""
    found_cpu_s: float = float("inf")
    """CPU seconds of all slots until then."""
    epochs: int = 0
    """Epochs trained in all."""
    busy: float = 0.0
    """Share of slot time in use, until the target was found or the study ended."""
    winner_epochs: int = 0
    """How far the winner was trained."""
    best: dict[int, float] = field(default_factory=dict)
    """Epochs trained -> best value of a cell trained in full by then."""


def replay(world: World, contestant: Contestant, *, slots: int, most_epochs: int | None = None) -> Told:
    """Run a study to its end, to the grid's epochs, or until its target and its winner are trained in full.

    Args:
        world: the curves.
        contestant: the method.
        slots: trials at the same time.
        most_epochs: stop there; default: the grid's.
    """
    limit = most_epochs or world.grid_epochs
    told, clock, busy_s = Told(), 0.0, 0.0
    reached: dict[int, int] = {}  # trial -> epochs
    running: list[tuple[float, int, int, int]] = []  # (when its epoch ends, a counter, trial, cell)
    counter = itertools.count()

    def train(trial: int, cell: int) -> None:
        seconds = float(world.cost_s_NT[cell, reached.get(trial, 0)])
        heapq.heappush(running, (clock + seconds, next(counter), trial, cell))

    while told.epochs < limit:
        while len(running) < slots and (work := contestant.ask()) is not None:
            train(*work)
        if not running:
            break
        before = clock
        clock, _, trial, cell = heapq.heappop(running)
        busy_s += (clock - before) * (len(running) + 1)
        epoch = reached[trial] = reached.get(trial, 0) + 1
        told.epochs += 1
        if cell == world.winner:
            told.winner_epochs = max(told.winner_epochs, epoch)
        goes_on = contestant.tell(trial, epoch, float(world.value_NT[cell, epoch - 1]))
        if epoch == world.epochs:
            _note(world, told, cell, clock, busy_s)
        elif goes_on:
            train(trial, cell)
        if told.found_epochs < limit and told.winner_epochs == world.epochs:
            break
    if told.busy == 0.0 and clock:
        told.busy = busy_s / (clock * slots)
    return told


def _note(world: World, told: Told, cell: int, clock: float, busy_s: float) -> None:
    """A cell was trained in full."""
    told.best[told.epochs] = max([float(world.value_NT[cell, -1]), *told.best.values()])
    if cell in world.targets and told.found_epochs == float("inf"):
        told.found_epochs, told.found_s, told.found_cpu_s = told.epochs, clock, busy_s


def recorded(view: str, file: Path = CURVES) -> World:
    """The recorded curves of a view, of the study's own seed."""
    table = pq.read_table(file)
    made = json.loads(table.schema.metadata[b"made"])
    study = StudyConfig.model_validate(made["studies"][view])
    frame = table.to_pandas()
    frame = frame[(frame["view"] == view) & (frame["seed"] == 0)]
    return of_frame(f"{view} (recorded)", study.search_space, frame)


def of_frame(name: str, space: Space, frame: pd.DataFrame) -> World:
    """A world of the cells whose curves are all there; a curve that ends early keeps its last value."""
    searched = list(space.order)
    epochs = int(frame["epoch"].max())
    cells, values, costs = [], [], []
    for chosen, rows in frame.sort_values("epoch").groupby(searched, sort=False):
        best = np.maximum.accumulate(rows["val_dice"].to_numpy(float))
        cells.append(dict(zip(searched, chosen, strict=True)))
        values.append(np.pad(best, (0, epochs - len(best)), mode="edge"))
        costs.append(np.pad(rows["cpu_s"].to_numpy(float), (0, epochs - len(best)), mode="edge"))
    return World(name=name, space=space, cells=cells, value_NT=np.stack(values), cost_s_NT=np.stack(costs))


def synthetic(seed: int, *, epochs: int = 16) -> World:
    """An invented grid: encoders with their own asymptote, speed, best rate, best weight and cost; curves cross."""
    draw = np.random.default_rng([seed, 11])
    space = Space(
        axes={
            "encoder": _axis("seresnet50", "inceptionv3", "densenet121", "mobilenet", "vgg19"),
            "learning_rate": _axis(3e-4, 1e-3, 3e-3),
            "batch_size": _axis(4, 8),
            "dice_weight": _axis(0.4, 1.0),
        },
        epochs=epochs,
    )
    asymptote, speed, rate, weight, cost = (
        dict(zip(space.encoders(), row, strict=True))
        for row in (
            0.75 + 0.03 * draw.normal(size=5),
            3 * np.exp(0.6 * draw.normal(size=5)),
            draw.uniform(3e-4, 3e-3, 5),
            draw.uniform(0.4, 1.0, 5),
            10 * np.exp(0.4 * draw.normal(size=5)),
        )
    )
    cells, values, costs = list(space.cells()), [], []
    after_T = np.arange(1, epochs + 1)
    for cell in cells:
        encoder, steps = cell["encoder"], np.log10(cell["learning_rate"] / rate[cell["encoder"]])
        end = asymptote[encoder] - 0.06 * steps**2 - 0.06 * (cell["dice_weight"] - weight[encoder]) ** 2
        end += 0.006 * draw.normal()
        tau = speed[encoder] * (cell["batch_size"] / 4) ** 0.4 * (cell["learning_rate"] / 1e-3) ** -0.3
        noise_T = 0.008 * draw.normal(size=epochs) * (1 + 2 * np.exp(-after_T / 3))
        values.append(np.maximum.accumulate(end * (1 - np.exp(-(after_T + 0.3) / tau)) + noise_T))
        costs.append(np.full(epochs, cost[encoder] * (1.2 if cell["batch_size"] == 4 else 0.9)))
    return World(
        name=f"synthetic {seed}", space=space, cells=cells, value_NT=np.stack(values), cost_s_NT=np.stack(costs)
    )


def _axis(*choices: Any) -> Any:
    from search.settings.space import Axis

    return Axis(choices=choices)
