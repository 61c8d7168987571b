"""A real server for tests: uvicorn on 127.0.0.1 and a free port, a small world in a temporary folder.

async with run_server(tmp_path) as arena:
    await arena.step()                      # one tick, by hand
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from arena_client.columns import encode_columns
from starlette.applications import Starlette

from engine.config import Config
from engine.economy import Economy
from engine.markets import ID
from server.app import Arena, Opening, Server, create_app, operator_config, server_config
from server.clock import Clock, ManualClock, SystemClock
from server.config import Settings
from server.live.hub import Hub
from server.live.recorder import Recorder
from server.live.ticker import Ticker
from server.metrics import Metrics
from tests.support.deadlines import seconds
from tests.support.worlds import small_config

WARM_UP_TICKS = 48
"""Enough for every market to have traded; tests do not need a settled economy."""
SEED = 7
START_S = 300.0
"""The first start of a release compiles every kernel."""
STOP_S, STEP_S = 20.0, 20.0
FORMS = ("objects", "columns", "binary")
"""Of a batch of actions."""


@dataclass
class RunningServer:
    """A server under test. url and ws_url: where it listens; parts: everything it is made of."""

    app: Starlette
    url: str
    ws_url: str
    parts: Arena
    clock: Clock
    server: Server
    operator_keys: list[str]
    """Operator's keys that were shown."""

    @property
    def ticker(self) -> Ticker:
        """Its tick loop."""
        return self.parts.ticker

    @property
    def recorder(self) -> Recorder:
        """Where inputs are taken in."""
        return self.parts.recorder

    @property
    def economy(self) -> Economy:
        """Its economy; read it only between ticks."""
        return self.parts.economy

    @property
    def hub(self) -> Hub:
        """Its topics and subscribers."""
        return self.parts.hub

    @property
    def tick(self) -> int:
        """The published tick."""
        return self.parts.ticker.published_tick

    async def step(self, count: int = 1) -> int:
        """Run count ticks by hand, one after another, and return the published tick. Needs a ManualClock."""
        assert isinstance(self.clock, ManualClock), "this server ticks by itself"
        period = self.parts.settings.tick_rate / 1_000
        for _ in range(count):
            target = self.tick + 1
            # a ticker that is not waiting yet finds its deadline passed
            self.clock.advance(period)
            async with asyncio.timeout(seconds(STEP_S)):
                await self.ticker.wait_tick(target)
        return self.tick

    async def register(self, api_key: str | None = None) -> Bot:
        """Register an agent and run the tick in which it becomes active. api_key: of its owner, None for a new one."""
        async with self.client(api_key) as client:
            made = (await client.post("/api/agents/register")).json()
        await self.step()
        return Bot(self, made["agent_id"], made["api_key"])

    def client(self, api_key: str | None = None, **options: Any) -> httpx2.AsyncClient:
        """Return an HTTP client of this server, with a key when one is given."""
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=seconds(STEP_S), **options)


@dataclass
class Bot:
    """An agent of a server under test that says what it wants in plain dicts."""

    arena: RunningServer
    agent_id: str
    api_key: str

    async def act(self, action: dict[str, Any], **query: str) -> httpx2.Response:
        """Post an action."""
        async with self.arena.client(self.api_key) as client:
            return await client.post(f"/api/agents/{self.agent_id}/action", json=action, params=query)

    async def act_all(self, actions: list[dict[str, Any]], form: str = "objects") -> httpx2.Response:
        """Post actions, of any of the owner's agents, as one batch. form: of FORMS; columns have fields of all."""
        columns = {name: [action.get(name) for action in actions] for name in actions[0]}
        async with self.arena.client(self.api_key) as client:
            if form == "binary":
                columns["market"] = [ID[name] for name in columns["market"]]
                headers = {"Content-Type": "application/msgpack"}
                return await client.post("/api/actions", content=encode_columns(columns), headers=headers)
            body = {"actions": actions} if form == "objects" else {"columns": columns}
            return await client.post("/api/actions", json=body)

    async def decided(self, action: dict[str, Any]) -> dict[str, Any]:
        """Post an action, run the tick that decides it, and return its outcome."""
        response = await self.act(action)
        assert response.status_code == 202, response.text
        await self.arena.step()
        outcome: dict[str, Any] = (await self.receipt(action["client_action_id"]))["outcome"]
        return outcome

    async def receipt(self, client_action_id: str) -> dict[str, Any]:
        """Get a receipt."""
        async with self.arena.client(self.api_key) as client:
            response = await client.get(f"/api/agents/{self.agent_id}/actions/{client_action_id}")
        assert response.status_code == 200, response.text
        document: dict[str, Any] = response.json()
        return document

    async def leave(self) -> None:
        """Unregister and run the tick that settles it."""
        async with self.arena.client(self.api_key) as client:
            response = await client.delete(f"/api/agents/{self.agent_id}", headers={"Prefer": "respond-async"})
        assert response.status_code == 202, response.text
        await self.arena.step()

    async def account(self) -> dict[str, Any]:
        """Get the account."""
        async with self.arena.client(self.api_key) as client:
            response = await client.get(f"/api/agents/{self.agent_id}")
        assert response.status_code == 200, response.text
        document: dict[str, Any] = response.json()
        return document


@asynccontextmanager
async def run_server(
    data: Path | None = None,
    *,
    by_hand: bool = True,
    engine: Config | None = None,
    warm_up_ticks: int = WARM_UP_TICKS,
    **settings: Any,
) -> AsyncIterator[RunningServer]:
    """Run a server until the block ends.

    data: its folder, a temporary one unless given. by_hand: ticks happen in step() only; otherwise every tick_rate ms.
    settings: of server.config.Settings.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = small_config() if engine is None else engine
        given: dict[str, Any] = {
            "data": Path(folder) if data is None else data,
            "port": 0,
            "operator": False,
            "seed": SEED,
            "tick_rate": 50,
            # all tests come from one address
            "address_rate_limit": 10_000_000,
            "registration_rate_limit": 10_000_000,
            "sockets_per_address_max": 1_000_000,
            "engine": config,
            **settings,
        }
        chosen = Settings(**given)
        clock = ManualClock() if by_hand else SystemClock()
        opening, metrics = Opening(), Metrics()
        shown: list[str] = []
        app = create_app(
            chosen,
            metrics=metrics,
            clock=clock,
            opening=opening,
            on_ended=lambda: server.stop(),
            on_operator_key=shown.append,
            warm_up_ticks=warm_up_ticks,
        )
        server = Server(server_config(app, chosen), opening, metrics, operator_config(app, chosen))
        serving = asyncio.create_task(server.serve())
        try:
            async with asyncio.timeout(seconds(START_S)):
                await opening.is_open.wait()
                if opening.failure is not None:
                    raise opening.failure
                await server.is_listening.wait()
            assert opening.arena is not None
            port = server.servers[0].sockets[0].getsockname()[1]
            yield RunningServer(
                app, f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}/ws", opening.arena, clock, server, shown
            )
        finally:
            server.stop()
            async with asyncio.timeout(seconds(STOP_S)):
                await serving
        if opening.failure is not None:
            raise opening.failure
