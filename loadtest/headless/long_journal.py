"""A world's folder with a long record in which nobody acted, written without computing its ticks.

    python -m loadtest.headless.long_journal world --ticks 864000

Marks without hashes are all that an idle record is: whoever replays it computes the ticks. As after so many ticks live,
there is a segment every 600 ticks, all but the last few packed. Prints the tick that the world begins after.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine.config import Config
from engine.journal import NO_HASH, Chain, Mark, RecordKind, encode, encode_batch, encode_mark, encode_segment
from server import kernel_cache

SEGMENT_TICKS = 600
UNPACKED = 3


def main() -> int:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ticks", type=int, required=True)
    parser.add_argument("--residents", type=int, default=Config().residents)
    given = parser.parse_args()
    kernel_cache.choose()
    from server import logs

    # what is printed is the tick, and nothing else
    logs.configure("json", "error")
    start = write(given.folder, given.ticks, Config(residents=given.residents))
    sys.stdout.write(f"{start}\n")
    return 0


def write(folder: Path, ticks: int, config: Config) -> int:
    """Make a world that has stood idle for so many ticks; return the tick it begins after."""
    from server.clock import SystemClock
    from server.config import Settings
    from server.live.journal import read_segments, segment_paths
    from server.live.snapshots import archive
    from server.live.world import open_world
    from server.metrics import Metrics

    world = open_world(Settings(data=folder, seed=1, engine=config, log_level="error"), Metrics(), SystemClock())
    world.events.close()
    world.lock.release()
    [path] = segment_paths(folder)
    records = read_segments([path])
    for _ in records:
        pass
    sequence, chain, tick = records.next_sequence, records.chain, world.economy.tick
    for first in range(0, ticks, SEGMENT_TICKS):
        count = min(SEGMENT_TICKS, ticks - first)
        data = encode_segment(sequence, chain.close()) if first else b""
        if first:
            path = folder / f"journal-{sequence:012d}.arj"
        data += _marks(sequence, tick, count, chain)
        sequence, tick = sequence + count, tick + count
        with path.open("ab") as file:
            file.write(data)
    archive(folder, max(1, sequence - UNPACKED * SEGMENT_TICKS), lambda descriptor: None)
    return world.start_tick


def _marks(sequence: int, tick: int, count: int, chain: Chain) -> bytes:
    """Return so many marks behind a tick, each a batch of its own, as an idle server writes them."""
    parts = []
    for i in range(count):
        mark = Mark(tick + 1 + i, 1_700_000_000_000_000_000, 0, NO_HASH, bytes(16), chain.close())
        record = encode(sequence + i, RecordKind.MARK, encode_mark(mark))
        chain.add(record)
        parts += [encode_batch(sequence + i, sequence + i, sequence + i - 1), record]
    return b"".join(parts)


if __name__ == "__main__":
    sys.exit(main())
