"""A client's request handed on to the engine, and what is told when no answer comes back.

An input (anything but a read) is sent at most once: 503 only when nothing of it was sent, 504 when it may have been
applied, 2xx only as the engine said it, whole. A read changes nothing: one whose connection broke is asked again.
Source: DESIGN D10, R3; docs/gateways.md.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from server import bodies
from server.errors import Code, Problem, Unavailable
from server.gateway.upstream import Answer, Headers, Unanswered, Unsent, Upstream
from server.metrics import Metrics
from server.middleware import EXCHANGE, Exchange
from server.registry import Operation
from server.routes.gateway import CLIENT_HEADER, SECRET_HEADER

RETRY_S: Final = 1
#: Headers that belong to one connection, or that are made anew here.
_OF_THE_WAY: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te"}
    | {b"trailer", b"transfer-encoding", b"upgrade", b"content-length", b"expect", b"x-request-id"}
    | {SECRET_HEADER, CLIENT_HEADER}
)
#: What the envelope of this process adds to an answer.
_OURS: Final = _OF_THE_WAY | {b"arena-tick", b"x-content-type-options", b"date", b"server"}


class Forwarder:
    """Hands requests on. secret: shown to the engine, so that it believes where the client is."""

    def __init__(self, upstream: Upstream, secret: str, metrics: Metrics) -> None:
        self._upstream = upstream
        self._secret = secret.encode("latin-1")
        self._metrics = metrics

    async def forward(self, request: Request, operation: Operation) -> Response:
        """Return the engine's answer to a client's request. Raises Problem 503 or 504 when there is none."""
        media = bodies.media_of(request.headers.get("content-type"))
        body = await bodies.read(request, operation.body_limit(media))
        return self.respond(request, await self.ask(request, body))

    async def ask(self, request: Request, body: bytes = b"") -> Answer:
        """Send a client's request and return the answer as it came. Raises Problem 503 or 504."""
        scope = request.scope
        is_read = scope["method"] in ("GET", "HEAD")
        # the server leaves the body of an answer to HEAD out
        method = b"GET" if is_read else scope["method"].encode("ascii")
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        return await self.send(method, target, self._headers(request), body, is_read=is_read)

    async def send(self, method: bytes, target: bytes, headers: Headers, body: bytes, *, is_read: bool) -> Answer:
        """Send a request and return the answer. Raises Problem 503 or 504."""
        try:
            with self._metrics.gateway_forward_seconds.time():
                answer = await self._send(method, target, headers, body, is_read=is_read)
        except Unsent as error:
            self._metrics.gateway_forwarded.labels("unsent").inc()
            raise engine_away(str(error)) from None
        except Unanswered as error:
            self._metrics.gateway_forwarded.labels("unknown").inc()
            if is_read:
                raise engine_away(str(error)) from None
            raise unknown_fate(str(error)) from None
        self._metrics.gateway_forwarded.labels("answered").inc()
        return answer

    async def _send(self, method: bytes, target: bytes, headers: Headers, body: bytes, *, is_read: bool) -> Answer:
        try:
            return await self._upstream.exchange(method, target, headers, body)
        except Unanswered:
            if not is_read:
                raise
        return await self._upstream.exchange(method, target, headers, body)

    def respond(self, request: Request, answer: Answer) -> Response:
        """Return an answer of the engine as ours. Its tick is the one that is named."""
        exchange: Exchange = request.scope[EXCHANGE]
        tick = next((value for name, value in answer.headers if name == b"arena-tick"), b"")
        if tick.isdigit():
            exchange.tick = lambda: int(tick)
        response = Response(answer.body, answer.status)
        kept = [item for item in answer.headers if item[0] not in _OURS]
        length = [item for item in response.raw_headers if item[0] == b"content-length"]
        response.raw_headers = kept + length
        return response

    def _headers(self, request: Request) -> list[tuple[bytes, bytes]]:
        exchange: Exchange = request.scope[EXCHANGE]
        kept = [item for item in request.scope["headers"] if item[0] not in _OF_THE_WAY]
        return [*kept, *self.own_headers(request.scope.get("client")), (b"x-request-id", exchange.request_id.encode())]

    def own_headers(self, client: tuple[str, int] | None) -> list[tuple[bytes, bytes]]:
        """Return what the engine believes us by, and where the client is."""
        address = [] if client is None else [(CLIENT_HEADER, client[0].encode("latin-1"))]
        return [(SECRET_HEADER, self._secret), *address]


def engine_away(reason: str) -> Problem:
    """Return the answer when the engine was not asked, or a read got no answer."""
    return Unavailable(Code.ENGINE_AWAY, f"{reason}: surely nothing was changed", retry_after=RETRY_S)


def unknown_fate(reason: str) -> Problem:
    """Return the answer when an input was sent, or a part of it, and no whole answer came back."""
    detail = f"{reason}: it may or may not be applied; ask for the receipt, or send it again under the same id"
    return Problem(Code.UNKNOWN_FATE, detail, status=504)
