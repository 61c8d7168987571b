"""Finished answers are kept for cache_expiry, and no longer."""

from __future__ import annotations

import asyncio

import pytest

from server.clock import ManualClock
from server.live.cache import AnswerCache


class Counting:
    """Builds an answer and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> bytes:
        self.count += 1
        return b"answer %d" % self.count


def test_an_answer_is_built_once_within_the_expiry() -> None:
    """Asked again it is the same one; afterwards it is built anew."""
    clock, build = ManualClock(), Counting()
    cache = AnswerCache(5_000, clock)

    first = cache.get("key", build)
    clock.advance(4.9)
    again = cache.get("key", build)
    clock.advance(0.2)
    later = cache.get("key", build)

    assert (first, again, later) == (b"answer 1", b"answer 1", b"answer 2")


def test_an_expiry_of_zero_keeps_nothing() -> None:
    """cacheExpiry 0 switches it off."""
    build = Counting()
    cache = AnswerCache(0, ManualClock())

    cache.get("key", build)
    cache.get("key", build)

    assert build.count == 2


def test_keys_do_not_share_answers_and_the_one_unasked_longest_leaves_first() -> None:
    """Bounded by number."""
    build = Counting()
    cache = AnswerCache(5_000, ManualClock(), answers_max=2)

    for key in ("a", "b", "a", "c", "a"):
        cache.get(key, build)
    assert build.count == 3
    cache.get("b", build)

    assert build.count == 4


def test_answers_are_bounded_by_bytes_as_well() -> None:
    """The one unasked longest makes room; one that is larger than all room is given and not kept."""
    cache = AnswerCache(5_000, ManualClock(), bytes_max=100)

    for key in "abc":
        cache.get(key, lambda: b"x" * 40)

    assert (cache.bytes, cache.find("a"), cache.find("c")) == (80, None, b"x" * 40)
    assert len(cache.get("large", lambda: b"x" * 101)) == 101
    assert (cache.bytes, cache.find("large")) == (80, None)


def test_an_answer_built_anew_replaces_the_old_one() -> None:
    """Its bytes count once."""
    clock = ManualClock()
    cache = AnswerCache(1_000, clock, bytes_max=100)

    cache.get("key", lambda: b"x" * 60)
    clock.advance(2.0)
    cache.get("key", lambda: b"y" * 50)

    assert (cache.bytes, cache.find("key")) == (50, b"y" * 50)


async def test_those_who_ask_at_the_same_time_wait_for_one_answer() -> None:
    """A hundred readers cost one; one who leaves takes it from nobody."""
    build, go = Counting(), asyncio.Event()
    cache = AnswerCache(5_000, ManualClock())

    async def slowly() -> bytes:
        await go.wait()
        return build()

    readers = [asyncio.ensure_future(cache.get_shared("key", slowly)) for _ in range(100)]
    await asyncio.sleep(0)
    readers[0].cancel()
    await asyncio.sleep(0)
    go.set()

    assert set(await asyncio.gather(*readers[1:])) == {b"answer 1"}
    assert await cache.get_shared("key", slowly) == b"answer 1"
    assert build.count == 1


async def test_a_failure_is_everybodys_and_is_not_kept() -> None:
    """The next one who asks tries again."""
    cache = AnswerCache(5_000, ManualClock())

    async def fail() -> bytes:
        await asyncio.sleep(0)
        raise OSError("no")

    async def work() -> bytes:
        return b"yes"

    found = await asyncio.gather(*(cache.get_shared("key", fail) for _ in range(3)), return_exceptions=True)

    assert [str(error) for error in found] == ["no"] * 3
    assert await cache.get_shared("key", work) == b"yes"


async def test_closing_gives_up_what_is_being_built() -> None:
    """Nobody waits for ever."""
    cache = AnswerCache(5_000, ManualClock())
    never = asyncio.Event()

    async def forever() -> bytes:
        await never.wait()
        return b""

    reader = asyncio.ensure_future(cache.get_shared("key", forever))
    await asyncio.sleep(0)
    await cache.close()

    with pytest.raises(asyncio.CancelledError):
        await reader
