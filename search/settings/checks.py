"""What must fit between the sections of a study, without torch: each check yields the `Problem`s it finds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from cluster.pools import Pool
from cluster.settings.problems import Problem, from_pydantic, not_one_of
from data_prep.schema import BuildSettings
from search.settings.sections import Budget, Objective, Placement, PrunerConfig, SamplerConfig
from search.settings.space import AXES, FIXED_ONLY, MOST_STEPS, NOT_SEARCHED, Axis, Space, is_number, numbers_of
from trainables.config import DECODERS, LOSS_WEIGHTS, TrialConfig
from trainables.track.trackers import missing_library


def settings(section: str, names: Sequence[str]) -> Iterator[Problem]:
    """Names in `space` or `fixed` that are no setting of a trial."""
    for name in names:
        if name in NOT_SEARCHED:
            yield Problem((section, name), f"decided by {NOT_SEARCHED[name]}", "set it there")
        elif name not in AXES:
            yield not_one_of((section, name), "unknown setting", name, AXES)
        elif section == "space" and name in FIXED_ONLY:
            yield Problem((section, name), f"not searched: {FIXED_ONLY[name]}", "it in fixed")


def values(axes: Mapping[str, Axis], fixed: Mapping[str, Any]) -> Iterator[Problem]:
    """Values that the setting cannot have, and ranges of settings that are not numbers."""
    for name, value in fixed.items():
        if name in AXES:
            yield from _value_problems(name, value, ("fixed", name))
            if name in axes and not axes[name].when:
                yield Problem(("fixed", name), "searched too", "in space or in fixed, or an axis with `when`")
    for name, axis in axes.items():
        if name in AXES:
            yield from _axis_problems(name, axis)


def _axis_problems(name: str, axis: Axis) -> Iterator[Problem]:
    if axis.choices is not None:
        for i, value in enumerate(axis.choices):
            yield from _value_problems(name, value, ("space", name, "choices", i))
    elif not is_number(name):
        yield Problem(("space", name, "low"), "not a number, so it has no range", "a list of choices")
    else:
        yield from (wrong := list(_range_problems(name, axis)))
        if not wrong and (count := axis.count(name) or 0) > MOST_STEPS:
            allowed = f"at most {MOST_STEPS:,}: a step, or a narrower range"
            yield Problem(("space", name), f"a range of {count:,} values", allowed)


def _range_problems(name: str, axis: Axis) -> Iterator[Problem]:
    for end in ("low", "high", "step"):
        if (value := getattr(axis, end)) is not None and not (end == "step" and not isinstance(value, float)):
            yield from _value_problems(name, value, ("space", name, end))


def _value_problems(name: str, value: Any, path: tuple[str | int, ...]) -> Iterator[Problem]:
    try:
        _adapter(name).validate_python(value, strict=True)
    except ValidationError as error:
        found = [p for one in error.errors() for p in from_pydantic(one)]
        allowed = " or ".join(dict.fromkeys(p.allowed for p in found if p.allowed))
        yield replace(found[-1], path=path, allowed=allowed)
        return
    if name == "decoder" and value not in DECODERS:
        yield not_one_of(path, "unknown decoder", value, DECODERS)


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    info = TrialConfig.model_fields[name]
    return TypeAdapter(Annotated[info.annotation, info], config=ConfigDict(allow_inf_nan=False))  # type: ignore[arg-type]


def conditions(axes: Mapping[str, Axis], fixed: Mapping[str, Any]) -> Iterator[Problem]:
    """`when:` that names no setting, that can never be met, or that goes round in a circle."""
    for name, axis in axes.items():
        for setting, allowed in axis.when.items():
            path = ("space", name, "when", setting)
            if setting not in AXES:
                yield not_one_of(path, "unknown setting", setting, AXES)
            elif setting == name:
                yield Problem(path, "an axis cannot depend on itself", "another setting")
            elif setting in axes:
                yield from _condition_on_axis(path, axes[setting].choices, allowed)
            elif (value := Space(axes, fixed).constant(setting)) not in allowed:
                yield Problem(path, f"never met: {setting} is not searched and is {value!r}", "a searched setting")
    known = {name: axis for name, axis in axes.items() if name not in axis.when}
    try:
        _ = Space(known, fixed).order
    except ValueError as error:
        yield Problem(("space",), str(error).removeprefix("space: "), "conditions that lead from one axis to the next")


def _condition_on_axis(
    path: tuple[str, ...], choices: tuple[Any, ...] | None, allowed: tuple[Any, ...]
) -> Iterator[Problem]:
    if choices is None:
        yield Problem(path, "a condition on a range", "a setting with a list of choices")
    elif strange := [value for value in allowed if value not in choices]:
        yield not_one_of(
            path,
            f"{', '.join(map(str, strange))} is no value of {path[-1]}",
            strange[0],
            [str(value) for value in choices],
        )


def loss_weights(space: Space) -> Iterator[Problem]:
    """A weight above 1 whose partner is 1 minus it, or weights that may all be 0."""
    named = [name for name in LOSS_WEIGHTS if name in space.axes or name in space.fixed]
    for weight, partner in (LOSS_WEIGHTS[:2], LOSS_WEIGHTS[1::-1]):
        if weight in named and partner not in named and _highest(space, weight) > 1:
            section = "space" if weight in space.axes else "fixed"
            yield Problem((section, weight), f"above 1, but {partner} is 1 - {weight}", f"at most 1, or give {partner}")
    if {"dice_weight", "iou_weight"} <= set(named) and all(_lowest(space, name) <= 0 for name in LOSS_WEIGHTS):
        section = "space" if "dice_weight" in space.axes else "fixed"
        yield Problem((section, "dice_weight"), "all weights of the loss can be 0 at once", "one of them above 0")


def _numbers(space: Space, name: str) -> list[float]:
    axis = space.axes.get(name)
    found = [] if axis is None else [v for v in (*(axis.choices or ()), axis.low, axis.high) if v is not None]
    return found if axis and not axis.when else [*found, space.constant(name)]


def _highest(space: Space, name: str) -> float:
    return max(_numbers(space, name))


def _lowest(space: Space, name: str) -> float:
    return min(_numbers(space, name))


def batches(space: Space, pools: Sequence[Pool], placement: Placement) -> Iterator[Problem]:
    """Batches that cannot be split over accumulation steps and the workers of the pools they may be placed on."""
    by_name = {pool.name: pool for pool in pools}
    wanted = list(placement.up_to_million) if placement.rule == "by_size" else [placement.pool]
    must = [by_name[name] for name in wanted if name is not None and name in by_name]
    section = "space" if "batch_size" in space.axes else "fixed" if "batch_size" in space.fixed else "space"
    path = (section, "batch_size")
    if bad := next((pair for pair in _pairs(space) if pair[0] % pair[1]), None):
        yield Problem(path, f"{bad[0]} is not divisible by accumulation {bad[1]}", "a multiple of every accumulation")
        return
    for pool in must:
        if bad := next((pair for pair in _pairs(space) if not _splits(pair, pool)), None):
            yield Problem(path, *_indivisible(bad, pool))
    nowhere = (pair for pair in _pairs(space) if not any(_splits(pair, pool) for pool in pools))
    if placement.rule == "auto" and (bad := next(nowhere, None)):
        yield Problem(path, *_indivisible(bad, min(pools, key=lambda p: p.workers)))


def _pairs(space: Space) -> Iterator[tuple[int, int]]:
    """Every batch size with every accumulation, one by one: of wrong ones the first tells."""
    yield from itertools.product(numbers_of(space, "batch_size"), numbers_of(space, "accumulation"))


def _splits(pair: tuple[int, int], pool: Pool) -> bool:
    return pair[0] % (pair[1] * pool.workers) == 0


def _indivisible(pair: tuple[int, int], pool: Pool) -> tuple[str, str]:
    batch, parts = pair
    share = f"{pool.workers} workers of pool {pool.name}" + (f" x accumulation {parts}" if parts > 1 else "")
    return f"{batch} is not divisible by the {share}", f"a multiple of {parts * pool.workers}"


def first_epochs(space: Space, epochs: Mapping[str, int]) -> Iterator[Problem]:
    """A warm-up or a frozen encoder that is not over when the search's or the final's budget is."""
    for name in ("warmup_epochs", "frozen_encoder_epochs"):
        longest = int(_highest(space, name))
        section = "space" if name in space.axes else "fixed"
        for key, budget in epochs.items():
            if longest >= budget and longest > 0:
                yield Problem((section, name), f"{longest} is not below {key} = {budget}", f"below {budget}")


def image_sizes(space: Space, size_px: int) -> Iterator[Problem]:
    """Sizes that the shards cannot give, and one that is named twice: null is the shards' own."""
    axis = space.axes.get("image_size_px")
    sizes = list((axis.choices or ()) if axis else ())
    path = ("space" if axis else "fixed", "image_size_px")
    if axis is None or axis.when:
        sizes.append(space.constant("image_size_px"))
    if large := [size for size in sizes if size is not None and size > size_px]:
        yield Problem(path, f"{max(large)} is above the shards' {size_px} px", f"at most {size_px}")
    if None in sizes and size_px in sizes:
        yield Problem(path, f"null and {size_px} are the same", "one of the two")


