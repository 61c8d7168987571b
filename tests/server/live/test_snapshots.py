"""Snapshots: a start from one is the start from the beginning, to the bit; what is wrong with one costs only time."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.economy import hash_copy
from engine.errors import JournalDamaged
from engine.journal import RecordKind
from engine.markets import HOURS
from engine.messages import Kind
from server.live import receipt_index, snapshots
from server.live import receipts as receipts_module
from server.live import registry as registry_module
from server.live.journal import ARCHIVE_NAME, read_segments, scan_segment, segment_paths
from server.live.snapshots import DAY_S, HOUR_S, NEWEST_KEPT, Named, list_snapshots, superfluous
from server.live.ticker import HASH_EVERY
from server.live.world import Known, World
from tests.support.live import LiveWorld, live_world, open_small, soon, until
from tests.support.worlds import small_config

GOOD = 12
EVERY, RESUME = 10, 4
OFTEN = {"snapshot_ticks": EVERY, "resume_frames": RESUME}
"""A snapshot every few ticks, and few to be replayed."""


async def live(arena: LiveWorld, ticks: int, agents: list[int] | None = None) -> list[int]:
    """Let two agents act for so many ticks: fills, resting orders, refusals."""
    if agents is None:
        agents = [(await arena.register(f"key {i}", idempotency=f"word {i}")).agent for i in range(2)]
    for _ in range(ticks):
        tick = arena.world.economy.tick
        level = int(arena.world.economy.state.level[GOOD]) + (200 if tick % 3 else -3_000)
        for agent in agents:
            arena.act(agent, f"a-{tick}", market=GOOD, side=1, quantity=1 + tick % 7, level=level)
        await arena.tick()
        await written(arena)
    return agents


async def written(arena: LiveWorld) -> None:
    """Wait for the snapshot that is being written."""
    await soon(arena.world.snapshots.idle())


def documents(world: World, agents: list[int], ticks: range) -> list[Any]:
    """Return the receipts of what live() did in those ticks."""
    found = [world.receipts.get(agent, f"a-{tick}") for agent in agents for tick in ticks]
    return [receipt and receipt.document(False) for receipt in found]


def open_again(folder: Path, **changes: Any) -> World:
    """Open a world and let go of it at once."""
    world = open_small(folder, **{**OFTEN, **changes})
    world.lock.release()
    return world


async def test_a_start_from_a_snapshot_is_the_start_from_the_beginning(tmp_path: Path) -> None:
    """State, receipts settled and open, agents, keys, events, chain: everything is what a whole replay makes."""
    async with live_world(tmp_path / "one", **OFTEN) as arena:
        agents = await live(arena, 3 * EVERY)
        events = arena.world.events.size
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "snapshots")

    quick, whole = open_again(tmp_path / "one"), open_again(tmp_path / "two")

    ticks = range(25, 25 + 3 * EVERY)
    assert quick.opened_at >= 3 * EVERY
    assert whole.opened_at == 25
    assert quick.replayed.marks < whole.replayed.marks == 3 * EVERY
    assert quick.economy.state_hash() == whole.economy.state_hash()
    assert documents(quick, agents, ticks) == documents(whole, agents, ticks)
    assert None not in documents(quick, agents, ticks)
    assert quick.journal.next_seq == whole.journal.next_seq
    assert quick.journal.chain.close() == whole.journal.chain.close()
    assert quick.events.size == whole.events.size == events
    for world in (quick, whole):
        assert world.registry.owner_of_key(b"key 1".ljust(32, b".")) == agents[1]
        found = world.registry.find_registration(None, "word 0")
        assert found is not None
        assert (found.number, found.is_active, world.registry.active) == (agents[0], True, 2)
    assert quick.economy.copy_arrays()[0] == whole.economy.copy_arrays()[0]


async def test_what_a_snapshot_is_written_from_stays_as_it_is(tmp_path: Path) -> None:
    """However long its thread takes: hashes of later ticks are taken beside it, of other copies of the world."""
    may_write = threading.Event()
    async with live_world(tmp_path, **OFTEN) as arena:
        arena.world.snapshots._thread.submit(may_write.wait)
        hashes = {}
        for _ in range(3 * EVERY + 2):
            tick = (await arena.tick()).tick
            hashes[tick] = arena.world.economy.state_hash()
        taken = arena.world.snapshots.is_taking
        later = arena.ticker.latest_hash
        may_write.set()
        await written(arena)
        first = snapshots.load(list_snapshots(tmp_path)[0].path)
        await live(arena, EVERY)
        newest = list_snapshots(tmp_path)[-1].tick

    assert taken
    assert later is not None
    assert later.tick > first.tick == 3 * EVERY
    assert hashes[later.tick] == later.value
    assert hash_copy(first.tick, first.world) == hashes[first.tick]
    assert newest > first.tick, "the copy is free again"


async def test_what_a_hash_is_taken_of_stays_as_it_is(tmp_path: Path) -> None:
    """However long it takes, and however many snapshots are taken meanwhile."""
    may_hash = threading.Event()
    async with live_world(tmp_path, **OFTEN) as arena:
        arena.ticker._hashing.submit(may_hash.wait)
        hashes = {}
        for _ in range(4 * EVERY):
            tick = (await arena.tick()).tick
            hashes[tick] = arena.world.economy.state_hash()
            await written(arena)
        taken = list_snapshots(tmp_path)
        may_hash.set()
        arena.ticker._hashing.submit(int).result()
        await arena.tick()
        found = arena.ticker.latest_hash

    assert len(taken) >= 3
    assert found is not None
    assert found.tick == min(tick for tick in hashes if tick % HASH_EVERY == 0)
    assert hashes[found.tick] == found.value


async def test_an_owner_has_the_same_keys_after_every_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stop, after a crash, and from the beginning: the same ones, and the same one is the next to end."""
    monkeypatch.setattr(registry_module, "KEYS_KEPT", 2)
    config = small_config(agents_per_owner_max=2)
    async with live_world(tmp_path / "one", engine=config, **OFTEN) as arena:
        owner = (await arena.register("key 0")).owner
        for i in range(1, EVERY):
            made = await arena.register(f"key {i}", owner)
            await arena.tick()
            arena.recorder.unregister(made.agent, "bye")
            await arena.tick()
            await written(arena)
        expected = arena.world.registry.copy().keys
        ending = arena.world.registry.surplus_key(owner, registry_module.NO_KEY)
        shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.copytree(tmp_path / "one", tmp_path / "three")
    shutil.rmtree(tmp_path / "three" / "snapshots")

    opened = [open_again(tmp_path / name) for name in ("one", "two", "three")]

    assert len(expected) == 1 + 2 + 1
    assert ending == expected[1][0]
    assert [world.registry.copy().keys for world in opened] == [expected] * 3
    assert [world.registry.surplus_key(owner, registry_module.NO_KEY) for world in opened] == [ending] * 3
    assert opened[0].opened_at > opened[2].opened_at == 25


