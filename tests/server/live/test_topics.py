"""Topics hand out frames by cursor: in step, resumed, lagging, and back in step."""

from __future__ import annotations

from typing import Any

import pytest
from arena_client import wire
from arena_client.wire import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK

from engine.errors import InvariantBroken
from engine.markets import MARKETS
from server.live import frames
from server.live.topics import PULL_FRAMES_MAX, EventTopic, Message, StateTopic, Subscription
from server.metrics import Metrics
from tests.support.published import EPOCH, World

RING = 30
LAG = 12


class Source:
    """A state topic and the world that feeds it."""

    def __init__(self, name: str = frames.MARKET_TICK) -> None:
        self.world = World()
        self.metrics = Metrics()
        self.topic = StateTopic(name, EPOCH, self.metrics, resume_frames=RING, lag_frames_max=LAG)

    def tick(self, times: int = 1) -> None:
        """Publish so many ticks."""
        for _ in range(times):
            view = self.world.view()
            self.topic.publish(view.tick, view.states[self.topic.name], 5)

    def metric(self, name: str, **labels: str) -> float:
        """Return a counter's value."""
        return self.metrics.registry.get_sample_value(f"arena_{name}_total", labels) or 0.0


def opened(messages: list[Message], subprotocol: str = SUBPROTOCOL_MSGPACK) -> list[dict[str, Any]]:
    """Decode what was pulled."""
    return [wire.decode(message.payload, subprotocol) for message in messages]


def pull_all(topic: StateTopic | EventTopic, subscription: Subscription, subprotocol: str = SUBPROTOCOL_MSGPACK) -> Any:
    """Pull until nothing is left."""
    messages: list[dict[str, Any]] = []
    while topic.pending(subscription):
        messages += opened(topic.pull(subscription, subprotocol), subprotocol)
    return messages


