"""The ticker: what belongs to a tick, when it may be seen, and what the schedule does when time runs away."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from engine.economy import CHECK_EVERY
from engine.journal import NO_HASH, RecordKind, decode_mark
from engine.messages import Kind
from server.live import journal, ticker
from server.live.errors import Frozen, ReadOnly
from server.live.journal import scan_segment, segment_paths
from server.live.ticker import HASH_EVERY, Schedule
from server.live.view import View
from server.live.watchdog import Stall
from server.live.world import run_replay, start_economy
from tests.support.disks import FailingFile, GatedFile
from tests.support.live import PERIOD_S, LiveWorld, live_world, open_small, soon, until

FOOD = 8


def marks(folder: Path) -> list[tuple[int, int, int]]:
    """Return sequence, tick and number of actions of every mark in a folder's journal."""
    path = segment_paths(folder)[0]
    found = [(record, decode_mark(record.payload)) for record in scan_segment(path) if record.kind is RecordKind.MARK]
    return [(record.sequence, mark.tick, mark.actions) for record, mark in found]


async def idle(arena: LiveWorld) -> None:
    """Let the ticker run until it waits for a deadline that is still to come."""
    await until(lambda: arena.clock.next_deadline is not None)


async def test_an_action_belongs_to_the_tick_whose_mark_comes_next(tmp_path: Path) -> None:
    """Before mark n: tick n; after it: tick n + 1. Receipts, journal and world say the same."""
    async with live_world(tmp_path) as arena:
        agent = (await arena.register()).agent
        first = await arena.tick()
        before = arena.act(agent, "before", Kind.SET_SENTIMENT, mood=(1, 2, 3, 4))
        await arena.tick_without_waiting()
        # the ticker's task has not run yet, so this one is in time as well
        in_time = arena.act(agent, "in time", Kind.CONSUME, market=FOOD, quantity=1)
        await until(lambda: len(arena.world.queue) == 0)
        after = arena.act(agent, "after", Kind.SET_SENTIMENT, mood=(4, 3, 2, 1))
        await soon(arena.ticker.wait_tick(first.tick + 1))
        await arena.tick()
        receipts = [arena.world.receipts.get(agent, name) for name in ("before", "in time", "after")]

    ends = {tick: (seq, actions) for seq, tick, actions in marks(tmp_path)}
    assert [receipt and receipt.tick for receipt in receipts] == [first.tick + 1, first.tick + 1, first.tick + 2]
    assert before < in_time < ends[first.tick + 1][0] < after < ends[first.tick + 2][0]
    assert [ends[first.tick + i][1] for i in range(3)] == [1, 2, 1]


async def test_nobody_sees_a_tick_before_its_mark_is_durable(tmp_path: Path) -> None:
    """While the disk is busy the kernels may be done: view, receipts and arrays stay closed until it is."""
    files: list[GatedFile] = []

    def open_gated(path: Path) -> GatedFile:
        files.append(GatedFile(path))
        return files[0]

    async with live_world(tmp_path, open_file=open_gated) as arena:
        agent = (await arena.register()).agent
        shown = await arena.tick()
        arena.act(agent, "mood", Kind.SET_SENTIMENT, mood=(1, 2, 3, 4))
        await soon(arena.recorder.durable(arena.world.journal.next_seq - 1))
        with files[0].shut():
            written = len(files[0].writes)
            await arena.tick_without_waiting()
            await until(lambda: arena.world.economy.tick > shown.tick and len(files[0].writes) > written)
            reader = asyncio.create_task(read_tick(arena))
            await asyncio.sleep(0)

            receipt = arena.world.receipts.get(agent, "mood")
            assert receipt is not None
            assert receipt.outcome is None
            assert (arena.views[-1], arena.ticker.published_tick) == (shown, shown.tick)
            assert not reader.done()

        await soon(arena.ticker.wait_tick(shown.tick + 1))
        assert await soon(reader) == shown.tick + 1
        assert receipt.outcome is not None


