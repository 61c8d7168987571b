"""The hub brings every tick to everybody, in slices, keeps the rules of time, and ends in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from arena_client import wire
from arena_client.wire import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK

from engine.errors import InvariantBroken
from server.clock import ManualClock
from server.config import Settings
from server.live.caps import of_address
from server.live.frames import quantise
from server.live.hub import SLICE, Hub
from server.live.outlets import TaskOutlet
from server.live.subscriber import Subscriber
from server.live.topics import Message
from server.metrics import Metrics
from tests.support.deadlines import seconds
from tests.support.published import EPOCH, World


class Noting:
    """An outlet over some ASGI server that notes whether it was asked to send."""

    connection = None

    def __init__(self) -> None:
        self.is_notified = False

    def notify(self) -> None:
        self.is_notified = True

    def ping(self) -> None:
        raise AssertionError("the web server pings")

    def abort(self) -> None:
        raise AssertionError("nobody is to be dropped")


def is_notified(subscriber: Subscriber) -> bool:
    """Say whether a subscriber's outlet was asked to send."""
    assert isinstance(subscriber.outlet, Noting)
    return subscriber.outlet.is_notified


class Station:
    """A hub on a clock turned by hand, its metrics and the world that feeds it."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.clock = ManualClock()
        self.metrics = Metrics()
        self.world = World()
        self.hub = Hub(EPOCH, settings or Settings(), self.metrics, self.clock)

    def tick(self, *channels: str) -> None:
        """Publish the next tick."""
        self.hub.publish(self.world.view(*channels))

    def subscriber(self, *channels: str, subprotocol: str = SUBPROTOCOL_MSGPACK) -> Subscriber:
        """Return a new subscriber of the channels that has read everything so far."""
        subscriber = self.hub.open(subprotocol)
        for channel in channels:
            subscriber.receive(wire.encode({"op": "subscribe", "id": 1, "channel": channel}, subprotocol))
        read(subscriber)
        subscriber.outlet = Noting()
        return subscriber

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric's value, 0 when it was never touched."""
        return self.metrics.registry.get_sample_value(f"arena_{name}", labels) or 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the hub; leave every subscriber and close it at the end."""
        task = asyncio.create_task(self.hub.run())
        try:
            yield
        finally:
            for subscriber in self.hub.subscribers:
                self.hub.leave(subscriber, 1000)
            await asyncio.wait_for(self.hub.close(), seconds(5.0))
            await asyncio.wait_for(task, seconds(5.0))


def read(subscriber: Subscriber) -> list[dict[str, Any]]:
    """Return everything that waits for a subscriber."""
    messages: list[dict[str, Any]] = []
    while batch := subscriber.drain():
        messages += [wire.decode(message.payload, subscriber.subprotocol) for message in batch]
    return messages


async def turns(count: int) -> None:
    """Let the event loop go round so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


class TestLeave:
    async def test_who_left_while_its_key_was_looked_up_changes_nothing(self) -> None:
        """Nothing it had asked for is done, and it counts for nobody, whatever the answer is."""
        answer: asyncio.Future[list[str] | None] = asyncio.get_running_loop().create_future()
        metrics = Metrics()
        hub = Hub(EPOCH, Settings(), metrics, ManualClock(), lambda key_hash: answer)
        subscriber = hub.open(SUBPROTOCOL_JSON, of_address("10.0.0.1"))
        subscriber.receive(wire.encode({"op": "auth", "id": 1, "api_key": "ak_x"}, SUBPROTOCOL_JSON))
        form = {"op": "subscribe", "id": 2, "channel": "psychology_update", "every": 7}
        subscriber.receive(wire.encode(form, SUBPROTOCOL_JSON))

        hub.leave(subscriber, 1006)
        answer.set_result(["a1"])
        await turns(5)

        assert (hub.caps.holders(), subscriber.subscriptions) == ([], {})
        counts = [metrics.registry.get_sample_value(f"arena_{name}") for name in ("narrowings", "sockets")]
        assert counts == [0.0, 0.0]

    async def test_who_leaves_while_all_are_greeted_ends_its_subscriptions_once(self) -> None:
        """A form that somebody else reads is not taken for unread."""
        station = Station()
        station.tick()
        stays, goes = station.subscriber(), station.subscriber()
        for one in (stays, goes):
            form = {"op": "subscribe", "id": 2, "channel": "psychology_update", "every": 7}
            one.receive(wire.encode(form, SUBPROTOCOL_MSGPACK))

        station.hub.leave(goes, 1000)
        goes.end_subscriptions()

        (form_read,) = station.hub.states["psychology_update"]._forms.values()
        assert form_read.readers == 1


