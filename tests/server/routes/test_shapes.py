"""Bad shape over real HTTP, one by one: a clear answer, nothing journaled, nothing changed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgpack
import pytest
import pytest_asyncio

from engine.markets import NAMES
from server import documents
from tests.support.arena import Bot, run_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT: dict[str, Any] = {
    "client_action_id": "a-1", "type": "limit", "market": "food", "side": "buy", "quantity": 5, "price": "1.25",
}  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bot() -> AsyncIterator[Bot]:
    """An agent in a world that ticks by hand, so whatever is journaled is seen."""
    async with run_server(rate_limit=100_000) as arena:
        await arena.register()
        yield await arena.register()


def text(**changes: Any) -> bytes:
    """Return the plain limit order as JSON with changes."""
    return json.dumps({**LIMIT, **changes}).encode()


def raw(name: str, value: str) -> bytes:
    """Return the plain limit order as JSON with one value as it is written."""
    rest = json.dumps({key: item for key, item in LIMIT.items() if key != name})
    return f'{rest[:-1]}, "{name}": {value}}}'.encode()


def packed(value: Any) -> bytes:
    """Return a value as msgpack."""
    body: bytes = msgpack.packb(value)
    return body


BAD_JSON: dict[str, tuple[bytes, int, str]] = {
    "unknown market": (text(market="gold"), 400, ", ".join(NAMES[:3])),
    "unknown field": (text(colour="red"), 400, "client_action_id"),
    "quantity zero": (text(quantity=0), 400, "[1, 1000000000]"),
    "quantity negative": (text(quantity=-5), 400, "[1, 1000000000]"),
    "quantity fractional": (raw("quantity", "1.5"), 400, "[1, 1000000000]"),
    "quantity NaN": (raw("quantity", "NaN"), 400, "finite"),
    "price Infinity": (raw("price", "Infinity"), 400, "finite"),
    "price -Infinity": (raw("price", "-Infinity"), 400, "finite"),
    "price 1e400": (raw("price", "1e400"), 400, "2^53"),
    "quantity 2^53+1": (raw("quantity", "9007199254740993"), 400, "2^53"),
    "quantity 2^64": (raw("quantity", "18446744073709551616"), 400, "2^53"),
    "quantity true": (text(quantity=True), 400, "[1, 1000000000]"),
    "price true": (text(price=True), 400, "0.01"),
    "empty body": (b"", 400, "application/json"),
    "truncated": (text()[:-7], 400, "not JSON"),
    "duplicate keys": (text()[:-1] + b', "quantity": 6}', 400, "twice"),
    "nesting 10,000 deep": (b"[" * 10_000, 400, "8 levels"),
    "objects 2,500 deep": (b'{"a":' * 2_500 + b"1" + b"}" * 2_500, 400, "8 levels"),
    "5 MB": (text(colour="x" * 5_000_000), 413, "16384 bytes"),
    "just above the limit": (text() + b" " * 16_384, 413, "16384 bytes"),
    "client_action_id missing": (
        json.dumps({key: value for key, value in LIMIT.items() if key != "client_action_id"}).encode(), 400, "1 to 64",
    ),
    "client_action_id malformed": (text(client_action_id="a b"), 400, "1 to 64"),
    "price below the ladder": (text(price="0.009"), 400, "0.01"),
    "price above the ladder": (text(price=2_000_000), 400, "1018465.744168"),
    "valid_until_tick too far": (text(valid_until_tick=1_000_000), 400, "36000 ticks"),
    "an array": (b"[1]", 400, "object"),
    "a number": (b"7", 400, "object"),
    "half a surrogate": (text().replace(b"a-1", b"\\ud800"), 400, "surrogate"),
    "replace between two prices": (
        b'{"client_action_id": "r", "type": "replace", "order_id": "1", "quantity": 1, "price": "1.23"}', 400, "side",
    ),
}  # fmt: skip

BAD_MSGPACK: dict[str, tuple[bytes, str]] = {
    "truncated": (packed(LIMIT)[:-3], "not one msgpack value"),
    "trailing bytes": (packed(LIMIT) + b"\x01", "not one msgpack value"),
    "extension type": (packed({**LIMIT, "price": msgpack.ExtType(5, b"x")}), "ExtType"),
    "timestamp": (packed({**LIMIT, "price": msgpack.Timestamp(1)}), "Timestamp"),
    "duplicate keys": (b"\x82\xa1a\x01\xa1a\x02", "twice"),
    "integer key": (packed({1: 2}), "keys are strings"),
    "bytes": (packed({**LIMIT, "market": b"food"}), "bytes"),
    "NaN": (packed({**LIMIT, "price": float("nan")}), "finite"),
    "2^64-1": (packed({**LIMIT, "quantity": (1 << 64) - 1}), "2^53"),
    "2^53+1": (packed({**LIMIT, "quantity": (1 << 53) + 1}), "2^53"),
    "depth": (b"\x91" * 9 + b"\x01", "8 levels"),
    "empty": (b"", "application/msgpack"),
}


@pytest.mark.parametrize("name", BAD_JSON)
async def test_bad_json_gets_a_clear_answer_and_leaves_nothing(bot: Bot, name: str) -> None:
    """4xx as problem+json that says what is allowed; the journal is as it was."""
    body, status, allowed = BAD_JSON[name]

    response = await post(bot, body, "application/json")

    check_refused(bot, response, status, allowed)


@pytest.mark.parametrize("name", BAD_MSGPACK)
async def test_bad_msgpack_gets_a_clear_answer_and_leaves_nothing(bot: Bot, name: str) -> None:
    """The same in the other encoding."""
    body, allowed = BAD_MSGPACK[name]

    response = await post(bot, body, "application/msgpack")

    check_refused(bot, response, 400, allowed)


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_wrong_content_type_is_415(bot: Bot, media: str | None) -> None:
    """With those that are taken, in the text and in Accept."""
    response = await post(bot, text(), media)

    check_refused(bot, response, 415, "application/json or application/msgpack")
    assert response.headers["accept"] == "application/json, application/msgpack"


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
async def test_compressed_bodies_are_415(bot: Bot, encoding: str) -> None:
    """A small body must not become a large one here."""
    response = await post(bot, text(), "application/json", {"Content-Encoding": encoding})

    check_refused(bot, response, 415, "uncompressed")


async def test_a_body_without_declared_length_is_cut_off_at_the_limit(bot: Bot) -> None:
    """What arrives in chunks is counted while it arrives."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 1_024

    response = await post(bot, chunks(), "application/json")

    check_refused(bot, response, 413, "16384 bytes")


