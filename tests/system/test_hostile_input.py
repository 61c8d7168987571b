"""Bad shape, one by one, over real HTTP and WebSockets: told what is allowed, journaled never, without any effect."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx2
import msgpack
import pytest
import pytest_asyncio
from arena_client import wire
from arena_client.wire import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.arena import Bot, RunningServer, run_server
from tests.support.deadlines import seconds
from tests.support.streams import until
from tests.support.watching import watch
from tests.support.worlds import small_config

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON, MSGPACK = "application/json", "application/msgpack"
ORDER: dict[str, Any] = {
    "client_action_id": "bad", "type": "limit", "market": "food", "side": "buy", "quantity": 5, "price": "0.5",
}  # fmt: skip
USED = {**ORDER, "client_action_id": "used"}
SUBSCRIBE = {"op": "subscribe", "id": 1, "channel": "market_tick"}
FRAME_MAX = 4_096


@dataclass
class Target:
    """A world that is full with two agents: one that misbehaves, and one it has no right to."""

    arena: RunningServer
    bot: Bot
    other: Bot


@asynccontextmanager
async def world() -> AsyncIterator[Target]:
    """Run a world by hand with two agents, one of which has used a client_action_id."""
    async with run_server(engine=small_config(max_agents=2), rate_limit=1_000_000) as arena:
        target = Target(arena, await arena.register(), await arena.register())
        assert (await target.bot.act(USED)).status_code == 202
        await arena.step()
        yield target


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def target() -> AsyncIterator[Target]:
    """The world all attempts are made on."""
    async with world() as target:
        yield target


# --- over HTTP ---------------------------------------------------------------------------------------------------
Attempt = Callable[[Target], Awaitable[httpx2.Response]]


def action(body: bytes | AsyncIterator[bytes], media: str | None = JSON, **headers: str) -> Attempt:
    """Return a POST of a body as an action of one's own agent."""

    async def send(target: Target) -> httpx2.Response:
        return await post(target, f"/api/agents/{target.bot.agent_id}/action", body, media, **headers)

    return send


def order(**changes: Any) -> Attempt:
    """Return a POST of the plain order with changes."""
    return action(json.dumps({**ORDER, **changes}).encode())


def written(field: str, value: str) -> Attempt:
    """Return a POST of the plain order as JSON, one value exactly as it is written."""
    rest = json.dumps({key: item for key, item in ORDER.items() if key != field})
    return action(f'{rest[:-1]}, "{field}": {value}}}'.encode())


def packed(value: Any) -> Attempt:
    """Return a POST of a value as msgpack."""
    return action(msgpack.packb(value), MSGPACK)


def without(field: str) -> Attempt:
    """Return a POST of the plain order without a field."""
    return action(json.dumps({key: item for key, item in ORDER.items() if key != field}).encode())


async def foreign_agent(target: Target) -> httpx2.Response:
    """Act as somebody else's agent with one's own key."""
    return await post(target, f"/api/agents/{target.other.agent_id}/action", json.dumps(ORDER).encode())


async def foreign_agent_leaves(target: Target) -> httpx2.Response:
    """Unregister somebody else's agent."""
    async with target.arena.client(target.bot.api_key) as client:
        return await client.delete(f"/api/agents/{target.other.agent_id}")


async def no_key(target: Target) -> httpx2.Response:
    """Act without saying who one is."""
    async with target.arena.client() as client:
        return await client.post(f"/api/agents/{target.bot.agent_id}/action", json=ORDER)


async def register_when_full(target: Target) -> httpx2.Response:
    """Register one agent more than the world takes."""
    async with target.arena.client() as client:
        return await client.post("/api/agents/register")


async def register_with_wishes(target: Target) -> httpx2.Response:
    """Register with fields of one's own."""
    return await post(target, "/api/agents/register", b'{"cash": 1e9}')


def batch(body: bytes) -> Attempt:
    """Return a POST of a body as a batch."""

    async def send(target: Target) -> httpx2.Response:
        return await post(target, "/api/actions", body)

    return send


