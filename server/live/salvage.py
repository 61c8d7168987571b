"""What an operator may do with a damaged journal: go on from the last good tick, under a new name of the timeline.

Everything from behind the last mark whose chain holds is put aside, never deleted; a record of the new epoch tells what
it goes on from. Nobody who was connected can take the new timeline for the old one. Source: DESIGN D21, R5.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from engine.errors import JournalDamaged
from engine.journal import (
    NewEpoch,
    RecordKind,
    Segments,
    decode_epoch,
    decode_genesis,
    decode_mark,
    encode_epoch,
)
from server import keys
from server.clock import Clock
from server.live.disk import remove, sync_folder, write_whole
from server.live.errors import WorldRefused
from server.live.journal import append_record, read_segments, segment_paths
from server.live.snapshots import list_snapshots
from server.live.view import iso_time
from server.live.world import FolderLock

ASIDE_NAME = "damaged-{}"


class Salvaged(NamedTuple):
    """What was done. damage: what is wrong with the journal; tick: the last good one; lost: the first record lost."""

    damage: str
    epoch: str
    tick: int
    lost: int
    aside: Path


class Cut(NamedTuple):
    """A place behind a mark: of which segment, at which byte, before which record, of which tick, epoch and engine."""

    path: Path
    offset: int
    sequence: int
    tick: int
    chain: str
    epoch: str
    engine_version: int


def salvage(folder: Path, clock: Clock) -> Salvaged | None:
    """Cut a folder's journal behind its last good tick and begin a new epoch there; None when nothing is damaged.

    Raises FolderInUse, WorldRefused when there is no good tick to go on from, OSError.
    """
    lock = FolderLock(folder)
    try:
        good, damage = _last_good(folder)
        if damage is None:
            return None
        if good is None:
            raise WorldRefused(f"{damage}; there is no good tick before that: restore a backup")
        aside = _put_aside(folder, good)
        epoch = begin_epoch(cut_segment(good), good.sequence, good, str(damage), clock)
        return Salvaged(str(damage), epoch, good.tick, good.sequence, aside)
    finally:
        lock.release()


def marks(records: Segments) -> Iterator[Cut]:
    """Yield the place behind each mark of a journal, oldest first. Raises JournalDamaged where it is damaged."""
    epoch, version = "", 0
    for record in records:
        if record.kind is RecordKind.GENESIS:
            genesis = decode_genesis(record.payload)
            epoch, version = genesis.epoch, genesis.engine_version
        elif record.kind is RecordKind.EPOCH:
            new = decode_epoch(record.payload)
            epoch, version = new.epoch, new.engine_version
        elif record.kind is RecordKind.MARK:
            mark = decode_mark(record.payload)
            place = (Path(records.path), records.end, record.sequence + 1)
            yield Cut(*place, mark.tick, mark.chain.hex(), epoch, version)


def cut_segment(cut: Cut) -> Path:
    """Leave of a cut's segment what is before it, unpacked; return where."""
    kept, path = cut.path.read_bytes(), cut.path
    if path.suffix == ".gz":
        kept, path = gzip.decompress(kept), path.parent.parent / path.stem
    write_whole(path, [kept[: cut.offset]])
    if path != cut.path:
        remove(cut.path)
    return path


def begin_epoch(path: Path, sequence: int, parent: Cut, reason: str, clock: Clock) -> str:
    """Append the record of a new epoch to a segment, durably; return its name. sequence: of the record."""
    epoch, created = keys.epoch(), iso_time(clock.unix_ns())
    made = NewEpoch(epoch, parent.epoch, parent.tick, parent.chain, parent.engine_version, reason, created)
    append_record(path, sequence, RecordKind.EPOCH, encode_epoch(made))
    return epoch


def _last_good(folder: Path) -> tuple[Cut | None, JournalDamaged | None]:
    good = None
    try:
        for cut in marks(read_segments(segment_paths(folder))):
            good = cut
    except JournalDamaged as damage:
        return good, damage
    return good, None


def _put_aside(folder: Path, good: Cut) -> Path:
    """Move what is behind the cut, segments and snapshots, and keep a copy of the segment that holds it."""
    number = 1
    while (aside := folder / ASIDE_NAME.format(number)).exists():
        number += 1
    aside.mkdir(mode=0o700)
    paths = segment_paths(folder)
    # what comes last is moved first: whenever this ends early, what is left is a journal with damage at its end
    for path in reversed(paths[paths.index(good.path) + 1 :]):
        shutil.move(path, aside / path.name)
    for named in list_snapshots(folder):
        if named.tick > good.tick:
            shutil.move(named.path, aside / named.path.name)
    shutil.copy2(good.path, aside / good.path.name)
    sync_folder(aside)
    return aside