async def test_a_resting_order_of_before_the_snapshot_is_followed_after_it(tmp_path: Path) -> None:
    """Its receipt was open when the snapshot was taken: what happens later is told all the same."""
    async with live_world(tmp_path, **OFTEN) as arena:
        agent = (await arena.register()).agent
        await arena.tick()
        level = int(arena.world.economy.state.level[GOOD]) - 5_000
        seq = arena.act(agent, "resting", market=GOOD, side=1, quantity=3, level=level)
        await live(arena, 2 * EVERY, [])

    async with live_world(tmp_path, **OFTEN) as again:
        assert again.world.opened_at > 25
        before = again.world.receipts.get(agent, "resting")
        assert before is not None
        assert before.outcome is not None
        assert (before.outcome["status"], before.seq) == ("resting", seq)
        again.act(agent, "cancel", Kind.CANCEL, order_id=seq)
        await again.tick()
        after = again.world.receipts.get(agent, "resting")
        assert after is not None
        assert after.outcome is not None
        assert after.outcome["status"] == "cancelled"


async def test_enough_ticks_are_replayed_for_those_who_resume(tmp_path: Path) -> None:
    """The newest snapshot is passed over when less than the resume ring lies behind it."""
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, 2 * EVERY + 3 - (25 % EVERY))
        newest = list_snapshots(tmp_path)[-1].tick
        assert arena.world.economy.tick - newest < RESUME

    world = open_again(tmp_path)

    assert world.opened_at == newest - EVERY
    assert world.replayed.marks > RESUME


