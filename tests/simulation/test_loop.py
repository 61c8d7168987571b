"""Virtual time: nothing waits for real, threads take turns with the loop, and a crash ends everything."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from loadtest.simulation.loop import Crashed, Deadlock, VirtualClock, VirtualLoop, VirtualWorkers

A_WHILE = 1.0
"""Virtual seconds."""


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    """Return a loop at second 100, with threads that take 1 ms to wake and jobs that take 10 ms twice."""
    made = VirtualLoop(100.0)
    workers = VirtualWorkers(made, lambda: 0.001, lambda: 0.010)
    yield made
    workers.kill()
    made.close()


def workers_of(loop: VirtualLoop) -> VirtualWorkers:
    """Return the threads of a loop."""
    assert loop.workers is not None
    return loop.workers


def test_time_jumps_to_the_next_timer(loop: VirtualLoop) -> None:
    """Hours pass in no time, and exactly."""

    async def sleep() -> list[float]:
        times = []
        for seconds in (3_600.0, 0.25, 0.0):
            await asyncio.sleep(seconds)
            times.append(loop.time())
        return times

    assert loop.run_until_complete(sleep()) == [3_700.0, 3_700.25, 3_700.25]


def test_a_thread_waits_on_the_loops_time(loop: VirtualLoop) -> None:
    """An event it waits for, a timeout and a join happen at virtual moments."""
    workers = workers_of(loop)
    event = workers.event()
    seen: list[tuple[Any, ...]] = []

    def work() -> None:
        seen.append(("began", loop.now))
        seen.append((event.wait(0.5), loop.now))
        event.clear()
        seen.append((event.wait(5.0), loop.now))

    async def run() -> None:
        thread = workers.thread("worker", work)
        await asyncio.sleep(A_WHILE)
        event.set()
        await asyncio.to_thread(thread.join)
        seen.append(("joined", thread.is_done))

    loop.run_until_complete(run())

    assert seen == [
        ("began", 100.001),
        (False, 100.501),
        (True, pytest.approx(101.001)),
        ("joined", True),
    ]


def test_a_job_runs_between_two_halves_of_its_time(loop: VirtualLoop) -> None:
    """What the job changes is seen half-way; jobs of one executor follow each other."""
    executor = workers_of(loop).executor("jobs")
    done: list[float] = []

    async def run() -> list[int]:
        jobs = [loop.run_in_executor(executor, lambda i=i: (done.append(loop.now), i)[1]) for i in range(2)]
        return list(await asyncio.gather(*jobs))

    assert loop.run_until_complete(run()) == [0, 1]
    assert done == [pytest.approx(100.011), pytest.approx(100.031)]


def test_an_error_in_a_job_is_the_callers(loop: VirtualLoop) -> None:
    """An exception comes out where the job is awaited."""

    def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        loop.run_until_complete(loop.run_in_executor(None, fail))


def test_waiting_for_nothing_is_a_deadlock(loop: VirtualLoop) -> None:
    """A run that can never go on says so."""
    forever = asyncio.ensure_future(asyncio.Event().wait(), loop=loop)

    with pytest.raises(Deadlock):
        loop.run_until_complete(forever)

    forever.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(forever)


def test_a_crash_ends_between_two_callbacks(loop: VirtualLoop) -> None:
    """After so many callbacks nothing runs any more, not even what handles errors."""
    steps: list[int] = []

    async def run() -> None:
        try:
            for i in range(100):
                steps.append(i)
                await asyncio.sleep(0)
        finally:
            steps.append(-1)

    loop.crash(5)
    task = loop.create_task(run())
    with pytest.raises(Crashed):
        loop.run_until_complete(task)

    assert steps == [0, 1, 2, 3, 4]
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is ended here, on purpose
    task.get_coro().close()  # type: ignore[union-attr]  # it has one


def test_killed_threads_end_where_they_wait(loop: VirtualLoop) -> None:
    """A crash leaves no thread behind, and none of them runs on."""
    workers = workers_of(loop)
    seen: list[str] = []

    def work() -> None:
        seen.append("waits")
        workers.event().wait()
        seen.append("went on")

    thread = workers.thread("worker", work)
    loop.run_until_complete(asyncio.sleep(A_WHILE))
    workers.kill()

    assert (seen, thread.is_done, workers.failures) == (["waits"], True, [])


def test_what_ends_a_thread_is_kept(loop: VirtualLoop) -> None:
    """An exception nobody is there to catch is not lost."""
    workers = workers_of(loop)

    def fail() -> None:
        raise MemoryError

    workers.thread("worker", fail)
    loop.run_until_complete(asyncio.sleep(A_WHILE))

    assert [type(error) for error in workers.failures] == [MemoryError]


def test_the_wall_clock_can_be_set_and_the_other_cannot(loop: VirtualLoop) -> None:
    """A jump is seen in unix_ns only; both go on with the loop."""
    clock = VirtualClock(loop, 1_000_000_000_000)

    loop.run_until_complete(clock.sleep_until(102.5))
    clock.jump(-60.0)

    assert clock.monotonic() == 102.5
    assert clock.unix_ns() == 1_000_000_000_000 + 2_500_000_000 - 60_000_000_000