async def read_tick(arena: LiveWorld) -> int:
    """Return the tick of the arrays, as a private read sees them."""
    async with arena.ticker.settled():
        return arena.world.economy.tick


async def test_receipts_are_decided_before_anybody_is_told_of_the_tick(tmp_path: Path) -> None:
    """Whoever hears of a tick finds its outcomes; callbacks run in the order they were given."""
    seen: list[object] = []

    def look(view: View) -> None:
        receipt = arena.world.receipts.get(2, "mood")
        seen.append((view.tick, receipt and receipt.tick))

    arena = LiveWorld(tmp_path, on_publish=(look,))
    running = asyncio.create_task(arena.ticker.run())
    await arena.register()
    arena.act(2, "mood", Kind.SET_SENTIMENT, mood=(1, 2, 3, 4))
    view = await arena.tick()
    arena.ticker.stop()
    await soon(running)
    await soon(arena.world.close())

    assert seen == [(view.tick, view.tick)]
    assert arena.ticker.view is view
    assert view.published_unix_ns == arena.clock.unix_ns()


async def test_no_tick_is_missing_after_stalls_of_any_length(tmp_path: Path) -> None:
    """Stalls of 50 to 2,000 ms at random: late ticks run at once, one after another, and every number comes."""
    draw = random.Random(5)
    together: list[int] = []

    def check(view: View) -> None:
        together.append(sum(thread.name.startswith("tick") for thread in threading.enumerate()))

    async with live_world(tmp_path, on_publish=(check,)) as arena:
        first = arena.world.economy.tick + 1
        for _ in range(40):
            await idle(arena)
            arena.clock.advance(draw.uniform(0.05, 2.0))
            for _ in range(draw.randrange(20)):
                await asyncio.sleep(0)
        await idle(arena)

    ticks = [view.tick for view in arena.views]
    assert ticks == list(range(first, first + len(ticks)))
    assert [tick for _, tick, _ in marks(tmp_path)] == ticks
    assert set(together) == {1}, "one thread, so never two ticks at a time"
    assert len(ticks) >= 40
    late = sum(start.lateness > PERIOD_S for start in arena.ticker.starts)
    assert arena.metrics.registry.get_sample_value("arena_ticks_late_total") == late > 0


def test_a_schedule_keeps_its_phase_when_one_tick_is_late() -> None:
    """After a short stall the missed ticks follow at once and the next ones come where they always did."""
    schedule = Schedule(0.1, 0.0)

    assert schedule.deadline == pytest.approx(0.1)
    assert not schedule.begun(0.1001)
    assert schedule.begun(0.35), "the tick due at 0.2 begins when that of 0.3 was due"
    assert schedule.deadline == pytest.approx(0.3)
    assert not schedule.begun(0.352)
    assert schedule.deadline == pytest.approx(0.4)


def test_a_schedule_begins_anew_after_three_late_ticks() -> None:
    """A long stall is not made up for by a burst of ticks."""
    schedule = Schedule(0.1, 0.0)

    late = [schedule.begun(5.0), schedule.begun(5.01), schedule.begun(5.02)]

    assert late == [True, True, True]
    assert schedule.deadline == pytest.approx(5.12)
    assert not schedule.begun(5.12)
    assert schedule.deadline == pytest.approx(5.22)


def test_a_world_that_is_a_little_too_slow_begins_anew_now_and_then() -> None:
    """At 110 ms a tick lateness grows, but never beyond a few ticks."""
    schedule = Schedule(0.1, 0.0)
    now, worst = 0.1, 0.0
    for _ in range(1_000):
        now = max(now, schedule.deadline)
        worst = max(worst, now - schedule.deadline)
        schedule.begun(now)
        now += 0.11

    assert worst < 0.15


