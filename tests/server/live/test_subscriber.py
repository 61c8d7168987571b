"""One connection's rules, without a socket: ops, mistakes one by one, and what time demands."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import msgpack
import pytest
from arena_client import wire
from arena_client.wire import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK
from hypothesis import given
from hypothesis import strategies as st

from server import keys
from server.clock import ManualClock
from server.config import Settings
from server.live import subscriber as rules
from server.live.hub import Hub
from server.live.outlets import DirectOutlet
from server.live.subscriber import MISTAKES, OPS, Subscriber
from server.metrics import Metrics
from tests.support.published import EPOCH, World

CHANNELS = list(wire.STATE_CHANNELS + wire.EVENT_CHANNELS)
MOODS = "psychology_update"
KEY = "ak_known"


class Noting:
    """An outlet over some ASGI server that notes what is asked of it."""

    connection = None

    def __init__(self) -> None:
        self.notified = self.pings = self.aborted = 0

    def notify(self) -> None:
        self.notified += 1

    def ping(self) -> None:
        self.pings += 1

    def abort(self) -> None:
        self.aborted += 1


class Line:
    """A subscriber of a hub, spoken to without a socket."""

    def __init__(self, subprotocol: str = SUBPROTOCOL_MSGPACK, settings: Settings | None = None) -> None:
        self.clock = ManualClock()
        self.metrics = Metrics()
        self.hub = Hub(
            EPOCH,
            settings or Settings(),
            self.metrics,
            self.clock,
            lambda key_hash: ["a1", "a7"] if key_hash == keys.digest(KEY) else None,
        )
        self.world = World()
        self.hub.publish(self.world.view())
        self.subscriber: Subscriber = self.hub.open(subprotocol)
        self.subscriber.outlet = self.outlet = Noting()
        self.read()

    def tick(self, *channels: str) -> None:
        """Publish a tick."""
        self.hub.publish(self.world.view(*channels))

    @property
    def stuck(self) -> float:
        """How many clients were found not to read."""
        return self.metrics.registry.get_sample_value("arena_sockets_stuck_total") or 0.0

    def read(self) -> list[dict[str, Any]]:
        """Return everything that waits for the client."""
        messages: list[dict[str, Any]] = []
        while batch := self.subscriber.drain():
            messages += [wire.decode(message.payload, self.subscriber.subprotocol) for message in batch]
            self.subscriber.sent()
        return messages

    def say(self, data: bytes | str) -> dict[str, Any]:
        """Send raw data and return the one answer to it."""
        self.clock.advance(1.0)
        self.subscriber.receive(data)
        (answer,) = [m for m in self.read() if m["type"] in ("ack", "error")]
        return answer

    def ask(self, **message: Any) -> dict[str, Any]:
        """Send a control message and return the answer to it."""
        return self.say(wire.encode(message, self.subscriber.subprotocol))

    def check(self, seconds: float) -> None:
        """Let time pass in one piece and look at its rules."""
        self.clock.advance(seconds)
        self.subscriber.check(self.clock.monotonic(), 15.0)


def packed(**message: Any) -> bytes:
    """Return a message as msgpack, unchecked."""
    data: bytes = msgpack.packb(message)
    return data


def deep(levels: int) -> bytes:
    """Return a map whose field nests so many lists."""
    return b"\x83\xa2op\xa4ping\xa2id\x01\xa1x" + b"\x91" * levels + b"\x01"


@pytest.fixture
def line() -> Line:
    """Give a msgpack subscriber that has read its hello."""
    return Line()


class TestOps:
    def test_hello_says_all_that_is_needed_to_read_the_rest(self) -> None:
        """Version, epoch, where time counts from, names of the lists' entries, schema of every channel, limits."""
        line = Line()

        hello = line.hub.hello()

        assert (hello["version"], hello["epoch"], hello["tick"]) == (2, EPOCH, line.world.tick)
        assert [channel["name"] for channel in hello["channels"]] == CHANNELS
        assert (len(hello["markets"]), len(hello["resources"])) == (32, 7)
        assert hello["channels"][0]["fields"]["price"] == [1_000_000, 32, "credits"]
        assert hello["limits"]["client_frame_bytes"] == 4096

    @pytest.mark.parametrize("channel", wire.STATE_CHANNELS)
    def test_acknowledgement_comes_before_the_snapshot(self, line: Line, channel: str) -> None:
        """Subscribing answers with where the channel stands, then sends all of it."""
        line.subscriber.receive(packed(op="subscribe", id=5, channel=channel))
        ack, snapshot = line.read()

        assert ack == {
            "type": "ack",
            "op": "subscribe",
            "id": 5,
            "channel": channel,
            "epoch": EPOCH,
            "seq": line.world.tick,
            "resumed": False,
        }
        assert (snapshot["type"], snapshot["seq"], snapshot["reason"]) == ("snapshot", line.world.tick, "subscribed")

    def test_all_channels_of_a_tick_leave_together(self, line: Line) -> None:
        """One batch carries the frames of every channel of a tick."""
        for channel in CHANNELS:
            line.ask(op="subscribe", id=channel, channel=channel)

        line.tick("discovery_event", "catastrophic_event")
        batch = line.subscriber.drain()

        assert [message.channel for message in batch] == CHANNELS
        assert line.subscriber.drain() == []

    def test_nothing_follows_an_unsubscription(self, line: Line) -> None:
        """After its acknowledgement a channel is silent, and can be had again."""
        line.ask(op="subscribe", id=1, channel="market_tick")

        ack = line.ask(op="unsubscribe", id=2, channel="market_tick")
        line.tick()

        assert (ack["type"], ack["seq"]) == ("ack", line.world.tick - 1)
        assert line.read() == []
        assert line.ask(op="subscribe", id=3, channel="market_tick")["type"] == "ack"

    def test_resync_sends_the_whole_state(self, line: Line) -> None:
        """A client that lost its place gets a snapshot in place of a delta."""
        line.ask(op="subscribe", id=1, channel="market_tick")
        line.tick()

        line.subscriber.receive(packed(op="resync", id=2, channel="market_tick"))
        ack, snapshot = line.read()

        assert (ack["type"], ack["op"], ack["seq"]) == ("ack", "resync", line.world.tick)
        assert (snapshot["type"], snapshot["reason"]) == ("snapshot", "resync")

    def test_resume_continues_after_the_given_seq(self, line: Line) -> None:
        """A client that comes back gets exactly what it missed."""
        for _ in range(5):
            line.tick()

        line.subscriber.receive(
            packed(op="subscribe", id=1, channel="inflation_update", epoch=EPOCH, seq=line.world.tick - 3)
        )
        ack, *deltas = line.read()

        assert ack["resumed"] is True
        assert [d["seq"] for d in deltas] == [line.world.tick - 2, line.world.tick - 1, line.world.tick]

    def test_key_of_an_owner_names_its_agents(self, line: Line) -> None:
        """Authentication answers with the agents the connection speaks for."""
        assert line.ask(op="auth", id="k", api_key=KEY) == {
            "type": "ack",
            "op": "auth",
            "id": "k",
            "agents": ["a1", "a7"],
        }

    def test_ping_answers_with_tick_and_time(self, line: Line) -> None:
        """Anybody may ask how far the world is."""
        line.clock.advance(2.0)

        answer = line.ask(op="ping", id=9)

        assert answer == {"type": "ack", "op": "ping", "id": 9, "tick": line.world.tick, "sent_ns": 3_000_000_000}


