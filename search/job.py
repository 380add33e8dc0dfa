"""What `search.run` does, step by step.                                                                     [Ray]"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cluster.session import JOINS_CLUSTER, connect, machine_cpus

import torch
from rich.console import Console

from cluster.pools import Pool
from cluster.slots import slots_of_cluster, slots_on_machine
from cluster.storage import Folder
from data_prep.build import BuildProgress, build
from data_prep.schema import DatasetCard
from data_prep.shards import open_shards
from search.config import StudyConfig, load_study_config
from search.console import LOG, StudyView, study_log
from search.engine import Engine, StudyFailedError
from search.placement import choose_pool
from search.provenance import StudyInfo, check_same_study, describe, read_info
from search.sampling import lag_of
from search.study import run_trials
from trainables.config import TrialConfig
from trainables.models import check_model

PROGRESS = "progress.json"
SAVE_EVERY_S = 5.0


def load(space: Path, *, out: str | None) -> StudyConfig:
    """The study's settings, with its folder changed to `out` if given."""
    config = load_study_config(space)
    if out is None:
        return config
    changed = config.model_copy(update={"study": config.study.model_copy(update={"out": out})})
    changed._file, changed._source = config._file, config._source
    return changed


def run(config: StudyConfig, *, resume: bool) -> None:
    """The main job: data, search, finals, tables.

    Raises:
        ValueError: something asked for cannot be; found before any trial starts.
        StudyFailedError: too many trials failed in a row.
        KeyboardInterrupt: it was interrupted and can be resumed.
    """
    folder = Folder(config.out)
    _check_folder(folder, resume=resume)
    _check_models(config)
    slots = (
        None if JOINS_CLUSTER else slots_on_machine(config.pools, cpus=machine_cpus(), gpus=torch.cuda.device_count())
    )
    with connect(slots=slots) as session:
        slots = slots if slots is not None else slots_of_cluster(config.pools, session.resources)
        card = prepare(config)
        info = _study_info(config, folder, card, slots, resume=resume)
        _search(config, folder, info, resume=resume)
    show_tables(folder)


def resume_command(space: Path, out: str | None) -> str:
    """What to type to go on."""
    words = [sys.executable, "-m", "search.run", "--space", str(space), *(["--out", out] if out else []), "--resume"]
    return shlex.join(["python", *words[1:]])


def prepare(config: StudyConfig) -> DatasetCard:
    """The card of the study's shards, which are made first where they are not there and the settings say how."""
    if config.data.build is not None:
        build(config.data.build, Folder(config.data.folder), progress=_build_lines())
    shards = open_shards(config.data.folder)
    return shards.card


def show_tables(folder: Folder) -> None:
    """Print tables II and III and write them into the study's folder: the command of another stage."""
    command = [sys.executable, "-m", "results.run", "table", folder.uri]
    subprocess.run(command, check=True, cwd=Path(__file__).resolve().parent.parent)


def _check_folder(folder: Folder, *, resume: bool) -> None:
    if resume and not folder.exists("study.json"):
        raise ValueError(f"{folder} holds no study to resume; begin it without --resume")
    if not resume and folder.exists("study.json"):
        raise ValueError(f"{folder} already holds a study; go on with it by --resume, or choose another --out")


def _check_models(config: StudyConfig) -> None:
    """Refuse encoders and decoders that cannot be built, before anything starts."""
    space, size_px = config.search_space, config.data.build.size_px if config.data.build else None
    mistakes = []
    for encoder in space.encoders():
        for decoder in _choices(config, "decoder"):
            for weights in _choices(config, "encoder_weights"):
                found = check_model(
                    encoder=encoder, decoder=str(decoder), encoder_weights=weights, image_size_px=size_px
                )
                mistakes += [m for m in found if m not in mistakes]
    if mistakes:
        raise ValueError("\n".join(f"{config._file}  space: {mistake}" for mistake in mistakes))


def _choices(config: StudyConfig, name: str) -> tuple[str | None, ...]:
    axis = config.space.get(name)
    return tuple(axis.choices or ()) if axis else (config.search_space.constant(name),)


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
    folder.write_json("study.json", info.model_dump(mode="json"))
    return info


def _search(config: StudyConfig, folder: Folder, info: StudyInfo, *, resume: bool) -> None:
    console = Console()
    with study_log(folder.local, to_terminal=not console.is_terminal):
        engine = Engine(
            config,
            folder=folder,
            shards=Folder(config.data.folder).uri,
            lag=info.lag,
            place=_placer(config, info.size_px),
            resume=resume,
            elapsed_s=_elapsed_s(folder),
        )
        try:
            with StudyView(engine, console) as view:
                run_trials(engine, on_event=_on_event(engine, view))
        finally:
            folder.write_json(PROGRESS, {"elapsed_s": round(engine.elapsed_s, 1)})
        LOG.info("search over: %s", engine.stop_reason)
    if engine.failed is not None:
        raise StudyFailedError(f"{engine.failed}\nEach trial's status.json in {folder} has its traceback")


def _on_event(engine: Engine, view: StudyView) -> Callable[[], None]:
    saved_at = time.monotonic()

    def on_event() -> None:
        nonlocal saved_at
        view.update()
        if time.monotonic() - saved_at > SAVE_EVERY_S:
            saved_at = time.monotonic()
            engine.folder.write_json(PROGRESS, {"elapsed_s": round(engine.elapsed_s, 1)})

    return on_event


def _elapsed_s(folder: Folder) -> float:
    return float(folder.read_json(PROGRESS)["elapsed_s"]) if folder.exists(PROGRESS) else 0.0


def _placer(config: StudyConfig, size_px: int) -> Callable[[TrialConfig], Pool]:
    def place(trial: TrialConfig) -> Pool:
        return choose_pool(trial, config.pools, config.placement_rule, image_size_px=size_px)

    return place


def _build_lines() -> Callable[[BuildProgress], None]:
    """Say how far the build is, at most every two seconds."""
    said_at = 0.0

    def tell(progress: BuildProgress) -> None:
        nonlocal said_at
        if progress.total and progress.done < progress.total and time.monotonic() - said_at < 2:
            return
        said_at = time.monotonic()
        speed = f", {progress.images_per_s:.1f} images/s" if progress.built_here else ""
        count = (
            f" {progress.done}/{progress.total} samples, {progress.rejected} rejected{speed}" if progress.total else ""
        )
        print(f"data: {progress.stage}{count}", flush=True)

    return tell
