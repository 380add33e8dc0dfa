"""A watch over Ray's own servers: work whose raylet or GCS died, or stands still, ends with a message.      [Ray]

    with connect(...), watched():
        ...

Ray waits for ever for a raylet that is gone, and 60 s for the GCS, after which it ends the process from C++.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import psutil
import ray

from cluster.cli import FAILED, BrokenOffError

LOG = logging.getLogger("mammosearch")
SILENT_S = 30.0
"""How long Ray's servers may say nothing before they count as lost; one whose process is gone is lost at once."""
LOOK_EVERY_S = 1.0
SLEPT_S = 10.0
"""A look that comes so late shows that this process stood still itself: the machine slept, or was stopped."""
GRACE_S = 30.0
"""How long the orderly end may take, in which Ray may wait for what is gone."""
SERVERS = ("raylet", "gcs_server")
SIGNAL = signal.SIGUSR2
STANDS_STILL = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
GONE = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


class _Lost(KeyboardInterrupt):
    """Takes the main thread out of what it waits for: Ray and Tune end for it as for Ctrl-C."""


@contextmanager
def watched(*, silent_s: float = SILENT_S) -> Iterator[None]:
    """Watch Ray while the body runs. Call it in the main thread, connected.

    Args:
        silent_s: how long Ray's servers may say nothing.

    Raises:
        BrokenOffError: they are lost.
    """
    watch = _Watch(silent_s)
    before = signal.signal(SIGNAL, _interrupt)
    watch.start()
    try:
        yield
    except BaseException as error:  # whatever failed, failed for want of them
        if watch.lost is not None:
            raise BrokenOffError(watch.lost) from error
        raise
    finally:
        watch.over.set()
        signal.signal(SIGNAL, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise _Lost


class _Watch:
    def __init__(self, silent_s: float) -> None:
        self.lost: str | None = None
        """Why Ray counts as lost."""
        self.over = threading.Event()
        self._silent_s = silent_s
        self._node = ray.get_runtime_context().get_node_id()
        self._servers = {p: p.name() for p in psutil.Process().children(recursive=True) if p.name() in SERVERS}
        """Those that this process started; none where it joined a cluster."""
        self._heard_at = time.monotonic()

    def start(self) -> None:
        for work in (self._listen, self._judge):
            threading.Thread(target=work, daemon=True, name="watch-ray").start()

    def _listen(self) -> None:
        """Ask who is alive; a server that is gone gives no answer, and this thread waits in Ray for it."""
        while not self.over.wait(LOOK_EVERY_S):
            try:
                alive = any(node["NodeID"] == self._node and node["Alive"] for node in ray.nodes())
            except Exception:  # of whatever kind: no answer
                alive = False
            if alive and not any(_status(server) in STANDS_STILL for server in self._servers):
                self._heard_at = time.monotonic()

    def _judge(self) -> None:
        looked_at = time.monotonic()
        while not self.over.wait(LOOK_EVERY_S):
            now = time.monotonic()
            if now - looked_at > SLEPT_S:
                self._heard_at = now
            looked_at = now
            gone = [name for server, name in self._servers.items() if _status(server) in GONE]
            if gone or now - self._heard_at > self._silent_s:
                self.lost = f"Ray's {gone[0]} is gone" if gone else f"Ray has not answered for {self._silent_s:.0f} s"
                self._end(self.lost)
                return

    def _end(self, reason: str) -> None:
        LOG.error("%s: the study ends here, and can be resumed", reason)
        signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)
        time.sleep(GRACE_S)
        print(f"{reason}; go on with --resume", file=sys.stderr, flush=True)
        os._exit(FAILED)


def _status(server: psutil.Process) -> str:
    try:
        return str(server.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_DEAD)