@pytest.mark.parametrize("harm", ["cut", "flipped", "receipts gone", "events cut"])
async def test_a_snapshot_that_cannot_be_used_costs_only_time(tmp_path: Path, harm: str) -> None:
    """The one before it does, or the whole journal; the world is the same."""
    async with live_world(tmp_path, **OFTEN) as arena:
        agents = await live(arena, 3 * EVERY)
        expected = arena.world.economy.state_hash()
        receipts = documents(arena.world, agents, range(25, 25 + 3 * EVERY))
    best = open_again(tmp_path).opened_at
    path = next(one.path for one in list_snapshots(tmp_path) if one.tick == best)
    data = bytearray(path.read_bytes())
    match harm:
        case "cut":
            path.write_bytes(data[:-100])
        case "flipped":
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        case "receipts gone":
            shutil.rmtree(tmp_path / "receipts")
        case "events cut":
            (tmp_path / "events.jsonl").write_bytes(b"")

    world = open_again(tmp_path)

    assert world.opened_at < best
    assert world.economy.state_hash() == expected
    assert documents(world, agents, range(25, 25 + 3 * EVERY)) == receipts


async def test_a_start_from_an_older_snapshot_leaves_the_newer_ones_usable(tmp_path: Path) -> None:
    """What they name of receipts stays: in a row of crashes each start would else replay more than the one before."""
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, 3 * EVERY)
    newest = open_again(tmp_path).opened_at

    older = open_again(tmp_path, resume_frames=2 * EVERY).opened_at
    again = open_again(tmp_path)

    assert older < newest
    assert again.opened_at == newest


async def test_old_segments_are_archived_and_still_read(tmp_path: Path) -> None:
    """The journal is one row of records, wherever its segments are; a record of an archived one is found damaged."""
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, 6 * EVERY)
    paths = segment_paths(tmp_path)
    archived = [path for path in paths if path.suffix == ".gz"]

    marks = [record.sequence for record in read_segments(paths) if record.kind is RecordKind.MARK]
    sequences = [record.sequence for record in read_segments(paths)]

    assert len(archived) >= 2
    assert len(paths) - len(archived) == NEWEST_KEPT
    assert len(marks) == 6 * EVERY
    assert sequences == list(range(1, len(sequences) + 1))
    assert all(path.parent.name == ARCHIVE_NAME for path in archived)
    whole = open_again(tmp_path)
    shutil.rmtree(tmp_path / "snapshots")
    assert open_again(tmp_path).economy.state_hash() == whole.economy.state_hash()
    data = bytearray(gzip.decompress(archived[1].read_bytes()))
    data[len(data) // 2] ^= 1
    archived[1].write_bytes(gzip.compress(data))
    with pytest.raises(JournalDamaged, match="archive"):
        open_again(tmp_path)


async def test_a_missing_segment_is_damage(tmp_path: Path) -> None:
    """Records that are not there were acknowledged once."""
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, 3 * EVERY)
    shutil.rmtree(tmp_path / "snapshots")
    paths = segment_paths(tmp_path)
    paths[1].unlink()

    with pytest.raises(JournalDamaged, match="begins with record"):
        open_again(tmp_path)


async def test_a_full_disk_costs_snapshots_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted and said; receipts stay in memory; the next snapshot has everything."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with live_world(tmp_path, **OFTEN) as arena:
        with monkeypatch.context() as broken:
            broken.setattr(snapshots, "write_arrays", full)
            agents = await live(arena, EVERY)
        failed = arena.metrics.snapshots.labels("failed")._value.get()
        in_memory = arena.world.receipts.in_memory
        await live(arena, EVERY, agents)
        receipts = documents(arena.world, agents, range(25, 25 + 2 * EVERY))

        assert failed == 1
        assert in_memory == 2 * EVERY
        assert arena.world.receipts.in_memory < len(arena.world.receipts) == 4 * EVERY
        assert None not in receipts
    assert documents(open_again(tmp_path), agents, range(25, 25 + 2 * EVERY)) == receipts


