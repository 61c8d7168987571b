"""Pace: all of a tick's room at once, or bit by bit while more come than fit."""

from __future__ import annotations

import numpy as np
import pytest

from engine.market_queue import MarketQueue
from engine.messages import ACTION
from server.clock import ManualClock
from server.live.pace import AT_ONCE_SHARE, FLOODED_TICKS, FULL_SHARE, OPEN_SHARE, Pace

CAPACITY, PERIOD = 1_000, 0.1


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def queue() -> MarketQueue:
    """A queue of a tick."""
    return MarketQueue(CAPACITY)


@pytest.fixture
def pace(queue: MarketQueue, clock: ManualClock) -> Pace:
    """The pace at which it may be filled."""
    return Pace(queue, PERIOD, clock)


def fill(queue: MarketQueue, count: int) -> None:
    """Let actions wait."""
    queue.extend(np.zeros(count, ACTION))


def test_a_tick_is_open_at_once_unless_the_one_before_was_full(queue: MarketQueue, pace: Pace) -> None:
    """A burst that fits is never held back, be it as large as it may."""
    waits = [pace.wait_s()]
    fill(queue, CAPACITY - 1)
    waits.append(pace.wait_s())
    queue.drain()
    fill(queue, int(FULL_SHARE * CAPACITY) - 1)
    queue.drain()
    fill(queue, CAPACITY - 1)
    waits.append(pace.wait_s())

    assert waits == [0, 0, 0]


def test_behind_a_full_tick_the_room_opens_evenly(queue: MarketQueue, pace: Pace, clock: ManualClock) -> None:
    """A share at once, the rest over three quarters of a period."""
    fill(queue, CAPACITY)
    assert not pace.is_flooded
    queue.drain()
    at_once = pace.wait_s()
    assert pace.is_flooded
    fill(queue, int(AT_ONCE_SHARE * CAPACITY))
    just = pace.wait_s()
    fill(queue, int((0.5 - AT_ONCE_SHARE / 2) * CAPACITY))
    wait_s = pace.wait_s()
    clock.advance(wait_s - 0.0001)
    almost = pace.wait_s()
    clock.advance(0.0002)
    opened = pace.wait_s()
    fill(queue, queue.room)
    clock.advance(OPEN_SHARE * PERIOD / 2)

    assert (at_once, just, opened) == (0, 0, 0)
    assert wait_s == pytest.approx(OPEN_SHARE * PERIOD / 2)
    assert almost > 0
    assert pace.wait_s() == 0, "all of it is open"


def test_it_is_paced_for_as_long_as_ticks_are_full(queue: MarketQueue, pace: Pace) -> None:
    """One tick that was not is followed by one that is open at once."""
    held_back = []
    for count in (CAPACITY, int(FULL_SHARE * CAPACITY), CAPACITY // 2, 0):
        fill(queue, count)
        queue.drain()
        fill(queue, CAPACITY // 5)
        held_back.append(pace.wait_s() > 0)
        queue.drain()

    assert held_back == [True, True, False, False]


def test_a_flood_is_over_when_ticks_have_had_room_for_a_while(queue: MarketQueue, pace: Pace) -> None:
    """A tick of it that was not full, behind a pause of the server, does not end it."""
    flooded = []
    for count in (CAPACITY, *[CAPACITY // 2] * FLOODED_TICKS):
        fill(queue, count)
        queue.drain()
        assert pace.wait_s() == 0
        flooded.append(pace.is_flooded)

    assert flooded == [True] * FLOODED_TICKS + [False]
