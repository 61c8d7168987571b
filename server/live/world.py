"""The world as it is opened: one process owns its folder, its past is replayed, and it goes on where it stood.

    lock -> genesis (new world) or journal (cut a torn tail) -> warm start -> replay of every record -> World

A first start and a start after a crash are the same path. Source: DESIGN D19 to D23, R4, R5, R12.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, fields
from functools import cache
from hashlib import blake2b
from pathlib import Path

import structlog

from engine.config import ENGINE_VERSION, Config
from engine.economy import WARM_UP_SEED, WARM_UP_TICKS, Economy, hash_copy
from engine.errors import JournalDamaged
from engine.events import TickReport
from engine.journal import (
    ActionRecord,
    Genesis,
    Mark,
    Record,
    RecordKind,
    Scan,
    decode_genesis,
    decode_key,
    encode_genesis,
)
from engine.market_queue import MarketQueue
from engine.messages import Kind
from engine.replay import Replayed, Watch, replay
from engine.rng import seed_bytes
from engine.state import LAYOUT_VERSION, Parallel, serial
from server import keys
from server.clock import Clock
from server.config import Settings
from server.live.errors import FolderInUse, WorldRefused
from server.live.journal import DiskFile, Journal, JournalFile, create_segment, cut_tail, scan_segment, segment_path
from server.live.receipts import Receipts
from server.live.registry import AgentRegistry
from server.live.view import iso_time
from server.live.warm import Arrays, save, warm_start
from server.live.workers import SYSTEM, Workers
from server.metrics import Metrics

LOCK_NAME = "lock"
WARM_NAME = "warm"
PROGRESS_TICKS = 10_000

OnReplayed = Callable[[TickReport, int], None]
"""Called with the report of every replayed tick and the wall clock (ns since 1970) at its mark, oldest first."""

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

    epoch: 16 hex characters. seed_commitment: BLAKE2b-256 of the seed, hex; says nothing about it but binds it.
    start_tick: the last tick before the world's first own. replayed: what the journal held.
    """

    folder: Path
    genesis: Genesis
    economy: Economy
    journal: Journal
    queue: MarketQueue
    receipts: Receipts
    registry: AgentRegistry
    replayed: Replayed
    lock: FolderLock

    @property
    def epoch(self) -> str:
        """The name of the world's timeline."""
        return self.genesis.epoch

    @property
    def seed_commitment(self) -> str:
        """What binds the world to its seed without telling it."""
        return commitment(bytes.fromhex(self.genesis.seed))

    @property
    def start_tick(self) -> int:
        """The tick the world began after."""
        return self.genesis.start_tick

    async def close(self) -> None:
        """Mark a clean stop and let go of the folder. The ticker must have ended. Raises JournalFailed."""
        try:
            await self.journal.close()
        finally:
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
    on_replayed: OnReplayed | None = None,
    warm_up_ticks: int = WARM_UP_TICKS,
    open_file: Callable[[Path], JournalFile] = DiskFile,
    workers: Workers = SYSTEM,
) -> World:
    """Open the world in settings.data, make a new one when there is none. Takes as long as the replay; needs no loop.

    Raises FolderInUse, WorldRefused (other settings, other release), HashDiffers, JournalDamaged, OSError.
    """
    lock = FolderLock(settings.data)
    try:
        path = segment_path(settings.data)
        if path is None:
            path = _begin(settings, clock, warm_up_ticks)
        return _open(settings, metrics, clock, path, lock, on_replayed, open_file, workers)
    except BaseException:
        lock.release()
        raise


def commitment(seed: bytes) -> str:
    """Return what is published of a seed: its BLAKE2b-256, hex. 256 random bits cannot be guessed from it."""
    return blake2b(seed, digest_size=32).hexdigest()


def read_genesis(scan: Scan) -> Genesis:
    """Return a journal's first record. Raises JournalDamaged when there is none, WorldRefused for another release."""
    first = next(iter(scan), None)
    if first is None or first.kind is not RecordKind.GENESIS:
        raise JournalDamaged(scan.path, scan.end, "no genesis record at the beginning")
    try:
        genesis = decode_genesis(first.payload)
    except ValueError as error:
        raise JournalDamaged(scan.path, first.offset, str(error)) from error
    if (genesis.engine_version, genesis.layout_version) != (ENGINE_VERSION, LAYOUT_VERSION):
        raise WorldRefused(
            f"{scan.path} was written by engine version {genesis.engine_version}, layout {genesis.layout_version};"
            f" this release is engine version {ENGINE_VERSION}, layout {LAYOUT_VERSION}:"
            " it would not continue the same world"
        )
    return genesis


