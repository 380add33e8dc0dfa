"""The routes of the page on which a person accepts, redraws or rejects what the model marked.

    GET  /roi              the page; its script and style lie below it
    POST /roi/look         a film in; its picture and the model's outlines out
    POST /roi/decide       a decision about a film in (multipart/related: JSON, then the film); its segmentation out

The page holds no film longer than it shows it, and neither does the service; what a person decides is kept where
`--corrections` says, and nowhere without it.
"""

from __future__ import annotations

import asyncio
import json
from importlib.resources import files
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from clinic.dicom.source import SourceError
from clinic.serve.app import Service, service_of
from clinic.serve.dicomweb import DICOM, WORDS, parts_in
from clinic.serve.gate import Refused
from clinic.serve.review import DECISIONS, Decision
from data_prep.schema import ReadError

PAGE = {
    "": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LARGEST_JSON = 4_000_000

router = APIRouter()
_keeping = asyncio.Lock()


@router.get("/roi")
@router.get("/roi/page.js")
@router.get("/roi/page.css")
async def page(request: Request) -> Response:
    """The page's files; for anyone, for they hold nothing."""
    name, kind = PAGE[request.url.path.removeprefix("/roi")]
    content = files("clinic.serve").joinpath("page", name).read_bytes()
    return Response(content, media_type=kind, headers={"Content-Security-Policy": POLICY})


@router.post("/roi/look")
async def look(request: Request) -> Response:
    """A film's picture and the model's outlines."""
    service = service_of(request)
    service.gate.check_token(request)
    async with service.gate.body(request) as film, service.gate.work():
        return JSONResponse(await _or_refused(service.backend.look(film)))


@router.post("/roi/decide")
async def decide(request: Request) -> Response:
    """Keep a decision, and answer with the segmentation that comes of it."""
    service = service_of(request)
    service.gate.check_token(request)
    async with service.gate.body(request) as body, service.gate.work():
        said, film = parts_in(body, request.headers.get("content-type", ""), most=2)
        decision, outlines = _decision(said)
        made = await _or_refused(service.backend.review(film, decision, outlines))
        name = await _keep(service, made, decision)
    headers = {"X-Film": name} if name else {}
    if made.segmentation is None:
        return JSONResponse({"kept": bool(name)}, headers=headers)
    return Response(made.segmentation, media_type=DICOM, headers=headers)


async def _keep(service: Service, made: Any, decision: Decision) -> str:
    if service.corrections is None:
        return ""
    async with _keeping:
        return await run_in_threadpool(service.corrections.keep, made, decision, service.model)


def _decision(said: bytes) -> tuple[Decision, list[Any]]:
    """What the page sends before the film. Raises Refused."""
    try:
        value = json.loads(said) if len(said) <= LARGEST_JSON else None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        value = None
    if not isinstance(value, dict) or value.get("decision") not in DECISIONS:
        raise Refused(400, f"the first part is no decision: {', '.join(DECISIONS)}, as JSON")
    outlines = value.get("outlines", [])
    if not isinstance(outlines, list):
        raise Refused(400, "outlines is no list")
    return cast(Decision, value["decision"]), outlines


async def _or_refused(result: Any) -> Any:
    """The result, or 422 with what is wrong with the film or the drawing."""
    try:
        return await result
    except ReadError as error:
        raise Refused(422, f"{error.code}: {WORDS[error.code]}") from error
    except SourceError as error:
        raise Refused(422, "no_identity: the header lacks what identifies a film") from error
    except (ValueError, TypeError) as error:
        raise Refused(422, str(error)[:200]) from error
