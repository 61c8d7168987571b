"""`arena replay DIR`: the world of a data folder again from its first tick, headless, as fast as it goes.

Where another engine version computed the first ticks, from the one after which this one took over. With --to it stops
at a tick, with --history it writes down what was public of every tick on the way.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.config import Config
from engine.economy import Economy
from engine.errors import JournalDamaged
from engine.events import TickReport
from engine.journal import Mark, Record, RecordKind, decode_mark
from engine.markets import HOURS
from engine.replay import HashDiffers, Watch
from server.clock import Clock, SystemClock
from server.command_line import refuse, whole
from server.live.errors import FolderInUse, WorldRefused
from server.live.history_export import HistoryExport
from server.live.journal import read_segments, segment_paths
from server.live.parts import begin_part, part_of, parts_of
from server.live.world import FolderLock, Recorded, read_genesis, run_replay

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
            return _replay(options, clock)
        finally:
            lock.release()
    except JournalDamaged as error:
        return refuse("replay", error, DAMAGED)
    except HashDiffers as error:
        return refuse("replay", f"tick {error.tick} differs: {error}", DIFFERS)
    except (FolderInUse, WorldRefused, OSError) as error:
        return refuse("replay", error, REFUSED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arena replay",
        description="Replay a world from its journal, which is only read. A running server must be stopped first.",
        epilog="examples: arena replay arena-data --check | arena replay arena-data --to 9600 --history run.parquet",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="data folder of the world")
    parser.add_argument("--check", action="store_true", help="compare every state hash the journal holds; slower")
    parser.add_argument("--to", type=whole(0), metavar="TICK", help="stop after this tick; the last one unless given")
    parser.add_argument(
        "--history",
        type=Path,
        metavar="FILE.parquet",
        help="write every public value of every tick to this file, a row a tick; needs the extra `studies`",
    )
    parser.add_argument("--threads", type=whole(1, 64), default=1, metavar="N", help="1 to 64, default 1")
    return parser


def _replay(options: argparse.Namespace, clock: Clock) -> int:
    folder: Path = options.folder
    records = read_segments(segment_paths(folder))
    read_genesis(folder)
    # read to the end first: damage is found before time is spent on ticks
    parts = parts_of(records)
    if (torn := records.torn) is not None:
        _say(f"torn tail: {torn.reason} at byte {torn.offset}; the first record lost is {torn.sequence}")
    first_tick, last_tick = parts[0].after, parts[-1].last
    if options.to is not None and not first_tick <= options.to <= last_tick:
        raise WorldRefused(f"--to {options.to}: {folder} holds the ticks {first_tick} to {last_tick}")
    part = part_of(parts, options.to)
    to = part.last if options.to is None else options.to
    genesis, economy, records = begin_part(folder, part, options.threads)
    for other in parts:
        if other != part:
            _say(f"left out: {other}")
    export = None if options.history is None else HistoryExport(options.history, genesis.epoch)
    _load_kernels()
    progress = _Progress(economy, to - economy.tick, clock, export)
    began = clock.monotonic()
    try:
        done = run_replay(economy, Until(records, to), progress, check=options.check)
        if export is not None:
            export.finish()
    except BaseException:
        if export is not None:
            export.abandon()
        raise
    seconds = max(clock.monotonic() - began, 1e-9)
    checked = f", {done.hashes_checked} hashes checked, all equal" if options.check else ""
    _say(f"{done.marks} marks{checked}")
    _say(f"{done.actions} actions, {done.marks / seconds:.0f} ticks a second")
    if export is not None:
        _say(f"{export.ticks} ticks of history in {options.history}")
    _say(f"tick {economy.tick}, state hash {economy.state_hash().hex()}")
    return OK


def _load_kernels() -> None:
    """Load every kernel of a day without agents: the ticks a second that are told are those of a long replay."""
    economy = Economy(Config(residents=2_000, max_agents=16, order_book_max=1_024), 0)
    for _ in range(HOURS):
        economy.run()


class Until:
    """Records up to the mark of a tick."""

    def __init__(self, records: Recorded, tick: int) -> None:
        self._records = records
        self._tick = tick

    @property
    def path(self) -> str:
        """The segment that was read last."""
        return self._records.path

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            if record.kind is RecordKind.MARK and decode_mark(record.payload).tick > self._tick:
                return
            yield record


class _Progress(Watch):
    """Says once a second how far a replay is, and passes on what is public of its ticks."""

    def __init__(self, economy: Economy, marks: int, clock: Clock, export: HistoryExport | None) -> None:
        self._first = economy.tick + 1
        self._marks = marks
        self._clock = clock
        self._next = clock.monotonic() + PROGRESS_S
        self._export = export

    def wants(self, mark: Mark) -> bool:
        """Say how far it is when that is due; return whether what is public of the tick is written down."""
        if self._clock.monotonic() >= self._next:
            self._next = self._clock.monotonic() + PROGRESS_S
            _say(f"tick {mark.tick}: {mark.tick - self._first + 1} of {self._marks}")
        return self._export is not None

    def tick(self, report: TickReport, mark: Mark) -> None:
        """Write down what is public of the next tick."""
        assert self._export is not None
        self._export.take(report.public, mark.unix_ns)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
