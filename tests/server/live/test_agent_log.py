"""The logs of outside agents: nothing is left out, what is gone is told, and memory has an end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.economy import Economy
from engine.messages import ACTION, ORDER_UPDATE, OUTCOME, Kind, Status
from engine.state import State
from server.live.agent_log import AgentLog, OwnerLog
from server.live.agent_records import NAME_BYTES, PART_ENTRIES, RECORD_BYTES, end_of
from server.metrics import Metrics
from tests.support.tick_reports import tick_report
from tests.support.worlds import small_config

KEEP = 10


class Registry:
    """Who owns whom: agents 10 to 19 belong to owner 1, 20 to 29 to owner 2, and so on."""

    def __init__(self) -> None:
        self.left: set[int] = set()

    def owner_of_agent(self, number: int) -> int | None:
        """Return the owner of an agent that is there."""
        return None if number in self.left else number // 10

    def owner_of_left_agent(self, number: int) -> int | None:
        """Return the owner of one that left."""
        return number // 10 if number in self.left else None

    def agents_of(self, owner: int) -> list[int]:
        """Return two agents."""
        return [owner * 10, owner * 10 + 1]


@pytest.fixture(scope="module")
def state() -> State:
    """Return a state in which nobody is registered."""
    return Economy(small_config(), 1).state


def opened(tick: int = 100, **options: Any) -> AgentLog:
    """Return a log after a start long ago: only owners with readers are kept."""
    log = AgentLog(KEEP, Metrics(), **options)
    log.open(Registry(), tick - KEEP - 1)
    log.tick = tick
    return log


def acted(agent: int, seq: int, kind: Kind = Kind.LIMIT) -> dict[str, Any]:
    """Return the fields of an outcome."""
    return {"agent_id": agent, "seq": seq, "kind": kind, "status": Status.DONE}


def accept(log: AgentLog, first: int, *names: str) -> None:
    """Let a log take note of actions."""
    rows = np.zeros(len(names), ACTION)
    rows["seq"] = first + np.arange(len(names))
    log.accepted(rows, np.array([name.encode() for name in names]).view(np.uint8).reshape(len(names), -1))


def seen(log: OwnerLog, after: int = 0) -> list[tuple[int, list[int], list[str | None]]]:
    """Return tick, sequences and names of the outcomes behind a position."""
    return [
        (record.seq >> 12, np.frombuffer(record.outcomes, OUTCOME)["seq"].tolist(), list(record.names))
        for record in log.after(after)
    ]


def test_an_owner_gets_what_concerns_its_agents_in_order(state: State) -> None:
    """Outcomes with their names, updates, fired switches and departures; nothing of anybody else."""
    log = opened()
    mine = log.watch(1)
    accept(log, 5, "a", "b", "c")

    log.publish(
        tick_report(
            101,
            [acted(10, 5), acted(20, 6), acted(11, 7)],
            [{"agent_id": 20, "order_id": 2}, {"agent_id": 11, "order_id": 3}],
            fired=[20, 10],
            events=[("agent_expired", 21), ("agent_defaulted", 11), ("panic_began", 0)],
        ),
        99,
        state,
    )

    (record,) = mine.records
    assert (record.seq >> 12, record.base, record.unix_ns) == (101, end_of(100), 99)
    assert seen(mine) == [(101, [5, 7], ["a", "c"])]
    assert np.frombuffer(record.updates, ORDER_UPDATE)["order_id"].tolist() == [3]
    assert record.fired == (10,)
    assert record.left == ((11, "defaulted"),)


def test_each_record_names_the_one_before_it(state: State) -> None:
    """Ticks in which nothing happened have no record, and leave no gap."""
    log = opened()
    mine = log.watch(1)
    for tick in range(101, 106):
        log.publish(tick_report(tick, [acted(10, tick)] if tick % 2 else [acted(20, tick)]), 0, state)

    records = list(mine.records)
    assert [record.seq >> 12 for record in records] == [101, 103, 105]
    assert [record.base for record in records] == [end_of(100), records[0].seq, records[1].seq]
    assert seen(mine, records[1].seq) == [(105, [105], [None])]


def test_much_in_a_tick_is_kept_in_parts(state: State) -> None:
    """Each part is within its size, together they are everything once."""
    log = opened()
    mine = log.watch(1)
    count = 2 * PART_ENTRIES + 10
    updates = [{"agent_id": 11, "order_id": i} for i in range(20)]

    log.publish(tick_report(101, [acted(10, i) for i in range(count)], updates, fired=[10]), 0, state)

    sizes = [
        len(r.fired) + len(r.names) + len(np.frombuffer(r.updates, ORDER_UPDATE)) + len(r.left) for r in mine.records
    ]
    assert sizes == [PART_ENTRIES, PART_ENTRIES, 31]
    assert [seq for _, seqs, _ in seen(mine) for seq in seqs] == list(range(count))
    assert [record.seq & 4_095 for record in mine.records] == [0, 1, 2]


def test_new_agents_of_an_owner_are_known_from_their_registration_on(state: State) -> None:
    """And those that left are until everything about them is told."""
    log = opened()
    registry = log._owners
    assert isinstance(registry, Registry)
    mine = log.watch(1)

    log.publish(tick_report(101, [acted(15, 1, Kind.REGISTER)]), 0, state)
    log.publish(tick_report(102, [acted(15, 2), acted(15, 3, Kind.UNREGISTER)]), 0, state)
    registry.left.add(15)
    log.publish(tick_report(103, [acted(15, 4)]), 0, state)

    assert [seqs for _, seqs, _ in seen(mine)] == [[1], [2, 3], [4]]
    for tick in range(104, 104 + KEEP):
        log.publish(tick_report(tick), 0, state)
    assert 15 not in mine.agents


def test_who_nobody_reads_costs_nothing(state: State) -> None:
    """Without readers there are no records; a log begins with its first reader."""
    log = opened()
    log.publish(tick_report(101, [acted(10, 1)]), 0, state)

    mine = log.watch(1)

    assert (list(mine.records), mine.floor) == ([], end_of(101))
    assert log._bytes == 0


def test_a_log_waits_for_its_reader_and_not_for_ever(state: State) -> None:
    """Whoever is back within the time finds everything; later everything is gone, and that is told."""
    log = opened()
    mine = log.watch(1)
    log.unwatch(mine)
    for tick in range(101, 101 + KEEP):
        log.publish(tick_report(tick, [acted(10, tick)]), 0, state)
    assert log.watch(1) is mine
    assert len(mine.records) == KEEP
    log.unwatch(mine)
    for tick in range(111, 113 + KEEP):
        log.publish(tick_report(tick, [acted(10, tick)]), 0, state)

    later = log.watch(1)

    assert later is not mine
    assert later.floor == end_of(122)
    assert log._bytes == 0


def test_readers_that_come_and_go_within_a_tick_leave_one_log_behind(state: State) -> None:
    """However often; it is let go once, and one that begins meanwhile is not taken for it."""
    log = opened()
    for _ in range(3):
        log.unwatch(log.watch(1))
    for tick in range(101, 112):
        log.publish(tick_report(tick), 0, state)
    assert log._logs == {}

    log.unwatch(log.watch(1))
    mine = log.watch(1)
    log.unwatch(mine)
    log.unwatch(log.watch(1))
    mine = log.watch(1)
    for tick in range(112, 125):
        log.publish(tick_report(tick), 0, state)

    assert log._logs == {1: mine}


def test_records_go_when_they_are_old(state: State) -> None:
    """The floor says up to where; what is behind it is whole."""
    log = opened()
    mine = log.watch(1)
    for tick in range(101, 131):
        log.publish(tick_report(tick, [acted(10, tick)]), 0, state)

    assert [tick for tick, _, _ in seen(mine)] == list(range(121, 131))
    assert mine.floor >> 12 == 120


def test_all_logs_together_have_a_bound() -> None:
    """The oldest record goes first, whosever it is, is counted, and raises its log's floor."""
    metrics = Metrics()
    size = RECORD_BYTES + OUTCOME.itemsize + NAME_BYTES
    log = AgentLog(KEEP, metrics, bytes_max=3 * size)
    log.open(Registry(), 100)
    log.tick = 200
    world = Economy(small_config(), 1).state
    one, two = log.watch(1), log.watch(2)
    for tick in range(201, 206):
        log.publish(tick_report(tick, [acted(10 if tick % 2 else 20, tick)]), 0, world)

    assert log._bytes == 3 * size
    assert [tick for tick, _, _ in seen(one)] == [203, 205]
    assert [tick for tick, _, _ in seen(two)] == [204]
    assert (one.floor >> 12, two.floor >> 12) == (201, 202)
    assert metrics.registry.get_sample_value("arena_agent_records_cut_total") == 2.0


