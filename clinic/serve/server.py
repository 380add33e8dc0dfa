"""Run the service: loopback and a token unless told otherwise."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI

from clinic.archive.identity import read_secret
from clinic.predict.outputs import Output
from clinic.private_file import read_private
from clinic.serve import pages
from clinic.serve.answer import Answer, Answerer, AnswerJob
from clinic.serve.app import Backend, Service, make_app
from clinic.serve.corrections import Corrections
from clinic.serve.gate import Gate, ServiceLimits
from clinic.serve.metrics import Metrics
from clinic.serve.review import Decision, Review

LOG = logging.getLogger(__name__)
T = TypeVar("T")
TOKEN_BYTES = 24
DRAIN_S = 30
"""In which requests under way are answered when the service is told to stop."""


@dataclass(frozen=True, kw_only=True)
class ServeOrder:
    """How a service is run."""

    job: AnswerJob
    host: str = "127.0.0.1"
    port: int = 8090
    token_file: Path | None = None
    """None: no token is asked for."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    plain_http: bool = False
    """Whether other machines may speak to it without TLS, e.g. a proxy that has it."""
    limits: ServiceLimits = field(default_factory=ServiceLimits)
    corrections: Path | None = None
    """Folder of a person's masks; None: they are kept nowhere."""
    secret_file: Path | None = None
    """Pseudonyms of films that are kept are made from its content."""


class Here:
    """Answers in this process, as many at a time as it has threads."""

    def __init__(self, answerer: Answerer, threads: int) -> None:
        self._answerer = answerer
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="film")

    async def answers(self, contents: Sequence[bytes], outputs: tuple[Output, ...]) -> list[Answer]:
        """One answer a film, in their order; films of one request are one batch."""
        return await self._run(self._answerer, contents, outputs)

    async def look(self, content: bytes) -> dict[str, Any]:
        """A film's picture and the model's outlines."""
        return await self._run(self._answerer.look, content)

    async def review(self, content: bytes, decision: Decision, outlines: list[Any]) -> Review:
        """What comes of a decision about a film."""
        return await self._run(self._answerer.review, content, decision, outlines)

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def check_order(order: ServeOrder) -> None:
    """Refuse what would lay a service open. Raises ValueError that says what to do."""
    if (order.tls_cert is None) != (order.tls_key is None):
        raise ValueError("TLS needs both --tls-cert and --tls-key")
    for file in (order.tls_cert, order.tls_key):
        if file is not None and not file.is_file():
            raise ValueError(f"TLS: there is no file {file}")
    if order.corrections is not None and order.secret_file is None:
        raise ValueError("--corrections needs --secret-file: films and patients are kept under pseudonyms made from it")
    if is_loopback(order.host):
        return
    if order.token_file is None:
        raise ValueError(f"host {order.host}: other machines reach it, so a token is needed; give --token-file")
    if order.tls_cert is None and not order.plain_http:
        raise ValueError(
            f"host {order.host}: other machines reach it, and films would travel in clear; give --tls-cert and "
            "--tls-key, or --plain-http behind a proxy that has TLS"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def build_app(order: ServeOrder, backend: Backend, model: str) -> FastAPI:
    """The app of an order, whose token is read or made."""
    token = None
    if order.token_file is not None:
        token = read_private(order.token_file, make=secrets.token_urlsafe(TOKEN_BYTES).encode()).decode().strip()
    gate = Gate(token, order.limits)
    kept = None
    if order.corrections is not None and order.secret_file is not None:
        kept = Corrections(order.corrections, read_secret(order.secret_file, make=True))
    service = Service(gate=gate, metrics=Metrics(gate), backend=backend, model=model, corrections=kept)
    return make_app(service, pages.router)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def serve(order: ServeOrder) -> None:
    """Run until told to stop; requests under way are answered first.

    Raises:
        ValueError: the model cannot serve, or the order would lay the service open.
        OSError: the port is taken.
    """
    check_order(order)
    answerer = order.job.open()
    app = build_app(order, Here(answerer, order.limits.at_once), answerer.maker.model)
    run_app(order, app)


def run_app(order: ServeOrder, app: FastAPI) -> None:
    """Listen, say where, and run. Raises OSError if the port is taken."""
    family = socket.AF_INET6 if ":" in order.host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((order.host, order.port))
        scheme = "http" if order.tls_cert is None else "https"
        host = f"[{order.host}]" if ":" in order.host else order.host
        print(f"{scheme}://{host}:{listening.getsockname()[1]}: POST /studies, POST /segment, GET /roi", flush=True)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=DRAIN_S,
            ssl_certfile=None if order.tls_cert is None else str(order.tls_cert),
            ssl_keyfile=None if order.tls_key is None else str(order.tls_key),
            server_header=False,
        )
        uvicorn.Server(config).run([listening])
