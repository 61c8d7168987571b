"""Round after round: a server starts over the same folder, is used and is ended; in between the folder is read."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from engine.config import Config
from engine.events import Event, TickReport
from engine.journal import Mark
from engine.replay import Watch
from engine.state import CATASTROPHES, DISCOVERIES, OTHER_EVENTS
from loadtest.kills.http import Connection, Unsent, close, is_ready
from loadtest.process import ROOT, environment, free_port, percentile
from loadtest.simulation.clients import Client
from loadtest.simulation.referee import NullFile, accepted, check_journal
from loadtest.simulation.witness import Witness
from server.clock import SystemClock
from server.config import OPTIONS, Settings
from server.live.journal import read_segments, segment_paths
from server.live.view import View
from server.live.world import WARM_NAME, open_world, read_genesis, run_replay, start_economy
from server.metrics import Metrics

CLIENTS = 6
PACE_S = 0.03
RUN_S = (0.05, 1.0)
"""From being ready to the end."""
EARLY = 0.15
"""Share of kills and power cuts that hit a server that is still starting."""
SETTLED_S = 0.02
"""A request sent so long before a SIGTERM has been taken in."""
DRAIN_S = 10.0
START_S = 120.0
CHECK_EVERY = 25
"""Rounds between two readings of the whole journal; the last round is always followed by one."""
WORLD = Config(residents=2_000, max_agents=64, order_book_max=4_096)
SETTINGS = Settings(
    tick_rate=50,
    seed=7,
    snapshot_ticks=60,
    resume_frames=20,
    history_limit=100,
    rate_limit=10_000_000,
    address_rate_limit=10_000_000,
    registration_rate_limit=10_000_000,
    sockets_per_address_max=1_000_000,
    sockets_per_key_max=1_000_000,
    log="json",
    log_level="warning",
    operator=False,
    engine=WORLD,
)
HALF_A_REQUEST = (
    b"POST /api/agents/register HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"content-length: 100\r\n\r\n{"
)
_DOCUMENTS = ("indicators", "psychology", "monetary", "scarcity")


class Driver:
    """Ends servers over one folder and counts what went wrong. All clients outlive them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._data = folder / "world"
        self._draw = random.Random(seed)
        self._witness = Witness()
        self._port = free_port()
        self._connections = [Connection(self._witness, self._port) for _ in range(CLIENTS)]
        numbers = count(1)
        self._clients = [
            Client(f"c{i}", random.Random(f"{seed} {i}"), connection, self._witness, PACE_S, numbers)
            for i, connection in enumerate(self._connections)
        ]
        self._wrong: list[str] = []
        self._twins: dict[int, str] = {}
        """State hash of each world recovered beside, by tick."""
        self._starts_s: list[float] = []
        self._drains_s: list[float] = []
        self._ended: Counter[str] = Counter()
        self._nursery = _Nursery(folder / "servers.log")

    async def run(self, ends: list[str], twins: int) -> dict[str, Any]:
        """End servers in these ways, in any order; recover beside them so often; return what was found."""
        began = time.monotonic()
        self._draw.shuffle(ends)
        twin_rounds = set(self._draw.sample(range(len(ends)), min(twins, len(ends))))
        await self._nursery.open()
        try:
            for number, end in enumerate(ends):
                await self._round(number, end)
                if number in twin_rounds:
                    self._twin()
                if number % CHECK_EVERY == CHECK_EVERY - 1:
                    self._wrong += check_journal(self._data, self._witness)
                if self._wrong or self._witness.contradictions:
                    break
            # one more life, in which everything is asked for again
            await self._last_round()
        finally:
            await self._hang_up()
            await self._nursery.close()
        self._wrong += check_journal(self._data, self._witness)
        replayed = _Replayed(self._data, self._witness, self._twins)
        self._wrong += replayed.wrong
        return self._result(ends, replayed, time.monotonic() - began)

    async def _round(self, number: int, end: str) -> None:
        draw = self._draw
        started = time.monotonic()
        cut = self._folder / "cut" if end == "power" else None
        pid = await self._nursery.start(self._flags(), cut, draw.randrange(1 << 32))
        if end != "drain" and number and draw.random() < EARLY:
            end_s = draw.uniform(0.0, 0.4)
            with suppress(TimeoutError):
                async with asyncio.timeout(end_s):
                    await self._nursery.ended(pid)
            self._ended[f"{end} while starting"] += 1
        else:
            await self._ready(pid)
            self._starts_s.append(time.monotonic() - started)
            working = [asyncio.create_task(client.live()) for client in self._clients]
            try:
                await asyncio.sleep(draw.uniform(*RUN_S))
                if end == "drain":
                    await self._drain(pid)
            finally:
                # a client does not stop in the middle: what it has sent stays unknown to it
                await _stop(working)
            self._ended[end] += 1
        if end != "drain":
            await self._kill(pid, cut)
        await self._hang_up()

    async def _kill(self, pid: int, cut: Path | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if cut is None else signal.SIGUSR1)
        status = await self._nursery.ended(pid)
        if status != -signal.SIGKILL:
            self._wrong.append(f"a server ended with {status} by itself: {self._nursery.last_lines()}")
        if cut is not None:
            _replace(self._data, cut)

    async def _drain(self, pid: int) -> None:
        """Ask a server to stop; everything it had taken in must be answered."""
        settled = asyncio.get_running_loop().time() - SETTLED_S
        waiting = [one.pending for one in self._connections if one.pending and one.pending.sent < settled]
        # a client that never finishes what it began must not hold the others up
        _, loiterer = await asyncio.open_connection("127.0.0.1", self._port)
        loiterer.write(HALF_A_REQUEST)
        await loiterer.drain()
        began = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        status = await self._nursery.ended(pid)
        took = time.monotonic() - began
        await close(loiterer)
        self._drains_s.append(took)
        if status != 0 or took > DRAIN_S:
            self._wrong.append(f"a drain ended with {status} after {took:.1f} s: {self._nursery.last_lines()}")
        # the last answers may still be on their way through this process
        await asyncio.sleep(0.05)
        left = [one.pending for one in self._connections if one.pending]
        self._wrong += [f"a drain cut {one.request.method} {one.request.path}" for one in waiting if one in left]
        # what an earlier request of the same name may have done proves nothing
        asked = {
            (intent.agent_id, intent.client_action_id)
            for one in left
            for intent in one.intents
            if intent.seq is None and intent.arrivals == len(intent.answers) + 1
        }
        if asked:
            self._wrong += [
                f"a drain cut {key}, which was done" for key in accepted(self._data).actions if key in asked
            ]

    async def _last_round(self) -> None:
        pid = await self._nursery.start(self._flags(), None, 0)
        await self._ready(pid)
        for client in self._clients:
            for intent in client.recent():
                await client.ask(intent)
        await self._drain(pid)

    async def _hang_up(self) -> None:
        for connection in self._connections:
            await connection.close()
            connection.pending = None

    async def _ready(self, pid: int) -> None:
        async with asyncio.timeout(START_S):
            while not await is_ready(self._port):
                if self._nursery.has_ended(pid):
                    raise RuntimeError(f"a server did not start: {self._nursery.last_lines()}")
                await asyncio.sleep(0.005)

    def _flags(self) -> list[str]:
        settings = replace(SETTINGS, data=self._data, port=self._port)
        default = Settings()
        differing = [option for option in OPTIONS if settings.value(option.name) != default.value(option.name)]
        return [word for option in differing for word in (option.flag, str(settings.value(option.name)))]

    def _twin(self) -> None:
        """Recover the folder as it lies there, beside it, and keep what came of it."""
        if not segment_paths(self._data):
            return
        copy = self._folder / "twin"
        shutil.copytree(self._data, copy)
        world = open_world(replace(SETTINGS, data=copy), Metrics(), SystemClock(), open_file=NullFile)
        world.events.close()
        world.lock.release()
        self._twins[world.economy.tick] = world.economy.state_hash().hex()
        shutil.rmtree(copy)

    def _result(self, ends: list[str], replayed: _Replayed, took_s: float) -> dict[str, Any]:
        wrong = self._wrong + self._witness.contradictions
        intents = self._witness.intents.values()
        return {
            "holds": not wrong,
            "wrong": wrong[:20],
            "ended": dict(sorted(self._ended.items())),
            "actions_acknowledged": sum(intent.acknowledged for intent in intents),
            "actions_sent": sum(1 for intent in intents if intent.arrivals),
            "answers": dict(sorted(self._witness.statuses.items())),
            "ticks": replayed.ticks,
            "documents_compared": replayed.documents,
            "events_compared": replayed.events,
            "hashes_checked": replayed.hashes,
            "twin_recoveries": len(self._twins),
            "start_s": {"p50": _rounded(self._starts_s, 0.5), "p99": _rounded(self._starts_s, 0.99)},
            "drain_s": {"p50": _rounded(self._drains_s, 0.5), "max": _rounded(self._drains_s, 1.0)},
            "took_s": round(took_s),
        }


