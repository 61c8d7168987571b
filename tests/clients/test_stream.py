"""The stream against a real WebSocket server that drops, restarts, lies and refuses by script."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from arena_client.backoff import Backoff, retry_after_s
from arena_client.errors import ConnectionGaveUp, HandshakeRefused, StreamError, SubscriptionRefused
from arena_client.stream import ArenaStream, EventReceived, Lagged, ShuttingDown, StateChanged, socket_url
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from tests.support.deadlines import seconds
from tests.support.scripted_peer import FINDS, MARKET, Talk, run_peer, state_at

FAST = Backoff(base_s=0.001, cap_s=0.01)


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[ArenaStream]:
    """A stream that reconnects fast, under the test's deadline."""
    async with asyncio.timeout(seconds(20)), ArenaStream(url, backoff=FAST, **options) as stream:
        yield stream


async def changes(stream: ArenaStream, until_seq: int) -> list[StateChanged]:
    """Collect the state changes up to a seq."""
    found = []
    async for update in stream:
        if isinstance(update, StateChanged):
            found.append(update)
            if update.seq >= until_seq:
                break
    return found


@pytest.mark.parametrize("subprotocol", ["arena.v2.msgpack", "arena.v2.json"])
async def test_subscribing_gives_a_mirror_that_follows(subprotocol: str) -> None:
    """The mirror holds its first state when subscribe returns, and the server's values after every frame."""

    async def script(talk: Talk) -> None:
        await talk.accept()
        for seq in (7, 8, 9, 10):
            await (talk.snapshot(seq) if seq == 7 else talk.delta(seq))
        await talk.until_closed()

    async with run_peer(script) as peer, connected(peer.url, subprotocol=subprotocol) as stream:
        mirror = await stream.subscribe(MARKET)
        first = dict(mirror.state)
        await changes(stream, 10)

        assert first in [state_at(seq) for seq in (7, 8, 9, 10)]
        assert (mirror.state, mirror.verified_seq) == (state_at(10), 10)
        assert mirror.series("price") == [price / 1000 for price in state_at(10)["price"]]
        assert stream.markets == ["labour", "oil", "lithium", "food"]


async def test_a_lost_connection_is_resumed_where_it_broke() -> None:
    """The second subscribe names epoch and seq, and no snapshot is needed."""

    async def dies(talk: Talk) -> None:
        await talk.accept()
        await talk.snapshot(7)
        await talk.delta(8)
        await talk.until_closed()

    async def resumes(talk: Talk) -> None:
        request = await talk.accept()
        assert (request["epoch"], request["seq"]) == ("0123456789abcdef", 8)
        await talk.delta(9)
        await talk.delta(10)
        await talk.until_closed()

    async with run_peer(dies, resumes) as peer, connected(peer.url) as stream:
        mirror = await stream.subscribe(MARKET)
        await changes(stream, 8)
        peer.talks[0].drop()
        later = await changes(stream, 10)

        assert not any(change.is_snapshot for change in later)
        assert mirror.state == state_at(10)
        assert (stream.reconnects, stream.resyncs) == (1, 0)


async def test_a_restart_is_waited_for_as_long_as_the_server_asked() -> None:
    """shutdown and 1012: nobody comes back before retry_after_ms."""
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def restarts(talk: Talk) -> None:
        await talk.accept()
        await talk.snapshot(7)
        await talk.send(type="shutdown", retry_after_ms=150)
        times.append(loop.time())
        await talk.socket.close(1012, "the server restarts")

    async def is_back(talk: Talk) -> None:
        times.append(loop.time())
        await talk.accept()
        await talk.delta(8)
        await talk.until_closed()

    async with run_peer(restarts, is_back) as peer, connected(peer.url) as stream:
        await stream.subscribe(MARKET)
        seen = []
        async for update in stream:
            seen.append(update)
            if isinstance(update, StateChanged) and update.seq == 8:
                break

        assert ShuttingDown(0.15) in seen
        assert times[1] - times[0] >= 0.15


