"""`StudyConfig`: what `nas.yaml` says, checked as a whole. docs/nas_yaml.md lists every key.

    config = load_study_config("nas.yaml")

Every mistake of a file is found in one go: its syntax, the keys, types and values of each section, and what does not
fit between sections. No torch and no Ray is needed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from cluster.pools import SHIPPED, Pool, Pools
from cluster.settings.problems import Problem, raise_problems
from cluster.settings.source import SettingsError, Source, read_settings
from cluster.settings.validate import validate
from search.settings import checks
from search.settings.sections import (
    Budget,
    DataConfig,
    Failures,
    Final,
    Objective,
    Placement,
    PrunerConfig,
    SamplerConfig,
    Section,
    Study,
)
from search.settings.space import AXES, Axis, Space
from trainables.track.trackers import TrackerName


def _objectives(value: Any) -> Any:
    """One objective or a list; a metric's name alone is an objective."""
    listed = value if isinstance(value, list | tuple) else [value]
    return [{"metric": one} if isinstance(one, str) else one for one in listed]


def _baselines(value: Any) -> Any:
    if not isinstance(value, bool) and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
        raise_problems(Problem((), "neither true, false nor a list", "true, false, or names of encoders"))
    return value


class StudyConfig(Section):
    """A study: one file."""

    data: DataConfig
    space: dict[str, Axis] = Field(min_length=1)
    """Setting of a trial -> its choices or its range."""
    fixed: dict[str, Any] = Field(default={})
    """Settings of every trial that are not searched, and of a conditional axis while it is inactive."""
    sampler: SamplerConfig = SamplerConfig()
    pruner: PrunerConfig = PrunerConfig()
    objective: Annotated[list[Objective], BeforeValidator(_objectives)] = Field(
        default=[Objective()], min_length=1, max_length=3
    )
    """One, or a list for the trade-off between them."""
    budget: Budget = Budget()
    baselines: Annotated[bool | list[str], BeforeValidator(_baselines)] = True
    """Whether the paper's setting of every encoder is trained first and never pruned; or of which encoders."""
    pools: Pools = Field(default=[SHIPPED["cpu"]])
    """Names of shipped pools, or mappings that change or describe one."""
    placement: Placement | None = None
    """Default: the one pool there is, or `auto` among several."""
    final: Final = Final()
    failures: Failures = Failures()
    study: Study = Study()
    warm_start: list[Annotated[str, Field(min_length=1)]] = Field(default=[], max_length=100)
    """Folders of earlier studies whose results are told to the sampler."""
    track: list[TrackerName] = Field(default=[])
    """Trackers that mirror the trials while they run; they never stop a study."""

    _source: Source = PrivateAttr(default_factory=Source)

    @model_validator(mode="after")
    def _check(self) -> StudyConfig:
        raise_problems(*_between_sections(self))
        return self

    @cached_property
    def search_space(self) -> Space:
        """The space with what is fixed beside it."""
        return Space(axes=self.space, fixed=self.fixed, epochs=self.budget.epochs, seed=self.study.seed)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.name or "study"

    @property
    def out(self) -> str:
        """Path or URI of the study's folder."""
        return self.study.out or f"runs/{self.name}"

    @property
    def sampler_seed(self) -> int:
        """The sampler's seed."""
        return self.study.seed if self.sampler.seed is None else self.sampler.seed

    @property
    def baseline_encoders(self) -> tuple[str, ...]:
        """The encoders whose baseline is trained; empty if none is."""
        if isinstance(self.baselines, bool):
            return self.search_space.encoders() if self.baselines else ()
        return tuple(self.baselines)

    @property
    def placement_rule(self) -> Placement:
        """The rule in force."""
        if self.placement is not None:
            return self.placement
        if len(self.pools) == 1:
            return Placement(rule="fixed", pool=self.pools[0].name)
        return Placement(rule="auto")

    def pool(self, name: str) -> Pool:
        """The pool of that name. Raises KeyError."""
        return {pool.name: pool for pool in self.pools}[name]

    def error(self, problems: Sequence[Problem]) -> SettingsError:
        """Problems that were found later (by a dry run), with the lines of the file this came from."""
        return self._source.error(problems)


def load_study_config(
    path: str | Path,
    *,
    out: str | None = None,
    max_usd: float | None = None,
    also: Callable[[StudyConfig], Iterable[Problem]] = lambda config: (),
) -> StudyConfig:
    """Read and check a settings file.

    Args:
        path: the file.
        out: the study's folder, in the place of `study.out`.
        max_usd: the study's money, in the place of `budget.max_usd`.
        also: further checks, e.g. `search.settings.outside.outside`.

    Raises:
        SettingsError: there is no such file, or it has mistakes; the text has all of them.
    """
    source = read_settings(Path(path), options={"study.out": out, "budget.max_usd": max_usd})
    config = validate(StudyConfig, source, also=also)
    if not config.study.name:
        config = config.model_copy(update={"study": config.study.model_copy(update={"name": Path(path).stem})})
    config._source = source
    return config


def _between_sections(config: StudyConfig) -> Iterator[Problem]:
    """What does not fit between sections; deeper checks run once names and values are right."""
    yield from checks.settings("space", list(config.space))
    yield from checks.settings("fixed", list(config.fixed))
    wrong_values = list(checks.values(config.space, config.fixed))
    yield from wrong_values
    wrong_conditions = list(checks.conditions(config.space, config.fixed))
    yield from wrong_conditions
    yield from checks.pool_names(config.pools, config.placement_rule, config.final.pool)
    yield from checks.objectives(config.objective)
    yield from checks.trackers(config.track)
    space = _sound_part(config.search_space, [*wrong_values, *wrong_conditions])
    yield from checks.loss_weights(space)
    yield from checks.batches(space, config.pools, config.placement_rule)
    yield from checks.first_epochs(space, {"budget.epochs": config.budget.epochs, "final.epochs": config.final.epochs})
    if config.data.build is not None:
        yield from checks.image_sizes(space, config.data.build.size_px)
    yield from checks.normalisations(space, config.data.build)
    yield from checks.sampler(space, config.sampler)
    yield from checks.baseline_encoders(space, config.baselines)
    yield from checks.budgets(config.budget, config.pruner, len(config.baseline_encoders))


def _sound_part(space: Space, problems: list[Problem]) -> Space:
    """The space without the settings that have problems of their own."""
    wrong = {problem.path[1] for problem in problems if len(problem.path) > 1}
    axes = {n: axis for n, axis in space.axes.items() if n in AXES and n not in wrong}
    fixed = {n: value for n, value in space.fixed.items() if n in AXES and n not in wrong}
    return replace(space, axes=axes, fixed=fixed)
