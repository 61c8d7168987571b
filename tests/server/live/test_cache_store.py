"""Both stores of finished answers behave alike, and say so when they cannot be reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from loadtest.gateways.valkey import Valkey
from server.clock import ManualClock
from server.live.cache_store import CacheStore, MemoryStore, RedisStore, StoreAway
from server.redis_door import connect
from tests.support.deadlines import seconds


class Kind:
    """A store and a way to let its time pass."""

    def __init__(self, store: CacheStore, wait: Callable[[float], Awaitable[None]]) -> None:
        self.store = store
        self.wait = wait


@pytest.fixture(params=["memory", "redis"])
async def kind(request: pytest.FixtureRequest) -> AsyncIterator[Kind]:
    """Each of the two."""
    if request.param == "memory":
        clock = ManualClock()

        async def turn(wait_s: float) -> None:
            clock.advance(wait_s)

        yield Kind(MemoryStore(clock), turn)
        return
    with Valkey() as valkey:
        redis = connect(valkey.url)

        async def gone(wait_s: float) -> None:
            async with asyncio.timeout(seconds(10 * wait_s)):
                while await redis.exists("a", "b"):  # noqa: ASYNC110 - Redis tells nobody
                    await asyncio.sleep(0)

        yield Kind(RedisStore(redis), gone)
        await redis.aclose()


async def test_what_was_put_is_got(kind: Kind) -> None:
    """Each value under its key, the newest one, bytes as they were."""
    await kind.store.put({"a": b"1", "b": b"\x00\xff"}, 60_000)
    await kind.store.put({"a": b"2"}, 60_000)

    assert await kind.store.get("a") == b"2"
    assert await kind.store.get("b") == b"\x00\xff"
    assert await kind.store.get("c") is None


async def test_nothing_outlives_its_expiry(kind: Kind) -> None:
    """After its time a value is gone."""
    await kind.store.put({"a": b"1", "b": b"2"}, 200)
    await kind.wait(0.2)

    assert await kind.store.get("a") is None
    assert await kind.store.get("b") is None


async def test_an_expiry_of_zero_keeps_nothing(kind: Kind) -> None:
    """cacheExpiry 0: not even what was there before."""
    await kind.store.put({"a": b"1"}, 60_000)
    await kind.store.put({"a": b"2"}, 0)

    assert await kind.store.get("a") is None


async def test_memory_is_bounded_by_bytes() -> None:
    """What was asked for longest ago leaves first; what is too large for all of it is not kept."""
    store = MemoryStore(ManualClock(), bytes_max=10)
    await store.put({"a": b"1234", "b": b"1234"}, 1_000)
    await store.get("a")

    await store.put({"c": b"1234", "d": bytes(11)}, 1_000)

    assert [await store.get(key) for key in "abcd"] == [b"1234", None, b"1234", None]
    assert store.bytes == 8


async def test_a_lost_redis_is_said() -> None:
    """Gone or standing still: StoreAway, in time, and no other error; when it is back it works again."""
    with Valkey() as valkey:
        redis = connect(valkey.url)
        store = RedisStore(redis)
        await store.put({"a": b"1"}, 60_000)

        valkey.stop_answering()
        with pytest.raises(StoreAway):
            await store.get("a")
        valkey.go_on()
        assert await store.get("a") == b"1"

        valkey.kill()
        with pytest.raises(StoreAway):
            await store.put({"a": b"2"}, 60_000)
        with pytest.raises(StoreAway):
            await store.get("a")

        valkey.start()
        await store.put({"a": b"3"}, 60_000)
        assert await store.get("a") == b"3"
        await redis.aclose()