async def test_a_stop_leaves_a_snapshot_that_nothing_needs_to_be_replayed_behind(tmp_path: Path) -> None:
    """A start goes on from it with receipts, agents and what waited for the next tick, if the last ticks are known."""
    async with live_world(tmp_path / "one", **OFTEN) as arena:
        agents = await live(arena, EVERY + 3)
        late = arena.act(agents[0], "late", Kind.SET_SENTIMENT, mood=(1, 2, 3, 4))
        await arena.register("third")
        expected = arena.world.economy.state_hash()
    last = list_snapshots(tmp_path / "one")[-1]
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "snapshots")

    quick = open_again(tmp_path / "one", known=Known(last.tick - RESUME, last.tick))
    whole = open_again(tmp_path / "two")

    assert quick.opened_at == quick.economy.tick == last.tick
    assert quick.replayed.marks == 0
    assert quick.economy.state_hash() == whole.economy.state_hash() == expected
    assert [row["seq"] for row in quick.queue.drain()] == [row["seq"] for row in whole.queue.drain()]
    assert quick.receipts.get(agents[0], "late").document(True)["seq"] == late  # type: ignore[union-attr]
    ticks = range(25, 25 + EVERY + 3)
    assert documents(quick, agents, ticks) == documents(whole, agents, ticks)
    assert quick.journal.chain.close() == whole.journal.chain.close()
    assert quick.journal.next_seq == whole.journal.next_seq
    assert quick.registry.owner_of_key(b"third".ljust(32, b".")) == whole.registry.owner_of_key(
        b"third".ljust(32, b".")
    )
    assert quick.standing == whole.standing


@pytest.mark.parametrize(("first", "newest"), [(-RESUME + 1, 0), (-RESUME, -1)])
async def test_a_snapshot_is_passed_over_when_not_all_of_the_last_ticks_are_known(
    tmp_path: Path, first: int, newest: int
) -> None:
    """Who was connected may resume from any of them."""
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, 2 * EVERY + 3)
        last = arena.world.economy.tick

    world = open_again(tmp_path, known=Known(last + first, last + newest))

    assert world.opened_at < last
    assert world.replayed.marks >= RESUME


async def test_a_snapshot_is_passed_over_when_a_day_of_ticks_could_not_be_told_from_it(tmp_path: Path) -> None:
    """The history's file could not be written: a market's day is made of as many ticks as when it was told first."""
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, HOURS + EVERY + RESUME)
        last = arena.world.economy.tick
    told: list[int] = []

    open_again(tmp_path, on_replayed=lambda report, unix_ns: told.append(report.tick))

    assert told == list(range(told[0], last + 1))
    assert len(told) >= HOURS
    assert told[0] > 26


async def test_a_stop_writes_no_snapshot_twice_and_none_of_a_broken_world(tmp_path: Path) -> None:
    """A start and a stop without a tick between them find theirs there; arrays inside of a tick are nobody's."""
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, 3)
    before = [named.path.stat().st_mtime_ns for named in list_snapshots(tmp_path)]

    async with live_world(tmp_path, **OFTEN):
        pass
    unchanged = [named.path.stat().st_mtime_ns for named in list_snapshots(tmp_path)]
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, 1)
        arena.world.economy.state.tick += 1

    assert unchanged == before
    assert len(list_snapshots(tmp_path)) == len(before)


async def test_a_stop_does_not_wait_for_a_snapshot_that_takes_too_long(tmp_path: Path) -> None:
    """What is there of it is not taken for one, and the next start replays."""
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, 2)
        assert arena.world.standing is not None
        large = [("large", np.zeros(1 << 19))]
        await soon(arena.world.snapshots.finish(arena.world.standing, large, arena.clock.monotonic() - 1.0))

        assert list_snapshots(tmp_path) == []
        assert arena.metrics.snapshots.labels("failed")._value.get() == 1


async def test_packing_a_segment_ends_when_the_server_stops(tmp_path: Path) -> None:
    """The next snapshot packs it: nothing is lost, and nothing half packed is read."""
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, 2 * EVERY)
    asked = iter((False, True))

    count = snapshots.archive(tmp_path, 1 << 40, lambda descriptor: None, lambda: next(asked))

    assert count == 0
    assert not [path for path in segment_paths(tmp_path) if path.suffix == ".gz"]


async def test_a_segment_ends_with_the_mark_of_its_snapshot(tmp_path: Path) -> None:
    """What a start replays begins with the first record the snapshot does not have."""
    async with live_world(tmp_path, **OFTEN) as arena:
        await live(arena, 2 * EVERY)
    paths = segment_paths(tmp_path)

    kinds = [[record.kind for record in scan_segment(path)] for path in paths]

    assert [segment[-1] for segment in kinds[:-1]] == [RecordKind.MARK] * (len(paths) - 1)
    *regular, final = list_snapshots(tmp_path)
    assert [one.tick % EVERY for one in regular] == [0] * len(regular)
    assert snapshots.load(regular[-1].path).sequence == scan_segment(paths[-1]).first_sequence
    assert snapshots.load(final.path).sequence > scan_segment(paths[-1]).first_sequence


