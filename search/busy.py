"""How busy a study's slots were, and what the rest of their time waited for: `slots.json`."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

from cluster.storage import Folder
from search.engine import Engine
from search.events import Event
from search.folder import SAVE_EVERY_S

LOG = logging.getLogger("mammosearch")
SLOTS = "slots.json"
FINALS = "finals: fewer of them than slots"
LAST = "the last trials of the search: nothing new may begin, and no final is certain yet"
LAG = "what a repeatable decision must know"
NEXT = "the start of the next trial"


class Busy:
    """Counts the time of slots in this session and those before. It is a listener.

    Args:
        folder: the study's folder.
        engine: who knows what runs.
        clock: tells seconds.
    """

    def __init__(self, folder: Folder, engine: Engine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._engine, self._clock = folder, engine, clock
        self.busy_s, idle_s = _before(folder)
        """Seconds of all slots together."""
        self.idle_s = idle_s
        """The same by what a slot waited for."""
        self._slots = sum(engine.slots.values())
        self._busy, self._at_s = 0, float(clock())
        self._saved_at_s = self._at_s

    def __call__(self, event: Event) -> None:
        """Count the time since the event before."""
        self._count()
        self._busy = self._busy_slots()
        if self._at_s - self._saved_at_s > SAVE_EVERY_S:
            self.save()

    @property
    def share(self) -> float:
        """Of slot time that was busy so far; 0 before there is any."""
        total_s = self.busy_s + sum(self.idle_s.values())
        return self.busy_s / total_s if total_s else 0.0

    def save(self) -> None:
        """Write `slots.json`."""
        self._count()
        self._saved_at_s = self._at_s
        idle_s = {reason: round(seconds, 1) for reason, seconds in _largest_first(self.idle_s)}
        found = {"slots": self._engine.slots, "busy_s": round(self.busy_s, 1), "idle_s": idle_s}
        self._folder.write_json(SLOTS, {**found, "busy_share": round(self.share, 4)})

    def told(self) -> str:
        """In words: the share, and what the rest waited for."""
        rest = ", ".join(f"{s:.0f} s for {reason}" for reason, s in _largest_first(self.idle_s) if s >= 1)
        return f"slots were busy {self.share:.0%} of the time" + (f"; the rest waited {rest}" if rest else "")

    def _count(self) -> None:
        now_s = self._clock()
        took_s, self._at_s = now_s - self._at_s, now_s
        self.busy_s += self._busy * took_s
        if idle := self._slots - self._busy:
            reason = self._reason()
            self.idle_s[reason] = self.idle_s.get(reason, 0.0) + idle * took_s

    def _busy_slots(self) -> int:
        """Slots that have a trial; one that waits for a slot of its pool has none."""
        on_pool = Counter(order.pool.name for order in self._engine.running.values())
        if len(self._engine.slots) == 1:
            return min(on_pool.total(), self._slots)
        return sum(min(on_pool[pool], slots) for pool, slots in self._engine.slots.items())

    def _reason(self) -> str:
        decisions = self._engine.decisions
        if self._engine.stop_reason is not None:
            return FINALS
        if decisions.no_more_begin:
            return LAST
        return NEXT if decisions.lag is None else LAG


def _largest_first(idle_s: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(idle_s.items(), key=lambda item: -item[1])


def _before(folder: Folder) -> tuple[float, dict[str, float]]:
    """Busy and idle seconds of earlier sessions; none, and a line that says so, where the file cannot be read."""
    if not folder.exists(SLOTS):
        return 0.0, {}
    try:
        found = folder.read_json(SLOTS)
        return float(found["busy_s"]), {str(reason): float(seconds) for reason, seconds in found["idle_s"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        LOG.warning("%s/%s cannot be read (%r): the slots' time is counted from 0", folder, SLOTS, error)
        return 0.0, {}
