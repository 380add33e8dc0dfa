"""A study on Ray: the engine's trials on Ray Tune.                                                          [Ray]

Tune runs what the engine decides: `TuneSearcher` hands it the engine's orders, `TuneScheduler` stops what the engine
stops, and `trainables.on_ray.Slot` trains. Tune keeps no state that matters: a study resumes from its own folder.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cluster.session import JOINS_CLUSTER, connect, machine_cpus

import torch
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.slots import slots_of_cluster, slots_on_machine
from cluster.storage import Folder
from cluster.watchdog import watched
from data_prep.build import Progress
from data_prep.build import build as build_shards
from data_prep.on_ray import RayWorkers
from data_prep.schema import BuildSettings
from search.engine import FINISHED, WAIT, Engine
from search.settings.config import StudyConfig
from trainables.on_ray import Slot, slot_request
from trainables.order import TrialOrder

SLOT_RETRIES = 10
"""How often Tune may start a slot again for one trial. The slot counts its own restarts as the trial's retries, and
ends the trial after `failures.retries`; this bounds what dies before it can count."""


@contextmanager
def opened(config: StudyConfig) -> Iterator[Mapping[str, int]]:
    """Connect to Ray; the number of slots of each pool.

    Raises:
        UnplaceableError: a pool has none.
    """
    slots = None
    if not JOINS_CLUSTER:
        slots = slots_on_machine(config.pools, cpus=machine_cpus(), gpus=torch.cuda.device_count())
    print("starting Ray" if slots is not None else "joining the cluster", flush=True)
    with connect(slots=slots) as session, watched():
        yield slots if slots is not None else slots_of_cluster(config.pools, session.resources)


def build(settings: BuildSettings, folder: Folder, progress: Progress) -> None:
    """Make the study's shards, on Ray."""
    build_shards(settings, folder, workers=RayWorkers(), progress=progress)


class _Inert:
    """Tune pickles its parts into a snapshot that nothing of ours reads: these leave an empty shell there."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (object, ())

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


class _EngineError(BaseException):
    """An error of the engine on its way through Tune, which would wrap an `Exception` or blame a trial for it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@contextmanager
def _past_tune() -> Iterator[None]:
    """Let an error of the engine through to `run_trials`."""
    try:
        yield
    except Exception as error:
        raise _EngineError(error) from error


class TuneSearcher(_Inert, Searcher):
    """The engine as Tune's source of configurations."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self.paths: dict[str, str] = {}
        """Tune's id -> the path of the trial's folder."""

    @_past_tune()
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next order; None if none can be given now."""
        order = self._engine.next()
        if order is FINISHED:
            return Searcher.FINISHED
        if order is WAIT:
            return None
        assert isinstance(order, TrialOrder)
        self.paths[trial_id] = order.info.path
        return {"order": order.model_dump(mode="json")}

    @_past_tune()
    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the engine of a trial's last report, or of its slot's death.

        Raises:
            OSError: it could not write any more. The trial counts as running still, and is resumed with the study.
        """
        path = self.paths.pop(trial_id)
        if path not in self._engine.running:
            return  # the engine has ended it, as `TuneScheduler` was told
        if error or result is None:
            self._engine.on_lost(path)
        else:
            self._engine.on_report(path, result["report"])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's folder holds the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: an engine is made anew from the study's folder."""


class TuneScheduler(_Inert, FIFOScheduler):
    """The engine as Tune's judge of running trials."""

    def __init__(self, engine: Engine, searcher: TuneSearcher) -> None:
        super().__init__()
        self._engine = engine
        self._searcher = searcher

    @_past_tune()
    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Continue or stop, after an epoch that is not the trial's last."""
        status = self._engine.on_report(self._searcher.paths[trial.trial_id], result["report"])
        return TrialScheduler.CONTINUE if status is None else TrialScheduler.STOP


def run_trials(engine: Engine, *, trainable: type[tune.Trainable] = Slot) -> None:
    """Run the engine's trials until it is finished. Ray must be connected (`cluster.session.connect`).

    Args:
        engine: decides.
        trainable: what a slot is; another only in benchmarks, which record trials without training.

    Raises:
        KeyboardInterrupt: the study was interrupted; its folder can be resumed from.
        OSError: the disk is full, or the folder cannot be written for another reason; as above.
    """
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(2 * sum(engine.slots.values()))
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="mammosearch-tune-") as scratch:
        try:
            _tuner(engine, trainable, scratch).fit()
        except _EngineError as passed:
            raise passed.error from passed.error.__cause__


def _tuner(engine: Engine, trainable: type[tune.Trainable], scratch: str) -> tune.Tuner:
    searcher = TuneSearcher(engine)
    return tune.Tuner(
        tune.with_resources(trainable, slot_request),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=TuneScheduler(engine, searcher),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=scratch,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=SLOT_RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )
