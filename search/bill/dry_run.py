"""A study that is not run: every model of its space built at its real size, and the bill.

    report = dry_run(load_study_config("nas.yaml"))     # search.bill.show prints it

Needs no GPU, no Ray and no samples: models are built on torch's meta device, memory and operations are predicted
(`search.bill.memory`), and where the shards are not there yet their number is estimated from what would be built.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from cluster.machine import machine_cpus
from cluster.settings.problems import Problem
from cluster.slots import UnplaceableError, slots_on_machine
from cluster.storage import Folder
from data_prep.schema import BuildSettings, DatasetCard
from data_prep.shards import CARD, read_card
from search import warm
from search.bill import placement
from search.bill.memory import flops_per_image, parameters
from search.bill.placement import Fit, PlacementError
from search.bill.shapes import networks, shapes
from search.final import epochs_of_final
from search.settings import checks
from search.settings.config import StudyConfig
from search.settings.outside import folders
from search.settings.space import AXES
from trainables.config import TrialConfig
from trainables.net.architecture import Architecture
from trainables.net.models import check_model
from trainables.step.loop import STATISTICS_IMAGES

CBIS_IMAGES = {"mass": (1231, 361), "calc": (1227, 284)}
"""Kind -> images in the official training and test split of CBIS-DDSM, by its case-description files."""
CBIS_LESIONS = {"mass": (1318, 378), "calc": (1546, 326)}
PHANTOM_IMAGES = 2.7
"""Images of one phantom patient on average: 35 % have both breasts, each in two views."""
PHANTOM_LESIONS = 1.15
"""Lesions of one phantom image on average."""
TEACH_HEALTHY = ("bce_weight", "focal_weight", "boundary_weight")
"""The terms of the loss by which an empty mask can be learnt (`trainables.step.losses`)."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What would be trained on."""

    folder: str
    size_px: int
    samples: dict[str, int] | None
    """Split -> number; None where it cannot be known before the build."""
    built: bool
    """Whether the shards are there; otherwise the numbers are estimates."""
    field_of_view: str
    healthy: bool
    """Whether images without a lesion are among them."""
    fingerprint: str | None = None
    """Of the samples; None: they are not there yet."""


@dataclass(frozen=True, kw_only=True)
class BillRow:
    """One model on one pool."""

    encoder: str
    decoder: str
    parameters: int
    pool: str
    batch_sizes: tuple[int, ...]
    need_gb: tuple[float, ...]
    """Predicted peak memory of one worker, for each batch size."""
    limit_gb: float | None
    """What a worker of the pool has."""
    epoch_s: float | None
    """Predicted seconds of an epoch, validation included."""
    epoch_usd: float


