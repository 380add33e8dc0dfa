"""Services for tests: an app with a backend of one's choice, and a server that really listens."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from clinic.predict.outputs import Output
from clinic.serve.answer import Answer
from clinic.serve.app import Backend, Service, make_app
from clinic.serve.gate import Gate, ServiceLimits
from clinic.serve.metrics import Metrics

TOKEN = "a-token-for-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
DICOM = {**BEARER, "Content-Type": "application/dicom"}


class Echo:
    """A backend that answers each film with itself, or with a code if it begins with `bad:`; perhaps slowly."""

    def __init__(self, *, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s
        self.seen: list[bytes] = []
        self.most_at_once = 0
        self._now = 0

    async def answers(self, contents: Sequence[bytes], outputs: tuple[Output, ...]) -> list[Answer]:
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await asyncio.sleep(self.pause_s)
        self._now -= 1
        self.seen += contents
        return [self._answer(content, outputs) for content in contents]

    def _answer(self, content: bytes, outputs: tuple[Output, ...]) -> Answer:
        if content.startswith(b"bad:"):
            return Answer(code=content[4:].decode())
        return Answer(sop_class_uid="1.2.3", sop_uid="1.2.3.4", objects=dict.fromkeys(outputs, content), lesions=2)


def echo_app(backend: Backend, token: str | None = TOKEN, **limits: float) -> FastAPI:
    """An app over a backend."""
    gate = Gate(token, ServiceLimits(**limits))  # type: ignore[arg-type]
    return make_app(Service(gate=gate, metrics=Metrics(gate), backend=backend, model="echo"))


@contextmanager
def listening(app: FastAPI, *, port: int = 0) -> Iterator[str]:
    """The address of a server that runs the app in a thread; at a free port, or a certain one."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, args=([taken],), daemon=True)
        thread.start()
        until(lambda: server.started)
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)


def until(done: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def related(*films: bytes, kind: str = "application/dicom", boundary: str = "edge") -> tuple[bytes, dict[str, str]]:
    """A STOW-RS body of some films, and its headers."""
    parts = b"".join(f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + film + b"\r\n" for film in films)
    header = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return parts + f"--{boundary}--\r\n".encode(), {**BEARER, "Content-Type": header}