@pytest.mark.parametrize(
    "damage",
    [{"base": 8, "seq": 9}, {"crc": 1}, {"epoch": "another"}, {"diff": {"weather": 1}}, {"diff": {"level": 2**53}}],
    ids=["gap", "checksum", "epoch", "unknown field", "integer too large"],
)
async def test_what_does_not_fit_is_put_right(damage: dict[str, Any]) -> None:
    """By a resync, or by a new connection when the frame is no message at all; the copy ends equal."""

    async def script(talk: Talk) -> None:
        request = await talk.accept()
        if "seq" in request:
            await talk.delta(8)
        else:
            await talk.snapshot(7)
            await talk.delta(8, **damage)
            await talk.receive("resync")
            await talk.snapshot(8, reason="resync")
        await talk.delta(9)
        await talk.delta(10)
        await talk.until_closed()

    async with run_peer(script) as peer, connected(peer.url) as stream:
        mirror = await stream.subscribe(MARKET)
        await changes(stream, 10)

        assert mirror.state == state_at(10)
        assert stream.resyncs + stream.reconnects == 1


async def test_bytes_that_are_no_message_end_the_connection_with_its_code() -> None:
    """The server learns why, and the next connection resumes."""
    codes: list[int] = []

    async def babbles(talk: Talk) -> None:
        await talk.accept()
        await talk.snapshot(7)
        await talk.socket.send(b"\xc1")
        codes.append((await talk.until_closed())[0])

    async def speaks(talk: Talk) -> None:
        await talk.accept()
        await talk.delta(8)
        await talk.until_closed()

    async with run_peer(babbles, speaks) as peer, connected(peer.url) as stream:
        await stream.subscribe(MARKET)
        await changes(stream, 8)

        assert codes == [4000]


async def test_a_silent_server_counts_as_dead() -> None:
    """Without anything for two and a half heartbeats the client goes elsewhere."""

    async def falls_silent(talk: Talk) -> None:
        await talk.hello(heartbeat_s=0.02)
        await talk.ack(await talk.receive("subscribe"))
        await talk.snapshot(7)
        await talk.until_closed()

    async def speaks(talk: Talk) -> None:
        await talk.accept()
        await talk.delta(8)
        await talk.until_closed()

    async with run_peer(falls_silent, speaks) as peer, connected(peer.url) as stream:
        await stream.subscribe(MARKET)
        await changes(stream, 8)

        assert stream.reconnects == 1


async def test_a_server_that_never_greets_counts_as_dead() -> None:
    """The own limit holds before hello has told the heartbeat."""

    async def says_nothing(talk: Talk) -> None:
        await talk.until_closed()

    async def speaks(talk: Talk) -> None:
        await talk.accept()
        await talk.snapshot(7)
        await talk.until_closed()

    async with run_peer(says_nothing, speaks) as peer, connected(peer.url, silence_s=0.1) as stream:
        mirror = await stream.subscribe(MARKET)

        assert mirror.seq == 7


async def test_a_hopeless_close_code_ends_the_stream() -> None:
    """Both the waiting call and the iteration raise, and nobody reconnects."""

    async def refuses(talk: Talk) -> None:
        await talk.hello()
        await talk.receive("subscribe")
        await talk.socket.close(4000, "speak msgpack")

    async with run_peer(refuses) as peer:
        async with connected(peer.url) as stream:
            with pytest.raises(ConnectionGaveUp, match="closed with 4000: speak msgpack") as raised:
                await stream.subscribe(MARKET)
            with pytest.raises(ConnectionGaveUp):
                await anext(stream)
            with pytest.raises(ConnectionGaveUp):
                await stream.follow(FINDS)

        assert raised.value.code == 4000
        assert len(peer.talks) == 1


async def test_a_stream_that_gave_up_says_so_to_who_only_reads_mirrors() -> None:
    """Leaving the block raises what ended the stream, when nothing else has."""

    async def refuses(talk: Talk) -> None:
        await talk.accept()
        await talk.snapshot(7)
        await talk.receive("subscribe")
        await talk.socket.close(4500, "")

    async def watch(url: str) -> None:
        async with connected(url) as stream:
            await stream.subscribe(MARKET)
            with pytest.raises(ConnectionGaveUp):
                await stream.follow(FINDS)

    async with run_peer(refuses) as peer:
        with pytest.raises(ConnectionGaveUp, match="4500"):
            await watch(peer.url)


async def test_a_normal_close_ends_the_iteration() -> None:
    """What had come by then is still delivered."""

    async def says_goodbye(talk: Talk) -> None:
        await talk.accept()
        await talk.snapshot(7)
        await talk.socket.close(1000, "")

    async with run_peer(says_goodbye) as peer, connected(peer.url) as stream:
        await stream.subscribe(MARKET)

        assert [update.seq async for update in stream if isinstance(update, StateChanged)] == [7]


