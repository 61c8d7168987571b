"""The world as it is opened: one process owns its folder, its past is replayed, and it goes on where it stood.

    lock -> genesis (new world) or journal (cut a torn tail) -> snapshot, or the warm start -> replay of what follows
         -> World

A first start and a start after a crash are the same path. Source: DESIGN D19 to D23, R4, R5, R12.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, fields
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import structlog

from engine.config import ENGINE_VERSION, Config
from engine.economy import WARM_UP_SEED, WARM_UP_TICKS, Economy, hash_copy
from engine.errors import JournalDamaged, SettingError
from engine.events import Event, TickReport
from engine.journal import (
    Actions,
    Genesis,
    Mark,
    NewEpoch,
    Record,
    RecordKind,
    Segments,
    chain_behind,
    decode_epoch,
    decode_genesis,
    decode_key,
    decode_mark,
    encode_epoch,
    encode_genesis,
)
from engine.market_queue import MarketQueue
from engine.markets import HOURS
from engine.messages import Kind
from engine.replay import Replayed, Watch, replay
from engine.rng import seed_bytes
from engine.state import LAYOUT_VERSION, Parallel, persistent, serial
from engine.state_bytes import hash_bytes
from server import keys
from server.clock import Clock
from server.config import Settings
from server.live import agent_store, snapshots
from server.live.agent_log import AgentLog
from server.live.array_file import Arrays, NotWhole
from server.live.errors import FolderInUse, WorldRefused
from server.live.event_store import FILE_NAME as EVENTS_NAME
from server.live.event_store import EventStore
from server.live.history import EVENTS_MAX
from server.live.journal import (
    FIRST,
    DiskFile,
    Journal,
    JournalFile,
    SegmentStart,
    append_record,
    chain_before,
    create_segment,
    cut_tail,
    read_segments,
    scan_segment,
    segment_paths,
    segments_from,
)
from server.live.receipt_index import FOLDER_NAME as RECEIPTS_NAME
from server.live.receipt_index import write_generation
from server.live.receipts import RETENTION_TICKS, Receipts, in_memory_max
from server.live.registry import AgentRegistry
from server.live.snapshots import Snapshot, Snapshots, Standing, list_snapshots, named_receipts
from server.live.view import iso_time
from server.live.warm import save, warm_start
from server.live.workers import SYSTEM, Workers
from server.metrics import Metrics

LOCK_NAME = "lock"
WARM_NAME = "warm"
PROGRESS_TICKS = 10_000
GAP_TICKS_MAX = 3_600
"""Ticks that are replayed to close a gap in what others keep of the past; a longer one stays."""

OnReplayed = Callable[[TickReport, int], None]
"""Called with the report of every replayed tick and the wall clock (ns since 1970) at its mark, oldest first."""


class Known(NamedTuple):
    """Ticks that whoever is told of replayed ones has without: from first to newest, none missing."""

    first: int
    newest: int


OnGenesis = Callable[[Genesis], Known | None]
"""Called with what the world is, before the first replayed tick; returns which ticks need no replay, if any."""

log = structlog.get_logger("arena.world")


class FolderLock:
    """Sole ownership of a data folder, given up on release or when the process ends in any way."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise FolderInUse(
                f"{folder} belongs to a running process (id {owner}): stop it, or use another folder with --data"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, str(os.getpid()).encode())

    def release(self) -> None:
        """Let another process own the folder."""
        os.close(self._descriptor)


