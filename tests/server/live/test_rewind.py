"""Rewinding: any recorded tick of a folder, from snapshots or from the start, also while its server runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.errors import JournalDamaged
from engine.fork import inputs
from engine.journal import Mark, RecordKind, encode_mark
from engine.messages import Kind
from engine.replay import HashDiffers
from server.clock import ManualClock
from server.live.errors import NotRecorded, WorldRefused
from server.live.journal import segment_paths
from server.live.rewind import economy_at
from server.live.salvage import salvage
from server.live.snapshots import FOLDER_NAME, archive, list_snapshots
from tests.support.live import WARM_UP_TICKS, LiveWorld, live_world, open_small, soon

GOOD = 12
START = WARM_UP_TICKS - 1
EVERY = 10
OFTEN = {"snapshot_ticks": EVERY, "resume_frames": 4}


async def live(arena: LiveWorld, ticks: int, hashes: dict[int, bytes]) -> None:
    """Let an agent act for so many ticks and note the state after each."""
    agent = (await arena.register(f"key {len(hashes)}")).agent
    for _ in range(ticks):
        level = int(arena.world.economy.state.level[GOOD])
        arena.act(agent, f"a-{arena.world.economy.tick}", market=GOOD, side=1, quantity=2, level=level)
        await arena.tick()
        hashes[arena.world.economy.tick] = arena.world.economy.state_hash()
        await soon(arena.world.snapshots.idle())


def contents(folder: Path) -> dict[Path, bytes]:
    """Return every file under a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_every_tick_of_a_running_world_can_be_asked_for(tmp_path: Path) -> None:
    """While its owner holds the lock: each tick has the state it had, whatever snapshot it begins from."""
    hashes: dict[int, bytes] = {}
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, 2 * EVERY + 5, hashes)
        last = arena.world.economy.tick

        found = {tick: economy_at(tmp_path, tick) for tick in range(START, last + 1)}

    assert {tick: rewound.economy.tick for tick, rewound in found.items()} == {tick: tick for tick in found}
    assert {tick: found[tick].economy.state_hash() for tick in hashes} == hashes
    assert (found[last].first_tick, found[last].last_tick) == (START, last)


async def test_the_records_behind_lead_to_the_end_as_often_as_they_are_read(tmp_path: Path) -> None:
    """From any tick on, across segments: the rest of the record ends in the last state, twice."""
    hashes: dict[int, bytes] = {}
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, 2 * EVERY + 5, hashes)
    last = max(hashes)

    for tick in (START, START + 1, 30, 35, 40, 41, last):
        rewound = economy_at(tmp_path, tick)
        records = [list(rewound.records) for _ in range(2)]
        for given in inputs(records[1], tick):
            if given.tick > last:
                break
            rewound.economy.advance(given.rows)
        assert records[0] == records[1]
        assert rewound.economy.state_hash() == hashes[last], tick


async def test_what_comes_later_is_not_seen(tmp_path: Path) -> None:
    """A world rewound while it runs keeps its end: ticks and segments that follow do not slip in."""
    hashes: dict[int, bytes] = {}
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, 7, hashes)
        rewound = economy_at(tmp_path, START + 3)
        before = list(rewound.records)
        arena.act(1_000, "pending", Kind.BORROW)
        await live(arena, EVERY, hashes)
        after = list(rewound.records)

    assert [(r.sequence, bytes(r.payload)) for r in after] == [(r.sequence, bytes(r.payload)) for r in before]
    assert rewound.last_tick == START + 7


async def test_archived_segments_are_read_too(tmp_path: Path) -> None:
    """Packed in the middle of reading, and packed before: the same."""
    hashes: dict[int, bytes] = {}
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, 2 * EVERY, hashes)
    rewound = economy_at(tmp_path, START)
    before = [record.sequence for record in rewound.records]
    reading = iter(rewound.records)
    first = next(reading).sequence

    packed = archive(tmp_path, 1 << 40, lambda descriptor: None)

    assert packed >= 2
    assert [first, *(record.sequence for record in reading)] == before
    assert [record.sequence for record in rewound.records] == before
    assert economy_at(tmp_path, 33).economy.state_hash() == hashes[33]


