"""Records and the ticks of everybody: what an owner is given of them is what a look at each row would find."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.messages import Kind
from server.live import agent_records
from server.live.agent_records import NAME_BYTES, PART_ENTRIES, RECORD_BYTES, Gathered, Names, Recent, Record, Tick
from tests.support.tick_reports import tick_report

AGENTS = st.integers(1, 8)
TICKS = st.lists(
    st.tuples(st.lists(AGENTS, max_size=6), st.lists(AGENTS, max_size=4), st.lists(AGENTS, max_size=2),
              st.lists(st.tuples(st.sampled_from(["agent_expired", "panic_began"]), AGENTS), max_size=2)),
    max_size=12,
)  # fmt: skip


@given(TICKS, st.sets(AGENTS), st.integers(1, 12))
def test_the_rows_of_an_owner_are_those_of_its_agents(
    ticks: list[tuple[list[int], list[int], list[int], list[tuple[str, int]]]], wanted: set[int], keep: int
) -> None:
    """Of the ticks that are kept; those without any are left out."""
    recent = Recent(keep)
    for tick, (outcomes, updates, fired, events) in enumerate(ticks, 50):
        rows = [{"agent_id": agent} for agent in outcomes]
        recent.add(Tick(tick_report(tick, rows, [{"agent_id": agent} for agent in updates], fired, events), Names(), 0))

    found = [(tick.report.tick, one.outcomes, one.updates, one.fired, one.left) for tick, one in recent.of(wanted)]

    expected = []
    for tick, (outcomes, updates, fired, events) in list(enumerate(ticks, 50))[-keep:]:
        one = (
            tick,
            [i for i, agent in enumerate(outcomes) if agent in wanted],
            [i for i, agent in enumerate(updates) if agent in wanted],
            [agent for agent in fired if agent in wanted],
            [(agent, "expired") for name, agent in events if agent in wanted and name == "agent_expired"],
        )
        if any(one[1:]):
            expected.append(one)
    assert found == expected
    if ticks:
        assert recent.began == 49 + len(ticks) - min(keep, len(ticks))


def test_the_ticks_of_everybody_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their rows; the last tick is kept whatever it holds."""
    monkeypatch.setattr(agent_records, "ROWS_MAX", 10)
    recent = Recent(100)
    for tick in range(5):
        recent.add(Tick(tick_report(tick, [{"agent_id": 1}] * 4), Names(), 0))
    assert (len(recent), recent.began) == (2, 2)

    recent.add(Tick(tick_report(5, [{"agent_id": 1}] * 40), Names(), 0))

    assert (len(recent), recent.began) == (1, 4)
    recent.shed(1)
    assert (len(recent), list(recent.of({1}))) == (0, [])


def test_the_oldest_ticks_go_first() -> None:
    """A few at a time, until none is left."""
    recent = Recent(100)
    for tick in range(5):
        recent.add(Tick(tick_report(tick, [{"agent_id": 1}]), Names(), 0))

    left = []
    for _ in range(3):
        recent.shed(2)
        left.append((recent.began, [tick.report.tick for tick, _ in recent.of({1})]))

    assert left == [(1, [2, 3, 4]), (3, [4]), (4, [])]


def test_who_left_is_known() -> None:
    """By its own wish or not."""
    recent = Recent(100)
    outcomes = [{"agent_id": 3, "kind": Kind.UNREGISTER}, {"agent_id": 4, "kind": Kind.LIMIT}]
    recent.add(Tick(tick_report(1, outcomes, events=[("agent_defaulted", 5), ("panic_began", 6)]), Names(), 0))

    assert list(recent.departed()) == [3, 5]


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_parts_are_everything_once_and_in_order(fired: int, outcomes: int, updates: int, left: int) -> None:
    """Each of them as full as it may be, but the last."""
    gathered = Gathered()
    gathered.fired, gathered.outcomes = list(range(fired)), list(range(outcomes))
    gathered.updates, gathered.left = list(range(updates)), [(i, "expired") for i in range(left)]

    parts = list(gathered.parts())

    for place, whole in enumerate((gathered.fired, gathered.outcomes, gathered.updates, gathered.left)):
        assert [row for part in parts for row in part[place]] == whole
    sizes = [sum(map(len, part)) for part in parts]
    assert all(size == PART_ENTRIES for size in sizes[:-1])
    assert max(sizes, default=0) <= PART_ENTRIES


RUNS = st.lists(st.tuples(st.integers(1, 4), st.lists(st.text("ab:é", min_size=1, max_size=6), min_size=1)), max_size=6)


def columns(names: list[str]) -> np.ndarray:
    """Return client_action_ids as the journal has them."""
    return np.array([name.encode() for name in names]).view(np.uint8).reshape(len(names), -1)


@given(RUNS, st.integers(0, 60))
def test_each_action_has_the_name_it_came_with(runs: list[tuple[int, list[str]]], last: int) -> None:
    """Alone or in a batch, before and after a tick has taken its own; sequences between the runs have none."""
    names, expected, taken, seq = Names(), {}, {}, 1
    for gap, run in runs:
        seq += gap
        names.add(seq, columns(run))
        (taken if seq <= last else expected).update(enumerate(run, seq))
        seq += len(run)

    decided = names.take(last)

    assert {i: decided.get(i) for i in range(seq + 2) if decided.get(i) is not None} == taken
    assert {i: names.get(i) for i in range(seq + 2) if names.get(i) is not None} == expected


def test_a_record_says_what_it_costs() -> None:
    """Its rows, its names, and the rest."""
    record = Record(1, 0, 0, (1, 2), b"x" * 156, ("a", None), b"y" * 51, ((3, "expired"),))

    assert record.size == RECORD_BYTES + 156 + 51 + 3 * 64 + 2 * NAME_BYTES
