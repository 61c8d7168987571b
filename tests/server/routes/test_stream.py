"""Real sockets on a real server: handshake, channels, twins, resume, slow readers, bad input, the end."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import AsyncExitStack
from typing import Any

import pytest
from arena_client import wire
from arena_client.wire import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from server.clock import ManualClock
from server.config import Settings
from server.errors import BadRequest
from server.live import hub
from server.live.caps import of_address
from server.live.hub import Hub
from server.live.subscriber import CONTROL_BURST, Subscriber
from server.metrics import Metrics
from server.routes.stream import negotiate, stream_endpoint
from tests.support.deadlines import seconds
from tests.support.published import EPOCH
from tests.support.streams import Arena, Watcher, run_hub, until, watch

TWINS = pytest.mark.parametrize("subprotocol", wire.SUBPROTOCOLS)
PATHS = pytest.mark.parametrize("plain", [False, True], ids=["ours", "plain"])


async def follow(watcher: Watcher, channel: str, until: int, mirror: wire.State | None = None) -> wire.State:
    """Rebuild a channel up to a seq, checking base and checksum of every frame; other channels are passed over."""
    seq = None if mirror is None else -1
    state = mirror or {}
    while seq is None or seq < until:
        frame = await watcher.next()
        if frame.get("channel") != channel or frame["type"] == "ack":
            continue
        if frame["type"] == "snapshot":
            state = frame["state"]
        else:
            assert frame["type"] == "delta", frame
            assert seq in (-1, frame["base"]), "a gap"
            state = wire.apply(state, frame)
        assert frame.get("crc", wire.checksum(state)) == wire.checksum(state)
        seq = frame["seq"]
    return state


class TestHandshake:
    def test_picks_the_first_that_exists(self) -> None:
        """The client's order counts; msgpack when it names none."""
        assert negotiate([]) == SUBPROTOCOL_MSGPACK
        assert negotiate(["chat", SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK]) == SUBPROTOCOL_JSON
        with pytest.raises(BadRequest, match=SUBPROTOCOL_JSON):
            negotiate(["chat"])

    async def test_unknown_subprotocols_are_refused_with_those_that_exist(self) -> None:
        """400 before any socket is opened."""
        async with run_hub() as arena:
            with pytest.raises(InvalidStatus) as refused:
                await connect(arena.url, subprotocols=["chat"])  # type: ignore[list-item]  # a NewType of str

            response = refused.value.response
            assert response.status_code == 400
            problem = json.loads(response.body)
            assert SUBPROTOCOL_MSGPACK in problem["detail"]
            assert problem["request_id"] == response.headers["X-Request-Id"]
            labels = {"method": "GET", "route": "/ws", "status": "400"}
            assert arena.metrics.registry.get_sample_value("arena_http_requests_total", labels) == 1

    async def test_client_without_subprotocol_gets_msgpack(self) -> None:
        """The default needs no header, and the answer then has none."""
        async with run_hub() as arena, connect(arena.url) as connection:
            assert connection.subprotocol is None
            assert wire.decode(await connection.recv(), SUBPROTOCOL_MSGPACK)["type"] == "hello"

    async def test_one_too_many_is_told_to_come_back(self) -> None:
        """503 with Retry-After when all places are taken; a place that is left can be had again."""
        async with run_hub(Settings(sockets_max=1)) as arena:
            async with watch(arena) as only:
                with pytest.raises(InvalidStatus) as refused:
                    await connect(arena.url)
                assert refused.value.response.status_code == 503
                assert refused.value.response.headers["Retry-After"] == "5"
                assert json.loads(refused.value.response.body)["temporary"] is True
                await only.connection.close()
            await until(lambda: not arena.hub.is_full)
            async with watch(arena):
                pass

    async def test_a_web_server_without_denial_responses_closes_with_the_reason(self) -> None:
        """It can answer a handshake with 403 only; it is told no more than it understands."""
        scope = {"type": "websocket", "path": "/ws", "headers": [], "subprotocols": ["chat"], "client": None}
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await stream_endpoint(Hub(EPOCH, Settings(), Metrics(), ManualClock()))(WebSocket(scope, receive, send))

        assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1013)]
        assert SUBPROTOCOL_MSGPACK in sent[0]["reason"]

    @PATHS
    async def test_one_address_has_so_many(self, plain: bool) -> None:
        """503 as when all places are taken; however a connection ends, another may take its place."""
        async with run_hub(Settings(sockets_per_address_max=2), plain=plain) as arena:
            async with watch(arena) as one, watch(arena) as other:
                with pytest.raises(InvalidStatus) as refused:
                    await connect(arena.url)
                assert refused.value.response.status_code == 503
                assert refused.value.response.headers["Retry-After"] == "5"
                problem = json.loads(refused.value.response.body)
                assert (problem["code"], problem["temporary"]) == (412, True)
                assert "2 are open" in problem["detail"]
                assert arena.metrics.registry.get_sample_value("arena_sockets_refused_total", {"limit": "address"}) == 1
                await one.connection.close()
                other.connection.transport.abort()
            await until(lambda: not arena.hub.subscribers)
            async with watch(arena), watch(arena):
                pass

    async def test_a_handshake_that_breaks_off_leaves_no_count(self) -> None:
        """A client that is gone before it is answered holds no place."""
        async with run_hub() as arena:
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", arena.port)) as peer:
                    peer.sendall(
                        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                    )
                    # gone with a reset
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            async with watch(arena):
                here = of_address("127.0.0.1")
                await until(lambda: arena.hub.caps.here(here) == 1)
            await until(lambda: not arena.hub.caps.holders())

    async def test_no_compression_even_if_offered(self) -> None:
        """A compressor for each connection would cost more memory than the connection."""
        async with run_hub() as arena, connect(arena.url, compression="deflate") as connection:
            assert connection.protocol.extensions == []


