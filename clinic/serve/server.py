"""Run the service: loopback and a token unless told otherwise."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import secrets
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from clinic.predict.outputs import Output
from clinic.private_file import read_private
from clinic.serve.answer import Answer, Answerer, AnswerJob
from clinic.serve.app import Backend, Service, make_app
from clinic.serve.gate import Gate, ServiceLimits
from clinic.serve.metrics import Metrics

LOG = logging.getLogger(__name__)
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


class Here:
    """Answers in this process, as many at a time as it has threads."""

    def __init__(self, answerer: Answerer, threads: int) -> None:
        self._answerer = answerer
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="film")

    async def answers(self, contents: Sequence[bytes], outputs: tuple[Output, ...]) -> list[Answer]:
        """One answer a film, in their order; films of one request are one batch."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._answerer, contents, outputs)


def check_order(order: ServeOrder) -> None:
    """Refuse what would lay a service open. Raises ValueError that says what to do."""
    if (order.tls_cert is None) != (order.tls_key is None):
        raise ValueError("TLS needs both --tls-cert and --tls-key")
    for file in (order.tls_cert, order.tls_key):
        if file is not None and not file.is_file():
            raise ValueError(f"TLS: there is no file {file}")
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
    return make_app(Service(gate=gate, metrics=Metrics(gate), backend=backend, model=model))


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
