"""A small real server that streams synthetic ticks to real sockets, and clients that know nothing but the codec."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from arena_client import wire
from arena_client.wire import SUBPROTOCOL_MSGPACK
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from server import keys
from server.clock import Clock, SystemClock
from server.config import Settings
from server.live.hub import Hub
from server.live.view import View
from server.metrics import Metrics
from server.middleware import Envelope
from server.protocols import SEND_BUFFER_BYTES, websocket_options
from server.routes.stream import stream_endpoint
from tests.support.deadlines import seconds
from tests.support.published import EPOCH, World

KEY = "ak_known"
OWNED = ["a1", "a7"]


def known_key(key_hash: bytes) -> list[str] | None:
    """Know one key, of an owner with two agents."""
    return OWNED if key_hash == keys.digest(KEY) else None


async def until(condition: Callable[[], object], limit_s: float = 5.0) -> None:
    """Let everything else go on until condition holds; fail after the limit."""
    async with asyncio.timeout(seconds(limit_s)):
        while not condition():  # noqa: ASYNC110  # conditions of code that has no event to wait for
            await asyncio.sleep(0)


@dataclass
class Arena:
    """A running server of a hub."""

    hub: Hub
    metrics: Metrics
    port: int
    world: World = field(default_factory=World)

    @property
    def url(self) -> str:
        """Where the stream is."""
        return f"ws://127.0.0.1:{self.port}/ws"

    def tick(self, *channels: str) -> View:
        """Publish the next tick, with one event of each of the channels."""
        view = self.world.view(*channels)
        self.hub.publish(view)
        return view


class Watcher:
    """A client that speaks the protocol with nothing but the codec."""

    def __init__(self, connection: ClientConnection, subprotocol: str) -> None:
        self.connection = connection
        self.subprotocol = subprotocol

    async def send(self, message: dict[str, Any]) -> None:
        """Send a control message."""
        await self.connection.send(wire.encode(message, self.subprotocol))

    async def next(self) -> dict[str, Any]:
        """Return the next message."""
        data = await asyncio.wait_for(self.connection.recv(), seconds(5.0))
        return wire.decode(data, self.subprotocol)

    async def ask(self, **message: Any) -> dict[str, Any]:
        """Send a control message and return the answer to it; what comes before it must not be data."""
        await self.send(message)
        answer = await self.next()
        assert answer["type"] in ("ack", "error"), answer
        return answer

    async def closed(self) -> int:
        """Return the code with which the server closes, reading what comes before."""

        async with asyncio.timeout(seconds(10.0)):
            with suppress(ConnectionClosed):
                async for _ in self.connection:
                    pass
        assert self.connection.close_code is not None
        return self.connection.close_code


@asynccontextmanager
async def run_hub(
    settings: Settings | None = None, clock: Clock | None = None, *, plain: bool = False
) -> AsyncIterator[Arena]:
    """Serve a hub on a free port; plain: with uvicorn's own protocol class, so that the ordinary sends are used."""
    metrics = Metrics()
    # all of a test's clients come from one address
    chosen = settings or Settings(sockets_per_address_max=1_000_000)
    hub = Hub(EPOCH, chosen, metrics, clock or SystemClock(), known_key)
    app = Starlette(
        routes=[WebSocketRoute("/ws", stream_endpoint(hub))],
        middleware=[Middleware(Envelope, metrics=metrics, clock=SystemClock(), tick=lambda: hub.tick)],
    )
    options = websocket_options() | ({"ws": "websockets-sansio"} if plain else {})
    config = uvicorn.Config(app, log_config=None, lifespan="off", **options)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    # as small as our own class makes it: a test with uvicorn's class fills it in a moment too
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    serving = asyncio.create_task(server.serve([listener]))
    running = asyncio.create_task(hub.run())
    try:
        yield Arena(hub, metrics, listener.getsockname()[1])
    finally:
        await asyncio.wait_for(hub.close(), seconds(15.0))
        await asyncio.wait_for(running, seconds(5.0))
        server.should_exit = True
        await asyncio.wait_for(serving, seconds(10.0))


@asynccontextmanager
async def watch(arena: Arena, subprotocol: str = SUBPROTOCOL_MSGPACK) -> AsyncIterator[Watcher]:
    """Connect and read the hello."""
    async with connect(arena.url, subprotocols=[subprotocol], compression=None, max_size=None) as connection:  # type: ignore[list-item]  # Subprotocol is a NewType of str
        watcher = Watcher(connection, subprotocol)
        assert (await watcher.next())["type"] == "hello"
        yield watcher