class _Nursery:
    """The process that forks servers, and what became of them."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._born: asyncio.Queue[int] = asyncio.Queue()
        self._ends: dict[int, asyncio.Future[int]] = {}

    async def open(self) -> None:
        """Start it; returns when everything is loaded."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "loadtest.kills.victim",
                cwd=ROOT, env=environment(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self._process.stdout is not None
        if await self._process.stdout.readline() != b"loaded\n":
            raise RuntimeError(f"the servers' code was not loaded: {self.last_lines()}")
        self._reading = asyncio.create_task(self._read())

    async def start(self, flags: list[str], cut: Path | None, seed: int) -> int:
        """Fork a server and return its process id."""
        assert self._process is not None
        assert self._process.stdin is not None
        order = {"flags": flags, "cut": None if cut is None else str(cut), "seed": seed}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return await self._born.get()

    def has_ended(self, pid: int) -> bool:
        """Return whether a server is gone."""
        return self._ends[pid].done()

    async def ended(self, pid: int) -> int:
        """Return the exit status of a server, negative for a signal, when it has ended."""
        return await asyncio.shield(self._ends[pid])

    async def close(self) -> None:
        """End it, and what it has left running."""
        assert self._process is not None
        assert self._process.stdin is not None
        for pid, end in self._ends.items():
            if not end.done():
                os.kill(pid, signal.SIGKILL)
        self._process.stdin.close()
        await self._process.wait()
        if self._reading is not None:
            await self._reading

    def last_lines(self) -> str:
        """Return the end of what servers have logged."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-2_000:]

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            word, pid, *rest = line.split()
            if word == b"pid":
                self._ends.setdefault(int(pid), asyncio.get_running_loop().create_future())
                self._born.put_nowait(int(pid))
            else:
                # an end may be told before the birth
                end = self._ends.setdefault(int(pid), asyncio.get_running_loop().create_future())
                end.set_result(int(rest[0]))


class _Replayed(Watch):
    """The whole journal once more from the first tick, held against what clients saw and what twins came to."""

    def __init__(self, data: Path, witness: Witness, twins: dict[int, str]) -> None:
        genesis = read_genesis(data)
        self._economy = start_economy(genesis, data / WARM_NAME)
        self._epoch = genesis.epoch
        self._witness = witness
        self._twins = twins
        counters = self._economy.state.counters
        self._event = int(counters[DISCOVERIES] + counters[CATASTROPHES] + counters[OTHER_EVENTS])
        self.wrong: list[str] = []
        self.ticks = self.documents = self.events = 0
        self.hashes = run_replay(self._economy, read_segments(segment_paths(data)), self).hashes_checked
        seen = max((tick for _, tick in witness.documents), default=-1)
        if seen > self._economy.tick:
            self.wrong.append(f"tick {seen} was shown, the journal ends at {self._economy.tick}")

    def tick(self, report: TickReport, mark: Mark) -> None:
        """Compare a tick."""
        self.ticks += 1
        view = View(report, self._epoch, mark.unix_ns)
        for name in _DOCUMENTS:
            shown = self._witness.documents.get((f"/api/{name}", report.tick))
            if shown is not None:
                self.documents += 1
                if shown != getattr(view, name)():
                    self.wrong.append(f"/api/{name} of tick {report.tick} was not what the journal leads to")
        for event in report.events:
            self._compare(event)
        recovered = self._twins.get(report.tick)
        if recovered is not None and recovered != self._economy.state_hash().hex():
            self.wrong.append(f"a recovery at tick {report.tick} came to another state than the replay of everything")

    def _compare(self, event: Event) -> None:
        self._event += 1
        shown = self._witness.events.get(self._event)
        if shown is not None:
            self.events += 1
            told = (shown["channel"], shown["number"], shown["tick"], shown["name"], shown["data"])
            if told != (event.channel, event.number, event.tick, event.name, event.data):
                self.wrong.append(f"event {self._event} was told as {told}, the journal leads to {event}")


def _replace(data: Path, cut: Path) -> None:
    """Put what a power cut has left in the place of a folder."""
    if cut.exists():
        shutil.rmtree(data)
        cut.rename(data)


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception) and not isinstance(outcome, Unsent):
            raise outcome


def _rounded(values: list[float], share: float) -> float:
    return round(percentile(values, share), 3)
