"""A gateway beside its engine: the same frames, the same answers, and the truth when one of the others is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from arena_client import ArenaStream, StateChanged, wire
from arena_client.stream import OutOfStep, Stale
from arena_client.wire import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from loadtest.gateways.valkey import Valkey
from loadtest.process import free_port
from server import keys
from server.errors import Code
from server.live.caps import of_address, of_key
from tests.support.arena import RunningServer, run_server
from tests.support.deadlines import seconds
from tests.support.disks import Disk
from tests.support.gateways import SECRET, RunningGateway, run_gateway, until
from tests.support.streams import Watcher

CHANNELS = [*wire.STATE_CHANNELS, *wire.EVENT_CHANNELS]
MARKETS, MOODS = "market_tick", "psychology_update"


@pytest.fixture
def valkey() -> AsyncIterator[Valkey]:
    """A server of the test's own."""
    with Valkey() as running:
        yield running


@asynccontextmanager
async def pair(valkey: Valkey, data: Path | None = None, **settings: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Run an engine that ticks by hand, and a gateway in step with it."""
    async with (
        run_server(data, redis=valkey.url, gateway_secret=SECRET, **settings) as arena,
        run_gateway(arena, valkey.url) as gateway,
    ):
        yield arena, gateway


@asynccontextmanager
async def watching(url: str, subprotocol: str = SUBPROTOCOL_MSGPACK) -> AsyncIterator[Watcher]:
    """Connect to a stream and read the hello."""
    async with connect(url, subprotocols=[subprotocol], compression=None, max_size=None) as connection:  # type: ignore[list-item]  # Subprotocol is a NewType of str
        watcher = Watcher(connection, subprotocol)
        assert (await watcher.next())["type"] == "hello"
        yield watcher


async def next_frame(watcher: Watcher) -> dict[str, Any]:
    """Return the next data frame: on a machine that stood still for seconds an engine may seem to be away."""
    while (message := await watcher.next())["type"] == "stale":
        pass
    return message


async def step(arena: RunningServer, gateway: RunningGateway, count: int = 1) -> None:
    """Run ticks and wait until the gateway has each."""
    for _ in range(count):
        await gateway.reached(await arena.step())


# --- streams -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("subprotocol", [SUBPROTOCOL_MSGPACK, SUBPROTOCOL_JSON])
async def test_frames_are_the_engines_own_to_the_byte(valkey: Valkey, subprotocol: str) -> None:
    """Subscribers here and there get the same bytes, in both encodings."""
    async with pair(valkey) as (arena, gateway):
        await step(arena, gateway, 3)
        async with watching(arena.ws_url, subprotocol) as there, watching(gateway.ws_url, subprotocol) as here:
            for number, channel in enumerate(CHANNELS):
                for watcher in (there, here):
                    await watcher.send({"op": "subscribe", "id": number, "channel": channel})
            await step(arena, gateway, 5)

            frames: list[list[Any]] = []
            for watcher in (there, here):
                frames.append([])
                while len(frames[-1]) < 6 + 4 * 6:
                    frames[-1].append(await asyncio.wait_for(watcher.connection.recv(), seconds(10)))

            assert sorted(frames[0], key=str) == sorted(frames[1], key=str)


async def test_hello_is_the_engines_but_for_the_gateways_own_limits(valkey: Valkey) -> None:
    """Epoch, origin, tick rate, channels."""
    async with (
        run_server(redis=valkey.url, gateway_secret=SECRET, tick_rate=70) as arena,
        run_gateway(arena, valkey.url, resume_frames=17, heartbeat_s=3.0) as gateway,
    ):
        theirs, ours = arena.hub.hello(), gateway.parts.hub.hello()

        assert {key for key in theirs if theirs[key] != ours[key]} == {"channels", "heartbeat_s", "limits"}
        assert [one for one in theirs["channels"] if one["name"] != "agent"] == ours["channels"]
        assert (ours["heartbeat_s"], ours["limits"]["resume_frames"]) == (3.0, 17)


async def test_a_position_of_anywhere_can_be_resumed_anywhere(valkey: Valkey) -> None:
    """A client that was at the engine goes on at a gateway, and at one that has only just started."""
    async with pair(valkey) as (arena, gateway):
        async with watching(arena.ws_url) as watcher:
            told = await watcher.ask(op="subscribe", id=1, channel=MOODS)
        await step(arena, gateway, 4)
        async with run_gateway(arena, valkey.url) as other:
            for url in (gateway.ws_url, other.ws_url):
                async with watching(url) as watcher:
                    resumed = await watcher.ask(
                        op="subscribe", id=1, channel=MOODS, epoch=told["epoch"], seq=told["seq"]
                    )
                    assert resumed["resumed"]
                    assert [(await watcher.next())["base"] for _ in range(4)] == list(
                        range(told["seq"], told["seq"] + 4)
                    )


# --- requests ----------------------------------------------------------------------------------------------------
async def test_reads_of_the_state_come_from_the_cache_with_the_engines_bytes(valkey: Valkey) -> None:
    """Redis once a tick, memory after that, 304 for who has it; the engine is not asked."""
    paths = ["/api/indicators", "/api/psychology", "/api/monetary", "/api/scarcity", "/api/markets", "/api/markets/9"]
    async with pair(valkey) as (arena, gateway), arena.client() as there, gateway.client() as here:
        await step(arena, gateway, 2)
        await until(lambda: arena.parts.publisher._answered == arena.tick)
        for path in paths:
            theirs, ours, again = await there.get(path), await here.get(path), await here.get(path)

            assert ours.content == theirs.content
            assert ours.headers["etag"] == theirs.headers["etag"] == again.headers["etag"]
            assert ours.headers["arena-tick"] == str(arena.tick)
            unchanged = await here.get(path, headers={"If-None-Match": ours.headers["etag"]})
            assert (unchanged.status_code, unchanged.content) == (304, b"")

        assert gateway.count("gateway_reads_total", source="redis") == len(paths)
        assert gateway.count("gateway_reads_total", source="memory") == 2 * len(paths)
        assert gateway.count("gateway_forwarded_total", result="answered") == 0

        await step(arena, gateway)
        assert (await here.get(paths[0])).json()["tick"] == arena.tick


async def test_every_other_read_is_the_engines_answer(valkey: Valkey) -> None:
    """Queries, history, events, documents, mistakes; HEAD without the body."""
    paths = [
        "/api/indicators?forecast=true",
        "/api/markets?limit=2",
        "/api/markets/nowhere",
        "/api/history/food.price?format=csv&limit=5",
        "/api/history/food.price?limit=x",
        "/api/events",
        "/api/info",
        "/openapi.json",
        "/docs",
        "/api/agents/a1",
    ]
    async with pair(valkey) as (arena, gateway), arena.client() as there, gateway.client() as here:
        await step(arena, gateway, 3)
        for path in paths:
            theirs, ours = await there.get(path), await here.get(path)
            # what is left of the address's rate has changed between the two
            named = {"date", "x-request-id", "ratelimit", "x-ratelimit-remaining"}

            assert ours.status_code == theirs.status_code, path
            if ours.status_code < 400:
                assert ours.content == theirs.content
                assert {k: v for k, v in ours.headers.items() if k not in named} == {
                    k: v for k, v in theirs.headers.items() if k not in named
                }
            else:
                assert ours.json()["code"] == theirs.json()["code"]
        head = await here.head("/api/info")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 1_000


async def test_inputs_go_through_and_their_answers_come_back(valkey: Valkey) -> None:
    """Register, act, batch, receipt, leave: as at the engine, limits included."""
    async with pair(valkey) as (arena, gateway), gateway.client() as anybody:
        made = await anybody.post("/api/agents/register", json={})
        assert made.status_code == 201
        agent = made.json()["agent_id"]
        await step(arena, gateway)
        order = {"client_action_id": "o-1", "type": "limit", "market": "food", "side": "buy", "quantity": 1, "price": 1}
        async with gateway.client(made.json()["api_key"]) as own:
            first = await own.post(f"/api/agents/{agent}/action", json=order)
            again = await own.post(f"/api/agents/{agent}/action", json=order)
            batch = await own.post("/api/actions", json={"actions": [{"agent_id": agent, **order}]})
            other = await own.post(f"/api/agents/{agent}/action", json=order | {"quantity": 2})
            await step(arena, gateway)
            receipt = await own.get(f"/api/agents/{agent}/actions/o-1")
            account = await own.get(f"/api/agents/{agent}")
            left = await own.delete(f"/api/agents/{agent}", headers={"Prefer": "respond-async"})

        assert (first.status_code, first.json()["duplicate"]) == (202, False)
        assert (again.status_code, again.json()["duplicate"]) == (202, True)
        assert batch.json()["results"][0]["receipt"]["seq"] == first.json()["seq"]
        assert other.status_code == 409
        assert receipt.json()["outcome"]["status"] == "resting"
        assert account.json()["orders"][0]["order_id"] == str(first.json()["seq"])
        assert left.status_code == 202
        assert first.headers["ratelimit-policy"]
        assert gateway.count("gateway_forwarded_total", result="answered") == 8


async def test_a_gateway_refuses_what_is_too_large_or_nowhere_itself(valkey: Valkey) -> None:
    """Bodies, paths, methods: nothing of it reaches the engine."""
    async with pair(valkey) as (_, gateway), gateway.client() as anybody:
        statuses = [
            (await anybody.post("/api/agents/register", content=b"x" * 70_000)).status_code,
            (await anybody.post("/api/actions", content=b"x" * 300_000)).status_code,
            (await anybody.get("/api/nothing")).status_code,
            (await anybody.put("/api/info")).status_code,
            (await anybody.post("/gateway/frames", content=b"")).status_code,
        ]

        assert statuses == [413, 413, 404, 405, 404]
        assert gateway.count("gateway_forwarded_total", result="answered") == 0

        media = {"Content-Type": "application/msgpack"}
        large = await anybody.post("/api/actions", content=b"x" * 300_000, headers=media)
        assert (large.status_code, large.json()["code"]) == (401, Code.KEY_MISSING)


async def test_the_engine_counts_a_keys_requests_over_all_gateways(valkey: Valkey) -> None:
    """Half of them here, half there, reads of the state too: one limit."""
    async with pair(valkey, rate_limit=60) as (arena, gateway), run_gateway(arena, valkey.url) as other:
        async with gateway.client() as anybody:
            key = (await anybody.post("/api/agents/register", json={})).json()["api_key"]
        async with gateway.client(key) as one, other.client(key) as two:
            codes = [(await client.get("/api/indicators")).status_code for client in (one, two) * 4]

        assert codes == [200] * 6 + [429] * 2


async def test_health_and_metrics_are_the_gateways_own(valkey: Valkey) -> None:
    """They say how the gateway is, and show no world."""
    async with pair(valkey) as (_, gateway), gateway.client() as anybody:
        assert (await anybody.get("/readyz")).json() == {"status": "ready"}
        assert (await anybody.get("/healthz")).json() == {"status": "ok"}
        text = (await anybody.get("/metrics")).text

        assert "arena_gateway_engine_up 1.0" in text
        assert "arena_inflation" not in text


async def test_a_gateway_that_has_not_met_its_engine_is_not_ready(valkey: Valkey) -> None:
    """It is alive, and answers 503 to everything else, streams too."""
    async with run_gateway(free_port(), valkey.url, is_waited_for=False) as gateway, gateway.client() as anybody:
        assert (await anybody.get("/healthz")).status_code == 200
        refused = await anybody.get("/readyz")
        assert (refused.status_code, refused.json()["code"]) == (503, Code.STARTING)
        posted = await anybody.post("/api/agents/register", json={})
        assert posted.status_code == 503


async def test_a_wrong_secret_is_said(valkey: Valkey) -> None:
    """The engine does not know such gateways; the gateway says what to look at, and stays shut."""
    async with (
        run_server(redis=valkey.url, gateway_secret=SECRET) as arena,
        run_gateway(arena, valkey.url, is_waited_for=False, gateway_secret="another-secret-of-16") as gateway,
    ):
        await until(lambda: gateway.parts.feed.mismatch is not None)

        assert "gateway_secret" in gateway.parts.feed.mismatch
        assert not gateway.parts.feed.is_in_step.is_set()


async def test_sockets_are_counted_over_all_processes(valkey: Valkey) -> None:
    """The engine's limit holds for all of them together, within the time of a report; a closed one makes room."""
    async with pair(valkey, sockets_max=4) as (arena, gateway), run_gateway(arena, valkey.url) as other:
        async with AsyncExitStack() as stack:
            for url in (arena.ws_url, gateway.ws_url, gateway.ws_url, other.ws_url):
                await stack.enter_async_context(watching(url))
            hubs = (arena.hub, gateway.parts.hub, other.parts.hub)
            await until(lambda: [hub.is_full for hub in hubs] == [True] * 3)
            for url in (arena.ws_url, gateway.ws_url, other.ws_url):
                with pytest.raises(InvalidStatus, match="503"):
                    await stack.enter_async_context(watching(url))
        await until(lambda: [hub.is_full for hub in hubs] == [False] * 3)


async def test_sockets_of_a_key_are_counted_over_all_processes(valkey: Valkey) -> None:
    """Wherever they are, a key has so many; closed here there is room there. The engine's limit is what holds."""
    settings = {"sockets_per_key_max": 3}
    async with (
        pair(valkey, **settings) as (arena, gateway),
        run_gateway(arena, valkey.url, sockets_per_key_max=9) as other,
        AsyncExitStack() as stack,
        arena.client() as anybody,
    ):
        made = (await anybody.post("/api/agents/register", json={})).json()
        await step(arena, gateway)
        holder = of_key(keys.digest(made["api_key"]))
        hubs, opened = (arena.hub, gateway.parts.hub, other.parts.hub), []
        for url in (arena.ws_url, gateway.ws_url, other.ws_url):
            opened.append(await stack.enter_async_context(watching(url)))
            assert (await opened[-1].ask(op="auth", id=1, api_key=made["api_key"]))["type"] == "ack"
        await until(lambda: all(hub.caps.refusal(holder) for hub in hubs))

        for url in (arena.ws_url, gateway.ws_url, other.ws_url):
            async with watching(url) as further:
                assert (await further.ask(op="auth", id=1, api_key=made["api_key"]))["code"] == 163
        assert other.parts.hub.hello()["limits"]["sockets_per_key"] == 3
        await opened[2].connection.close()
        await until(lambda: not any(hub.caps.refusal(holder) for hub in hubs))
        async with watching(gateway.ws_url) as further:
            assert (await further.ask(op="auth", id=1, api_key=made["api_key"]))["type"] == "ack"


async def test_sockets_of_an_address_are_counted_over_all_processes(valkey: Valkey, tmp_path: Path) -> None:
    """Streams of server-sent events too; an engine that has just come back is told of all that are open."""
    settings = {"sockets_per_address_max": 2, "redis": valkey.url, "gateway_secret": SECRET, "port": free_port()}
    async with AsyncExitStack() as stack:
        async with run_server(tmp_path, **settings) as arena:
            gateway = await stack.enter_async_context(run_gateway(arena, valkey.url))
            anybody = await stack.enter_async_context(gateway.client())
            await stack.enter_async_context(watching(gateway.ws_url))
            await stack.enter_async_context(anybody.stream("GET", "/api/stream?channels=market_tick"))
            here = of_address("127.0.0.1")
            await until(lambda: arena.hub.caps.refusal(here))
            with pytest.raises(InvalidStatus, match="503"):
                await stack.enter_async_context(watching(arena.ws_url))
            full = await anybody.get("/api/stream?channels=market_tick")
            assert (full.status_code, full.json()["code"]) == (503, 412)
        async with run_server(tmp_path, **settings) as again:
            await until(lambda: again.hub.caps.refusal(here))


# --- keys --------------------------------------------------------------------------------------------------------
async def test_a_revoked_key_closes_its_connections_everywhere(valkey: Valkey) -> None:
    """At the engine and at each gateway, within a second; others stay."""
    headers = {"Idempotency-Key": "only-i-know-this-one"}
    async with pair(valkey) as (arena, gateway), run_gateway(arena, valkey.url) as other, arena.client() as anybody:
        made = (await anybody.post("/api/agents/register", json={}, headers=headers)).json()
        bystander = (await anybody.post("/api/agents/register", json={})).json()
        await step(arena, gateway)
        async with (
            watching(arena.ws_url) as one,
            watching(gateway.ws_url) as two,
            watching(other.ws_url) as three,
            watching(other.ws_url) as four,
        ):
            for watcher in (one, two, three):
                told = await watcher.ask(op="auth", id=1, api_key=made["api_key"])
                assert told["agents"] == [made["agent_id"]]
            assert (await four.ask(op="auth", id=1, api_key=bystander["api_key"]))["type"] == "ack"

            again = (await anybody.post("/api/agents/register", json={}, headers=headers)).json()
            await arena.step()

            async with asyncio.timeout(seconds(1.0)):
                assert [await watcher.closed() for watcher in (one, two, three)] == [4500] * 3
            assert (await four.ask(op="ping", id=2))["type"] == "ack"
            refused = await four.ask(op="auth", id=3, api_key=made["api_key"])
            assert refused["code"] == 158
            async with watching(gateway.ws_url) as five:
                assert (await five.ask(op="auth", id=1, api_key=again["api_key"]))["type"] == "ack"


async def test_answers_stay_in_order_while_a_key_is_looked_up(valkey: Valkey) -> None:
    """What is asked after auth is answered after it."""
    async with pair(valkey) as (_, gateway), watching(gateway.ws_url) as watcher:
        for number, message in enumerate([{"op": "auth", "api_key": "ak_no"}, {"op": "ping"}, {"op": "ping"}]):
            await watcher.send(message | {"id": number})

        assert [(await watcher.next())["id"] for _ in range(3)] == [0, 1, 2]


# --- actions over a socket ---------------------------------------------------------------------------------------
ORDER = {"client_action_id": "s-1", "type": "limit", "market": "food", "side": "buy", "quantity": 1, "price": 1}


async def acting(
    stack: AsyncExitStack, arena: RunningServer, gateway: RunningGateway
) -> tuple[Watcher, dict[str, Any]]:
    """Return a connection to the gateway that speaks for a new agent, and the agent."""
    await step(arena, gateway)
    async with gateway.client() as anybody:
        made: dict[str, Any] = (await anybody.post("/api/agents/register", json={})).json()
    await step(arena, gateway)
    watcher = await stack.enter_async_context(watching(gateway.ws_url))
    assert (await watcher.ask(op="auth", id=0, api_key=made["api_key"]))["type"] == "ack"
    return watcher, made


async def test_an_action_over_a_socket_gets_the_engines_receipt(valkey: Valkey) -> None:
    """Acknowledged when it is on disk there; the same again over REST is the same; refusals come back in full."""
    async with pair(valkey) as (arena, gateway), AsyncExitStack() as stack:
        watcher, made = await acting(stack, arena, gateway)
        told = await watcher.ask(op="action", id=1, agent_id=made["agent_id"], action=ORDER)
        async with gateway.client(made["api_key"]) as own:
            again = (await own.post(f"/api/agents/{made['agent_id']}/action", json=ORDER)).json()
        refused = await watcher.ask(op="action", id=2, agent_id=made["agent_id"], action=ORDER | {"quantity": 2})
        foreign = await watcher.ask(op="action", id=3, agent_id="a1", action=ORDER)
        malformed = await watcher.ask(op="action", id=4, agent_id=made["agent_id"], action={"type": "limit"})

        assert (told["type"], told["id"], told["receipt"]["duplicate"]) == ("ack", 1, False)
        assert (again["seq"], again["duplicate"]) == (told["receipt"]["seq"], True)
        assert [(one["status"], one["code"]) for one in (refused, foreign, malformed)] == [
            (409, 140), (404, 110), (400, 101)
        ]  # fmt: skip
        assert malformed["errors"]


async def test_a_gateway_that_stops_answers_what_is_with_the_engine(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's receipt, the goodbye, 1012."""
    disk = Disk(monkeypatch)
    async with pair(valkey) as (arena, gateway), AsyncExitStack() as stack:
        watcher, made = await acting(stack, arena, gateway)
        with disk.shut():
            await watcher.send({"op": "action", "id": 1, "agent_id": made["agent_id"], "action": ORDER})
            await until(lambda: disk.is_busy)
            (subscriber,) = gateway.parts.hub.subscribers
            gateway.server.stop()
            await until(lambda: subscriber.is_finishing)
        answers = [await watcher.next() for _ in range(2)]

        assert [(one["type"], one.get("id")) for one in answers] == [("ack", 1), ("shutdown", None)]
        assert await watcher.closed() == 1012


async def test_actions_of_a_socket_keep_their_order(valkey: Valkey) -> None:
    """Many at once: their sequence numbers are in the order in which they were sent."""
    async with pair(valkey) as (arena, gateway), AsyncExitStack() as stack:
        watcher, made = await acting(stack, arena, gateway)
        for number in range(14):
            action = ORDER | {"client_action_id": f"s-{number}"}
            await watcher.send({"op": "action", "id": number, "agent_id": made["agent_id"], "action": action})
        answers = [await watcher.next() for _ in range(14)]

        assert [answer["id"] for answer in answers] == list(range(14))
        numbers = [answer["receipt"]["seq"] for answer in answers]
        assert numbers == sorted(numbers)


async def test_what_a_gateway_cannot_keep_is_refused(valkey: Valkey) -> None:
    """The end of orders with a connection, the levels of the book, the private channel: at the engine only."""
    async with pair(valkey) as (arena, gateway), AsyncExitStack() as stack:
        watcher, made = await acting(stack, arena, gateway)
        held = await watcher.ask(op="auth", id=1, api_key=made["api_key"], cancel_on_disconnect=True)
        deep = await watcher.ask(op="subscribe", id=2, channel=MARKETS, markets=["food"], depth=3)
        private = await watcher.ask(op="subscribe", id=3, channel="agent")
        narrow = await watcher.ask(op="subscribe", id=4, channel=MARKETS, markets=["food"])
        await step(arena, gateway)

        assert (held["code"], deep["code"], private["code"], narrow["type"]) == (153, 153, 154, "ack")
        assert (await next_frame(watcher))["type"] == "snapshot"


async def test_an_action_without_an_engine_is_surely_not_applied(valkey: Valkey, tmp_path: Path) -> None:
    """503 as the status of its error, temporary; the same goes through when the engine is back."""
    port = free_port()
    async with run_gateway(port, valkey.url, is_waited_for=False) as gateway, AsyncExitStack() as stack:
        async with run_server(tmp_path, redis=valkey.url, gateway_secret=SECRET, port=port) as arena:
            watcher, made = await acting(stack, arena, gateway)
        assert (await watcher.next())["type"] == "stale"
        refused = await watcher.ask(op="action", id=1, agent_id=made["agent_id"], action=ORDER)
        assert (refused["status"], refused["code"], refused["temporary"]) == (503, Code.ENGINE_AWAY, True)

        async with run_server(tmp_path, redis=valkey.url, gateway_secret=SECRET, port=port) as again:
            await step(again, gateway)
            told = await watcher.ask(op="action", id=2, agent_id=made["agent_id"], action=ORDER)
            assert (told["type"], told["receipt"]["duplicate"]) == ("ack", False)


async def test_server_sent_events_come_from_the_gateway(valkey: Valkey) -> None:
    """The same messages as at the engine; a key that opens nothing is refused before."""
    async with pair(valkey) as (arena, gateway), gateway.client() as anybody:
        async with anybody.stream("GET", f"/api/stream?channels={MOODS}") as answer:
            assert answer.status_code == 200
            lines = answer.aiter_lines()
            kinds: list[str] = []
            while "snapshot" not in kinds:
                if (line := await anext(lines)).startswith("event: "):
                    kinds.append(line.removeprefix("event: "))
            await step(arena, gateway)
            while "delta" not in kinds:
                if (line := await anext(lines)).startswith("event: "):
                    kinds.append(line.removeprefix("event: "))
        async with gateway.client("ak_of_nobody") as nobody:
            assert (await nobody.get(f"/api/stream?channels={MOODS}")).status_code == 401

        assert kinds == ["hello", "ack", "snapshot", "delta"]


# --- losses ------------------------------------------------------------------------------------------------------
async def test_without_redis_frames_come_from_the_engine(valkey: Valkey) -> None:
    """No gap, nothing refused, everything durable; the engine and the gateway say that it is lost."""
    async with (
        run_server(by_hand=False, redis=valkey.url, gateway_secret=SECRET) as arena,
        run_gateway(arena, valkey.url) as gateway,
        watching(gateway.ws_url) as watcher,
        gateway.client() as anybody,
    ):
        await watcher.ask(op="subscribe", id=1, channel=MOODS)
        first = await watcher.next()
        valkey.kill()
        await until(lambda: gateway.count("gateway_redis_up") == 0 and not arena.parts.publisher.is_connected)
        made = await anybody.post("/api/agents/register", json={})
        status = (await anybody.get("/api/status")).json()
        target = arena.tick + 10
        seen = [await next_frame(watcher) for _ in range(target - first["seq"])]
        read = await anybody.get("/api/indicators")

        assert made.status_code == 201
        assert read.json()["tick"] > first["seq"]
        assert status["redis"] == "lost"
        assert [frame["type"] for frame in seen] == ["delta"] * len(seen)
        assert [frame["seq"] for frame in seen] == list(range(first["seq"] + 1, target + 1))

        valkey.start()
        await until(lambda: gateway.count("gateway_redis_up") == 1 and arena.parts.publisher.is_connected)


async def test_a_stalled_redis_holds_nothing_up(valkey: Valkey) -> None:
    """It takes connections and answers nothing: ticks and streams go on, and Redis gets what it missed in one piece."""
    async with pair(valkey) as (arena, gateway):
        await step(arena, gateway)
        publisher = arena.parts.publisher
        await until(lambda: publisher._answered == arena.tick)
        valkey.stop_answering()

        await arena.step(10)

        assert publisher._tick < arena.tick - 5
        await gateway.reached(arena.tick)
        await until(lambda: gateway.count("gateway_redis_up") == 0)
        async with gateway.client() as anybody:
            assert (await anybody.get("/api/scarcity")).json()["tick"] == arena.tick
        assert gateway.count("gateway_reads_total", source="engine") == 1
        assert not gateway.parts.reads._asking
        valkey.go_on()
        await until(lambda: publisher.is_connected and publisher._answered == arena.tick)
        assert arena.parts.metrics.registry.get_sample_value("arena_redis_bundles_total", {"result": "late"}) >= 1


async def test_a_stalled_redis_does_not_hide_that_the_engine_is_away(valkey: Valkey, tmp_path: Path) -> None:
    """Subscribers are told as soon as they would be without it, and its return is noticed."""
    port = free_port()
    async with run_gateway(port, valkey.url, is_waited_for=False) as gateway, AsyncExitStack() as stack:
        async with run_server(tmp_path, redis=valkey.url, gateway_secret=SECRET, port=port) as arena:
            await step(arena, gateway)
            watcher = await stack.enter_async_context(watching(gateway.ws_url))
            await watcher.ask(op="subscribe", id=1, channel=MOODS)
            await watcher.next()
            valkey.stop_answering()

        assert (await watcher.next())["type"] == "stale"
        async with run_server(tmp_path, redis=valkey.url, gateway_secret=SECRET, port=port) as again:
            await step(again, gateway)
            assert (await next_frame(watcher))["seq"] == again.tick
        valkey.go_on()


async def test_while_the_engine_is_away_sockets_stay_and_old_answers_are_given(valkey: Valkey, tmp_path: Path) -> None:
    """`stale` once, also to who comes then; reads with their age; inputs 503; all goes on where it stood."""
    port = free_port()
    async with run_gateway(port, valkey.url, is_waited_for=False) as gateway, AsyncExitStack() as stack:
        async with run_server(tmp_path, redis=valkey.url, gateway_secret=SECRET, port=port) as arena:
            await step(arena, gateway, 3)
            watcher = await stack.enter_async_context(watching(gateway.ws_url))
            await watcher.ask(op="subscribe", id=1, channel=MOODS)
            snapshot = await watcher.next()

        assert await watcher.next() == {"type": "stale", "tick": snapshot["seq"]}
        assert (await watcher.ask(op="ping", id=2))["tick"] == snapshot["seq"]
        refused = await watcher.ask(op="auth", id=3, api_key="ak_x")
        assert (refused["code"], refused["temporary"]) == (160, True)
        async with watching(gateway.ws_url) as late:
            assert (await late.next())["type"] == "stale"
        await check_requests_without_an_engine(gateway, snapshot["seq"])

        async with run_server(tmp_path, redis=valkey.url, gateway_secret=SECRET, port=port) as again:
            assert again.parts.world.epoch == arena.parts.world.epoch
            await step(again, gateway)
            frame = await watcher.next()
            assert (frame["type"], frame["base"]) == ("delta", snapshot["seq"])
            assert gateway.count("gateway_outages_total") == 1


async def check_requests_without_an_engine(gateway: RunningGateway, tick: int) -> None:
    """See that old answers are given with their age, and that everything else is refused as surely not applied."""
    async with gateway.client() as anybody, gateway.client("ak_of_a_bot") as bot:
        for client in (anybody, bot):
            read = await client.get("/api/markets/food")
            assert (read.status_code, read.json()["tick"]) == (200, tick)
            assert int(read.headers["age"]) >= 0
        assert (await anybody.get("/readyz")).json() == {"status": "stale"}
        for answer in (
            await anybody.get("/api/history/food.price"),
            await anybody.post("/api/agents/register", json={}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, Code.ENGINE_AWAY)
            assert answer.headers["retry-after"]


async def test_another_world_behind_the_gateway_is_another_epoch(valkey: Valkey, tmp_path: Path) -> None:
    """Subscribers keep their connection: they are greeted anew, and subscribing gives an `epoch` snapshot."""
    port = free_port()
    async with run_gateway(port, valkey.url, is_waited_for=False) as gateway, AsyncExitStack() as stack:
        async with run_server(tmp_path / "a", redis=valkey.url, gateway_secret=SECRET, port=port) as arena:
            await step(arena, gateway, 3)
            stream = await stack.enter_async_context(ArenaStream(gateway.url))
            mirror = await stream.subscribe(MOODS)
            await stream.follow("discovery_event")
            epoch = mirror.epoch

        async with run_server(tmp_path / "b", redis=valkey.url, gateway_secret=SECRET, port=port) as arena:
            await step(arena, gateway, 2)
            await until(lambda: mirror.epoch != epoch and mirror.seq == arena.tick)
            assert mirror.epoch == arena.parts.world.epoch
            assert stream.reconnects == 0
            changes = [update async for update in stream.lasting(0.1)]
            assert [type(change) for change in changes if not isinstance(change, StateChanged)] == [Stale, OutOfStep]
            assert gateway.parts.hub.subscribers[0].subscriptions.keys() == {MOODS, "discovery_event"}
