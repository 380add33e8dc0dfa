"""Samplers and pruners by their names in `nas.yaml`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from search.methods.forecast import Forecast
from search.methods.freeze import ForecastSampler, FreezeThaw
from search.methods.known import Known
from search.methods.method import Chooses, Method, Proposes
from search.methods.points import Points
from search.methods.rungs import Direction, Halving, Ladder
from search.methods.samplers import SAMPLERS, Sampler
from search.settings.config import StudyConfig
from search.settings.space import Space


@dataclass(frozen=True)
class Setup:
    """What samplers and pruners of one study are made of."""

    space: Space
    known: Known
    seed: int
    epochs: int
    """The full budget of a trial."""
    directions: Sequence[Direction]
    grace_epochs: int = 1
    reduction_factor: int = 2
    startup_trials: int = 10
    population: int = 20

    @classmethod
    def of(cls, config: StudyConfig, known: Known) -> Setup:
        """As a study's settings have it."""
        return cls(
            space=config.search_space,
            known=known,
            seed=config.sampler_seed,
            epochs=config.budget.epochs,
            directions=["maximize" if objective.maximise else "minimize" for objective in config.objective],
            grace_epochs=config.pruner.grace_epochs,
            reduction_factor=config.pruner.reduction_factor,
            startup_trials=config.sampler.startup_trials,
            population=config.sampler.population_size,
        )

    @cached_property
    def points(self) -> Points:
        """The space for models."""
        return Points(self.space)

    @cached_property
    def forecast(self) -> Forecast:
        """The one forecast that sampler and pruner share."""
        return Forecast(self.points, self.known, epochs=self.epochs, directions=self.directions, seed=self.seed)

    @property
    def ladder(self) -> Ladder:
        """The rungs at which trials pause."""
        return Ladder.of(grace_epochs=self.grace_epochs, reduction_factor=self.reduction_factor, epochs=self.epochs)

    def sampler(self, name: str) -> Proposes:
        """The sampler of a name.

        Raises:
            KeyError: there is no such sampler.
        """
        if name == "forecast":
            return ForecastSampler(self.points, self.forecast, self.known, seed=self.seed)
        return Sampler(
            name,
            self.space,
            self.known,
            seed=self.seed,
            directions=self.directions,
            startup_trials=self.startup_trials,
            population=self.population,
        )

    def pruner(self, name: str) -> Chooses:
        """The pruner of a name.

        Raises:
            KeyError: there is no such pruner.
        """
        return PRUNERS[name](self)

    def method(self, *, sampler: str, pruner: str, trials: int) -> Method:
        """Sampler and pruner put together, for at most `trials` trials."""
        return Method(
            self.space,
            self.known,
            sampler=self.sampler(sampler),
            pruner=self.pruner(pruner),
            seed=self.seed,
            trials=trials,
        )

    def method_of(self, config: StudyConfig) -> Method:
        """As a study's settings have it, without a trial that may begin yet."""
        return Method(
            self.space,
            self.known,
            sampler=self.sampler(config.sampler.name),
            pruner=self.pruner(config.pruner.name),
            seed=self.seed,
            trials=0,
            baselines=self.space.baselines(found) if (found := config.baseline_encoders) else (),
            repeats=config.study.repeats == "new_seed",
        )


def _halving(setup: Setup, *, ladder: Ladder | None = None, **changes: bool | int) -> Halving:
    return Halving(
        setup.known,
        ladder or setup.ladder,
        reduction_factor=setup.reduction_factor,
        directions=setup.directions,
        **changes,  # type: ignore[arg-type]
    )


SAMPLER_NAMES = ("forecast", *SAMPLERS)
PRUNERS: dict[str, Callable[[Setup], Chooses]] = {
    "none": lambda setup: _halving(setup, ladder=Ladder((), setup.epochs)),
    "asha": _halving,
    "promotion": lambda setup: _halving(setup, promotes=True),
    "hyperband": lambda setup: _halving(setup, brackets=max(1, len(setup.ladder.rungs))),
    "ladder": lambda setup: _halving(setup, by_encoder=True),
    "corrected": lambda setup: _halving(setup, corrected=True),
    "freeze": lambda setup: FreezeThaw(setup.known, setup.ladder, forecast=setup.forecast),
}