class TestOutlet:
    async def test_a_long_catch_up_over_another_server_lets_others_have_their_turn(self) -> None:
        """Also where the server takes all at once: a batch in a turn of the loop."""
        station, turn, sent = Station(), 0, []
        for _ in range(40):
            station.tick("discovery_event")
        subscriber = station.hub.open(SUBPROTOCOL_JSON)
        resume = {"op": "subscribe", "id": 1, "channel": "discovery_event", "epoch": EPOCH, "seq": 0}
        subscriber.receive(wire.encode(resume, SUBPROTOCOL_JSON))

        async def send(batch: list[Message]) -> None:
            sent.append(turn)

        subscriber.outlet = outlet = TaskOutlet(station.hub, subscriber, send)
        writing = asyncio.create_task(outlet.run())
        for turn in range(1, 20):  # noqa: B007  # read by send
            await asyncio.sleep(0)
        writing.cancel()

        assert len(sent) == len(set(sent)) >= 5


class TestPublish:
    def test_every_encoding_of_every_channel_arrives(self) -> None:
        """One tick, four state frames, for msgpack and JSON alike and equal."""
        station = Station()
        station.tick()
        subscribers = [station.subscriber(*wire.STATE_CHANNELS, subprotocol=s) for s in wire.SUBPROTOCOLS]

        station.tick()
        frames = [read(subscriber) for subscriber in subscribers]

        assert [frame["channel"] for frame in frames[0]] == list(wire.STATE_CHANNELS)
        for packed, by_name in zip(*frames, strict=True):
            differences = wire.changes(station.hub.states[packed["channel"]].state, packed["diff"])
            assert {**packed, "epoch": EPOCH, "diff": differences} == by_name

    def test_time_of_sending_counts_from_the_origin_of_hello(self) -> None:
        """A client computes latency from hello and the frame alone."""
        station = Station()
        subscriber = station.subscriber("market_tick")
        view = station.world.view()

        station.hub.publish(view)

        (snapshot,) = read(subscriber)
        origin_ns = station.hub.hello()["origin_unix_ms"] * 1_000_000
        assert (origin_ns + snapshot["sent_ns"] - view.published_unix_ns) % (1 << 53) == 0

    def test_state_that_is_not_finite_is_not_published(self) -> None:
        """The breach is raised before any channel has moved."""
        station = Station()
        station.tick()
        view = station.world.view()
        view.report.public.resource["scarcity"][2] = np.inf

        with pytest.raises(InvariantBroken, match="scarcity"):
            station.hub.publish(view)

        assert station.hub.tick == view.tick - 1

    def test_events_of_other_channels_are_not_streamed(self) -> None:
        """The world's log has more than the two event channels; they pass by."""
        station = Station()
        subscriber = station.subscriber("discovery_event", "catastrophic_event")
        station.world.events["world_event"] = 0

        station.tick("world_event", "catastrophic_event")

        assert [message["channel"] for message in read(subscriber)] == ["catastrophic_event"]


