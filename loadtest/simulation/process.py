"""The server as one process of a run: all its parts over a virtual loop, its door for requests, its end."""

from __future__ import annotations

import asyncio
from array import array
from contextlib import suppress
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.middleware import Middleware

from engine.commands import Command
from engine.events import TickReport
from loadtest.simulation.loop import VirtualClock, VirtualLoop, VirtualWorkers
from loadtest.simulation.network import Answer, Lost, Request
from loadtest.simulation.witness import Witness
from server import keys
from server.app import GRACEFUL_S, Opening, build, operator_routes_of, routes_of
from server.config import Settings
from server.live.errors import JournalFailed, ReadOnly
from server.metrics import Metrics
from server.middleware import Envelope, Gate
from server.routes import EXCEPTION_HANDLERS

WARM_UP_TICKS = 26
"""A day and a little: enough for a market to have traded."""


class Process:
    """A server that has opened its world; requests come in by handle()."""

    def __init__(
        self, settings: Settings, loop: VirtualLoop, clock: VirtualClock, workers: VirtualWorkers, witness: Witness
    ) -> None:
        metrics = Metrics()
        self.arena, _, _ = build(settings, metrics, clock, WARM_UP_TICKS, workers)
        self.durable_seq = self.arena.world.journal.next_seq - 1
        """The last sequence that is surely on the disk; raised by whoever watches the disk."""
        self._opening = Opening()
        self._opening.arena = self.arena
        self._witness = witness
        witness.first_tick = self.arena.world.start_tick + 1
        self._is_listening = True
        self._in_flight = 0
        self._answered = asyncio.Event()
        middleware = [
            Middleware(Envelope, metrics=metrics, clock=clock, tick=self._opening.tick),
            Middleware(Gate, alive=frozenset(), shut=self._opening.refusal),
        ]
        public, operators = routes_of(self.arena), operator_routes_of(self.arena)
        self._app = Starlette(middleware=middleware, exception_handlers=EXCEPTION_HANDLERS, routes=public)
        self._operators = Starlette(middleware=middleware, exception_handlers=EXCEPTION_HANDLERS, routes=operators)

    async def run(self) -> None:
        """Tick and publish until drained."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.arena.ticker.run())
            tasks.create_task(self.arena.hub.run())

    async def watch(self) -> None:
        """Witness every tick as a subscriber would."""
        ticker = self.arena.ticker
        while True:
            await ticker.wait_tick(ticker.published_tick + 1)
            assert ticker.view is not None
            self._witness.published(ticker.view.tick, digest(ticker.view.report))

    async def drain(self) -> bool:
        """Do what SIGTERM does; return whether everything in flight was answered."""
        self._is_listening = False
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACEFUL_S):
                while self._in_flight:
                    await self._answered.wait()
                    self._answered.clear()
        is_answered = not self._in_flight
        self._opening.is_stopping = True
        await self.arena.hub.close()
        self.arena.ticker.stop()
        return is_answered

    async def handle(self, request: Request) -> Answer:
        """Answer a request, before witnesses. Raises Lost when nobody listens any more."""
        if not self._is_listening:
            raise Lost
        intents = self._witness.sent(request)
        self._in_flight += 1
        try:
            answer = await self.ask(request)
        finally:
            self._in_flight -= 1
            self._answered.set()
        self._witness.answered(request, intents, answer, self.durable_seq)
        return answer

    @property
    def is_paused(self) -> bool:
        """Whether its world stands still."""
        return self.arena.ticker.is_paused

    async def operator_key(self, known: str | None) -> str | None:
        """Return the operator's key, the known one while it opens anything; None when the disk takes none."""
        recorder = self.arena.recorder
        if known is not None and recorder.registry.is_operator(keys.digest(known)):
            return known
        key = keys.mint()
        try:
            await recorder.durable(recorder.issue_operator_key(keys.digest(key)))
        except (ReadOnly, JournalFailed):
            return None
        return key

    async def operate(self, request: Request, command: Command) -> Answer:
        """Answer a request of the operator, before witnesses. command: what it asks for."""
        answer = await self._ask(self._operators, request)
        self._witness.commanded(command, answer, self.durable_seq)
        return answer

    async def ask(self, request: Request) -> Answer:
        """Answer a request without witnesses."""
        return await self._ask(self._app, request)

    async def _ask(self, app: Starlette, request: Request) -> Answer:
        path, _, query = request.path.partition("?")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"arena"), *request.headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        status, body = 0, b""
        incoming = [{"type": "http.request", "body": request.body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return incoming.pop(0) if incoming else await asyncio.Event().wait()  # type: ignore[return-value]  # never

        async def send(message: Any) -> None:
            nonlocal status, body
            status = message.get("status", status)
            body += message.get("body", b"")

        await app(scope, receive, send)
        return Answer(status, body)


def digest(report: TickReport) -> bytes:
    """Return 16 bytes over everything that was told of a tick, to the last bit."""
    public = report.public
    told = blake2b(repr((report.tick, report.events)).encode(), digest_size=16)
    # the arrays themselves: rounded and written out as frames have them they took a fifth of a recovery
    for arrays in (public.market, public.resource):
        for values in arrays.values():
            told.update(values.tobytes())
    for numbers in (public.psychology, public.monetary, public.indicators):
        told.update(array("d", numbers.values()).tobytes())
    told.update(report.outcomes.tobytes())
    told.update(report.updates.tobytes())
    return told.digest()
