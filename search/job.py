"""What `search.run` does, step by step. Knows no Ray: where the trials run is a `Site`."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
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
from search import warm
from search.bill.dry_run import check_beforehand
from search.bill.placement import choose_pool
from search.bill.show import print_dry_run
from search.busy import Busy
from search.closing import closing
from search.console import LOG, StudyView, log_event, study_log
from search.decisions import lag_of
from search.engine import Engine, StudyFailedError
from search.folder import Clock, begun, elapsed_s, in_charge
from search.journal import About, Journal
from search.models import write_models
from search.orders import Orders
from search.proof.provenance import STUDY, StudyInfo, check_same_data, check_same_settings, describe
from search.proof.reproduce import reproduce as reproduce_trial
from search.proof.verify import verify_resume
from search.settings.config import StudyConfig
from search.standing import Standing
from trainables.config import TrialConfig
from trainables.track.mirror import LiveMirrors


class Site(Protocol):
    """Where a study's trials run: the modules `search.here` and `search.study`."""

    def opened(self, config: StudyConfig) -> contextlib.AbstractContextManager[Mapping[str, int]]:
        """Get ready; the number of slots of each pool. Raises ValueError if a pool can have none."""

    def build(self, settings: BuildSettings, folder: Folder, progress: Progress) -> None:
        """Make the study's shards where they are not there."""

    def run_trials(self, engine: Engine) -> None:
        """Run the engine's trials until it is finished.

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
    before = begun(folder, resume=resume)
    if before is not None:
        check_same_settings(before, config)
    _check(config)
    with in_charge(folder) as session, _interruptible(), site.opened(config) as slots:
        card = prepare(config, site)
        if before is not None:
            check_same_data(before, card)
        info = before or _begin(config, folder, card, slots)
        _search(config, site, folder, info, slots, session=session, resume=before is not None)
    write_models(folder, card, info.name, tell=print)
    show_tables(folder)
    print(*closing(folder, card.settings.field_of_view), sep="\n")


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


def verify(config: StudyConfig, space: Path, *, kills: int, here: bool) -> bool:
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
        here=here,
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
    """Print tables II and III and write them into the study's folder: the command of another stage.

    Raises:
        RuntimeError: it failed, and has said why. The study itself is whole.
    """
    command = [sys.executable, "-m", "results.run", "table", folder.uri]
    if subprocess.run(command, check=False, cwd=Path(__file__).resolve().parent.parent).returncode:
        raise RuntimeError(
            f"all trials are trained and kept, but the tables were not made; python -m results.run table {folder} "
            "makes them"
        )


def _check(config: StudyConfig) -> None:
    """Refuse what a dry run refuses, before anything is written."""
    if problems := check_beforehand(config).problems:
        raise config.error(problems)


def _begin(config: StudyConfig, folder: Folder, card: DatasetCard, slots: Mapping[str, int]) -> StudyInfo:
    """Write down a study that begins: what it takes over from earlier ones, then `study.json`."""
    if problems := list(warm.problems(config, card.fingerprint)):
        raise config.error(problems)
    if config.warm_start:
        warm.write_warm(folder, warm.gather(config))
    info = describe(
        config,
        name=folder.name,
        shards=Folder(config.data.folder).uri,
        card=card,
        slots=dict(slots),
        lag=lag_of(sum(slots.values())) if config.study.repeatable else None,
    )
    folder.write_json(STUDY, info.model_dump(mode="json"))
    return info


def _search(
    config: StudyConfig,
    site: Site,
    folder: Folder,
    info: StudyInfo,
    slots: Mapping[str, int],
    *,
    session: str,
    resume: bool,
) -> None:
    console = Console()
    with study_log(folder, to_terminal=not console.is_terminal), LiveMirrors(folder, config.track) as mirrors:
        orders = Orders(
            config,
            folder=folder,
            shards=Folder(config.data.folder).uri,
            pool_for=_pool_for(config, info.size_px),
            fingerprint=info.dataset_fingerprint,
            session=session,
        )
        earlier = warm.read_warm(folder)
        engine = Engine(
            config, orders, slots=slots, lag=info.lag, resume=resume, elapsed_s=elapsed_s(folder), warm=earlier
        )
        journal = Journal(folder, _about(info, config), config.search_space)
        journal.rewrite(engine.trials)
        standing = Standing(config, engine.trials, engine.spent)
        standing.busy = busy = Busy(folder, engine)
        view, clock = StudyView(info.name, config, standing, console), Clock(folder, engine.spent)
        tell = partial(log_event, config, standing)
        engine.listeners += [journal, busy, standing, tell, view, clock, lambda _: mirrors.changed()]
        try:
            with view:
                site.run_trials(engine)
        except KeyboardInterrupt:
            console.print(view.render())
            raise
        finally:
            with contextlib.suppress(OSError):  # the disk may be full; both are made again when the study goes on
                clock.save()
                busy.save()
                journal.rewrite(engine.trials)
        if console.is_terminal:
            console.print(view.whole())
        LOG.info("search over: %s", engine.stop_reason)
        LOG.info("%s", busy.told())
    if engine.failed is not None:
        raise StudyFailedError(f"{engine.failed}\nEach trial's status.json in {folder} has its traceback")


def _about(info: StudyInfo, config: StudyConfig) -> About:
    """What Optuna's readers are told of the study."""
    attrs = {
        **{"study": info.id, "dataset": info.dataset, "fingerprint": info.dataset_fingerprint[:16]},
        **{"field_of_view": info.field_of_view, "size_px": info.size_px, "epochs": config.budget.epochs},
        **{"seed": info.seed, "commit": info.commit},
        "about": "Measures are of the validation split; Dice and IoU are hard, per image, then averaged.",
    }
    return About(name=info.name, objectives=config.objective, attrs=attrs)


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


def _pool_for(config: StudyConfig, size_px: int) -> Callable[[TrialConfig], Pool]:
    return lambda trial: choose_pool(trial, config.pools, config.placement_rule, image_size_px=size_px)
