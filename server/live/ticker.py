"""The tick loop: drain, mark, advance, publish, on a schedule that overruns may bend but never break.

    deadline -> drain the queue, append mark n -> kernels in their thread | fdatasync in the journal's
             -> both done: receipts, agents, one immutable View to everybody -> wait for the next deadline

An action belongs to tick n if and only if its record precedes mark n. A late tick runs at once, never two at a time,
none is skipped; after three late ones in a row the schedule begins anew. Source: DESIGN D5, D19, R6, R7, R13.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import numpy as np
import structlog
from arena_client.wire import State as WireState
from numpy.typing import NDArray

from engine.commands import Command
from engine.errors import InvariantBroken
from engine.events import TickReport
from engine.journal import NO_HASH, Mark, RecordKind, encode_mark
from engine.state_bytes import StateBytes, hash_bytes
from server.clock import Clock
from server.live.array_file import Arrays
from server.live.collector import Collector
from server.live.errors import Frozen, JournalFailed
from server.live.frames import quantise
from server.live.journal import SegmentStart
from server.live.recorder import Recorder
from server.live.snapshots import Standing
from server.live.view import View
from server.live.watchdog import LoopWait, Watchdog
from server.live.watermark import Watermark
from server.live.workers import SYSTEM, Workers
from server.live.world import World
from server.metrics import Metrics

HASH_EVERY = 10
"""Ticks between two state hashes."""
CHECKED_RESIDENTS_MAX = 1_000_000
"""Largest world whose money and goods are added up in every tick: .4 ms at 100,000 residents. Larger ones are checked
once a simulated day."""
LATE_TICKS_MAX = 3
"""Late ticks in a row after which the schedule begins anew."""
STARTS_KEPT = 4_096
"""Starts of ticks kept for whoever measures: nearly seven minutes at ten a second."""
LATENESS_SAID_S = 0.050
"""A tick that begins later than this is logged, with what the machine did meanwhile."""
NO_STATE_HASH = bytes(16)

OnPublish = Callable[[View], None]
OnComputed = Callable[[int, Mapping[str, WireState]], None]

log = structlog.get_logger("arena.ticker")


class Start(NamedTuple):
    """How a tick began. deadline: monotonic seconds; lateness: seconds after it.

    stalled: seconds of the lateness, and of the time since the start before, in which the machine did not run the
    watchdog. waited: seconds since the start before in which it did not run the event loop's thread.
    """

    tick: int
    deadline: float
    lateness: float
    stalled: float
    waited: float


class Spent(NamedTuple):
    """Where the time of a tick went, seconds one behind the other.

    kernels: from the mark to the end of the kernels; frames: what is prepared behind them in their thread; waited: for
    the mark to be on disk and for the event loop; published: making it visible.
    """

    kernels: float = 0.0
    frames: float = 0.0
    waited: float = 0.0
    published: float = 0.0


class StateHash(NamedTuple):
    """The hash of the world after a tick."""

    tick: int
    value: bytes


class Schedule:
    """When ticks are due: every period from an anchor, moved only when three in a row began late.

    A tick is late when it begins after the next one was due.
    """

    def __init__(self, period: float, now: float) -> None:
        self.period = period
        self.deadline = now + period
        self._late = 0

    def restart(self, now: float) -> None:
        """Let the next tick be due a period from now: the world stood still on purpose."""
        self.deadline = now + self.period
        self._late = 0

    def begun(self, now: float) -> bool:
        """Take in that the tick due at `deadline` begins now, set the next deadline; return whether it was late."""
        is_late = now - self.deadline > self.period
        self._late = self._late + 1 if is_late else 0
        if self._late >= LATE_TICKS_MAX:
            self._late = 0
            self.deadline = now
        self.deadline += self.period
        return is_late


class Ticker:
    """Owns the pulse of a world. `run` ticks until `stop`; everything else waits for it or asks it.

    on_computed: called one after another with the number and the states of each tick, in the thread of the kernels,
    while the tick may not be durable yet: what can be prepared then is not waited for when it is. on_publish: called
    one after another, in order, with the view of each tick when it is computed and durable.
    """

    def __init__(
        self,
        world: World,
        recorder: Recorder,
        *,
        tick_rate_ms: int,
        metrics: Metrics,
        clock: Clock,
        watchdog: Watchdog,
        collector: Collector,
        on_computed: Sequence[OnComputed] = (),
        on_publish: Sequence[OnPublish] = (),
        workers: Workers = SYSTEM,
    ) -> None:
        self.view: View | None = None
        """The last published view; None before the first tick of this process."""
        self.latest_hash: StateHash | None = None
        """The newest state hash computed in this process."""
        self.starts: deque[Start] = deque(maxlen=STARTS_KEPT)
        self._world = world
        if world.economy.config.residents <= CHECKED_RESIDENTS_MAX:
            # a leak is found before the tick it happened in is shown
            world.economy.checks = 1
        self._recorder = recorder
        self._period = tick_rate_ms / 1_000
        self._metrics = metrics
        self._clock = clock
        self._watchdog = watchdog
        self._collector = collector
        self._on_computed = tuple(on_computed)
        self._on_publish = tuple(on_publish)
        self._published = Watermark(world.economy.tick)
        self._frozen: str | None = None
        self._stopping = asyncio.Event()
        self._is_paused = world.is_paused
        self._steps = 0
        """Ticks that are to happen while it is paused."""
        self._commanded = asyncio.Event()
        """Set when an operator has said something that whoever waits for a tick must look at."""
        self._nap: asyncio.Timeout | None = None
        """Ends the wait for a deadline that is under way."""
        self._tidying: asyncio.TimerHandle | None = None
        """Has the collector step half a period after a tick."""
        self._settled = asyncio.Event()
        self._settled.set()
        self._kernels = workers.executor("tick")
        self._hashing = workers.executor("hash")
        self._hash: Future[StateHash] | None = None
        self._copies = deque((StateBytes(world.economy.state), StateBytes(world.economy.state)))
        """What hashes and snapshots are taken of, by turns, so that both have their pages when they are needed; the
        last one that was written is in front."""
        self._lent: StateBytes | None = None
        """The one a snapshot is written from."""
        self._hashed: StateBytes | None = None
        """The one the hash under way, if any, is taken of."""
        self._phases: list[tuple[str, float]] = []
        self._marked = self._computed = self._prepared = 0.0
        """When the mark of the tick under way was appended, its kernels were done, and what follows them in their
        thread (monotonic seconds)."""
        self._spent = Spent()
        """By the tick before."""
        self._states: Mapping[str, WireState] = {}
        """What every state channel shows after the tick under way."""
        self._behind = SegmentStart(0, b"")
        """Where the journal goes on behind the mark of the tick under way."""
        self._is_taken = False
        """Whether a snapshot is due after that tick."""
        self._copy: Arrays = []
        """The world after that tick, when one is."""

    @property
    def published_tick(self) -> int:
        """The last tick that everybody may see."""
        return self._published.value

    @property
    def next_tick(self) -> int:
        """The tick that what is accepted now belongs to."""
        return self.published_tick + (1 if self._settled.is_set() else 2)

    @property
    def is_paused(self) -> bool:
        """Whether no tick begins until resume()."""
        return self._is_paused

    @property
    def frozen(self) -> str | None:
        """Why the world stands still for good; None while it does not."""
        return self._frozen

    async def run(self) -> None:
        """Tick until stop() or until the world freezes; returns with no tick half done."""
        self._world.journal.start()
        schedule = Schedule(self._period, self._clock.monotonic())
        loop_wait, loop = LoopWait(), asyncio.get_running_loop()
        before = self._clock.monotonic()
        try:
            while await self._due(schedule):
                deadline, now = schedule.deadline, self._clock.monotonic()
                is_late = schedule.begun(now)
                self._note(deadline, before, now, loop_wait.take(), is_late=is_late)
                before = now
                if not await self._tick(deadline):
                    return
                # far from publication and deadline: beside them it made the longest pauses, 5 ms (loop_pause)
                self._tidying = loop.call_later(self._period / 2, self._collector.step)
        finally:
            loop_wait.close()
            if self._tidying is not None:
                self._tidying.cancel()
            # a frozen world answers reads for as long as it is left to, and nobody steps the collector any more
            self._collector.stop()
            self._kernels.shutdown()
            self._hashing.shutdown()

    def stop(self) -> None:
        """Let run() return after the tick that is under way, if one is."""
        self._stopping.set()
        self._say()

    def pause(self) -> None:
        """Let no tick begin but those of step(); one that is under way ends."""
        self._set_paused(True)

    def resume(self) -> None:
        """Let ticks begin again, the first a period from now."""
        self._set_paused(False)

    def step(self, ticks: int) -> int:
        """Let so many ticks happen at once, one after another, while it is paused; return the last of them."""
        self._steps += ticks
        self._say()
        return self.next_tick + self._steps - 1

    def _set_paused(self, is_paused: bool) -> None:
        self._is_paused = self._world.is_paused = is_paused
        self._steps = 0
        self._metrics.paused.set(is_paused)
        self._say()

    def _say(self) -> None:
        """Have whoever waits for a tick look at what was said."""
        self._commanded.set()
        nap, self._nap = self._nap, None
        if nap is not None:
            nap.reschedule(asyncio.get_running_loop().time())

    async def wait_tick(self, tick: int) -> None:
        """Return when that tick is published. Raises Frozen when it never will be."""
        await self._published.reached(tick)

    @asynccontextmanager
    async def settled(self) -> AsyncIterator[None]:
        """Wait until the arrays hold exactly what is published; they do until the block awaits something.

        Raises Frozen when the world stopped in the middle of a tick.
        """
        while not self._settled.is_set():
            await self._settled.wait()
        if self._frozen is not None:
            raise Frozen(self._frozen)
        yield

    async def _due(self, schedule: Schedule) -> bool:
        """Wait until the next tick is to begin; return False when the loop is to end instead."""
        while not self._stopping.is_set():
            self._commanded.clear()
            if self._is_paused and not self._steps:
                await self._command()
                schedule.restart(self._clock.monotonic())
            elif self._is_paused:
                self._steps -= 1
                schedule.deadline = self._clock.monotonic()
                return True
            elif await self._slept(schedule.deadline):
                return True
        return False

    async def _command(self) -> None:
        """Wait until something is said. Requests leave garbage meanwhile."""
        while not self._commanded.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._period):
                    await self._commanded.wait()
            if not self._commanded.is_set():
                self._collector.step()

    async def _slept(self, deadline: float) -> bool:
        """Wait for a deadline; return False when something was said before it came."""
        # in this task: with tasks in between a tick began two turns of the event loop later, under load 10 ms
        try:
            async with asyncio.timeout(None) as self._nap:
                await self._clock.sleep_until(deadline)
        except TimeoutError:
            return False
        finally:
            self._nap = None
        return not self._commanded.is_set()

    def _note(self, deadline: float, before: float, now: float, waited: float, *, is_late: bool) -> None:
        # one long stall makes several ticks late: it lies between the deadline of each and its start
        stalled = self._watchdog.stalled_s(min(before, deadline), now)
        self.starts.append(Start(self.published_tick + 1, deadline, now - deadline, stalled, waited))
        self._metrics.tick_lateness_seconds.observe(max(0.0, now - deadline))
        if now - deadline > LATENESS_SAID_S:
            log.warning(
                "tick_began_late",
                tick=self.published_tick + 1,
                lateness_ms=round(1_000 * (now - deadline), 3),
                stalled_ms=round(1_000 * stalled, 3),
                waited_ms=round(1_000 * waited, 3),
                before_ms={name: round(1_000 * spent, 3) for name, spent in self._spent._asdict().items()},
            )
        if is_late:
            self._metrics.ticks_late.inc()

    async def _tick(self, deadline: float) -> bool:
        """Run the next tick from its mark to its publication; return whether the world may go on."""
        self._settled.clear()
        try:
            actions, commands = self._world.queue.drain(), self._recorder.take_commands()
            unix_ns = self._clock.unix_ns()
            seq = self._append_mark(len(actions), unix_ns)
            self._marked = self._clock.monotonic()
            kernels = asyncio.get_running_loop().run_in_executor(self._kernels, self._advance, actions, commands)
            # the sync is waited for first: when it fails the kernels are still let finish
            synced, report = await asyncio.gather(self._world.journal.durable(seq), kernels, return_exceptions=True)
            for result in (report, synced):
                if isinstance(result, BaseException):
                    raise result
            assert isinstance(report, TickReport)
            self._publish(report, deadline, unix_ns)
        except JournalFailed as error:
            self._freeze(str(error))
        except InvariantBroken as error:
            self._freeze(f"an invariant of the world is broken: {error}")
            await self._inspect(error)
        except Exception as error:
            # whatever it is, the arrays can no longer be trusted: a world that ticks on would spread it
            log.exception("tick_failed")
            self._freeze(f"a tick failed: {type(error).__name__}: {error}")
        finally:
            self._settled.set()
        return self._frozen is None

    def _append_mark(self, actions: int, unix_ns: int) -> int:
        """End the input of the next tick: what is appended from here on belongs to a later one."""
        hashed = self._take_hash()
        mark = Mark(
            tick=self.published_tick + 1,
            unix_ns=unix_ns,
            actions=actions,
            hashed_tick=hashed.tick if hashed else NO_HASH,
            state_hash=hashed.value if hashed else NO_STATE_HASH,
            chain=self._world.journal.chain.close(),
        )
        seq = self._world.journal.append(RecordKind.MARK, encode_mark(mark))
        # what follows the mark is what a start from a snapshot replays
        journal, snapshots = self._world.journal, self._world.snapshots
        if not snapshots.is_taking:
            self._lent = None
        self._is_taken = snapshots.is_due(mark.tick)
        is_over = self._is_taken or journal.segment_is_full
        self._behind = journal.rotate() if is_over else SegmentStart(seq + 1, journal.chain.value)
        return seq

    def _take_hash(self) -> StateHash | None:
        if self._hash is None or not self._hash.done():
            return None
        self.latest_hash, self._hash = self._hash.result(), None
        return self.latest_hash

    def _advance(self, actions: NDArray[np.void], commands: list[Command]) -> TickReport:
        """Run the kernels, in their thread; time each phase; start the hash of every tenth tick."""
        economy = self._world.economy
        phases: list[tuple[str, float]] = []
        last = self._clock.monotonic()

        def observe(name: str) -> None:
            nonlocal last
            now = self._clock.monotonic()
            phases.append((name, now - last))
            last = now

        report = economy.advance(actions, observe, commands)
        self._phases, self._computed = phases, self._clock.monotonic()
        # here, where the disk is waited for anyway: on the event loop it made every subscriber wait .6 ms
        self._states = quantise(report.public)
        for callback in self._on_computed:
            callback(report.tick, self._states)
        # a hash that is still being computed is left to finish: the next tenth tick will have its own
        is_hashed = report.tick % HASH_EVERY == 0 and self._hash is None
        if is_hashed or self._is_taken:
            data = self._copied().take()
            if self._is_taken:
                self._lent = self._copies[0]
                self._copy = self._lent.arrays()
            if is_hashed:
                self._hashed = self._copies[0]
                self._hash = self._hashing.submit(lambda: StateHash(report.tick, hash_bytes(data)))
        self._prepared = self._clock.monotonic()
        return report

    def _copied(self) -> StateBytes:
        """Return what the world may be copied into: nobody reads it.

        There is one: a snapshot is taken when none is being written, a hash when none is being computed.
        """
        if self._copies[1] is not self._lent and (self._hash is None or self._copies[1] is not self._hashed):
            self._copies.rotate()
        return self._copies[0]

    def _publish(self, report: TickReport, deadline: float, marked_unix_ns: int) -> None:
        """Make a tick visible: everything here happens in one step of the event loop."""
        committed_unix_ns, began = self._clock.unix_ns(), self._clock.monotonic()
        self._metrics.tick_sync_wait_seconds.observe(max(0.0, began - self._computed))
        world, metrics = self._world, self._metrics
        world.receipts.apply(report)
        gone = world.registry.apply(report, world.economy.state)
        world.agents.publish(report, self._clock.unix_ns(), world.economy.state)
        world.events.add(report.events)
        world.registry.follow(world.economy.config)
        world.standing = Standing(report.tick, marked_unix_ns, self._behind, world.economy.config, self._is_paused)
        if self._is_taken:
            world.snapshots.take(world.standing, self._copy)
            self._copy = []
        world.snapshots.flush_receipts()
        self.view = View(report, world.epoch, committed_unix_ns, marked_unix_ns, states=self._states)
        for callback in self._on_publish:
            callback(self.view)
        self._published.rise(report.tick)
        for name, seconds in self._phases:
            metrics.tick_seconds.labels(name).observe(seconds)
        metrics.tick_total_seconds.observe(self._clock.monotonic() - deadline)
        metrics.ticks.inc()
        metrics.tick.set(report.tick)
        metrics.receipts.set(len(world.receipts))
        metrics.receipts_in_memory.set(world.receipts.in_memory)
        metrics.receipt_index_bytes.set(world.receipts.index.memory_bytes)
        metrics.receipt_generations.set(len(world.receipts.index.generations))
        metrics.agents.set(world.registry.active)
        metrics.observe_report(report)
        checks = world.economy.checks
        if checks and (report.tick + 1) % checks == 0:
            metrics.conservation_checks.inc()
        for reason in gone.values():
            metrics.unregistrations.labels(reason).inc()
        self._spent = Spent(
            kernels=self._computed - self._marked,
            frames=self._prepared - self._computed,
            waited=began - self._prepared,
            published=self._clock.monotonic() - began,
        )

    def _freeze(self, reason: str) -> None:
        """Stop for good: no tick, no input; what was published stays readable."""
        log.error("world_frozen", reason=reason, published_tick=self.published_tick)
        self._frozen = reason
        self._metrics.read_only.set(1)
        self._recorder.freeze(reason)
        self._published.fail(Frozen(reason))

    async def _inspect(self, error: InvariantBroken) -> None:
        """Write down the arrays of a broken world for people to look into; a full disk must not end the reads."""
        write = self._world.write_inspection
        try:
            inspection = str(await asyncio.get_running_loop().run_in_executor(self._kernels, write))
        except OSError as failure:
            inspection = f"not written: {failure}"
        log.error("invariant_broken", error=str(error), inspection=inspection)