class TestRestore:
    def test_resume_reaches_back_before_the_restart(self) -> None:
        """A client of the server before this one goes on from its seq: the ring was rebuilt while recovering."""
        station = Station()
        reports = [station.world.view().report for _ in range(6)]
        for report in reports:
            station.hub.restore(report.tick, quantise(report.public))
        station.tick()
        subscriber = station.hub.open(SUBPROTOCOL_MSGPACK)

        resume = {"op": "subscribe", "id": 1, "channel": "market_tick", "epoch": EPOCH, "seq": reports[0].tick}
        subscriber.receive(wire.encode(resume, SUBPROTOCOL_MSGPACK))

        _, ack, *deltas = read(subscriber)
        assert ack["resumed"] is True
        assert [delta["seq"] for delta in deltas] == list(range(reports[1].tick, station.world.tick + 1))

    def test_event_numbers_go_on_from_the_worlds_count(self) -> None:
        """What is not held any more is counted all the same."""
        station = Station()
        station.world.events["discovery_event"] = 40
        station.hub.begin_events({"discovery_event": 40})
        station.hub.restore_events([station.world.event("discovery_event")])
        subscriber = station.hub.open(SUBPROTOCOL_MSGPACK)

        resume = {"op": "subscribe", "id": 1, "channel": "discovery_event", "epoch": EPOCH, "seq": 38}
        subscriber.receive(wire.encode(resume, SUBPROTOCOL_MSGPACK))

        _, ack, event = read(subscriber)
        assert (ack["seq"], ack["missed_from"], ack["missed_to"], event["seq"]) == (41, 39, 40, 41)

    def test_event_log_reaches_back_to_the_first(self) -> None:
        """Events of before the restart are resumed like any other."""
        station = Station()
        old = [station.world.event("discovery_event") for _ in range(20)]
        station.hub.restore_events(old)
        station.tick("discovery_event")
        subscriber = station.hub.open(SUBPROTOCOL_JSON)

        resume = {"op": "subscribe", "id": 1, "channel": "discovery_event", "epoch": EPOCH, "seq": 0}
        subscriber.receive(wire.encode(resume, SUBPROTOCOL_JSON))

        _, ack, *events = read(subscriber)
        assert (ack["seq"], ack["resumed"]) == (21, True)
        assert [event["seq"] for event in events] == list(range(1, 22))
        assert [event["sent_ns"] == 0 for event in events] == [True] * 20 + [False]


class TestFanOut:
    async def test_notifies_in_slices(self) -> None:
        """Between two slices others get their turn; after as many turns as slices all are notified."""
        station = Station()
        async with station.running():
            station.tick()
            subscribers = [station.subscriber("psychology_update") for _ in range(3 * SLICE)]
            await turns(5)

            station.tick()
            notified = []
            for _ in range(4):
                await asyncio.sleep(0)
                notified.append(sum(map(is_notified, subscribers)))

        assert notified == [SLICE, 2 * SLICE, 3 * SLICE, 3 * SLICE]

    async def test_notifies_only_who_has_something_to_get(self) -> None:
        """A tick without an event does not touch those who wait for events."""
        station = Station()
        async with station.running():
            waiting = station.subscriber("discovery_event")
            watching = station.subscriber("market_tick")

            station.tick()
            await turns(3)
            notified = (is_notified(waiting), is_notified(watching))
            station.tick("discovery_event")
            await turns(3)

            assert notified == (False, True)
            assert is_notified(waiting)

    async def test_rules_of_time_are_kept(self) -> None:
        """The hub looks at every connection once a second of its clock."""
        station = Station()
        async with station.running():
            silent = station.hub.open(SUBPROTOCOL_MSGPACK)
            await turns(3)
            for _ in range(60):
                station.clock.advance(0.1)
                await turns(4)

            assert silent.close_code == 4002


