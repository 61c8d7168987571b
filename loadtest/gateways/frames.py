"""How long a tick's frames take to many subscribers: of a gateway and of the engine, in turn, on one clock."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from loadtest.gateways.processes import Processes, Server
from loadtest.micro.native import Receiver

CHANNEL = "market_tick"
SUBSCRIBERS = 1_000
TURN_TICKS = 50
SETTLE_S = 1.0
"""After the last has subscribed: who came first has been sent a snapshot by then."""
P99_BAR_MS = 20.0
MUST_BE_NONE = ("gaps", "lagged", "closed_early", "ticks_partial", "ticks_late")


class Frames:
    """Has subscribers in C follow the engine, then the gateway, and so on."""

    def __init__(self, processes: Processes) -> None:
        self._engine = Server(processes, "engine", lambda port: processes.engine_flags(port, tick_rate=100))
        self._gateway = Server(processes, "gateway", lambda port: processes.gateway_flags(port, self._engine.port))

    async def run(self, ticks: int) -> dict[str, Any]:
        """Follow about so many ticks each way; return the times from a tick's publication to a subscriber, ms."""
        await self._engine.start()
        await self._gateway.start()
        turns: dict[str, list[dict[str, Any]]] = {"engine": [], "gateway": []}
        for _ in range(max(1, round(ticks / TURN_TICKS))):
            for way, server in (("engine", self._engine), ("gateway", self._gateway)):
                turns[way].append(await asyncio.to_thread(_follow, server.port))
        latency = {way: _figures(seen) for way, seen in turns.items()}
        at_gateway = turns["gateway"]
        return {
            "holds": all(one[name] == 0 for one in at_gateway for name in MUST_BE_NONE)
            and latency["gateway"]["p99"] < P99_BAR_MS,
            "ticks": sum(one["ticks"] for one in at_gateway),
            "subscribers": str(SUBSCRIBERS),
            "latency_ms": latency,
            "added_ms_p50": round(latency["gateway"]["p50"] - latency["engine"]["p50"], 2),
            "p99_ms_bar": P99_BAR_MS,
        }


def _follow(port: int) -> dict[str, Any]:
    """Return what so many subscribers of a server see of some ticks."""
    with Receiver(port, SUBSCRIBERS, CHANNEL, core=None) as receiver:
        time.sleep(SETTLE_S)
        receiver.command("begin")
        time.sleep(TURN_TICKS / 10)
        return receiver.command("report")


def _figures(turns: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median turn's p50 and p99."""
    return {name: statistics.median(one["latency_ms"][name] for one in turns) for name in ("p50", "p99")}