async def chunks(size: int) -> AsyncIterator[bytes]:
    """Give spaces without saying how many."""
    for _ in range(size // 1_024):
        yield b" " * 1_024


WHOLE = "[1, 1000000000]"
HTTP: dict[str, tuple[Attempt, int, str]] = {
    "unknown market": (order(market="gold"), 400, "labour, oil, lithium"),
    "unknown market id": (written("market", "32"), 400, "labour, oil, lithium"),
    "unknown field": (order(colour="red"), 400, "time_in_force, expires_tick"),
    "unknown type": (order(type="steal"), 400, "type is one of limit, market"),
    "quantity zero": (order(quantity=0), 400, WHOLE),
    "quantity negative": (order(quantity=-1), 400, WHOLE),
    "quantity fractional": (written("quantity", "1.5"), 400, WHOLE),
    "quantity as float": (written("quantity", "5.0"), 400, WHOLE),
    "quantity as text": (order(quantity="5"), 400, WHOLE),
    "quantity null": (order(quantity=None), 400, WHOLE),
    "quantity true": (order(quantity=True), 400, WHOLE),
    "price true": (order(price=True), 400, "0.01"),
    "price zero": (order(price=0), 400, "0.01"),
    "price negative": (order(price="-1"), 400, "0.01"),
    "NaN": (written("quantity", "NaN"), 400, "finite"),
    "Infinity": (written("price", "Infinity"), 400, "finite"),
    "-Infinity": (written("price", "-Infinity"), 400, "finite"),
    "NaN as text": (order(price="NaN"), 400, "0.01"),
    "1e400": (written("price", "1e400"), 400, "2^53"),
    "1e400 as text": (order(price="1e400"), 400, "0.01"),
    "2^53+1": (written("quantity", str(2**53 + 1)), 400, "2^53"),
    "2^64": (written("quantity", str(2**64)), 400, "2^53"),
    "a number of 10,000 digits": (written("quantity", "9" * 10_000), 400, "2^53"),
    "empty body": (action(b""), 400, "application/json"),
    "empty msgpack body": (action(b"", MSGPACK), 400, "application/msgpack"),
    "wrong content type": (action(json.dumps(ORDER).encode(), "text/plain"), 415, JSON),
    "a form": (action(b"type=limit", "application/x-www-form-urlencoded"), 415, JSON),
    "no content type": (action(json.dumps(ORDER).encode(), None), 415, JSON),
    "compressed": (action(b"\x1f\x8b", JSON, **{"Content-Encoding": "gzip"}), 415, "uncompressed"),
    "truncated JSON": (action(json.dumps(ORDER).encode()[:-4]), 400, "not JSON"),
    "two JSON values": (action(json.dumps(ORDER).encode() * 2), 400, "not JSON"),
    "not UTF-8": (action(b'{"type": "\xff"}'), 400, "not UTF-8"),
    "JSON duplicate keys": (action(json.dumps(ORDER).encode()[:-1] + b', "quantity": 6}'), 400, "twice"),
    "truncated msgpack": (action(msgpack.packb(ORDER)[:-2], MSGPACK), 400, "not one msgpack value"),
    "msgpack trailing bytes": (action(msgpack.packb(ORDER) + b"\xc0", MSGPACK), 400, "not one msgpack value"),
    "msgpack extension type": (packed({**ORDER, "price": msgpack.ExtType(7, b"x")}), 400, "ExtType"),
    "msgpack timestamp": (packed({**ORDER, "price": msgpack.Timestamp(1)}), 400, "Timestamp"),
    "msgpack duplicate keys": (action(b"\x82\xa4type\xa5limit\xa4type\xa5limit", MSGPACK), 400, "twice"),
    "msgpack NaN": (packed({**ORDER, "price": float("nan")}), 400, "finite"),
    "msgpack Infinity": (packed({**ORDER, "price": float("inf")}), 400, "finite"),
    "msgpack 2^53+1": (packed({**ORDER, "quantity": 2**53 + 1}), 400, "2^53"),
    "msgpack 2^64-1": (packed({**ORDER, "quantity": 2**64 - 1}), 400, "2^53"),
    "msgpack true": (packed({**ORDER, "quantity": True}), 400, WHOLE),
    "msgpack that promises 2^32 entries": (action(b"\xdf\xff\xff\xff\xff", MSGPACK), 400, "not one msgpack value"),
    "JSON nested 10,000 deep": (action(b"[" * 10_000 + b"]" * 5_000), 400, "8 levels"),
    "JSON objects nested deep": (action(b'{"a":' * 3_000), 400, "8 levels"),
    "msgpack nested 10,000 deep": (action(b"\x91" * 10_000 + b"\xc0", MSGPACK), 400, "8 levels"),
    "a batch nested 10,000 deep": (batch(b'{"actions":' + b"[" * 10_000 + b"]" * 10_000 + b"}"), 400, "8 levels"),
    "5 MB": (action(b" " * 5_000_000), 413, "16384 bytes"),
    "5 MB batch": (batch(b'{"actions":[' + b" " * 5_000_000 + b"]}"), 413, "262144 bytes"),
    "5 MB without a length": (action(chunks(5_000_000)), 413, "16384 bytes"),
    "an empty batch": (batch(b'{"actions": []}'), 400, "1 to 1000"),
    "a batch of too many": (batch(json.dumps({"actions": [{}] * 1_001}).encode()), 400, "1 to 1000"),
    "someone else's agent": (foreign_agent, 404, "of yours"),
    "someone else's agent leaves": (foreign_agent_leaves, 404, "of yours"),
    "no key": (no_key, 401, "Authorization: Bearer"),
    "client_action_id missing": (without("client_action_id"), 400, "1 to 64 characters"),
    "client_action_id empty": (order(client_action_id=""), 400, "1 to 64 characters"),
    "client_action_id too long": (order(client_action_id="x" * 65), 400, "1 to 64 characters"),
    "client_action_id with a space": (order(client_action_id="a b"), 400, "1 to 64 characters"),
    "client_action_id used for another action": (order(client_action_id="used", quantity=6), 409, "another action"),
    "price below the ladder": (order(price="0.0099"), 400, "0.01"),
    "price above the ladder": (order(price="1018465.744169"), 400, "1018465.744168"),
    "registering when full": (register_when_full, 409, "2 agents"),
    "registering with wishes": (register_with_wishes, 400, "fields: none"),
}


@pytest.mark.parametrize("name", HTTP)
async def test_bad_input_over_http_is_answered_and_not_journaled(target: Target, name: str) -> None:
    """4xx as problem+json that says what is allowed; the journal, the queue and the account are as they were."""
    attempt, status, allowed = HTTP[name]
    before, account = journaled(target), await target.bot.account()

    response = await attempt(target)

    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert allowed in response.text
    assert response.json()["status"] == status
    assert journaled(target) == before
    assert await target.bot.account() == account


async def test_bad_items_of_a_batch_are_refused_one_by_one(target: Target) -> None:
    """A batch of nothing but bad items: each gets its own answer, and nothing is journaled."""
    mine, foreign = {"agent_id": target.bot.agent_id}, {"agent_id": target.other.agent_id}
    items = [
        {**ORDER, **mine, "quantity": 0},
        {**ORDER, **mine, "market": "gold"},
        {**ORDER, **foreign},
        {**ORDER},
        {**USED, **mine, "quantity": 7},
        [],
        None,
    ]
    before = journaled(target)

    response = await post(target, "/api/actions", json.dumps({"actions": items}).encode())

    document = response.json()
    assert (response.status_code, document["accepted"], document["refused"]) == (202, 0, len(items))
    assert [result["status"] for result in document["results"]] == [400, 400, 404, 404, 409, 400, 400]
    assert all(result["error"]["detail"] for result in document["results"])
    assert journaled(target) == before


@pytest.mark.parametrize(
    "half",
    [
        b"POST /api/agents/register HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{",
        b"POST /api/agents/register HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"POST /api/agents/regis",
    ],
    ids=["half a body", "half a chunk", "half a request line"],
)
async def test_whoever_hangs_up_in_the_middle_has_sent_nothing(target: Target, half: bytes) -> None:
    """A request that never becomes whole is no request."""
    before = journaled(target)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(target.arena.url.rsplit(":", 1)[1]))

    writer.write(half)
    writer.write_eof()
    async with asyncio.timeout(seconds(10)):
        await reader.read()
    writer.close()
    await writer.wait_closed()

    assert journaled(target) == before
    assert (await target.bot.account())["status"] == "active"


