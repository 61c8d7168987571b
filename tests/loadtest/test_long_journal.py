"""A long idle record written without its ticks: a journal like any other, whose ticks can be gone to."""

from __future__ import annotations

from pathlib import Path

from engine.journal import RecordKind
from loadtest.headless.long_journal import SEGMENT_TICKS, write
from server.live.journal import read_segments, segment_paths
from server.live.rewind import economy_at
from tests.support.worlds import small_config


def test_it_holds_and_leads_to_the_ticks_it_names(tmp_path: Path) -> None:
    """The chain holds over all segments, old ones are packed, and a tick far in is what an idle world is then."""
    ticks = 5 * SEGMENT_TICKS + 7

    start = write(tmp_path, ticks, small_config())

    paths = segment_paths(tmp_path)
    records = read_segments(paths)
    assert sum(record.kind is RecordKind.MARK for record in records) == ticks
    assert [path.suffix for path in paths] == [".gz", ".gz", ".arj", ".arj", ".arj", ".arj"]
    rewound = economy_at(tmp_path, start + SEGMENT_TICKS + 1)
    assert rewound.economy.tick == start + SEGMENT_TICKS + 1
    assert rewound.last_tick == start + ticks
    assert sum(record.kind is RecordKind.MARK for record in rewound.records) == 4 * SEGMENT_TICKS + 6
