"""What an operator may do with a damaged journal: go on from the last good tick, under a new name of the timeline.

Everything from behind the last mark whose chain holds is put aside, never deleted; a record of the new epoch tells what
it goes on from. Nobody who was connected can take the new timeline for the old one. Source: DESIGN D21, R5.
"""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from engine.errors import JournalDamaged
from engine.journal import (
    NewEpoch,
    RecordKind,
    decode_epoch,
    decode_genesis,
    decode_mark,
    encode,
    encode_batch,
    encode_epoch,
)
from server import keys
from server.clock import Clock
from server.live.disk import sync_folder, write_whole
from server.live.errors import WorldRefused
from server.live.journal import read_segments, scan_segment, segment_paths
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


class _Good(NamedTuple):
    """The end of what is good: behind the last mark whose chain holds."""

    path: Path
    offset: int
    sequence: int
    tick: int
    chain: str
    epoch: str


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
        epoch = keys.epoch()
        _append(good, NewEpoch(epoch, good.epoch, good.tick, good.chain, str(damage), iso_time(clock.unix_ns())))
        return Salvaged(str(damage), epoch, good.tick, good.sequence, aside)
    finally:
        lock.release()


def _last_good(folder: Path) -> tuple[_Good | None, JournalDamaged | None]:
    good, epoch = None, ""
    records = read_segments(segment_paths(folder))
    try:
        for record in records:
            if record.kind is RecordKind.GENESIS:
                epoch = decode_genesis(record.payload).epoch
            elif record.kind is RecordKind.EPOCH:
                epoch = decode_epoch(record.payload).epoch
            elif record.kind is RecordKind.MARK:
                mark = decode_mark(record.payload)
                good = _Good(
                    Path(records.path), records.end, record.sequence + 1, mark.tick, mark.chain.hex(), epoch
                )  # fmt: skip
    except JournalDamaged as damage:
        return good, damage
    return good, None


def _put_aside(folder: Path, good: _Good) -> Path:
    """Move what is behind the cut, segments and snapshots, and leave the good part of the segment that holds it."""
    number = 1
    while (aside := folder / ASIDE_NAME.format(number)).exists():
        number += 1
    aside.mkdir(mode=0o700)
    paths = segment_paths(folder)
    kept = good.path.read_bytes()
    if good.path.suffix == ".gz":
        kept = gzip.decompress(kept)
    # what comes last is moved first: whenever this ends early, what is left is a journal with damage at its end
    for path in reversed(paths[paths.index(good.path) + 1 :]):
        shutil.move(path, aside / path.name)
    for named in list_snapshots(folder):
        if named.tick > good.tick:
            shutil.move(named.path, aside / named.path.name)
    shutil.copy2(good.path, aside / good.path.name)
    write_whole(folder / good.path.name.removesuffix(".gz"), [kept[: good.offset]])
    if good.path.suffix == ".gz":
        good.path.unlink()
    sync_folder(aside)
    sync_folder(folder)
    return aside


def _append(good: _Good, epoch: NewEpoch) -> None:
    """Write the record of the new epoch behind the cut, durably."""
    path = good.path.parent.parent if good.path.suffix == ".gz" else good.path.parent
    path /= good.path.name.removesuffix(".gz")
    first = good.sequence
    record = encode(first, RecordKind.EPOCH, encode_epoch(epoch))
    with open(path, "ab") as file:
        file.write(encode_batch(first, first, first - 1) + record)
        file.flush()
        os.fsync(file.fileno())
    for _ in scan_segment(path):
        pass
