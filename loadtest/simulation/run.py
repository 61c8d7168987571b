"""One seed: lives of a server one after another over the same folder, each ended in its own way, and checked."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Any

from engine.config import Config
from engine.journal import BATCH_RECORD_SIZE
from loadtest.simulation import referee
from loadtest.simulation.clients import Client
from loadtest.simulation.disk import Behaviour, Disk, Operation
from loadtest.simulation.loop import Crashed, VirtualClock, VirtualLoop, VirtualWorkers
from loadtest.simulation.network import Conditions, Network, Request
from loadtest.simulation.operator import Operator
from loadtest.simulation.process import Process
from loadtest.simulation.witness import Witness
from server.config import Settings
from server.live.errors import Frozen, JournalFailed
from server.live.world import LOCK_NAME

FOLDER = Path("/dev/shm")
"""Where the folders of runs are when it exists: nothing of a run needs a real disk."""
UNIX_NS = 1_700_000_000_000_000_000
ENDS = ("kill", "kill", "kill", "power", "power", "power", "stop", "disk")
TICK_RATES_MS = (20, 50, 100, 100, 250, 1_000)
OPERATOR_S = (2.0, 10.0, 10.0, 1e9)
"""Mean times between two commands of the operator while the world runs."""
SNAPSHOT_TICKS = (0, 5, 5, 5, 10, 10, 25, 600)
"""Drawn for each life, as a start may have another setting: some replay long journals, most only what is new to them.

