"""Slots without Ray or torch: they advance an engine's trials in an order drawn at random."""

from __future__ import annotations

import math
import random
from pathlib import Path

from cluster.pools import Pool
from cluster.storage import Folder
from search.engine import FINISHED, WAIT, Ending, Engine
from search.sampling import lag_of
from search.settings.config import StudyConfig
from trainables.record import TrialRecord, TrialStatus

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
    return Engine(
        config, folder=Folder(folder), shards="somewhere", lag=lag_of(slots), place=lambda _: POOL, resume=resume
    )


def score(config: dict, epoch: int) -> float:
    """A learning curve that depends on the configuration alone; its last epoch is not its best."""
    gap = abs(math.log10(config["learning_rate"]) + 3) / 3 + 0.2 * abs(config["dice_weight"] - 0.3)
    return 1 / (1 + gap) * (1 - 0.6**epoch) * (0.5 if epoch % 4 == 0 else 1)


def row_of(order, epoch: int) -> dict:
    value = score(order.info.config, epoch)
    row = {"epoch": epoch, "val_dice": value, "val_iou": value / (2 - value), "val_loss": 1 - value}
    return {**row, "train_s": 0.5, "slot_s": float(epoch), "parameters": 1_000}


class KilledError(Exception):
    """The simulated driver died."""


def simulate(
    engine: Engine, *, slots: int, order_seed: int = 0, kill_at: int | None = None, fail=lambda order: None
) -> int:
    """Advance the engine's trials until it is finished.

    Args:
        slots: trials at the same time.
        order_seed: decides which running trial advances next.
        kill_at: after this many steps, `KilledError` is raised.
        fail: order -> an `Ending` for trials that are to fail, else None.

    Returns:
        The number of epochs trained.
    """
    rng = random.Random(order_seed)
    active: dict[str, int] = {}
    pending: list = []
    epochs = 0
    while True:
        while len(active) + len(pending) < 2 * slots:
            order = engine.next()
            if order is FINISHED and not active and not pending:
                return epochs
            if order is WAIT or order is FINISHED:
                assert active or pending, "the engine waits for nothing"
                break
            pending.append(order)
        while pending and len(active) < slots:
            order = pending.pop(0)
            record = TrialRecord(Folder(order.folder))
            active[order.info.trial_id] = len(record.metrics())
            record.write_status(TrialStatus(status="running"))
        name = rng.choice(sorted(active))
        order = engine.running[name]
        if (ending := fail(order)) is not None:
            del active[name]
            engine.on_end(name, ending)
            continue
        epochs += _advance(engine, order, active)
        if kill_at is not None and epochs >= kill_at:
            raise KilledError


def _advance(engine: Engine, order, active: dict[str, int]) -> int:
    """One epoch as a slot does it: the record first, then the engine. A resumed trial reports its last epoch again."""
    name = order.info.trial_id
    record = TrialRecord(Folder(order.folder))
    rows = record.metrics()
    resumed = bool(rows) and active[name] == len(rows) and name not in getattr(engine, "_told", set())
    if not hasattr(engine, "_told"):
        engine._told = set()
    engine._told.add(name)
    if not resumed:
        rows.append(row_of(order, len(rows) + 1))
        record.write_metrics(rows)
    active[name] = len(rows)
    reason = engine.on_epoch(name, rows[-1])
    done = len(rows) >= order.info.config["epochs"]
    if done or reason:
        del active[name]
        status = "complete" if done else "pruned"
        engine.on_end(
            name, Ending(status=status, reason="" if done else reason, slot_s=float(len(rows)), parameters=1_000)
        )
    return 0 if resumed else 1


def summary(engine: Engine) -> list[tuple]:
    """What must be equal between an undisturbed study and one that was killed and resumed."""
    return [
        (t.number, t.state.name, dict(t.params), t.values, dict(t.intermediate_values)) for t in engine.ledger.trials()
    ]