def start_economy(genesis: Genesis, folder: Path, threads: int = 1) -> Economy:
    """Return the economy a journal begins with. folder: of the warm starts that are kept.

    Raises WorldRefused when this release does not reproduce the recorded start.
    """
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


def _begin(settings: Settings, clock: Clock, warm_up_ticks: int) -> Path:
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
    return create_segment(settings.data, encode_genesis(genesis))


def _warm_up(config: Config, ticks: int, threads: int, parallel: Parallel) -> tuple[int, Arrays]:
    economy = Economy(config, WARM_UP_SEED, threads=threads, parallel=parallel)
    for _ in range(ticks):
        economy.advance()
    return economy.copy_arrays()


def _open(
    settings: Settings,
    metrics: Metrics,
    clock: Clock,
    path: Path,
    lock: FolderLock,
    on_replayed: OnReplayed | None,
    open_file: Callable[[Path], JournalFile],
    workers: Workers,
) -> World:
    scan = _whole_scan(path)
    genesis = read_genesis(scan)
    _check_settings(settings, genesis)
    economy = start_economy(genesis, settings.data / WARM_NAME, settings.threads)
    receipts = Receipts(economy.tick)
    registry = AgentRegistry(economy.config)
    rebuild = _Rebuild(economy, receipts, registry, on_replayed)
    replayed = run_replay(economy, scan, rebuild)
    queue = MarketQueue(max(settings.queue_actions_max, len(replayed.pending)))
    for row in replayed.pending:
        queue.append(row)
    journal = Journal(
        open_file(path),
        next_seq=scan.next_sequence,
        chain=scan.chain,
        metrics=metrics,
        clock=clock,
        workers=workers,
    )
    log.info(
        "world_opened",
        epoch=genesis.epoch,
        tick=economy.tick,
        ticks_replayed=replayed.marks,
        hashes_checked=replayed.hashes_checked,
        actions_pending=len(replayed.pending),
        agents=len(registry),
        clean=scan.is_clean,
        seed_commitment=commitment(bytes.fromhex(genesis.seed)),
    )
    return World(settings.data, genesis, economy, journal, queue, receipts, registry, replayed, lock)


def run_replay(economy: Economy, scan: Scan, watch: Watch | None = None, *, check: bool = True) -> Replayed:
    """Replay a whole journal, hashing in a second thread. Raises HashDiffers, WorldRefused for ticks out of order."""
    with ThreadPoolExecutor(1, thread_name_prefix="hash") as pool:
        try:
            return replay(
                economy,
                scan,
                watch,
                hasher=lambda at_tick, arrays: pool.submit(hash_copy, at_tick, arrays).result,
                check=check,
            )
        except ValueError as error:
            raise WorldRefused(f"{scan.path}: {error}") from error


def _whole_scan(path: Path) -> Scan:
    """Return the records of a segment after reading it once to its end and cutting off what is torn."""
    scan = scan_segment(path)
    for _ in scan:
        pass
    if scan.torn is None:
        return scan
    torn = scan.torn
    # the old map must not be read behind the cut: the system answers that with a signal, not an exception
    del scan
    cut_tail(path, torn)
    return scan_segment(path)


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
        self, economy: Economy, receipts: Receipts, registry: AgentRegistry, on_replayed: OnReplayed | None
    ) -> None:
        self._economy = economy
        self._receipts = receipts
        self._registry = registry
        self._on_replayed = on_replayed

    def record(self, record: Record) -> None:
        """Take a key."""
        if record.kind is RecordKind.KEY:
            self._registry.issue(decode_key(record.payload))

    def action(self, action: ActionRecord) -> None:
        """Take a registration, or the receipt of any other action."""
        row = action.row[0]
        if row["kind"] == Kind.REGISTER:
            self._registry.begin(int(row["agent_id"]), int(row["owner"]), action.client_action_id)
        else:
            self._receipts.add(
                int(row["agent_id"]),
                action.client_action_id,
                int(row["seq"]),
                action.fingerprint,
                int(row["valid_until"]),
            )

    def tick(self, report: TickReport, mark: Mark) -> None:
        """Take what a tick decided, and pass it on."""
        self._receipts.apply(report)
        self._registry.apply(report, self._economy.state)
        if self._on_replayed is not None:
            self._on_replayed(report, mark.unix_ns)
        if (mark.tick + 1) % PROGRESS_TICKS == 0:
            log.info("replaying", tick=mark.tick)