def test_a_start_knows_everybodys_last_ticks(state: State) -> None:
    """Replayed ticks and the first ones after the start are kept for all, until nobody can be on the way back."""
    log = AgentLog(KEEP, Metrics())
    for tick in range(80, 101):
        accept(log, tick, f"a-{tick}")
        log.replayed(tick_report(tick, [acted(10, tick)]))
    log.open(Registry(), 100)
    log.publish(tick_report(101, [acted(10, 101), acted(20, 102)]), 7, state)

    mine, other, third = log.watch(1), log.watch(2), log.watch(3)

    assert [tick for tick, _, _ in seen(mine)] == list(range(92, 102))
    assert seen(mine)[0] == (92, [92], ["a-92"])
    assert (mine.floor >> 12, other.floor, third.floor) == (91, end_of(91), end_of(91))
    assert seen(other) == [(101, [102], [None])]
    log.unwatch(third)
    for tick in range(102, 113 + KEEP):
        log.publish(tick_report(tick, [acted(40, tick)]), 0, state)
    assert set(log._logs) == {1, 2}


def test_what_a_replay_keeps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood before the crash shortens what can be resumed, and the floor says so."""
    monkeypatch.setattr("server.live.agent_records.ROWS_MAX", 25)
    log = AgentLog(KEEP, Metrics())
    for tick in range(1, 6):
        log.replayed(tick_report(tick, [acted(10, tick * 100 + i) for i in range(10)]))

    log.open(Registry(), 5)

    assert log.watch(1).floor == end_of(3)


def test_balances_are_those_after_the_tick() -> None:
    """Of agents something happened to, while somebody reads; the newest replaces the one before."""
    economy = Economy(small_config(), 1)
    state = economy.state
    log = opened(tick=economy.tick)
    log._owners = Owned()
    mine = log.watch(1)
    report = economy.advance(register(2))
    log.publish(report, 0, state)
    before = mine.balances[1]
    assert (before.cash, before.advance, before.tick) == (1_000_000_000, 1_000_000_000, report.tick)

    state.agent_cash[0] -= 5
    state.agent_holdings[0, 9], state.agent_reserved[0, 9] = 7, 2
    log.publish(tick_report(report.tick + 1, updates=[{"agent_id": 1, "order_id": 3}]), 0, state)

    after = mine.balances[1]
    assert (after.cash, after.holdings[9], after.reserved[9]) == (999_999_995, 7, 2)
    assert mine.balances[2].tick == report.tick
    log.unwatch(mine)
    log.publish(tick_report(report.tick + 2, updates=[{"agent_id": 1, "order_id": 3}]), 0, state)
    assert mine.balances == {}


class Owned(Registry):
    """Everybody belongs to owner 1."""

    def owner_of_agent(self, number: int) -> int | None:
        """Return the owner."""
        return 1

    def agents_of(self, owner: int) -> list[int]:
        """Return nobody: they are yet to come."""
        return []


def register(count: int) -> np.ndarray:
    """Return the registrations of agents 1, 2, ... of owner 1."""
    rows = np.zeros(count, ACTION)
    rows["seq"] = rows["agent_id"] = np.arange(1, count + 1)
    rows["owner"], rows["kind"], rows["market"] = 1, Kind.REGISTER, -1
    return rows


STEPS = st.lists(
    st.tuples(st.lists(st.sampled_from([10, 11, 20, 30]), max_size=4), st.sampled_from(["", "watch", "unwatch"])),
    min_size=1, max_size=60,
)  # fmt: skip


@given(STEPS)
def test_a_reader_misses_nothing_it_is_not_told_of(steps: list[tuple[list[int], str]]) -> None:
    """Whatever comes and goes: from any position at or above the floor on, the records are all there was."""
    log = AgentLog(KEEP, Metrics(), bytes_max=6 * RECORD_BYTES)
    log.open(Registry(), 0)
    state = EMPTY.state
    happened: dict[int, list[int]] = {}
    watched: list[OwnerLog] = []
    seq = 0
    for tick, (agents, step) in enumerate(steps, 1):
        rows = []
        for agent in agents:
            seq += 1
            rows.append(acted(agent, seq))
            if agent // 10 == 1:
                happened.setdefault(tick, []).append(seq)
        log.publish(tick_report(tick, rows), 0, state)
        if step == "watch":
            watched.append(log.watch(1))
        elif step == "unwatch" and watched:
            log.unwatch(watched.pop())
        if watched:
            mine = watched[-1]
            floor = mine.floor >> 12
            assert [(at, seqs) for at, seqs, _ in seen(mine, mine.floor)] == [
                (at, seqs) for at, seqs in happened.items() if at > floor
            ]
            bases = [mine.floor, *(record.seq for record in mine.records)]
            assert [record.base for record in mine.records] == bases[:-1] or mine.records[0].base <= mine.floor
    assert log._bytes == sum(record.size for owner in log._logs.values() for record in owner.records)


EMPTY = Economy(small_config(), 1)