async def test_leaving_a_stream_is_a_normal_end() -> None:
    """The server counts no failure of a client that has what it wanted."""
    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def serves(talk: Talk) -> None:
        await talk.accept()
        await talk.snapshot(7)
        await talk.socket.wait_closed()
        codes.put_nowait(talk.socket.close_code)

    async with run_peer(serves) as peer:
        async with connected(peer.url) as stream:
            await stream.subscribe(MARKET)

        assert await asyncio.wait_for(codes.get(), seconds(5.0)) == 1000


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_a_refused_handshake_is_final(status: int) -> None:
    """The server's words come with it."""

    def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(status, "not like this")

    async def script(talk: Talk) -> None:
        raise AssertionError

    async with run_peer(script, process_request=refuse) as peer:
        with pytest.raises(HandshakeRefused, match=f"HTTP {status}: not like this"):
            async with connected(peer.url) as stream:
                await stream.subscribe(MARKET)


async def test_a_full_server_is_tried_again() -> None:
    """503 and 429 pass, and Retry-After is honoured."""
    answers = [503, 429]

    def refuse_twice(connection: ServerConnection, request: Request) -> Response | None:
        if not answers:
            return None
        response = connection.respond(answers.pop(0), "no room")
        response.headers["Retry-After"] = "0"
        return response

    async def script(talk: Talk) -> None:
        await talk.accept()
        await talk.snapshot(7)
        await talk.until_closed()

    async with run_peer(script, process_request=refuse_twice) as peer, connected(peer.url) as stream:
        mirror = await stream.subscribe(MARKET)

        assert (mirror.seq, answers) == (7, [])


async def test_a_server_of_another_kind_is_refused() -> None:
    """Something that speaks WebSocket but no subprotocol of ours."""

    async def script(talk: Talk) -> None:
        await talk.until_closed()

    async with run_peer(script, subprotocols=None) as peer:
        with pytest.raises(HandshakeRefused, match=r"does not speak arena\.v2\.msgpack"):
            async with connected(peer.url) as stream:
                await stream.subscribe(MARKET)


