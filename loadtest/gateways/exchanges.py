"""The engine or the gateway killed at each step of an input's way, under load; what clients were told is checked."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

from loadtest.gateways.processes import Processes, Server
from loadtest.gateways.proxy import STEPS, Proxy
from loadtest.kills.http import Connection, Unsent
from loadtest.process import percentile
from loadtest.simulation.clients import Client
from loadtest.simulation.referee import check_journal
from loadtest.simulation.witness import Witness

CLIENTS = 6
PACE_S = 0.01
BEFORE_S = (0.02, 0.15)
"""From being ready to the trigger."""
AFTER_S = 0.06
"""Clients go on for so long after a kill: what they are told then counts most."""
TRIGGER_LIMIT_S = 3.0
CHECK_EVERY = 18
"""Kills between two readings of the whole journal; the last is always followed by one."""
VICTIMS = ("engine", "gateway")
MOMENTS = (*STEPS, "random")
"""Steps at which a process is killed; random: at any microsecond."""


class Exchanges:
    """Kills processes and counts what went wrong. All clients outlive them.

    planted: name of a mistake every gateway makes, to see that it is found.
    """

    def __init__(self, processes: Processes, seed: int, planted: str | None = None) -> None:
        self._processes = processes
        self._draw = random.Random(seed)
        self._witness = Witness()
        self._engine = Server(processes, "engine", processes.engine_flags)
        self._proxy = Proxy(self._engine.port, processes.data, self._draw)
        self._gateway = Server(processes, "gateway", lambda port: processes.gateway_flags(port, self._proxy.port))
        self._gateway.planted = planted
        self._connections = [Connection(self._witness, self._gateway.port) for _ in range(CLIENTS)]
        numbers = count(1)
        self._clients = [
            Client(f"g{i}", random.Random(f"{seed} {i}"), connection, self._witness, PACE_S, numbers)
            for i, connection in enumerate(self._connections)
        ]
        self._wrong: list[str] = []
        self._killed: Counter[str] = Counter()
        self._missed = 0
        self._back_s: list[float] = []

    async def run(self, kills: int) -> dict[str, Any]:
        """Kill so many times, each victim at each moment as often as the others; return what was found."""
        began = time.monotonic()
        plan = [(victim, moment) for victim in VICTIMS for moment in MOMENTS]
        self._proxy.open()
        await self._engine.start()
        await self._gateway.start()
        for number in range(kills):
            if number % len(plan) == 0:
                self._draw.shuffle(plan)
            await self._round(*plan[number % len(plan)])
            if number % CHECK_EVERY == CHECK_EVERY - 1:
                self._wrong += self._check()
            if self._wrong or self._witness.contradictions:
                break
        await self._ask_for_everything()
        await self._proxy.close()
        self._wrong += self._check()
        return self._result(time.monotonic() - began)

    async def _round(self, victim: str, moment: str) -> None:
        working = [asyncio.create_task(client.live()) for client in self._clients]
        server = self._engine if victim == "engine" else self._gateway
        pull = partial(self._kill_engine if victim == "engine" else self._gateway.kill)
        try:
            await asyncio.sleep(self._draw.uniform(*BEFORE_S))
            await self._at(moment, pull)
            self._killed[f"{victim} {moment}"] += 1
            await asyncio.sleep(AFTER_S)
        finally:
            # a client does not stop in the middle: what it has sent stays unknown to it
            await _stop(working)
        await server.gone()
        await self._hang_up()
        await self._restart(victim)

    async def _at(self, moment: str, pull: Callable[[], None]) -> None:
        """Kill at a moment. One whose step nobody comes to in time is killed anyway, and counted."""
        if moment == "random":
            await asyncio.sleep(self._draw.uniform(0.0, 0.02))
            pull()
            return
        if moment == "before_connect":
            pull()
            return
        if moment == "connected":
            self._proxy.drop_connections()
        self._proxy.arm(moment, pull)
        try:
            async with asyncio.timeout(TRIGGER_LIMIT_S):
                await self._proxy.is_done.wait()
        except TimeoutError:
            self._proxy.disarm()
            self._missed += 1
            pull()

    def _kill_engine(self) -> None:
        """Kill the engine as a machine would see it go: nobody listens, and what was on its way is lost."""
        self._engine.kill()
        self._proxy.vanish()

    async def _restart(self, victim: str) -> None:
        began = time.monotonic()
        if victim == "gateway":
            await self._gateway.start()
        else:
            await self._engine.start()
            began = time.monotonic()
            self._proxy.open()
            await self._takes_inputs()
        self._back_s.append(time.monotonic() - began)

    async def _takes_inputs(self) -> None:
        """Return when an input gets through the gateway again."""
        while True:
            with suppress(OSError, EOFError, ValueError):
                if await self._status(b"POST /api/agents/register HTTP/1.1") == 400:
                    return
            await asyncio.sleep(0.005)

    async def _status(self, line: bytes) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._gateway.port)
        try:
            # refused by the engine for its shape: it has been there, and nothing happened
            head = b"host: h\r\ncontent-type: application/json\r\ncontent-length: 1\r\nconnection: close\r\n\r\n1"
            writer.write(line + b"\r\n" + head)
            return int((await reader.readline()).split()[1])
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _check(self) -> list[str]:
        """Return what the journal contradicts. The engine lives: a segment may be packed away while it is read."""
        while True:
            with suppress(FileNotFoundError):
                return check_journal(self._processes.data, self._witness)

    async def _ask_for_everything(self) -> None:
        """Ask for the receipt of whatever was acknowledged lately."""
        for client in self._clients:
            for intent in client.recent():
                await client.ask(intent)
        await self._hang_up()

    async def _hang_up(self) -> None:
        for connection in self._connections:
            await connection.close()
            connection.pending = None

    def _result(self, took_s: float) -> dict[str, Any]:
        wrong = self._wrong + self._witness.contradictions
        intents = self._witness.intents.values()
        return {
            "holds": not wrong,
            "wrong": wrong[:20],
            "kills": sum(self._killed.values()),
            "killed": dict(sorted(self._killed.items())),
            "steps_nobody_came_to": self._missed,
            "actions_sent": sum(1 for intent in intents if intent.arrivals),
            "actions_acknowledged": sum(intent.acknowledged for intent in intents),
            "actions_surely_refused": sum(1 for intent in intents if intent.answers and intent.surely_refused),
            "actions_unknown": sum(
                1 for intent in intents if intent.seq is None and intent.arrivals and not intent.surely_refused
            ),
            "answers": dict(sorted(self._witness.statuses.items())),
            "inputs_again_s": {"p50": _rounded(self._back_s, 0.5), "p99": _rounded(self._back_s, 0.99)},
            "took_s": round(took_s, 1),
        }


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception) and not isinstance(outcome, Unsent):
            raise outcome


def _rounded(values: list[float], share: float) -> float:
    return round(percentile(values, share), 3)
