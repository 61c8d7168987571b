"""Server-sent events on a real server: the same messages as over the socket, one id that resumes everything, an end."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from arena_client import wire
from arena_client.mirror import Mirror

from engine.events import Event as Happened
from server import documents
from tests.support.arena import Bot, RunningServer, run_server
from tests.support.deadlines import seconds
from tests.support.live import soon
from tests.support.streams import until

REST = {"type": "limit", "market": "food", "side": "buy", "quantity": 1, "price": "0.05"}


@dataclass
class Event:
    """One server-sent event."""

    kind: str
    data: dict[str, Any]
    id: str | None
    retry: str | None


@dataclass
class Stream:
    """An open stream, read by the rules of the HTML standard."""

    response: Any
    lines: AsyncIterator[str]
    events: list[Event] = field(default_factory=list)

    async def next(self) -> Event:
        """Return the next event. Raises StopAsyncIteration at the end."""
        fields: dict[str, str] = {}
        while line := await soon(anext(self.lines)):
            name, _, value = line.partition(": ")
            assert name in ("id", "event", "data", "retry"), line
            fields[name] = value
        event = Event(fields["event"], json.loads(fields["data"]), fields.get("id"), fields.get("retry"))
        assert event.data["type"] == event.kind
        self.events.append(event)
        return event

    async def next_of(self, *kinds: str) -> Event:
        """Return the next event of some kinds."""
        while (event := await self.next()).kind not in kinds:
            pass
        return event


@asynccontextmanager
async def stream(
    arena: RunningServer, query: str, *, key: str | None = None, last_id: str | None = None
) -> AsyncIterator[Stream]:
    """Open a stream and read its hello."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    async with (
        arena.client(key) as client,
        client.stream("GET", f"/api/stream?{query}", headers=headers) as response,
    ):
        assert response.status_code == 200, await response.aread()
        opened = Stream(response, response.aiter_lines())
        assert (await opened.next()).kind == "hello"
        yield opened


async def test_events_are_the_messages_of_the_json_twin() -> None:
    """Acks first, snapshots, deltas with checksums; the headers keep caches and proxies out of the way."""
    async with run_server() as arena, stream(arena, "channels=market_tick,psychology_update") as opened:
        mirrors = {name: Mirror(name) for name in ("market_tick", "psychology_update")}
        for _ in range(2):
            assert (await opened.next()).kind == "ack"
        tick = await arena.step(12)
        while any((mirror.tick or 0) < tick for mirror in mirrors.values()):
            event = await opened.next_of("snapshot", "delta")
            assert mirrors[event.data["channel"]].feed(event.data).applied

        for name, mirror in mirrors.items():
            assert dict(mirror.state) == dict(arena.ticker.view.states[name])  # type: ignore[union-attr]
        headers = opened.response.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert (headers["cache-control"], headers["connection"]) == ("no-store", "close")


async def test_one_id_resumes_every_channel() -> None:
    """Each goes on behind what had come, whatever came last; of events also when none had come yet."""
    async with run_server() as arena:
        query = "channels=market_tick,scarcity_update,discovery_event"
        before = arena.hub.events["discovery_event"].seq
        async with stream(arena, query) as opened:
            tick = await arena.step(3)
            while {opened.events[-1].id} != {f"{arena.hub.epoch}:{tick},{tick},{before}"}:
                await opened.next()
            last = opened.events[-1].id
        discovered = {"resource": "oil", "size": 0.1, "lots": 7_000}
        arena.hub.restore_events(
            [Happened("discovery_event", before + 1, arena.tick, "resource_discovered", discovered)]
        )
        await arena.step(5)
        async with stream(arena, query, last_id=last) as opened:
            acks = [(await opened.next()).data for _ in range(3)]
            assert [ack["resumed"] for ack in acks] == [True, True, True]
            came = [(await opened.next_of("delta", "snapshot", "event")).data for _ in range(11)]

        assert [frame["seq"] for frame in came if frame["type"] == "event"] == [before + 1]
        deltas = [frame for frame in came if frame["type"] != "event"]
        assert {frame["type"] for frame in deltas} == {"delta"}
        for channel in ("market_tick", "scarcity_update"):
            assert [one["base"] for one in deltas if one["channel"] == channel] == list(range(tick, tick + 5))


