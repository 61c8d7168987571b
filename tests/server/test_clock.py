"""The clocks: one that waits for real, one that a test turns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.clock import ManualClock, SystemClock
from tests.support.live import until


async def test_system_clock_wakes_at_the_deadline_and_not_before() -> None:
    """A sleeper never wakes early, and a deadline that has passed does not hold anybody up."""
    clock = SystemClock()
    deadline = clock.monotonic() + 0.02

    await clock.sleep_until(deadline)
    woken = clock.monotonic()
    await clock.sleep_until(deadline - 10.0)

    assert woken >= deadline
    assert clock.unix_ns() > 1_700_000_000_000_000_000


@pytest.mark.both_loops
async def test_a_wait_takes_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that rounds down fires early, and the rest of the wait takes another turn of the event loop."""
    clock, loop = SystemClock(), asyncio.get_running_loop()
    timers: list[float] = []

    class Counting:
        """The running loop, with a count of what is asked of it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

        def call_later(self, delay: float, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
            timers.append(delay)
            return loop.call_later(delay, *arguments, **options)

    monkeypatch.setattr(asyncio.events, "get_running_loop", Counting)
    for i in range(20):
        await clock.sleep_until(clock.monotonic() + 0.002 + i * 0.000_05)

    assert len(timers) == 20


async def test_waiting_is_no_work() -> None:
    """A thread's own time stands still while it waits, and goes on while it computes."""
    clock = SystemClock()
    before, began = clock.worked(), clock.monotonic()

    await clock.sleep_until(began + 0.1)
    waited = clock.worked() - before
    sum(range(100_000))

    assert waited < 0.05
    assert clock.worked() - before > waited


async def test_manual_clock_wakes_sleepers_in_the_order_of_their_deadlines() -> None:
    """Advancing past several deadlines wakes them earliest first, and leaves the later ones asleep."""
    clock = ManualClock(monotonic=0.0)
    woken: list[float] = []

    async def sleep(deadline: float) -> None:
        await clock.sleep_until(deadline)
        woken.append(deadline)

    sleepers = [asyncio.create_task(sleep(deadline)) for deadline in (3.0, 1.0, 2.0, 9.0)]
    await until(lambda: clock.next_deadline is not None)
    await asyncio.sleep(0)
    clock.advance(3.0)
    await asyncio.gather(*sleepers[:3])

    assert woken == [1.0, 2.0, 3.0]
    assert clock.next_deadline == 9.0
    clock.advance(6.0)
    await sleepers[3]


async def test_manual_clock_forgets_a_cancelled_sleeper() -> None:
    """Somebody who gave up waiting does not count as waiting, and is not woken."""
    clock = ManualClock(monotonic=0.0)
    sleeper = asyncio.create_task(clock.sleep_until(1.0))
    await until(lambda: clock.next_deadline is not None)

    sleeper.cancel()
    await asyncio.wait([sleeper])

    assert clock.next_deadline is None
    clock.advance(2.0)
    assert sleeper.cancelled()


def test_a_jump_of_the_wall_clock_leaves_the_monotonic_one_alone() -> None:
    """An administrator's hour back changes dates only."""
    clock = ManualClock(monotonic=5.0, unix_ns=10_000_000_000)

    clock.jump(-3.0)

    assert (clock.monotonic(), clock.unix_ns()) == (5.0, 7_000_000_000)
