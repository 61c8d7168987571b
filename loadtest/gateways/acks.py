"""How long a durable acknowledgement takes: through a gateway and straight to the engine, in turn, on one disk."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import count
from typing import Any

from loadtest.gateways.processes import Processes, Server
from loadtest.kills.http import Connection
from loadtest.process import percentile
from loadtest.simulation.network import Request
from loadtest.simulation.witness import Witness

BAR_S = 0.015
AT_ONCE = 32
WARM_UP = 50
BLOCKS = 10
"""Turns each way has with many at once: what else the machine does meanwhile meets both."""
_JSON = (b"content-type", b"application/json")


class Acks:
    """Asks for acknowledgements, one after another and many at once."""

    def __init__(self, processes: Processes) -> None:
        self._engine = Server(processes, "engine", lambda port: processes.engine_flags(port, tick_rate=100))
        self._gateway = Server(processes, "gateway", lambda port: processes.gateway_flags(port, self._engine.port))
        self._numbers = count(1)
        self._agent = ""
        self._key = b""

    async def run(self, requests: int) -> dict[str, Any]:
        """Ask so many times each way; return the times."""
        await self._engine.start()
        await self._gateway.start()
        ways = {name: self._connection(server) for name, server in self._servers().items()}
        await self._register(ways["gateway"])
        single: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(WARM_UP + requests):
            for name, connection in ways.items():
                took_s = await self._act(connection)
                if number >= WARM_UP:
                    single[name].append(took_s)
        crowded: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(BLOCKS):
            for name, server in self._servers().items():
                crowded[name] += await self._crowd(server, requests // BLOCKS)
        for connection in ways.values():
            await connection.close()
        p50 = percentile(single["gateway"], 0.5)
        return {
            "holds": p50 < BAR_S,
            "requests": requests,
            "one_at_a_time_ms": {name: _figures(times) for name, times in single.items()},
            f"{AT_ONCE}_at_once_ms": {name: _figures(times) for name, times in crowded.items()},
            "added_ms_p50": round(1_000 * (p50 - percentile(single["engine"], 0.5)), 3),
            "p50_ms_bar": 1_000 * BAR_S,
            "bar_is_for": "one at a time, through the gateway; many at once are told, not judged",
        }

    def _servers(self) -> dict[str, Server]:
        return {"engine": self._engine, "gateway": self._gateway}

    def _connection(self, server: Server) -> Connection:
        return Connection(Witness(), server.port)

    async def _register(self, connection: Connection) -> None:
        headers = (_JSON, (b"idempotency-key", b"the-one-who-measures"))
        made = (await self._send(connection, "/api/agents/register", b"{}", headers)).document
        self._agent, self._key = made["agent_id"], f"Bearer {made['api_key']}".encode()

    async def _act(self, connection: Connection) -> float:
        action = {"client_action_id": f"a{next(self._numbers)}", "type": "borrow", "amount": "0.01"}
        body = json.dumps(action).encode()
        began = time.perf_counter()
        path = f"/api/agents/{self._agent}/action"
        answer = await self._send(connection, path, body, (_JSON, (b"authorization", self._key)))
        if answer.status != 202:
            raise RuntimeError(f"an action was answered {answer.status}: {answer.body!r}")
        return time.perf_counter() - began

    async def _crowd(self, server: Server, requests: int) -> list[float]:
        times: list[float] = []

        async def one() -> None:
            connection = self._connection(server)
            for _ in range(max(1, requests // AT_ONCE)):
                times.append(await self._act(connection))
            await connection.close()

        await asyncio.gather(*(one() for _ in range(AT_ONCE)))
        return times

    async def _send(self, connection: Connection, path: str, body: bytes, headers: Any) -> Any:
        return await connection.exchange(Request(next(self._numbers), "POST", path, headers, body))


def _figures(times: list[float]) -> dict[str, float]:
    return {name: round(1_000 * percentile(times, share), 3) for name, share in (("p50", 0.5), ("p99", 0.99))}
