"""The operator of a run: pauses the world and lets it go on, steps it, sets parameters and lets events happen."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Protocol

import orjson

from engine.commands import EVENT_NAMES, RESOURCE_NAMES, Command, InjectEvent, Pause, Resume, SetParameter, Step
from loadtest.simulation.network import Answer, Request

PAUSE_S = 0.5
"""Mean time a world stands still before the operator does something about it: a life that stands tests little."""


class Served(Protocol):
    """A process that has an operator's surface."""

    @property
    def is_paused(self) -> bool:
        """Whether its world stands still."""

    async def operator_key(self, known: str | None) -> str | None:
        """Return the operator's key, the known one while it opens anything; None when the disk takes none."""

    async def operate(self, request: Request, command: Command) -> Answer:
        """Answer a request of the operator. command: what it asks for."""


class Operator:
    """One operator for all lives. pace_s: mean time between two commands while the world runs."""

    def __init__(self, draw: random.Random, pace_s: float) -> None:
        self._draw = draw
        self._pace_s = pace_s
        self._key: str | None = None

    async def live(self, process: Served) -> None:
        """Give a command now and then, for as long as the server lives or gives out a key."""
        while True:
            mean = min(self._pace_s, PAUSE_S) if process.is_paused else self._pace_s
            await asyncio.sleep(self._draw.expovariate(1.0 / mean))
            self._key = await process.operator_key(self._key)
            if self._key is None:
                return
            command = self._wish(process.is_paused)
            path, body = _asked(command)
            json = ((b"content-type", b"application/json"), (b"authorization", f"Bearer {self._key}".encode()))
            await process.operate(Request(0, "POST", path, json, orjson.dumps(body)), command)

    def _wish(self, is_paused: bool) -> Command:
        draw = self._draw
        kind = draw.random()
        if is_paused and kind < 0.7:
            return Resume() if kind < 0.5 else Step(draw.randint(1, 3))
        if not is_paused and kind < 0.3:
            return Pause()
        if kind < 0.85:
            if draw.random() < 0.5:
                return SetParameter("max_price_change", round(draw.uniform(0.02, 0.5), 3))
            return SetParameter("endowment_credits", draw.randint(100, 2_000))
        return InjectEvent(draw.choice(EVENT_NAMES), draw.choice(RESOURCE_NAMES), round(draw.uniform(0.01, 0.3), 3))


def _asked(command: Command) -> tuple[str, dict[str, Any]]:
    """Return where a command is asked for, and with which body."""
    match command:
        case SetParameter():
            return "/api/admin/parameters", command._asdict()
        case InjectEvent(name, resource, size, _):
            return "/api/admin/events", {"name": name, "resource": resource, "size": size}
        case Step():
            return "/api/admin/step", command._asdict()
        case Pause():
            return "/api/admin/pause", {}
        case Resume():
            return "/api/admin/resume", {}
