"""Opening a world: new, again, after a crash, damaged, under other settings, or while somebody else has it."""

from __future__ import annotations

import hashlib
import shutil
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config
from engine.errors import JournalDamaged
from engine.events import TickReport
from engine.journal import Mark, RecordKind, encode_genesis, encode_mark
from engine.messages import Kind
from engine.replay import HashDiffers
from server.clock import ManualClock
from server.live.errors import FolderInUse, WorldRefused
from server.live.journal import FIRST, create_segment, segment_paths
from server.live.world import World, open_world, parallel_in
from server.metrics import Metrics
from tests.support.live import WARM_UP_TICKS, LiveWorld, live_world, open_small, small_settings, soon
from tests.support.worlds import small_config

GOOD = 12


def crashed(folder: Path, to: Path) -> Path:
    """Return a copy of a folder as it is while its process runs: what a killed process leaves behind."""
    return Path(shutil.copytree(folder, to))


async def live_a_little(arena: LiveWorld, ticks: int = 30) -> list[int]:
    """Register two agents and let them act; return their numbers."""
    agents = [(await arena.register(f"key {i}", idempotency=f"word {i}")).agent for i in range(2)]
    for i in range(ticks):
        level = int(arena.world.economy.state.level[GOOD]) + (200 if i % 3 else -3_000)
        arena.act(agents[i % 2], f"a-{i}", market=GOOD, side=1, quantity=1 + i, level=level)
        await arena.tick()
    return agents


def documents(world: World, agents: list[int], count: int) -> list[Any]:
    """Return the receipts of what live_a_little did."""
    found = [world.receipts.get(agents[i % 2], f"a-{i}") for i in range(count)]
    return [receipt and receipt.document(False) for receipt in found]


def test_a_new_world_has_a_seed_an_epoch_and_a_start(tmp_path: Path) -> None:
    """Genesis holds all a replay needs; what is published of the seed binds it without telling it."""
    world = open_small(tmp_path)

    assert world.economy.tick == world.start_tick == WARM_UP_TICKS - 1
    assert world.genesis.start_hash == world.economy.state_hash().hex()
    assert world.genesis.config == small_config().as_dict()
    assert bytes.fromhex(world.genesis.seed) == (7).to_bytes(32, "little")
    assert world.seed_commitment == hashlib.blake2b(bytes.fromhex(world.genesis.seed), digest_size=32).hexdigest()
    assert len(world.epoch) == 16
    assert world.genesis.created == "2023-11-14T22:13:20.000Z"
    assert stat.S_IMODE((tmp_path / "journal-000000000001.arj").stat().st_mode) == 0o600
    world.lock.release()


def test_two_new_worlds_have_nothing_in_common_but_their_start(tmp_path: Path) -> None:
    """Without a seed given, each gets 256 random bits of its own."""
    one = open_small(tmp_path / "one", seed=None)
    two = open_small(tmp_path / "two", seed=None)

    assert one.genesis.start_hash == two.genesis.start_hash
    assert one.genesis.seed != two.genesis.seed
    assert one.epoch != two.epoch
    one.lock.release()
    two.lock.release()


async def test_a_world_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """State, receipts, agents, keys and sequence are what they were; the epoch is the same."""
    async with live_world(tmp_path) as arena:
        agents = await live_a_little(arena)
        expected = (arena.world.economy.state_hash(), arena.world.epoch, arena.world.economy.tick)
        receipts = documents(arena.world, agents, 30)
        next_seq = arena.world.journal.next_seq

    again = open_small(tmp_path)

    assert (again.economy.state_hash(), again.epoch, again.economy.tick) == expected
    assert documents(again, agents, 30) == receipts
    assert {document["outcome"]["status"] for document in receipts} >= {"resting"}
    assert again.journal.next_seq == next_seq + 1, "the clean stop took one"
    assert again.registry.owner_of_key(b"key 1".ljust(32, b".")) == agents[1]
    found = again.registry.find_registration(None, "word 0")
    assert found is not None
    assert (found.number, found.is_active) == (agents[0], True)
    assert again.replayed.hashes_checked >= 2
    again.lock.release()


async def test_what_was_acknowledged_before_a_crash_is_in_the_next_tick(tmp_path: Path) -> None:
    """An action that was durable but had no tick yet keeps its sequence and is applied by the next process."""
    async with live_world(tmp_path / "one") as arena:
        agents = await live_a_little(arena, 12)
        seq = arena.act(agents[0], "late", Kind.SET_SENTIMENT, mood=(1, 2, 3, 4))
        await soon(arena.recorder.durable(seq))
        folder = crashed(tmp_path / "one", tmp_path / "two")
        await arena.tick(3)
        expected = arena.world.economy.state_hash()
        outcome = arena.world.receipts.get(agents[0], "late")

    async with live_world(folder) as again:
        assert len(again.world.queue) == 1
        pending = again.world.receipts.get(agents[0], "late")
        assert pending is not None
        assert (pending.seq, pending.outcome) == (seq, None)
        assert again.recorder.submit(again.row(agents[0]), "late", pending.fingerprint).duplicate
        await again.tick(3)

        assert again.world.economy.state_hash() == expected
        assert outcome is not None
        assert pending.document(False) == outcome.document(False)