class TestStateTopic:
    @pytest.mark.parametrize("subprotocol", wire.SUBPROTOCOLS)
    @pytest.mark.parametrize("name", frames.STATE_CHANNELS)
    def test_mirror_equals_the_state_at_every_seq(self, name: str, subprotocol: str) -> None:
        """Snapshot, then deltas: what a client rebuilds is the server's state after each of them."""
        source = Source(name)
        source.tick()
        subscription, _ = source.topic.subscribe(None, None)
        mirror: wire.State = {}

        for _ in range(25):
            for message in opened(source.topic.pull(subscription, subprotocol), subprotocol):
                mirror = message["state"] if message["type"] == "snapshot" else wire.apply(mirror, message)
                assert message.get("crc", wire.checksum(mirror)) == wire.checksum(mirror)
            assert mirror == source.topic.state
            source.tick()

    def test_nothing_to_pull_before_the_first_tick(self) -> None:
        """A subscription that came before the world waits for its snapshot."""
        source = Source()

        subscription, told = source.topic.subscribe(None, None)

        assert told == {"seq": None, "resumed": False}
        assert source.topic.pull(subscription, SUBPROTOCOL_MSGPACK) == []
        source.tick()
        assert [m["reason"] for m in pull_all(source.topic, subscription)] == ["subscribed"]

    def test_resumes_from_every_seq_of_the_ring(self) -> None:
        """However far back within the ring: all frames after it, in order, and no snapshot."""
        source = Source()
        source.tick(RING + 5)
        now = source.world.tick

        for behind in range(RING + 1):
            subscription, told = source.topic.subscribe(EPOCH, now - behind)
            assert told == {"seq": now, "resumed": True}
            assert [m["seq"] for m in pull_all(source.topic, subscription)] == list(range(now - behind + 1, now + 1))

    @pytest.mark.parametrize(
        ("epoch", "behind", "reason"), [("other", 1, "epoch"), (EPOCH, RING + 1, "too_old"), (EPOCH, -1, "ahead")]
    )
    def test_what_cannot_be_resumed_gets_a_snapshot_with_the_reason(self, epoch: str, behind: int, reason: str) -> None:
        """Another epoch, a seq that left the ring or one that was never sent."""
        source = Source()
        source.tick(RING + 5)

        subscription, told = source.topic.subscribe(epoch, source.world.tick - behind)

        assert told["resumed"] is False
        assert [(m["type"], m["reason"]) for m in pull_all(source.topic, subscription)] == [("snapshot", reason)]
        assert source.metric("resyncs", reason=reason) == 1

    def test_resuming_late_is_not_lagging(self) -> None:
        """Frames from before the resumption do not count against the subscriber, those after it do."""
        source = Source()
        source.tick(RING)
        subscription, _ = source.topic.subscribe(EPOCH, source.world.tick - LAG - 6)

        source.tick(LAG)
        kinds = {m["type"] for m in pull_all(source.topic, subscription)}

        assert kinds == {"delta"}

    def test_slow_subscriber_gets_a_snapshot_not_a_backlog(self) -> None:
        """One frame more than allowed: told how many it missed, then the whole state, then deltas again."""
        source = Source()
        source.tick()
        subscription, _ = source.topic.subscribe(None, None)
        source.topic.pull(subscription, SUBPROTOCOL_MSGPACK)

        source.tick(LAG + 1)
        lagged, snapshot = pull_all(source.topic, subscription)
        source.tick()
        (delta,) = pull_all(source.topic, subscription)

        assert lagged == {"type": "lagged", "channel": source.topic.name, "skipped": LAG + 1}
        assert (snapshot["type"], snapshot["reason"]) == ("snapshot", "lagged")
        assert delta["base"] == snapshot["seq"]
        assert source.metric("frames_skipped", channel=source.topic.name) == LAG + 1
        assert source.metric("resyncs", reason="lagged") == 1

    def test_subscriber_at_the_limit_keeps_its_deltas(self) -> None:
        """As many frames behind as allowed is not too many."""
        source = Source()
        source.tick()
        subscription, _ = source.topic.subscribe(None, None)
        source.topic.pull(subscription, SUBPROTOCOL_MSGPACK)

        source.tick(LAG)

        assert [m["type"] for m in pull_all(source.topic, subscription)] == ["delta"] * LAG

    def test_hands_out_a_few_frames_at_a_time(self) -> None:
        """A long catch-up leaves in pieces, so that it never fills a buffer at once."""
        source = Source()
        source.tick(RING)
        subscription, _ = source.topic.subscribe(EPOCH, source.world.tick - PULL_FRAMES_MAX - 1)

        sizes = [len(source.topic.pull(subscription, SUBPROTOCOL_MSGPACK)) for _ in range(3)]

        assert sizes == [PULL_FRAMES_MAX, 1, 0]

    def test_subscribers_share_frames(self) -> None:
        """Delta and snapshot of a tick are made once an encoding, however many get them."""
        source = Source()
        source.tick(3)
        pulled = []
        for seq in (None, source.world.tick - 1):
            for subprotocol in wire.SUBPROTOCOLS:
                for _ in range(2):
                    subscription, _ = source.topic.subscribe(None if seq is None else EPOCH, seq)
                    pulled += source.topic.pull(subscription, subprotocol)

        assert len(pulled) == 8
        assert len({id(message) for message in pulled}) == 4

    def test_json_twin_of_an_old_frame_is_the_same_frame(self) -> None:
        """What is made later from the ring equals what would have been made at once."""
        source = Source()
        source.tick(RING)
        one, _ = source.topic.subscribe(EPOCH, source.world.tick - 9)
        other, _ = source.topic.subscribe(EPOCH, source.world.tick - 9)

        by_name, packed = (
            pull_all(source.topic, one, SUBPROTOCOL_JSON),
            pull_all(source.topic, other, SUBPROTOCOL_MSGPACK),
        )
        assert by_name == [
            {**frame, "epoch": EPOCH, "diff": wire.changes(source.topic.state, frame["diff"])} for frame in packed
        ]

    @pytest.mark.parametrize("is_other", [False, True])
    def test_frame_made_ahead_is_the_same_and_made_anew_for_another_state(self, is_other: bool) -> None:
        """What is made before a tick is published saves time and changes nothing, also when another one comes."""
        source, twin = Source(), Source()
        source.tick()
        twin.tick()
        state = source.world.view().states[frames.MARKET_TICK]
        assert source.topic.seq is not None
        source.topic.prepare(source.topic.seq + 1, {**state, "price": [1] * MARKETS} if is_other else state)

        for topic in (source.topic, twin.topic):
            assert topic.seq is not None
            topic.publish(topic.seq + 1, state, 5)

        assert source.topic.since(None) == twin.topic.since(None)
        assert source.topic.state is state

    def test_jump_of_the_tick_starts_over(self) -> None:
        """After a gap in the ticks nobody gets a delta that leads from somewhere else."""
        source = Source()
        source.tick(3)
        subscription, _ = source.topic.subscribe(EPOCH, source.world.tick)

        source.world.tick += 5
        source.tick()

        assert [m["type"] for m in pull_all(source.topic, subscription)] == ["lagged", "snapshot"]