# --- over a WebSocket --------------------------------------------------------------------------------------------
def map_of(depth: int) -> bytes:
    """Return a msgpack map that nests so deep."""
    return b"\x81\xa1a" * depth + b"\xc0"


STREAM: dict[str, tuple[str, bytes | str, int, str]] = {
    "unknown channel": (SUBPROTOCOL_MSGPACK, msgpack.packb({**SUBSCRIBE, "channel": "gossip"}), 154, "market_tick"),
    "unknown op": (SUBPROTOCOL_MSGPACK, msgpack.packb({"op": "obey", "id": 1}), 151, "subscribe"),
    "an action with its fields outside": (
        SUBPROTOCOL_MSGPACK,
        msgpack.packb({"op": "action", "id": 1, **ORDER}),
        152,
        "agent_id",
    ),
    "an action without a key": (
        SUBPROTOCOL_MSGPACK,
        msgpack.packb({"op": "action", "id": 1, "agent_id": "a1", "action": ORDER}),
        161,
        "auth",
    ),
    "unknown field": (SUBPROTOCOL_MSGPACK, msgpack.packb({**SUBSCRIBE, "colour": "red"}), 152, "epoch"),
    "no id": (SUBPROTOCOL_MSGPACK, msgpack.packb({"op": "ping"}), 153, "id"),
    "seq without epoch": (SUBPROTOCOL_MSGPACK, msgpack.packb({**SUBSCRIBE, "seq": 1}), 153, "both"),
    "seq negative": (SUBPROTOCOL_MSGPACK, msgpack.packb({**SUBSCRIBE, "epoch": "e", "seq": -1}), 153, "2^53"),
    "seq true": (SUBPROTOCOL_MSGPACK, msgpack.packb({**SUBSCRIBE, "epoch": "e", "seq": True}), 153, "whole number"),
    "seq fractional": (SUBPROTOCOL_MSGPACK, msgpack.packb({**SUBSCRIBE, "epoch": "e", "seq": 1.5}), 153, "whole"),
    "seq NaN": (SUBPROTOCOL_MSGPACK, msgpack.packb({**SUBSCRIBE, "epoch": "e", "seq": float("nan")}), 150, "one map"),
    "seq 2^53+1": (SUBPROTOCOL_MSGPACK, msgpack.packb({**SUBSCRIBE, "epoch": "e", "seq": 2**53 + 1}), 150, "one map"),
    "seq 2^64-1": (SUBPROTOCOL_MSGPACK, msgpack.packb({**SUBSCRIBE, "epoch": "e", "seq": 2**64 - 1}), 150, "one map"),
    "a wrong key": (SUBPROTOCOL_MSGPACK, msgpack.packb({"op": "auth", "id": 1, "api_key": "ak_no"}), 158, "register"),
    "text on a msgpack socket": (SUBPROTOCOL_MSGPACK, json.dumps(SUBSCRIBE), 157, "binary frames"),
    "binary on a JSON socket": (SUBPROTOCOL_JSON, msgpack.packb(SUBSCRIBE), 157, "text frames"),
    "empty": (SUBPROTOCOL_MSGPACK, b"", 150, "one map"),
    "truncated msgpack": (SUBPROTOCOL_MSGPACK, msgpack.packb(SUBSCRIBE)[:-1], 150, "one map"),
    "msgpack trailing bytes": (SUBPROTOCOL_MSGPACK, msgpack.packb(SUBSCRIBE) + b"\x00", 150, "one map"),
    "msgpack extension type": (SUBPROTOCOL_MSGPACK, b"\x81\xa2op\xd4\x01\x00", 150, "one map"),
    "msgpack duplicate keys": (SUBPROTOCOL_MSGPACK, b"\x82\xa2op\xa4ping\xa2op\xa4ping", 150, "one map"),
    "msgpack nested deep": (SUBPROTOCOL_MSGPACK, map_of(1_000), 150, "one map"),
    "no map": (SUBPROTOCOL_MSGPACK, b"\x93\x01\x02\x03", 150, "one map"),
    "truncated JSON": (SUBPROTOCOL_JSON, '{"op":"ping","id":', 150, "one map"),
    "JSON NaN": (SUBPROTOCOL_JSON, '{"op":"ping","id":NaN}', 150, "one map"),
    "JSON 1e400": (SUBPROTOCOL_JSON, '{"op":"ping","id":1e400}', 150, "one map"),
    "JSON 2^64": (SUBPROTOCOL_JSON, '{"op":"ping","id":18446744073709551616}', 150, "one map"),
    "JSON duplicate keys": (SUBPROTOCOL_JSON, '{"op":"ping","op":"ping","id":1}', 150, "one map"),
    "JSON nested deep": (SUBPROTOCOL_JSON, "[" * 4_000, 150, "one map"),
    "JSON unknown channel": (SUBPROTOCOL_JSON, json.dumps({**SUBSCRIBE, "channel": ""}), 154, "market_tick"),
}


