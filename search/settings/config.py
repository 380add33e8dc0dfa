"""`StudyConfig`: what `nas.yaml` says, checked as a whole. docs/nas_yaml.md lists every key.

    config = load_study_config("nas.yaml")

Every mistake of a file is found in one go: its syntax, the keys, types and values of each section, and what does not
fit between sections. No torch and no Ray is needed for it.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, PrivateAttr, ValidationError, model_validator

from cluster.pools import SHIPPED, Pool, over_shipped
from cluster.settings.problems import NOTHING, Problem, from_pydantic, raise_problems, render, value_at
from cluster.settings.yaml_lines import LinedYaml, parse
from cluster.settings.yaml_lines import Path as KeyPath
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
    settings_class_in,
)
from search.settings.space import AXES, Axis, Space
from trainables.track.trackers import TrackerName


class StudyConfigError(ValueError):
    """A settings file with mistakes; the text lists all of them, one a line, with file, line and key."""


def _named_pool(value: Any) -> Any:
    """A shipped pool's name, or a mapping that changes or makes one."""
    value = {"name": value} if isinstance(value, str) else value
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return value
    if value["name"] not in SHIPPED and set(value) == {"name"}:
        raise_problems(Problem((), "unknown pool", allowed=f"{', '.join(SHIPPED)}, or a mapping that describes one"))
    return over_shipped(value)


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
    pools: list[Annotated[Pool, BeforeValidator(_named_pool)]] = Field(default=[SHIPPED["cpu"]], min_length=1)
    """Names of shipped pools, or mappings that change or describe one."""
    placement: Placement | None = None
    """Default: the one pool there is, or `auto` among several."""
    final: Final = Final()
    failures: Failures = Failures()
    study: Study = Study()
    warm_start: list[str] = Field(default=[])
    """Folders of earlier studies whose results are told to the sampler."""
    track: list[TrackerName] = Field(default=[])
    """Trackers that mirror the trials while they run; they never stop a study."""

    _file: str = PrivateAttr(default="(no file)")
    _source: LinedYaml = PrivateAttr(default_factory=LinedYaml)

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

    def error(self, problems: list[Problem]) -> StudyConfigError:
        """Problems that were found later (by a dry run), with the lines of the file this came from."""
        return StudyConfigError(_report(problems, self._file, self._source))


def load_study_config(path: str | Path) -> StudyConfig:
    """Read and check a settings file.

    Raises:
        FileNotFoundError: there is no such file.
        StudyConfigError: with every mistake of the file.
    """
    path = Path(path)
    source = parse(path.read_text(encoding="utf-8"))
    problems = [Problem(where, text, line=line) for line, where, text in source.mistakes]
    if not isinstance(source.value, dict):
        nothing = Problem((), "holds no settings", "data, space, ...: see docs/nas_yaml.md")
        raise StudyConfigError(_report(problems or [nothing], str(path), source))
    config, found = _validate(source.value)
    if config is None or problems or found:
        raise StudyConfigError(_report(problems + found, str(path), source))
    config = config.model_copy(update={"study": _with_name(config.study, path)})
    config._file, config._source = str(path), source
    return config


def _with_name(study: Study, path: Path) -> Study:
    return study if study.name else study.model_copy(update={"name": path.stem})


def _validate(value: dict[str, Any]) -> tuple[StudyConfig | None, list[Problem]]:
    """The config or None, and all problems: mistaken values are taken out until the rest can be checked as a whole."""
    value = copy.deepcopy(value)
    problems: list[Problem] = []
    while True:
        try:
            return StudyConfig.model_validate_json(json.dumps(value), strict=True), problems
        except ValidationError as error:
            errors = error.errors(include_url=False)
        found = [problem for one in errors for problem in from_pydantic(one)]
        new = [p for p in found if not any(q.path[: len(p.path)] == p.path for q in problems)]  # no mere consequences
        problems += [_with_legal_keys(p) if p.message == "unknown key" else p for p in new]
        places = sorted({tuple(one["loc"]) for one in errors}, key=str, reverse=True)  # so that list positions hold
        if not [place for place in places if _take_out(value, place)]:
            return None, problems


def _take_out(value: Any, path: KeyPath) -> bool:
    """Remove what stands at the path, or the innermost thing around it that does; whether anything was removed."""
    while path and value_at(path, value) is NOTHING:
        path = path[:-1]
    if not path:
        return False
    del value_at(path[:-1], value)[path[-1]]
    return True


def _with_legal_keys(problem: Problem) -> Problem:
    """An unknown key with the keys that are known there, the closest first."""
    *where, key = problem.path
    legal = _keys_at(tuple(where))
    close = difflib.get_close_matches(str(key), legal, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return Problem(problem.path, "unknown key", hint + ", ".join(legal))


def _keys_at(path: KeyPath) -> list[str]:
    """The keys that a mapping of the file may have."""
    model: type[BaseModel] = StudyConfig
    for step in path:
        if step in model.model_fields:
            model = settings_class_in(model.model_fields[str(step)].annotation) or model
    return list(model.model_fields)


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
    yield from checks.warmup(space, {"budget.epochs": config.budget.epochs, "final.epochs": config.final.epochs})
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


def _report(problems: list[Problem], file: str, source: LinedYaml) -> str:
    count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    return f"{file} has {count}:\n" + render(problems, file=file, source=source)
