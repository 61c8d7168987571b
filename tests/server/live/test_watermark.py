"""A watermark: who waits is woken when it has risen far enough, or told that it never will."""

from __future__ import annotations

import asyncio

import pytest

from server.live.watermark import Watermark


async def test_waiters_are_woken_as_it_rises() -> None:
    """Each waits for its own number; one that is reached already does not wait."""
    mark = Watermark(5)
    woken: list[int] = []

    async def wait(value: int) -> None:
        await mark.reached(value)
        woken.append(value)

    tasks = [asyncio.create_task(wait(value)) for value in (8, 6, 7, 5)]
    await tasks[3]
    mark.rise(7)
    await asyncio.gather(tasks[1], tasks[2])

    assert woken == [5, 6, 7]
    mark.rise(3)
    assert mark.value == 7, "it never falls"
    mark.rise(8)
    await tasks[0]


async def test_a_waiter_that_gave_up_hurts_nobody() -> None:
    """A cancelled task is passed over, the others are woken."""
    mark = Watermark(0)
    tasks = [asyncio.create_task(mark.reached(1)) for _ in range(3)]
    await asyncio.sleep(0)

    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    mark.rise(1)

    await asyncio.gather(tasks[0], tasks[2])


async def test_failing_is_for_now_and_for_later_but_not_for_the_past() -> None:
    """Everybody who waits gets the error, whoever comes later too; what was reached stays reached."""
    mark = Watermark(3)
    task = asyncio.create_task(mark.reached(4))
    await asyncio.sleep(0)

    mark.fail(OSError("disk"))

    with pytest.raises(OSError, match="disk"):
        await task
    with pytest.raises(OSError, match="disk"):
        await mark.reached(9)
    await mark.reached(3)