@pytest.mark.parametrize("name", STREAM)
async def test_bad_input_over_a_websocket_is_answered_and_hurts_nothing(target: Target, name: str) -> None:
    """An error that says what is allowed; the connection and its subscription go on, the journal is as it was."""
    subprotocol, data, code, allowed = STREAM[name]
    before = journaled(target)
    async with watch(target.arena.ws_url, subprotocol) as watcher:
        await watcher.send({"op": "subscribe", "id": "good", "channel": "psychology_update"})
        kinds = [(await watcher.next())["type"] for _ in range(2)]

        await watcher.connection.send(data)
        error = await watcher.next()
        pong = await watcher.ask(op="ping", id="after")

    assert kinds == ["ack", "snapshot"]
    assert (error["type"], error["code"], error["temporary"]) == ("error", code, False)
    assert allowed in str(error["allowed"])
    assert error["title"]
    assert error["detail"]
    assert (pong["type"], pong["id"]) == ("ack", "after")
    assert journaled(target) == before


@pytest.mark.parametrize("subprotocol", wire.SUBPROTOCOLS)
async def test_subscribing_twice_is_an_error_of_its_own(target: Target, subprotocol: str) -> None:
    """The first subscription stays as it is."""
    async with watch(target.arena.ws_url, subprotocol) as watcher:
        await watcher.send(SUBSCRIBE)
        kinds = [(await watcher.next())["type"] for _ in range(2)]

        error = await watcher.ask(**{**SUBSCRIBE, "id": 2})
        again = await watcher.ask(op="resync", id=3, channel="market_tick")

    assert kinds == ["ack", "snapshot"]
    assert (error["id"], error["code"]) == (2, 155)
    assert "unsubscribe first" in error["allowed"]
    assert again["type"] == "ack"


