"""Snapshots: the whole world after a tick in one file, so that a start replays minutes instead of everything.

    mark n -> journal begins a new segment -> tick n -> copies of arrays, receipts, agents (event loop)
           -> receipts, events, snapshot on disk, old snapshots and segments put away (a thread) -> done (event loop)

A snapshot begins with its tick's mark behind it: what follows are the records from `sequence` on. It is written in
slices, each synced by itself, so that neither a tick nor a sync of the journal waits for much of it. A server that
stops leaves one of its last tick, inside of a segment, if it can be had before the stop must be over.
Source: DESIGN D21, D23, R4, R11; specification 004, automatic data archival and cleanup.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import Callable, Coroutine, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from engine.config import Config
from engine.economy import hash_copy
from engine.state import LAYOUT_VERSION
from server.clock import Clock
from server.live import agent_store
from server.live.agent_log import AgentLog, LogCopy
from server.live.array_file import SLICE_BYTES, Arrays, NotWhole, read_arrays, read_header, write_arrays
from server.live.disk import remove, write_whole
from server.live.errors import ReceiptDamaged
from server.live.event_store import EventStore
from server.live.journal import ARCHIVE_NAME, SegmentStart, first_sequence, segment_paths
from server.live.receipt_index import FOLDER_NAME as RECEIPTS_NAME
from server.live.receipt_index import Generation, Merge, merge, write_generation
from server.live.receipts import Receipts, Rows, Settled, open_arrays
from server.live.registry import AgentRegistry, RegistryCopy
from server.live.warm import world_header
from server.live.workers import SYSTEM, Workers
from server.memory import trim
from server.metrics import Metrics

FOLDER_NAME = "snapshots"
NEWEST_KEPT = 3
HOUR_S, DAY_S = 3_600, 86_400
HOURLY_FOR_S, DAILY_FOR_S = DAY_S, 7 * DAY_S
PACKING_LEVEL = 3
"""Of segments: 136 MB a second to 0.28 of their size; the highest level took 34 times as long for 0.27."""
PAUSE_S = 0.001
"""Between two slices of a file."""
BREATH_S = 0.0003
"""Between two parts of what is gone through in Python."""
FINAL_S = 5.0
"""Longest that a stop waits for its snapshot unless it is told: DESIGN R11 gives 10 s in all."""
_SUFFIX = ".arf"

log = structlog.get_logger("arena.snapshots")


class Named(NamedTuple):
    """A snapshot by its name. unix_s: wall clock when its tick began."""

    tick: int
    unix_s: int
    path: Path


class Snapshot(NamedTuple):
    """What a snapshot holds. arrays: of the world and of what was rebuilt with it, by name."""

    header: dict[str, Any]
    arrays: dict[str, Any]

    @property
    def tick(self) -> int:
        """The last tick that is in it."""
        return int(self.header["tick"])

    @property
    def sequence(self) -> int:
        """The first record that is not in it."""
        return int(self.header["sequence"])

    @property
    def engine_version(self) -> int:
        """Of the release that computed its tick."""
        return int(self.header["engine_version"])

    @property
    def root(self) -> int | None:
        """The tick of the snapshot with which that release took the world over; None when it began it."""
        root: int | None = self.header["root"]
        return root

    @property
    def receipt_files(self) -> list[tuple[str, int]]:
        """Name and last valid tick of each file of settled receipts."""
        return [(str(name), int(ends)) for name, ends in self.header["receipts"]]

    @property
    def world(self) -> Arrays:
        """The persistent arrays of the economy."""
        return [(name, self.arrays[name]) for name in self.header["world"]]


class Standing(NamedTuple):
    """Where a world stands. unix_ns: wall clock when its tick began; start: what follows the tick's mark.

    config: in force. is_paused: whether an operator has paused it.
    """

    tick: int
    unix_ns: int
    start: SegmentStart
    config: Config
    is_paused: bool


class _Job(NamedTuple):
    """A snapshot to be written."""

    at: Standing
    world: Arrays
    settled: Settled
    opened: Rows
    registry: RegistryCopy
    agents: tuple[LogCopy, ...]
    events_size: int


class Snapshots:
    """Takes the snapshots of a running world, one at a time. Everything but the writing is on one event loop's thread.

    every: ticks between two; 0: none are taken. behind: ticks that some start may want to replay behind one. root: tick
    of the one with which this release took the world over, which is kept for good; None when there is none.
    """

    def __init__(
        self,
        folder: Path,
        epoch: str,
        receipts: Receipts,
        registry: AgentRegistry,
        agents: AgentLog,
        events: EventStore,
        metrics: Metrics,
        clock: Clock,
        every: int,
        behind: int,
        root: int | None,
        workers: Workers = SYSTEM,
    ) -> None:
        self.newest: int | None = None
        """Tick of the last one that was taken in this process."""
        self.is_taking = False
        """Whether one is being written: until then the arrays that take() was given stay as they are."""
        self._folder = folder
        self._epoch = epoch
        self._receipts = receipts
        self._registry = registry
        self._agents = agents
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._every = every
        self._behind = behind
        self._root = root
        self._writing: asyncio.Future[None] | None = None
        """The last write that was begun; each begins when the one before has ended."""
        self._chores: set[asyncio.Future[None]] = set()
        """Merges of receipts and packing of segments that are under way or wait for their turn."""
        self._retired: list[tuple[Path, int]] = []
        """Files of receipts that only snapshots need, if any, each with the last tick of its receipts' validity."""
        self._hurry = workers.event()
        self._deadline = float("inf")
        """When a stop gives up what it still writes; monotonic seconds."""
        self._thread = workers.executor("snapshot")
        self._chore_thread = workers.executor("chores")

    def is_due(self, tick: int) -> bool:
        """Whether a snapshot is to be taken after that tick."""
        if not self._every or tick % self._every or self._events.failed:
            return False
        if self.is_taking:
            self._metrics.snapshots.labels("skipped").inc()
            log.warning("snapshot_skipped", tick=tick, reason="the one before is still being written")
            return False
        return True

    def take(self, at: Standing, world: Arrays) -> None:
        """Begin to write the world as it is after a tick. world: copies of its arrays, unchanged while is_taking."""
        self.is_taking = True
        job = self._job(at, world)
        self._run(lambda generations: self._write(job, generations), lambda done: self._taken(at.tick, done))

    async def finish(self, at: Standing, world: Arrays, deadline: float | None = None) -> None:
        """Write the world as it stands still, unless that is there or cannot be had in time; nothing comes after it.

        deadline: monotonic seconds; None gives it FINAL_S.
        """
        await self._quiet()
        known = any(named.tick == at.tick for named in list_snapshots(self._folder))
        if known or not self._every or self._events.failed:
            return
        self._deadline = self._clock.monotonic() + FINAL_S if deadline is None else deadline
        job = self._job(at, world)
        self._run(lambda generations: self._write(job, generations), lambda done: self._taken(at.tick, done))
        await self._quiet()

    def flush_receipts(self) -> None:
        """Write settled receipts to the index when there are many; a snapshot does it anyhow."""
        if self._receipts.should_flush:
            tick, settled = self._receipts.tick, self._receipts.flush()
            self._run(lambda _: self._write_receipts(tick, settled), self._flushed)

    async def idle(self) -> None:
        """Return when nothing is being written, merged or put away."""
        while self._writing is not None or self._chores:
            await asyncio.wait([*self._chores, *([self._writing] if self._writing else [])])

    async def close(self) -> None:
        """Wait for the one that is being written; it does not pause any more. A merge is given up."""
        await self._quiet()
        self._thread.shutdown()
        self._chore_thread.shutdown()

    async def _quiet(self) -> None:
        self._hurry.set()
        await self.idle()

    def _job(self, at: Standing, world: Arrays) -> _Job:
        # what came behind the mark is open as well, and its replay brings it again
        opened = self._receipts.open_before(at.start.sequence)
        return _Job(
            at, world, self._receipts.flush(), opened, self._registry.copy(), self._agents.copy(), self._events.size
        )

    def _run(
        self,
        work: Callable[[tuple[Generation, ...]], Generation | None],
        done: Callable[[Generation | None], None],
    ) -> None:
        """Do work in a thread, given the generations before it, and then done on the loop; one after another."""
        before = self._writing
        self._retired += self._receipts.index.take_retired()
        retired, self._retired = self._retired, []
        oldest = self._receipts.oldest

        async def run() -> None:
            if before is not None:
                await before
            began = self._clock.monotonic()
            try:
                generations = self._receipts.index.generations
                loop = asyncio.get_running_loop()
                generation = await loop.run_in_executor(self._thread, work, generations)
                self._retired += await loop.run_in_executor(self._thread, self._remove_retired, retired, oldest)
            except OSError as error:
                # the receipts stay in memory, and nothing is lost but time at the next start
                self._retired += retired
                self._receipts.take_back()
                self.is_taking = False
                self._metrics.snapshots.labels("failed").inc()
                log.error("snapshot_failed", error=str(error))
                return
            done(generation)
            self._metrics.snapshot_seconds.observe(self._clock.monotonic() - began)

        writing = self._writing = asyncio.ensure_future(run())
        writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[None]) -> None:
        if self._writing is writing:
            self._writing = None
        if not self._hurry.is_set():
            self._do(self._give_back())

    def _taken(self, tick: int, generation: Generation | None) -> None:
        self._flushed(generation)
        self.is_taking = False
        self.newest = tick
        if not self._hurry.is_set():
            self._do(self._archive())
        self._metrics.snapshots.labels("taken").inc()
        self._metrics.snapshot_tick.set(tick)

    def _flushed(self, generation: Generation | None) -> None:
        self._receipts.adopt(generation)
        if not self._hurry.is_set() and (wanted := self._receipts.index.to_merge(self._receipts.oldest)) is not None:
            self._do(self._merge(wanted))

    def _do(self, chore: Coroutine[Any, Any, None]) -> None:
        """Let something be done beside everything else."""
        doing = asyncio.ensure_future(chore)
        self._chores.add(doing)
        doing.add_done_callback(self._chores.discard)

    async def _merge(self, wanted: Merge) -> None:
        """Write generations of receipts into one."""
        index, tick = self._receipts.index, self._receipts.tick
        began = self._clock.monotonic()

        def work() -> Generation | None:
            return merge(self._folder / RECEIPTS_NAME, tick, wanted, self._pause_or_end)

        try:
            merged = await asyncio.get_running_loop().run_in_executor(self._chore_thread, work)
        except InterruptedError:
            # the server stops: the next one merges them
            index.leave()
            return
        except (OSError, ReceiptDamaged) as error:
            index.leave()
            log.error("receipts_not_merged", error=str(error))
            return
        index.replace(merged)
        self._metrics.receipt_merge_seconds.observe(self._clock.monotonic() - began)

    async def _give_back(self) -> None:
        """Give back what writing took: up to 15 MB were left free but resident."""
        await asyncio.get_running_loop().run_in_executor(self._chore_thread, trim)

    async def _archive(self) -> None:
        """Pack the segments that none of the newest snapshots needs."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._chore_thread, self._pack)
        except OSError as error:
            # they stay as they are until the next snapshot
            log.error("segments_not_packed", error=str(error))

    def _pack(self) -> None:
        known = list_snapshots(self._folder)
        if len(known) >= NEWEST_KEPT:
            archive(self._folder, read_header(known[-NEWEST_KEPT].path)["sequence"], self._pause, self._hurry.is_set)

    def _write_receipts(self, tick: int, settled: Settled) -> Generation | None:
        return write_generation(self._folder / RECEIPTS_NAME, tick, settled.rows(), self._pause)

    def _remove_retired(self, retired: list[tuple[Path, int]], oldest: int) -> list[tuple[Path, int]]:
        """Remove files of receipts that nobody needs, and return the others."""
        if not retired:
            return []
        named = set(named_receipts(self._folder))
        kept = [(path, ends) for path, ends in retired if path in named and ends >= oldest]
        for path, _ in set(retired) - set(kept):
            # after a power cut it may be back: a start removes what nothing names
            path.unlink(missing_ok=True)
        return kept

    def _write(self, job: _Job, generations: tuple[Generation, ...]) -> Generation | None:
        """Write everything a start from here needs, the snapshot itself last; remove those that no rule keeps."""
        at = job.at
        generation = self._write_receipts(at.tick, job.settled)
        self._events.sync()
        # a file whose receipts all ended is removed; the snapshot says until when it is needed
        files = [*generations, *([generation] if generation else [])]
        more = job.registry.arrays(self._breathe) | open_arrays(job.opened) | agent_store.to_arrays(job.agents)
        header = {
            **world_header(at.tick, hash_copy(at.tick, job.world).hex()),
            "epoch": self._epoch,
            "root": self._root,
            "sequence": at.start.sequence,
            "chain": at.start.chain.hex(),
            "unix_ns": at.unix_ns,
            "config": at.config.as_dict(),
            "paused": at.is_paused,
            "world": [name for name, _ in job.world],
            "receipts": [[one.path.name, one.ends] for one in files],
            "events_bytes": job.events_size,
        }
        folder = self._folder / FOLDER_NAME
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / name_of(at.tick, at.unix_ns)
        write_arrays(path, header, [*job.world, *more.items()], self._pause)
        log.info("snapshot_taken", tick=at.tick, bytes=path.stat().st_size, sequence=at.start.sequence)
        for old in superfluous(list_snapshots(self._folder), at.unix_ns // 1_000_000_000, self._behind):
            if old.tick != self._root:
                remove(old.path)
        return generation

    def _breathe(self) -> None:
        """Let others have the interpreter."""
        self._hurry.wait(BREATH_S)

    def _pause(self, descriptor: int) -> None:
        # little at a time: a sync of the journal may have to wait for all of a file's bytes that are not on disk yet
        getattr(os, "fdatasync", os.fsync)(descriptor)
        self._hurry.wait(PAUSE_S)
        if self._clock.monotonic() > self._deadline:
            raise TimeoutError("the server stops, and must not wait for it any longer")

    def _pause_or_end(self, descriptor: int) -> None:
        self._pause(descriptor)
        if self._hurry.is_set():
            raise InterruptedError("the server stops")


def name_of(tick: int, unix_ns: int) -> str:
    """Return the name of a snapshot's file."""
    return f"snapshot-{tick:012d}-{unix_ns // 1_000_000_000}{_SUFFIX}"


