"""Subscribers in step share one cursor and one frame; whoever leaves a group has got exactly what its cursor says."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
from arena_client import wire
from arena_client.mirror import Mirror
from arena_client.wire import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK

from server import send_loop
from server.live import groups
from server.live.subscriber import Subscriber
from server.live.view import View
from server.send_loop import SHARED_MIN
from tests.support.deadlines import seconds
from tests.support.streams import Arena, Watcher, run_hub, until, watch

pytestmark = pytest.mark.both_loops
MARKETS, MOODS, FINDS = "market_tick", "psychology_update", "discovery_event"


async def in_group(arena: Arena, count: int) -> list[Subscriber]:
    """Wait until so many subscribers are in a group and return them."""
    await until(lambda: sum(one.group is not None for one in arena.hub.subscribers) == count)
    return [one for one in arena.hub.subscribers if one.group is not None]


async def settled(watcher: Watcher, *channels: str) -> list[dict[str, Any]]:
    """Subscribe, read up to the snapshots and return those."""
    for channel in channels:
        await watcher.send({"op": "subscribe", "id": channel, "channel": channel})
    wanted = len(channels) + sum(channel in wire.STATE_CHANNELS for channel in channels)
    messages = [await watcher.next() for _ in range(wanted)]
    return [message for message in messages if message["type"] == "snapshot"]


class TestSharing:
    async def test_same_subscriptions_are_one_group_whatever_their_order(self) -> None:
        """Encoding and channels make a group; the order of subscribing does not."""
        async with run_hub() as arena, AsyncExitStack() as stack:
            arena.tick()
            kinds: list[tuple[str, tuple[str, ...]]] = [
                (SUBPROTOCOL_MSGPACK, (MARKETS, MOODS)),
                (SUBPROTOCOL_MSGPACK, (MOODS, MARKETS)),
                (SUBPROTOCOL_JSON, (MARKETS, MOODS)),
                (SUBPROTOCOL_MSGPACK, (MARKETS,)),
            ]
            for subprotocol, channels in kinds:
                await settled(await stack.enter_async_context(watch(arena, subprotocol)), *channels)

            one, two, three, four = await in_group(arena, 4)

            assert one.group is two.group
            assert len({id(member.group) for member in (one, three, four)}) == 3

    async def test_several_topics_of_a_tick_are_one_write_and_each_arrives_once(self) -> None:
        """All members get the frames of all their topics, and the counts are theirs."""
        async with run_hub() as arena, AsyncExitStack() as stack:
            arena.tick()
            watchers = [await stack.enter_async_context(watch(arena)) for _ in range(7)]
            for watcher in watchers:
                await settled(watcher, MARKETS, MOODS, FINDS)
            await in_group(arena, 7)

            view = arena.tick(FINDS)
            got = [[await watcher.next() for _ in range(3)] for watcher in watchers]

            assert [frame["channel"] for frame in got[0]] == [MARKETS, MOODS, FINDS]
            assert all(frames == got[0] for frames in got)
            assert got[0][0]["seq"] == view.tick
            labels = {"channel": MARKETS, "kind": "delta"}
            await until(lambda: arena.metrics.registry.get_sample_value("arena_frames_total", labels) == 7)

    async def test_a_tick_does_not_touch_a_members_cursor(self) -> None:
        """What a member costs a tick is its write: its subscriptions are the group's."""
        async with run_hub() as arena, watch(arena) as one, watch(arena) as other:
            arena.tick()
            for watcher in (one, other):
                await settled(watcher, MARKETS)
            first, second = await in_group(arena, 2)

            assert first.subscriptions is second.subscriptions
            for _ in range(100):
                arena.tick()
                await one.next()
                await other.next()
            assert first.subscriptions is second.subscriptions