async def test_every_tenth_tick_has_its_hash_in_a_later_mark(tmp_path: Path) -> None:
    """The hash of a tick travels in a mark behind it, and is the one a replay finds."""
    async with live_world(tmp_path) as arena:
        await arena.tick(5 * HASH_EVERY)
        latest, genesis = arena.ticker.latest_hash, arena.world.genesis

    path = segment_paths(tmp_path)[0]
    scan = scan_segment(path)
    found = [decode_mark(record.payload) for record in scan if record.kind is RecordKind.MARK]
    hashed = {mark.hashed_tick: (mark.tick, mark.state_hash) for mark in found if mark.hashed_tick != NO_HASH}
    assert len(hashed) >= 3
    assert all(about % HASH_EVERY == 0 and about < tick for about, (tick, _) in hashed.items())
    assert latest is not None
    assert hashed[latest.tick][1] == latest.value
    done = run_replay(start_economy(genesis, tmp_path / "warm"), scan)
    assert (done.marks, done.hashes_checked) == (len(found), len(hashed))


async def test_a_broken_invariant_freezes_the_world(tmp_path: Path) -> None:
    """A credit out of nothing: no tick, no input, no private read; what was published stays, and can be inspected."""
    async with live_world(tmp_path) as arena:
        agent = (await arena.register()).agent
        shown = await arena.tick()
        arena.world.economy.state.cash[0] += 1_000_000

        await arena.tick_without_waiting()
        with pytest.raises(Frozen, match="invariant"):
            await soon(arena.ticker.wait_tick(shown.tick + 1))

        assert arena.ticker.view is shown
        assert arena.ticker.frozen is not None
        with pytest.raises(ReadOnly, match="invariant"):
            arena.act(agent, "late", Kind.SET_SENTIMENT)
        with pytest.raises(Frozen):
            await read_tick(arena)
    assert (tmp_path / f"inspection-{shown.tick + 1}.arw").exists()


async def test_a_world_too_large_for_it_is_checked_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding up ten million residents takes most of a tick."""
    monkeypatch.setattr(ticker, "CHECKED_RESIDENTS_MAX", 1_999)
    async with live_world(tmp_path) as arena:
        assert arena.world.economy.checks == CHECK_EVERY


async def test_a_world_that_breaks_on_a_full_disk_is_frozen_all_the_same(tmp_path: Path) -> None:
    """The inspection cannot be written: the ticker ends quietly, what was published stays readable."""
    async with live_world(tmp_path) as arena:
        shown = await arena.tick()
        (tmp_path / f"inspection-{shown.tick + 1}.arw.new").mkdir()
        arena.world.economy.state.cash[0] += 1_000_000

        await arena.tick_without_waiting()
        with pytest.raises(Frozen, match="invariant"):
            await soon(arena.ticker.wait_tick(shown.tick + 1))

    assert arena.ticker.view is shown
    assert not (tmp_path / f"inspection-{shown.tick + 1}.arw").exists()


async def test_a_frozen_world_gives_the_collector_back(tmp_path: Path) -> None:
    """Reads go on for as long as they like, and nobody steps the collector between ticks any more."""
    async with live_world(tmp_path) as arena:
        await arena.tick()
        gc.disable()
        arena.world.economy.state.cash[0] += 1_000_000

        await arena.tick_without_waiting()
        await until(gc.isenabled)

        assert arena.ticker.frozen is not None


async def test_who_waits_for_a_tick_is_told_before_the_collector_runs(tmp_path: Path) -> None:
    """A collection takes as long as a tick's publication: it is a turn of the loop of its own."""
    order: list[str] = []

    def collected(phase: str, info: dict[str, int]) -> None:
        order.append(f"collection: {phase}")

    async def wait() -> None:
        await arena.ticker.wait_tick(shown.tick + 1)
        order.append("told")

    async with live_world(tmp_path) as arena:
        shown = await arena.tick()
        await idle(arena)
        gc.disable()
        gc.callbacks.append(collected)
        waiting = asyncio.create_task(wait())
        try:
            await arena.tick_without_waiting()
            await until(lambda: "collection: stop" in order)
        finally:
            gc.callbacks.remove(collected)
        await waiting

    assert order[0] == "told"


