"""The network between clients and server: requests are delayed, lost on their way or on the way back, sent twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from loadtest.simulation.forms import Form


@dataclass(frozen=True)
class Request:
    """A request as a client sends it. number: names it in the run's trace.

    actions: what a batch asks for, each with its agent_id; form: how it is written.
    """

    number: int
    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    actions: tuple[dict[str, Any], ...] = ()
    form: Form = Form.OBJECTS


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The body as JSON."""
        document: dict[str, Any] = orjson.loads(self.body)
        return document


class Lost(Exception):
    """No answer within the client's patience: whether the request arrived is not known."""


@dataclass
class Conditions:
    """How bad the network is: shares of requests, seconds."""

    lost_on_the_way: float = 0.02
    lost_on_the_way_back: float = 0.03
    doubled: float = 0.05
    delay_s: float = 0.004
    slow: float = 0.02
    slow_delay_s: float = 2.0
    patience_s: float = 12.0


Handle = Callable[[Request], Awaitable[Answer]]


class Network:
    """Carries requests to whichever process serves now. A copy that is late may arrive at the next one."""

    def __init__(self, draw: random.Random, conditions: Conditions) -> None:
        self._draw = draw
        self._conditions = conditions
        self._handle: Handle | None = None
        self._late: list[tuple[float, Request]] = []
        """Copies that have not arrived, and when they do."""
        self._tasks: set[asyncio.Future[Answer]] = set()

    def open(self, loop: asyncio.AbstractEventLoop, handle: Handle) -> None:
        """Connect a new process, on its loop."""
        self._handle = handle
        self._tasks = set()
        for copy in self._late:
            loop.call_at(max(copy[0], loop.time()), self._deliver, copy)

    async def exchange(self, request: Request) -> Answer:
        """Send a request and return the answer. Raises Lost."""
        draw, conditions = self._draw, self._conditions
        if draw.random() < conditions.doubled:
            self._double(request)
        arrives = draw.random() >= conditions.lost_on_the_way
        returns = draw.random() >= conditions.lost_on_the_way_back
        try:
            async with asyncio.timeout(conditions.patience_s):
                await asyncio.sleep(self._delay())
                if not arrives:
                    await asyncio.Event().wait()
                # the server goes on with a request whose client has left
                answer = await asyncio.shield(self._serve(request))
                await asyncio.sleep(self._delay())
                if not returns:
                    await asyncio.Event().wait()
                return answer
        except TimeoutError:
            raise Lost from None

    def _double(self, request: Request) -> None:
        loop = asyncio.get_running_loop()
        copy = (loop.time() + self._draw.expovariate(1.0), request)
        self._late.append(copy)
        loop.call_at(copy[0], self._deliver, copy)

    def _deliver(self, copy: tuple[float, Request]) -> None:
        self._late.remove(copy)
        self._serve(copy[1])

    def _serve(self, request: Request) -> asyncio.Future[Answer]:
        assert self._handle is not None
        task = asyncio.ensure_future(self._handle(request))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Future[Answer]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception) and not isinstance(error, Lost):
            task.get_loop().call_exception_handler({"message": "a request failed", "exception": error})

    def _delay(self) -> float:
        conditions = self._conditions
        mean = conditions.slow_delay_s if self._draw.random() < conditions.slow else conditions.delay_s
        return self._draw.expovariate(1.0 / mean)
