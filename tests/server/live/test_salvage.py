"""Salvage: a damaged world goes on from its last good tick under a new epoch, and nothing is thrown away."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import JournalDamaged
from engine.journal import RecordKind
from server.clock import ManualClock
from server.live.errors import FolderInUse, WorldRefused
from server.live.journal import read_segments, scan_segment, segment_paths
from server.live.salvage import salvage
from server.live.verify_cmd import OK, main
from tests.support.live import live_world, open_small, soon

EVERY = 5
OFTEN = {"snapshot_ticks": EVERY, "resume_frames": 2}
TICKS = 4 * EVERY + 2


async def a_world(folder: Path) -> tuple[str, dict[int, str]]:
    """Leave a world; return its epoch and the hash after each of its ticks."""
    hashes = {}
    async with live_world(folder, **OFTEN) as arena:
        agent = (await arena.register()).agent
        for i in range(TICKS):
            arena.act(agent, f"a-{i}", market=12, side=1, quantity=1, level=40_000)
            await arena.tick()
            hashes[arena.world.economy.tick] = arena.world.economy.state_hash().hex()
            await soon(arena.world.snapshots.idle())
        return arena.world.epoch, hashes


def harm(path: Path, record: int) -> None:
    """Flip a bit in a record of a segment."""
    offset = list(scan_segment(path))[record].offset
    data = bytearray(path.read_bytes())
    data[offset + 12] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("segment", [-2, -3])
async def test_the_world_goes_on_from_the_last_good_tick(
    tmp_path: Path, segment: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The state is that of that tick; the epoch is new, and stays over a restart; the damaged bytes are kept."""
    epoch, hashes = await a_world(tmp_path)
    path = segment_paths(tmp_path)[segment]
    harm(path, 4)
    whole = path.read_bytes()
    with pytest.raises(JournalDamaged):
        open_small(tmp_path, **{**OFTEN, "resume_frames": 1_000})

    assert main([str(tmp_path), "--salvage"]) == OK

    assert "the world goes on behind tick" in capsys.readouterr().out
    assert (tmp_path / "damaged-1" / path.name).read_bytes() == whole
    world = open_small(tmp_path, **OFTEN)
    world.lock.release()
    assert world.epoch != epoch
    assert world.economy.state_hash().hex() == hashes[world.economy.tick]
    assert world.economy.tick < max(hashes)
    async with live_world(tmp_path, **OFTEN) as arena:
        assert arena.world.epoch == world.epoch
        await arena.tick(2 * EVERY)
        await soon(arena.world.snapshots.idle())
    again = open_small(tmp_path, **OFTEN)
    again.lock.release()
    assert again.epoch == world.epoch, "also from a snapshot of the new epoch"
    kinds = [record.kind for record in read_segments(segment_paths(tmp_path))]
    assert kinds.count(RecordKind.EPOCH) == 1
    assert main([str(tmp_path), "--replay"]) == OK


async def test_a_whole_world_is_left_alone(tmp_path: Path) -> None:
    """Nothing is cut where nothing is damaged."""
    epoch, _ = await a_world(tmp_path)
    before = {path: path.read_bytes() for path in segment_paths(tmp_path)}

    assert salvage(tmp_path, ManualClock()) is None

    assert {path: path.read_bytes() for path in segment_paths(tmp_path)} == before
    world = open_small(tmp_path, **OFTEN)
    with pytest.raises(FolderInUse):
        salvage(tmp_path, ManualClock())
    world.lock.release()
    assert world.epoch == epoch


async def test_damage_before_the_first_tick_leaves_nothing_to_go_on_from(tmp_path: Path) -> None:
    """The operator is told to take a backup."""
    await a_world(tmp_path)
    first = segment_paths(tmp_path)[0]
    first.write_bytes(b"x" + first.read_bytes()[1:])

    with pytest.raises((WorldRefused, JournalDamaged)):
        salvage(tmp_path, ManualClock())