class TestChannels:
    @PATHS
    @TWINS
    async def test_mirrors_of_all_channels_equal_the_server(self, subprotocol: str, plain: bool) -> None:
        """All six at once over one socket, in both encodings and both ways of sending."""
        async with run_hub(plain=plain) as arena, watch(arena, subprotocol) as watcher:
            arena.tick()
            for channel in wire.STATE_CHANNELS + wire.EVENT_CHANNELS:
                await watcher.send({"op": "subscribe", "id": channel, "channel": channel})
            states: dict[str, wire.State] = {}
            seqs: dict[str, int] = {}
            events: list[str] = []
            acks: set[str] = set()
            while len(acks) < 6:
                await self._take(watcher, states, seqs, events, acks)

            for ticks in range(1, 26):
                view = arena.tick("discovery_event", "catastrophic_event")
                while set(seqs.values()) != {view.tick} or len(events) < 2 * ticks:
                    await self._take(watcher, states, seqs, events, acks)
                assert states == view.states

            assert events.count("resource_discovered") == events.count("catastrophe_struck") == 25

    async def _take(
        self,
        watcher: Watcher,
        states: dict[str, wire.State],
        seqs: dict[str, int],
        events: list[str],
        acks: set[str],
    ) -> None:
        message = await watcher.next()
        match message["type"]:
            case "ack":
                acks.add(message["id"])
            case "snapshot":
                assert message["channel"] in acks
                states[message["channel"]], seqs[message["channel"]] = message["state"], message["seq"]
            case "delta":
                assert message["base"] == seqs[message["channel"]]
                states[message["channel"]] = wire.apply(states[message["channel"]], message)
                seqs[message["channel"]] = message["seq"]
            case "event":
                events.append(message["event"]["name"])
            case _:
                raise AssertionError(message)

    async def test_frames_of_the_twins_are_the_same(self) -> None:
        """A msgpack and a JSON subscriber decode to equal differences, checksums included."""
        async with run_hub() as arena, watch(arena) as one, watch(arena, SUBPROTOCOL_JSON) as other:
            arena.tick()
            for watcher in (one, other):
                await watcher.ask(op="subscribe", id=1, channel="market_tick")
                await watcher.next()
            for _ in range(12):
                arena.tick()

            received = [[await watcher.next() for _ in range(12)] for watcher in (one, other)]

            state = arena.hub.states["market_tick"].state
            for packed, by_name in zip(*received, strict=True):
                differences = wire.changes(state, packed["diff"])
                assert {**packed, "epoch": by_name["epoch"], "diff": differences} == by_name
            assert sum("crc" in frame for frame in received[0]) >= 1


