"""A release that changes results goes on in an epoch of its own; each part of a journal is computed by its engine only.

The other engine is a real one: its worlds have many more discoveries.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.config import ENGINE_VERSION
from engine.journal import NewEpoch, RecordKind, decode_epoch
from engine.messages import Kind
from server.clock import SystemClock
from server.live import replay_cmd, verify_cmd
from server.live.backup import backup, restore
from server.live.errors import WorldRefused
from server.live.journal import read_segments, segment_paths
from server.live.parts import begin_part, part_of, parts_of
from server.live.rewind import economy_at
from server.live.snapshots import list_snapshots
from server.live.world import run_replay
from tests.support.engines import engine_version
from tests.support.live import live_world, open_small, soon

OTHER = ENGINE_VERSION + 1
OFTEN = {"snapshot_ticks": 10, "resume_frames": 4}
BEFORE, AFTER = 18, 33
"""Ticks under each engine."""


async def live_under_both(folder: Path) -> int:
    """Let a world live under this engine and then under the other; return the tick between them."""
    async with live_world(folder, **OFTEN) as arena:
        agent = (await arena.register()).agent
        await arena.tick(BEFORE)
        between = arena.world.economy.tick
        arena.act(agent, "late", Kind.SET_SENTIMENT, mood=(1, 2, 3, 4))
    with engine_version(OTHER):
        async with live_world(folder, **OFTEN) as arena:
            await arena.tick(AFTER)
    return between


def epochs(folder: Path) -> list[NewEpoch]:
    """Return the epochs of a journal after the first."""
    records = read_segments(segment_paths(folder))
    return [decode_epoch(record.payload) for record in records if record.kind is RecordKind.EPOCH]


async def test_another_engine_goes_on_from_a_clean_stop_under_an_epoch_of_its_own(tmp_path: Path) -> None:
    """The record names the parent, both engines and the reason; what was acknowledged is in the first tick after it."""
    async with live_world(tmp_path, **OFTEN) as arena:
        agent = (await arena.register()).agent
        await arena.tick(BEFORE)
        before = arena.world.epoch, arena.world.economy.tick, arena.world.economy.state_hash()
        late = arena.act(agent, "late", Kind.SET_SENTIMENT, mood=(1, 2, 3, 4))

    with engine_version(OTHER):
        async with live_world(tmp_path, **OFTEN) as arena:
            world = arena.world
            assert (world.economy.tick, world.economy.state_hash()) == before[1:]
            assert world.replayed.marks == 0
            await arena.tick()
            receipt = world.receipts.get(agent, "late")
            assert receipt is not None
            assert (receipt.seq, receipt.tick) == (late, before[1] + 1)
            epoch = world.epoch

    [new] = epochs(tmp_path)
    assert (new.epoch, new.parent_epoch, new.parent_tick, new.engine_version) == (epoch, *before[:2], OTHER)
    assert new.reason == f"engine version {OTHER} instead of {ENGINE_VERSION}"
    with engine_version(OTHER):
        again = open_small(tmp_path, **OFTEN)
        again.lock.release()
    assert again.epoch == epoch
    assert len(epochs(tmp_path)) == 1


async def test_each_release_replays_what_it_computed_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every stored hash is met; who asks the wrong release is told which one to use."""
    between = await live_under_both(tmp_path)
    last = between + AFTER

    assert replay_cmd.main([str(tmp_path), "--check", "--to", str(between)]) == replay_cmd.OK
    ours = capsys.readouterr().out
    assert replay_cmd.main([str(tmp_path)]) == replay_cmd.REFUSED
    refused = capsys.readouterr().err
    with engine_version(OTHER):
        assert replay_cmd.main([str(tmp_path), "--check"]) == replay_cmd.OK
        theirs = capsys.readouterr().out
        assert replay_cmd.main([str(tmp_path), "--to", str(between)]) == replay_cmd.REFUSED
        assert verify_cmd.main([str(tmp_path), "--replay"]) == verify_cmd.OK
        verified = capsys.readouterr().out

    assert f"{BEFORE} marks" in ours
    assert f"left out: ticks {between + 1} to {last} (engine version {OTHER})" in ours
    assert f"ticks {between + 1} to {last} (engine version {OTHER}) can only be computed again by a release" in refused
    assert f"{AFTER} marks, 3 hashes checked, all equal" in theirs
    assert f"(engine version {ENGINE_VERSION}) is for a release with that engine version" in verified
    assert f"replayed {AFTER} ticks, 3 hashes checked, all equal" in verified
    assert "computed by several engines" in verified