@dataclass
class World:
    """A world that is ready to go on, and everything that was rebuilt with it.

    epoch: name of its timeline, 16 hex characters. seed_commitment: BLAKE2b-256 of the seed, hex; says nothing about
    it but binds it.
    start_tick: the last tick before the world's first own. replayed: what the journal held.
    """

    folder: Path
    genesis: Genesis
    epoch: str
    economy: Economy
    journal: Journal
    queue: MarketQueue
    receipts: Receipts
    registry: AgentRegistry
    agents: AgentLog
    events: EventStore
    past_events: list[Event]
    """The newest events up to `opened_at`, oldest first: what the replay did not tell of."""
    snapshots: Snapshots
    opened_at: int
    """The tick the replay began after."""
    replayed: Replayed
    lock: FolderLock
    recovered: tuple[int, bytes]
    """The tick it was opened at, and the state hash of then."""
    standing: Standing | None
    """Where it stands; None until its first tick is published."""
    is_paused: bool
    """Whether an operator has paused it: no tick begins, over restarts as well."""

    @property
    def seed_commitment(self) -> str:
        """What binds the world to its seed without telling it."""
        return commitment(bytes.fromhex(self.genesis.seed))

    @property
    def start_tick(self) -> int:
        """The tick the world began after."""
        return self.genesis.start_tick

    async def close(self, deadline: float | None = None) -> None:
        """Leave a snapshot, mark a clean stop and let go of the folder. The ticker must have ended.

        deadline: when the stop no longer waits for the snapshot, monotonic seconds. Raises JournalFailed.
        """
        state, at = self.economy.state, self.standing
        try:
            # a world that broke in the middle of a tick has arrays that nobody may begin with
            if at is not None and at.tick == state.tick and not self.journal.failed:
                await self.snapshots.finish(at, list(persistent(state)), deadline)
            await self.snapshots.close()
            await self.journal.close()
        finally:
            self.events.close()
            self.lock.release()

    def write_inspection(self) -> Path:
        """Write all arrays as they are now, for people to look into a world that broke; return where."""
        at_tick, arrays = self.economy.copy_arrays()
        path = self.folder / f"inspection-{at_tick}.arw"
        save(path, at_tick, arrays)
        return path


def open_world(
    settings: Settings,
    metrics: Metrics,
    clock: Clock,
    *,
    on_genesis: OnGenesis | None = None,
    on_replayed: OnReplayed | None = None,
    warm_up_ticks: int = WARM_UP_TICKS,
    open_file: Callable[[Path], JournalFile] = DiskFile,
    workers: Workers = SYSTEM,
) -> World:
    """Open the world in settings.data, make a new one when there is none. Takes as long as the replay; needs no loop.

    on_replayed: told of the ticks behind the snapshot it begins with, or of all when it begins with none.
    Raises FolderInUse, WorldRefused (other settings, other release), HashDiffers, JournalDamaged, OSError.
    """
    lock = FolderLock(settings.data)
    try:
        if not segment_paths(settings.data):
            _begin(settings, clock, warm_up_ticks)
        return _open(settings, metrics, clock, lock, on_genesis, on_replayed, open_file, workers)
    except BaseException:
        lock.release()
        raise


def commitment(seed: bytes) -> str:
    """Return what is published of a seed: its BLAKE2b-256, hex. 256 random bits cannot be guessed from it."""
    return blake2b(seed, digest_size=32).hexdigest()


def read_genesis(folder: Path) -> Genesis:
    """Return the first record of a folder's journal.

    Raises JournalDamaged when there is none, WorldRefused for a layout or settings that this release does not have.
    """
    scan = scan_segment(segment_paths(folder)[0])
    first = next(iter(scan), None)
    if first is None or first.kind is not RecordKind.GENESIS:
        raise JournalDamaged(scan.path, scan.end, "no genesis record at the beginning")
    try:
        genesis = decode_genesis(first.payload)
    except ValueError as error:
        raise JournalDamaged(scan.path, first.offset, str(error)) from error
    if genesis.layout_version != LAYOUT_VERSION:
        raise WorldRefused(
            f"{scan.path} was written by engine version {genesis.engine_version}, layout {genesis.layout_version};"
            f" this release is engine version {ENGINE_VERSION}, layout {LAYOUT_VERSION}:"
            " it would not continue the same world"
        )
    try:
        Config(**genesis.config)
    except (TypeError, SettingError) as error:
        raise WorldRefused(f"{scan.path} is of a world with settings this release does not have: {error}") from error
    return genesis


def start_economy(genesis: Genesis, folder: Path, threads: int = 1) -> Economy:
    """Return the economy a journal begins with. folder: of the warm starts that are kept.

    Raises WorldRefused when another engine began the world, or this release does not reproduce the recorded start.
    """
    if genesis.engine_version != ENGINE_VERSION:
        raise WorldRefused(
            f"the world was begun by engine version {genesis.engine_version}; this release has engine version"
            f" {ENGINE_VERSION} and does not compute the same"
        )
    config = Config(**genesis.config)
    parallel = parallel_in(threads)
    ticks = genesis.start_tick + 1
    start = warm_start(folder, config, ticks, lambda: _warm_up(config, ticks, threads, parallel))
    actual = hash_copy(*start).hex()
    if (start[0], actual) != (genesis.start_tick, genesis.start_hash):
        raise WorldRefused(
            f"the start of the world is tick {start[0]}, hash {actual}; its journal says tick {genesis.start_tick},"
            f" hash {genesis.start_hash}"
        )
    return Economy(config, bytes.fromhex(genesis.seed), threads=threads, parallel=parallel, start=start)