async def test_an_unusable_snapshot_costs_time_only(tmp_path: Path) -> None:
    """Damaged, of another epoch or gone: an older one, or the start, leads to the same state."""
    hashes: dict[int, bytes] = {}
    async with live_world(tmp_path / "world", **OFTEN) as arena:
        await live(arena, 3 * EVERY, hashes)
    async with live_world(tmp_path / "other", **OFTEN) as other:
        await live(other, EVERY, {})
    world, newest = tmp_path / "world", list_snapshots(tmp_path / "world")[-1]
    data = bytearray(newest.path.read_bytes())
    data[-100] ^= 1
    newest.path.write_bytes(data)
    foreign = list_snapshots(tmp_path / "other")[0]
    shutil.copy(foreign.path, world / FOLDER_NAME / f"snapshot-{max(hashes):012d}-5.arf")

    found = economy_at(world, max(hashes)).economy.state_hash()
    shutil.rmtree(world / FOLDER_NAME)
    from_start = economy_at(world, max(hashes)).economy.state_hash()

    assert found == from_start == hashes[max(hashes)]


async def test_nothing_in_the_folder_changes(tmp_path: Path) -> None:
    """Not a byte, not a file, not a lock."""
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, EVERY + 5, {})
    before = contents(tmp_path)

    economy_at(tmp_path, START + 3)

    assert contents(tmp_path) == before


async def test_the_epoch_is_the_one_of_the_tick(tmp_path: Path) -> None:
    """A salvaged world has another name from its last good tick on, and its old one before."""
    async with live_world(tmp_path) as arena:
        await live(arena, 9, {})
        old = arena.world.epoch
    path = segment_paths(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    path.write_bytes(data)
    salvaged = salvage(tmp_path, ManualClock())
    assert salvaged is not None
    async with live_world(tmp_path) as arena:
        await live(arena, 3, {})

    assert economy_at(tmp_path, salvaged.tick).epoch == old
    assert economy_at(tmp_path, salvaged.tick + 1).epoch == salvaged.epoch


async def test_a_torn_tail_is_left_out(tmp_path: Path) -> None:
    """The journal of a running server may end in the middle of a record."""
    hashes: dict[int, bytes] = {}
    async with live_world(tmp_path) as arena:
        await live(arena, 5, hashes)
    path = segment_paths(tmp_path)[-1]
    # the clean stop, then the last mark: 30 bytes and a few more
    path.write_bytes(path.read_bytes()[:-60])

    rewound = economy_at(tmp_path, START + 4)

    assert rewound.last_tick == START + 4
    assert rewound.economy.state_hash() == hashes[START + 4]


async def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    """A tick before the first or behind the last, and a folder without a world, with what can be asked for."""
    async with live_world(tmp_path / "world") as arena:
        await live(arena, 3, {})

    for tick in (START - 1, START + 4):
        with pytest.raises(NotRecorded, match=f"the journal holds ticks {START} to {START + 3}"):
            economy_at(tmp_path / "world", tick)
    with pytest.raises(WorldRefused, match="holds no journal"):
        economy_at(tmp_path / "nothing", 5)
    assert not (tmp_path / "nothing").exists()


async def test_a_world_before_its_first_tick_can_be_asked_for(tmp_path: Path) -> None:
    """A journal without a mark holds the start."""
    world = open_small(tmp_path)

    rewound = economy_at(tmp_path, START)

    assert rewound.economy.state_hash() == world.economy.state_hash()
    assert list(rewound.records) == []
    world.lock.release()


async def test_a_world_that_differs_is_found(tmp_path: Path) -> None:
    """A stored hash that is not met on the way stops it; ticks before that can still be had."""
    world = open_small(tmp_path)
    world.journal.start()
    for tick, hashed, value in ((START + 1, -1, bytes(16)), (START + 2, START + 1, b"0123456789abcdef")):
        mark = Mark(tick, 0, 0, hashed, value, world.journal.chain.close())
        world.journal.append(RecordKind.MARK, encode_mark(mark))
    await soon(world.close())

    with pytest.raises(HashDiffers):
        economy_at(tmp_path, START + 2)
    assert economy_at(tmp_path, START).economy.tick == START


async def test_damage_is_found(tmp_path: Path) -> None:
    """A wrong byte before the last batch."""
    async with live_world(tmp_path) as arena:
        await live(arena, 5, {})
    path = segment_paths(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[1_000] ^= 1
    path.write_bytes(data)

    with pytest.raises(JournalDamaged):
        economy_at(tmp_path, START + 5)
