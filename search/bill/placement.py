"""A configuration -> the pool it trains on.

    fixed     one pool for all
    by_size   the paper's rule (section II D): small models on one P100, larger ones on two T4; the thresholds, in
              millions of parameters, stand in the file
    auto      of the pools that the trial fits, the cheapest for an epoch: predicted seconds x price; where prices are
              equal (or none), the fastest

With every rule a trial only goes where its predicted memory fits and its batch can be split over the workers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cluster.pools import Pool
from search.bill.memory import flops_per_image, parameters, predict_memory
from search.settings.sections import Placement
from trainables.config import TrialConfig
from trainables.net.architecture import Architecture
from trainables.net.models import trains_on_one_image


class PlacementError(ValueError):
    """A configuration that no pool of its rule can train; the text lists its need and what every pool offers."""


@dataclass(frozen=True)
class Fit:
    """How a configuration would do on a pool; each figure is worked out when it is asked for."""

    pool: Pool
    config: TrialConfig
    image_size_px: int

    @cached_property
    def need_gb(self) -> float:
        """Predicted peak memory of one worker."""
        precision = self.pool.fast_precision if self.config.precision == "auto" else self.config.precision
        workers = self.pool.workers
        return predict_memory(
            self.config, image_size_px=self.image_size_px, workers=workers, precision=precision
        ).peak_gb

    @cached_property
    def obstacle(self) -> str:
        """Why it cannot train there; empty if it can."""
        if self.config.batch_size % (self.pool.workers * self.config.accumulation):
            return f"batch {self.config.batch_size} cannot be split over {self.pool.workers} workers"
        images = self.config.batch_size // (self.pool.workers * self.config.accumulation)
        if images < 2 and not trains_on_one_image(Architecture.of(self.config, self.image_size_px)):
            return "batch norm sees one image with one pixel; it needs two images in each part of a batch"
        limit_gb = self.pool.memory_limit_gb
        if limit_gb is not None and self.need_gb > limit_gb:
            return f"needs {self.need_gb:.1f} GB, has {limit_gb:.1f} GB"
        return ""

    @cached_property
    def image_s(self) -> float | None:
        """Predicted seconds that a slot trains on one image (forward and backward); None if its rate is not known."""
        if self.pool.rate_tflops is None:
            return None
        _, operations = flops_per_image(Architecture.of(self.config, self.image_size_px))
        return operations / (self.pool.rate_tflops * 1e12 * self.pool.workers)

    @property
    def image_usd(self) -> float:
        """Dollars to train on one image."""
        return math.inf if self.image_s is None else self.image_s * self.pool.price / 3600


def choose_pool(config: TrialConfig, pools: Sequence[Pool], rule: Placement, *, image_size_px: int) -> Pool:
    """The pool of a configuration.

    Args:
        config: the trial.
        pools: the study's pools.
        rule: the placement in force.
        image_size_px: height and width of the samples.

    Raises:
        PlacementError: no pool of the rule can take it.
    """
    candidates = _candidates(config, pools, rule, image_size_px)
    fits = [Fit(pool, config, image_size_px) for pool in candidates]
    possible = (f for f in fits if not f.obstacle)
    if rule.rule == "auto":
        best = min(possible, key=lambda f: (f.image_usd, math.inf if f.image_s is None else f.image_s), default=None)
    else:
        best = next(possible, None)
    if best is None:
        raise PlacementError(_impossible(config, fits, rule, image_size_px))
    return best.pool


def _candidates(config: TrialConfig, pools: Sequence[Pool], rule: Placement, image_size_px: int) -> list[Pool]:
    """The pools that the rule allows, the preferred first."""
    by_name = {pool.name: pool for pool in pools}
    if rule.rule == "auto":
        return list(pools)
    if rule.rule == "fixed":
        return [by_name[rule.pool or ""]]
    million = parameters(Architecture.of(config, image_size_px)) / 1e6
    limits = {name: math.inf if limit is None else limit for name, limit in rule.up_to_million.items()}
    return [by_name[name] for name, limit in sorted(limits.items(), key=lambda item: item[1]) if million <= limit]


def _impossible(config: TrialConfig, fits: Sequence[Fit], rule: Placement, image_size_px: int) -> str:
    million = parameters(Architecture.of(config, image_size_px)) / 1e6
    what = f"{config.encoder} with {config.decoder} ({million:.2f}M parameters), batch {config.batch_size}"
    if not fits:
        limits = ", ".join(f"{name} up to {limit}M" for name, limit in rule.up_to_million.items())
        return f"{what}: larger than every threshold of placement ({limits}); raise one, or set it to null"
    why = "; ".join(f"{f.pool.name}: {f.obstacle}" for f in fits)
    return f"{what}: fits no pool ({why}); add a larger pool, or take a smaller batch_size or a larger accumulation"