@cache
def parallel_in(threads: int) -> Parallel:
    """Return what runs the ranges of a kernel in so many threads: this one and those of one pool, made once."""
    if threads == 1:
        return serial
    pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="kernel")

    def run(work: Callable[[int], None], count: int) -> None:
        others = [pool.submit(work, i) for i in range(1, count)]
        try:
            work(0)
        finally:
            # nothing may touch the arrays any more when this returns, however it does
            wait(others)
        for done in others:
            done.result()

    return run


def _begin(settings: Settings, clock: Clock, warm_up_ticks: int) -> None:
    """Make a new world: its seed, its epoch, its start, and the journal's first record of all that."""
    config = settings.engine
    parallel = parallel_in(settings.threads)
    log.info("world_begins", data=str(settings.data), residents=config.residents)
    at_tick, arrays = warm_start(
        settings.data / WARM_NAME,
        config,
        warm_up_ticks,
        lambda: _warm_up(config, warm_up_ticks, settings.threads, parallel),
    )
    seed = keys.world_seed() if settings.seed is None else seed_bytes(settings.seed)
    genesis = Genesis(
        engine_version=ENGINE_VERSION,
        layout_version=LAYOUT_VERSION,
        config=config.as_dict(),
        seed=seed.hex(),
        epoch=keys.epoch(),
        start_tick=at_tick,
        start_hash=hash_copy(at_tick, arrays).hex(),
        created=iso_time(clock.unix_ns()),
    )
    create_segment(settings.data, FIRST, encode_genesis(genesis))


def _warm_up(config: Config, ticks: int, threads: int, parallel: Parallel) -> tuple[int, Arrays]:
    economy = Economy(config, WARM_UP_SEED, threads=threads, parallel=parallel)
    for _ in range(ticks):
        economy.advance()
    return economy.copy_arrays()


class Begin(NamedTuple):
    """Where a replay begins. snapshot: None for the start of the world; records: all that follow it.

    engine_version: in force behind the last record. root: see Snapshots. last_mark: of records, None: they have none.
    """

    snapshot: Snapshot | None
    records: Segments
    engine_version: int
    root: int | None
    last_mark: Record | None


def _open(
    settings: Settings,
    metrics: Metrics,
    clock: Clock,
    lock: FolderLock,
    on_genesis: OnGenesis | None,
    on_replayed: OnReplayed | None,
    open_file: Callable[[Path], JournalFile],
    workers: Workers,
) -> World:
    folder = settings.data
    genesis = read_genesis(folder)
    _check_settings(settings, genesis)
    cut_torn(segment_paths(folder)[-1])
    events = EventStore(folder / EVENTS_NAME)
    agents = AgentLog(settings.resume_frames, metrics)
    known = None if on_genesis is None else on_genesis(genesis)
    # who was connected may resume from any of these; whoever is told of them tells a market's day by them as well
    told_ticks = max(settings.resume_frames + 1, 0 if on_replayed is None else HOURS)
    for begin in _begins(folder, genesis, told_ticks, known):
        try:
            economy = economy_of(begin.snapshot, genesis, folder, settings.threads)
            registry = AgentRegistry(economy.config)
            limit = in_memory_max(settings.receipts_max, economy.config.order_book_max, settings.queue_actions_max)
            receipts = Receipts(economy.tick, None, limit, settings.receipts_max, bytes.fromhex(genesis.seed))
            past_events = _restore(begin, folder, economy, receipts, registry, agents, events)
        except (NotWhole, OSError, ValueError, KeyError) as error:
            if begin.snapshot is None:
                raise
            log.warning("snapshot_unusable", tick=begin.snapshot.tick, reason=str(error))
            continue
        break
    opened_at, records = economy.tick, begin.records
    epoch = genesis.epoch if begin.snapshot is None else str(begin.snapshot.header["epoch"])
    rebuild = _Rebuild(folder, epoch, economy, receipts, registry, agents, events, on_replayed)
    replayed = run_replay(economy, records, rebuild)
    registry.follow(economy.config)
    agents.open(registry, economy.tick)
    epoch = rebuild.epoch
    is_paused = begin.snapshot is not None and bool(begin.snapshot.header["paused"])
    if replayed.is_paused is not None:
        is_paused = replayed.is_paused
    at, next_seq, chain = _standing(begin, economy.config, is_paused), records.next_sequence, records.chain
    if begin.engine_version != ENGINE_VERSION:
        assert at is not None, "a world of another engine begins with a snapshot"
        new = _take_over(epoch, at, begin.engine_version, clock)
        chain.add(append_record(Path(records.path), next_seq, RecordKind.EPOCH, encode_epoch(new)))
        epoch, next_seq = new.epoch, next_seq + 1
        begin = begin._replace(root=at.tick)
    queue = MarketQueue(max(settings.queue_actions_max, len(replayed.pending)))
    queue.extend(replayed.pending)
    journal = Journal(
        open_file(Path(records.path)),
        next_seq=next_seq,
        chain=chain,
        metrics=metrics,
        clock=clock,
        next_file=lambda start: open_file(create_segment(folder, start)),
        workers=workers,
    )
    log.info(
        "world_opened",
        epoch=epoch,
        tick=economy.tick,
        snapshot_tick=None if begin.snapshot is None else opened_at,
        ticks_replayed=replayed.marks,
        hashes_checked=replayed.hashes_checked,
        actions_pending=len(replayed.pending),
        paused=is_paused,
        agents=len(registry),
        clean=records.is_clean,
        seed_commitment=commitment(bytes.fromhex(genesis.seed)),
    )
    taking = Snapshots(
        folder, epoch, receipts, registry, agents, events, metrics, clock, settings.snapshot_ticks,
        told_ticks, begin.root, workers,
    )  # fmt: skip
    return World(
        folder, genesis, epoch, economy, journal, queue, receipts, registry, agents, events, past_events, taking,
        opened_at, replayed, lock, (economy.tick, economy.state_hash()), at, is_paused,
    )  # fmt: skip