class TestEventTopic:
    def test_subscriber_gets_what_happens_after_it_came(self) -> None:
        """No history unasked: the acknowledgement says where the log stands."""
        topic, world = EventTopic("discovery_event", EPOCH), World()
        topic.publish(world.event("discovery_event"), 5)
        subscription, told = topic.subscribe(None, None)

        topic.publish(world.event("discovery_event"), 6)

        assert told == {"seq": 1, "resumed": False}
        assert [m["seq"] for m in pull_all(topic, subscription)] == [2]

    @pytest.mark.parametrize("subprotocol", wire.SUBPROTOCOLS)
    def test_resumes_from_anywhere_and_skips_nothing(self, subprotocol: str) -> None:
        """However long the log: every event after the given one, in order, each leading on from the one before."""
        topic, world = EventTopic("catastrophic_event", EPOCH), World()
        for _ in range(100):
            topic.publish(world.event("catastrophic_event"), 5)

        for seq in (0, 1, 57, 99, 100):
            subscription, told = topic.subscribe(EPOCH, seq)
            messages = pull_all(topic, subscription, subprotocol)
            assert told == {"seq": 100, "resumed": True}
            assert [(m["base"], m["seq"]) for m in messages] == [(n, n + 1) for n in range(seq, 100)]

    @pytest.mark.parametrize(("epoch", "seq", "reason"), [("other", 1, "epoch"), (EPOCH, 3, "ahead")])
    def test_what_cannot_be_resumed_is_said(self, epoch: str, seq: int, reason: str) -> None:
        """Another epoch's numbers or ones that never were: from now on, and the acknowledgement says why."""
        topic, world = EventTopic("discovery_event", EPOCH), World()
        topic.publish(world.event("discovery_event"), 5)
        topic.publish(world.event("discovery_event"), 5)

        subscription, told = topic.subscribe(epoch, seq)

        assert told == {"seq": 2, "resumed": False, "reason": reason}
        assert pull_all(topic, subscription) == []

    def test_log_that_begins_late_names_what_is_missing(self) -> None:
        """A server that does not have the first events says so instead of leaving a silent gap."""
        topic, world = EventTopic("discovery_event", EPOCH), World()
        topic.begin(7)
        world.events["discovery_event"] = 7
        topic.publish(world.event("discovery_event"), 5)

        subscription, told = topic.subscribe(EPOCH, 3)

        assert told == {"seq": 8, "resumed": True, "missed_from": 4, "missed_to": 7}
        assert [m["seq"] for m in pull_all(topic, subscription)] == [8]

    def test_a_long_log_is_cut_and_says_so(self) -> None:
        """What is kept has a bound; who resumes from before it learns what is missing and gets all the rest."""
        topic, world = EventTopic("discovery_event", EPOCH, events_max=16), World()
        slow, _ = topic.subscribe(EPOCH, 0)
        for _ in range(100):
            topic.publish(world.event("discovery_event"), 5)

        subscription, told = topic.subscribe(EPOCH, 3)
        kept = [m["seq"] for m in pull_all(topic, subscription)]

        assert told == {"seq": 100, "resumed": True, "missed_from": 4, "missed_to": kept[0] - 1}
        assert kept == list(range(kept[0], 101))
        assert 16 <= len(kept) <= 18
        assert pull_all(topic, slow)[0]["base"] == kept[0] - 1, "a gap shows in the base"

    def test_log_of_a_world_that_begins_warm_begins_with_its_count(self) -> None:
        """The first event a client sees follows on the number its acknowledgement named."""
        topic, world = EventTopic("discovery_event", EPOCH), World()
        topic.begin(15)
        world.events["discovery_event"] = 15
        subscription, told = topic.subscribe(None, None)

        topic.publish(world.event("discovery_event"), 5)

        assert told["seq"] == 15
        assert [(m["base"], m["seq"]) for m in pull_all(topic, subscription)] == [(15, 16)]

    def test_gap_in_the_numbers_is_a_breach(self) -> None:
        """An event that does not follow the last one is our mistake, not something to send."""
        topic, world = EventTopic("discovery_event", EPOCH), World()
        topic.publish(world.event("discovery_event"), 5)
        world.events["discovery_event"] += 1

        with pytest.raises(InvariantBroken, match="event 3 after 1"):
            topic.publish(world.event("discovery_event"), 5)
