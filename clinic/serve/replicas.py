"""The same service over replicas of the model on Ray Serve: films of several requests in one batch, more replicas while
more is asked.                                                                                                   [Ray]

HTTP, token and limits stay in the process of the command; only films and answers go to the replicas, on this machine or
on the cluster of RAY_ADDRESS. A replica that dies takes nothing along: what it was asked is asked of another one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from cluster.session import connect

import ray.exceptions
from ray import serve
from ray.serve.config import ProxyLocation
from ray.serve.schema import LoggingConfig

from clinic.predict.outputs import Output
from clinic.serve.answer import Answer, AnswerJob
from clinic.serve.review import Decision, Review
from clinic.serve.server import ServeOrder, build_app, check_order, run_app
from cluster.storage import Folder
from trainables.model.info import read_info

LOG = logging.getLogger(__name__)
NAME = "mammosearch"
BATCH = 4
"""Requests whose films are predicted together."""
WAIT_S = 0.02
"""For which a batch waits to be filled."""
PER_REPLICA = 2 * BATCH
"""Requests that one replica is given at a time: one batch under way, one waiting."""
ATTEMPTS = 5
"""How often a film is asked about whose replica has died."""
LOST = (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError)


class Replica:
    """One copy of the models, in a process of its own."""

    def __init__(self, job: AnswerJob) -> None:
        self._answerer = job.open()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT_S)
    async def answers(self, contents: list[list[bytes]], outputs: list[tuple[Output, ...]]) -> list[list[Answer]]:
        """The answers of several requests, all films in one batch."""
        return await asyncio.to_thread(self._together, contents, outputs)

    async def look(self, content: bytes) -> dict[str, Any]:
        """A film's picture and the model's outlines."""
        return await asyncio.to_thread(self._answerer.look, content)

    async def review(self, content: bytes, decision: Decision, outlines: list[Any]) -> Review:
        """What comes of a decision about a film."""
        return await asyncio.to_thread(self._answerer.review, content, decision, outlines)

    def _together(self, contents: list[list[bytes]], outputs: list[tuple[Output, ...]]) -> list[list[Answer]]:
        places: dict[tuple[Output, ...], list[int]] = defaultdict(list)
        for place, wanted in enumerate(outputs):
            places[wanted].append(place)
        answers: list[list[Answer]] = [[] for _ in contents]
        for wanted, requests in places.items():
            found = iter(self._answerer([film for place in requests for film in contents[place]], wanted))
            for place in requests:
                answers[place] = [next(found) for _ in contents[place]]
        return answers


class Replicas:
    """A backend that asks the replicas."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def answers(self, contents: Sequence[bytes], outputs: tuple[Output, ...]) -> list[Answer]:
        """One answer a film, in their order."""
        return list(await self._ask("answers", list(contents), outputs))

    async def look(self, content: bytes) -> dict[str, Any]:
        """A film's picture and the model's outlines."""
        return dict(await self._ask("look", content))

    async def review(self, content: bytes, decision: Decision, outlines: list[Any]) -> Review:
        """What comes of a decision about a film."""
        made: Review = await self._ask("review", content, decision, outlines)
        return made

    async def _ask(self, method: str, *arguments: Any) -> Any:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await getattr(self._handle, method).remote(*arguments)
            except LOST:
                if attempt == ATTEMPTS:
                    raise
                LOG.warning("a replica died; its request is asked of another one")
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, ValueError) else error from None
        raise AssertionError("the last attempt returns or raises")


def serve_replicas(order: ServeOrder, *, replicas: int, most: int) -> None:
    """Run the service over replicas until told to stop.

    Args:
        order: as for `clinic.serve.server.serve`; as many requests are worked on at once as the replicas can take.
        replicas: that always run.
        most: up to which Ray Serve goes while more is asked.

    Raises:
        ValueError: the order would lay the service open.
        OSError: the port is taken.
    """
    check_order(order)
    names = "+".join(read_info(Folder(path)).name for path in order.job.models)
    limits = replace(order.limits, at_once=PER_REPLICA * max(replicas, most))
    with running(order.job, replicas=replicas, most=most) as backend:
        run_app(order, build_app(replace(order, limits=limits), backend, names))


@contextmanager
def running(job: AnswerJob, *, replicas: int, most: int = 0) -> Iterator[Replicas]:
    """Replicas of a job, as a backend; ended afterwards. Arguments as for `serve_replicas`."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    quiet = LoggingConfig(log_level="ERROR", enable_access_log=False)
    with connect(dashboard=False) as session:
        serve.start(proxy_location=ProxyLocation.Disabled, logging_config=quiet)
        try:
            deployment = serve.deployment(
                ray_actor_options={"num_gpus": 1} if session.gpus else {"num_cpus": 1},
                max_ongoing_requests=PER_REPLICA,
                logging_config=quiet,
                autoscaling_config={
                    "min_replicas": replicas,
                    "initial_replicas": replicas,
                    "max_replicas": max(replicas, most),
                    "target_ongoing_requests": BATCH,
                },
            )(Replica)
            yield Replicas(serve.run(deployment.bind(job), name=NAME, route_prefix=None))
        finally:
            serve.shutdown()
