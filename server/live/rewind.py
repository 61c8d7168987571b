"""The economy of a data folder at any recorded tick, also of a folder that a running server owns.

    newest snapshot at or before the tick, or the world's start -> the recorded ticks behind it -> Rewound

The folder is only read, and no lock is taken. Its journal is looked at up to the last mark there is now: what the
writer is in the middle of is left out. A snapshot that is gone or cannot be used costs time only, an older one will do.
Ticks that another engine version computed are refused: only its release can compute them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import structlog

from engine.config import ENGINE_VERSION
from engine.economy import Economy
from engine.fork import inputs
from engine.journal import Genesis, Mark, Record, RecordKind, Scan, Segments, decode_epoch, decode_mark
from engine.replay import HashDiffers
from server.live import snapshots
from server.live.array_file import NotWhole
from server.live.errors import NotRecorded, WorldRefused
from server.live.journal import (
    ARCHIVE_NAME,
    SEGMENT_NAME,
    chain_before,
    first_sequence,
    scan_segment,
    segment_paths,
)
from server.live.snapshots import list_snapshots
from server.live.world import economy_of, read_genesis

log = structlog.get_logger("arena.rewind")


class Rewound(NamedTuple):
    """A world as it stood. economy: after the tick asked for. records: those behind the tick's mark, as often as read,
    up to where another engine version took over.

    epoch: name of the timeline then. first_tick, last_tick: what can be asked for in this folder.
    """

    economy: Economy
    genesis: Genesis
    epoch: str
    records: Iterable[Record]
    first_tick: int
    last_tick: int


def economy_at(
    folder: Path, tick: int, threads: int = 1, progress: Callable[[int, int], None] | None = None
) -> Rewound:
    """Return the economy of a data folder as it stood after a tick.

    progress: called with each tick done and the one to reach.
    Raises WorldRefused when there is no world or another release's, NotRecorded for a tick before the first or after
    the last one, HashDiffers when the last hash stored up to the tick is not met, JournalDamaged, OSError.
    """
    if not segment_paths(folder):
        raise WorldRefused(f"{folder} holds no journal")
    genesis = read_genesis(folder)
    last = _last_mark(folder)
    last_tick = genesis.start_tick if last is None else last.tick
    if not genesis.start_tick <= tick <= last_tick:
        raise NotRecorded(tick, genesis.start_tick, last_tick)
    begin = _begin(folder, genesis, tick, threads)
    last_sequence = 0 if last is None else last.sequence
    reached = _Reached(begin.epoch, begin.sequence - 1)
    if tick > begin.economy.tick:
        reached = _run_to(begin, Records(folder, begin.sequence, last_sequence), tick, progress)
    behind = Records(folder, reached.sequence + 1, last_sequence)
    return Rewound(begin.economy, genesis, reached.epoch, behind, genesis.start_tick, last_tick)


class Records:
    """The records from one sequence to another in a folder's journal, read as often as they are asked for.

    They end where another engine version takes over. Raises JournalDamaged while reading.
    """

    def __init__(self, folder: Path, first: int, last: int) -> None:
        self._folder = folder
        self._first = first
        self._last = last

    def __iter__(self) -> Iterator[Record]:
        if self._first > self._last:
            return
        starts = _starts(self._folder)
        holding = max(start for start in starts if start <= self._first)
        openers = [partial(_open, self._folder, start) for start in starts if start >= holding]
        for record in Segments(openers, self._first):
            if record.sequence > self._last or _is_foreign(record):
                return
            yield record


def _is_foreign(record: Record) -> bool:
    return record.kind is RecordKind.EPOCH and decode_epoch(record.payload).engine_version != ENGINE_VERSION


class _LastMark(NamedTuple):
    tick: int
    sequence: int


def _last_mark(folder: Path) -> _LastMark | None:
    """Return the last mark of a journal, looking into as few segments as that takes."""
    for path in reversed(segment_paths(folder)):
        last: Record | None = None
        for record in _open(folder, first_sequence(path)):
            if record.kind is RecordKind.MARK:
                last = record
        if last is not None:
            return _LastMark(decode_mark(last.payload).tick, last.sequence)
    return None


class _Begin(NamedTuple):
    """An economy that can be had at once, its epoch, and the first record that is not in it."""

    economy: Economy
    epoch: str
    sequence: int


class _Reached(NamedTuple):
    """Where a run ended: the epoch then, and the sequence of its last mark."""

    epoch: str
    sequence: int


def _begin(folder: Path, genesis: Genesis, tick: int, threads: int) -> _Begin:
    """Return the nearest beginning before a tick: a snapshot of this journal, or the start of the world.

    Raises WorldRefused when another engine version computed the tick.
    """
    foreign: int | None = None
    for named in reversed(list_snapshots(folder)):
        if named.tick > tick:
            continue
        try:
            snapshot = snapshots.load(named.path)
            # the chain binds a snapshot to all that came before it
            holding = max(start for start in _starts(folder) if start <= snapshot.sequence)
            chain = chain_before(_open(folder, holding), snapshot.sequence)
            if chain is None or chain.hex() != snapshot.header["chain"]:
                raise NotWhole("it is not of this journal")
            foreign = _foreign_version(folder, snapshot.sequence, snapshot.engine_version, snapshot.tick, tick)
            if foreign is not None:
                # the ticks behind it are not ours; an older snapshot has them behind it as well
                break
            economy = economy_of(snapshot, genesis, folder, threads)
            return _Begin(economy, str(snapshot.header["epoch"]), snapshot.sequence)
        except (NotWhole, OSError, ValueError, KeyError) as error:
            log.warning("snapshot_unusable", tick=named.tick, reason=str(error))
    else:
        foreign = _foreign_version(folder, 1, genesis.engine_version, genesis.start_tick, tick)
    if foreign is not None:
        raise WorldRefused(
            f"tick {tick} of {folder} was computed by engine version {foreign}; this release has engine version"
            f" {ENGINE_VERSION}: use a release with engine version {foreign} for it"
        )
    return _Begin(economy_of(None, genesis, folder, threads), genesis.epoch, 1)


def _foreign_version(folder: Path, sequence: int, version: int, begin: int, tick: int) -> int | None:
    """Return the engine version that computed a tick or one between a beginning and it; None when all are ours.

    sequence: of the first record behind the tick begin; version: in force there. The state of a beginning is no
    question: what is asked is who goes on from it.
    """
    if (begin, version) == (tick, ENGINE_VERSION):
        return None
    starts = _starts(folder)
    holding = max(start for start in starts if start <= sequence)
    for record in Segments([partial(_open, folder, start) for start in starts if start >= holding], sequence):
        if record.kind is RecordKind.EPOCH:
            version = decode_epoch(record.payload).engine_version
        elif record.kind is RecordKind.MARK and (version != ENGINE_VERSION or decode_mark(record.payload).tick >= tick):
            break
    return None if version == ENGINE_VERSION else version


def _run_to(
    begin: _Begin, records: Iterable[Record], tick: int, progress: Callable[[int, int], None] | None
) -> _Reached:
    """Run an economy to a later tick through the records behind it."""
    economy, stored = begin.economy, None
    epoch, sequence = begin.epoch, begin.sequence
    for record in records:
        if record.kind is RecordKind.EPOCH:
            epoch = decode_epoch(record.payload).epoch
        elif record.kind is RecordKind.MARK:
            mark, sequence = decode_mark(record.payload), record.sequence
            if economy.tick < mark.hashed_tick <= tick:
                stored = mark
            if mark.tick == tick:
                break
    for given in islice(inputs(records, economy.tick), tick - economy.tick):
        economy.advance(given.rows, commands=given.commands)
        if stored is not None and given.tick == stored.hashed_tick:
            _compare(economy, stored)
        if progress is not None:
            progress(given.tick, tick)
    return _Reached(epoch, sequence)


def _compare(economy: Economy, stored: Mark) -> None:
    actual = economy.state_hash()
    if actual != stored.state_hash:
        raise HashDiffers(economy.tick, stored.state_hash, actual)


def _starts(folder: Path) -> list[int]:
    """Return the first sequence of each segment."""
    return [first_sequence(path) for path in segment_paths(folder)]


def _open(folder: Path, start: int) -> Scan:
    """Return a segment by its first sequence. The server that owns the folder may be archiving it meanwhile."""
    name = SEGMENT_NAME.format(start)
    try:
        return scan_segment(folder / name)
    except FileNotFoundError:
        return scan_segment(folder / ARCHIVE_NAME / f"{name}.gz")
