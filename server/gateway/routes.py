"""The HTTP interface of a gateway: every path of the registry, answered here, from what is kept, or by the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server import keys
from server.errors import Code, Unauthorized
from server.gateway.feed import Feed
from server.gateway.forward import Forwarder, engine_away
from server.gateway.owners import Owners
from server.gateway.reads import Reads, kept_path
from server.live.admission import Caller, api_key
from server.live.hub import Hub
from server.live.subscriber import Refusal
from server.metrics import Metrics
from server.registry import OPERATIONS, Operation
from server.routes import Call, Resource, call_of, json_response, sse
from server.schemas import Query

_NO_STORE = {"Cache-Control": "no-store"}
Endpoint = Callable[[Request], Awaitable[Response]]


def routes(feed: Feed, reads: Reads, forwarder: Forwarder, hub: Hub, owners: Owners, metrics: Metrics) -> list[Route]:
    """Return a route for every path of the registry but the operator's, which is served beside the engine alone."""
    resources: dict[str, dict[str, Endpoint]] = {}
    for operation in (one for one in OPERATIONS if not one.is_operators):
        if operation.name == "stream":
            endpoint = _stream(operation, hub, owners)
        else:
            endpoint = _endpoint(operation, feed, reads, forwarder, metrics)
        resources.setdefault(operation.path, {})[operation.method] = endpoint
    return [Route(path, Resource(path, endpoints)) for path, endpoints in resources.items()]


def _stream(operation: Operation, hub: Hub, owners: Owners) -> Endpoint:
    stream = sse.handlers(hub)[operation.name]

    async def endpoint(request: Request) -> Response:
        key = api_key(request.headers)
        try:
            # whom the stream will speak for is asked first: it cannot wait for it
            if key is not None and await owners.authenticate(keys.digest(key)) is None:
                raise Unauthorized(Code.KEY_UNKNOWN, "the API key is not one of ours, or it was revoked")
        except Refusal as refusal:
            raise engine_away(str(refusal)) from None
        return await stream(call_of(request, operation, Caller(None, None)))

    return endpoint


def _endpoint(operation: Operation, feed: Feed, reads: Reads, forwarder: Forwarder, metrics: Metrics) -> Endpoint:
    async def alive(request: Request) -> Response:
        return json_response(b'{"status":"ok"}', headers=_NO_STORE)

    async def ready(request: Request) -> Response:
        # sockets stay and reads are answered while the engine is away: the gateway is still worth its traffic
        state = "stale" if feed.is_away else "ready"
        return json_response(orjson.dumps({"status": state}), headers=_NO_STORE)

    async def metrics_page(request: Request) -> Response:
        body, media = await metrics.expose(request.headers.get("accept"))
        return Response(body, 200, _NO_STORE, media)

    async def read(request: Request) -> Response:
        has_key = "authorization" in request.headers or "x-api-key" in request.headers
        path = kept_path(operation, request)
        if path is None or (has_key and not feed.is_away):
            return await forwarder.forward(request, operation)
        call = Call(request, operation, Caller(None, None), Query(), {})
        return await reads.answer(call, path)

    async def forward(request: Request) -> Response:
        return await forwarder.forward(request, operation)

    if operation.starting:
        return alive
    if operation.name in ("readyz", "ready"):
        return ready
    if operation.name == "metrics":
        return metrics_page
    return read if operation.method == "GET" else forward
