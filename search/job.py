"""What `search.run` does, step by step. Knows no Ray: where the trials run is a `Site`."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from rich.console import Console

from cluster.pools import Pool
from cluster.storage import Folder
from data_prep.build import Progress
from data_prep.look.progress import console_progress
from data_prep.schema import BuildSettings, DatasetCard
from data_prep.shards import open_shards
from search.bill.dry_run import check_models, print_dry_run
from search.bill.placement import choose_pool
from search.console import LOG, StudyView, study_log
from search.engine import Engine, StudyFailedError
from search.orders import Orders
from search.proof.provenance import STUDY, StudyInfo, check_same_study, describe, read_info
from search.proof.reproduce import reproduce as reproduce_trial
from search.proof.verify import verify_resume
from search.sampling import lag_of
from search.settings.config import StudyConfig
from trainables.config import TrialConfig
from trainables.order import SESSION
from trainables.record import now
from trainables.track.mirror import LiveMirrors

PROGRESS = "progress.json"
SAVE_EVERY_S = 5.0


class Site(Protocol):
    """Where a study's trials run: the modules `search.here` and `search.study`."""

    def opened(self, config: StudyConfig) -> contextlib.AbstractContextManager[Mapping[str, int]]:
        """Get ready; the number of slots of each pool. Raises ValueError if a pool can have none."""

    def build(self, settings: BuildSettings, folder: Folder, progress: Progress) -> None:
        """Make the study's shards where they are not there."""

    def run_trials(self, engine: Engine, *, on_event: Callable[[], None]) -> None:
        """Run the engine's trials until it is finished; `on_event` is called after everything that changes the study.

        Raises:
            KeyboardInterrupt, OSError: it was interrupted, or the folder cannot be written; it can be resumed.
        """


def run(config: StudyConfig, site: Site, *, resume: bool) -> None:
    """The main job: data, search, finals, tables.

    Args:
        config: the study.
        site: where its trials run.
        resume: go on with what its folder holds.

    Raises:
        ValueError: something asked for cannot be; found before any trial starts.
        StudyFailedError: too many trials failed in a row.
        KeyboardInterrupt: it was interrupted and can be resumed.
    """
    folder = Folder(config.out)
    _check_folder(folder, resume=resume)
    _check_models(config)
    with _in_charge(folder) as name, site.opened(config) as slots, _interruptible():
        begun = folder.exists(STUDY)  # not yet, if what is resumed was interrupted while it prepared its data
        card = prepare(config, site)
        info = _study_info(config, folder, card, slots, resume=begun)
        _search(config, site, folder, info, session=name, resume=begun)
    show_tables(folder)


def dry(config: StudyConfig) -> None:
    """Print what the study would do, need and cost.

    Raises:
        SettingsError: with every mistake that shows only now.
    """
    print_dry_run(config, Console())


def reproduce(config: StudyConfig, name: str) -> bool:
    """Train a trial of the study again, print how it compares, and return whether it agrees."""
    verdict = reproduce_trial(Folder(config.out), name, tell=print)
    for line in verdict.warnings:
        print(f"note: {line}")
    for line in verdict.differences:
        print(line)
    told = "agrees in every measure" if verdict.agrees else f"differs in {len(verdict.differences)} measures"
    print(f"trial {name}, {verdict.epochs} epochs: {told}")
    return verdict.agrees


def verify(config: StudyConfig, space: Path, *, kills: int) -> bool:
    """Kill a study `kills` times and print every difference from an undisturbed one; returns whether there is none.

    Raises:
        ValueError: the settings are not deterministic.
    """
    if any(pool.gpus_per_worker for pool in config.pools):
        raise ValueError("--verify-resume compares figure by figure, which needs a study on CPU pools alone")
    differences = verify_resume(
        space,
        kills=kills,
        seed=config.study.seed,
        retries=config.failures.retries,
        tell=lambda line: print(line, flush=True),
    )
    for line in differences:
        print(line)
    print("the killed study equals the undisturbed one" if not differences else f"{len(differences)} differences")
    return not differences


def prepare(config: StudyConfig, site: Site) -> DatasetCard:
    """The card of the study's shards, which are made first where they are not there and the settings say how."""
    if config.data.build is not None:
        with console_progress(Console()) as progress:
            site.build(config.data.build, Folder(config.data.folder), progress)
    shards = open_shards(config.data.folder)
    return shards.card


