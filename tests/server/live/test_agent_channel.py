"""The private channel without a socket: readers that are late, owners with many agents, a world that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from arena_client import wire
from arena_client.wire import SUBPROTOCOL_MSGPACK

from engine.economy import Economy
from engine.markets import MARKETS
from server.live import agent_channel
from server.live.agent_channel import ACCOUNTS_WAITING, PULL_BYTES, AgentSubscription, AgentTopic
from server.live.agent_log import AgentLog, Balance
from server.live.agent_records import PART_ENTRIES, end_of
from server.live.errors import Frozen
from server.live.receipts import credits
from server.live.topics import TooFarBehind
from server.metrics import Metrics
from tests.support.live import soon, until
from tests.support.tick_reports import tick_report
from tests.support.worlds import small_config

EPOCH = "0123456789abcdef"
STATE = Economy(small_config(), 1).state
KEEP = 20


class Registry:
    """Agents 10 to 10 + count - 1 belong to owner 1."""

    def __init__(self, count: int) -> None:
        self.count = count

    def owner_of_agent(self, number: int) -> int | None:
        """Return the owner."""
        return 1 if 10 <= number < 10 + self.count else 2

    def owner_of_left_agent(self, number: int) -> int | None:
        """Return nobody."""
        return None

    def agents_of(self, owner: int) -> list[int]:
        """Return the agents."""
        return list(range(10, 10 + self.count))


class Channel:
    """The channel of a made-up world."""

    def __init__(self, agents: int = 2) -> None:
        self.log = AgentLog(KEEP, Metrics())
        self.log.open(Registry(agents), 100)
        self.is_frozen = False
        self.gone: set[int] = set()
        self.notified = 0
        self.topic = AgentTopic(EPOCH, self.log, self.account, self.settled, lambda: (self.log.tick, 7), lambda ns: ns)

    def account(self, agent: int) -> dict[str, Any] | None:
        """Return what stands for an account."""
        return None if agent in self.gone else {"agent_id": f"a{agent}", "tick": self.log.tick}

    @asynccontextmanager
    async def settled(self) -> AsyncIterator[None]:
        """Stand still at once, unless frozen."""
        if self.is_frozen:
            raise Frozen("broken")
        yield

    def subscribe(self, epoch: str | None = None, seq: int | None = None) -> AgentSubscription:
        """Return a new reader."""

        def notify() -> None:
            self.notified += 1

        return self.topic.subscribe(epoch, seq, 1, notify)[0]

    def tick(self, count: int = 1) -> None:
        """Publish a tick with so many outcomes."""
        tick = self.log.tick + 1
        rows = [{"agent_id": 10, "seq": tick * 10_000 + i, "kind": 1, "status": 7} for i in range(count)]
        self.log.publish(tick_report(tick, rows), 5, STATE)

    def pull(self, subscription: AgentSubscription) -> list[dict[str, Any]]:
        """Pull until nothing is left."""
        frames = []
        while self.topic.pending(subscription):
            batch = self.topic.pull(subscription, SUBPROTOCOL_MSGPACK)
            frames += [wire.decode(message.payload, SUBPROTOCOL_MSGPACK) for message in batch]
        return frames

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Make accounts meanwhile."""
        running = asyncio.create_task(self.topic.run())
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await soon(running)


def test_a_reader_that_fell_behind_what_is_kept_must_come_back() -> None:
    """Nothing is skipped: it is closed, and resumes as far as it can."""
    channel = Channel()
    reader = channel.subscribe()
    for _ in range(KEEP + 5):
        channel.tick()

    assert channel.topic.pending(reader)
    with pytest.raises(TooFarBehind, match="25 ticks behind"):
        channel.topic.pull(reader, SUBPROTOCOL_MSGPACK)

    again, told = channel.topic.subscribe(EPOCH, reader.seq, 1, lambda: None)
    assert (told["resumed"], told["missed_to"]) == (True, end_of(105) - 4_095)
    assert [frame["tick"] for frame in channel.pull(again)] == list(range(106, 126))


def test_much_leaves_in_pieces() -> None:
    """A pull ends with the frame that passes its size; frames hold so many entries at most."""
    channel = Channel()
    reader = channel.subscribe()
    channel.tick(5 * PART_ENTRIES)

    first = channel.topic.pull(reader, SUBPROTOCOL_MSGPACK)

    assert PULL_BYTES / 2 < sum(message.size for message in first) < 4 * PULL_BYTES
    assert len(first) < 5
    rest = channel.pull(reader)
    assert len(first) + len(rest) == 5
    assert all(len(frame["entries"]) == PART_ENTRIES for frame in rest)


def test_balances_come_with_the_newest_frame_only() -> None:
    """Each once: a reader in step gets it with its frame, one that was away the last one."""
    channel = Channel()
    reader = channel.subscribe()
    for cash in (7, 8):
        channel.tick()
        reader.log.balances[10] = Balance(channel.log.tick, cash, 0, 0, 0, [0] * MARKETS, [0] * MARKETS)

    frames = channel.pull(reader)
    channel.tick()
    later = channel.pull(reader)

    told = [[(one["agent_id"], one["cash"]) for one in frame.get("balances", [])] for frame in (*frames, *later)]
    assert told == [[], [("a10", credits(8))], []]


async def test_an_owner_with_many_agents_gets_their_accounts_bit_by_bit() -> None:
    """Few wait for it at a time; each comes once, the last frame says that none is left."""
    channel = Channel(agents=100)
    reader = channel.subscribe()
    frames: list[dict[str, Any]] = []
    async with channel.running():
        while not frames or frames[-1]["left"]:
            await until(lambda: bool(reader.made))
            assert len(reader.made) <= ACCOUNTS_WAITING + agent_channel.ACCOUNTS_AT_ONCE
            frames += channel.pull(reader)

    agents = [account["agent_id"] for frame in frames for account in frame["accounts"]]
    assert agents == [f"a{number}" for number in range(10, 110)]
    assert channel.notified > 0


async def test_agents_that_left_meanwhile_have_no_account() -> None:
    """The others come all the same."""
    channel = Channel(agents=3)
    channel.gone.add(11)
    reader = channel.subscribe()
    async with channel.running():
        await until(lambda: len(reader.made) == 2)

    assert [account["agent_id"] for account in reader.made] == ["a10", "a12"]


async def test_a_frozen_world_has_no_accounts_and_holds_up_nothing() -> None:
    """What happened before can still be read."""
    channel = Channel()
    reader = channel.subscribe()
    channel.tick()
    channel.is_frozen = True
    async with channel.running():
        await until(lambda: not channel.topic._owing)

        assert [frame["type"] for frame in channel.pull(reader)] == ["entries"]


async def test_who_left_is_owed_nothing() -> None:
    """No account is made for it, and its log may go."""
    channel = Channel()
    reader = channel.subscribe()

    channel.topic.leave(reader)

    async with channel.running():
        await until(lambda: not channel.topic._owing)
    assert (list(reader.made), reader.log.readers) == ([], 0)