@dataclass(frozen=True, kw_only=True)
class Part:
    """One line of the bill: baselines, search or finals."""

    name: str
    trials: int
    epochs: float
    """Expected epochs of all of them, after pruning."""
    slot_h: float | None
    """Hours of slots; None where an epoch's time is not known."""
    wall_h: float | None
    """Hours by the clock; None where that or the number of slots is not known."""
    usd: float | None


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a study would do and cost."""

    name: str
    out: str
    data: Data
    size: int | None
    """Different trials in the space; None: endless."""
    slots: int | None
    """Trials at a time; None where that depends on a cluster."""
    rungs: tuple[int, ...]
    rows: tuple[BillRow, ...]
    parts: tuple[Part, ...]
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]
    """What would keep the study from running."""

    @property
    def usd(self) -> float:
        """The bill."""
        return sum(part.usd or 0.0 for part in self.parts)


@dataclass(frozen=True)
class Checked:
    """What was found before anything was written."""

    data: Data
    fits: tuple[tuple[TrialConfig, Fit], ...]
    """Every combination of settings that matters for its pool, on that pool."""
    problems: tuple[Problem, ...]


def check_beforehand(config: StudyConfig) -> Checked:
    """Check everything that can be checked without training: what a dry run and a study do before anything else."""
    data, problems = check_data(config)
    wrong_models = check_models(config, data.size_px)
    broken = any(problem.path[1:2] != ("encoder_weights",) for problem in wrong_models)
    fits, unplaceable = ([], []) if broken else place_all(config, data.size_px)
    missing = list(folders(config))
    further = [*problems, *warm.problems(config, data.fingerprint), *wrong_models, *unplaceable]
    told = {problem.path for problem in missing}
    return Checked(data, tuple(fits), (*missing, *(p for p in further if p.path not in told)))


def dry_run(config: StudyConfig) -> DryRun:
    """Check, and estimate. Mistakes are in `problems`."""
    checked = check_beforehand(config)
    rows, slots = _rows(checked.fits, checked.data), slots_here(config)
    return DryRun(
        name=config.name,
        out=config.out,
        data=checked.data,
        size=config.search_space.size(),
        slots=slots,
        rungs=config.pruner.rungs(config.budget.epochs),
        rows=tuple(rows),
        parts=tuple(_bill(config, rows, slots)),
        notes=tuple(_notes(config, checked.data)),
        problems=checked.problems,
    )


def check_data(config: StudyConfig) -> tuple[Data, list[Problem]]:
    """The samples of a study, from the card if the shards are there, else from what would be built."""
    folder, settings = Folder(config.data.folder), config.data.build
    card = read_card(folder) if folder.exists(CARD) else None
    if card is not None:
        data = replace(
            _data(config, card.settings, samples=dict(card.samples), built=True), fingerprint=card.fingerprint
        )
        return data, list(_card_problems(config, card))
    if settings is None:
        missing = Problem(("data", "shards"), "there is no finished shard folder", "one that exists, or add data.build")
        return _data(config, BuildSettings(), samples=None, built=False), [missing]
    data = _data(config, settings, samples=_expected_samples(settings), built=False)
    if settings.source != "phantom" and settings.root is not None and not Folder(settings.root).exists():
        return data, [Problem(("data", "build", "root"), "there is no such folder", "the folder of the source's files")]
    return data, []


def slots_here(config: StudyConfig) -> int | None:
    """Trials at a time: of this machine, or where its hardware is not that of the pools, what they allow at most."""
    try:
        here = slots_on_machine(config.pools, cpus=machine_cpus(), gpus=torch.cuda.device_count())
    except UnplaceableError:
        most = [pool.max_slots for pool in config.pools]
        return None if None in most else sum(count or 0 for count in most)
    return sum(here.values())


def check_models(config: StudyConfig, size_px: int) -> list[Problem]:
    """Encoders, decoders and weights of the space that cannot be built."""
    found: list[Problem] = []
    encoders = config.search_space.encoders()
    for trial in networks(config.search_space):
        index = encoders.index(trial.encoder)
        path = ("space", "encoder", "choices", index) if "encoder" in config.space else ("fixed", "encoder")
        for weights in _values(config, "encoder_weights"):
            mistakes = check_model(Architecture.of(trial, size_px), encoder_weights=weights)
            found += [p for text in mistakes if (p := _model_problem(config, text, path)) not in found]
    return found


def _model_problem(config: StudyConfig, text: str, path: tuple[str | int, ...]) -> Problem:
    """A mistake of `check_model` at the setting that its first word names; by default at the encoder's line."""
    name, colon, rest = text.partition(": ")
    if colon and name in AXES and name != "encoder":
        return Problem(("space" if name in config.space else "fixed", name), rest)
    return Problem(path, rest if name == "encoder" else text)