async def test_narrowing_is_that_of_the_socket() -> None:
    """Markets, depth and steps by the query; the ack says what they came to."""
    async with (
        run_server() as arena,
        stream(arena, "channels=market_tick,psychology_update&markets=food,oil&every=2&depth=1") as opened,
    ):
        market, moods = [(await opened.next()).data for _ in range(2)]
        assert (market["markets"], market["every"], market["depth"]) == (["oil", "food"], 2, 1)
        assert (moods["every"], "markets" in moods) == (2, False)
        await arena.step(4)
        snapshot = (await opened.next_of("snapshot")).data
        while snapshot["channel"] != "market_tick":
            snapshot = (await opened.next_of("snapshot")).data
        assert sorted(snapshot["state"]) == ["food", "food.asks", "food.bids", "oil", "oil.asks", "oil.bids"]
        assert snapshot["crc"] == wire.checksum(snapshot["state"])


async def test_a_key_opens_the_private_channel() -> None:
    """Accounts, entries, and a place to resume from like any other."""
    async with run_server() as arena:
        bot = await arena.register()
        async with stream(arena, "channels=agent", key=bot.api_key) as opened:
            account = (await opened.next_of("accounts")).data
            documents.Accounts.model_validate(account)
            await bot.act({"client_action_id": "a", **REST})
            await arena.step()
            told = await opened.next_of("entries")
            documents.Entries.model_validate(told.data)
            assert [entry["client_action_id"] for entry in told.data["entries"]] == ["a"]
        batch = [{"agent_id": bot.agent_id, "client_action_id": name, **REST} for name in ("b", "in-columns")]
        assert (await bot.act_all(batch, "binary")).status_code == 202
        await arena.step()
        async with stream(arena, "channels=agent", key=bot.api_key, last_id=told.id) as opened:
            again = (await opened.next_of("entries")).data
            assert [entry["client_action_id"] for entry in again["entries"]] == ["b", "in-columns"]


async def test_a_key_resumes_from_before_its_first_entry() -> None:
    """Who has seen nothing but accounts has a place all the same: what happens while it is away comes."""
    async with run_server() as arena:
        bot = await arena.register()
        await arena.step()
        async with stream(arena, "channels=agent", key=bot.api_key) as opened:
            last = (await opened.next_of("accounts")).id
        await bot.act({"client_action_id": "while-away", **REST})
        await arena.step()
        async with stream(arena, "channels=agent", key=bot.api_key, last_id=last) as opened:
            told = (await opened.next_of("entries")).data

        assert [entry["client_action_id"] for entry in told["entries"]] == ["while-away"]


async def test_an_id_of_another_world_is_not_carried_into_this_one() -> None:
    """What is refused as of another epoch is forgotten: the next id is a place in this one."""
    async with run_server() as arena:
        tick = await arena.step(2)
        async with stream(arena, "channels=market_tick,discovery_event", last_id=f"{'0' * 16}:1,7") as opened:
            ack = await opened.next_of("ack")
            snapshot = await opened.next_of("snapshot")

        epoch, events = arena.hub.epoch, arena.hub.events["discovery_event"].seq
        assert (ack.data["resumed"], ack.id) == (False, f"{epoch}:-,{events}")
        assert (snapshot.data["reason"], snapshot.id) == ("epoch", f"{epoch}:{tick},{events}")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "channels"),
        ("channels=weather", "channels"),
        ("channels=market_tick,market_tick", "this"),
        ("channels=psychology_update&markets=food", "markets"),
        ("channels=market_tick&markets=gold", "markets"),
        ("channels=market_tick&markets=food,food", "markets"),
        ("channels=market_tick&depth=3", "depth"),
        ("channels=market_tick&every=0", "every"),
        ("channels=market_tick&every=2.5", "every"),
        ("channels=market_tick&color=red", "color"),
    ],
)
async def test_what_cannot_be_is_refused_before_the_stream_begins(query: str, field: str) -> None:
    """400 with what is allowed; nobody is left behind in the hub."""
    async with run_server() as arena, arena.client() as client:
        response = await client.get(f"/api/stream?{query}")

        assert response.status_code == 400, response.text
        assert response.json()["errors"][0]["field"] == field
        assert response.json()["errors"][0]["allowed"]
        assert arena.hub.subscribers == []


async def test_keys_and_ids_are_checked() -> None:
    """401 without a key where one is needed; an id of another stream, or none at all, is refused."""
    async with run_server() as arena, arena.client() as client:
        assert (await client.get("/api/stream?channels=agent")).status_code == 401
        wrong = {"Authorization": "Bearer ak_nobody"}
        assert (await client.get("/api/stream?channels=agent", headers=wrong)).status_code == 401
        for last_id in ("x", f"{arena.hub.epoch}:1,2", f"{arena.hub.epoch}:1;2"):
            headers = {"Last-Event-ID": last_id}
            response = await client.get("/api/stream?channels=market_tick", headers=headers)
            assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "Last-Event-ID")
        head = await client.head("/api/stream?channels=market_tick")
        assert (head.status_code, head.headers["content-type"][:17]) == (200, "text/event-stream")
        assert arena.hub.subscribers == []


