"""GET /ws: joins one socket to its subscriber; every decision is the subscriber's or the hub's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from arena_client.wire import SUBPROTOCOL_MSGPACK, SUBPROTOCOLS
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.protocols.utils import ClientDisconnected

from server.errors import MEDIA_TYPE, BadRequest, Code, Problem, Unavailable
from server.live.caps import of_address
from server.live.hub import Hub
from server.live.outlets import TaskOutlet
from server.live.subscriber import INTERNAL, TRY_LATER, Subscriber
from server.live.topics import Message
from server.middleware import EXCHANGE, Exchange
from server.protocols import EXTENSION, LOST, ArenaWebSocketProtocol

NO_CODE: Final = 1005
RETRY_WHEN_FULL_S: Final = 5

log = structlog.get_logger("arena.stream")


def stream_endpoint(hub: Hub) -> Callable[[WebSocket], Awaitable[None]]:
    """Return the WebSocket endpoint of a hub. Refuses the handshake: 400 unknown subprotocols, 503 no room.

    A connection counts for its address until it shows a key.
    """

    async def stream(websocket: WebSocket) -> None:
        offered = websocket.scope["subprotocols"]
        holder = of_address(websocket.client.host if websocket.client is not None else "")
        try:
            subprotocol = negotiate(offered)
            if (reason := hub.refusal(holder)) is not None:
                raise Unavailable(Code.SOCKETS_FULL, reason, retry_after=RETRY_WHEN_FULL_S)
        except Problem as problem:
            if "websocket.http.response" in websocket.scope.get("extensions", {}):
                await websocket.send_denial_response(_denial(problem, websocket))
            else:
                # a web server that can refuse a handshake with 403 only
                await websocket.close(TRY_LATER, problem.detail)
            return
        subscriber = hub.open(subprotocol, holder)
        code = LOST
        try:
            await websocket.accept(subprotocol if offered else None)
            connection = websocket.scope.get("extensions", {}).get(EXTENSION)
            if isinstance(connection, ArenaWebSocketProtocol):
                # from here on the connection and the hub talk to each other, without this task
                hub.attach(subscriber, connection)
                return
            code = await _move(websocket, hub, subscriber)
        finally:
            if subscriber.connection is None:
                hub.leave(subscriber, code)

    return stream


def negotiate(offered: Sequence[str]) -> str:
    """Return the first subprotocol of the client's that exists, msgpack when it offers none.

    Raises BadRequest, naming those that exist, when it offers only others.
    """
    if not offered:
        return SUBPROTOCOL_MSGPACK
    known = [name for name in offered if name in SUBPROTOCOLS]
    if known:
        return known[0]
    allowed = ", ".join(SUBPROTOCOLS)
    errors = [{"field": "Sec-WebSocket-Protocol", "problem": "no subprotocol of ours", "allowed": allowed}]
    raise BadRequest(Code.NOT_ACCEPTABLE, f"unknown subprotocol, allowed: {allowed}", errors=errors)


def _denial(problem: Problem, websocket: WebSocket) -> Response:
    exchange: Exchange = websocket.scope[EXCHANGE]
    exchange.route = websocket.url.path
    body = problem.document(websocket.url.path, exchange.request_id, exchange.tick())
    return Response(body, problem.status, problem.headers, MEDIA_TYPE)


async def _move(websocket: WebSocket, hub: Hub, subscriber: Subscriber) -> int:
    """Read and write, as any ASGI server lets us, until either side is done; return the code it closed with."""

    async def send(batch: list[Message]) -> None:
        for message in batch:
            if isinstance(message.payload, str):
                await websocket.send_text(message.payload)
            else:
                await websocket.send_bytes(message.payload)

    subscriber.outlet = outlet = TaskOutlet(hub, subscriber, send)
    reader = asyncio.create_task(_read(websocket, subscriber))
    writer = asyncio.create_task(_write(websocket, outlet, subscriber))
    try:
        await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
    finally:
        reader.cancel()
        writer.cancel()
        code, failure = await asyncio.gather(reader, writer, return_exceptions=True)
    for error in (code, failure):
        if isinstance(error, Exception) and not isinstance(error, WebSocketDisconnect | ClientDisconnected):
            # one connection's mistake is ours to mend and nobody else's to notice
            log.error("stream_failed", subscriber=subscriber.number, exc_info=error)
            return INTERNAL
    return code if isinstance(code, int) else LOST


async def _read(websocket: WebSocket, subscriber: Subscriber) -> int:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return int(message.get("code") or NO_CODE)
        data = message.get("bytes")
        subscriber.receive(message["text"] if data is None else data)


async def _write(websocket: WebSocket, outlet: TaskOutlet, subscriber: Subscriber) -> None:
    await outlet.run()
    assert subscriber.close_code is not None
    await websocket.close(subscriber.close_code, subscriber.close_reason)