async def test_a_repeated_registration_survives_a_restart(tmp_path: Path) -> None:
    """The Idempotency-Key still means the same agent, and still replaces its key."""
    async with live_world(tmp_path) as arena:
        first = await arena.register("old", idempotency="word")
        await arena.tick()

    async with live_world(tmp_path) as arena:
        again = await arena.register("new", idempotency="word")
        assert (again.agent, again.repeated) == (first.agent, True)
        assert arena.world.registry.owner_of_key(b"old".ljust(32, b".")) is None

    world = open_small(tmp_path)
    assert world.registry.owner_of_key(b"old".ljust(32, b".")) is None
    assert world.registry.owner_of_key(b"new".ljust(32, b".")) == first.owner
    world.lock.release()


async def test_every_replayed_tick_is_told_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever keeps a history gets the reports again, in order, with the times that were shown, to the nanosecond."""
    async with live_world(tmp_path) as arena:
        advance = arena.world.economy.advance

        def slowly(*arguments: Any) -> TickReport:
            arena.clock.jump(0.002)
            return advance(*arguments)

        monkeypatch.setattr(arena.world.economy, "advance", slowly)
        await arena.tick(5)
        expected = [(view.tick, view.report.public.indicators["cpi"]) for view in arena.views]
        times = [view.marked_unix_ns for view in arena.views]
        assert all(view.published_unix_ns == view.marked_unix_ns + 2_000_000 for view in arena.views)
    told: list[tuple[TickReport, int]] = []

    open_small(tmp_path, on_replayed=lambda report, unix_ns: told.append((report, unix_ns))).lock.release()

    assert [(report.tick, report.public.indicators["cpi"]) for report, _ in told] == expected
    assert [unix_ns for _, unix_ns in told] == times


async def test_threads_change_nothing(tmp_path: Path) -> None:
    """A journal written with one thread is replayed with two to the same hashes."""
    async with live_world(tmp_path) as arena:
        await live_a_little(arena, 12)
        expected = arena.world.economy.state_hash()

    world = open_small(tmp_path, threads=2)

    assert world.economy.state_hash() == expected
    assert world.replayed.hashes_checked >= 1
    world.lock.release()


def test_only_one_process_may_own_a_folder(tmp_path: Path) -> None:
    """The second is told who has it, and what to do; once it is given up it can be had."""
    world = open_small(tmp_path)

    with pytest.raises(FolderInUse, match=r"belongs to a running process \(id \d+\)"):
        open_small(tmp_path)
    world.lock.release()

    open_small(tmp_path).lock.release()


async def test_a_hash_that_is_not_met_is_refused_by_tick(tmp_path: Path) -> None:
    """A world that would not be the recorded one does not start; the message has tick, expected and actual."""
    world = open_small(tmp_path)
    world.journal.start()
    tick = world.start_tick
    chain = world.journal.chain.close()
    mark = Mark(tick + 1, 0, 0, tick, b"0123456789abcdef", chain)
    world.journal.append(RecordKind.MARK, encode_mark(mark))
    await soon(world.close())

    with pytest.raises(HashDiffers) as raised:
        open_small(tmp_path)

    assert raised.value.tick == tick
    assert b"0123456789abcdef".hex() in str(raised.value)
    assert world.economy.state_hash().hex() in str(raised.value)
    with pytest.raises(HashDiffers):
        open_small(tmp_path)


async def test_a_mark_out_of_turn_is_refused(tmp_path: Path) -> None:
    """A journal whose ticks are not consecutive is not a history of this world."""
    world = open_small(tmp_path)
    world.journal.start()
    mark = Mark(world.start_tick + 2, 0, 0, -1, bytes(16), world.journal.chain.close())
    world.journal.append(RecordKind.MARK, encode_mark(mark))
    await soon(world.close())

    with pytest.raises(WorldRefused, match=f"mark {WARM_UP_TICKS + 1} of 0 actions"):
        open_small(tmp_path)


def test_the_journals_config_wins_over_defaults_and_is_not_changed_by_wishes(tmp_path: Path) -> None:
    """Settings left alone mean the world's own; another wish is refused, naming every field that differs."""
    open_small(tmp_path, engine=small_config(fear_weight=0.5)).lock.release()

    world = open_small(tmp_path, engine=Config(), seed=None)
    assert world.economy.config == small_config(fear_weight=0.5)
    world.lock.release()

    with pytest.raises(WorldRefused) as raised:
        open_small(tmp_path, engine=small_config(fear_weight=0.6, max_agents=65), seed=8)
    assert "fear_weight (asked for 0.6, the world has 0.5)" in str(raised.value)
    assert "max_agents (asked for 65, the world has 64)" in str(raised.value)
    assert "seed" in str(raised.value)
    assert "residents" not in str(raised.value)


