"""`arena verify DIR`: whether a world's files are what was written: records, chain, hashes, snapshots."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from engine.commands import decode_command
from engine.commands import describe as describe_command
from engine.errors import JournalDamaged
from engine.journal import (
    NO_HASH,
    Genesis,
    Record,
    RecordKind,
    Segments,
    decode_actions,
    decode_epoch,
    decode_genesis,
    decode_key,
    decode_mark,
    is_input,
)
from engine.markets import NAMES
from engine.messages import Kind
from engine.replay import HashDiffers
from server.clock import SystemClock
from server.command_line import refuse, whole
from server.live.array_file import NotWhole
from server.live.errors import FolderInUse, ReceiptDamaged, WorldRefused
from server.live.journal import first_sequence, read_segments, segment_paths
from server.live.parts import Part, Parts, begin_part
from server.live.receipt_index import FOLDER_NAME as RECEIPTS_NAME
from server.live.receipt_index import open_generation
from server.live.registry import OPERATOR
from server.live.replay_cmd import Until
from server.live.salvage import salvage
from server.live.snapshots import NEWEST_KEPT, Named, list_snapshots, load
from server.live.view import iso_time
from server.live.world import read_genesis, run_replay

READ_RECEIPTS = 100_000
"""Receipts that are read at once: 10 MB."""
OK, BROKEN, REFUSED, DAMAGED = 0, 1, 2, 3
"""What the command leaves: all holds; a snapshot or hash does not; there is nothing to verify; damaged bytes."""


def main(args: Sequence[str]) -> int:
    """Check a folder and print what came of it; return the exit status. A running server is not disturbed."""
    options = _parser().parse_args(args)
    try:
        if not segment_paths(options.folder):
            raise WorldRefused(f"{options.folder} holds no journal")
        _check(options)
        if options.salvage:
            _salvage(options.folder)
        paths = segment_paths(options.folder)
        records = read_segments(paths)
        seen = _records(records, options.first or 1, (options.last or sys.maxsize) if options.records else -1)
        if options.first is not None and options.first >= records.next_sequence:
            raise WorldRefused(f"--from {options.first}: the records are 1 to {records.next_sequence - 1}")
        _summary(paths, records, seen)
        is_whole = _snapshots(options.folder)
        if options.replay:
            _replay(options.folder, seen.parts.found())
    except JournalDamaged as error:
        _say(f"DAMAGED  {error}")
        if (begin := _spared(options.folder, error)) is not None:
            _say(f"a start does not read that: it begins with a later snapshot, the newest is of tick {begin.tick};")
            _say("only a replay from before needs it, and --salvage would give up everything behind the damage")
        return DAMAGED
    except HashDiffers as error:
        _say(f"DIFFERS  {error}")
        return BROKEN
    except (FolderInUse, WorldRefused, OSError) as error:
        return refuse("verify", error, REFUSED)
    _say("all of it holds" if is_whole else "the journal holds; what is named above does not")
    return OK if is_whole else BROKEN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arena verify",
        description="Check every record of a world's journal, the chain over them, and its snapshots. Nothing is"
        " changed unless you ask for --salvage; a running server may own the folder.",
        epilog="examples: arena verify arena-data; arena verify arena-data --records --from 100 --to 120;"
        " arena verify arena-data --replay",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="data folder of the world")
    parser.add_argument("--records", action="store_true", help="say in words what every record is")
    parser.add_argument("--from", dest="first", type=whole(1), metavar="N", help="first of them, default 1")
    parser.add_argument("--to", dest="last", type=whole(1), metavar="N", help="last of them, default all")
    parser.add_argument(
        "--salvage",
        action="store_true",
        help="first put aside what is damaged and all behind it, and let the world go on from the last good tick under"
        " a new epoch; inputs that were acknowledged later are lost to it, and kept in a folder of their own",
    )
    parser.add_argument("--replay", action="store_true", help="compute the world again and compare every stored hash")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Refuse what would say nothing."""
    given = options.first is not None or options.last is not None
    if given and not options.records:
        raise WorldRefused("--from and --to choose what --records says: give it too")
    if options.last is not None and options.last < (options.first or 1):
        raise WorldRefused(f"--from {options.first} --to {options.last}: --to must not be before --from")


