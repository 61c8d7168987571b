"""Connections to the engine, kept open and used again; of every request it is known whether anything of it was sent.

    Unsent        not a byte was handed to the system: surely not applied
    Unanswered    something was, and no whole answer came back: it may or may not be applied

A connection that was used before may be closed by the engine at the very moment a request is written on it. Nobody
can tell then whether the engine has read it, so that is Unanswered: nothing is ever sent twice from here.
Source: DESIGN D10, R3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

import httptools

from server.metrics import Metrics

CONNECT_S: Final = 1.0
WAIT_S: Final = 1.0
"""Longest a request waits for a connection when all are in use."""
IDLE_S: Final = 2.0
"""A connection unused for longer is not used again: the engine closes its own after 5 s."""
WAITING_SHARE: Final = 4
"""Requests that may wait for a connection, for each there may be."""
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""The largest page of the history as Parquet has a few MB."""

Headers = Sequence[tuple[bytes, bytes]]


class Unsent(Exception):
    """Not a byte of the request was sent."""


class Unanswered(Exception):
    """The request was sent, or a part of it, and no whole answer came back."""


class Answer(NamedTuple):
    """What the engine answered, whole. headers: names in lower case."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Upstream:
    """A pool of connections to one address. limit_s: for the answer to a request, unless told otherwise."""

    def __init__(self, address: tuple[str, int], connections_max: int, metrics: Metrics, *, limit_s: float) -> None:
        self._address = address
        self._metrics = metrics
        self._limit_s = limit_s
        self._room = asyncio.Semaphore(connections_max)
        self._waiting = 0
        self._waiting_max = connections_max * WAITING_SHARE
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()

    async def exchange(
        self, method: bytes, target: bytes, headers: Headers, body: bytes = b"", limit_s: float | None = None
    ) -> Answer:
        """Send a request and return its answer. headers: without content-length. Raises Unsent, Unanswered."""
        await self._enter()
        try:
            connection = await self._connection()
            try:
                async with asyncio.timeout(self._limit_s if limit_s is None else limit_s):
                    answer = await connection.ask(_request(method, target, headers, body))
            except TimeoutError:
                raise Unanswered("no answer in time") from None
            finally:
                self._give_back(connection)
        finally:
            self._room.release()
        return answer

    def close(self) -> None:
        """Close every connection; requests under way are Unanswered."""
        for connection in list(self._open):
            connection.abort()

    async def _enter(self) -> None:
        if self._room.locked() and self._waiting >= self._waiting_max:
            raise Unsent("every connection to the engine is in use, and as many requests wait for one as may")
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await self._room.acquire()
        except TimeoutError:
            raise Unsent("every connection to the engine is in use") from None
        finally:
            self._waiting -= 1

    async def _connection(self) -> _Connection:
        now = asyncio.get_running_loop().time()
        while self._idle:
            kept = self._idle.pop()
            if kept.is_usable and now - kept.idle_since < IDLE_S:
                return kept
            kept.abort()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, made = await loop.create_connection(_Connection, *self._address)
        except (OSError, TimeoutError) as error:
            raise Unsent(f"no connection to the engine: {error or 'no answer in time'}") from None
        self._open.add(made)
        made.on_lost = self._lost
        self._metrics.gateway_connections.inc()
        return made

    def _give_back(self, connection: _Connection) -> None:
        if connection.is_usable:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.abort()

    def _lost(self, connection: _Connection) -> None:
        self._open.remove(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._metrics.gateway_connections.dec()


class _Connection(asyncio.Protocol):
    """One connection: a request at a time, its answer whole or not at all."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.on_lost = _nobody
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0
        self._is_over = False
        """Whether the engine closes after this answer, or said what it was not asked."""

    @property
    def is_usable(self) -> bool:
        """Whether a request may be written: connected, nothing closing, no answer outstanding."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and not self._is_over and self._answer is None

    async def ask(self, request: bytes) -> Answer:
        """Write a request and return its answer. Raises Unsent, Unanswered."""
        if not self.is_usable:
            raise Unsent("the connection was closed before it was used")
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._headers, self._body, self._size = [], [], 0
        self._answer = asyncio.get_running_loop().create_future()
        # from here on a part of it may be on its way, whatever happens
        self._transport.write(request)
        try:
            answer = await self._answer
        except BaseException:
            # whoever stops waiting leaves an answer behind that must not be taken for the next one's
            self._is_over = True
            raise
        finally:
            self._answer = None
        return answer

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    # what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer; what nobody asked for ends the connection."""
        self._size += len(data)
        if self._answer is None or self._answer.done() or self._size > ANSWER_BYTES_MAX:
            self._fail("the engine sent what it was not asked for, or too much")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the engine sent no HTTP: {error}")

    def eof_received(self) -> None:
        """Close as well: half a connection is of no use."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits for an answer will not get one. Nothing is left that leads back here: no collector looks."""
        self._is_over = True
        self._parser = cast(Any, None)
        self._headers, self._body = [], []
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unanswered(f"the connection was lost: {exc or 'closed by the engine'}"))
        self.on_lost(self)

    def _fail(self, reason: str) -> None:
        self._is_over = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unanswered(reason))
        self.abort()

    # what the parser calls

    def on_message_begin(self) -> None:
        """Take an answer only when one is awaited."""
        if self._answer is None or self._answer.done():
            self._fail("the engine sent two answers to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Hand the answer to whoever waits for it; an interim one (1xx) is passed over."""
        status = self._parser.get_status_code()
        if status < 200:
            self._headers, self._body = [], []
            return
        if self._answer is not None and not self._answer.done():
            self._is_over = not self._parser.should_keep_alive()
            self._answer.set_result(Answer(status, self._headers, b"".join(self._body)))


def _nobody(connection: _Connection) -> None:
    """Tell nobody."""


def _request(method: bytes, target: bytes, headers: Headers, body: bytes) -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", *(name + b": " + value for name, value in headers)]
    lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
