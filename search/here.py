"""A study in this process: the engine's trials one after the other, without Ray.

    python -m search.run --space nas.yaml --here

What a study on Ray does, this does with one slot: the same folder, the same figures. A breakpoint in the training step
stops there. A pool's workers are one here: the batch is global, so one worker trains the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from cluster.pools import Pool
from cluster.storage import Folder
from data_prep.build import Progress
from data_prep.build import build as build_shards
from data_prep.schema import BuildSettings
from search.engine import FINISHED, Engine
from search.settings.config import StudyConfig
from trainables.crew import LocalCrew
from trainables.life import Crew, run_trial
from trainables.order import TrialOrder
from trainables.step.worker import Worker, default_device


@contextmanager
def opened(config: StudyConfig) -> Iterator[Mapping[str, int]]:
    """The slots that a study has here: one, for all its pools."""
    yield {"here": 1}


def build(settings: BuildSettings, folder: Folder, progress: Progress) -> None:
    """Make the study's shards, in this process."""
    build_shards(settings, folder, workers=0, progress=progress)


def run_trials(engine: Engine, *, crew_of: Callable[[Pool], Crew] | None = None) -> None:
    """Run the engine's trials until it is finished.

    Args:
        engine: decides.
        crew_of: who trains for a pool; None: this process.

    Raises:
        KeyboardInterrupt: the study was interrupted; its folder can be resumed from.
        OSError: the disk is full, or the folder cannot be written for another reason; as above.
    """
    crews: dict[str, Crew] = {}
    while (order := engine.next()) is not FINISHED:
        assert isinstance(order, TrialOrder), "one slot never waits for another"
        if order.pool.name not in crews:
            crews[order.pool.name] = (crew_of or local_crew)(order.pool)
        run_trial(order, crews[order.pool.name], partial(engine.on_report, order.info.path))
    for crew in crews.values():
        crew.call("end")


def local_crew(pool: Pool) -> LocalCrew:
    """This process as the one worker of a pool's slot."""
    if pool.gpus_per_worker:
        return LocalCrew(Worker(device=default_device()))
    return LocalCrew(Worker(threads=pool.cpus_per_worker))
