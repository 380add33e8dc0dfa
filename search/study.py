"""The engine's trials on Ray Tune.                                                                          [Ray]

Tune runs what the engine decides: `TuneSearcher` hands it the engine's orders, `TuneScheduler` stops what the engine
stops, and `trainables.on_ray.Slot` trains. Tune keeps no state that matters: a study resumes from its own folder.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.engine import FINISHED, WAIT, Ending, Engine
from trainables.on_ray import Slot, slot_request
from trainables.order import TrialOrder

SLOT_RETRIES = 10
"""How often Tune may start a slot again for one trial. The slot counts its own restarts as the trial's retries, and
ends the trial after `failures.retries`; this bounds what dies before it can count."""


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
    """The engine as Tune's source of configurations.

    Args:
        engine: decides.
        on_event: called after everything that changes the study.
    """

    def __init__(self, engine: Engine, on_event: Callable[[], None]) -> None:
        super().__init__()
        self._engine = engine
        self._on_event = on_event
        self.names: dict[str, str] = {}
        """Tune's id -> the trial's."""
        self.stopped: dict[str, str] = {}
        """Trial -> why the engine stopped it."""

    @_past_tune()
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next order; None if none can be given now."""
        order = self._engine.next()
        if order is FINISHED:
            return Searcher.FINISHED
        if order is WAIT:
            return None
        assert isinstance(order, TrialOrder)
        self.names[trial_id] = order.info.trial_id
        self._on_event()
        return {"order": order.model_dump(mode="json")}

    @_past_tune()
    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the engine how a trial ended.

        Raises:
            OSError: it could not write any more. The trial counts as running still, and is resumed with the study.
        """
        name = self.names.pop(trial_id)
        result = result or {}
        if result.get("failed") == "disk_full":
            raise OSError(errno.ENOSPC, f"trial {name} could not be written: {result['reason']}")
        stopped = self.stopped.pop(name, None)
        if not error and stopped is None and "failed" not in result and "epoch" in result:
            stopped_at_end = self._engine.on_epoch(name, result)
            logging.getLogger(__name__).debug("trial %s ended at its last epoch: %s", name, stopped_at_end)
        self._engine.on_end(name, _ending(result, stopped=stopped, error=error))
        self._on_event()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's folder holds the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: an engine is made anew from the study's folder."""


class TuneScheduler(_Inert, FIFOScheduler):
    """The engine as Tune's judge of running trials."""

    def __init__(self, engine: Engine, searcher: TuneSearcher, on_event: Callable[[], None]) -> None:
        super().__init__()
        self._engine = engine
        self._searcher = searcher
        self._on_event = on_event

    @_past_tune()
    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Continue or stop, after an epoch that is not the trial's last."""
        name = self._searcher.names[trial.trial_id]
        reason = self._engine.on_epoch(name, result)
        self._on_event()
        if reason is None:
            return TrialScheduler.CONTINUE
        self._searcher.stopped[name] = reason
        return TrialScheduler.STOP


def _ending(result: dict[str, Any], *, stopped: str | None, error: bool) -> Ending:
    spent = {"slot_s": result.get("slot_s", 0.0), "retries": result.get("retries", 0)}
    if error:
        return Ending(status="failed", reason="the slot's process ended and could not be started again", **spent)
    if "failed" in result:
        infeasible = result["failed"] == "out_of_memory"
        text = {"reason": result["reason"], "traceback": result["traceback"]}
        return Ending(status="failed", infeasible=infeasible, **text, **spent)
    status = "complete" if stopped is None else "pruned"
    return Ending(status=status, reason=stopped or "", parameters=result.get("parameters"), **spent)  # type: ignore[arg-type]


def run_trials(
    engine: Engine, *, on_event: Callable[[], None] = lambda: None, trainable: type[tune.Trainable] = Slot
) -> None:
    """Run the engine's trials until it is finished. Ray must be connected (`cluster.session.connect`).

    Args:
        engine: decides.
        on_event: called after everything that changes the study.
        trainable: what a slot is; another only in benchmarks, which record trials without training.

    Raises:
        KeyboardInterrupt: the study was interrupted; its folder can be resumed from.
        OSError: the disk is full, or the folder cannot be written for another reason; as above.
    """
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(engine.lag)
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="mammosearch-tune-") as scratch, _interruptible():
        try:
            _tuner(engine, on_event, trainable, scratch).fit()
        except _EngineError as passed:
            raise passed.error from passed.error.__cause__


def _tuner(engine: Engine, on_event: Callable[[], None], trainable: type[tune.Trainable], scratch: str) -> tune.Tuner:
    searcher = TuneSearcher(engine, on_event)
    return tune.Tuner(
        tune.with_resources(trainable, slot_request),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=TuneScheduler(engine, searcher, on_event),
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


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make the end of the terminal and a polite kill the same as Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    # Who set a signal to be ignored (nohup does) wants the study to outlive it.
    heeded = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
