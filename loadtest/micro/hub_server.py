"""The real hub, endpoint and protocol over made-up ticks: what a fan-out costs without a world behind it.

    python -m loadtest.micro.hub_server BYTES

Speaks as loadtest.peers.broadcasting does. A tick is one frame of psychology_update of about BYTES bytes, diffed,
encoded and checksummed as in the server; pings, limits and metrics are on.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

import uvicorn
import uvloop
from arena_client import wire
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute

from loadtest.peers import broadcasting
from server import descriptors, logs
from server.clock import SystemClock
from server.config import Settings
from server.live.frames import PSYCHOLOGY, delta
from server.live.hub import Hub
from server.metrics import Metrics
from server.middleware import Envelope
from server.protocols import websocket_options
from server.routes.stream import stream_endpoint

EPOCH = "0123456789abcdef"
FIRST_TICK = 1_000_000


@dataclass
class Report:
    """What the hub reads of a tick's report."""

    tick: int
    events: tuple[Any, ...] = ()


@dataclass
class Tick:
    """What the hub reads of a view."""

    report: Any
    states: dict[str, wire.State]
    published_unix_ns: int


def states(size: int) -> tuple[wire.State, wire.State]:
    """Return two states of such numbers that a delta between them has about size bytes."""
    count = 0
    while True:
        count += 1
        # far apart: few numbers make a frame, what it costs to make one is not what is measured
        one: wire.State = {f"value_{i:02}": i - (1 << 51) for i in range(count)}
        other: wire.State = {f"value_{i:02}": i + (1 << 51) for i in range(count)}
        frame = delta(PSYCHOLOGY, EPOCH, FIRST_TICK, FIRST_TICK + 1, 1 << 40, one, other)
        if len(wire.encode(frame, wire.SUBPROTOCOL_MSGPACK)) >= size:
            return one, other


async def main(size: int) -> None:
    """Serve until the input ends."""
    settings, metrics, clock = Settings(sockets_per_address_max=1_000_000), Metrics(), SystemClock()
    hub = Hub(EPOCH, settings, metrics, clock)
    app = Starlette(
        routes=[WebSocketRoute("/ws", stream_endpoint(hub))],
        middleware=[Middleware(Envelope, metrics=metrics, clock=clock, tick=lambda: hub.tick)],
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=4_096)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", **websocket_options())
    serving = asyncio.create_task(uvicorn.Server(config).serve([listener]))
    running = asyncio.create_task(hub.run())
    number, both = FIRST_TICK, states(size)

    async def tick() -> int:
        nonlocal number
        number += 1
        hub.publish(Tick(Report(number), {PSYCHOLOGY: both[number % 2]}, time.time_ns()))
        return hub.connected

    await tick()
    await broadcasting.run(listener.getsockname()[1], tick)
    running.cancel()
    serving.cancel()


if __name__ == "__main__":
    logs.configure("json", "warning")
    descriptors.raise_limit()
    uvloop.run(main(int(sys.argv[1])))
