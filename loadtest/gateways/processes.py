"""The processes of a run: a Valkey, engines and gateways that serve at once, each ended when the run says so."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.config import Config
from loadtest.kills.http import is_ready
from loadtest.process import ROOT, environment, free_port
from server.config import GATEWAY_OPTIONS, OPTIONS, GatewaySettings, Settings

START_S = 120.0
SECRET = "known-to-engine-and-gateways"
WORLD = Config(residents=2_000, max_agents=64, order_book_max=4_096)
SETTINGS = Settings(
    tick_rate=50,
    seed=7,
    snapshot_ticks=60,
    history_limit=100,
    rate_limit=10_000_000,
    sockets_per_address_max=1_000_000,
    sockets_per_key_max=1_000_000,
    log="json",
    log_level="warning",
    gateway_secret=SECRET,
    operator=False,
    engine=WORLD,
)


class Processes:
    """Starts engines and gateways over one folder, and knows which of them run."""

    def __init__(self, folder: Path, redis: str) -> None:
        self.data = folder / "world"
        self.redis = redis
        self._log = folder / "processes.log"
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._born: asyncio.Queue[int] = asyncio.Queue()
        self._ends: dict[int, asyncio.Future[int]] = {}

    async def open(self) -> None:
        """Load the code; returns when processes can be started."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "loadtest.gateways.child",
                cwd=ROOT, env=environment(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self._process.stdout is not None
        if await self._process.stdout.readline() != b"loaded\n":
            raise RuntimeError(f"the code was not loaded: {self.last_lines()}")
        self._reading = asyncio.create_task(self._read())

    async def close(self) -> None:
        """End everything."""
        assert self._process is not None
        assert self._process.stdin is not None
        for pid, end in self._ends.items():
            if not end.done():
                os.kill(pid, signal.SIGKILL)
        self._process.stdin.close()
        await self._process.wait()
        if self._reading is not None:
            await self._reading

    async def start(self, what: str, flags: list[str], planted: str | None = None) -> int:
        """Fork an engine or a gateway and return its process id."""
        assert self._process is not None
        assert self._process.stdin is not None
        order = {"what": what, "flags": flags, "planted": planted}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return await self._born.get()

    def is_running(self, pid: int) -> bool:
        """Return whether a process has not ended."""
        return not self._ends[pid].done()

    def kill(self, pid: int) -> None:
        """End a process at once; returns before it is gone."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def ended(self, pid: int) -> int:
        """Return the exit status of a process, negative for a signal, when it has ended."""
        return await asyncio.shield(self._ends[pid])

    def last_lines(self) -> str:
        """Return the end of what was logged."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-2_000:]

    def engine_flags(self, port: int, **changes: Any) -> list[str]:
        """Return the flags of an engine."""
        settings = replace(SETTINGS, data=self.data, port=port, redis=self.redis, **changes)
        default = Settings()
        differing = [option for option in OPTIONS if settings.value(option.name) != default.value(option.name)]
        return [word for option in differing for word in (option.flag, str(settings.value(option.name)))]

    def gateway_flags(self, port: int, engine_port: int) -> list[str]:
        """Return the flags of a gateway."""
        settings = GatewaySettings(
            port=port,
            engine=f"127.0.0.1:{engine_port}",
            redis=self.redis,
            gateway_secret=SECRET,
            sockets_per_address_max=1_000_000,
            sockets_per_key_max=1_000_000,
            log="json",
            log_level="error",
        )
        return [word for option in GATEWAY_OPTIONS for word in (option.flag, str(getattr(settings, option.name)))]

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            word, pid, *rest = line.split()
            if word == b"pid":
                self._ends[int(pid)] = asyncio.get_running_loop().create_future()
                await self._born.put(int(pid))
            else:
                self._ends[int(pid)].set_result(int(rest[0]))


class Server:
    """One engine or gateway at a port of its own, started again and again."""

    def __init__(self, processes: Processes, what: str, flags: Callable[[int], list[str]]) -> None:
        self.port = free_port()
        self.pid = 0
        self.planted: str | None = None
        self.on_killed: Callable[[], Awaitable[None]] | None = None
        self._processes = processes
        self._what = what
        self._flags = flags

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return bool(self.pid) and self._processes.is_running(self.pid)

    async def start(self) -> None:
        """Start it and return when it is ready."""
        self.pid = await self._processes.start(self._what, self._flags(self.port), self.planted)
        await self.ready()

    async def ready(self) -> None:
        """Return when it says that it is ready."""
        async with asyncio.timeout(START_S):
            while not await is_ready(self.port):
                if not self.is_running:
                    raise RuntimeError(f"the {self._what} did not start: {self._processes.last_lines()}")
                await asyncio.sleep(0.005)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self._processes.kill(self.pid)

    async def gone(self) -> None:
        """Return when it has ended. Raises RuntimeError when it did so by itself."""
        status = await self._processes.ended(self.pid)
        if status != -signal.SIGKILL:
            raise RuntimeError(f"the {self._what} ended with {status} by itself: {self._processes.last_lines()}")
