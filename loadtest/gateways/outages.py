"""The engine killed again and again under open sockets at two gateways: who is still there, and how soon it goes on."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any

from arena_client import ArenaStream
from arena_client.stream import OutOfStep, Stale

from loadtest.gateways.processes import Processes, Server
from loadtest.process import percentile

GATEWAYS = 2
CHANNEL = "psychology_update"
DOWN_S = (0.0, 2.5)
"""From the engine's end to the start of the next one: in the longer ones subscribers are told."""
BACK_LIMIT_S = 20.0
KEPT_BAR, BACK_BAR_S = 0.99, 3.0


class Watcher:
    """A subscriber that counts what it is told."""

    def __init__(self, url: str) -> None:
        self.stream = ArenaStream(url)
        self.told: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Subscribe; returns with the first state there."""
        await self.stream.__aenter__()
        await self.stream.subscribe(CHANNEL)
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """End the connection."""
        await self.stream.close()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def tick(self) -> int:
        """The newest tick it has."""
        return self.stream.mirror(CHANNEL).tick or 0

    async def _follow(self) -> None:
        async for update in self.stream:
            if isinstance(update, (Stale, OutOfStep)):
                self.told[type(update).__name__] += 1


class Outages:
    """Kills engines under subscribers."""

    def __init__(self, processes: Processes, seed: int) -> None:
        self._processes = processes
        self._draw = random.Random(seed)
        self._engine = Server(processes, "engine", lambda port: processes.engine_flags(port, tick_rate=100))
        self._gateways = [
            Server(processes, "gateway", lambda port: processes.gateway_flags(port, self._engine.port))
            for _ in range(GATEWAYS)
        ]
        self._back_s: list[float] = []
        self._silent_s: list[float] = []
        self._late = 0

    async def run(self, outages: int, sockets: int) -> dict[str, Any]:
        """Have so many outages under so many sockets; return what was found."""
        began = time.monotonic()
        await self._engine.start()
        for gateway in self._gateways:
            await gateway.start()
        watchers = [Watcher(f"http://127.0.0.1:{self._gateways[i % GATEWAYS].port}") for i in range(sockets)]
        for watcher in watchers:
            await watcher.open()
        try:
            for _ in range(outages):
                await self._outage(watchers)
            states = {(one.stream.mirror(CHANNEL).seq, str(dict(one.stream.mirror(CHANNEL).state))) for one in watchers}
        finally:
            await asyncio.gather(*(watcher.close() for watcher in watchers))
        return self._result(outages, watchers, states, time.monotonic() - began)

    async def _outage(self, watchers: list[Watcher]) -> None:
        await asyncio.sleep(self._draw.uniform(0.2, 0.4))
        self._engine.kill()
        await self._engine.gone()
        killed, last = time.monotonic(), max(watcher.tick for watcher in watchers)
        await asyncio.sleep(self._draw.uniform(*DOWN_S))
        await self._engine.start()
        back = time.monotonic()
        try:
            async with asyncio.timeout(BACK_LIMIT_S):
                while min(watcher.tick for watcher in watchers) <= last:  # noqa: ASYNC110 - mirrors set no event
                    await asyncio.sleep(0.005)
        except TimeoutError:
            self._late += 1
        self._back_s.append(time.monotonic() - back)
        self._silent_s.append(time.monotonic() - killed)

    def _result(
        self, outages: int, watchers: list[Watcher], states: set[tuple[int | None, str]], took_s: float
    ) -> dict[str, Any]:
        lost = sum(watcher.stream.reconnects for watcher in watchers)
        kept = 1.0 - lost / (outages * len(watchers))
        told: Counter[str] = Counter()
        for watcher in watchers:
            told.update(watcher.told)
        # at one tick there is one state
        agreeing = len({seq for seq, _ in states}) == len(states)
        back_s = percentile(self._back_s, 1.0)
        return {
            "holds": kept >= KEPT_BAR and back_s <= BACK_BAR_S and agreeing and not (self._late or told["OutOfStep"]),
            "outages": outages,
            "under": f"{len(watchers)} sockets at {GATEWAYS} gateways",
            "sockets_times_outages": outages * len(watchers),
            "sockets_lost": lost,
            "sockets_kept": round(kept, 6),
            "sockets_kept_bar": KEPT_BAR,
            "back_s": {"p50": _rounded(self._back_s, 0.5), "max": round(back_s, 3)},
            "back_s_bar": BACK_BAR_S,
            "back_is": "from the new engine being ready to the last subscriber having its first new frame",
            "silent_s": {"p50": _rounded(self._silent_s, 0.5), "max": _rounded(self._silent_s, 1.0)},
            "stale_told": told["Stale"],
            "copies_out_of_step": told["OutOfStep"],
            "copies_agree": agreeing,
            "never_back": self._late,
            "took_s": round(took_s, 1),
        }


def _rounded(values: list[float], share: float) -> float:
    return round(percentile(values, share), 3)
