"""The resume rules: what is sent after connecting, and what each message of the server means."""

from __future__ import annotations

from typing import Any

import pytest
from arena_client import wire
from arena_client.errors import StreamError, WireError
from arena_client.subscription import (
    RESYNC_PATIENCE_FRAMES,
    EventReceived,
    Lagged,
    OutOfStep,
    Refused,
    Session,
    SessionBroken,
    ShuttingDown,
    StateChanged,
    Subscribed,
)

EPOCH, OTHER = "epoch-one", "epoch-two"
MARKET, FINDS = "market_tick", "discovery_event"
STATES: dict[int, wire.State] = {seq: {"price": [seq, 2 * seq], "level": seq} for seq in range(200)}


def hello(epoch: str = EPOCH, **changes: Any) -> dict[str, Any]:
    channels = [
        {"name": MARKET, "kind": "state", "fields": {"price": [1000, 2, "credits"], "level": [1, 0, "level"]}},
        {"name": FINDS, "kind": "event", "fields": {"name": [0, 0, "text"], "size": [1000, 0, "share"]}},
    ]
    message = {"type": "hello", "version": 2, "epoch": epoch, "tick": 7, "tick_rate_ms": 100, "heartbeat_s": 15.0}
    return {**message, "markets": ["labour", "oil"], "resources": ["oil"], "channels": channels, **changes}


def ack(request: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"type": "ack", "op": request["op"], "id": request["id"], "epoch": EPOCH, "seq": 7, **fields}


def error(request: dict[str, Any], **fields: Any) -> dict[str, Any]:
    said = {"code": 154, "title": "unknown channel", "detail": "no", "allowed": [MARKET], "temporary": False}
    return {"type": "error", "op": request["op"], "id": request["id"], **said, **fields}


def snapshot(seq: int, epoch: str = EPOCH, reason: str = "subscribed") -> dict[str, Any]:
    heading = {"type": "snapshot", "channel": MARKET, "epoch": epoch, "seq": seq, "base": None, "tick": seq}
    return {**heading, "sent_ns": seq, "reason": reason, "state": STATES[seq], "crc": wire.checksum(STATES[seq])}


def delta(seq: int, base: int | None = None, epoch: str = EPOCH) -> dict[str, Any]:
    base = seq - 1 if base is None else base
    heading = {"type": "delta", "channel": MARKET, "epoch": epoch, "seq": seq, "base": base, "tick": seq}
    return {**heading, "sent_ns": seq, **wire.diff(STATES[base], STATES[seq])}


def find(seq: int, base: int | None = None, epoch: str = EPOCH) -> dict[str, Any]:
    heading = {"type": "event", "channel": FINDS, "epoch": epoch, "seq": seq, "base": seq - 1 if base is None else base}
    return {**heading, "tick": seq, "sent_ns": seq, "event": {"name": "resource_discovered", "size": 250}}


def live_market(seq: int = 7) -> Session:
    """Return a session whose market subscription is live and stands at seq."""
    session = Session()
    session.subscribe(MARKET)
    session.receive(hello())
    [request] = session.take_outgoing()
    session.receive(ack(request))
    session.receive(snapshot(seq))
    return session


def live_finds(since: int | None = None, seq: int = 3) -> Session:
    session = Session()
    session.subscribe(FINDS, since)
    session.receive(hello())
    [request] = session.take_outgoing()
    session.receive(ack(request, seq=seq, resumed=since is not None))
    return session


def test_nothing_is_sent_before_the_server_has_greeted() -> None:
    """The subscribe message waits for hello."""
    session = Session()
    session.subscribe(MARKET)
    before = session.take_outgoing()

    session.receive(hello())

    assert before == []
    assert session.take_outgoing() == [{"op": "subscribe", "id": 1, "channel": MARKET}]


def test_a_subscription_on_a_live_connection_goes_out_at_once() -> None:
    """No second hello is needed."""
    session = live_market()

    session.subscribe(FINDS)

    assert session.take_outgoing() == [{"op": "subscribe", "id": 2, "channel": FINDS}]


def test_subscribing_leads_to_a_mirror_in_step() -> None:
    """Acknowledgement, snapshot, deltas; values come in the units that hello described."""
    session = Session()
    session.subscribe(MARKET)
    session.receive(hello())
    [request] = session.take_outgoing()

    reports = [*session.receive(ack(request)), *session.receive(snapshot(7)), *session.receive(delta(8))]

    mirror = session.subscriptions[MARKET].mirror
    assert mirror is not None
    assert reports == [
        Subscribed(MARKET),
        StateChanged(MARKET, mirror, EPOCH, 7, 7, 7, True, "subscribed"),
        StateChanged(MARKET, mirror, EPOCH, 8, 8, 8, False),
    ]
    assert mirror.values() == {"price": [0.008, 0.016], "level": 8}
    assert session.take_outgoing() == []