Drawn once for a run, in two of five runs every life replayed all lives before it: more than half of all time.
"""


class Failed(AssertionError):
    """A run found a promise broken. Its message names the seed and says what."""


@dataclass
class Plan:
    """How a life goes. seconds: until it ends; end: in which way; steps: callbacks run after the end was due.

    crash_operation: the life ends at this operation of the disk instead, counted from its start; after: behind it.
    fail_operation: the disk fails at this one, with an error number; is_lasting: and from then on.
    stall_s, slow_s: mean times between two stalls of the loop, two spells of a slow disk.
    """

    seconds: float
    end: str
    steps: int
    crash_operation: int | None
    crash_after: bool
    fail_operation: int | None
    error: int
    is_lasting: bool
    stall_s: float
    slow_s: float


@dataclass
class Summary:
    """What a run did. seconds: in which a server lived. trace: digest of what happened, in order."""

    seed: int
    seconds: float = 0.0
    lives: int = 0
    ticks: int = 0
    steps: int = 0
    acknowledged: int = 0
    twins: int = 0
    failures: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    trace: str = ""


class Run:
    """A run of one seed over so many virtual minutes. plans: of its first lives; the others are drawn."""

    def __init__(self, seed: int, minutes: float, folder: Path, plans: Iterable[Plan] = ()) -> None:
        self.summary = Summary(seed)
        self.witness = Witness()
        self._plans = iter(plans)
        self._draw = random.Random(f"{seed} run")
        self._disk_draw = random.Random(f"{seed} disk")
        self._settings_draw = random.Random(f"{seed} settings")
        self._seconds = 60.0 * minutes
        self._now = 1_000.0
        self._folder = folder
        self._disk = Disk(folder / "world")
        self._trace = blake2b(digest_size=16)
        draw = self._draw
        bad = draw.choice((0.0, 1.0, 1.0, 3.0))
        self._network = Network(random.Random(f"{seed} network"), Conditions(0.02 * bad, 0.03 * bad, 0.05 * bad))
        numbers = count(1)
        self._clients = [
            Client(
                f"c{i}",
                random.Random(f"{seed} client {i}"),
                self._network,
                self.witness,
                draw.choice((0.005, 0.02, 0.1, 0.5)),
                numbers,
            )
            for i in range(draw.randint(1, 6))
        ]
        operator = random.Random(f"{seed} operator")
        self._operator = Operator(operator, operator.choice(OPERATOR_S))
        self._settings = Settings(
            data=folder / "world",
            seed=seed,
            tick_rate=draw.choice(TICK_RATES_MS),
            rate_limit=draw.choice((600, 100_000)),
            address_rate_limit=10_000_000,
            registration_rate_limit=10_000_000,
            history_limit=50,
            resume_frames=draw.choice((4, 4, 4, 20, 20)),
            queue_actions_max=draw.choice((16, 16, 1_024)),
            # the tables of receipts follow it, and each start makes new ones
            receipts_max=20_000,
            engine=Config(residents=2_000, max_agents=64, order_book_max=4_096),
        )

    def run(self) -> Summary:
        """Live until the time is over. Raises Failed."""
        summary = self.summary
        with self._disk.mounted():
            try:
                while summary.seconds < self._seconds:
                    self._live()
                    summary.lives += 1
                self._check("after all", referee.check_from_the_start(self._settings.data, self.witness))
            except Failed:
                raise
            except Exception as error:
                # nothing a disk or a network does may lead to anything we do not know
                raise Failed(f"seed {summary.seed}, in life {summary.lives}: {error!r}") from error
        summary.ticks = len(self.witness.ticks)
        summary.acknowledged = sum(intent.acknowledged for intent in self.witness.intents.values())
        summary.statuses = self.witness.statuses
        summary.trace = self._trace.hexdigest()
        return summary

    def _live(self) -> None:
        plan = next(self._plans, None) or self._plan()
        loop = VirtualLoop(self._now)
        draw = self._draw
        workers = VirtualWorkers(
            loop, lambda: draw.expovariate(1 / 0.0001), lambda: draw.expovariate(1 / draw.choice((0.001, 0.001, 0.05)))
        )
        clock = VirtualClock(loop, UNIX_NS + round(self._now * 1e9))
        life = _Life(plan, loop, workers, clock, self._disk, self._disk_draw, self.witness)
        ended = "did not open"
        try:
            ended = self._open_and_live(life)
        except Crashed:
            ended = plan.end if life.process is not None else f"{plan.end} while opening"
        finally:
            self._disk.is_off = True
            life.bury()
        self._note(f"{ended} at {loop.now:.9f} after {loop.steps} steps, {self._disk.operations} operations")
        self._check(f"in life {self.summary.lives} ({ended})", self.witness.contradictions + life.wrong)
        self.summary.ends[ended] += 1
        self.summary.failures += life.has_failed
        self.summary.steps += loop.steps
        self.summary.seconds += loop.now - self._now
        if ended.startswith("power"):
            self._disk.cut(self._disk_draw)
        self._disk.restart()
        self._now = loop.now + draw.uniform(0.1, 10.0)
        gc.collect(1)

    def _open_and_live(self, life: _Life) -> str:
        settings = replace(self._settings, snapshot_ticks=self._settings_draw.choice(SNAPSHOT_TICKS))
        has_world = any(settings.data.glob("journal-*"))
        copy = self._folder / "twin"
        if has_world:
            shutil.copytree(settings.data, copy)
        try:
            process = life.process = Process(settings, life.loop, life.clock, life.workers, self.witness)
        except OSError:
            if life.has_failed:
                return "disk failed while opening"
            raise
        finally:
            if life.process is None:
                shutil.rmtree(copy, ignore_errors=True)
        where = f"after recovery {self.summary.lives}"
        self._note(f"{where}: tick {process.arena.world.economy.tick}, next {process.arena.world.journal.next_seq}")
        self._check(where, referee.check_journal(settings.data, self.witness))
        self._check(where, referee.check_pause(settings.data, process.arena.world))
        if has_world:
            self._check(where, referee.check_twin(copy, settings, process.arena.world, self.witness))
            self.summary.twins += 1
        self._network.open(life.loop, process.handle)
        return life.loop.run_until_complete(life.live(self._clients, self._operator))

    def _plan(self) -> Plan:
        draw = self._draw
        end = draw.choice(ENDS)
        is_first = self.summary.lives == 0
        # most lives are short: what goes wrong goes wrong around starts and ends
        seconds = draw.choice((0.5, 3.0, 10.0, 30.0, 120.0)) * draw.random()
        at_operation = end in ("kill", "power") and draw.random() < 0.5
        operations = int(draw.choice((8, 40, 400, 4_000)) * draw.random()) + 1
        return Plan(
            seconds=seconds,
            end="stop" if is_first and end == "disk" else end,
            steps=draw.randint(0, 60),
            crash_operation=operations if at_operation else None,
            crash_after=draw.random() < 0.5,
            fail_operation=operations if end == "disk" else None,
            error=draw.choice((errno.EIO, errno.ENOSPC)),
            is_lasting=draw.random() < 0.5,
            stall_s=draw.choice((5.0, 60.0, 1e9)),
            slow_s=draw.choice((5.0, 60.0, 1e9)),
        )

    def _note(self, text: str) -> None:
        self._trace.update(text.encode())

    def _check(self, where: str, wrong: list[str]) -> None:
        if wrong:
            shown = "\n  ".join(wrong[:10])
            raise Failed(f"seed {self.summary.seed}, {where}:\n  {shown}")


class _Life:
    """One process from its opening to its end."""

    def __init__(
        self,
        plan: Plan,
        loop: VirtualLoop,
        workers: VirtualWorkers,
        clock: VirtualClock,
        disk: Disk,
        draw: random.Random,
        witness: Witness,
    ) -> None:
        self.process: Process | None = None
        self.loop = loop
        self.workers = workers
        self.clock = clock
        self.has_failed = False
        self.wrong: list[str] = []
        self._plan = plan
        self._draw = draw
        self._disk = disk
        self._witness = witness
        self._first_operation = disk.operations
        self._slow_until = 0.0
        self._written_seq = 0
        self._journals: set[Path] = set()
        self._others: list[asyncio.Task[None]] = []
        loop.set_exception_handler(self._unhandled)
        disk.behaviour = Behaviour(self._delay, self._failure, workers.sleep, self._before, self._after)

    async def live(self, clients: list[Client], operator: Operator) -> str:
        """Serve clients and operator until the plan's end; return how it ended."""
        process, plan = self.process, self._plan
        assert process is not None
        running = asyncio.ensure_future(process.run())
        faults = (self._stall(), self._slow(), self._jump())
        works = (process.watch(), operator.live(process), *faults, *(client.live() for client in clients))
        self._others = [asyncio.ensure_future(work) for work in works]
        is_crash = plan.end in ("kill", "power")
        if is_crash:
            # a disk that is not asked as often as planned does not end a life
            self.loop.call_later(plan.seconds if plan.crash_operation is None else 60.0, self.loop.crash, plan.steps)
        await asyncio.sleep(1e6 if is_crash else plan.seconds)
        if self.has_failed:
            await self._check_failed(process)
        if self.has_failed and self._draw.random() < 0.5:
            self.loop.crash()
            await asyncio.sleep(1e6)
        return await self._stop(process, running)

    async def _check_failed(self, process: Process) -> None:
        """See to it that a process on a failed disk lives, reads on, takes no input, and says so."""
        if not process.arena.world.journal.failed:
            return
        status = await process.ask(Request(0, "GET", "/api/status"))
        if status.document["status"] != "read_only" or not status.document["reason"]:
            self.wrong.append(f"on a failed disk the status is {status.document}")
        json = ((b"content-type", b"application/json"),)
        refused = await process.ask(Request(0, "POST", "/api/agents/register", json, b"{}"))
        if refused.status != 503:
            self.wrong.append(f"on a failed disk a registration was answered {refused.status}")
        read = await process.ask(Request(0, "GET", "/api/indicators"))
        if read.status != 200:
            self.wrong.append(f"on a failed disk a read was answered {read.status}")
        metrics = await process.ask(Request(0, "GET", "/metrics"))
        if process.arena.ticker.frozen and b"arena_read_only 1.0" not in metrics.body:
            self.wrong.append("the metrics do not tell of a failed disk")

    async def _stop(self, process: Process, running: asyncio.Task[None]) -> str:
        if not await process.drain():
            self.wrong.append("a request was cut by a drain")
        for task in self._others:
            task.cancel()
        await running
        try:
            await process.arena.world.close()
        except JournalFailed:
            if not self.has_failed:
                raise
            return "stopped on a failed disk"
        return "stop"

    def bury(self) -> None:
        """End everything that still waits, without letting any of it have an effect."""
        self._check_tasks(self._others)
        self.workers.kill()
        self.wrong += [f"a thread ended with {error!r}" for error in self.workers.failures]
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is ended here, on purpose
            with suppress(RuntimeError):
                task.get_coro().close()
        self.loop.close()
        # a process that ends gives up its lock, even one that died while taking it
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                if descriptor.readlink() == self._disk.folder / LOCK_NAME:
                    os.close(int(descriptor.name))

    def _check_tasks(self, tasks: Iterable[asyncio.Future[Any]]) -> None:
        for task in tasks:
            error = task.exception() if task.done() and not task.cancelled() else None
            # a world that stands still publishes nothing more
            if error is not None and not isinstance(error, Frozen):
                self.wrong.append(f"{task} ended with {error!r}")

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        # threads of a process that is ended on purpose
        if not isinstance(error, Crashed):
            self.wrong.append(f"{context['message']}: {error!r}")

    # -- what goes wrong ----------------------------------------------------------------------------------------

    async def _stall(self) -> None:
        while True:
            await asyncio.sleep(self._draw.expovariate(1 / self._plan.stall_s))
            self.loop.now += self._draw.uniform(0.05, 2.0)

    async def _slow(self) -> None:
        while True:
            await asyncio.sleep(self._draw.expovariate(1 / self._plan.slow_s))
            self._slow_until = self.loop.now + self._draw.uniform(0.1, 3.0)

    async def _jump(self) -> None:
        while True:
            await asyncio.sleep(self._draw.expovariate(1 / 10.0))
            self.clock.jump(self._draw.choice((-86_400.0, -1.0, 1.0, 86_400.0)))

    def _delay(self, operation: Operation) -> float:
        mean = 0.0015 if operation.name == "sync" else 0.00005
        if self.loop.now < self._slow_until:
            mean *= self._draw.choice((10.0, 100.0, 500.0))
        return self._draw.expovariate(1 / mean)

    def _failure(self, operation: Operation) -> int | None:
        plan, number = self._plan, operation.number - self._first_operation
        if plan.fail_operation is None or number < plan.fail_operation:
            return None
        if number > plan.fail_operation and not plan.is_lasting:
            return None
        self.has_failed = True
        return plan.error

    def _before(self, operation: Operation) -> None:
        self._crash_at(operation, is_after=False)

    def _after(self, operation: Operation, data: bytes) -> None:
        if operation.path.name.startswith("journal-") and self.process is not None:
            if operation.name == "write" and len(data) >= BATCH_RECORD_SIZE:
                # a batch names the last record in it
                self._written_seq = int.from_bytes(data[BATCH_RECORD_SIZE - 8 : BATCH_RECORD_SIZE], "little")
            elif operation.name == "sync" and self._written_seq:
                self.process.durable_seq = self._written_seq
        self._crash_at(operation, is_after=True)

    def _crash_at(self, operation: Operation, *, is_after: bool) -> None:
        plan = self._plan
        if plan.crash_operation != operation.number - self._first_operation or plan.crash_after is not is_after:
            return
        self.loop.crash()
        thread = self.workers.current
        if thread is None:
            raise Crashed
        thread.pause()


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder for a run; remove it afterwards, and let go of the memory."""
    with tempfile.TemporaryDirectory(dir=FOLDER if FOLDER.is_dir() else None) as folder:
        yield Path(folder)
    # a dead server has set everything it had aside from the collector, and never took it back
    gc.unfreeze()
    gc.collect()


def run_seed(seed: int, minutes: float) -> Summary:
    """Run a seed in a folder of its own. Raises Failed."""
    with scratch() as folder:
        try:
            return Run(seed, minutes, folder).run()
        finally:
            referee.forget()


def fail_everywhere(seed: int, error: int, *, is_lasting: bool, first: int = 1, step: int = 1) -> int:
    """Let each operation of a short life's disk fail in turn; return how many there were. Raises Failed.

    error: what it fails with; is_lasting: whether the later ones fail as well. first, step: which are tried.
    """
    quiet = Plan(0.3, "stop", 0, None, False, None, error, is_lasting, 1e9, 1e9)
    for number in count(first, step):
        with scratch() as folder:
            plans = (quiet, replace(quiet, seconds=0.8, end="disk", fail_operation=number), quiet)
            failing = Run(seed, 1.4 / 60, folder, plans)
            if not failing.run().failures:
                return number - 1
    raise AssertionError("a life has an end")