def show_tables(folder: Folder) -> None:
    """Print tables II and III and write them into the study's folder: the command of another stage."""
    command = [sys.executable, "-m", "results.run", "table", folder.uri]
    subprocess.run(command, check=True, cwd=Path(__file__).resolve().parent.parent)


def _check_folder(folder: Folder, *, resume: bool) -> None:
    if resume and not (folder.exists(STUDY) or folder.exists(SESSION)):
        raise ValueError(f"{folder} holds no study to resume; begin it without --resume")
    if not resume and folder.exists(STUDY):
        raise ValueError(f"{folder} already holds a study; go on with it by --resume, or choose another --out")


def _check_models(config: StudyConfig) -> None:
    """Refuse encoders and decoders that cannot be built, before anything starts."""
    build = config.data.build
    size_px = build.size_px if build is not None else open_shards(config.data.folder).card.settings.size_px
    if problems := check_models(config, size_px):
        raise config.error(problems)


def _study_info(
    config: StudyConfig, folder: Folder, card: DatasetCard, slots: Mapping[str, int], *, resume: bool
) -> StudyInfo:
    """`study.json`: written when the study begins, checked when it is resumed."""
    if resume:
        before = read_info(folder)
        check_same_study(before, config, card)
        return before
    info = describe(
        config,
        name=folder.name,
        shards=Folder(config.data.folder).uri,
        card=card,
        slots=dict(slots),
        lag=lag_of(sum(slots.values())),
    )
    folder.write_json(STUDY, info.model_dump(mode="json"))
    return info


@contextmanager
def _in_charge(folder: Folder) -> Iterator[str]:
    """Be the one driver of the study; gives this session's name.

    On this machine a lock keeps a second driver out, and is gone with the process that held it. `session.json` tells
    workers of an earlier driver, wherever they are, to write nothing more.

    Raises:
        ValueError: another process on this machine runs the study.
    """
    session = uuid.uuid4().hex[:12]
    with contextlib.ExitStack() as stack:
        if folder.local is not None:
            folder.local.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder.local / "driver.lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(f"another process runs the study in {folder}; wait for it or end it") from error
        folder.write_json(SESSION, {"session": session, "began_at": now()})
        yield session


def _search(config: StudyConfig, site: Site, folder: Folder, info: StudyInfo, *, session: str, resume: bool) -> None:
    console = Console()
    with study_log(folder, to_terminal=not console.is_terminal):
        orders = Orders(
            config,
            folder=folder,
            shards=Folder(config.data.folder).uri,
            pool_for=_pool_for(config, info.size_px),
            fingerprint=info.dataset_fingerprint,
            session=session,
        )
        engine = Engine(config, orders, lag=info.lag, resume=resume, elapsed_s=_elapsed_s(folder))
        view = StudyView(engine, console)
        try:
            with LiveMirrors(folder, config.track) as mirrors, view:
                site.run_trials(engine, on_event=_on_event(engine, view, mirrors))
        except KeyboardInterrupt:
            console.print(view.render())
            raise
        finally:
            folder.write_json(PROGRESS, {"elapsed_s": round(engine.spent.elapsed_s, 1)})
        LOG.info("search over: %s", engine.stop_reason)
    if engine.failed is not None:
        raise StudyFailedError(f"{engine.failed}\nEach trial's status.json in {folder} has its traceback")


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


def _on_event(engine: Engine, view: StudyView, mirrors: LiveMirrors) -> Callable[[], None]:
    saved_at = time.monotonic()

    def on_event() -> None:
        nonlocal saved_at
        view.update()
        mirrors.changed()
        if time.monotonic() - saved_at > SAVE_EVERY_S:
            saved_at = time.monotonic()
            engine.folder.write_json(PROGRESS, {"elapsed_s": round(engine.spent.elapsed_s, 1)})

    return on_event


def _elapsed_s(folder: Folder) -> float:
    return float(folder.read_json(PROGRESS)["elapsed_s"]) if folder.exists(PROGRESS) else 0.0


def _pool_for(config: StudyConfig, size_px: int) -> Callable[[TrialConfig], Pool]:
    return lambda trial: choose_pool(trial, config.pools, config.placement_rule, image_size_px=size_px)
