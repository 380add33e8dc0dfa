"""The mailbox between a slot and its workers: a module of its own, so that its process need not import torch."""

from __future__ import annotations

import asyncio
from typing import Any


class Mailbox:
    """Commands to the ranks of one worker group, and their answers, by index. Runs as an asynchronous Ray actor."""

    def __init__(self) -> None:
        self._commands: list[tuple[str, Any]] = []
        self._answers: dict[int, dict[int, Any]] = {}
        self._changed = asyncio.Condition()

    async def post(self, kind: str, payload: Any) -> int:
        """Add a command; returns its index."""
        async with self._changed:
            self._commands.append((kind, payload))
            self._changed.notify_all()
            return len(self._commands) - 1

    async def next(self, index: int) -> tuple[str, Any]:
        """The command of this index, once it is there."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._commands) > index)
            return self._commands[index]

    async def answer(self, index: int, rank: int, value: Any) -> None:
        """What `rank` answers to the command."""
        async with self._changed:
            self._answers.setdefault(index, {})[rank] = value
            self._changed.notify_all()

    async def answers(self, index: int, workers: int, timeout_s: float) -> dict[int, Any]:
        """The answers to a command by rank: all `workers` of them, or those that came within `timeout_s`."""
        async with self._changed:
            try:
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: len(self._answers.get(index, {})) >= workers), timeout_s
                )
            except TimeoutError:
                return dict(self._answers.get(index, {}))
            return self._answers.pop(index)
