"""The sections of `nas.yaml`, each checked by itself; `search.settings.config` puts them together."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.settings.problems import Problem, raise_problems
from data_prep.schema import BuildSettings
from search.methods.rungs import rung_epochs
from trainables.record import BEST_BY, VAL_MEASURES

LEAST = ("parameters", "epoch_s", "usd")
"""What a study can optimise beside an epoch's measures: the less the better."""
METRICS = {name: "min" if name.endswith("loss") else "max" for name in VAL_MEASURES} | dict.fromkeys(LEAST, "min")
"""What a study can optimise, with the direction that is meant when none is given."""
if TYPE_CHECKING:
    Metric = str
else:
    Metric = Literal[tuple(METRICS)]


MOST_EPOCHS, MOST_TRIALS = 1_000_000, 1_000_000
"""Beyond them a number is a slip of the pen."""
MOST_SEED = 2**32 - 1
"""The largest that Optuna's samplers take."""


class Section(BaseModel):
    """A mapping of the file: unknown keys are mistakes, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class DataConfig(Section):
    """The samples: a finished shard folder, or how to build one. At least one of the two."""

    shards: str | None = Field(default=None, min_length=1)
    """Path or URI of the shard folder. With `build`: where to put it; default `shards/<source>-<what makes it>`."""
    build: BuildSettings | None = None
    """How to make the shards when they are not there yet; without it they must be."""

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.shards is None and self.build is None:
            raise_problems(Problem((), "no samples", allowed="shards: FOLDER, or build: with a source"))
        return self

    @property
    def folder(self) -> str:
        """Path or URI of the shard folder, given or derived from what makes it."""
        if self.shards is not None:
            return self.shards
        assert self.build is not None
        digest = hashlib.sha256(json.dumps(self.build.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
        return f"shards/{self.build.source}-{self.build.field_of_view}-{self.build.size_px}px-{digest[:8]}"


class SamplerConfig(Section):
    """Who proposes the configurations."""

    name: Literal["tpe", "forecast", "gp", "random", "grid", "nsga2"] = "tpe"
    """`tpe`, `forecast` and `gp` learn from earlier trials, `forecast` from their whole curves; `grid` goes through a
    finite space; `nsga2` is for two objectives."""
    seed: int | None = Field(default=None, ge=0, le=MOST_SEED)
    """Default: the study's seed."""
    startup_trials: int = Field(default=10, ge=1, le=MOST_TRIALS)
    """`tpe`, `gp`: trials drawn at random before they learn; baselines count."""
    population_size: int = Field(default=20, ge=2, le=MOST_TRIALS)
    """`nsga2`: trials of one generation."""


class PrunerConfig(Section):
    """Who stops a trial before its budget is spent."""

    name: Literal["asha", "promotion", "hyperband", "ladder", "corrected", "freeze", "none"] = "asha"
    """`asha`: at each rung the best 1/`reduction_factor` go on, the others end. docs/search.md has them all."""
    grace_epochs: int = Field(default=1, ge=1, le=MOST_EPOCHS)
    """Epochs of the first rung: no trial ends before."""
    reduction_factor: int = Field(default=3, ge=2, le=1000)
    """Each rung lies this many times as high as the one before, and lets one in this many pass."""

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """The epochs, below the budget, after which trials are compared; empty without pruning."""
        if self.name == "none":
            return ()
        return rung_epochs(grace_epochs=self.grace_epochs, reduction_factor=self.reduction_factor, epochs=epochs)


class Objective(Section):
    """What is optimised."""

    metric: Metric = BEST_BY
    """A measure of the validation split, or `parameters`, `epoch_s`, `usd`."""
    direction: Literal["max", "min"] | None = None
    """Default: the sensible one, `max` for Dice and IoU, `min` for the rest."""

    @property
    def maximise(self) -> bool:
        """Whether more is better."""
        return (self.direction or METRICS[self.metric]) == "max"


class Budget(Section):
    """When the study ends: at the first of these that is reached."""

    trials: int = Field(default=20, ge=1, le=MOST_TRIALS)
    """Trials in all, baselines included."""
    epochs: int = Field(default=10, ge=1, le=MOST_EPOCHS)
    """Full budget of one trial."""
    hours: float | None = Field(default=None, gt=0, le=1e6)
    """Hours of the search, finals not included."""
    total_epochs: int | None = Field(default=None, ge=1, le=10**9)
    """Epochs of all trials together."""
    no_gain_trials: int | None = Field(default=None, ge=1, le=MOST_TRIALS)
    """Ended trials in a row without a better objective."""
    max_usd: float | None = Field(default=None, gt=0, le=1e9)
    """Dollars of all slots together."""


class Placement(Section):
    """Which pool a configuration trains on. Short: `placement: auto`, or `placement: POOL`."""

    rule: Literal["fixed", "by_size", "auto"]
    """`fixed`: all on one pool. `by_size`: the smallest that takes the model, after the paper. `auto`: by price."""
    pool: str | None = None
    """`fixed`: the pool's name."""
    up_to_million: dict[str, Annotated[float, Field(gt=0, le=1e6)] | None] = {}
    """`by_size`: pool -> largest model it takes, in millions of parameters; null: any."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return {"rule": "auto"} if value == "auto" else {"rule": "fixed", "pool": value}

    @model_validator(mode="after")
    def _check(self) -> Placement:
        if self.rule == "fixed" and self.pool is None:
            raise_problems(Problem(("pool",), "missing", allowed="the name of a pool"))
        if self.rule == "by_size" and not self.up_to_million:
            raise_problems(Problem(("up_to_million",), "missing", allowed="{pool: millions of parameters, ...}"))
        return self


class Final(Section):
    """The full training of the winners."""

    top: int = Field(default=3, ge=0, le=1000)
    """At most this many of the best trials; 0: none. With several objectives: so many that stand for their front."""
    epochs: int = Field(default=30, ge=1, le=MOST_EPOCHS)
    """Their full budget."""
    seeds: int = Field(default=3, ge=1, le=100)
    """How often each is trained, with seeds that the search did not use; fewer where `budget.max_usd` is spent before.
    1: where schedule and settings allow it, the final goes on from its trial of the search."""
    distinct_encoders: bool = True
    """Whether each must have another encoder."""
    pool: str | None = None
    """The pool they train on; default: where `placement` puts them."""


class Failures(Section):
    """What is done about trials that fail."""

    retries: int = Field(default=2, ge=0, le=1000)
    """Restarts of one trial, from its last epoch, after a worker or a machine was lost."""
    stop_after_consecutive: int = Field(default=5, ge=1, le=MOST_TRIALS)
    """Failed trials in a row after which the study ends with an error."""


class Study(Section):
    """The study itself."""

    name: str | None = Field(default=None, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Default: the name of the settings file."""
    out: str | None = Field(default=None, min_length=1)
    """Path or URI of the study's folder; default `runs/<name>`."""
    seed: int = Field(default=0, ge=0, le=MOST_SEED)
    """Of the sampler and of every trial."""
    repeatable: bool = False
    """Whether decisions depend on no clock, so that the same seed and slots give the same study. Slots wait for it."""
    repeats: Literal["known", "new_seed"] = "known"
    """Where only known settings are proposed: `known` draws others or ends, `new_seed` trains with another seed."""
    keep_checkpoints: Literal["best", "all", "none"] = "best"
    """Whose weights stay when a trial has ended: the best trial's, everyone's, nobody's. Finals always stay."""