def _take_over(epoch: str, at: Standing, engine_version: int, clock: Clock) -> NewEpoch:
    """Return the epoch under which this release goes on with a world that another one has stopped."""
    new = NewEpoch(
        epoch=keys.epoch(),
        parent_epoch=epoch,
        parent_tick=at.tick,
        parent_chain=at.start.chain.hex(),
        engine_version=ENGINE_VERSION,
        reason=f"engine version {ENGINE_VERSION} instead of {engine_version}",
        created=iso_time(clock.unix_ns()),
    )
    log.warning("epoch_begins", epoch=new.epoch, parent=epoch, tick=at.tick, reason=new.reason)
    return new


def _standing(begin: Begin, config: Config, is_paused: bool) -> Standing | None:
    """Return where a world stands once everything behind its beginning is replayed; None before its first tick."""
    now = config, is_paused
    if (record := begin.last_mark) is not None:
        mark = decode_mark(record.payload)
        return Standing(mark.tick, mark.unix_ns, SegmentStart(record.sequence + 1, chain_behind(record)), *now)
    if (snapshot := begin.snapshot) is None:
        return None
    start = SegmentStart(snapshot.sequence, bytes.fromhex(snapshot.header["chain"]))
    return Standing(snapshot.tick, int(snapshot.header["unix_ns"]), start, *now)


def _begins(folder: Path, genesis: Genesis, ticks: int, known: Known | None) -> Iterator[Begin]:
    """Return where a replay may begin, the best first: the newest snapshot from which the last ticks can be told.

    Those are so many, up to the last mark (fewer in a world that has fewer, or that another engine computed before):
    each is replayed, or known. A snapshot that would leave a gap behind the known ones is passed over, unless the gap
    is long. Then comes the start; in a world that this engine did not begin, what was passed over.
    Raises WorldRefused when everything would have to be computed by another engine.
    """
    paths = segment_paths(folder)
    passed_over: list[Begin] = []
    foreign: _Behind | None = None
    for named in reversed(list_snapshots(folder)):
        try:
            snapshot = snapshots.load(named.path)
        except (NotWhole, OSError) as error:
            log.warning("snapshot_unusable", tick=named.tick, reason=str(error))
            continue
        following = segments_from(paths, snapshot.sequence)
        # the chain binds a snapshot to all that came before it
        chain = chain_before(scan_segment(following[0]), snapshot.sequence)
        if chain is None or chain.hex() != snapshot.header.get("chain"):
            log.warning("snapshot_unusable", tick=named.tick, reason="it is not of this journal")
            continue
        records = read_segments(following, snapshot.sequence)
        behind = _look_behind(records, snapshot.tick, snapshot.engine_version)
        if behind.foreign is not None:
            foreign = foreign or behind
            continue
        root = behind.root if behind.root is not None else snapshot.root
        begin = Begin(snapshot, records, behind.engine_version, root, behind.last_mark)
        last = behind.last
        first = max(last - ticks, genesis.start_tick if root is None else root) + 1
        # under another engine the timeline has another name: nobody resumes from what was before
        is_told = first > snapshot.tick or behind.engine_version != ENGINE_VERSION
        if known is not None:
            is_told |= known.first <= first and known.newest >= snapshot.tick
            is_told &= known.newest >= snapshot.tick or last - known.newest > GAP_TICKS_MAX
        if is_told:
            yield begin
        else:
            passed_over.append(begin)
    records = read_segments(paths)
    behind = _look_behind(records, genesis.start_tick, genesis.engine_version)
    if behind.foreign is None and behind.engine_version == ENGINE_VERSION:
        yield Begin(None, records, behind.engine_version, None, behind.last_mark)
        return
    yield from reversed(passed_over)
    raise WorldRefused(_another_engines(folder, foreign or behind))


