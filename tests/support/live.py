"""A small world that ticks when a test says so: real files, real kernels, a clock turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.economy import Economy
from engine.messages import Kind
from engine.receipt_table import Verdict
from server.clock import ManualClock
from server.config import Settings
from server.live.collector import Collector
from server.live.journal import DiskFile, JournalFile
from server.live.receipts import names_of
from server.live.recorder import Recorder, Registration, Taken
from server.live.ticker import OnPublish, Ticker
from server.live.view import View
from server.live.watchdog import Watchdog
from server.live.world import Known, OnReplayed, World, open_world
from server.metrics import Metrics
from tests.support.deadlines import seconds
from tests.support.journals import action_row
from tests.support.worlds import small_config

WARM_UP_TICKS = 26
"""A day and a little: enough for orders to stand and for a day's end to have been seen."""
PERIOD_S = 0.1
WAIT_S = 30.0


def small_settings(folder: Path, **changes: Any) -> Settings:
    """Return the settings of a small world in a folder."""
    return Settings(**{"data": folder, "seed": 7, "engine": small_config(), **changes})


def open_small(
    folder: Path,
    *,
    clock: ManualClock | None = None,
    metrics: Metrics | None = None,
    open_file: Callable[[Path], JournalFile] = DiskFile,
    on_replayed: OnReplayed | None = None,
    known: Known | None = None,
    **changes: Any,
) -> World:
    """Open the small world in a folder, after a short warm-up. known: ticks that somebody has of it."""
    compile_kernels()
    return open_world(
        small_settings(folder, **changes),
        metrics or Metrics(),
        clock or ManualClock(),
        on_genesis=lambda genesis: known,
        on_replayed=on_replayed,
        warm_up_ticks=WARM_UP_TICKS,
        open_file=open_file,
    )


@cache
def compile_kernels() -> None:
    """Compile the kernels that a tick with actions needs, once, before any wait with a deadline has begun."""
    economy = Economy(small_config(), 7)
    economy.advance(np.concatenate([action_row(1, Kind.REGISTER, seq=1, owner=1), action_row(1, seq=2)]))


class LiveWorld:
    """A world with everything that makes it live. Ticks only on tick() or when a test advances the clock."""

    def __init__(self, folder: Path, *, on_publish: tuple[OnPublish, ...] = (), **changes: Any) -> None:
        self.clock = ManualClock()
        self.metrics = Metrics()
        self.world = open_small(folder, clock=self.clock, metrics=self.metrics, **changes)
        self.recorder = Recorder(
            self.world.journal, self.world.queue, self.world.receipts, self.world.registry, self.metrics
        )
        self.watchdog = Watchdog(self.metrics, self.clock)
        self.views: list[View] = []
        self.ticker = Ticker(
            self.world,
            self.recorder,
            tick_rate_ms=int(PERIOD_S * 1_000),
            metrics=self.metrics,
            clock=self.clock,
            watchdog=self.watchdog,
            collector=Collector(),
            on_publish=(self.views.append, *on_publish),
        )

    async def tick(self, count: int = 1) -> View:
        """Let so many ticks come due and return the view of the last."""
        for _ in range(count):
            await self.tick_without_waiting()
            await soon(self.ticker.wait_tick(self.world.receipts.tick + 1))
        return self.views[-1]

    async def tick_without_waiting(self) -> None:
        """Let the next tick come due."""
        await until(lambda: self.clock.next_deadline is not None)
        assert self.clock.next_deadline is not None
        self.clock.advance(self.clock.next_deadline - self.clock.monotonic())

    async def register(
        self, key: str = "key", owner: int | None = None, idempotency: str | None = None
    ) -> Registration:
        """Register an agent and wait until that is durable."""
        registration = self.recorder.register(owner, key.encode().ljust(32, b"."), idempotency)
        await soon(self.recorder.durable(registration.seq))
        return registration

    def act(self, agent: int, client_action_id: str, kind: Kind = Kind.LIMIT, **fields: Any) -> int:
        """Submit an action and return its sequence."""
        row = self.row(agent, kind, **fields)
        return self.recorder.submit(row, client_action_id, row.tobytes()[8:24]).receipt.seq

    def act_batch(self, agent: int, *client_action_ids: str, kind: Kind = Kind.LIMIT, **fields: Any) -> Taken:
        """Submit the same action under several ids as one batch."""
        rows = np.concatenate([self.row(agent, kind, **fields) for _ in client_action_ids])
        asked = np.full(len(rows), -1)
        verdicts = np.full(len(rows), int(Verdict.ASKED), np.int32)
        return self.recorder.submit_batch(rows, names_of(client_action_ids), asked, verdicts)

    def row(self, agent: int, kind: Kind = Kind.LIMIT, **fields: Any) -> NDArray[np.void]:
        """Return an action that is valid for a while."""
        return action_row(agent, kind, valid_until=self.world.receipts.tick + 600, **fields)


@asynccontextmanager
async def live_world(folder: Path, **changes: Any) -> AsyncIterator[LiveWorld]:
    """Run a small world; afterwards stop it cleanly, unless its disk has failed."""
    arena = LiveWorld(folder, **changes)
    running = asyncio.create_task(arena.ticker.run())
    try:
        yield arena
    finally:
        arena.ticker.stop()
        await soon(running)
        if arena.world.journal.failed:
            arena.world.lock.release()
        else:
            await soon(arena.world.close())


async def soon(awaitable: Any) -> Any:
    """Await something that must happen within the tests' patience."""
    return await asyncio.wait_for(awaitable, seconds(WAIT_S))


async def until(is_so: Callable[[], bool]) -> None:
    """Let other tasks and threads run until something is so, within the tests' patience."""
    async with asyncio.timeout(seconds(WAIT_S)):
        while not is_so():  # noqa: ASYNC110 - it may depend on another thread, which sets no event
            await asyncio.sleep(0)