def normalisations(space: Space, build: BuildSettings | None) -> Iterator[Problem]:
    """Normalisations that are trained on but not built."""
    axis = space.axes.get("normalisation")
    wanted: tuple[Any, ...] = (axis.choices or ()) if axis else (space.constant("normalisation"),)
    for name in wanted:
        if build is not None and name not in build.normalisations:
            section = "space" if axis else "fixed"
            built = ", ".join(build.normalisations)
            yield Problem((section, "normalisation"), f"{name} is not built", f"{built}; or add it to data.build")


def pool_names(pools: Sequence[Pool], placement: Placement, final_pool: str | None) -> Iterator[Problem]:
    """Pools that are named but not listed."""
    names = [pool.name for pool in pools]
    used: list[tuple[tuple[str, ...], str]] = [
        (("placement", "up_to_million", name), name) for name in placement.up_to_million
    ]
    used += [(("placement", "pool"), placement.pool)] if placement.pool else []
    used += [(("final", "pool"), final_pool)] if final_pool else []
    for path, name in used:
        if name not in names:
            yield not_one_of(path, f"{name} is not in pools", name, names)


def budgets(budget: Budget, pruner: PrunerConfig, baselines: int) -> Iterator[Problem]:
    """Budgets too small for what must happen in them."""
    if budget.trials < baselines:
        yield Problem(("budget", "trials"), f"fewer than the {baselines} baselines", f"at least {baselines}")
    if pruner.name != "none" and pruner.grace_epochs > budget.epochs:
        yield Problem(
            ("pruner", "grace_epochs"),
            f"above budget.epochs = {budget.epochs}",
            f"at most {budget.epochs}, or name: none",
        )