class _Seen:
    """What a journal holds."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.hashes = 0
        self.actions = 0
        self.first_tick: int | None = None
        self.last_tick: int | None = None
        self.genesis: Genesis | None = None
        self.parts = Parts()


def _records(records: Segments, first: int, last: int) -> _Seen:
    """Read all records, and say those from first to last."""
    seen = _Seen()
    for record in records:
        seen.kinds[record.kind.name.lower()] += 1
        seen.parts.take(record)
        if record.kind is RecordKind.MARK:
            mark = decode_mark(record.payload)
            seen.hashes += mark.hashed_tick != NO_HASH
            seen.first_tick = mark.tick if seen.first_tick is None else seen.first_tick
            seen.last_tick = mark.tick
        elif record.kind is RecordKind.GENESIS:
            seen.genesis = decode_genesis(record.payload)
        elif is_input(record):
            seen.actions += record.sequences
        if record.sequence <= last and record.sequence + record.sequences > first:
            for sequence, line in enumerate(describe(record), record.sequence):
                if first <= sequence <= last:
                    _say(f"{sequence:>10}  {line}")
    return seen


def describe(record: Record) -> list[str]:
    """Return in words what a record is, for each sequence it takes."""
    if is_input(record):
        actions = decode_actions(record)
        return [_action(row, name) for row, name in zip(actions.rows, actions.client_action_ids, strict=True)]
    return [_other(record)]


def _other(record: Record) -> str:
    match record.kind:
        case RecordKind.GENESIS:
            genesis = decode_genesis(record.payload)
            return (
                f"the world begins: epoch {genesis.epoch}, {genesis.config['residents']} residents, after tick"
                f" {genesis.start_tick}, {genesis.created}"
            )
        case RecordKind.KEY:
            key = decode_key(record.payload)
            if key.owner == OPERATOR:
                return "the operator gets a key" + (" in place of an older one" if any(key.revoked) else "")
            ends = ", and an older one ends" if any(key.revoked) else ""
            return f"owner {key.owner} gets a key for agent a{key.registration}{ends}"
        case RecordKind.MARK:
            mark = decode_mark(record.payload)
            hashed = "" if mark.hashed_tick == NO_HASH else f"; state hash of tick {mark.hashed_tick}"
            return f"tick {mark.tick} begins at {iso_time(mark.unix_ns)} with {mark.actions} actions{hashed}"
        case RecordKind.EPOCH:
            new = decode_epoch(record.payload)
            return (
                f"epoch {new.epoch} begins, behind tick {new.parent_tick} of {new.parent_epoch}, computed by engine"
                f" version {new.engine_version}: {new.reason}"
            )
        case RecordKind.COMMAND:
            return f"the operator: {describe_command(decode_command(record.payload))}"
        case _:
            return "the server stopped cleanly"


def _action(row: np.void, name: str) -> str:
    kind, agent = Kind(int(row["kind"])), f"agent a{int(row['agent_id'])}"
    if kind is Kind.REGISTER:
        return f"{agent} of owner {int(row['owner'])} registers"
    parts = [kind.name.lower().replace("_", " ")]
    if kind in (Kind.LIMIT, Kind.MARKET, Kind.REPLACE):
        parts.append(f"{'buy' if row['side'] > 0 else 'sell'} {int(row['quantity'])}")
    if int(row["market"]) >= 0:
        parts.append(NAMES[int(row["market"])])
    if int(row["order_id"]):
        parts.append(f"order {int(row['order_id'])}")
    return f"{agent}: {' '.join(parts)}, id {name!r}"


def _salvage(folder: Path) -> None:
    saved = salvage(folder, SystemClock())
    if saved is None:
        _say("nothing is damaged: there is nothing to salvage")
        return
    _say(f"damage: {saved.damage}")
    _say(f"the world goes on behind tick {saved.tick} as epoch {saved.epoch}; the first record lost is {saved.lost}")
    _say(f"what was cut off is in {saved.aside}")


def _summary(paths: Sequence[Path], records: Segments, seen: _Seen) -> None:
    archived = sum(path.suffix == ".gz" for path in paths)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(seen.kinds.items()))
    found = sum(seen.kinds.values())
    _say(f"{len(paths)} segments ({archived} archived), {found} records: {counts}; {seen.actions} actions")
    if seen.genesis is not None:
        seed = hashlib.blake2b(bytes.fromhex(seen.genesis.seed), digest_size=32).hexdigest()
        _say(f"epoch {seen.genesis.epoch}, engine version {seen.genesis.engine_version}, seed commitment {seed}")
    if seen.genesis is not None and len(parts := seen.parts.found()) > 1:
        _say(f"computed by several engines: {', '.join(map(str, parts))}")
    if seen.last_tick is not None:
        _say(f"ticks {seen.first_tick} to {seen.last_tick}, {seen.hashes} state hashes, the chain holds at every mark")
    if records.torn is not None:
        offset, lost, reason = records.torn
        _say(f"torn tail at byte {offset} of {records.path}: {reason}; the first record lost is {lost}")
    elif not records.is_clean:
        _say("the last record is no clean stop: the server is running, or was killed")


def _snapshots(folder: Path) -> bool:
    """Check every snapshot and the files it needs; say which cannot be used."""
    known, good = list_snapshots(folder), 0
    for named in known:
        try:
            snapshot = load(named.path)
            if named == known[-1]:
                _receipts(folder, (name for name, _ in snapshot.receipt_files))
            good += 1
        except (NotWhole, OSError) as error:
            _say(f"SNAPSHOT  {named.path.name}: {error}")
    _say(f"{len(known)} snapshots, {good} whole")
    return good == len(known)


def _spared(folder: Path, damage: JournalDamaged) -> Named | None:
    """Return the newest snapshot when a start reads nothing of the damaged segment, whichever one it begins with."""
    paths, newest = segment_paths(folder), list_snapshots(folder)[-NEWEST_KEPT:]
    names = [str(path) for path in paths]
    # the first segment is read by every start, for what the world began with
    if not newest or damage.path not in names[1:-1]:
        return None
    behind = first_sequence(paths[names.index(damage.path) + 1])
    try:
        is_spared = all(load(named.path).sequence >= behind for named in newest)
    except (NotWhole, OSError):
        return None
    return newest[-1] if is_spared else None


def _receipts(folder: Path, names: Iterable[str]) -> None:
    """Read every receipt of these files. Raises NotWhole, OSError."""
    for name in names:
        try:
            generation = open_generation(folder / RECEIPTS_NAME / name)
            for first in range(0, len(generation), READ_RECEIPTS):
                generation.read(first, min(first + READ_RECEIPTS, len(generation)))
        except (NotWhole, ReceiptDamaged, OSError) as error:
            raise NotWhole(f"its receipts in {name}: {error}") from error


def _replay(folder: Path, parts: list[Part]) -> None:
    """Replay every part of a journal that this release computed; say of the others whose they are."""
    read_genesis(folder)
    for part in parts:
        if not part.is_ours:
            _say(f"not replayed: {part} is for a release with that engine version")
            continue
        _, economy, behind = begin_part(folder, part)
        done = run_replay(economy, Until(behind, part.last))
        _say(f"replayed {done.marks} ticks, {done.hashes_checked} hashes checked, all equal")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