class TestClose:
    async def test_everybody_is_told_when_to_come_back(self) -> None:
        """Shutdown message, then 1012; the times to come back are spread; new connections are refused."""
        station = Station()
        running = asyncio.create_task(station.hub.run())
        subscribers = [station.subscriber("market_tick") for _ in range(50)]

        closing = asyncio.create_task(station.hub.close())
        await turns(2)
        retries = [message["retry_after_ms"] for s in subscribers for message in read(s)]

        assert len(set(retries)) == 50
        assert min(retries) >= 500
        assert 2_000 < max(retries) < 5_000
        assert {subscriber.close_code for subscriber in subscribers} == {1012}
        assert station.hub.is_full
        assert not closing.done()
        for subscriber in subscribers:
            station.hub.leave(subscriber, 1012)
        await asyncio.wait_for(asyncio.gather(closing, running), seconds(5.0))

    async def test_what_was_taken_in_is_answered_before_the_goodbye(self) -> None:
        """A key is looked up elsewhere while the server goes: its answer comes first; nothing more is taken in."""
        found: asyncio.Future[list[str] | None] = asyncio.get_running_loop().create_future()
        station = Station()
        hub = Hub(EPOCH, Settings(), station.metrics, station.clock, lambda key_hash: found)
        subscriber = hub.open(SUBPROTOCOL_JSON)
        for message in ({"op": "auth", "id": 1, "api_key": "ak_x"}, {"op": "ping", "id": 2}):
            subscriber.receive(wire.encode(message, SUBPROTOCOL_JSON))
        await turns(2)

        hub.dismiss(subscriber)
        subscriber.receive(wire.encode({"op": "ping", "id": 3}, SUBPROTOCOL_JSON))
        assert [message["type"] for message in read(subscriber)] == ["hello"]
        assert subscriber.close_code is None
        found.set_result(["a1"])
        await turns(3)

        answers = read(subscriber)
        assert [(message["type"], message.get("id")) for message in answers] == [
            ("ack", 1), ("ack", 2), ("shutdown", None)
        ]  # fmt: skip
        assert subscriber.close_code == 1012

    async def test_closing_without_subscribers_ends_at_once(self) -> None:
        """Nobody to wait for."""
        station = Station()
        running = asyncio.create_task(station.hub.run())
        await turns(2)

        await asyncio.wait_for(station.hub.close(), seconds(5.0))
        await asyncio.wait_for(running, seconds(5.0))


class TestAccounts:
    def test_connections_and_subscriptions_are_counted(self) -> None:
        """Gauges go up and come down again, whoever ended it."""
        station = Station(Settings(sockets_max=2))
        first = station.subscriber("market_tick", "scarcity_update")
        second = station.subscriber("market_tick")

        assert station.hub.is_full
        assert station.metric("sockets") == 2
        assert station.metric("subscriptions", channel="market_tick") == 2
        second.receive(wire.encode({"op": "unsubscribe", "id": 1, "channel": "market_tick"}, SUBPROTOCOL_MSGPACK))
        station.hub.leave(first, 1001)
        assert not station.hub.is_full
        assert station.metric("subscriptions", channel="market_tick") == 0
        assert station.metric("subscriptions", channel="scarcity_update") == 0
        assert station.metric("sockets_closed_total", code="1001") == 1
        assert station.metric("sockets_opened_total") == 2

    def test_odd_close_codes_do_not_make_labels(self) -> None:
        """Whoever closes with a thousand codes of its own makes one label."""
        station = Station()

        for code in (3_000, 3_001, 4_999):
            station.hub.leave(station.hub.open(SUBPROTOCOL_JSON), code)

        assert station.metric("sockets_closed_total", code="other") == 3

    def test_frames_and_their_bytes_are_counted(self) -> None:
        """By channel and kind, per connection that got them."""
        station = Station()
        station.tick()
        subscriber = station.hub.open(SUBPROTOCOL_JSON)
        subscriber.receive(wire.encode({"op": "subscribe", "id": 1, "channel": "market_tick"}, SUBPROTOCOL_JSON))

        batch = subscriber.drain()
        station.hub.count(batch)

        size = next(message.size for message in batch if message.kind == "snapshot")
        assert station.metric("frames_total", channel="market_tick", kind="snapshot") == 1
        assert station.metric("frame_bytes_total", channel="market_tick", kind="snapshot") == size
        assert station.metric("frames_total", channel="control", kind="hello") == 1