def _another_engines(folder: Path, behind: _Behind) -> str:
    """Return what to say of a world that has ticks which only another engine can compute, and what to do."""
    ours = f"this release has engine version {ENGINE_VERSION}"
    if behind.engine_version == ENGINE_VERSION:
        return (
            f"{folder}: {ours} and took over from engine version {behind.foreign}, and of the snapshots since none can"
            " be used: restore a backup"
        )
    version = behind.engine_version
    return (
        f"{folder}: the newest ticks, up to {behind.last}, were computed by engine version {version}, and no snapshot"
        f" has all of them; {ours}. Start the world once with a release of engine version {version}, stop it (SIGTERM),"
        " then start this one"
    )


class _Behind(NamedTuple):
    """What follows a beginning. last: tick of the last mark, last_mark; engine_version: in force at the end.

    foreign: engine version of a tick that another engine than ours computed, None when there is none. root: tick after
    which our engine took over, None when it did not here.
    """

    last: int
    engine_version: int
    foreign: int | None
    root: int | None
    last_mark: Record | None


def _look_behind(records: Segments, tick: int, engine_version: int) -> _Behind:
    """Read what follows a tick. engine_version: in force behind it."""
    found = _Behind(tick, engine_version, None, None, None)
    for record in records:
        if record.kind is RecordKind.MARK:
            is_foreign = found.engine_version != ENGINE_VERSION
            found = found._replace(
                last=decode_mark(record.payload).tick,
                foreign=found.engine_version if is_foreign else found.foreign,
                last_mark=record,
            )
        elif record.kind is RecordKind.EPOCH:
            version = decode_epoch(record.payload).engine_version
            if version != found.engine_version:
                root = found.last if version == ENGINE_VERSION else None
                found = found._replace(engine_version=version, root=root)
    return found


def economy_of(snapshot: Snapshot | None, genesis: Genesis, folder: Path, threads: int = 1) -> Economy:
    """Return the economy of a snapshot, or that at the world's start. Raises WorldRefused, ValueError."""
    if snapshot is None:
        return start_economy(genesis, folder / WARM_NAME, threads)
    return Economy(
        Config(**snapshot.header["config"]),
        bytes.fromhex(genesis.seed),
        threads=threads,
        parallel=parallel_in(threads),
        start=(snapshot.tick, snapshot.world),
    )


def _restore(
    begin: Begin,
    folder: Path,
    economy: Economy,
    receipts: Receipts,
    registry: AgentRegistry,
    agents: AgentLog,
    events: EventStore,
) -> list[Event]:
    """Put back what a snapshot holds beside the economy; return the newest events until then."""
    snapshot, kept = begin.snapshot, folder / RECEIPTS_NAME
    files: list[Path] = []
    past: list[Event] = []
    if snapshot is None:
        events.restore(0, 0)
    else:
        past = events.restore(snapshot.header["events_bytes"], EVENTS_MAX)
        registry.restore(snapshot.arrays, economy.state)
        receipts.restore(snapshot.arrays)
        agents.restore(snapshot.tick, agent_store.from_arrays(snapshot.arrays))
        last = snapshot.tick if begin.last_mark is None else decode_mark(begin.last_mark.payload).tick
        ended = last - RETENTION_TICKS
        # one whose receipts have all ended meanwhile may be gone already
        files = [kept / name for name, ends in snapshot.receipt_files if ends >= ended or (kept / name).exists()]
        receipts.index.open(files)
    # written after the snapshot: the replay brings the same receipts. What a newer snapshot names stays: it may be the
    # one to begin with next time
    needed = {*files, *named_receipts(folder)}
    for path in kept.glob("*"):
        if path not in needed:
            path.unlink()
    return past


