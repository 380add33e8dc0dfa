"""Bodies of DICOMweb: multipart/related taken apart in memory, and answers put together (PS3.18, 10.5 and 8.6).

Names that a sender gives (file names, locations) are not looked at: nothing is written to a disk.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from email.message import Message
from typing import Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from clinic.serve.answer import FAILED, NO_IDENTITY, Answer
from data_prep.schema import REASONS

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
RELATED = "multipart/related"
WORDS = {
    **REASONS,
    NO_IDENTITY: "the header lacks what identifies a film",
    FAILED: "no object could be made about the film",
}
"""Code of an answer -> a sentence without anything of the film."""
FAILURE_REASONS = {"absurd_size": 0xA700, "wrong_depth": 0xA900, "no_breast": 0xA900, FAILED: 0x0110}
"""Failure Reason (0008,1197) by code (PS3.18, table I.2-2); all others: cannot understand."""
CANNOT_UNDERSTAND = 0xC000


class BodyError(ValueError):
    """A body that is not what its header says."""


def content_type(header: str) -> tuple[str, dict[str, str]]:
    """A Content-Type's media type in lower case, and its parameters."""
    message = Message()
    message["Content-Type"] = header
    parameters = {name.lower(): value for name, value in message.get_params(failobj=[])[1:]}
    return message.get_content_type().lower(), parameters


def films_in(body: bytes, header: str, *, most: int) -> list[bytes]:
    """The films of a body: of one film, or of several in multipart/related.

    Args:
        body: of the request.
        header: its Content-Type.
        most: films that are taken.

    Raises:
        BodyError: the body is empty, of another type, broken, or holds more films.
    """
    kind, _ = content_type(header)
    if kind not in (DICOM, RELATED):
        raise BodyError(f"send {DICOM}, or {RELATED} of it; {kind} is neither")
    films = parts_in(body, header, most=most) if kind == RELATED else [body] if body else []
    if not films:
        raise BodyError("the body holds no film")
    return films


def parts_in(body: bytes, header: str, *, most: int) -> list[bytes]:
    """The contents of a multipart/related body's parts. Raises BodyError as `films_in`."""
    kind, parameters = content_type(header)
    boundary = parameters.get("boundary", "")
    if kind != RELATED or not boundary:
        raise BodyError(f"{RELATED} without a boundary" if kind == RELATED else f"{kind} is not {RELATED}")
    return _parts(body, boundary, most)


def _parts(body: bytes, boundary: str, most: int) -> list[bytes]:
    parts: list[list[bytes]] = []

    def begin() -> None:
        if len(parts) == most:
            raise BodyError(f"the body holds more than {most} parts; send them in several requests")
        parts.append([])

    def data(content: bytes, start: int, end: int) -> None:
        parts[-1].append(content[start:end])

    parser = MultipartParser(boundary, {"on_part_begin": begin, "on_part_data": data})
    try:
        parser.write(body)
        parser.finalize()
    except MultipartParseError as error:
        raise BodyError("the multipart body is broken") from error
    if parts and not body.rstrip().endswith(f"--{boundary}--".encode()):
        raise BodyError("the multipart body has no end")
    return [b"".join(part) for part in parts if part]


def store_response(answers: Sequence[Answer]) -> dict[str, Any]:
    """The Store Instances Response: what was taken, and what was not with the reason (PS3.18, 10.5.3)."""
    response: dict[str, Any] = {}
    taken = [_reference(answer) for answer in answers if not answer.code]
    failed = [_failure(answer) for answer in answers if answer.code]
    if taken:
        response["00081199"] = {"vr": "SQ", "Value": taken}
    if failed:
        response["00081198"] = {"vr": "SQ", "Value": failed}
    return response


def answer_body(answers: Sequence[Answer]) -> tuple[bytes, str]:
    """The response as multipart/related: its JSON first, then the objects; and its Content-Type."""
    boundary = secrets.token_hex(16)
    parts = [(DICOM_JSON, json.dumps(store_response(answers)).encode())]
    parts += [(DICOM, content) for answer in answers for content in answer.objects.values()]
    lines = [f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + content + b"\r\n" for kind, content in parts]
    body = b"".join([*lines, f"--{boundary}--\r\n".encode()])
    return body, f'multipart/related; type="{DICOM_JSON}"; boundary={boundary}'


def _reference(answer: Answer) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [answer.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [answer.sop_uid]},
    }


def _failure(answer: Answer) -> dict[str, Any]:
    reason = FAILURE_REASONS.get(answer.code, CANNOT_UNDERSTAND)
    said = {
        "00081197": {"vr": "US", "Value": [reason]},
        "00000902": {"vr": "LO", "Value": [answer.code]},
    }
    return {**(_reference(answer) if answer.sop_uid else {}), **said}
