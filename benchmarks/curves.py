"""Real learning curves: a grid trained in full on real mammograms, once, for `benchmarks/search_cost.py` to replay.

    python -m benchmarks.curves record --root downloads/cesm_pairs --out runs/curves   # hours; goes on when run again
    python -m benchmarks.curves gather --out runs/curves                               # benchmarks/data/curves.parquet

`--root` is a folder of image and mask files in pairs with an `index.csv` (`data_prep/find/pairs.py`). What is trained
are the cells of the two studies `benchmarks/data/curves_*.yaml`: the lesion's crops first, each cell once; then each
encoder's baseline and its best cell with two further seeds, so that noise is known; then the whole views. A
configuration that is done is not trained again.

Wall-clock seconds depend on what else the machine does, so CPU seconds of the process are recorded beside them, and
these are what an epoch costs in the replay.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.build import build
from data_prep.schema import BuildSettings
from data_prep.shards import CARD, open_shards
from search.proof.provenance import commit, versions
from search.settings.config import StudyConfig, load_study_config
from trainables.config import TrialConfig
from trainables.trial import NonFiniteLoss, TrialData, TrialSession, Worker

HERE = Path(__file__).parent / "data"
VIEWS = ("lesion", "whole")
CURVES = HERE / "curves.parquet"
REPEATED_SEEDS = (1, 2)
"""Seeds beside the study's own, 0, of the configurations that are repeated."""
SEARCHED = ("encoder", "learning_rate", "batch_size", "dice_weight")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One configuration of one grid, with one seed."""

    view: str
    shards: str
    config: dict[str, Any]
    file: str
    """Where its curve goes."""


def study_of(view: str, root: str | None = None) -> StudyConfig:
    """The study of a view; `root` stands in for the folder that its file names."""
    study = load_study_config(HERE / f"curves_{view}.yaml")
    if root is None:
        return study
    assert study.data.build is not None
    moved = study.data.build.model_copy(update={"root": root, "index_csv": f"{root}/index.csv"})
    return study.model_copy(update={"data": study.data.model_copy(update={"build": moved})})


def shards_of(study: StudyConfig, out: Path) -> str:
    """The shard folder of a study below `out`, built if it is not there."""
    assert study.data.build is not None
    settings: BuildSettings = study.data.build
    folder = out / "shards" / settings.field_of_view
    if not (folder / CARD).exists():
        build(settings, str(folder), workers=0)
    return str(folder)


def cells(view: str, study: StudyConfig, shards: str, out: Path) -> list[Job]:
    """Every cell of the grid once, the encoders in turn, so that what is there early says something of each."""
    jobs = [job_of(view, study.search_space.to_config(params), shards, out) for params in study.search_space.cells()]
    by_encoder = [[job for job in jobs if job.config["encoder"] == name] for name in study.search_space.encoders()]
    return [job for turn in zip(*by_encoder, strict=True) for job in turn]


def repeats(view: str, study: StudyConfig, shards: str, out: Path) -> list[Job]:
    """Each encoder's baseline and its best other cell, with further seeds; the cells must have been recorded."""
    space = study.search_space
    best: dict[str, tuple[float, TrialConfig]] = {}
    baselines = {params["encoder"]: space.to_config(params) for params in space.baselines()}
    for job in cells(view, study, shards, out):
        config = TrialConfig.model_validate(job.config)
        value = max((row["val_dice"] for row in json.loads(Path(job.file).read_text())["rows"]), default=0.0)
        if config != baselines[config.encoder] and value > best.get(config.encoder, (-1.0, config))[0]:
            best[config.encoder] = (value, config)
    chosen = [*baselines.values(), *(config for _, config in best.values())]
    return [
        job_of(view, config.model_copy(update={"seed": seed}), shards, out)
        for seed in REPEATED_SEEDS
        for config in chosen
    ]


def job_of(view: str, config: TrialConfig, shards: str, out: Path) -> Job:
    values = config.model_dump(mode="json")
    name = "-".join(str(values[name]) for name in (*SEARCHED, "seed"))
    return Job(view=view, shards=shards, config=values, file=str(out / view / f"{name}.json"))