def test_another_release_is_refused(tmp_path: Path) -> None:
    """An engine that computes other worlds does not continue this one."""
    world = open_small(tmp_path)
    world.lock.release()
    create_segment(tmp_path, FIRST, encode_genesis(world.genesis._replace(engine_version=99)))

    with pytest.raises(WorldRefused, match="engine version 99"):
        open_small(tmp_path)


def test_a_start_that_cannot_be_reproduced_is_refused(tmp_path: Path) -> None:
    """If the warm start is not the one the journal names, the world is not begun."""
    world = open_small(tmp_path)
    world.lock.release()
    create_segment(tmp_path, FIRST, encode_genesis(world.genesis._replace(start_hash="00" * 16)))

    with pytest.raises(WorldRefused, match="the start of the world is tick 25"):
        open_small(tmp_path)


@pytest.mark.parametrize("payload", [b"{}", b"not json"])
def test_a_journal_without_a_genesis_is_damaged(tmp_path: Path, payload: bytes) -> None:
    """Whatever stands where the genesis belongs, the offset is named."""
    create_segment(tmp_path, FIRST, payload)

    with pytest.raises(JournalDamaged, match="byte 101"):
        open_small(tmp_path)


async def test_a_torn_tail_is_cut_and_the_world_goes_on(tmp_path: Path) -> None:
    """Cut anywhere in its last batch, a journal opens with every whole record and can be continued."""
    async with live_world(tmp_path / "one") as arena:
        agents = await live_a_little(arena, 3)
        folder = crashed(tmp_path / "one", tmp_path / "two")
        for name in ("x", "y"):
            arena.act(agents[0], name, Kind.SET_SENTIMENT, mood=(1, 2, 3, 4))
        await soon(arena.recorder.durable(arena.world.journal.next_seq - 1))
        whole = (tmp_path / "one" / "journal-000000000001.arj").read_bytes()
    path = segment_paths(folder)[0]
    begin = path.stat().st_size

    kept = set()
    for length in (*range(begin, len(whole), 7), len(whole)):
        path.write_bytes(whole[:length])
        world = open_small(folder)
        kept.add(len(world.queue))
        world.journal.start()
        await soon(world.close())
        again = open_small(folder)
        assert again.economy.tick == world.economy.tick
        again.lock.release()

    assert kept == {0, 1, 2}


async def test_damage_is_refused_with_its_offset(tmp_path: Path) -> None:
    """A flipped bit in what was durable keeps the world shut, and the folder free for whoever repairs it."""
    async with live_world(tmp_path) as arena:
        await live_a_little(arena, 3)
    path = segment_paths(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)

    for _ in range(2):
        with pytest.raises(JournalDamaged) as raised:
            open_small(tmp_path)
        assert 0 < raised.value.offset <= len(data) // 2
    assert path.read_bytes() == data


def test_the_folder_is_free_after_a_failed_start(tmp_path: Path) -> None:
    """A start that is refused gives the lock back."""
    open_small(tmp_path).lock.release()
    with pytest.raises(WorldRefused):
        open_world(small_settings(tmp_path, seed=9), Metrics(), ManualClock())

    open_small(tmp_path).lock.release()


async def test_more_may_wait_than_the_queue_now_takes(tmp_path: Path) -> None:
    """What a bigger queue had accepted is not dropped by a smaller one."""
    async with live_world(tmp_path / "one") as arena:
        agents = await live_a_little(arena, 1)
        for i in range(40):
            arena.act(agents[0], f"b-{i}", Kind.SET_SENTIMENT, mood=(1, 2, 3, 4))
        await soon(arena.recorder.durable(arena.world.journal.next_seq - 1))
        folder = crashed(tmp_path / "one", tmp_path / "two")

    world = open_small(folder, queue_actions_max=16)

    assert len(world.queue) == 40
    world.lock.release()


def test_the_pool_of_a_number_of_threads_is_made_once() -> None:
    """Every world asks for the same threads; each range runs once, the first one where it was asked for."""
    ran: dict[int, str] = {}

    def work(i: int) -> None:
        ran[i] = threading.current_thread().name

    parallel_in(3)(work, 3)

    assert parallel_in(3) is parallel_in(3)
    assert ran[0] == threading.current_thread().name
    assert sorted(ran) == [0, 1, 2]
    assert threading.current_thread().name not in (ran[1], ran[2])


def test_a_range_that_fails_is_raised_when_all_have_ended() -> None:
    """Nobody goes on over arrays whose other part is still being written."""
    started, ended = threading.Event(), []

    def work(i: int) -> None:
        if i == 0:
            started.wait()
            raise ValueError("broken")
        started.set()
        ended.append(i)

    with pytest.raises(ValueError, match="broken"):
        parallel_in(2)(work, 2)

    assert ended == [1]
