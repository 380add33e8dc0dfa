"""The HTTP side of the service: one FastAPI app, whoever does the work behind it.

    POST /studies            STOW-RS: films in (multipart/related or application/dicom), objects out (multipart/related)
    POST /segment            one film in (application/dicom), its segmentation out; ?object=report for the report
    GET  /health  /metrics   whether it runs, for anyone; Prometheus' metrics, for who has the token
    GET  /roi                the page on which a person accepts, redraws or rejects (clinic.serve.review)

Bodies stay in memory and are gone with the answer. Nothing of a film is logged.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clinic.predict.outputs import Output
from clinic.serve.answer import Answer
from clinic.serve.corrections import Corrections
from clinic.serve.dicomweb import DICOM, DICOM_JSON, WORDS, BodyError, answer_body, films_in, store_response
from clinic.serve.gate import Gate, Refused
from clinic.serve.metrics import Metrics
from clinic.serve.review import Decision, Review

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
OBJECTS: dict[str, Output] = {"seg": "seg", "report": "report", "presentation": "presentation"}


class Counted:
    """Counts answers by status and adds the headers that all have."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.count_request(message["status"])
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, counting if scope["type"] == "http" else send)


class Backend(Protocol):
    """Who answers: this process, or replicas."""

    async def answers(self, contents: Sequence[bytes], outputs: tuple[Output, ...]) -> list[Answer]:
        """One answer a film, in their order."""

    async def look(self, content: bytes) -> dict[str, Any]:
        """A film's picture and the model's outlines (`clinic.serve.review.look_json`)."""

    async def review(self, content: bytes, decision: Decision, outlines: list[Any]) -> Review:
        """What comes of a decision about a film."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the routes share."""

    gate: Gate
    metrics: Metrics
    backend: Backend
    model: str
    """The model's name, for `/health`."""
    corrections: Corrections | None = None
    """Where a person's masks are kept; None: nowhere."""


def make_app(service: Service, *routers: APIRouter) -> FastAPI:
    """The app of a service, with further routes."""
    app = FastAPI(title="MammoSearch", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = service
    app.add_middleware(Counted, metrics=service.metrics)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(BodyError, _no_body)
    for routes in (router, *routers):
        app.include_router(routes)
    return app


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service


router = APIRouter()


@router.get("/health")
async def health(request: Request) -> dict[str, str]:
    """Whether the service runs; for anyone."""
    return {"status": "ok", "model": service_of(request).model}


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus' metrics; for who has the token."""
    service = service_of(request)
    service.gate.check_token(request)
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.post("/studies")
async def store(request: Request) -> Response:
    """STOW-RS: films in, segmentations and reports out."""
    return stored(await answered(service_of(request), request, ("seg", "report")))


@router.post("/segment")
async def segment(request: Request, object: str = "seg") -> Response:
    """One film in, one object out."""
    if object not in OBJECTS:
        raise Refused(400, f"object={object[:20]!r} is none of {', '.join(OBJECTS)}")
    [answer, *more] = await answered(service_of(request), request, (OBJECTS[object],))
    if more:
        raise Refused(400, "send one film, or several to /studies")
    if answer.code:
        raise Refused(422, f"{answer.code}: {WORDS[answer.code]}")
    return Response(answer.objects[OBJECTS[object]], media_type=DICOM)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"detail": error.text}, error.status, error.headers)


async def _no_body(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 400)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def answered(service: Service, request: Request, outputs: tuple[Output, ...]) -> list[Answer]:
    """The answers to a request's films. Raises Refused and BodyError."""
    service.gate.check_token(request)
    async with service.gate.body(request) as body:
        began = time.perf_counter()
        films = films_in(body, request.headers.get("content-type", ""), most=service.gate.limits.max_films)
        async with service.gate.work():
            answers = await service.backend.answers(films, outputs)
        service.metrics.seconds.observe(time.perf_counter() - began)
    service.metrics.count_films(answers)
    return answers


def stored(answers: list[Answer]) -> Response:
    """The response of STOW-RS: 200 if all films were taken, 202 if some, 409 if none."""
    failed = sum(bool(answer.code) for answer in answers)
    if failed == len(answers):
        return Response(json.dumps(store_response(answers)), 409, media_type=DICOM_JSON)
    body, kind = answer_body(answers)
    return Response(body, 202 if failed else 200, media_type=kind)