@pytest.mark.parametrize("call", [1, 2], ids=["write", "sync"])
async def test_a_failed_disk_stops_the_world_where_it_was_last_seen(tmp_path: Path, call: int) -> None:
    """The tick whose mark did not reach the disk is never shown; published state stays readable."""
    files: list[FailingFile] = []

    def open_failing(path: Path) -> FailingFile:
        files.append(FailingFile(path, sys.maxsize))
        return files[0]

    async with live_world(tmp_path, open_file=open_failing) as arena:
        await arena.register()
        shown = await arena.tick()
        files[0].fails_at = files[0].calls + call
        await arena.tick_without_waiting()

        with pytest.raises(Frozen, match="cannot be written"):
            await soon(arena.ticker.wait_tick(shown.tick + 1))

        assert arena.views == [shown]
        assert arena.recorder.read_only is not None
        with pytest.raises(ReadOnly):
            arena.recorder.register(None, b"k" * 32, None)


async def test_a_callback_that_fails_freezes_the_world(tmp_path: Path) -> None:
    """Half-told is not told: a mistake of ours in publishing stops the world and says so."""

    def fail(view: View) -> None:
        raise KeyError("topic")

    arena = LiveWorld(tmp_path, on_publish=(fail,))
    running = asyncio.create_task(arena.ticker.run())
    tick = arena.world.economy.tick
    await arena.tick_without_waiting()
    with pytest.raises(Frozen, match="KeyError"):
        await soon(arena.ticker.wait_tick(tick + 1))
    await soon(running)
    await soon(arena.world.close())

    assert arena.ticker.published_tick == tick


async def test_stopping_finishes_the_tick_under_way(tmp_path: Path) -> None:
    """A stop while a tick runs lets it be published; the journal ends with a clean stop right behind its mark."""
    arena = LiveWorld(tmp_path)
    running = asyncio.create_task(arena.ticker.run())
    tick = arena.world.economy.tick
    await arena.tick_without_waiting()
    await until(lambda: arena.world.journal.next_seq == 3)
    arena.ticker.stop()
    await soon(running)
    await soon(arena.world.close())

    path = segment_paths(tmp_path)[0]
    assert arena.ticker.published_tick == tick + 1
    assert [record.kind.name for record in scan_segment(path)] == ["GENESIS", "MARK", "CLEAN_STOP"]


async def test_a_tick_begins_in_the_turn_of_the_loop_in_which_it_is_due(tmp_path: Path) -> None:
    """Each turn more is milliseconds late while thousands connect."""
    async with live_world(tmp_path) as arena:
        await arena.tick()
        await idle(arena)
        before = len(arena.ticker.starts)

        arena.clock.advance(PERIOD_S)
        await asyncio.sleep(0)

        assert len(arena.ticker.starts) == before + 1


async def test_what_an_operator_says_twice_ends_the_wait_once(tmp_path: Path) -> None:
    """Two commands of one turn are both looked at, and the world ticks on after them."""
    async with live_world(tmp_path) as arena:
        shown = await arena.tick()
        await idle(arena)

        arena.ticker.pause()
        arena.ticker.resume()
        await idle(arena)
        arena.clock.advance(PERIOD_S)
        await soon(arena.ticker.wait_tick(shown.tick + 1))

        assert not arena.ticker.is_paused


async def test_garbage_is_collected_while_the_world_is_paused(tmp_path: Path) -> None:
    """Requests are refused and answered all the while, and nobody else collects."""
    async with live_world(tmp_path) as arena:
        await arena.tick()
        arena.ticker.pause()
        await idle(arena)
        gc.disable()

        alive = weakref.ref(kept := Cyclic())
        kept.me = kept
        del kept

        await until(lambda: alive() is None)
    assert gc.isenabled()


class Cyclic:
    """Something that can be part of a cycle."""

    me: object = None