async def test_a_batch_10000_deep_is_refused_and_one_above_256_kib_too(bot: Bot) -> None:
    """The larger limit lets more nesting in, and no more through."""
    async with bot.arena.client(bot.api_key) as client:
        json_type = {"Content-Type": "application/json"}
        deep = b'{"actions":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001
        check_refused(bot, await client.post("/api/actions", content=deep, headers=json_type), 400, "8 levels")
        large = b'{"actions":[' + b" " * 262_144 + b"]}"
        check_refused(bot, await client.post("/api/actions", content=large, headers=json_type), 413, "262144 bytes")


@pytest.mark.parametrize("agent_id", ["a1", "a999999", "17", "a0", "a01", "a" + "9" * 30, "x", "a-1"])
async def test_an_agent_that_is_not_yours_is_not_there(bot: Bot, agent_id: str) -> None:
    """Somebody else's, nobody's and malformed ones look the same."""
    others = next(f"a{agent.number}" for agent in bot.arena.recorder.registry if f"a{agent.number}" != bot.agent_id)
    before = journaled(bot)
    async with bot.arena.client(bot.api_key) as client:
        for path in (others, agent_id):
            answers = [
                await client.get(f"/api/agents/{path}"),
                await client.delete(f"/api/agents/{path}"),
                await client.post(f"/api/agents/{path}/action", json=LIMIT),
                await client.get(f"/api/agents/{path}/actions/a-1"),
            ]
            assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, 110)] * 4
    assert journaled(bot) == before


async def test_no_key_is_401_and_says_where_keys_come_from(bot: Bot) -> None:
    """Every route of an agent asks for one."""
    before = journaled(bot)
    async with bot.arena.client() as client:
        answers = [
            await client.get(f"/api/agents/{bot.agent_id}"),
            await client.delete(f"/api/agents/{bot.agent_id}"),
            await client.post(f"/api/agents/{bot.agent_id}/action", json=LIMIT),
            await client.post("/api/actions", json={"actions": [{**LIMIT, "agent_id": bot.agent_id}]}),
            await client.get(f"/api/agents/{bot.agent_id}/actions/a-1"),
        ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(401, 130)] * 5
    assert "registering" in answers[0].json()["detail"]
    assert answers[0].headers["www-authenticate"].startswith("Bearer")
    assert journaled(bot) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer ak_" + "x" * 43},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": "Bearer"},
        {"Authorization": ""},
        {"X-API-Key": "ak_nonsense"},
    ],
)
async def test_a_wrong_key_is_401_even_where_none_is_needed(bot: Bot, headers: dict[str, str]) -> None:
    """Silently falling back to anonymous would hide the mistake."""
    async with bot.arena.client() as client:
        response = await client.get("/api/indicators", headers=headers)

    assert (response.status_code, response.json()["code"]) == (401, 131)