class TestResume:
    @TWINS
    async def test_reconnecting_continues_without_a_gap(self, subprotocol: str) -> None:
        """Epoch and seq of the old connection: exactly the frames missed, and the mirror ends equal."""
        async with run_hub() as arena:
            first = arena.tick()
            async with watch(arena, subprotocol) as watcher:
                await watcher.send({"op": "subscribe", "id": 1, "channel": "market_tick"})
                mirror = await follow(watcher, "market_tick", first.tick)
            for _ in range(30):
                last = arena.tick()
            async with watch(arena, subprotocol) as watcher:
                ack = await watcher.ask(op="subscribe", id=1, channel="market_tick", epoch=EPOCH, seq=first.tick)
                mirror = await follow(watcher, "market_tick", last.tick, mirror)

            assert ack["resumed"] is True
            assert mirror == last.states["market_tick"]

    async def test_too_long_away_is_a_snapshot_with_the_reason(self) -> None:
        """What has left the ring cannot be resumed, and the client is told so."""
        async with run_hub(Settings(resume_frames=5)) as arena:
            first = arena.tick()
            for _ in range(6):
                arena.tick()
            async with watch(arena) as watcher:
                ack = await watcher.ask(op="subscribe", id=1, channel="market_tick", epoch=EPOCH, seq=first.tick)
                frame = await watcher.next()

            assert (ack["resumed"], frame["type"], frame["reason"]) == (False, "snapshot", "too_old")


class TestBadInput:
    """What test_subscriber tries one by one without a socket, where the socket itself matters."""

    async def test_text_frame_on_a_msgpack_socket(self) -> None:
        """An error of its own; the connection goes on."""
        async with run_hub() as arena, watch(arena) as watcher:
            await watcher.connection.send('{"op":"ping","id":1}')
            error = await watcher.next()

            assert (error["code"], error["allowed"]) == (157, f"binary frames on {SUBPROTOCOL_MSGPACK}")
            assert (await watcher.ask(op="ping", id=2))["type"] == "ack"

    async def test_binary_frame_on_a_json_socket(self) -> None:
        """The other way round."""
        async with run_hub() as arena, watch(arena, SUBPROTOCOL_JSON) as watcher:
            await watcher.connection.send(b"\x82\xa2op\xa4ping\xa2id\x01")

            assert (await watcher.next())["code"] == 157
            assert (await watcher.ask(op="ping", id=2))["type"] == "ack"

    async def test_fragments_make_one_message(self) -> None:
        """A message in pieces is a message, up to the limit."""
        message = wire.encode({"op": "ping", "id": "x" * 64}, SUBPROTOCOL_MSGPACK)
        assert isinstance(message, bytes)
        async with run_hub() as arena, watch(arena) as watcher:
            await watcher.connection.send(message[i : i + 1] for i in range(len(message)))

            assert (await watcher.next())["id"] == "x" * 64

    @pytest.mark.parametrize("pieces", [1, 5])
    async def test_over_four_kibibytes_is_too_big(self, pieces: int) -> None:
        """In one piece or in several: closed with 1009."""
        data = b"\x00" * 4100
        step = len(data) // pieces
        async with run_hub() as arena, watch(arena) as watcher:
            await watcher.connection.send(data[i : i + step] for i in range(0, len(data), step))

            assert await watcher.closed() == 1009

    async def test_flood_is_closed_with_its_code(self) -> None:
        """More than 10 control messages a second beyond the burst: 4003, and others do not notice."""
        async with run_hub() as arena, watch(arena) as good, watch(arena) as bad:
            await good.ask(op="subscribe", id=1, channel="psychology_update")
            for i in range(CONTROL_BURST + 1):
                await bad.send({"op": "ping", "id": i})
            assert await bad.closed() == 4003
            view = arena.tick()
            assert (await good.next())["seq"] == view.tick

    async def test_nothing_said_is_closed_after_five_seconds(self) -> None:
        """The rule of time reaches the socket."""
        clock = ManualClock()
        async with run_hub(clock=clock) as arena, watch(arena) as watcher:
            ticking = asyncio.create_task(_advance(clock))
            assert await watcher.closed() == 4002
            ticking.cancel()
            assert arena.metrics.registry.get_sample_value("arena_sockets_closed_total", {"code": "4002"}) == 1


async def _advance(clock: ManualClock, step_s: float = 0.5) -> None:
    """Turn a clock as long as somebody waits for it."""
    while True:
        await asyncio.sleep(0)
        clock.advance(step_s)