def list_snapshots(folder: Path) -> list[Named]:
    """Return the snapshots in a data folder by their names, oldest first."""
    found = []
    for path in (folder / FOLDER_NAME).glob(f"snapshot-*{_SUFFIX}"):
        _, tick, unix_s = path.name.removesuffix(_SUFFIX).split("-")
        found.append(Named(int(tick), int(unix_s), path))
    return sorted(found)


def superfluous(known: Iterable[Named], now_s: int, behind: int = 0) -> list[Named]:
    """Return which snapshots to remove: all but the newest three, the first of each hour for a day, of each day for a
    week, and the newest one with so many ticks behind it: the newest three may be those of three stops in a minute.
    """
    ordered = sorted(known)
    kept = set(ordered[-NEWEST_KEPT:])
    kept |= set([one for one in ordered if ordered[-1].tick - one.tick >= behind][-1:])
    for period, age in ((HOUR_S, HOURLY_FOR_S), (DAY_S, DAILY_FOR_S)):
        first: dict[int, Named] = {}
        for one in ordered:
            if now_s - one.unix_s <= age:
                first.setdefault(one.unix_s // period, one)
        kept |= set(first.values())
    return [one for one in ordered if one not in kept]


def named_receipts(folder: Path) -> Iterator[Path]:
    """Yield the files of receipts that any snapshot of a folder names."""
    for named in list_snapshots(folder):
        try:
            names = [name for name, _ in read_header(named.path)["receipts"]]
        except (NotWhole, OSError, KeyError, ValueError):
            # it cannot be used, so it needs nothing
            continue
        yield from (folder / RECEIPTS_NAME / name for name in names)


def load(path: Path) -> Snapshot:
    """Return a snapshot, of whichever engine. Raises NotWhole when it is damaged or has another layout, OSError."""
    header, arrays = read_arrays(path)
    if header.get("layout_version") != LAYOUT_VERSION:
        raise NotWhole("of another layout")
    return Snapshot(header, arrays)


def archive(
    folder: Path, sequence: int, pause: Callable[[int], None], is_over: Callable[[], bool] = lambda: False
) -> int:
    """Compress the segments that end before a record into the archive; return how many. is_over: whether to stop."""
    paths = [path for path in segment_paths(folder) if path.suffix != ".gz"]
    (folder / ARCHIVE_NAME).mkdir(mode=0o700, exist_ok=True)
    count = 0
    for path, following in pairwise(paths):
        if first_sequence(following) > sequence or is_over():
            break
        try:
            write_whole(folder / ARCHIVE_NAME / f"{path.name}.gz", _packed(path, is_over), pause)
        except _Over:
            break
        remove(path)
        count += 1
    return count


class _Over(Exception):
    """Packing stops: whoever asked for it has no more time."""


def _packed(path: Path, is_over: Callable[[], bool]) -> Iterator[bytes]:
    """Yield a file compressed as gzip, the same bytes for the same file: no time in it. Raises _Over, OSError."""
    packer = zlib.compressobj(PACKING_LEVEL, wbits=zlib.MAX_WBITS | 16)
    with open(path, "rb") as file:
        # never all of it: a segment is 64 MB
        while piece := file.read(SLICE_BYTES):
            if is_over():
                raise _Over
            yield packer.compress(piece)
    yield packer.flush()