class TestLeaving:
    async def test_member_that_leaves_before_its_turn_misses_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the middle of a round, one that was not served yet changes its subscriptions: the frame still comes."""
        monkeypatch.setattr(groups, "SLICE", 1)
        async with run_hub() as arena, AsyncExitStack() as stack:
            arena.tick()
            watchers = [await stack.enter_async_context(watch(arena)) for _ in range(9)]
            for watcher in watchers:
                await settled(watcher, MARKETS)
            members = await in_group(arena, 9)
            last = members[-1]
            group = last.group
            assert group is not None

            view = arena.tick()
            await until(lambda: group.is_under_way)
            last.receive(message(op="subscribe", id=1, channel=MOODS))
            first = last.subscriptions[MARKETS].seq
            frames = [await watchers[-1].next() for _ in range(3)]

            assert first == view.tick - 1
            assert [(frame["type"], frame.get("seq")) for frame in frames] == [
                ("ack", view.tick),
                ("delta", view.tick),
                ("snapshot", view.tick),
            ]
            assert [(await watcher.next())["seq"] for watcher in watchers[:-1]] == [view.tick] * 8

    async def test_member_that_leaves_after_its_turn_gets_nothing_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that was served already goes on behind the frame it has."""
        monkeypatch.setattr(groups, "SLICE", 1)
        async with run_hub() as arena, AsyncExitStack() as stack:
            arena.tick()
            watchers = [await stack.enter_async_context(watch(arena)) for _ in range(9)]
            for watcher in watchers:
                await settled(watcher, MARKETS)
            first, *_ = await in_group(arena, 9)
            group = first.group
            assert group is not None

            view = arena.tick()
            await until(lambda: group.is_under_way)
            first.receive(message(op="unsubscribe", id=1, channel=MARKETS))
            frames = [await watchers[0].next() for _ in range(2)]
            arena.tick()
            assert (await watchers[1].next())["seq"] == view.tick

            assert [frame["type"] for frame in frames] == ["delta", "ack"]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await watchers[0].connection.recv()

    async def test_reader_that_stops_leaves_and_comes_back(self) -> None:
        """Blocked, it is no member; in step again, it is, and has missed nothing that it was not told of."""
        async with run_hub() as arena, watch(arena) as good, watch(arena) as slow:
            arena.tick()
            await settled(good, MARKETS)
            (snapshot,) = await settled(slow, MARKETS)
            members = await in_group(arena, 2)
            slow.connection.transport.pause_reading()
            async with asyncio.timeout(seconds(30.0)):
                while members[1].group is not None:
                    arena.tick()
                    await good.next()
            assert members[1].is_blocked
            assert members[0].group is not None

            mirror = Mirror(MARKETS)
            mirror.feed(snapshot)
            slow.connection.transport.resume_reading()
            while mirror.seq != arena.world.tick:
                frame = await slow.next()
                assert frame["type"] == "lagged" or mirror.feed(frame).applied

            await in_group(arena, 2)
            assert members[0].group is members[1].group


def message(**fields: Any) -> bytes:
    """Return a control message in msgpack."""
    data = wire.encode(fields, SUBPROTOCOL_MSGPACK)
    assert isinstance(data, bytes)
    return data


class Copy:
    """A client that keeps copies of what it subscribed to and notes whatever does not fit."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.mirrors: dict[str, Mirror] = {}
        self.events: list[int] = []
        self.wrong: list[str] = []
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for data in self.watcher.connection:
            frame = wire.decode(data, self.watcher.subprotocol)
            channel = frame.get("channel", "")
            if frame["type"] in ("delta", "snapshot"):
                mirror = self.mirrors.setdefault(channel, Mirror(channel))
                if frame["type"] == "delta" and frame["seq"] <= (mirror.seq or 0):
                    self.wrong.append(f"{channel} {frame['seq']} came twice")
                if (reason := mirror.feed(frame).needs_resync) is not None:
                    self.wrong.append(f"{channel}: {reason}")
            elif frame["type"] == "event":
                self.events.append(frame["seq"])
            elif frame["type"] == "error":
                self.wrong.append(str(frame))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("size", "shared_min"), [(2, SHARED_MIN), (4, 2)], ids=["one thread", "two threads"])
async def test_any_conversation_leaves_every_copy_equal(
    size: int, shared_min: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ticks, events, requests, readers that stop and go on, in any order and in the middle of rounds."""
    monkeypatch.setattr(groups, "SLICE", size)
    monkeypatch.setattr(send_loop, "SHARED_MIN", shared_min)
    chance = random.Random(seed)
    async with run_hub() as arena, AsyncExitStack() as stack:
        view = arena.tick()
        copies = [
            Copy(await stack.enter_async_context(watch(arena, chance.choice(wire.SUBPROTOCOLS)))) for _ in range(10)
        ]
        for copy in copies:
            for channel in (MARKETS, FINDS, *chance.sample([MOODS, "scarcity_update", "inflation_update"], 2)):
                await copy.watcher.send({"op": "subscribe", "id": 1, "channel": channel})
        await until(lambda: all(len(one.subscriptions) == 4 for one in arena.hub.subscribers))
        for _ in range(600):
            copy = chance.choice(copies)
            match chance.randrange(12):
                case 0:
                    copy.watcher.connection.transport.pause_reading()
                case 1 | 2:
                    copy.watcher.connection.transport.resume_reading()
                case 3 if copy.mirrors:
                    resync = {"op": "resync", "id": 2, "channel": chance.choice(list(copy.mirrors))}
                    await copy.watcher.send(resync)
                case 4:
                    await copy.watcher.send({"op": "ping", "id": 3})
                case 5 | 6 | 7 | 8:
                    view = arena.tick(*chance.choice([(), (FINDS,)]))
                case _:
                    await asyncio.sleep(0)
        for copy in copies:
            copy.watcher.connection.transport.resume_reading()
        await _caught_up(copies, view, arena.world.events[FINDS])

        assert [copy.wrong for copy in copies if copy.wrong] == []
        for copy in copies:
            assert {name: dict(mirror.state) for name, mirror in copy.mirrors.items()} == {
                name: view.states[name] for name in copy.mirrors
            }
            assert copy.events == list(range(copy.events[0], copy.events[-1] + 1))
            copy.reading.cancel()
        await asyncio.gather(*(copy.reading for copy in copies), return_exceptions=True)


async def _caught_up(copies: list[Copy], view: View, events: int) -> None:
    def has_all(copy: Copy) -> bool:
        return copy.events[-1:] == [events] and all(mirror.seq == view.tick for mirror in copy.mirrors.values())

    await until(lambda: all(map(has_all, copies)), 20.0)