def test_a_reconnect_resumes_where_the_copy_stands() -> None:
    """The position goes into subscribe, and the next delta is taken as if nothing had happened."""
    session = live_market()
    session.lost()

    session.receive(hello())
    [request] = session.take_outgoing()
    session.receive(ack(request, resumed=True))
    [report] = session.receive(delta(8))

    assert request == {"op": "subscribe", "id": 2, "channel": MARKET, "epoch": EPOCH, "seq": 7}
    assert isinstance(report, StateChanged)
    assert session.resyncs == 0


def test_a_stale_copy_does_not_resume() -> None:
    """What may be wrong is no place to go on from: the next connection asks for a snapshot."""
    session = live_market()
    session.receive(delta(9))
    session.lost()

    session.receive(hello())

    assert session.take_outgoing() == [{"op": "subscribe", "id": 3, "channel": MARKET}]


def test_a_gap_leads_to_a_resync_and_the_old_state_stays() -> None:
    """One resync is asked, deltas in between are passed over, the snapshot puts it right."""
    session = live_market()
    mirror = session.subscriptions[MARKET].mirror
    assert mirror is not None

    [report] = session.receive(delta(9))
    outgoing = session.take_outgoing()
    between = session.receive(delta(10)) + session.receive(delta(11))
    readable = dict(mirror.state)
    [repaired] = session.receive(snapshot(11, reason="resync"))

    assert report == OutOfStep(MARKET, "a gap: stands at 7, the delta starts at 8")
    assert outgoing == [{"op": "resync", "id": 2, "channel": MARKET}]
    assert (between, readable) == ([], STATES[7])
    assert isinstance(repaired, StateChanged)
    assert (repaired.is_snapshot, repaired.reason, mirror.seq, session.resyncs) == (True, "resync", 11, 1)


def test_a_refused_resync_needs_a_new_connection() -> None:
    """There is nothing else to try on this one."""
    session = live_market()
    session.receive(delta(9))
    [request] = session.take_outgoing()

    with pytest.raises(SessionBroken):
        session.receive(error(request))


def test_a_resync_is_not_waited_for_without_end() -> None:
    """A server that keeps sending deltas and no snapshot is left."""
    session = live_market()
    session.receive(delta(9))

    for seq in range(10, 9 + RESYNC_PATIENCE_FRAMES):
        assert session.receive(delta(seq)) == []
    with pytest.raises(SessionBroken, match="no good snapshot of market_tick"):
        session.receive(delta(9 + RESYNC_PATIENCE_FRAMES))


def test_a_refused_subscription_hurts_no_other() -> None:
    """It is gone with the server's reasons; the other one goes on."""
    session = live_market()
    session.subscribe("weather")
    [request] = session.take_outgoing()

    [report] = session.receive(error(request))

    assert isinstance(report, Refused)
    assert (report.channel, report.error.code, report.error.allowed) == ("weather", 154, [MARKET])
    assert list(session.subscriptions) == [MARKET]
    assert len(session.receive(delta(8))) == 1


def test_a_passing_refusal_after_a_reconnect_is_tried_again() -> None:
    """What had been live and is refused in passing is not given up."""
    session = live_market()
    session.lost()
    session.receive(hello())
    [request] = session.take_outgoing()

    with pytest.raises(SessionBroken):
        session.receive(error(request, temporary=True))

    assert list(session.subscriptions) == [MARKET]


def test_data_of_an_earlier_subscription_is_dropped() -> None:
    """Between subscribe and its acknowledgement data can only be left over."""
    session = live_market()
    session.unsubscribe(MARKET)
    session.subscribe(MARKET)

    assert session.receive(delta(8)) == []
    assert [message["op"] for message in session.take_outgoing()] == ["unsubscribe", "subscribe"]


def test_data_of_no_subscription_is_dropped() -> None:
    """Frames that were under way when unsubscribing hurt nobody."""
    session = live_market()
    session.unsubscribe(MARKET)

    assert session.receive(delta(8)) + session.receive(find(4)) == []


def test_subscribing_twice_is_the_callers_mistake() -> None:
    """So is `since` on a state channel, and unsubscribing what is not there."""
    session = live_market()

    with pytest.raises(ValueError, match="subscribed already"):
        session.subscribe(MARKET)
    with pytest.raises(ValueError, match="`since` is for event channels"):
        session.subscribe("scarcity_update", since=0)
    with pytest.raises(KeyError):
        session.unsubscribe(FINDS)


