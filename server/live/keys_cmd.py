"""`arena keys DIR --new-operator`: another operator's key for a world that is stopped; the one before opens nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.errors import JournalDamaged
from engine.journal import KeyRecord, RecordKind, decode_key, encode_key
from server import keys
from server.command_line import refuse
from server.live.errors import FolderInUse, WorldRefused
from server.live.journal import append_record, read_segments, segment_paths
from server.live.registry import NO_KEY, OPERATOR
from server.live.world import FolderLock, cut_torn

OK, REFUSED, DAMAGED = 0, 2, 3


def main(args: Sequence[str]) -> int:
    """Make a key and print it; return the exit status: 0 done, 2 there is no such world or it runs, 3 damaged bytes."""
    options = _parser().parse_args(args)
    try:
        key = new_operator_key(options.folder)
    except JournalDamaged as error:
        return refuse("keys", error, DAMAGED)
    except (FolderInUse, WorldRefused, OSError) as error:
        return refuse("keys", error, REFUSED)
    sys.stdout.write(f"operator key, shown this once: {key}\n")
    return OK


def new_operator_key(folder: Path) -> str:
    """Give a stopped world another operator's key, durably, and return it.

    Raises WorldRefused without a world, FolderInUse while it runs, JournalDamaged, OSError.
    """
    if not segment_paths(folder):
        raise WorldRefused(f"{folder} holds no world")
    lock = FolderLock(folder)
    try:
        cut_torn(segment_paths(folder)[-1])
        records = read_segments(segment_paths(folder))
        before = NO_KEY
        for record in records:
            if record.kind is RecordKind.KEY and (issued := decode_key(record.payload)).owner == OPERATOR:
                before = issued.key_hash
        key = keys.mint()
        made = KeyRecord(OPERATOR, 0, keys.digest(key), before)
        append_record(Path(records.path), records.next_sequence, RecordKind.KEY, encode_key(made))
        return key
    finally:
        lock.release()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arena keys",
        description="The key of the operator's surface (/api/admin on 127.0.0.1): it is shown when a world first"
        " starts, and kept as a hash only. The world must be stopped.",
        epilog="example: arena keys arena-data --new-operator",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="data folder of the world")
    parser.add_argument(
        "--new-operator", action="store_true", required=True, help="make another one; the one before opens nothing more"
    )
    return parser