def train(job: Job) -> str:
    """Train one configuration to its budget and write its curve; gives a line about it."""
    config = TrialConfig.model_validate(job.config)
    session = TrialSession(config, TrialData.open(job.shards), worker=Worker(threads=1))
    rows, reason = [], ""
    try:
        while session.epoch < config.epochs:
            cpu_s = time.process_time()
            row = session.train_epoch()
            rows.append({**row.model_dump(), "cpu_s": round(time.process_time() - cpu_s, 3)})
    except NonFiniteLoss as error:
        reason = str(error)
    finally:
        session.close()
    curve = {"view": job.view, "config": job.config, "parameters": session.parameters, "reason": reason, "rows": rows}
    aside = Path(f"{job.file}.tmp")
    aside.write_text(json.dumps(curve))
    aside.replace(job.file)
    best = max((row["val_dice"] for row in rows), default=float("nan"))
    searched = " ".join(str(job.config[name]) for name in (*SEARCHED, "seed"))
    return f"{job.view} {searched}: Dice {best:.4f}, {sum(row['cpu_s'] for row in rows):.0f} CPU s {reason}"


def record(root: str, out: Path, *, views: Iterable[str], processes: int) -> None:
    """Train all that is not there yet."""
    # `spawn`: torch's thread pools do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for view in views:
            study = study_of(view, root)
            shards = shards_of(study, out)
            (out / view).mkdir(parents=True, exist_ok=True)
            stages = (cells, repeats) if view == "lesion" else (cells,)
            for stage in stages:
                jobs = [job for job in stage(view, study, shards, out) if not Path(job.file).exists()]
                for done, line in enumerate(pool.imap_unordered(train, jobs), 1):
                    print(f"{time.strftime('%H:%M:%S')}  {done}/{len(jobs)}  {line}", flush=True)


def rows_of(file: Path) -> Iterator[dict[str, Any]]:
    curve = json.loads(file.read_text())
    searched = {name: curve["config"][name] for name in (*SEARCHED, "seed")}
    for row in curve["rows"]:
        yield {"view": curve["view"], **searched, "parameters": curve["parameters"], **row}


def gather(out: Path, file: Path) -> None:
    """Put the curves into one Parquet file, which says how they were made."""
    found = [path for view in VIEWS for path in sorted((out / view).glob("*.json"))]
    table = pd.DataFrame([row for path in found for row in rows_of(path)])
    table = table.drop(columns=["peak_memory_gb", "images_per_s"]).astype({"epoch": "int16", "batch_size": "int16"})
    floats = table.select_dtypes("float64").columns.difference(list(SEARCHED))
    table[floats] = table[floats].astype("float32")
    made = {
        "command": "python -m benchmarks.curves record",
        "versions": versions(),
        "commit": commit(),
        "studies": {view: study_of(view).model_dump(mode="json") for view in VIEWS},
        "fingerprints": {
            view: open_shards(str(out / "shards" / view)).card.fingerprint
            for view in VIEWS
            if (out / "shards" / view).exists()
        },
    }
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), b"made": json.dumps(made).encode()})
    aside = file.with_suffix(".tmp")
    pq.write_table(arrow, aside, compression="zstd")
    aside.replace(file)
    counts = table.groupby(["view", "seed"]).apply(lambda g: g[list(SEARCHED)].drop_duplicates().shape[0])
    print(f"{file}: {len(table)} rows, {file.stat().st_size / 1e3:.0f} kB\n{counts.to_string()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="train what is not there yet")
    recording.add_argument("--root", required=True, help="folder of the images, the masks and index.csv")
    recording.add_argument("--views", nargs="+", default=list(VIEWS), choices=VIEWS)
    recording.add_argument("--processes", type=int, default=2)
    gathering = commands.add_parser("gather", help="put what is there into one Parquet file")
    gathering.add_argument("--file", type=Path, default=CURVES)
    for command in (recording, gathering):
        command.add_argument("--out", type=Path, required=True, help="folder of the curves, one JSON a configuration")
    arguments = parser.parse_args()
    if arguments.command == "record":
        record(arguments.root, arguments.out, views=arguments.views, processes=arguments.processes)
    else:
        gather(arguments.out, arguments.file)


if __name__ == "__main__":
    main()