def test_events_come_in_order_from_the_acknowledged_number_on() -> None:
    """Numbers start after the ack's; values come in the units that hello described."""
    session = live_finds(seq=3)

    [report] = session.receive(find(4))

    assert report == EventReceived(
        FINDS,
        EPOCH,
        4,
        4,
        4,
        {"name": "resource_discovered", "size": 250},
        {"name": "resource_discovered", "size": 0.25},
    )


def test_all_events_are_asked_for_with_since() -> None:
    """since = 0 asks for the whole log of the server's epoch, and the first event is number 1."""
    session = Session()
    session.subscribe(FINDS, since=0)
    session.receive(hello())
    [request] = session.take_outgoing()
    session.receive(ack(request, seq=2, resumed=True))

    reports = session.receive(find(1)) + session.receive(find(2))

    assert request == {"op": "subscribe", "id": 1, "channel": FINDS, "epoch": EPOCH, "seq": 0}
    assert [report.seq for report in reports if isinstance(report, EventReceived)] == [1, 2]


def test_events_resume_after_a_reconnect() -> None:
    """Nothing is lost and nothing comes twice."""
    session = live_finds(seq=3)
    session.receive(find(4))
    session.lost()

    session.receive(hello())
    [request] = session.take_outgoing()
    session.receive(ack(request, seq=6, resumed=True))
    reports = session.receive(find(4)) + session.receive(find(5)) + session.receive(find(6))

    assert (request["epoch"], request["seq"]) == (EPOCH, 4)
    assert [report.seq for report in reports if isinstance(report, EventReceived)] == [5, 6]


def test_a_gap_between_events_is_asked_for_again() -> None:
    """The subscription is renewed from the last known event; what comes before its ack is dropped."""
    session = live_finds(seq=3)

    [report] = session.receive(find(5))
    unsubscribe, subscribe = session.take_outgoing()
    dropped = session.receive(find(6))
    session.receive(ack(unsubscribe))
    session.receive(ack(subscribe, seq=6, resumed=True))
    reports = session.receive(find(4)) + session.receive(find(5)) + session.receive(find(6))

    assert report == OutOfStep(FINDS, "a gap: stands at 3, the event is 5 after 4")
    assert (unsubscribe["op"], subscribe["op"], subscribe["seq"], dropped) == ("unsubscribe", "subscribe", 3, [])
    assert [report.seq for report in reports if isinstance(report, EventReceived)] == [4, 5, 6]


def test_a_new_epoch_starts_the_events_anew() -> None:
    """It is said, and the new numbering is followed from its first event."""
    session = live_finds(seq=3)
    session.lost()

    reports = session.receive(hello(OTHER))
    [request] = session.take_outgoing()
    session.receive(ack(request, epoch=OTHER, seq=1, resumed=True))
    received = session.receive(find(1, epoch=OTHER))

    assert reports == [OutOfStep(FINDS, "the epoch changed from epoch-one to epoch-two")]
    assert (request["epoch"], request["seq"]) == (OTHER, 0)
    assert [report.seq for report in received if isinstance(report, EventReceived)] == [1]


def test_a_delta_of_a_new_epoch_is_not_taken_for_one_of_the_old() -> None:
    """In msgpack it does not say of which it is: after an ack of another epoch only a snapshot is taken."""
    session = Session()
    mirror = session.subscribe(MARKET).mirror
    assert mirror is not None
    for epoch in (EPOCH, OTHER):
        session.lost()
        session.receive(hello(epoch))
        [request] = session.take_outgoing()
        session.receive(ack(request, epoch=epoch, resumed=False))
        if epoch == EPOCH:
            session.receive(snapshot(7))

    unnamed = {name: value for name, value in delta(8).items() if name != "epoch"}
    reports = session.receive(unnamed)

    assert reports == [OutOfStep(MARKET, "the epoch changed from epoch-one to epoch-two")]
    assert [request["op"] for request in session.take_outgoing()] == ["resync"]
    session.receive(snapshot(7, epoch=OTHER, reason="resync"))
    session.receive(unnamed)
    assert (mirror.epoch, mirror.seq, mirror.state) == (OTHER, 8, STATES[8])


def test_a_resume_that_the_server_cannot_do_is_said() -> None:
    """A server that has fewer events than the client knows goes on from its own last one."""
    session = Session()
    session.subscribe(FINDS, since=9)
    session.receive(hello())
    [request] = session.take_outgoing()

    reports = session.receive(ack(request, seq=3, resumed=False, reason="ahead"))
    received = session.receive(find(4))

    assert reports == [Subscribed(FINDS), OutOfStep(FINDS, "could not go on after ('epoch-one', 9): ahead")]
    assert len(received) == 1