async def test_a_key_in_the_url_is_refused(bot: Bot) -> None:
    """It would end up in logs of proxies."""
    async with bot.arena.client() as client:
        response = await client.get(f"/api/agents/{bot.agent_id}?api_key={bot.api_key}")

    assert response.status_code == 401
    assert bot.api_key not in response.text


async def test_both_headers_take_the_key(bot: Bot) -> None:
    """Authorization: Bearer, and X-API-Key."""
    async with bot.arena.client() as client:
        response = await client.get(f"/api/agents/{bot.agent_id}", headers={"X-API-Key": bot.api_key})

    assert response.status_code == 200


@pytest.mark.parametrize(
    ("path", "field", "allowed"),
    [
        ("/api/indicators?x=1", "x", "fields: tick, forecast"),
        ("/api/indicators?tick=now", "tick", "after this tick"),
        ("/api/psychology?x=1", "x", "fields: tick"),
        ("/api/indicators?tick=50&forecast=true", "forecast", "of now only"),
        ("/api/info?x=1", "x", "fields: none"),
        ("/api/markets/food/curves?points=1", "points", "2 to 2000"),
        ("/api/analysis/anomalies?kind=odd", "kind", "'return'"),
        ("/api/markets?limit=0", "limit", "1 to 32"),
        ("/api/markets?limit=1&limit=2", "limit", "once"),
        ("/api/history/cpi?from=-1", "from", "first tick"),
        ("/api/history/cpi?from=9&to=3", "from", "at most to (3)"),
        ("/api/history/cpi?step=0", "step", "1 to 1000000"),
        ("/api/history/cpi?format=xml", "format", "'json' or 'csv'"),
        ("/api/events?type=%27%20OR%201=1", "type", "resource_discovered"),
        ("/api/events?cursor=abc", "cursor", "next_cursor"),
    ],
)
async def test_wrong_parameters_are_400_and_named(bot: Bot, path: str, field: str, allowed: str) -> None:
    """Unknown, twice, out of bounds, in another form."""
    async with bot.arena.client() as client:
        response = await client.get(path)

    assert response.status_code == 400
    assert response.json()["errors"][0]["field"] == field
    assert allowed in response.json()["errors"][0]["allowed"]


async def test_a_world_that_was_sent_all_of_this_is_as_if_it_had_not_been() -> None:
    """The hash after some ticks equals that of a world nobody troubled."""
    hashes = []
    for is_troubled in (True, False):
        async with run_server(rate_limit=100_000) as arena:
            bot = await arena.register()
            if is_troubled:
                for body, *_ in BAD_JSON.values():
                    await post(bot, body, "application/json")
                for body, _ in BAD_MSGPACK.values():
                    await post(bot, body, "application/msgpack")
            await arena.step(3)
            hashes.append(arena.economy.state_hash())

    assert hashes[0] == hashes[1]


async def post(
    bot: Bot, body: bytes | AsyncIterator[bytes], media: str | None, headers: dict[str, str] | None = None
) -> httpx2.Response:
    """Post a body as an action of the bot."""
    given = dict(headers or {})
    if media is not None:
        given["Content-Type"] = media
    async with bot.arena.client(bot.api_key) as client:
        return await client.post(f"/api/agents/{bot.agent_id}/action", content=body, headers=given)


def journaled(bot: Bot) -> int:
    """Return the sequence number the next record will have: nothing but input adds to it while no tick runs."""
    return bot.arena.recorder.journal.next_seq


_last_seen: dict[str, int] = {}


def check_refused(bot: Bot, response: httpx2.Response, status: int, allowed: str) -> None:
    """Hold an answer to what every refusal must be, and the journal to what it was."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = documents.Problem.model_validate_json(response.content)
    assert problem.status == status
    assert not problem.temporary
    assert problem.request_id == response.headers["x-request-id"]
    assert problem.tick == int(response.headers["arena-tick"])
    assert allowed in response.text.replace("\\u00b1", "+-")
    assert len(bot.arena.parts.world.queue) == 0
    assert journaled(bot) == _last_seen.setdefault(bot.agent_id, journaled(bot))