async def test_streams_count_among_the_sockets() -> None:
    """No room is 503; one that ends makes room."""
    async with run_server(sockets_max=1) as arena:
        async with stream(arena, "channels=market_tick"), arena.client() as client:
            full = await client.get("/api/stream?channels=market_tick")
            assert (full.status_code, full.json()["code"], full.headers["retry-after"]) == (503, 412, "5")
        await until(lambda: not arena.hub.subscribers)
        async with stream(arena, "channels=market_tick"):
            assert len(arena.hub.subscribers) == 1
        await until(lambda: not arena.hub.subscribers)


async def test_a_key_and_an_address_have_so_many_streams() -> None:
    """Those with a key count for it and for no address; one that is refused for its query takes no place."""
    async with run_server(sockets_per_key_max=1, sockets_per_address_max=1) as arena:
        bot = await arena.register()
        async with stream(arena, "channels=agent", key=bot.api_key), stream(arena, "channels=market_tick"):
            for key in (bot.api_key, None):
                async with arena.client(key) as client:
                    refused = await client.get("/api/stream?channels=market_tick")
                assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, 412, "5")
                assert "1 are open" in refused.json()["detail"]
        await until(lambda: not arena.hub.subscribers)
        async with arena.client(bot.api_key) as client:
            assert (await client.get("/api/stream?channels=market_tick&markets=none")).status_code == 400
        async with stream(arena, "channels=agent", key=bot.api_key), stream(arena, "channels=market_tick"):
            assert len(arena.hub.subscribers) == 2


async def test_a_server_that_stops_says_when_to_come_back() -> None:
    """In the standard's own words too, so that a browser does; then the stream ends."""
    async with run_server() as arena, stream(arena, "channels=market_tick") as opened:
        arena.server.stop()
        shutdown = await opened.next_of("shutdown")
        assert shutdown.retry == str(shutdown.data["retry_after_ms"])
        end = await opened.next_of("close")
        assert (end.data["code"], end.data["advice"]) == (1012, "reconnect")
        with pytest.raises(StopAsyncIteration):
            await opened.next()


async def test_a_revoked_key_ends_its_stream() -> None:
    """With the code, and the advice not to come back."""
    async with run_server(by_hand=False) as arena, arena.client() as client:
        key = {"Idempotency-Key": "a-secret-name-of-mine"}
        made = (await client.post("/api/agents/register", json={}, headers=key)).json()
        bot = Bot(arena, made["agent_id"], made["api_key"])
        async with stream(arena, "channels=agent", key=bot.api_key) as opened:
            await client.post("/api/agents/register", json={}, headers=key)

            end = await opened.next_of("close")

            assert (end.data["code"], end.data["advice"]) == (4500, "give_up")


async def test_a_reader_that_does_not_read_costs_little_and_is_told_how_far_it_lagged() -> None:
    """Little waits for it in this process and in the kernel; when it reads again it gets a snapshot."""
    async with run_server() as arena:
        host, port = arena.url.removeprefix("http://").split(":")
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, (host, int(port)))
        query = "GET /api/stream?channels=market_tick HTTP/1.1\r\nHost: a\r\n\r\n"
        await loop.sock_sendall(connection, query.encode())
        await until(lambda: len(arena.hub.subscribers) == 1)
        (subscriber,) = arena.hub.subscribers
        while not subscriber.is_blocked:
            await arena.step()
        await arena.step(100)

        text = b""
        async with asyncio.timeout(seconds(20)):
            while b'"lagged"' not in text or b"event: snapshot" not in text.partition(b'"lagged"')[2]:
                text += await loop.sock_recv(connection, 65_536)
        connection.close()

        before = text.partition(b'"type":"lagged"')[0]
        assert len(before) < 160 * 1024
        await until(lambda: not arena.hub.subscribers)


async def test_a_long_stream_is_no_slow_answer() -> None:
    """Its time is in no histogram of answers; that it was asked for is counted."""
    async with run_server() as arena:
        async with stream(arena, "channels=market_tick"):
            pass
        await until(lambda: not arena.hub.subscribers)
        async with arena.client() as client:
            text = (await client.get("/metrics")).text

        assert 'arena_http_requests_total{method="GET",route="/api/stream",status="200"} 1.0' in text
        assert 'arena_http_seconds_count{route="/api/stream"}' not in text