@pytest.mark.parametrize(
    ("data", "pieces"),
    [(bytes(FRAME_MAX + 1), 1), (bytes(FRAME_MAX + 5), 5), (bytes(5_000_000), 1), (b"[" * 10_000, 1)],
    ids=["just too big", "too big in fragments", "5 MB", "nested 10,000 deep"],
)
async def test_a_frame_too_big_ends_its_connection_and_no_other(target: Target, data: bytes, pieces: int) -> None:
    """Closed with 1009, whether it came in one piece or in several."""
    before = journaled(target)
    step = -(-len(data) // pieces)
    async with watch(target.arena.ws_url) as good, watch(target.arena.ws_url) as bad:
        # the server may have closed already before all of it is sent
        with suppress(ConnectionClosed):
            await bad.connection.send(data[i : i + step] for i in range(0, len(data), step))
        code = await bad.closed()
        pong = await good.ask(op="ping", id=1)

    assert code == 1009
    assert pong["type"] == "ack"
    assert journaled(target) == before


async def test_fragments_make_one_message(target: Target) -> None:
    """A subscription in one-byte fragments is a subscription."""
    data = msgpack.packb(SUBSCRIBE)
    async with watch(target.arena.ws_url) as watcher:
        await watcher.connection.send(data[i : i + 1] for i in range(len(data)))

        assert (await watcher.next())["channel"] == "market_tick"
        assert (await watcher.next())["type"] == "snapshot"


#: First byte of a frame: final bit, reserved bits, opcode.
RAW_FRAMES = {
    "a continuation of nothing": bytes([0x80]),
    "a new message inside a fragmented one": bytes([0x02, 0x82]),
    "a fragmented ping": bytes([0x09]),
    "a reserved bit": bytes([0xC2]),
    "an unknown opcode": bytes([0x83]),
}


@pytest.mark.parametrize("name", RAW_FRAMES)
async def test_broken_framing_ends_its_connection_and_no_other(target: Target, name: str) -> None:
    """What breaks the WebSocket protocol itself is closed with 1002."""
    before = journaled(target)
    async with watch(target.arena.ws_url) as good, raw_socket(target) as raw:
        loop = asyncio.get_running_loop()
        # each frame masked with zeros, one byte long
        frames = b"".join(bytes([first, 0x81]) + bytes(4) + b"\x00" for first in RAW_FRAMES[name])
        await loop.sock_sendall(raw, frames)
        said = await last_bytes(raw)
        pong = await good.ask(op="ping", id=1)

    assert b"\x03\xea" in said, "the close frame carries 1002"
    assert pong["type"] == "ack"
    assert journaled(target) == before


async def test_fragments_without_an_end_are_never_a_message(target: Target) -> None:
    """Who begins a message and hangs up has said nothing."""
    before = journaled(target)
    async with raw_socket(target) as raw:
        await asyncio.get_running_loop().sock_sendall(raw, bytes([0x02, 0x81]) + bytes(4) + b"\x83")
    await until(lambda: not target.arena.hub.subscribers)

    assert journaled(target) == before


async def test_an_unknown_subprotocol_is_refused_with_those_that_exist(target: Target) -> None:
    """400 in the handshake."""
    with pytest.raises(InvalidStatus) as refused:
        await connect(target.arena.ws_url, subprotocols=["chat"])  # type: ignore[list-item]  # a NewType of str

    assert refused.value.response.status_code == 400
    assert all(name in refused.value.response.body.decode() for name in wire.SUBPROTOCOLS)


# --- all of it, and nothing happened -----------------------------------------------------------------------------
async def test_a_world_that_got_all_of_this_is_one_that_got_nothing() -> None:
    """Same seed, same agents, same ticks, with and without every attempt: the same hash after every tick."""
    hashes: list[list[bytes]] = []
    refused: list[int] = []
    for is_troubled in (True, False):
        async with world() as target:
            found = [target.arena.economy.state_hash()]
            for half in range(2):
                if is_troubled:
                    refused += await trouble(target, half)
                await target.arena.step(13)
                found.append(target.arena.economy.state_hash())
            hashes.append(found)

    assert len(refused) == len(HTTP)
    assert all(400 <= status < 500 for status in refused)
    assert hashes[0] == hashes[1]


async def trouble(target: Target, half: int) -> list[int]:
    """Make every second attempt and return the statuses of those over HTTP."""
    for subprotocol, data, *_ in list(STREAM.values())[half::2]:
        async with watch(target.arena.ws_url, subprotocol) as watcher:
            await watcher.connection.send(data)
            assert (await watcher.next())["type"] == "error"
    return [(await attempt(target)).status_code for attempt, *_ in list(HTTP.values())[half::2]]


# --- helpers -----------------------------------------------------------------------------------------------------
def journaled(target: Target) -> tuple[int, int]:
    """Return what any input would change while no tick runs: the journal's next sequence, and what waits."""
    return target.arena.recorder.journal.next_seq, len(target.arena.parts.world.queue)


async def post(
    target: Target, path: str, body: bytes | AsyncIterator[bytes], media: str | None = JSON, **headers: str
) -> httpx2.Response:
    """Post a body with the key of the one that misbehaves."""
    given = {**headers, **({} if media is None else {"Content-Type": media})}
    async with target.arena.client(target.bot.api_key) as client:
        return await client.post(path, content=body, headers=given)


@asynccontextmanager
async def raw_socket(target: Target) -> AsyncIterator[socket.socket]:
    """Connect without a library that would refuse to send nonsense, and read the answer to the handshake."""
    loop = asyncio.get_running_loop()
    with socket.socket() as raw:
        raw.setblocking(False)
        await loop.sock_connect(raw, ("127.0.0.1", int(target.arena.url.rsplit(":", 1)[1])))
        await loop.sock_sendall(
            raw,
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        said = b""
        async with asyncio.timeout(seconds(10)):
            while b"\r\n\r\n" not in said:
                said += await loop.sock_recv(raw, 4_096)
        assert said.startswith(b"HTTP/1.1 101")
        yield raw


async def last_bytes(raw: socket.socket) -> bytes:
    """Return the end of everything a socket says until it is closed."""
    said = b""
    async with asyncio.timeout(seconds(10)):
        while data := await asyncio.get_running_loop().sock_recv(raw, 65_536):
            said = (said + data)[-64:]
    return said