BAD: list[tuple[str, bytes | str, int, Callable[[Any], bool]]] = [
    ("text frame", '{"op":"ping","id":1}', 157, lambda a: "binary frames" in a),
    ("empty", b"", 150, lambda a: "one map" in a),
    ("truncated", packed(op="ping", id=1)[:-1], 150, lambda a: "one map" in a),
    ("trailing", packed(op="ping", id=1) + b"\x01", 150, lambda a: "one map" in a),
    ("list", msgpack.packb([1]), 150, lambda a: "one map" in a),
    ("number", msgpack.packb(1), 150, lambda a: "one map" in a),
    ("nil", msgpack.packb(None), 150, lambda a: "one map" in a),
    ("extension type", packed(op="ping", id=msgpack.ExtType(1, b"x")), 150, lambda a: "one map" in a),
    ("timestamp", packed(op="ping", id=msgpack.Timestamp(1, 0)), 150, lambda a: "one map" in a),
    ("duplicate key", b"\x83\xa2op\xa4ping\xa2id\x01\xa2id\x02", 150, lambda a: "one map" in a),
    ("number as key", b"\x82\xa2op\xa4ping\x01\x02", 150, lambda a: "one map" in a),
    ("invalid UTF-8", b"\x82\xa2op\xa4ping\xa2id\xa1\xff", 150, lambda a: "one map" in a),
    ("NaN", packed(op="ping", id=float("nan")), 150, lambda a: "one map" in a),
    ("infinity", packed(op="ping", id=float("inf")), 150, lambda a: "one map" in a),
    ("2^53", packed(op="ping", id=2**53), 150, lambda a: "one map" in a),
    ("2^64 - 1", packed(op="ping", id=2**64 - 1), 150, lambda a: "one map" in a),
    ("bytes", packed(op="ping", id=b"x"), 150, lambda a: "one map" in a),
    ("nested 9 deep", deep(9), 150, lambda a: "one map" in a),
    ("nested 3000 deep", deep(3000), 150, lambda a: "one map" in a),
    ("too long", packed(op="ping", id=1, x="x" * 4096), 150, lambda a: "4096 bytes" in a),
    ("no op", packed(id=1), 151, lambda a: a == list(OPS)),
    ("unknown op", packed(op="dance", id=1), 151, lambda a: a == list(OPS)),
    ("op of another type", packed(op=["ping"], id=1), 151, lambda a: a == list(OPS)),
    ("unknown field", packed(op="ping", id=1, colour="red"), 152, lambda a: a == ["op", "id"]),
    ("field of another op", packed(op="ping", id=1, channel="market_tick"), 152, lambda a: a == ["op", "id"]),
    ("no id", packed(op="ping"), 153, lambda a: a == ["op", "id"]),
    ("no channel", packed(op="subscribe", id=1), 153, lambda a: "channel" in a),
    ("fraction as id", packed(op="ping", id=1.5), 153, lambda a: "whole number" in a),
    ("true as id", packed(op="ping", id=True), 153, lambda a: "whole number" in a),
    ("nil as id", packed(op="ping", id=None), 153, lambda a: "whole number" in a),
    ("long id", packed(op="ping", id="x" * 65), 153, lambda a: "64" in a),
    ("number as channel", packed(op="subscribe", id=1, channel=7), 153, lambda a: a == "a text"),
    ("nil as channel", packed(op="subscribe", id=1, channel=None), 153, lambda a: a == "a text"),
    ("unknown channel", packed(op="subscribe", id=1, channel="weather"), 154, lambda a: a == CHANNELS),
    ("epoch alone", packed(op="subscribe", id=1, channel="market_tick", epoch=EPOCH), 153, lambda a: "both" in a),
    ("seq alone", packed(op="subscribe", id=1, channel="market_tick", seq=1), 153, lambda a: "both" in a),
    (
        "negative seq",
        packed(op="subscribe", id=1, channel="market_tick", epoch=EPOCH, seq=-1),
        153,
        lambda a: "0 to" in a,
    ),
    (
        "true as seq",
        packed(op="subscribe", id=1, channel="market_tick", epoch=EPOCH, seq=True),
        153,
        lambda a: "0 to" in a,
    ),
    (
        "fraction as seq",
        packed(op="subscribe", id=1, channel="market_tick", epoch=EPOCH, seq=1.0),
        153,
        lambda a: "0 to" in a,
    ),
    ("number as epoch", packed(op="subscribe", id=1, channel="market_tick", epoch=1, seq=1), 153, lambda a: True),
    (
        "not subscribed",
        packed(op="unsubscribe", id=1, channel="market_tick"),
        156,
        lambda a: a == [MOODS],
    ),
    ("resync of nothing", packed(op="resync", id=1, channel="market_tick"), 156, lambda a: a == [MOODS]),
    ("subscribed twice", packed(op="subscribe", id=1, channel=MOODS), 155, lambda a: "unsubscribe" in a),
    (
        "markets of another channel",
        packed(op="subscribe", id=1, channel="scarcity_update", markets=["oil"]),
        153,
        lambda a: "market_tick" in a,
    ),
    (
        "unknown market",
        packed(op="subscribe", id=1, channel="market_tick", markets=["gold"]),
        153,
        lambda a: "oil" in a,
    ),
    ("every 0 ticks", packed(op="subscribe", id=1, channel="market_tick", every=0), 153, lambda a: "1 to 100" in a),
    ("depth of all", packed(op="subscribe", id=1, channel="market_tick", depth=5), 153, lambda a: "markets" in a),
    (
        "events every 5 ticks",
        packed(op="subscribe", id=1, channel="discovery_event", every=5),
        153,
        lambda a: a == "only with state channels",
    ),
    (
        "action without a world",
        packed(op="action", id=1, agent_id="a1", action={}),
        151,
        lambda a: a == "POST /api/agents/{id}/action",
    ),
    ("action of another type", packed(op="action", id=1, agent_id="a1", action=[]), 153, lambda a: "a map" in a),
    ("number as agent", packed(op="action", id=1, agent_id=1, action={}), 153, lambda a: a == "a text"),
    (
        "number as wish",
        packed(op="auth", id=1, api_key=KEY, cancel_on_disconnect=1),
        153,
        lambda a: a == "true or false",
    ),
    ("private channel without a world", packed(op="subscribe", id=1, channel="agent"), 154, lambda a: a == CHANNELS),
    ("unknown key", packed(op="auth", id=1, api_key="ak_other"), 158, lambda a: "register" in a),
    ("key of another type", packed(op="auth", id=1, api_key=12345), 153, lambda a: a == "a text"),
]


