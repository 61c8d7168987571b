"""A follower over real sockets: it takes every frame, checks it, and says what is wrong."""

from __future__ import annotations

import asyncio

import pytest
from arena_client.errors import HandshakeRefused

from loadtest.follower import Arrival, Follower
from server.config import Settings
from tests.support.streams import Arena, run_hub

TICKS = 30


async def start(arena: Arena) -> Follower:
    """Return a follower that has its snapshot and waits for what comes next."""
    arena.tick()
    follower = await asyncio.to_thread(Follower, f"http://127.0.0.1:{arena.port}", "market_tick")
    # hello, acknowledgement and snapshot may come in one read or in several
    reading = asyncio.create_task(receive(follower, 1))
    while not reading.done():
        arena.tick()
        await asyncio.sleep(0)
    await reading
    return follower


async def receive(follower: Follower, count: int) -> list[Arrival]:
    """Return the frames of the next reads, at least so many."""
    arrivals: list[Arrival] = []
    while len(arrivals) < count:
        arrivals += await asyncio.to_thread(follower.receive)
    return arrivals


async def test_every_frame_is_taken_and_checked() -> None:
    """What comes fits what came before, and its checksums are compared."""
    async with run_hub() as arena:
        follower = await start(arena)
        checked = follower.checked

        for _ in range(TICKS):
            arena.tick()
        arrivals = await receive(follower, TICKS)
        follower.close()

    assert all(one.size > 0 for one in arrivals)
    assert follower.checked > checked
    assert follower.take_losses() == []


async def test_a_refused_subscription_is_a_loss() -> None:
    """What the server does not give is told once, with its reason."""
    async with run_hub() as arena:
        arena.tick()
        follower = await asyncio.to_thread(Follower, f"http://127.0.0.1:{arena.port}", "market_tick", 1_000)
        losses: list[str] = []
        while not losses:
            await asyncio.to_thread(follower.receive)
            losses = follower.take_losses()
        follower.close()

    assert losses[0].startswith("refused: market_tick")
    assert follower.take_losses() == []


async def test_no_room_is_said() -> None:
    """A handshake that is refused is no connection that broke."""
    async with run_hub(Settings(sockets_max=1)) as arena:
        only = await start(arena)
        other = await asyncio.to_thread(Follower, f"http://127.0.0.1:{arena.port}", "market_tick")

        with pytest.raises(HandshakeRefused):
            await receive(other, 1)

        other.close()
        only.close()


async def test_the_end_of_a_connection_is_noticed() -> None:
    """A server that goes away ends the reading."""
    async with run_hub() as arena:
        follower = await start(arena)
        reading = asyncio.create_task(receive(follower, 1_000_000))

    with pytest.raises(ConnectionResetError, match="closed"):
        await reading
    follower.close()
