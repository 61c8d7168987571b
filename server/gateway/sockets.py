"""Tells the engine how many connections this gateway holds, and learns how many there are in all: one limit for all."""

from __future__ import annotations

from typing import Final

from server import keys
from server.clock import Clock
from server.gateway.upstream import Headers, Unanswered, Unsent, Upstream
from server.live import relay
from server.live.elsewhere import REPORT_S
from server.live.hub import Hub
from server.routes.gateway import SOCKETS

LIMIT_S: Final = 1.0


class Sockets:
    """Reports until cancelled. While the engine is away what it said last holds."""

    def __init__(self, hub: Hub, upstream: Upstream, headers: Headers, clock: Clock) -> None:
        self._hub = hub
        self._upstream = upstream
        self._headers = headers
        self._clock = clock
        self._instance = keys.instance()
        self._elsewhere = 0
        hub.elsewhere = lambda: self._elsewhere

    async def run(self) -> None:
        """Report twice a second."""
        while True:
            await self._report()
            await self._clock.sleep_until(self._clock.monotonic() + REPORT_S)

    async def _report(self) -> None:
        question = relay.pack({"instance": self._instance, "sockets": len(self._hub.subscribers)})
        try:
            answer = await self._upstream.exchange(b"POST", SOCKETS.encode(), self._headers, question, LIMIT_S)
        except (Unsent, Unanswered):
            return
        if answer.status == 200:
            told = relay.unpack(answer.body)
            self._elsewhere = told["elsewhere"]
            self._hub.sockets_max_in_all = told["max"]
