"""A build's workers on Ray Data: one row, one item of work.                                                  [Ray]

    build(settings, out, workers=RayWorkers(4))

A row is small, a shard's task or a batch of file names, and so is what comes back. What is large the function reads and
writes itself. Ray sends rows to free cores of all machines, and again where a machine is lost.
"""

from __future__ import annotations

import errno
import logging
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from cluster.session import connect

import pyarrow as pa
import ray.data

from data_prep.write import keep_freed_memory

T = TypeVar("T")
R = TypeVar("R")


class RayWorkers:
    """Workers on the Ray that this process is connected to, or on one that is started at the first piece of work.

    Args:
        count: pieces of work at a time; None: one a CPU core.
    """

    def __init__(self, count: int | None = None) -> None:
        self._count = count
        self._started = ExitStack()
        self._connected = False

    def __enter__(self) -> RayWorkers:
        """Start nothing yet."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the Ray that was started."""
        self._started.close()
        self._connected = False

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Apply a function to each item on all workers, each on one CPU; the results as they come.

        Raises:
            OSError: the function raised one.
        """
        if not items:
            return
        if not self._connected:
            self._started.enter_context(connect(cpus=self._count, object_store_gb=0.25, dashboard=False))
            self._connected = True
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        # Rows and results are small, so nothing need be held back. With Ray Data's guards a core waits 0.2 s between
        # two tasks, and all but one for a second at first (docs/log.md).
        context.set_config("backpressure_policies.enabled", [])
        with ray.data.DataContext.current(context):
            rows = ray.data.from_arrow([pa.table({"item": [pickle.dumps(item)]}) for item in items])
            pool = ray.data.TaskPoolStrategy(size=self._count)
            done = rows.map(_call, fn_kwargs={"function": function}, num_cpus=1, compute=pool)
            for row in done.iter_rows():
                if row["error"]:
                    raise OSError(errno.EIO, row["error"])
                yield pickle.loads(row["result"])

    def warm_up(self, count: int) -> None:
        """Start the processes and let them import, so that a measurement leaves that out."""
        list(self.map(_wait, [1.0] * count))


def _call(row: dict[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    keep_freed_memory()
    try:
        return {"result": pickle.dumps(function(pickle.loads(row["item"]))), "error": ""}
    except OSError as error:  # said by the driver in one line, without the traceback of two processes
        return {"result": b"", "error": error.strerror or str(error)}


def _wait(seconds: float) -> None:
    time.sleep(seconds)