class Recorded(Protocol):
    """Records that can be read more than once, and where the ones read last stand."""

    def __iter__(self) -> Iterator[Record]:
        """Yield them, oldest first. Raises JournalDamaged."""

    @property
    def path(self) -> str:
        """The segment that was read last."""


def run_replay(economy: Economy, records: Recorded, watch: Watch | None = None, *, check: bool = True) -> Replayed:
    """Replay all records, hashing in a second thread. Raises HashDiffers, WorldRefused for ticks out of order."""
    with ThreadPoolExecutor(1, thread_name_prefix="hash") as pool:
        try:
            return replay(
                economy,
                records,
                watch,
                hasher=lambda data: pool.submit(hash_bytes, data).result,
                check=check,
            )
        except ValueError as error:
            raise WorldRefused(f"{records.path}: {error}") from error


def cut_torn(path: Path) -> None:
    """Read the last segment to its end and cut off what is torn."""
    scan = scan_segment(path)
    for _ in scan:
        pass
    if (torn := scan.torn) is not None:
        # the old map must not be read behind the cut: the system answers that with a signal, not an exception
        del scan
        cut_tail(path, torn)


def _check_settings(settings: Settings, genesis: Genesis) -> None:
    """See to it that nobody asks for another world than the folder holds. A default asks for nothing."""
    default = Config()
    differing = [
        f"{item.name} (asked for {asked!r}, the world has {genesis.config[item.name]!r})"
        for item in fields(Config)
        if (asked := getattr(settings.engine, item.name))
        not in (getattr(default, item.name), genesis.config[item.name])
    ]
    if settings.seed is not None and seed_bytes(settings.seed).hex() != genesis.seed:
        differing.append("seed")
    if differing:
        raise WorldRefused(
            f"{settings.data} holds a world with other settings: {', '.join(differing)};"
            " leave them out to go on with it, or name another folder with --data"
        )


class _Rebuild(Watch):
    """Rebuilds receipts, owners, keys and agents while a journal is replayed."""

    def __init__(
        self,
        folder: Path,
        epoch: str,
        economy: Economy,
        receipts: Receipts,
        registry: AgentRegistry,
        agents: AgentLog,
        events: EventStore,
        on_replayed: OnReplayed | None,
    ) -> None:
        self.epoch = epoch
        self._folder = folder / RECEIPTS_NAME
        self._economy = economy
        self._receipts = receipts
        self._registry = registry
        self._agents = agents
        self._events = events
        self._on_replayed = on_replayed

    def record(self, record: Record) -> None:
        """Take a key, or a new name of the timeline."""
        if record.kind is RecordKind.KEY:
            self._registry.issue(decode_key(record.payload))
        elif record.kind is RecordKind.EPOCH:
            self.epoch = decode_epoch(record.payload).epoch

    def actions(self, actions: Actions) -> None:
        """Take registrations, and the receipts of all other actions."""
        rows, prints, names = actions
        joins = rows["kind"] == Kind.REGISTER
        if joins.any():
            for i in np.flatnonzero(joins).tolist():
                name = actions.client_action_ids[i]
                self._registry.begin(int(rows["agent_id"][i]), int(rows["owner"][i]), name)
            rows, prints, names = rows[~joins], prints[~joins], names[~joins]
        if len(rows):
            columns = (np.ascontiguousarray(rows[name]) for name in ("agent_id", "seq", "valid_until"))
            agents, seqs, valid_until = columns
            self._receipts.add_all(agents, names, seqs, prints, valid_until)
            self._agents.accepted(rows, names)

    def tick(self, report: TickReport, mark: Mark) -> None:
        """Take what a tick decided, and pass it on."""
        self._receipts.apply(report)
        if self._receipts.should_flush:
            # a long journal has more of them than fit into memory
            settled = self._receipts.flush().rows()
            self._receipts.adopt(write_generation(self._folder, report.tick, settled))
        self._registry.apply(report, self._economy.state)
        self._agents.replayed(report)
        self._events.add(report.events)
        if self._on_replayed is not None:
            self._on_replayed(report, mark.unix_ns)
        if (mark.tick + 1) % PROGRESS_TICKS == 0:
            log.info("replaying", tick=mark.tick)
