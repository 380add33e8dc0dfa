"""Orthanc's Python plugin: when a series is stable, its mammograms are sent to the service and the answers stored.

The sender of a film does not wait. A service that is busy or away is asked again; its answers have the same UIDs each
time, so that nothing is stored twice.

Orthanc's configuration:   "Plugins": [".../libOrthancPython.so"], "PythonScript": "/path/of/segment.py"
Environment of Orthanc:    MAMMOSEARCH_URL         the service, e.g. http://127.0.0.1:8090
                           MAMMOSEARCH_TOKEN_FILE  the file with its token
                           MAMMOSEARCH_CA_FILE     certificate of a service with TLS that the system does not know

Needs nothing but Python's own library, for Orthanc has its own interpreter.
"""

import email.parser
import email.policy
import json
import os
import queue
import ssl
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import orthanc

ATTEMPTS = 8
"""Pauses of 1, 2, 4, ... s between them: two minutes in all."""
TIMEOUT_S = 120
WAITING: "queue.Queue[str]" = queue.Queue()
"""Instances to be asked about, by Orthanc's ids."""


def on_change(kind: int, level: int, resource: str) -> None:
    """Note the mammograms of a series that is stable; Orthanc waits for this function, so it does nothing else."""
    if kind != orthanc.ChangeType.STABLE_SERIES:
        return
    series = json.loads(orthanc.RestApiGet(f"/series/{resource}"))
    if series["MainDicomTags"].get("Modality") == "MG":
        for instance in series["Instances"]:
            WAITING.put(instance)


def work() -> None:
    """Ask about one instance after the other, for ever."""
    while True:
        instance = WAITING.get()
        try:
            for answer in objects_about(orthanc.GetDicomForInstance(instance)):
                orthanc.RestApiPost("/instances", answer)
        except Exception as error:  # one film must not end the others
            orthanc.LogError(f"MammoSearch gave nothing for instance {instance}: {type(error).__name__}: {error}")


def objects_about(film: bytes) -> "list[bytes]":
    """The service's objects about a film: its segmentation and its report."""
    token = Path(os.environ["MAMMOSEARCH_TOKEN_FILE"]).read_text().strip()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/dicom"}
    request = urllib.request.Request(f"{os.environ['MAMMOSEARCH_URL']}/studies", film, headers)
    kind, body = ask(request)
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
        b"Content-Type: " + kind + b"\r\n\r\n" + body
    )
    parts = [part for part in message.iter_parts() if part.get_content_type() == "application/dicom"]
    contents = [part.get_payload(decode=True) for part in parts]
    return [content for content in contents if isinstance(content, bytes)]


def ask(request: urllib.request.Request) -> "tuple[bytes, bytes]":
    """The answer's Content-Type and body; asked again while the service is busy or away."""
    context = ssl.create_default_context(cafile=os.environ.get("MAMMOSEARCH_CA_FILE"))
    for attempt in range(ATTEMPTS):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as response:
                return response.headers["Content-Type"].encode(), response.read()
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt + 1 == ATTEMPTS:
                raise
        except OSError:
            if attempt + 1 == ATTEMPTS:
                raise
        time.sleep(2**attempt)
    raise AssertionError("the last attempt returns or raises")


threading.Thread(target=work, daemon=True).start()
orthanc.RegisterOnChangeCallback(on_change)