async def stalled_socket(arena: Arena, channel: str = "market_tick") -> socket.socket:
    """Return a client that does its handshake, subscribes to a channel, and never reads again."""
    loop = asyncio.get_running_loop()
    raw = socket.socket()
    raw.setblocking(False)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await loop.sock_connect(raw, ("127.0.0.1", arena.port))
    await loop.sock_sendall(
        raw,
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    assert b"101" in await loop.sock_recv(raw, 100)
    message = wire.encode({"op": "subscribe", "id": 1, "channel": channel}, SUBPROTOCOL_MSGPACK)
    assert isinstance(message, bytes)
    # a client's frames are masked; a mask of zeros leaves the bytes as they are
    await loop.sock_sendall(raw, bytes([0x82, 0x80 | len(message)]) + bytes(4) + message)
    return raw


async def subscribed(arena: Arena, count: int) -> Subscriber:
    """Wait until so many connections have a subscription and return the newest."""
    await until(lambda: sum(bool(subscriber.subscriptions) for subscriber in arena.hub.subscribers) == count)
    return arena.hub.subscribers[-1]


async def test_everybody_is_asked_for_a_sign_within_fifteen_seconds() -> None:
    """Each by one ping, however many are asked in the same turn of the loop."""
    clock, loop = ManualClock(), asyncio.get_running_loop()
    async with run_hub(clock=clock) as arena, AsyncExitStack() as stack:
        clients = [stack.enter_context(await stalled_socket(arena, "psychology_update")) for _ in range(40)]
        await subscribed(arena, len(clients))
        # looked at once a second, they may be asked that much later
        for _ in range(165):
            clock.advance(0.1)
            for _ in range(5):
                await asyncio.sleep(0)

        for raw in clients:
            got = b""
            async with asyncio.timeout(seconds(10.0)):
                while b"\x89\x05arena" not in got:
                    got += await loop.sock_recv(raw, 1 << 16)
            assert got.count(b"arena") == 1


async def test_a_server_that_was_held_up_looks_at_all_whose_turn_has_come() -> None:
    """Time that passes in one piece is no reason to ask anybody later than by that."""
    clock, loop = ManualClock(), asyncio.get_running_loop()
    async with run_hub(clock=clock) as arena, AsyncExitStack() as stack:
        clients = [stack.enter_context(await stalled_socket(arena, "psychology_update")) for _ in range(40)]
        await subscribed(arena, len(clients))
        # the first look, after which they are quiet for seconds
        for _ in range(40):
            clock.advance(0.05)
            await asyncio.sleep(0)

        clock.advance(15.0)

        for raw in clients:
            got = b""
            async with asyncio.timeout(seconds(10.0)):
                while b"\x89\x05arena" not in got:
                    got += await loop.sock_recv(raw, 1 << 16)


async def test_who_is_in_step_is_looked_at_when_something_can_be_due() -> None:
    """Not every second: two or three times between two pings; out of its group it is looked at within a second."""
    clock = ManualClock()
    async with run_hub(clock=clock) as arena, watch(arena) as watcher:
        await watcher.ask(op="subscribe", id=1, channel="psychology_update")
        (subscriber,) = arena.hub.subscribers
        await until(lambda: subscriber.group is not None)

        looks = await _looks(watcher, subscriber, clock, 30.0)
        subscriber.part()

        assert 2 <= looks <= 8
        assert await _looks(watcher, subscriber, clock, 1.1) >= 1


async def _looks(watcher: Watcher, subscriber: Subscriber, clock: ManualClock, duration_s: float) -> int:
    """Return how often a subscriber is looked at in a time: each look decides anew when the next one is."""
    looks = 0
    for turn in range(round(duration_s / 0.05)):
        before = subscriber.watched
        clock.advance(0.05)
        for _ in range(5):
            await asyncio.sleep(0)
        looks += subscriber.watched is not before
        if turn % 10 == 0:
            # there and back: what it was asked by a ping it has answered then
            await watcher.ask(op="ping", id=turn)
    return looks


class TestSlowReaders:
    @PATHS
    async def test_slow_reader_costs_bounded_memory_and_delays_nobody(self, plain: bool) -> None:
        """It stops reading for good: its buffer stays small while another one gets every frame in step."""
        async with run_hub(plain=plain) as arena, watch(arena) as good:
            arena.tick()
            await good.ask(op="subscribe", id=1, channel="market_tick")
            await good.next()
            raw = await stalled_socket(arena)
            stuck = await subscribed(arena, 2)
            while not stuck.is_blocked:
                await self._in_step(arena, good)
            reached = stuck.subscriptions["market_tick"].seq
            for _ in range(300):
                await self._in_step(arena, good)

            assert stuck.subscriptions["market_tick"].seq == reached
            raw.close()

    async def _in_step(self, arena: Arena, good: Watcher) -> None:
        view = arena.tick()
        assert (await good.next())["seq"] == view.tick

    async def test_reader_that_wakes_up_is_told_and_gets_a_snapshot(self) -> None:
        """Frames from before, then how many it missed, then the whole state: in step again."""
        async with run_hub() as arena, watch(arena) as watcher:
            arena.tick()
            await watcher.ask(op="subscribe", id=1, channel="market_tick")
            watcher.connection.transport.pause_reading()
            (subscriber,) = arena.hub.subscribers
            async with asyncio.timeout(seconds(30.0)):
                while not subscriber.is_blocked:
                    arena.tick()
                    await asyncio.sleep(0)
            for _ in range(100):
                last = arena.tick()

            watcher.connection.transport.resume_reading()
            kinds: list[str] = []
            while not kinds or kinds[-1] != "lagged":
                frame = await watcher.next()
                kinds.append(frame["type"])
            snapshot = await watcher.next()

            assert frame["skipped"] >= 100
            assert set(kinds) == {"snapshot", "delta", "lagged"}
            assert (snapshot["seq"], snapshot["reason"]) == (last.tick, "lagged")
            assert snapshot["state"] == last.states["market_tick"]

    @PATHS
    async def test_stuck_connection_is_noticed_and_cut(self, plain: bool) -> None:
        """Within 25 s without a sign of reading it is noticed, 10 s later its place is free; the metrics tell both."""
        clock = ManualClock()
        async with run_hub(clock=clock, plain=plain) as arena:
            arena.tick()
            raw = await stalled_socket(arena)
            stuck = await subscribed(arena, 1)
            async with asyncio.timeout(seconds(30.0)):
                while not stuck.is_blocked:
                    arena.tick()
                    await asyncio.sleep(0)
            stopped = clock.monotonic()
            value = arena.metrics.registry.get_sample_value
            ticking = asyncio.create_task(_advance(clock, 0.1))
            await until(lambda: value("arena_sockets_stuck_total") == 1, 30.0)
            noticed = clock.monotonic()
            await until(lambda: not arena.hub.subscribers, 30.0)
            cut = clock.monotonic()
            ticking.cancel()

            # the clock runs on while a task waits for its turn
            assert 8.0 <= noticed - stopped <= 26.0
            assert 9.0 <= cut - noticed <= 14.0
            assert value("arena_sockets_closed_total", {"code": "4001"}) == 1
            raw.close()


class TestEnd:
    @TWINS
    async def test_closing_hub_says_goodbye(self, subprotocol: str) -> None:
        """The shutdown message, then 1012."""
        async with run_hub() as arena, watch(arena, subprotocol) as watcher:
            await watcher.ask(op="subscribe", id=1, channel="market_tick")
            closing = asyncio.create_task(arena.hub.close())

            goodbye = await watcher.next()

            assert goodbye["type"] == "shutdown"
            assert 500 <= goodbye["retry_after_ms"] < 5_000
            assert await watcher.closed() == 1012
            await closing

    @pytest.mark.parametrize("how", [socket.SHUT_WR, None], ids=["end", "reset"])
    async def test_many_that_leave_at_once_are_let_go_in_slices(
        self, how: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ends that come in one turn of the loop do not hold it up: each turn lets a slice of them go."""
        monkeypatch.setattr(hub, "SLICE", 2)
        async with run_hub() as arena:
            raws = [await stalled_socket(arena) for _ in range(12)]
            await subscribed(arena, 12)
            for raw in raws:
                raw.close() if how is None else raw.shutdown(how)
            left, fewest = 12, []
            async with asyncio.timeout(seconds(10.0)):
                while left:
                    await asyncio.sleep(0)
                    fewest.append(left - len(arena.hub.subscribers))
                    left = len(arena.hub.subscribers)

            assert max(fewest) <= 2
            for raw in raws:
                raw.close()

    async def test_a_hub_reads_from_its_connections_in_its_own_way_until_it_ends(self) -> None:
        """A few at a time; when its tasks break, whoever is there is read from all the same until the server goes."""
        async with run_hub() as arena, watch(arena) as watcher:
            await watcher.ask(op="subscribe", id=1, channel="market_tick")
            (subscriber,) = arena.hub.subscribers
            assert subscriber.connection is not None
            assert not subscriber.connection.transport.is_reading()

            breaking = asyncio.create_task(arena.hub.run())
            await asyncio.sleep(0)
            breaking.cancel()
            await asyncio.wait([breaking])

            assert subscriber.connection.transport.is_reading()
            assert (await watcher.ask(op="ping", id=2))["id"] == 2

    async def test_leaving_client_is_forgotten(self) -> None:
        """A client's close frees its place, and its code is counted."""
        async with run_hub() as arena:
            async with watch(arena) as watcher:
                await watcher.ask(op="subscribe", id=1, channel="market_tick")
                await watcher.connection.close(1001)
            await until(lambda: not arena.hub.subscribers)

            assert arena.metrics.registry.get_sample_value("arena_sockets_closed_total", {"code": "1001"}) == 1
            assert arena.metrics.registry.get_sample_value("arena_subscriptions", {"channel": "market_tick"}) == 0