def objectives(given: Sequence[Objective]) -> Iterator[Problem]:
    """One that is named twice, or that no training is needed for."""
    metrics = [objective.metric for objective in given]
    for i, metric in enumerate(metrics):
        if metric in metrics[:i]:
            yield Problem(("objective", i, "metric"), "named twice", "different metrics")
    if len(given) == 1 and metrics[0] == "parameters":
        yield Problem(("objective",), "parameters alone are known without training", "a measure beside it")


def sampler(space: Space, chosen: SamplerConfig) -> Iterator[Problem]:
    """A grid over what is not finite."""
    for name, axis in space.axes.items():
        if chosen.name == "grid" and axis.count(name) is None:
            yield Problem(("space", name), "a grid needs finitely many values", "a list of choices, or a step")


def baseline_encoders(space: Space, named: bool | Sequence[str]) -> Iterator[Problem]:
    """Baselines of encoders that the space does not hold."""
    for i, encoder in enumerate(() if isinstance(named, bool) else named):
        if encoder not in space.encoders():
            yield not_one_of(("baselines", i), "not an encoder of the space", encoder, space.encoders())


def trackers(names: Sequence[str]) -> Iterator[Problem]:
    """Each once, and its library installed before a study relies on it."""
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Problem(("track", index), "named twice", "each once")
        elif (missing := missing_library(name)) is not None:
            yield Problem(("track", index), missing)
