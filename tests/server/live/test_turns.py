"""Turns: batches one by one with air between them, in their order, and nobody is let in to wait long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from server.clock import ManualClock
from server.live.turns import AIR, FLOODED_WAIT_MAX_S, STANDING_S, WAIT_MAX_S, Turns

COST_S = 0.004
"""Of a batch."""


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def turns(clock: ManualClock) -> Turns:
    """Nobody has asked yet."""
    return Turns(clock)


class Line:
    """Those who ask for their turn, and the turn of the event loop in which each had it."""

    def __init__(self, turns: Turns) -> None:
        self.began: dict[str, int] = {}
        self.count = 0
        self._turns = turns

    async def ask(self, name: str, do: Callable[[], object] = lambda: None) -> None:
        """Wait for a turn, and do something in it."""
        await self._turns.take()
        self.began[name] = self.count
        do()

    async def until(self, *asking: asyncio.Task[None]) -> None:
        """Count the turns of the loop until all have had theirs."""
        while not all(one.done() for one in asking):
            self.count += 1
            await asyncio.sleep(0)


def ask(line: Line, *names: str, do: Callable[[], object] = lambda: None) -> list[asyncio.Task[None]]:
    """Let some ask, in this order."""
    return [asyncio.create_task(line.ask(name, do)) for name in names]


async def test_those_who_come_together_begin_one_by_one_with_air_between_them(turns: Turns) -> None:
    """In the order in which they asked; so many turns of the loop as an acknowledgement takes lie between two."""
    line = Line(turns)

    await line.until(*ask(line, "a", "b", "c"))

    assert list(line.began) == ["a", "b", "c"]
    first = line.began["a"]
    assert [began - first for began in line.began.values()] == [0, AIR, 2 * AIR]


async def test_who_comes_when_all_are_through_begins_at_once(turns: Turns) -> None:
    """Alone, a batch waits for nothing; right behind another it has the same air as any."""
    line = Line(turns)
    await line.until(*ask(line, "a"))
    await line.until(*ask(line, "b"))
    for _ in range(AIR):
        await asyncio.sleep(0)
    at = line.count

    await line.until(*ask(line, "c"))

    assert line.began["b"] - line.began["a"] >= AIR - 1
    assert line.began["c"] == at + 1


async def test_who_went_away_is_passed_over(turns: Turns) -> None:
    """A wait that was cancelled takes nobody's turn and stops nobody."""
    line = Line(turns)
    asking = ask(line, "a", "b", "c")
    await asyncio.sleep(0)
    assert len(turns) == 2
    asking[1].cancel()

    await line.until(*asking)

    assert asking[1].cancelled()
    assert list(line.began) == ["a", "c"]
    assert line.began["c"] - line.began["a"] == AIR
    assert len(turns) == 0


async def test_behind_a_pause_more_may_wait_than_in_a_flood(turns: Turns, clock: ManualClock) -> None:
    """How many is counted in time: by how far apart the batches before were."""
    line = Line(turns)
    for round_of in range(8):
        # the first of each begins at once
        await line.until(*ask(line, *(f"{round_of}-{i}" for i in range(4)), do=lambda: clock.advance(COST_S)))
        for _ in range(AIR):
            await asyncio.sleep(0)
    asking = ask(line, "now", *(f"late-{i}" for i in range(5)))
    await asyncio.sleep(0)

    assert len(turns) == 5
    waits_s = 5 * COST_S
    assert turns.excess_s(is_flooded=False) == 0 < WAIT_MAX_S - waits_s
    assert turns.excess_s(is_flooded=True) == pytest.approx(waits_s - FLOODED_WAIT_MAX_S, rel=0.05)
    clock.advance(1.01 * STANDING_S)
    assert turns.excess_s(is_flooded=False) == turns.excess_s(is_flooded=True), "there are always some"
    await line.until(*asking)
    assert turns.excess_s(is_flooded=True) == 0


async def costly(turns: Turns, clock: ManualClock, line: Line, *costs_s: float) -> None:
    """Let batches come together that take so long each."""

    async def one(name: str, cost_s: float) -> None:
        await line.ask(name, lambda: clock.advance(cost_s))

    await line.until(*(asyncio.create_task(one(str(i), cost_s)) for i, cost_s in enumerate(costs_s)))
    for _ in range(AIR):
        await asyncio.sleep(0)
    assert turns.excess_s(is_flooded=True) == 0, "nobody waits: there is room, however long they took"


async def test_one_pause_shuts_nobody_out(turns: Turns, clock: ManualClock) -> None:
    """A batch that took twenty times as long as all before says little of the next; twenty in a row are believed."""
    line = Line(turns)
    await costly(turns, clock, line, *[COST_S] * 20)
    await costly(turns, clock, line, *[COST_S] * 3, 20 * COST_S, COST_S)
    asking = ask(line, "now", "next", "third")
    await asyncio.sleep(0)
    assert len(turns) == 2
    assert turns.excess_s(is_flooded=False) == 0
    await line.until(*asking)

    await costly(turns, clock, line, *[20 * COST_S] * 20)
    asking = ask(line, "now", "next")
    await asyncio.sleep(0)
    assert turns.excess_s(is_flooded=False) == pytest.approx(20 * COST_S - WAIT_MAX_S, rel=0.2)
    await line.until(*asking)