class TestMistakes:
    @pytest.mark.parametrize(("data", "code", "allowed"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
    def test_each_gets_its_error_and_hurts_nothing(
        self, line: Line, data: bytes | str, code: int, allowed: Callable[[Any], bool]
    ) -> None:
        """One error that says what is allowed; the connection and its other subscription go on."""
        line.ask(op="subscribe", id="good", channel=MOODS)

        error = line.say(data)

        assert (error["type"], error["code"]) == ("error", code)
        assert error["temporary"] is False
        assert error["title"]
        assert error["detail"]
        assert allowed(error["allowed"])
        line.tick()
        assert [m["channel"] for m in line.read()] == [MOODS]
        assert list(line.subscriber.subscriptions) == [MOODS]
        assert line.subscriber.close_code is None

    @pytest.mark.parametrize(
        "data",
        [
            b'{"op":"ping","id":1}',
            '{"op":"ping","id":1,"id":2}',
            '{"op":"ping","id":NaN}',
            '{"op":"ping","id":1e400}',
            '{"op":"ping","id":9007199254740992}',
            '{"op":"ping","id":' + "[" * 3000 + "]" * 3000 + "}",
            '{"op":"ping"',
            "[]",
            "",
            '{"op":"ping","id":"\\ud800"}',
        ],
    )
    def test_json_is_as_strict_as_msgpack(self, data: bytes | str) -> None:
        """The twin refuses the same things."""
        line = Line(SUBPROTOCOL_JSON)

        assert line.say(data)["code"] in (150, 157)
        assert line.ask(op="ping", id=2)["type"] == "ack"

    def test_too_many_forms_are_refused_for_now(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A form that others read, and the whole channel, can be had all the same; later there is room again."""
        monkeypatch.setattr("server.live.narrowing.FORMS_MAX", 1)
        line = Line()
        line.ask(op="subscribe", id=1, channel="psychology_update", every=2)

        error = line.ask(op="subscribe", id=2, channel="market_tick", markets=["oil"])

        assert (error["type"], error["code"], error["temporary"]) == ("error", 162, True)
        assert line.ask(op="subscribe", id=3, channel="market_tick")["type"] == "ack"

    def test_resync_of_events_says_how_to_go_on(self, line: Line) -> None:
        """Events have no snapshot: the error names the way."""
        line.ask(op="subscribe", id=1, channel="discovery_event")

        error = line.ask(op="resync", id=2, channel="discovery_event")

        assert (error["code"], error["allowed"]) == (159, "unsubscribe, then subscribe with epoch and the last seq")

    def test_error_carries_op_and_id_where_they_are_readable(self, line: Line) -> None:
        """A client can tell which of its requests failed."""
        error = line.ask(op="subscribe", id="mine", channel="weather")

        assert (error["op"], error["id"]) == ("subscribe", "mine")
        assert (line.ask(op=[1], id=[2])["op"], line.ask(op=[1], id=[2])["id"]) == (None, None)

    def test_no_key_appears_in_an_answer(self, line: Line) -> None:
        """Whatever is wrong with a key: the error does not repeat it."""
        for message in (
            {"op": "auth", "id": 1, "api_key": "ak_secret"},
            {"op": "auth", "id": 1, "api_key": ["ak_secret"]},
        ):
            assert "ak_secret" not in json.dumps(line.ask(**message))

    def test_a_key_that_as_many_have_shown_as_may_is_refused_for_now(self) -> None:
        """The connection goes on without it, and may show it again when another has ended."""
        line = Line(settings=Settings(sockets_per_key_max=1))
        other = line.hub.open(SUBPROTOCOL_MSGPACK)
        show = wire.encode({"op": "auth", "id": 1, "api_key": KEY}, SUBPROTOCOL_MSGPACK)
        other.receive(show)

        refused = line.say(show)
        line.hub.leave(other, 1000)

        assert (refused["code"], refused["temporary"]) == (163, True)
        assert line.say(show)["type"] == "ack"

    def test_every_kind_of_mistake_is_tried_here(self) -> None:
        """A mistake without a test fails this one."""
        assert {code for _, _, code, _ in BAD} | {159, 160, 161, 162, 163} == {mistake.code for mistake in MISTAKES}

    @given(st.lists(st.one_of(st.binary(max_size=300), st.text(max_size=100)), max_size=9))
    def test_any_bytes_are_survived(self, data: list[bytes | str]) -> None:
        """Noise gets one answer each and nothing else."""
        line = Line()

        for piece in data:
            assert line.say(piece)["type"] == "error"

    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(["op", "id", "channel", "epoch", "seq", "api_key", "x"]),
                st.one_of(
                    st.sampled_from([*OPS, *CHANNELS, EPOCH, KEY]),
                    st.integers(-(2**53) + 1, 2**53 - 1),
                    st.none(),
                    st.booleans(),
                    st.lists(st.integers(0, 9), max_size=2),
                ),
            ),
            max_size=30,
        )
    )
    def test_any_messages_are_answered_one_by_one(self, messages: list[dict[str, Any]]) -> None:
        """Whatever they say: each gets one answer, and the line still works afterwards."""
        line = Line(SUBPROTOCOL_JSON)

        for message in messages:
            line.ask(**message)

        assert line.ask(op="ping", id=1)["type"] == "ack"


class TestRate:
    def test_flood_is_closed(self, line: Line) -> None:
        """More control messages than burst and rate allow end the connection with its code."""
        for i in range(rules.CONTROL_BURST + 1):
            line.subscriber.receive(packed(op="ping", id=i))

        assert line.subscriber.close_code == 4003
        assert len(line.read()) == rules.CONTROL_BURST

    def test_rate_can_be_used_for_ever(self, line: Line) -> None:
        """Ten a second are allowed, however long."""
        for i in range(500):
            line.clock.advance(0.1)
            line.subscriber.receive(packed(op="ping", id=i))
            line.read()

        assert line.subscriber.close_code is None

    def test_another_protocol_is_closed(self, line: Line) -> None:
        """Ten messages in a row that are none end the connection; one that is starts the count again."""
        for _ in range(rules.UNDECODABLE_MAX - 1):
            line.say(b"\xc1")
        line.ask(op="ping", id=1)
        for _ in range(rules.UNDECODABLE_MAX):
            line.say(b"\xc1")

        assert line.subscriber.close_code == 4000

    def test_unread_answers_are_bounded(self) -> None:
        """A client that asks and never reads is closed as too slow."""
        line = Line(settings=Settings(outbox_frames_max=5))

        for i in range(6):
            line.subscriber.receive(packed(op="ping", id=i))

        assert line.subscriber.close_code == 4001


class TestTime:
    def test_silent_client_is_closed_after_five_seconds(self, line: Line) -> None:
        """Who neither subscribes nor authenticates has no business here."""
        line.check(5.0)
        assert line.subscriber.close_code is None
        line.check(0.1)
        assert line.subscriber.close_code == 4002

    @pytest.mark.parametrize(
        "message",
        [{"op": "subscribe", "id": 1, "channel": "discovery_event"}, {"op": "auth", "id": 1, "api_key": KEY}],
    )
    def test_subscriber_and_owner_may_stay(self, line: Line, message: dict[str, Any]) -> None:
        """One subscription or authentication is enough, even if it ends."""
        line.ask(**message)

        line.check(6.0)

        assert line.subscriber.close_code is None

    def test_ping_and_mistakes_do_not_count_as_a_subscription(self, line: Line) -> None:
        """Only what was granted keeps the connection."""
        line.ask(op="ping", id=1)
        line.ask(op="subscribe", id=1, channel="weather")

        line.check(4.0)

        assert line.subscriber.close_code == 4002

    def test_heartbeat_after_silence_only(self, line: Line) -> None:
        """15 s without data bring one heartbeat; data puts it off."""
        line.ask(op="subscribe", id=1, channel="discovery_event")
        line.check(14.0)
        assert line.read() == []
        line.tick("discovery_event")
        line.read()
        line.check(14.0)
        assert line.read() == []

        line.check(1.0)

        (heartbeat,) = line.read()
        assert (heartbeat["type"], heartbeat["tick"]) == ("heartbeat", line.world.tick)
        line.check(1.0)
        assert line.read() == []

    def test_write_that_does_not_end_is_noticed_and_cut(self, line: Line) -> None:
        """Where the web server pings: taking nothing for 23 s is noticed, for 33 s it is the end, with its code."""
        line.ask(op="subscribe", id=1, channel="market_tick")
        line.subscriber.blocked()

        line.check(15.0)
        line.check(7.9)
        assert line.stuck == 0
        line.check(0.1)
        assert (line.stuck, line.subscriber.close_code) == (1, None)
        line.check(9.9)
        assert (line.subscriber.close_code, line.outlet.aborted) == (None, 0)
        line.check(0.1)

        assert (line.stuck, line.subscriber.close_code, line.outlet.aborted) == (1, 4001, 1)
        assert line.outlet.pings == 0

    def test_pongs_nobody_asked_for_are_no_sign_of_reading(self, line: Line) -> None:
        """While data waits no ping is sent: a client that only says pong is cut like one that says nothing."""
        line.ask(op="subscribe", id=1, channel="market_tick")
        line.subscriber.connection = cast(Any, line.outlet)
        outlet = DirectOutlet(line.hub, line.subscriber, cast(Any, line.outlet))
        line.subscriber.blocked()

        for _ in range(15 + 33):
            line.check(1.0)
            outlet.alive()

        assert line.subscriber.close_code == 4001
        assert line.outlet.aborted

    def test_reader_that_wakes_up_is_not_cut(self, line: Line) -> None:
        """A sign of reading, however late, starts the time again; nothing is told while it is stuck."""
        line.ask(op="subscribe", id=1, channel="market_tick")
        line.subscriber.blocked()
        line.check(15.0)
        line.check(17.9)
        assert line.read() == []

        line.subscriber.drained()
        line.subscriber.sent()
        for _ in range(100):
            line.check(1.0)
            line.read()

        assert (line.stuck, line.subscriber.close_code, line.outlet.aborted) == (1, None, 0)

    def test_those_who_came_together_are_not_asked_together(self, line: Line) -> None:
        """Each is asked within 15 s of its coming and every 15 s from then on, in any second about as many."""
        crowd, asked = [line.hub.open(SUBPROTOCOL_MSGPACK) for _ in range(200)], []
        for subscriber in crowd:
            subscriber.outlet = line.outlet
            subscriber.connection = cast(Any, line.outlet)
            subscriber.receive(packed(op="subscribe", id=1, channel=MOODS))

        for _ in range(30):
            before = line.outlet.pings
            line.clock.advance(1.0)
            for subscriber in crowd:
                subscriber.check(line.clock.monotonic(), 100.0)
                subscriber.alive()
            asked.append(line.outlet.pings - before)

        assert (sum(asked[:15]), sum(asked[15:])) == (200, 200)
        assert 12 <= min(asked) <= max(asked) <= 15

    def test_close_that_does_not_end_is_cut(self, line: Line) -> None:
        """A client that does not take its close frame is dropped after 10 s; the first code stays."""
        line.subscriber.close(1012, "restart")
        line.subscriber.close(4001, "later")

        line.check(10.0)
        assert line.outlet.aborted == 0
        line.check(0.1)

        assert (line.subscriber.close_code, line.outlet.aborted) == (1012, 1)

    def test_closing_connection_gets_its_answers_but_no_data(self, line: Line) -> None:
        """What was answered before the close is still sent, frames are not."""
        line.ask(op="subscribe", id=1, channel="market_tick")
        line.subscriber.receive(packed(op="ping", id=2))
        line.tick()

        line.subscriber.close(1012, "restart")
        line.subscriber.receive(packed(op="ping", id=3))

        assert [m["id"] for m in line.read()] == [2]