def test_events_that_the_log_no_longer_has_are_said_once() -> None:
    """The hole is reported and what is behind it is taken, from its first event on."""
    session = Session()
    session.subscribe(FINDS, since=0)
    session.receive(hello())
    [request] = session.take_outgoing()

    [_, report] = session.receive(ack(request, seq=9, resumed=True, missed_from=1, missed_to=7))
    received = session.receive(find(8)) + session.receive(find(9))

    assert report == OutOfStep(FINDS, "1 to 7 are kept no longer")
    assert [event.seq for event in received if isinstance(event, EventReceived)] == [8, 9]
    assert session.take_outgoing() == []


def test_the_first_event_behind_a_hole_is_missed_like_any_other() -> None:
    """Where the log begins is told: another event than its first is a gap."""
    session = Session()
    session.subscribe(FINDS, since=0)
    session.receive(hello())
    [request] = session.take_outgoing()
    session.receive(ack(request, seq=9, resumed=True, missed_from=1, missed_to=7))

    [report] = session.receive(find(9))

    assert report == OutOfStep(FINDS, "a gap: stands at 7, the event is 9 after 8")
    assert session.take_outgoing() != []


def test_lagging_and_shutting_down_are_passed_on() -> None:
    """The owner of the connection decides what to do."""
    session = live_market()

    reports = session.receive({"type": "lagged", "channel": MARKET, "skipped": 65})
    reports += session.receive({"type": "shutdown", "retry_after_ms": 1250})

    assert reports == [Lagged(MARKET, 65), ShuttingDown(1.25)]


def test_heartbeats_and_unknown_messages_are_passed_over() -> None:
    """A newer server may say more than this client knows."""
    session = live_market()

    assert session.receive({"type": "heartbeat", "tick": 8, "sent_ns": 1}) == []
    assert session.receive({"type": "weather", "since_ms": 5}) == []
    assert session.receive({"type": "ack", "op": "ping", "id": 99}) == []
    assert session.receive({"type": "error", "op": None, "id": None, "code": 501}) == []


def test_the_key_goes_first_on_every_connection() -> None:
    """And a refused key ends the stream: no other connection would do better."""
    session = Session(api_key="ak_secret")
    session.subscribe(MARKET)

    session.receive(hello())
    first = session.take_outgoing()
    session.lost()
    session.receive(hello())
    second = session.take_outgoing()

    assert [message["op"] for message in first] == [message["op"] for message in second] == ["auth", "subscribe"]
    with pytest.raises(StreamError, match="api key was refused: no"):
        session.receive(error(second[0]))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({}, "needs its type"),
        ({"type": 5}, "needs its type"),
        ({"type": "heartbeat"}, "the first message must be hello"),
        (hello(epoch=None), "hello needs epoch"),  # type: ignore[arg-type]  # the mistake is the test
        (hello(tick="7"), "hello needs tick"),
        (hello(heartbeat_s=None), "hello needs heartbeat_s"),
        (hello(channels={}), "hello needs channels"),
        (hello(channels=[{"name": MARKET}]), "a channel needs fields"),
    ],
)
def test_a_broken_greeting_is_a_wire_error(message: dict[str, Any], why: str) -> None:
    """Nothing else can be read without it."""
    session = Session()
    session.subscribe(MARKET)

    with pytest.raises(WireError, match=why):
        session.receive(message)


def test_another_version_is_given_up_on() -> None:
    """A client cannot speak what it does not know."""
    with pytest.raises(StreamError, match="speaks version 3, this client 2"):
        Session().receive(hello(version=3))


@pytest.mark.parametrize("frame", [find(4) | {"seq": "4"}, find(4) | {"event": None}, find(4) | {"tick": None}])
def test_a_broken_event_is_a_wire_error(frame: dict[str, Any]) -> None:
    """Unlike a state, an event cannot be repaired by a snapshot; a new connection resumes."""
    with pytest.raises(WireError, match="an event frame needs"):
        live_finds().receive(frame)


def test_an_event_ack_without_a_number_is_a_wire_error() -> None:
    """Without it nobody knows where the events begin."""
    session = Session()
    session.subscribe(FINDS)
    session.receive(hello())
    [request] = session.take_outgoing()

    with pytest.raises(WireError, match="needs epoch and seq"):
        session.receive(ack(request, seq=None))
