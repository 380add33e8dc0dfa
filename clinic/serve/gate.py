"""Who comes in, and how much at a time: token, sizes, open requests, memory, patience."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request

RETRY_AFTER_S = 2


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text

    @property
    def headers(self) -> dict[str, str]:
        """What a client should know besides. The connection ends: of a body that is refused no more is received."""
        more = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": str(RETRY_AFTER_S)}}
        return {"Connection": "close", **more.get(self.status, {})}


@dataclass(frozen=True, kw_only=True)
class ServiceLimits:
    """What a service takes."""

    max_body_mb: float = 64.0
    """Of one request, in MB (1e6 bytes)."""
    max_films: int = 16
    """In one request."""
    at_once: int = 1
    """Requests that are worked on at the same time."""
    max_waiting: int = 16
    """Requests beyond those, sent or still being received; further ones are refused, to come again."""
    max_memory_mb: float = 512.0
    """Of all bodies together."""
    receive_s: float = 60.0
    """In which a body must have arrived."""


class Gate:
    """Admission to the service, by one event loop."""

    def __init__(self, token: str | None, limits: ServiceLimits) -> None:
        self._token = None if token is None else token.encode()
        self.limits = limits
        self.open_requests = 0
        self.body_bytes = 0
        """Of all requests that are open."""
        self._work = asyncio.Semaphore(limits.at_once)

    def check_token(self, request: Request) -> None:
        """Refuse who has no token. Raises Refused."""
        if self._token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token):
            raise Refused(401, "a bearer token is needed")

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """A request's body, counted as long as the request is open.

        Raises:
            Refused: too many requests or bytes are open, the body is too large, encoded, or does not arrive.
        """
        limits = self.limits
        if self.open_requests >= limits.at_once + limits.max_waiting:
            raise Refused(503, "too many requests are open; come again")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(415, "an encoded body is not read; send it as it is")
        most = int(limits.max_body_mb * 1e6)
        if _length(request) > most:
            raise Refused(413, f"a request of more than {limits.max_body_mb:g} MB is not read")
        taken = [0]
        self.open_requests += 1
        try:
            yield await self._receive(request, most, taken)
        finally:
            self.open_requests -= 1
            self.body_bytes -= taken[0]

    @asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """A place among the requests that are worked on; waits for one."""
        async with self._work:
            yield

    async def _receive(self, request: Request, most: int, taken: list[int]) -> bytes:
        parts = []
        try:
            async with asyncio.timeout(self.limits.receive_s):
                async for chunk in request.stream():
                    taken[0] += len(chunk)
                    self.body_bytes += len(chunk)
                    if taken[0] > most:
                        raise Refused(413, f"a request of more than {self.limits.max_body_mb:g} MB is not read")
                    if self.body_bytes > self.limits.max_memory_mb * 1e6:
                        raise Refused(503, "the bodies of open requests fill the memory; come again")
                    parts.append(chunk)
        except TimeoutError:
            raise Refused(408, f"the body did not arrive within {self.limits.receive_s:g} s") from None
        return b"".join(parts)


def _length(request: Request) -> int:
    text = request.headers.get("content-length", "0")
    return int(text) if text.isdigit() else 0