async def test_attempts_end_when_they_are_limited(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody listens on that port; each attempt is logged with its reason, the third one raises."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        with pytest.raises(ConnectionGaveUp, match="3 connections in a row failed"):
            async with connected(f"http://127.0.0.1:{port}", attempts_max=3) as stream:
                await stream.subscribe(MARKET)

        said = [record.getMessage() for record in caplog.records if record.name == "arena_client"]
        assert len(said) == 2
        assert all(f"127.0.0.1:{port}" in text and "next attempt in" in text for text in said)


async def test_only_failures_in_a_row_count() -> None:
    """A connection on which a quiet channel was granted was none, though nothing came on it."""

    async def quiet(talk: Talk) -> None:
        await talk.accept(FINDS)
        talk.drop()

    async def last(talk: Talk) -> None:
        await talk.accept(FINDS)
        await talk.find(1)
        await talk.until_closed()

    async with run_peer(*[quiet] * 5, last) as peer, connected(peer.url, attempts_max=3) as stream:
        await stream.follow(FINDS)

        assert isinstance(await anext(stream), EventReceived)
    assert len(peer.talks) == 6


async def test_a_refused_subscription_raises_where_it_was_made() -> None:
    """With the server's reasons; the other subscription goes on."""

    async def script(talk: Talk) -> None:
        await talk.accept()
        await talk.snapshot(7)
        request = await talk.receive("subscribe")
        said = {"code": 154, "title": "unknown channel", "detail": "no weather here", "allowed": [MARKET]}
        await talk.send(type="error", op="subscribe", id=request["id"], temporary=False, **said)
        await talk.delta(8)
        await talk.until_closed()

    async with run_peer(script) as peer, connected(peer.url) as stream:
        await stream.subscribe(MARKET)
        with pytest.raises(SubscriptionRefused, match="no weather here") as raised:
            await stream.follow("weather")
        await changes(stream, 8)

        assert (raised.value.code, raised.value.allowed, raised.value.temporary) == (154, [MARKET], False)


async def test_a_subscription_that_is_gone_after_a_reconnect_raises_in_the_iteration() -> None:
    """Nobody waits for it any more, so the reader hears of it; the others go on."""

    async def first(talk: Talk) -> None:
        await talk.accept()
        await talk.snapshot(7)
        await talk.ack(await talk.receive("subscribe"))
        await talk.delta(8)
        await talk.until_closed()

    async def second(talk: Talk) -> None:
        await talk.hello()
        await talk.ack(await talk.receive("subscribe"))
        request = await talk.receive("subscribe")
        said = {"code": 154, "title": "unknown channel", "detail": "gone", "allowed": [MARKET]}
        await talk.send(type="error", op="subscribe", id=request["id"], temporary=False, **said)
        await talk.delta(9)
        await talk.until_closed()

    async with run_peer(first, second) as peer, connected(peer.url) as stream:
        await stream.subscribe(MARKET)
        await stream.follow(FINDS)
        await changes(stream, 8)
        peer.talks[0].drop()
        with pytest.raises(SubscriptionRefused, match="gone"):
            await changes(stream, 9)

        assert (await changes(stream, 9))[-1].seq == 9


async def test_a_slow_reader_gets_the_newest_state_and_every_event() -> None:
    """Changes of one channel are joined and counted; events are all there, in order."""

    async def script(talk: Talk) -> None:
        await talk.accept()
        await talk.snapshot(7)
        await talk.ack(await talk.receive("subscribe"), seq=0)
        for seq in range(8, 13):
            await talk.delta(seq)
            await talk.find(seq - 7)
        # acknowledged last: when the client has this, it has all of the above
        await talk.ack(await talk.receive("subscribe"))
        await talk.socket.close(1000, "")

    async with run_peer(script) as peer, connected(peer.url) as stream:
        await stream.subscribe(MARKET)
        await stream.follow(FINDS)
        await stream.follow("catastrophic_event")
        updates = [update async for update in stream]

        [change] = [update for update in updates if isinstance(update, StateChanged)]
        assert (change.seq, change.skipped) == (12, 5)
        assert [update.seq for update in updates if isinstance(update, EventReceived)] == [1, 2, 3, 4, 5]


async def test_reading_stops_while_too_much_waits() -> None:
    """With room for two events the rest stays in the socket until the reader takes them; none is lost."""

    async def script(talk: Talk) -> None:
        await talk.accept(FINDS)
        for seq in range(1, 51):
            await talk.find(seq)
        await talk.until_closed()

    async with run_peer(script) as peer, connected(peer.url, events_max=2) as stream:
        await stream.follow(FINDS)
        received = []
        async for update in stream:
            assert isinstance(update, EventReceived)
            received.append((update.seq, update.values["size"]))
            if update.seq == 50:
                break

        assert received == [(seq, seq / 1000) for seq in range(1, 51)]


async def test_lagging_is_reported() -> None:
    """The server said how far it lagged, and the snapshot brings the copy in step."""

    async def script(talk: Talk) -> None:
        await talk.accept()
        await talk.snapshot(7)
        await talk.send(type="lagged", channel=MARKET, skipped=90)
        await talk.snapshot(97, reason="lagged")
        await talk.until_closed()

    async with run_peer(script) as peer, connected(peer.url) as stream:
        mirror = await stream.subscribe(MARKET)
        seen = []
        async for update in stream:
            seen.append(update)
            if mirror.seq == 97 and Lagged(MARKET, 90) in seen:
                break

        assert mirror.state == state_at(97)
        assert stream.resyncs == 0


async def test_unsubscribing_is_said_and_the_last_state_stays() -> None:
    """The mirror of an ended subscription is still readable."""

    async def script(talk: Talk) -> None:
        await talk.accept()
        await talk.snapshot(7)
        await talk.until_closed()

    async with run_peer(script) as peer:
        async with connected(peer.url) as stream:
            mirror = await stream.subscribe(MARKET)
            await stream.unsubscribe(MARKET)
            with pytest.raises(KeyError):
                stream.mirror(MARKET)

        assert [request["op"] for request in peer.talks[0].requests] == ["subscribe", "unsubscribe"]
        assert mirror.state == state_at(7)


async def test_lasting_ends_on_time() -> None:
    """Also while nothing comes."""

    async def script(talk: Talk) -> None:
        await talk.accept()
        await talk.snapshot(7)
        await talk.until_closed()

    async with run_peer(script) as peer, connected(peer.url) as stream:
        await stream.subscribe(MARKET)

        assert [update.seq async for update in stream.lasting(0.1) if isinstance(update, StateChanged)] == [7]


async def test_the_kinds_of_channels_are_not_mixed_up() -> None:
    """A state has a mirror, an event channel is followed."""
    async with connected("http://127.0.0.1:1") as stream:
        with pytest.raises(ValueError, match=r"use follow\(\)"):
            await stream.subscribe(FINDS)
        with pytest.raises(ValueError, match=r"use subscribe\(\)"):
            await stream.follow(MARKET)


async def test_a_closed_stream_stays_closed() -> None:
    """Closing twice is nothing, iterating ends, subscribing is an error."""
    stream = ArenaStream("http://127.0.0.1:1")
    async with stream:
        pass
    await stream.close()

    assert [update async for update in stream] == []
    with pytest.raises(StreamError, match="use it inside"):
        await stream.subscribe(MARKET)


async def test_an_unknown_subprotocol_is_refused_at_once() -> None:
    """The error names those that exist."""
    with pytest.raises(ValueError, match=r"arena\.v2\.msgpack, arena\.v2\.json"):
        ArenaStream("http://127.0.0.1:1", subprotocol="arena.v2")


async def test_a_bad_network_never_leaves_a_wrong_copy() -> None:
    """Fifty connections that drop frames, flip checksums, jump epochs and die at random: never a wrong state.

    After every change the copy is the server's state at its seq; in the end it is the server's last one; no event
    of the log is missing or comes twice.
    """
    draw = random.Random(20)
    last_seq, last_event = 400, 60
    at = {"seq": 1, "event": 0}

    async def script(talk: Talk) -> None:
        if len(peer.talks) > 50 or at["seq"] >= last_seq:
            at["seq"], at["event"] = last_seq, last_event
        await talk.hello()
        for _ in range(2):
            request = await talk.receive("subscribe")
            await talk.ack(request, seq=at["event"] if request["channel"] == FINDS else at["seq"])
            if request["channel"] == FINDS:
                position = request["seq"]
            elif "seq" not in request or at["seq"] - request["seq"] > 30:
                await talk.snapshot(at["seq"])
            else:
                for seq in range(request["seq"] + 1, at["seq"] + 1):
                    await talk.delta(seq)
        for number in range(position + 1, at["event"] + 1):
            await talk.find(number)
        if at["seq"] == last_seq:
            await talk.until_closed()
            return
        for _ in range(draw.randrange(1, 20)):
            at["seq"] += 1
            fate = draw.random()
            if fate < 0.05:
                continue
            changes = {"crc": 1} if fate < 0.1 else {"epoch": "elsewhere"} if fate < 0.12 else {}
            await talk.delta(at["seq"], **changes)
            if fate > 0.9:
                at["event"] += 1
                await talk.find(at["event"])
        talk.drop()

    async with run_peer(script) as peer, connected(peer.url) as stream:
        mirror_task = asyncio.create_task(stream.subscribe(MARKET))
        await stream.follow(FINDS, since=0)
        mirror = await mirror_task
        events: list[int] = []
        async for update in stream:
            assert mirror.seq is not None
            assert mirror.state == state_at(mirror.seq)
            if isinstance(update, EventReceived):
                events.append(update.seq)
            if mirror.seq == last_seq and events and events[-1] == last_event:
                break

        assert events == list(range(1, last_event + 1))
        assert stream.reconnects > 10


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_back_off_is_full_jitter_under_a_doubling_bound(failures: int, draw: float) -> None:
    """Any wait between nothing and the bound; the bound doubles up to the cap."""
    backoff = Backoff(base_s=0.5, cap_s=30.0)

    wait_s = backoff.delay_s(failures, draw)

    assert wait_s == min(30.0, 0.5 * 2.0 ** min(failures - 1, 40)) * draw
    assert backoff.delay_s(1, 0.5) == 0.25
    assert backoff.delay_s(10_000, 0.5) == 15.0


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [(None, 0.0), ("3", 3.0), (" 3 ", 3.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("-1", 0.0), ("²", 0.0)],
)
def test_retry_after_is_seconds(header: str | None, wait_s: float) -> None:
    """A date would need a clock in common with the server."""
    assert retry_after_s(header) == wait_s


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/ws"),
        ("https://arena.example/", "wss://arena.example/ws"),
        ("ws://host/stream?x=1", "ws://host/stream?x=1"),
    ],
)
def test_the_servers_address_is_enough(url: str, address: str) -> None:
    """http becomes ws and the path is known."""
    assert socket_url(url) == address


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """With what is allowed."""
    with pytest.raises(ValueError, match="url must be http, https, ws or wss"):
        socket_url(url)
