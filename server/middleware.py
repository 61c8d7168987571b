"""What every request passes on its way in and out: a name, a time, a tick, a count, a line in the log.

Plain ASGI callables. Envelope is the outer one; Gate keeps requests out while the world is being opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import keys
from server.clock import Clock
from server.errors import CODE_TEXT, MEDIA_TYPE, Code, Problem, Unavailable
from server.logs import DEBUG
from server.metrics import Metrics

EXCHANGE = "arena.exchange"
"""Where the Exchange of a request is found in its scope."""
_STARTS = {"http": "http.response.start", "websocket": "websocket.http.response.start"}
"""What an answer begins with: to a request, and to a handshake that is refused."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")

log = structlog.get_logger("arena.http")


@dataclass(slots=True)
class Exchange:
    """What is known of one request beside its bytes.

    tick: the published one. route: the path of its operation, with placeholders. headers: what the answer will carry
    besides its own. status: of the answer, 0 before it begins. is_stream: its time says nothing of how fast we are.
    """

    request_id: str
    tick: Callable[[], int | None]
    route: str = "unknown"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    status: int = 0
    is_stream: bool = False

    def completion(self) -> list[tuple[bytes, bytes]]:
        """Return the headers every answer carries: the request's name, the published tick, what was added."""
        tick = self.tick()
        ticks = [] if tick is None else [(b"arena-tick", str(tick).encode())]
        named = (b"x-request-id", self.request_id.encode())
        return [named, (b"x-content-type-options", b"nosniff"), *ticks, *self.headers]


class Envelope:
    """Gives each answer X-Request-Id and Arena-Tick, counts it and logs it. tick: the published one, None before."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, clock: Clock, tick: Callable[[], int | None]) -> None:
        self._app = app
        self._clock = clock
        self._tick = tick
        self._tally = Tally(metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request or handshake on and complete its answer."""
        if scope["type"] not in _STARTS:
            await self._app(scope, receive, send)
            return
        exchange = scope[EXCHANGE] = Exchange(_request_id(scope), self._tick)
        began = self._clock.monotonic()

        async def complete(message: Message) -> None:
            if message["type"] == _STARTS[scope["type"]]:
                exchange.status = message["status"]
                message["headers"] = [*message.get("headers", []), *exchange.completion()]
            await send(message)

        try:
            await self._app(scope, receive, complete)
        finally:
            # no status: the client went away before its answer, or we failed; the outermost layer answers 500
            if scope["type"] == "http" or exchange.status:
                # a handshake is a GET; one that was not refused is counted as a socket
                seconds = self._clock.monotonic() - began
                method, status = scope.get("method", "GET"), exchange.status or 500
                self._tally.add(
                    method, exchange.route, status, seconds, exchange.request_id, is_stream=exchange.is_stream
                )


class Tally:
    """Counts answered requests and logs them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        # bound once: finding the log's configuration takes longer than not writing a line, as does making one up
        self._log = log.bind()
        self._is_debug = self._log.is_enabled_for(DEBUG)

    def add(
        self, method: str, route: str, status: int, seconds: float, request_id: str, *, is_stream: bool = False
    ) -> None:
        """Count a request. route: the path of its operation; seconds: until it was answered; a stream's are no time."""
        # an invented method must not make a series of its own
        method = method if method in _METHODS else "other"
        self._metrics.http_requests.add(method, route, str(status))
        if not is_stream:
            self._metrics.http_seconds.add(route, seconds)
        # why everybody gets a 503 (opening, frozen, stopping) has a line of its own: not one more per request
        is_quiet = status < 400 or status == HTTPStatus.SERVICE_UNAVAILABLE
        if is_quiet and not self._is_debug:
            return
        write = self._log.debug if is_quiet else self._log.info if status < 500 else self._log.warning
        write("request", method=method, route=route, status=status, ms=round(seconds * 1_000, 3), request_id=request_id)


class Gate:
    """Keeps requests out while `shut` gives a reason: 503, but 200 on the paths that ask whether the process lives."""

    def __init__(self, app: ASGIApp, *, alive: frozenset[str], shut: Callable[[], Code | None]) -> None:
        self._app = app
        self._alive = alive
        self._shut = shut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        code = self._shut() if scope["type"] in ("http", "websocket") else None
        if code is None:
            await self._app(scope, receive, send)
            return
        problem = Unavailable(code, CODE_TEXT[code])
        if scope["type"] == "websocket":
            await _refuse_handshake(scope, receive, send, problem)
        elif scope["path"] in self._alive:
            await _answer(send, 200, [(b"content-type", b"application/json")], b'{"status":"ok"}')
        else:
            body = problem.document(scope["path"], scope[EXCHANGE].request_id)
            await _answer(send, problem.status, _problem_headers(problem), body)


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse_handshake(scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1013, "reason": problem.detail})
        return
    headers = _problem_headers(problem)
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    body = problem.document(scope["path"], scope[EXCHANGE].request_id)
    await send({"type": "websocket.http.response.body", "body": body})


def _problem_headers(problem: Problem) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"cache-control", b"no-store"),
        *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
    ]


def _request_id(scope: Scope) -> str:
    """Return the client's own name of the request when it is a decent one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given: str = value.decode("latin-1")
            return given if _REQUEST_ID.fullmatch(given) else keys.request_id()
    return keys.request_id()
