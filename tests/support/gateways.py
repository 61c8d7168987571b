"""A gateway of a server under test, in this process, over real sockets and a real Valkey.

async with run_server(redis=valkey.url, gateway_secret=SECRET) as arena, run_gateway(arena, valkey.url) as gateway:
    ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from server.app import Opening, Server, server_config
from server.clock import SystemClock
from server.config import GatewaySettings, Settings
from server.gateway.app import Gateway, build, create_app
from server.metrics import Metrics
from tests.support.arena import STOP_S, RunningServer
from tests.support.deadlines import seconds

SECRET = "what-only-gateways-know"
IN_STEP_S = 20.0


@dataclass
class RunningGateway:
    """A gateway under test. url and ws_url: where it listens; parts: everything it is made of."""

    url: str
    ws_url: str
    parts: Gateway
    server: Server

    @property
    def tick(self) -> int | None:
        """The newest tick it has."""
        return self.parts.hub.tick

    async def reached(self, tick: int) -> None:
        """Return when it has that tick."""
        await until(lambda: (self.tick or -1) >= tick)

    def client(self, api_key: str | None = None) -> httpx2.AsyncClient:
        """Return an HTTP client of this gateway, with a key when one is given."""
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=seconds(30))

    def count(self, name: str, **labels: str) -> float:
        """Return the value of a metric."""
        return self.parts.metrics.registry.get_sample_value(f"arena_{name}", labels) or 0.0


@asynccontextmanager
async def run_gateway(
    arena: RunningServer | int, redis: str, *, is_waited_for: bool = True, **settings: Any
) -> AsyncIterator[RunningGateway]:
    """Run a gateway until the block ends. arena: the engine, or the port where one may be. settings: of the gateway."""
    port = arena if isinstance(arena, int) else int(arena.url.rpartition(":")[2])
    given: dict[str, Any] = {
        "port": 0,
        "engine": f"127.0.0.1:{port}",
        "redis": redis,
        "gateway_secret": SECRET,
        # all tests come from one address
        "sockets_per_address_max": 1_000_000,
    }
    gateway = build(GatewaySettings(**(given | settings)), Metrics(is_gateway=True), SystemClock())
    app = create_app(gateway, on_ended=lambda: server.stop())
    server = Server(server_config(app, Settings(port=0)), Opening(), gateway.metrics)
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(seconds(IN_STEP_S)):
            await server.is_listening.wait()
            if is_waited_for:
                await gateway.feed.is_in_step.wait()
        own = server.servers[0].sockets[0].getsockname()[1]
        yield RunningGateway(f"http://127.0.0.1:{own}", f"ws://127.0.0.1:{own}/ws", gateway, server)
    finally:
        server.stop()
        async with asyncio.timeout(seconds(STOP_S)):
            await serving
    if gateway.failure is not None:
        raise gateway.failure


async def until(is_so: Any, limit_s: float = 20.0) -> None:
    """Let everything else go on until something is so; fail after the limit."""
    async with asyncio.timeout(seconds(limit_s)):
        while not is_so():  # noqa: ASYNC110 - it depends on other tasks, which set no event
            await asyncio.sleep(0)