def place_all(config: StudyConfig, size_px: int) -> tuple[list[tuple[TrialConfig, Fit]], list[Problem]]:
    """The pool of every combination of settings that matters for it, and those that have none."""
    fits, problems = [], []
    pools, rule = config.pools, config.placement_rule
    for trial in shapes(config.search_space):
        try:
            pool = placement.choose_pool(trial, pools, rule, image_size_px=size_px)
        except PlacementError as error:
            problems.append(Problem(("placement",) if config.placement else ("pools",), str(error)))
            continue
        fits.append((trial, Fit(pool, trial, size_px)))
        if config.final.pool is not None and config.final.top:
            on_final = Fit(config.pool(config.final.pool), trial, size_px)
            if on_final.obstacle:
                text = f"{trial.encoder}, batch {trial.batch_size}: {on_final.obstacle}"
                problems.append(Problem(("final", "pool"), text, "a pool that every winner fits"))
    return fits, problems


def _data(config: StudyConfig, settings: BuildSettings, *, samples: dict[str, int] | None, built: bool) -> Data:
    return Data(
        folder=config.data.folder,
        size_px=settings.size_px,
        samples=samples,
        built=built,
        field_of_view=settings.field_of_view,
        healthy=settings.healthy == "keep",
    )


def _card_problems(config: StudyConfig, card: DatasetCard) -> Iterator[Problem]:
    if config.data.build is None:  # else it was checked with the settings
        yield from checks.image_sizes(config.search_space, card.settings.size_px)
    axis = config.space.get("normalisation")
    section = "space" if axis else "fixed"
    for name in (axis.choices or ()) if axis else (config.search_space.constant("normalisation"),):
        if name not in card.image_columns:
            built = ", ".join(card.image_columns)
            yield Problem((section, "normalisation"), f"{name} is not in the shards {config.data.folder}", built)


def _expected_samples(settings: BuildSettings) -> dict[str, int] | None:
    """Roughly how many samples each split would have; None for pairs, which would have to be read."""
    if settings.source == "pairs":
        return None
    if settings.source == "phantom":
        images = settings.phantom.patients * PHANTOM_IMAGES
        images *= PHANTOM_LESIONS if settings.field_of_view == "lesion" else 1
        train, test = 0.8 * images, 0.2 * images
    else:
        counts = CBIS_LESIONS if settings.field_of_view == "lesion" else CBIS_IMAGES
        train, test = (float(sum(counts[kind][i] for kind in settings.kinds)) for i in (0, 1))
    val = train * settings.val_fraction
    return {"train": round(train - val), "val": round(val), "test": round(test)}


def _values(config: StudyConfig, name: str) -> list[Any]:
    """Every value that a setting can have; of a range its ends."""
    axis = config.space.get(name)
    values = [] if axis is None else list(axis.values(name) or (axis.low, axis.high))
    if axis is None or axis.when:
        values.append(config.search_space.constant(name))
    return list(dict.fromkeys(values))


def _rows(fits: Sequence[tuple[TrialConfig, Fit]], data: Data) -> list[BillRow]:
    """One row a model and pool, its batch sizes together; the largest need of each batch size."""
    groups: dict[tuple[str, str, str], list[tuple[TrialConfig, Fit]]] = {}
    for trial, fit in fits:
        groups.setdefault((trial.encoder, trial.decoder, fit.pool.name), []).append((trial, fit))
    return [_row(group, data) for group in groups.values()]


def _row(group: Sequence[tuple[TrialConfig, Fit]], data: Data) -> BillRow:
    trial, fit = group[0]
    batches = sorted({t.batch_size for t, _ in group})
    epoch_s = _epoch_s(trial, fit, data)
    return BillRow(
        encoder=trial.encoder,
        decoder=trial.decoder,
        parameters=parameters(Architecture.of(trial, data.size_px)),
        pool=fit.pool.name,
        batch_sizes=tuple(batches),
        need_gb=tuple(max(f.need_gb for t, f in group if t.batch_size == batch) for batch in batches),
        limit_gb=fit.pool.memory_limit_gb,
        epoch_s=epoch_s,
        epoch_usd=0.0 if epoch_s is None else epoch_s / 3600 * fit.pool.price,
    )


