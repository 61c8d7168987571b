"""Bundles: whatever is lost on the way, a hub that takes them ends where the engine's stands, or says so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.clock import ManualClock
from server.config import Settings
from server.live import relay
from server.live.hub import Hub
from server.metrics import Metrics
from tests.support.published import EPOCH, World

DISCOVERY = "discovery_event"


def hub_of(epoch: str = EPOCH, **settings: Any) -> Hub:
    """Return a hub that has nothing yet."""
    return Hub(epoch, Settings(**settings), Metrics(), ManualClock())


class Pair:
    """An engine's hub that has ticked a while, and one that follows it."""

    def __init__(self, ticks: int = 5, **settings: Any) -> None:
        self.world = World()
        self.engine = hub_of(**settings)
        self.follower = hub_of(**settings)
        self.tick(ticks)

    def tick(self, count: int = 1, *channels: str) -> None:
        """Publish ticks at the engine, with an event of each of the channels."""
        for _ in range(count):
            self.engine.publish(self.world.view(*channels))

    def bundle(self, since: relay.Positions | None = None) -> dict[str, Any]:
        """Return what the engine tells one who stands there, the follower's place unless given."""
        where = relay.positions(self.follower) if since is None else since
        return relay.read(relay.bundle(self.engine, where))

    def take(self, since: relay.Positions | None = None) -> bool:
        """Let the follower take such a bundle."""
        return relay.take(self.follower, self.bundle(since))

    def check(self) -> None:
        """See that both hubs are the same: states, rings, events, and what a client would be sent."""
        assert relay.positions(self.follower) == relay.positions(self.engine)
        assert self.follower.tick == self.engine.tick
        for name, topic in self.engine.states.items():
            other = self.follower.states[name]
            assert other.state == topic.state
            assert other.sent_ns == topic.sent_ns
            assert other.since(None) == topic.since(None)
        for name, log in self.engine.events.items():
            assert self.follower.events[name].since(0, 1_000) == log.since(0, 1_000)


def test_one_who_has_nothing_gets_everything() -> None:
    """State, ring and events: clients can resume there from wherever they could at the engine."""
    pair = Pair()
    pair.tick(2, DISCOVERY)

    assert pair.take()

    pair.check()


def test_ticks_are_followed_one_by_one() -> None:
    """What is published after a tick leads from the tick before to this one, and no further back."""
    pair = Pair()
    pair.take()
    for _ in range(12):
        before = relay.positions(pair.engine)
        pair.tick(1, DISCOVERY)

        told = pair.bundle(before)
        assert [len(part["frames"]) for part in told["states"].values()] == [1] * 4
        assert relay.take(pair.follower, told)

    pair.check()


def test_the_same_bundle_twice_changes_nothing() -> None:
    """Also an older one: what is known is passed over."""
    pair = Pair()
    first = pair.bundle()
    relay.take(pair.follower, first)
    before = relay.positions(pair.engine)
    pair.tick(1, DISCOVERY)
    second = pair.bundle(before)

    for told in (second, second, first, second):
        relay.take(pair.follower, told)

    pair.check()


def test_a_lost_bundle_is_noticed_and_mended() -> None:
    """The next one does not fit; asking from where one stands brings both in step."""
    pair = Pair()
    pair.take()
    pair.tick()
    before = relay.positions(pair.engine)
    pair.tick()

    with pytest.raises(relay.Gap, match="stands at 105, the frames begin after 106"):
        relay.take(pair.follower, pair.bundle(before))
    assert pair.take()

    pair.check()


def test_a_lost_first_event_is_noticed() -> None:
    """A log that is empty here is not taken for one that begins later."""
    pair = Pair()
    pair.take()
    pair.tick(1, DISCOVERY)
    before = relay.positions(pair.engine)
    pair.tick(1, DISCOVERY)
    told = pair.bundle(before | {name: 105 for name in pair.engine.states})

    with pytest.raises(relay.Gap, match="stands at 0, the events begin with 2"):
        relay.take(pair.follower, told)


def test_one_who_was_away_for_longer_than_the_ring_begins_anew() -> None:
    """The state comes whole, and nothing is taken for a delta that is none."""
    pair = Pair(resume_frames=4)
    pair.take()
    pair.tick(9)

    assert pair.take()

    pair.check()


def test_events_nobody_keeps_leave_a_hole_that_is_told() -> None:
    """Whoever resumes from before the log's begin hears which events are missing."""
    pair = Pair()
    pair.engine.begin_events({DISCOVERY: 7})
    pair.world.events[DISCOVERY] = 7
    pair.tick(1, DISCOVERY)

    assert pair.take()

    _, told = pair.follower.events[DISCOVERY].subscribe(EPOCH, 3)
    assert told == {"seq": 8, "resumed": True, "missed_from": 4, "missed_to": 7}


def test_a_long_log_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle says that it is not all, and the next one goes on."""
    monkeypatch.setattr(relay, "EVENTS_MAX", 3)
    pair = Pair()
    pair.tick(8, DISCOVERY)

    assert [pair.take() for _ in range(3)] == [False, False, True]

    pair.check()


def test_a_wrong_state_is_found_by_its_checksum() -> None:
    """A follower whose copy went wrong finds out, and a beginning from nothing mends it."""
    pair = Pair()
    pair.take()
    topic = pair.follower.states["market_tick"]
    volume = topic.state["volume"]
    assert isinstance(volume, list)
    topic.state = {**topic.state, "volume": [volume[0] + 1, *volume[1:]]}
    pair.tick(10)

    with pytest.raises(relay.Gap, match="checksum at 110"):
        pair.take()
    pair.follower.forget()
    pair.take()

    pair.check()


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x01", relay.pack({"version": 1}), relay.pack([1])])
def test_what_is_no_bundle_is_refused(data: bytes) -> None:
    """Another version too."""
    with pytest.raises(relay.Mismatch):
        relay.read(data)


def test_an_engine_with_other_channels_is_refused() -> None:
    """It is of another release: half a world is worse than none."""
    pair = Pair()
    told = pair.bundle()
    del told["states"]["scarcity_update"]

    with pytest.raises(relay.Mismatch, match="same release"):
        relay.take(pair.follower, told)


@given(st.lists(st.sampled_from(["tick", "event", "lost", "twice", "late", "ask"]), max_size=40))
def test_any_mixture_of_losses_ends_in_step(happenings: list[str]) -> None:
    """Bundles lost, doubled and late, in any order: gaps are always noticed, and asking always mends them."""
    pair = Pair(2, resume_frames=6)
    pair.take()
    late: list[dict[str, Any]] = []
    for happening in happenings:
        before = relay.positions(pair.engine)
        pair.tick(1, *([DISCOVERY] if happening == "event" else []))
        told = pair.bundle(before)
        bundles = {"lost": [], "twice": [told, told], "late": late, "ask": [pair.bundle()]}.get(happening, [told])
        for one in list(bundles):
            try:
                relay.take(pair.follower, one)
            except relay.Gap:
                relay.take(pair.follower, pair.bundle())
        late.append(told)

    pair.take()

    pair.check()