async def test_the_engines_differ(tmp_path: Path) -> None:
    """So that the other tests say something: this engine does not come to where the other one came."""
    await live_under_both(tmp_path)
    parts = parts_of(read_segments(segment_paths(tmp_path)))
    hashes = []

    for version in (ENGINE_VERSION, OTHER):
        with engine_version(OTHER):
            _, economy, records = begin_part(tmp_path, part_of(parts))
        if version == OTHER:
            with engine_version(OTHER):
                run_replay(economy, records)
        else:
            run_replay(economy, records, check=False)
        hashes.append(economy.state_hash())

    assert hashes[0] != hashes[1]


async def test_a_world_that_did_not_stop_cleanly_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Its last ticks cannot be computed by another engine; a start and a stop under its own mend that."""
    async with live_world(tmp_path / "one", **OFTEN) as arena:
        await arena.tick(BEFORE)
        await soon(arena.world.snapshots.idle())
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        last = arena.world.economy.tick

    with engine_version(OTHER), pytest.raises(WorldRefused) as raised:
        open_small(tmp_path / "two", **OFTEN)
    async with live_world(tmp_path / "two", **OFTEN):
        pass
    with engine_version(OTHER):
        world = open_small(tmp_path / "two", **OFTEN)
        world.lock.release()

    message = str(raised.value)
    assert f"up to {last}, were computed by engine version {ENGINE_VERSION}" in message
    assert f"Start the world once with a release of engine version {ENGINE_VERSION}, stop it (SIGTERM)" in message
    assert world.economy.tick == last


async def test_the_snapshot_of_the_change_stays_and_without_it_later_ones_do(tmp_path: Path) -> None:
    """It is what the part begins with; the world itself goes on from any later one."""
    between = await live_under_both(tmp_path)
    ticks = [named.tick for named in list_snapshots(tmp_path)]
    with engine_version(OTHER):
        expected = open_small(tmp_path, **OFTEN)
        expected.lock.release()
    [root] = [named.path for named in list_snapshots(tmp_path) if named.tick == between]
    root.unlink()

    with engine_version(OTHER):
        world = open_small(tmp_path, **OFTEN)
        world.lock.release()
        parts = parts_of(read_segments(segment_paths(tmp_path)))
        with pytest.raises(WorldRefused, match=f"begins with the snapshot of tick {between}, which cannot be used"):
            begin_part(tmp_path, part_of(parts))
        shutil.rmtree(tmp_path / "snapshots")
        with pytest.raises(WorldRefused, match="of the snapshots since none can be used: restore a backup"):
            open_small(tmp_path, **OFTEN)

    assert between in ticks
    assert len(ticks) >= 4
    assert world.economy.state_hash() == expected.economy.state_hash()


async def test_a_tick_of_another_engine_cannot_be_gone_to(tmp_path: Path) -> None:
    """A fork begins at the last tick before the change or later; under the old release it ends there."""
    between = await live_under_both(tmp_path)

    with engine_version(OTHER):
        with pytest.raises(WorldRefused, match=f"use a release with engine version {ENGINE_VERSION} for it"):
            economy_at(tmp_path, between - 1)
        at_change = economy_at(tmp_path, between)
        later = economy_at(tmp_path, between + 17)
    ours = economy_at(tmp_path, between - 3)
    with pytest.raises(WorldRefused, match=f"tick {between + 17} of .* was computed by engine version {OTHER}"):
        economy_at(tmp_path, between + 17)

    assert (at_change.economy.tick, later.economy.tick) == (between, between + 17)
    assert at_change.epoch != later.epoch
    assert sum(record.kind is RecordKind.MARK for record in ours.records) == 3
    assert sum(record.kind is RecordKind.MARK for record in later.records) == AFTER - 17


async def test_other_epochs_say_which_engine_goes_on(tmp_path: Path) -> None:
    """A restored world is of the engine that computed the tick it is restored to."""
    between = await live_under_both(tmp_path / "world")
    backup(tmp_path / "world", tmp_path / "world.tar", SystemClock())

    restore(tmp_path / "world.tar", tmp_path / "early", SystemClock(), to_tick=between)
    with engine_version(OTHER):
        restore(tmp_path / "world.tar", tmp_path / "late", SystemClock())

    assert [one.engine_version for one in epochs(tmp_path / "early")] == [ENGINE_VERSION]
    assert [one.engine_version for one in epochs(tmp_path / "late")] == [OTHER, OTHER]
    world = open_small(tmp_path / "early", **OFTEN)
    world.lock.release()
    assert world.economy.tick == between
    with engine_version(OTHER):
        async with live_world(tmp_path / "late", **OFTEN) as arena:
            await soon(arena.tick())