async def test_every_start_is_on_record(tmp_path: Path) -> None:
    """Tick, deadline and lateness of each start can be read by whoever measures, and are in the metrics."""
    async with live_world(tmp_path) as arena:
        first = await arena.tick()
        await idle(arena)
        deadline = arena.clock.next_deadline
        assert deadline is not None
        arena.clock.advance(deadline + 0.03 - arena.clock.monotonic())
        await soon(arena.ticker.wait_tick(first.tick + 1))

    on_time, late = arena.ticker.starts
    assert (on_time.tick, late.tick) == (first.tick, first.tick + 1)
    assert on_time.lateness == pytest.approx(0.0, abs=1e-9)
    assert late.lateness == pytest.approx(0.03)
    assert late.deadline - on_time.deadline == pytest.approx(PERIOD_S)
    sample = arena.metrics.registry.get_sample_value
    assert sample("arena_ticks_total") == 2
    assert sample("arena_tick") == late.tick
    assert sample("arena_tick_total_seconds_sum") == pytest.approx(0.03)
    assert sample("arena_conservation_checks_total") == 2
    assert sample("arena_tick_lateness_seconds_sum") == pytest.approx(0.03)
    assert sample("arena_tick_seconds_count", {"phase": "behaviour"}) == 2


async def test_a_stall_of_the_machine_is_laid_to_every_tick_it_made_late(tmp_path: Path) -> None:
    """Two and a half periods of stall make two ticks late; both say how much of it lies in their lateness."""
    async with live_world(tmp_path) as arena:
        await arena.tick()
        await idle(arena)
        deadline = arena.clock.next_deadline
        assert deadline is not None
        arena.clock.advance(deadline + 0.25 - arena.clock.monotonic())
        arena.watchdog.stalls.append(Stall(deadline + 0.05, deadline + 0.25))
        await asyncio.sleep(0)
        await idle(arena)

    late = [start for start in arena.ticker.starts if start.lateness > PERIOD_S]
    assert [round(start.lateness, 2) for start in late] == [0.25, 0.15]
    assert [round(start.stalled, 2) for start in late] == [0.2, 0.15]


async def test_registry_and_world_know_the_same_agents(tmp_path: Path) -> None:
    """After arrivals and departures the server's count is the world's."""
    async with live_world(tmp_path) as arena:
        agents = [(await arena.register(f"key {i}")).agent for i in range(5)]
        await arena.tick()
        arena.recorder.unregister(agents[1], "bye")
        arena.recorder.unregister(agents[1], "bye again")
        await arena.tick()
        state = arena.world.economy.state

        known = np.sort(state.agent_id[state.agent_id > 0]).tolist()
        assert known == [agents[i] for i in (0, 2, 3, 4)] == [agent.number for agent in arena.world.registry]
        assert arena.world.registry.active == 4
        again = arena.world.receipts.get(agents[1], "bye again")
        assert again is not None
        assert again.outcome is not None
        assert again.outcome["status"] == "rejected"
        sample = arena.metrics.registry.get_sample_value
        assert sample("arena_unregistrations_total", {"reason": "requested"}) == 1
        assert sample("arena_agents") == 4


async def test_a_full_segment_ends_with_the_next_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a snapshot too: what is packed and read as a whole stays small, however much a minute brings."""
    monkeypatch.setattr(journal, "SEGMENT_BYTES_MAX", 5_000)
    async with live_world(tmp_path) as arena:
        agent = (await arena.register()).agent
        for tick in range(6):
            arena.act_batch(agent, *(f"{tick}-{i}" for i in range(20)), kind=Kind.SET_SENTIMENT, mood=(1, 2, 3, 4))
            await arena.tick()
        expected = arena.world.economy.state_hash()

    kinds = [[record.kind for record in scan_segment(path)] for path in segment_paths(tmp_path)]
    assert len(kinds) == 3
    assert [segment[-1] for segment in kinds[:-1]] == [RecordKind.MARK] * 2
    again = open_small(tmp_path)
    again.lock.release()
    assert again.economy.state_hash() == expected
    assert again.replayed.actions == 6 * 20 + 1
