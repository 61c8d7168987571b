"""`arena replay DIR`: the world of a data folder again from its first tick, headless, as fast as it goes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.economy import Economy
from engine.errors import JournalDamaged
from engine.events import TickReport
from engine.journal import Mark, RecordKind
from engine.replay import HashDiffers, Watch
from server.clock import Clock, SystemClock
from server.live.errors import FolderInUse, WorldRefused
from server.live.journal import read_segments, segment_paths
from server.live.world import WARM_NAME, FolderLock, read_genesis, run_replay, start_economy

OK, DIFFERS, REFUSED, DAMAGED = 0, 1, 2, 3
"""What the command leaves: as recorded; not as recorded; nothing to replay; damaged bytes."""
PROGRESS_S = 1.0


def main(args: Sequence[str], clock: Clock | None = None) -> int:
    """Replay the journal of a folder and print what came of it; return the exit status."""
    options = _parser().parse_args(args)
    clock = clock or SystemClock()
    try:
        if not segment_paths(options.folder):
            raise WorldRefused(f"{options.folder} holds no journal")
        lock = FolderLock(options.folder)
        try:
            return _replay(options.folder, options.threads, clock, check=options.check)
        finally:
            lock.release()
    except JournalDamaged as error:
        _say(str(error))
        return DAMAGED
    except HashDiffers as error:
        _say(f"tick {error.tick} differs: {error}")
        return DIFFERS
    except (FolderInUse, WorldRefused, OSError) as error:
        _say(str(error))
        return REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arena replay",
        description="Replay a world from its journal, which is only read. A running server must be stopped first.",
        epilog="example: arena replay arena-data --check",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="data folder of the world")
    parser.add_argument("--check", action="store_true", help="compare every state hash the journal holds; slower")
    parser.add_argument("--threads", type=int, choices=range(1, 65), default=1, metavar="N", help="1 to 64, default 1")
    return parser


def _replay(folder: Path, threads: int, clock: Clock, *, check: bool) -> int:
    records = read_segments(segment_paths(folder))
    # read to the end first: damage is found before time is spent on ticks
    marks = sum(record.kind is RecordKind.MARK for record in records)
    if (torn := records.torn) is not None:
        _say(f"torn tail: {torn.reason} at byte {torn.offset}; the first record lost is {torn.sequence}")
    genesis = read_genesis(folder)
    economy = start_economy(genesis, folder / WARM_NAME, threads)
    progress = _Progress(economy, marks, clock)
    began = clock.monotonic()
    done = run_replay(economy, records, progress, check=check)
    seconds = max(clock.monotonic() - began, 1e-9)
    checked = f", {done.hashes_checked} hashes checked, all equal" if check else ""
    _say(f"{done.marks} marks{checked}")
    _say(f"{done.actions} actions, {done.marks / seconds:.0f} ticks a second")
    _say(f"tick {economy.tick}, state hash {economy.state_hash().hex()}")
    return OK


class _Progress(Watch):
    """Says once a second how far a replay is."""

    def __init__(self, economy: Economy, marks: int, clock: Clock) -> None:
        self._first = economy.tick + 1
        self._marks = marks
        self._clock = clock
        self._next = clock.monotonic() + PROGRESS_S

    def tick(self, report: TickReport, mark: Mark) -> None:
        """Take the next tick."""
        if self._clock.monotonic() >= self._next:
            self._next = self._clock.monotonic() + PROGRESS_S
            _say(f"tick {mark.tick}: {mark.tick - self._first + 1} of {self._marks}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