@given(st.lists(st.integers(0, 3 * DAY_S), min_size=1, max_size=60, unique=True))
def test_the_newest_and_the_first_of_each_hour_and_day_are_kept(times: list[int]) -> None:
    """Whatever times there are: at most three, and one for each hour of a day and each day of a week."""
    known = [Named(i, unix_s, Path(str(i))) for i, unix_s in enumerate(sorted(times))]
    now_s = known[-1].unix_s

    gone = superfluous(known, now_s)

    kept = [one for one in known if one not in gone]
    assert kept[-NEWEST_KEPT:] == known[-NEWEST_KEPT:]
    hours = {one.unix_s // HOUR_S for one in known if now_s - one.unix_s <= DAY_S}
    assert hours <= {one.unix_s // HOUR_S for one in kept}
    days = {one.unix_s // DAY_S for one in known}
    assert days <= {one.unix_s // DAY_S for one in kept}
    assert len(kept) <= NEWEST_KEPT + len(hours) + len(days)
    assert superfluous(kept, now_s) == []


def test_the_newest_with_enough_ticks_behind_it_is_kept() -> None:
    """Three stops in a minute must not leave only snapshots that a start without its history cannot use."""
    known = [Named(tick, tick, Path(str(tick))) for tick in (100, 590, 600, 610, 620, 630)]

    gone = superfluous(known, 10 * DAY_S, behind=35)

    assert [one.tick for one in gone] == [100, 600]


async def test_what_came_behind_the_mark_of_a_snapshot_is_counted_once(tmp_path: Path) -> None:
    """It is open when the snapshot is taken, and comes again with the replay: one receipt all the same."""
    async with live_world(tmp_path, **OFTEN) as arena:
        agents = await live(arena, 2 * EVERY - 1 - 25 % EVERY)
        marked = arena.world.journal.next_seq
        await arena.tick_without_waiting()
        await until(lambda: arena.world.journal.next_seq > marked)
        arena.act(agents[0], "late", market=GOOD, side=1, quantity=1, level=1)
        await soon(arena.ticker.wait_tick(arena.world.receipts.tick + 1))
        await written(arena)
        taken = arena.world.economy.tick
        await live(arena, RESUME + 1, agents)
        expected = len(arena.world.receipts)

    again = open_again(tmp_path)

    assert again.opened_at == taken
    assert again.receipts.get(agents[0], "late") is not None
    assert len(again.receipts) == expected


async def test_files_of_receipts_are_merged_and_the_old_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few stay, however many snapshots there were; each kept snapshot has what it names; no receipt is forgotten."""
    monkeypatch.setattr(receipt_index, "TIERS", ((6 * EVERY, 3), (1_000_000, 8)))
    async with live_world(tmp_path, **OFTEN) as arena:
        agents = await live(arena, 12 * EVERY)
        merged = arena.metrics.registry.get_sample_value("arena_receipt_merge_seconds_count")
        generations = len(arena.world.receipts.index.generations)
        receipts = documents(arena.world, agents, range(25, 25 + 12 * EVERY))
    files = {path.name for path in (tmp_path / "receipts").iterdir()}
    named = {one.tick: [name for name, _ in snapshots.load(one.path).receipt_files] for one in list_snapshots(tmp_path)}

    assert merged is not None
    assert merged >= 3
    assert generations < 8
    assert len(files) < 12
    assert all(set(names) <= files for names in named.values())
    for resume in (RESUME, 2 * EVERY):
        assert documents(open_again(tmp_path, resume_frames=resume), agents, range(25, 25 + 12 * EVERY)) == receipts


async def test_a_long_replay_brings_receipts_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a snapshot to begin with there may be more of them than memory takes."""
    async with live_world(tmp_path, snapshot_ticks=0) as arena:
        agents = await live(arena, 2 * EVERY)
        receipts = documents(arena.world, agents, range(25, 25 + 2 * EVERY))
    monkeypatch.setattr(receipts_module, "FLUSH_AT", 8)

    world = open_again(tmp_path, snapshot_ticks=0)

    assert len(world.receipts.index.generations) >= 2
    assert world.receipts.in_memory < len(world.receipts) == 4 * EVERY
    assert documents(world, agents, range(25, 25 + 2 * EVERY)) == receipts
