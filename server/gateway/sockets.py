"""Tells the engine what connections this gateway holds, and learns what is held in all: each limit holds for all."""

from __future__ import annotations

from typing import Any, Final

from server import keys
from server.clock import Clock
from server.gateway.upstream import Headers, Unanswered, Unsent, Upstream
from server.live import relay
from server.live.elsewhere import REPORT_S
from server.live.hub import Hub
from server.routes.gateway import SOCKETS

LIMIT_S: Final = 1.0
HOLDERS_MAX: Final = 2_000
"""Holders told of in one report, a millisecond's work for either side; the others follow at once."""


class Sockets:
    """Reports until cancelled. While the engine is away what it said last holds."""

    def __init__(self, hub: Hub, upstream: Upstream, headers: Headers, clock: Clock) -> None:
        self._hub = hub
        self._upstream = upstream
        self._headers = headers
        self._clock = clock
        self._instance = keys.instance()
        self._elsewhere = 0
        self._serial: int | None = None
        """Of the next report; None while the engine does not know whose the connections are."""
        self._full_version: int | None = None
        self._changed: set[bytes] = set()
        hub.caps.changed = self._changed
        hub.elsewhere = lambda: self._elsewhere

    async def run(self) -> None:
        """Report twice a second, and go on at once while there is more to tell than goes into one report."""
        while True:
            if not await self._report():
                await self._clock.sleep_until(self._clock.monotonic() + REPORT_S)

    async def _report(self) -> bool:
        """Send a report; return whether another one should follow at once."""
        before, told_of = self._serial, self._next()
        question = {
            "instance": self._instance,
            "sockets": self._hub.connected,
            "serial": before,
            "holders": told_of,
            "full": self._full_version,
        }
        try:
            answer = await self._upstream.exchange(
                b"POST", SOCKETS.encode(), self._headers, relay.pack(question), LIMIT_S
            )
        except (Unsent, Unanswered):
            self._begin_anew()
            return False
        if answer.status != 200:
            self._begin_anew()
            return False
        told = relay.unpack(answer.body)
        if "serial" not in told:
            # an engine of another release: of that the feed speaks
            return False
        self._take(told)
        if told["serial"] is None:
            self._begin_anew()
            return before is not None
        self._serial = told["serial"]
        if before is None:
            self._changed.update(self._hub.caps.holders())
        return bool(self._changed) and (before is None or len(told_of) == HOLDERS_MAX)

    def _next(self) -> dict[bytes, int]:
        """Return what to tell of those whose count has changed, and take them off the list."""
        if self._serial is None:
            return {}
        count = min(HOLDERS_MAX, len(self._changed))
        return {holder: self._hub.caps.here(holder) for holder in (self._changed.pop() for _ in range(count))}

    def _begin_anew(self) -> None:
        """Have everything told once more: it is not known what the engine has."""
        self._serial = self._full_version = None
        self._changed.clear()

    def _take(self, told: dict[str, Any]) -> None:
        self._elsewhere = told["elsewhere"]
        self._hub.sockets_max_in_all = told["max"]
        self._hub.caps.most_in_all = told["max_of_one"]
        if told["full"] is not None:
            self._hub.caps.set_elsewhere(told["full"])
        self._full_version = told["full_version"]
