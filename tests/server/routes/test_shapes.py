"""Bad shape over real HTTP, one by one: a clear answer, nothing journaled, nothing changed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from server import documents
from tests.support.arena import Bot, run_server
from tests.support.bad_actions import BAD_JSON, BAD_MSGPACK, LIMIT, text

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bot() -> AsyncIterator[Bot]:
    """An agent in a world that ticks by hand, so whatever is journaled is seen."""
    async with run_server(rate_limit=100_000) as arena:
        await arena.register()
        yield await arena.register()


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
