"""The configurations of a space that differ in what they need: which are built, fitted and priced before a study.

A wide space has thousands of networks, and to predict the memory of one takes seconds. Of each encoder so many are
taken that each of its decoders, and with it each value of each other setting that shapes a network, is among them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from search.settings.space import Axis, Params, Space
from trainables.config import TrialConfig

NETWORK = (
    *("encoder", "decoder", "decoder_norm", "encoder_depth", "decoder_width", "decoder_attention"),
    "image_size_px",
)
"""The settings that decide the network."""
SHAPING = (*NETWORK, "batch_size", "accumulation", "optimiser", "momentum", "precision", "ema_decay")
"""The settings that decide what a trial needs, and so where it can go."""
MOST_CELLS = 100_000
"""More combinations than these are not walked through."""

Network = tuple[object, ...]


def shapes(space: Space) -> Iterator[TrialConfig]:
    """Configurations that differ in what they need, with every network that `networks` gives."""
    taken = {_network(config) for config in networks(space)}
    seen: set[tuple[object, ...]] = set()
    for config in _cells(space, SHAPING):
        key = tuple(getattr(config, name) for name in SHAPING)
        if key not in seen and _network(config) in taken:
            seen.add(key)
            yield config


def networks(space: Space) -> list[TrialConfig]:
    """One configuration for each network that is looked at, of every encoder in the space's order."""
    found: dict[Network, TrialConfig] = {}
    covered: set[tuple[object, ...]] = set()
    for config in _cells(space, NETWORK):
        encoder, decoder, *others = _network(config)
        shown = {(encoder, decoder, name, value) for name, value in zip(NETWORK[2:], others, strict=True)}
        if not shown <= covered:
            covered |= shown
            found[_network(config)] = config
    return list(found.values())


def _network(config: TrialConfig) -> Network:
    return tuple(getattr(config, name) for name in NETWORK)


def _cells(space: Space, names: Sequence[str]) -> Iterator[TrialConfig]:
    """Every combination of these settings; of a range its ends."""
    part = _part(space, names)
    for params in itertools.islice(part.cells(), MOST_CELLS):
        yield _with_rest(space, params, names)


def _part(space: Space, names: Sequence[str]) -> Space:
    """The space of these settings, and of those that their conditions name."""
    wanted = {name for name in names if name in space.axes}
    while more := {c for name in wanted for c in space.axes[name].when if c in space.axes} - wanted:
        wanted |= more
    axes = {name: _finite(name, axis) for name, axis in space.axes.items() if name in wanted}
    return Space(axes, space.fixed, space.epochs, space.seed)


def _finite(name: str, axis: Axis) -> Axis:
    """The axis, or the ends of one that is a range without steps."""
    return axis if axis.values(name) is not None else Axis(choices=(axis.low, axis.high), when=axis.when)


def _with_rest(space: Space, params: Params, names: Sequence[str]) -> TrialConfig:
    fixed = {name: value for name, value in space.fixed.items() if name in SHAPING and name not in params}
    shaping = {name: value for name, value in params.items() if name in names}
    return TrialConfig(**{**fixed, **shaping}, epochs=space.epochs)