def _epoch_s(trial: TrialConfig, fit: Fit, data: Data) -> float | None:
    if fit.image_s is None or data.samples is None:
        return None
    forward, both = flops_per_image(Architecture.of(trial, data.size_px))
    train, measured = data.samples["train"], data.samples["val"]
    if trial.norm_statistics == "recalibrated":
        measured += min(train, STATISTICS_IMAGES)
    if trial.ema_decay:
        measured *= 2  # the average, and the weights beside it
    return fit.image_s * (train + measured * forward / both)


def _bill(config: StudyConfig, rows: Sequence[BillRow], slots: int | None) -> Iterator[Part]:
    """Baselines train in full; searched trials on average, as pruning lets one in `reduction_factor` pass a rung."""
    baselines = len(config.baseline_encoders)
    size = config.search_space.size()
    searched = min(config.budget.trials, size if size is not None else math.inf) - baselines
    per_trial = expected_epochs(config)
    yield _part("baselines", baselines, baselines * config.budget.epochs, rows, slots)
    yield _part("search", max(0, int(searched)), max(0, searched) * per_trial, rows, slots)
    winners = config.final.top
    if config.final.distinct_encoders:
        winners = min(winners, len(config.search_space.encoders()))
    finals = winners * config.final.seeds
    yield _part("finals", finals, finals * epochs_of_final(config), rows, slots)


def expected_epochs(config: StudyConfig) -> float:
    """Epochs that a searched trial trains on average, if one in `reduction_factor` passes each rung."""
    stops = [*config.pruner.rungs(config.budget.epochs), config.budget.epochs]
    starts = [0, *stops[:-1]]
    return sum((b - a) / config.pruner.reduction_factor**k for k, (a, b) in enumerate(zip(starts, stops, strict=True)))


def _part(name: str, trials: int, epochs: float, rows: Sequence[BillRow], slots: int | None) -> Part:
    """A line of the bill at the average of the rows."""
    known = [row for row in rows if row.epoch_s is not None]
    if not known or len(known) < len(rows):
        return Part(name=name, trials=trials, epochs=epochs, slot_h=None, wall_h=None, usd=None)
    mean_s = sum(row.epoch_s or 0.0 for row in known) / len(known)
    mean_usd = sum(row.epoch_usd for row in known) / len(known)
    slot_h = epochs * mean_s / 3600
    at_a_time = min(slots, trials) if slots else None
    rounds = math.ceil(trials / at_a_time) / trials if at_a_time else None  # of trials that all take as long
    wall_h = None if rounds is None else slot_h * rounds
    return Part(name=name, trials=trials, epochs=epochs, slot_h=slot_h, wall_h=wall_h, usd=epochs * mean_usd)


def _notes(config: StudyConfig, data: Data) -> Iterator[str]:
    limits = {
        "budget.hours": config.budget.hours,
        "budget.total_epochs": config.budget.total_epochs,
        "budget.no_gain_trials": config.budget.no_gain_trials,
        "budget.max_usd": config.budget.max_usd,
    }
    if given := [f"{name} {value:g}" for name, value in limits.items() if value is not None]:
        yield f"ends earlier if it reaches {', '.join(given)}"
    for params in config.search_space.baselines(config.baseline_encoders):
        trial = config.search_space.to_config(params)
        paper = TrialConfig(encoder=trial.encoder)
        names = ("dice_weight", "iou_weight", "batch_size")
        if other := [f"{n} {getattr(trial, n):g}" for n in names if getattr(trial, n) != getattr(paper, n)]:
            yield f"the baseline of {trial.encoder} differs from the paper's setting: {', '.join(other)}"
    if config.final.top and epochs_of_final(config) < config.final.epochs:
        new = f"{epochs_of_final(config)} of its {config.final.epochs} epochs are new"
        yield f"each final goes on from its trial of the search: {new}"
    if data.healthy and not any(max(_values(config, name)) > 0 for name in TEACH_HEALTHY):
        yield f"images without a lesion will teach next to nothing: give one of {', '.join(TEACH_HEALTHY)} a share"
    if data.samples is None:
        yield "hours and dollars are unknown: the number of samples is not known before the build"
