"""Slots without Ray or torch: they advance an engine's trials, each a `Life`, in an order drawn at random."""

from __future__ import annotations

import math
import random
import uuid
from pathlib import Path

from cluster.pools import Pool
from cluster.storage import Folder
from search.decisions import lag_of
from search.engine import FINISHED, WAIT, Engine
from search.orders import Orders
from search.settings.config import StudyConfig
from tests.trainables.fakes import MadeUpCrew, epoch_row
from trainables.config import TrialConfig
from trainables.life import Life
from trainables.order import SESSION
from trainables.record import EpochRow

POOL = Pool(name="cpu", cpus_per_worker=1, usd_per_hour=3.6)


def make_config(**changes) -> StudyConfig:
    settings = {
        "data": {"shards": "somewhere"},
        "space": {
            "encoder": ["mobilenet", "vgg19"],
            "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
            "dice_weight": {"low": 0.0, "high": 1.0},
        },
        "budget": {"trials": 14, "epochs": 4},
        "pruner": {"grace_epochs": 1, "reduction_factor": 2},
        "sampler": {"startup_trials": 4},
        "final": {"top": 2, "epochs": 5},
        "pools": [POOL.model_dump()],
        **changes,
    }
    return StudyConfig.model_validate(settings)


def make_engine(config: StudyConfig, folder: Path, *, slots: int = 1, resume: bool = False) -> Engine:
    folder.mkdir(parents=True, exist_ok=True)
    return engine_on(Folder(folder), config, slots=slots, resume=resume)


def engine_on(folder: Folder, config: StudyConfig, *, slots: int = 1, resume: bool = False) -> Engine:
    """An engine in charge of the folder, as a driver makes it."""
    session = uuid.uuid4().hex
    folder.write_json(SESSION, {"session": session})
    orders = Orders(config, folder=folder, shards="somewhere", pool_for=lambda _: POOL, session=session)
    lag = lag_of(slots) if config.study.repeatable else None
    return Engine(config, orders, slots={POOL.name: slots}, lag=lag, resume=resume)


def score(config: TrialConfig, epoch: int) -> float:
    """A learning curve that depends on the configuration alone; its last epoch is not its best."""
    gap = abs(math.log10(config.learning_rate) + 3) / 3 + 0.2 * abs(config.dice_weight - 0.3)
    return 1 / (1 + gap) * (1 - 0.6**epoch) * (0.5 if epoch % 4 == 0 else 1)


def row_of(order, epoch: int) -> EpochRow:
    return epoch_row(epoch, score(order.info.config, epoch))


class KilledError(Exception):
    """The simulated driver died."""


def simulate(
    engine: Engine,
    *,
    slots: int,
    order_seed: int = 0,
    kill_at: int | None = None,
    fail=lambda order: None,
    curve=row_of,
) -> int:
    """Advance the engine's trials until it is finished.

    Args:
        slots: trials at the same time.
        order_seed: decides which running trial advances next.
        kill_at: after this many steps, `KilledError` is raised.
        fail: order -> a `TrialError` for trials that are to fail, else None.
        curve: order, epoch -> the epoch's row.

    Returns:
        The number of epochs trained.
    """
    rng = random.Random(order_seed)
    active: dict[str, Life] = {}
    crews: dict[str, MadeUpCrew] = {}
    pending: list = []
    while True:
        while len(active) + len(pending) < 2 * slots:
            order = engine.next()
            if order is FINISHED and not active and not pending:
                return trained(crews)
            if order is WAIT or order is FINISHED:
                assert active or pending, "the engine waits for nothing"
                break
            pending.append(order)
        while pending and len(active) < slots:
            order = pending.pop(0)
            name = order.info.path
            crews[name] = MadeUpCrew(curve, lambda order, epoch: fail(order))
            active[name] = Life(order, crews[name], clock=crews[name].clock)
        name = rng.choice(sorted(active))
        if engine.on_report(name, active[name].epoch()) is not None:
            del active[name]
        if kill_at is not None and trained(crews) >= kill_at:
            raise KilledError


def trained(crews: dict[str, MadeUpCrew]) -> int:
    """Epochs that were trained, not only told again."""
    return int(sum(crew.now_s for crew in crews.values()))


def summary(engine: Engine) -> list[tuple]:
    """What must be equal between an undisturbed study and one that was killed and resumed."""
    return [(t.number, t.status.status, t.status.reason, t.info.params, t.values, t.curve) for t in engine.trials]
