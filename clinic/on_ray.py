"""Many films on many cores, GPUs or machines: one worker an actor, by Ray Data.                            [Ray]

Trap: a `repartition` beside a pool of actors that takes every CPU waits for ever. So the blocks are made here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from cluster.session import connect

import pandas as pd
import ray.data

from clinic.films import FilmFile
from clinic.stream import Job, Outcome, Spread
from data_prep.shape.box import Box

BLOCK_FILMS = 8
"""Films of one task: a full-size film takes about a second, so results come every few seconds."""


class _Worker:
    """A job that Ray keeps open in a process of its own."""

    job: Job

    def __init__(self) -> None:
        self._work = self.job.open()

    def __call__(self, block: pd.DataFrame) -> pd.DataFrame:
        done = [json.dumps(asdict(self._work(_film(text)))) for text in block["film"]]
        return pd.DataFrame({"film": block["film"], "outcome": done})


def over(workers: int | None) -> Spread:
    """Work through films with so many actors; None: one for each core or GPU of the cluster."""
    return partial(_spread, workers=workers)


def _spread(job: Job, films: Sequence[FilmFile], *, workers: int | None) -> Iterator[tuple[FilmFile, Outcome]]:
    """Work through films with several actors, each with one core, or one GPU where there are some.

    Args:
        job: what to do with each; it should use one thread.
        films: all of them.
        workers: actors at a time, at most one a core or GPU of the cluster; None: as many.
    """
    with connect(dashboard=False) as session:
        gpus = int(session.gpus)
        most = gpus or int(session.cpus)
        count = max(1, min(workers or most, most, -(-len(films) // BLOCK_FILMS)))
        needs: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        texts = [json.dumps(asdict(film)) for film in films]
        blocks = [pd.DataFrame({"film": texts[at : at + BLOCK_FILMS]}) for at in range(0, len(texts), BLOCK_FILMS)]
        done = ray.data.from_pandas(blocks).map_batches(
            # As an argument the job would lie in the object store, of which Ray warns: it may be lost.
            type("Films", (_Worker,), {"job": job}),
            batch_size=BLOCK_FILMS,
            batch_format="pandas",
            compute=ray.data.ActorPoolStrategy(size=count),
            **needs,
        )
        for table in done.iter_batches(batch_size=None, batch_format="pandas", prefetch_batches=0):
            for text, outcome in zip(table["film"], table["outcome"], strict=True):
                yield _film(text), Outcome(**json.loads(outcome))


def _film(text: str) -> FilmFile:
    row = json.loads(text)
    lesion = None if row["lesion"] is None else Box(*row["lesion"])
    others = tuple(Box(*box) for box in row["others"])
    return FilmFile(path=row["path"], name=row["name"], lesion=lesion, others=others)
