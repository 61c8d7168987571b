"""What an engine puts into Redis: every tick's frames and answers, in time, and never at the cost of a tick."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from redis.asyncio import Redis

from loadtest.gateways.valkey import Valkey
from server import redis_keys
from server.clock import SystemClock
from server.config import Settings
from server.live import relay
from server.live.hub import Hub
from server.live.publisher import REVOKED_KEPT, Publisher, Relayed
from server.live.view import View
from server.metrics import Metrics
from server.redis_door import connect
from tests.support.deadlines import seconds
from tests.support.gateways import until
from tests.support.published import EPOCH, World

DISCOVERY = "discovery_event"


class Hung:
    """Where the view hangs that is published."""

    view: View


class Station:
    """A hub and its publisher, over a Redis that a test can listen to."""

    def __init__(self, redis: Redis, expiry_ms: int) -> None:
        self.redis = redis
        self.metrics = Metrics()
        self.hub = Hub(EPOCH, Settings(), self.metrics, SystemClock())
        self.world = World()
        self.hung = Hung()
        self.relayed = Relayed(100)
        self.tick()
        self.publisher = Publisher(
            connect_again(redis),
            self.hub,
            self.hung,  # type: ignore[arg-type]  # only the view is looked at
            self.relayed,
            expiry_ms=expiry_ms,
            metrics=self.metrics,
            clock=SystemClock(),
        )

    def tick(self, *channels: str) -> View:
        """Publish a tick at the hub."""
        self.hung.view = self.world.view(*channels)
        self.hub.publish(self.hung.view)
        return self.hung.view

    def count(self, result: str) -> float:
        """Return how many bundles ended so."""
        return self.metrics.registry.get_sample_value("arena_redis_bundles_total", {"result": result}) or 0.0


def connect_again(redis: Redis) -> Redis:
    """Return another client of the same server."""
    return connect(f"unix://{redis.connection_pool.connection_kwargs['path']}")


@asynccontextmanager
async def publishing(expiry_ms: int = 60_000) -> AsyncIterator[tuple[Station, Valkey, Any]]:
    """Run a publisher, and listen to what it says."""
    with Valkey() as valkey:
        redis = connect(valkey.url)
        async with redis.pubsub(ignore_subscribe_messages=True) as listening:
            await listening.subscribe(redis_keys.ticks(EPOCH))
            station = Station(redis, expiry_ms)
            running = asyncio.create_task(station.publisher.run())
            yield station, valkey, listening
            station.publisher.close()
            await asyncio.wait_for(running, seconds(10))
        await redis.aclose()


async def heard(listening: Any, tick: int) -> dict[str, Any]:
    """Return the first bundle that leads to a tick."""
    async with asyncio.timeout(seconds(10)):
        while True:
            message = await listening.get_message(timeout=1.0)
            if message is not None and (told := relay.read(message["data"]))["tick"] >= tick:
                return told


async def test_a_tick_is_published_with_its_frames_and_its_events() -> None:
    """One frame a state channel, the events of the tick, and nothing of the ticks before."""
    async with publishing() as (station, _, listening):
        await heard(listening, 101)
        station.publisher.publish(station.tick(DISCOVERY))

        told = await heard(listening, 102)

        assert {name: len(part["frames"]) for name, part in told["states"].items()} == dict.fromkeys(
            station.hub.states, 1
        )
        assert told["events"][DISCOVERY]["frames"] == station.hub.events[DISCOVERY].since(0, 9)[1]
        assert (told["epoch"], told["tick_rate_ms"], told["is_closing"]) == (EPOCH, 100, False)


async def test_answers_are_there_when_the_frames_come() -> None:
    """Each under its key, with the tick and the version of its ETag, gone after their expiry."""
    async with publishing() as (station, _, listening):
        view = station.tick()
        station.publisher.publish(view)
        await heard(listening, view.tick)

        for path, body in (("/api/psychology", view.psychology()), ("/api/markets/food", view.market(9))):
            value = await station.redis.get(redis_keys.answer(EPOCH, path))
            about, _, kept = value.partition(b"\n")
            assert kept == body
            assert orjson.loads(about)["tick"] == view.tick
            assert orjson.loads(about)["version"].startswith(f"{EPOCH}-{view.tick}-")
            assert 0 < await station.redis.pttl(redis_keys.answer(EPOCH, path)) <= 60_000
        assert await station.redis.dbsize() == 37


async def test_a_world_that_stands_still_is_still_there() -> None:
    """Signs of life come without ticks, and carry what else there is to say."""
    async with publishing() as (station, _, listening):
        first = await heard(listening, 101)
        station.relayed.revoke(b"k" * 32)

        second = await heard(listening, 101)
        while second["revoked_count"] == 0:
            second = await heard(listening, 101)

        assert (first["revoked_count"], second["revoked_count"], second["revoked"]) == (0, 1, [b"k" * 32])
        assert first["instance"] == second["instance"]
        assert [part["frames"] for part in second["states"].values()] == [[]] * 4


async def test_answers_of_a_world_that_stands_still_do_not_expire() -> None:
    """They are put there again before their time is over, whether or not a tick comes."""
    async with publishing(expiry_ms=4_000) as (station, _, listening):
        await heard(listening, 101)
        key = redis_keys.answer(EPOCH, "/api/psychology")
        first = await station.redis.get(key)
        await station.redis.delete(key)

        async with asyncio.timeout(seconds(10)):
            while (again := await station.redis.get(key)) is None:
                await listening.get_message(timeout=0.1)

        assert again == first is not None


async def test_the_end_is_said() -> None:
    """The last bundle tells gateways that they need not wait for the engine's silence."""
    async with publishing() as (station, _, listening):
        await heard(listening, 101)
        station.publisher.close()

        told = await heard(listening, 101)
        while not told["is_closing"]:
            told = await heard(listening, 101)


async def test_a_lost_redis_is_counted_and_come_back_to() -> None:
    """What was not taken is dropped; the next bundle goes on from there, and a gateway notices."""
    async with publishing() as (station, valkey, listening):
        await heard(listening, 101)
        valkey.kill()
        station.publisher.publish(station.tick())
        await until(lambda: station.count("failed"))
        assert station.publisher.state == "lost"
        assert station.metrics.registry.get_sample_value("arena_redis_up") == 0

        valkey.start()
        await until(lambda: station.publisher.state == "connected")
        assert station.metrics.registry.get_sample_value("arena_redis_up") == 1


def test_only_so_many_revoked_keys_are_named() -> None:
    """The count goes on: whoever finds more than are named asks about all."""
    relayed = Relayed(100)
    for number in range(REVOKED_KEPT + 5):
        relayed.revoke(bytes([number % 256]) * 32)

    told = relayed.members()

    assert (told["revoked_count"], len(told["revoked"])) == (REVOKED_KEPT + 5, REVOKED_KEPT)
