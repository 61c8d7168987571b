"""One action, three ways: the ordinary route, HotRoute beside it, and the protocol before both. One answer."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx2
import msgpack
import pytest
import pytest_asyncio

from server.live.errors import JournalFailed
from server.protocols import ArenaHttpProtocol, HotCycle
from server.routes.hot import OPERATION
from tests.support.arena import Bot, RunningServer, run_server
from tests.support.bad_actions import BAD_JSON, BAD_MSGPACK, LIMIT, text
from tests.support.disks import Disk
from tests.support.live import until
from tests.support.raw_http import Answer, Connection, connected, post

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON, MSGPACK = "Content-Type: application/json", "Content-Type: application/msgpack"
WAYS = ("ordinary", "route", "protocol")
GET = b"GET /api/time HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
UNUSUAL = "Cookie: not=ours"
"""A header that is for the ordinary route, which does not look at it either."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def arena() -> AsyncIterator[RunningServer]:
    """A world that ticks by hand, with an agent that is somebody else's."""
    async with run_server(rate_limit=1_000_000) as arena:
        yield arena


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bot(arena: RunningServer) -> Bot:
    """An agent of one's own."""
    await arena.register()
    return await arena.register()


# --- the same answer ---------------------------------------------------------------------------------------------
GOOD: dict[str, dict[str, Any]] = {
    "limit": {},
    "limit till a tick": {"time_in_force": "gtt", "expires_tick": 5_000},
    "with a validity": {"valid_until_tick": 900},
    "price as a number": {"price": 1.25},
    "market": {"type": "market", "price": None},
    "cancel": {"type": "cancel", "order_id": "7", "price": None, "market": None, "side": None, "quantity": None},
    "moods": {
        "type": "set_sentiment", "sentiment": 0.5, "fear": 0.1, "greed": 0.25, "confidence": 1.0, "price": None,
        "market": None, "side": None, "quantity": None,
    },
    "borrow, which is not taken at sight": {
        "type": "borrow", "amount": "1", "price": None, "market": None, "side": None, "quantity": None,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
async def test_an_accepted_action_is_answered_alike(bot: Bot, name: str) -> None:
    """Status, every header, every member of the receipt."""
    action = {key: value for key, value in {**LIMIT, **GOOD[name]}.items() if value is not None}

    answers = [
        await ask(bot, way, json.dumps({**action, "client_action_id": f"good-{list(GOOD).index(name)}-{way}"}).encode())
        for way in WAYS
    ]

    assert [answer.status for answer in answers] == [202, 202, 202]
    check_alike(answers)


@pytest.mark.parametrize("name", BAD_JSON)
async def test_a_bad_body_is_answered_alike(bot: Bot, name: str) -> None:
    """The same problem, whichever way it came, and nothing journaled."""
    body, status, allowed = BAD_JSON[name]
    before = journaled(bot)

    answers = [await ask(bot, way, body) for way in WAYS[:2]]
    async with learned(bot) as connection:
        after = journaled(bot)
        answers.append(await connection.ask(request(bot, body)))

    assert [answer.status for answer in answers] == [status] * 3
    assert allowed in answers[0].body.decode()
    assert {answer.json()["detail"] for answer in answers} == {answers[0].json()["detail"]}
    check_alike(answers)
    assert (journaled(bot), after) == (before + 1, before + 1), "the one that made the last connection known"


@pytest.mark.parametrize("name", BAD_MSGPACK)
async def test_bad_msgpack_is_answered_alike(bot: Bot, name: str) -> None:
    """Another encoding is for the ordinary route, good or bad."""
    body, _ = BAD_MSGPACK[name]

    answers = [await ask(bot, way, body, MSGPACK) for way in WAYS]

    assert [answer.status for answer in answers] == [400] * 3
    check_alike(answers)


HEADERS: dict[str, tuple[tuple[str, ...], int]] = {
    "no content type": (("Accept: */*",), 415),
    "another content type": (("Content-Type: text/plain",), 415),
    "a content type with parameters": (("Content-Type: Application/JSON; charset=utf-8",), 202),
    "a compressed body": ((JSON, "Content-Encoding: gzip"), 415),
    "not compressed, said aloud": ((JSON, "Content-Encoding: identity"), 202),
    "a name of its own": ((JSON, "X-Request-Id: mine.1"), 202),
    "a name that is none": ((JSON, "X-Request-Id: <b>"), 202),
    "a header twice": ((JSON, "Accept: */*", "Accept: text/html"), 202),
    "a header of the client's": ((JSON, "X-Client-Version: 3"), 202),
    "a trace": ((JSON, "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), 202),
    "an origin": ((JSON, "Origin: http://127.0.0.1"), 202),
    "continue expected": ((JSON, "X-Expect: no"), 202),
}


@pytest.mark.parametrize("name", HEADERS)
async def test_headers_are_answered_alike(bot: Bot, name: str) -> None:
    """What a header changes, it changes every way."""
    headers, status = HEADERS[name]

    answers = [
        await ask(bot, way, text(client_action_id=f"header-{list(HEADERS).index(name)}-{i}"), *headers)
        for i, way in enumerate(WAYS)
    ]

    assert [answer.status for answer in answers] == [status] * 3
    check_alike(answers)
    if name == "a name of its own":
        assert {answer.headers["x-request-id"] for answer in answers} == {"mine.1"}


@pytest.mark.parametrize("agent_id", ["a1", "a999999999", "a01", "17", "a" + "9" * 16, "a" + "9" * 17, "%61%31"])
async def test_an_agent_that_is_not_yours_is_not_there(bot: Bot, agent_id: str) -> None:
    """Somebody else's, nobody's and malformed ones: the same 404."""
    answers = [await ask(bot, way, text(), agent_id=agent_id) for way in WAYS]

    assert [(answer.status, answer.json()["code"]) for answer in answers] == [(404, 110)] * 3
    check_alike(answers)


@pytest.mark.parametrize("query", ["?validate=true", "?validate=false", "?wait=never", "?x=1", "?"])
async def test_a_query_is_for_the_ordinary_route(bot: Bot, query: str) -> None:
    """Whatever it asks for, it is answered alike."""
    answers = [
        await ask(bot, way, text(client_action_id=f"query-{len(query)}-{i}"), query=query) for i, way in enumerate(WAYS)
    ]

    check_alike(answers)


@pytest.mark.parametrize("key", ["Authorization: Bearer ak_no", "Authorization: Basic x", "X-API-Key: no", "X-None: 1"])
async def test_a_wrong_key_is_401(bot: Bot, key: str) -> None:
    """No key and every wrong one."""
    answers = [await ask(bot, way, text(), JSON, key=key) for way in WAYS[:2]]

    assert [answer.status for answer in answers] == [401, 401]
    check_alike(answers)


async def test_a_used_id_is_a_duplicate_or_a_conflict_whichever_way(bot: Bot) -> None:
    """One effect per id: what one way took, the others know."""
    first = await ask(bot, "protocol", text(client_action_id="once"))
    before = journaled(bot)

    again = [await ask(bot, way, text(client_action_id="once", price=1.25)) for way in WAYS[:2]]
    other = [await ask(bot, way, text(client_action_id="once", quantity=6)) for way in WAYS[:2]]
    async with learned(bot) as connection:
        again.append(await connection.ask(request(bot, text(client_action_id="once", time_in_force="gtc"))))
        other.append(await connection.ask(request(bot, text(client_action_id="once", side="sell"))))
        assert is_at_sight(bot, connection)

    assert [answer.json() for answer in again] == [{**first.json(), "duplicate": True}] * 3
    assert [(answer.status, answer.json()["code"]) for answer in other] == [(409, 140)] * 3
    check_alike(other)
    assert journaled(bot) == before + 1, "the one that made the third connection known"


async def test_answers_that_are_ready_in_one_turn_leave_together(bot: Bot) -> None:
    """One behind the other, in a later turn than the one in which the disk was ready: a client is woken once."""
    hot = bot.arena.server._opening.hot
    assert hot is not None
    order: list[str] = []
    async with learned(bot) as connection:
        await connection.ask(request(bot, text(client_action_id="together")))
        likeness = protocol(bot, connection)._likeness
        for name in ("one", "two"):
            body = request(bot, text(client_action_id=f"together-{name}"))
            assert hot.serve(likeness, body, lambda *_, name=name: order.append(name))
        bot.arena.recorder.journal.when_durable(journaled(bot) - 1, lambda failure: order.append("durable"))
        await until(lambda: "two" in order)

    assert order == ["durable", "one", "two"]


async def test_msgpack_finds_what_json_left(bot: Bot) -> None:
    """The same action in another encoding is the same action."""
    first = await ask(bot, "protocol", text(client_action_id="packed"))

    again = await ask(bot, "ordinary", msgpack.packb({**LIMIT, "client_action_id": "packed"}), MSGPACK)

    assert again.json() == {**first.json(), "duplicate": True}


async def test_a_key_without_requests_left_is_429_whichever_way() -> None:
    """The same limits from the same bucket, said in the same headers; what is refused costs nothing."""
    async with run_server(rate_limit=20) as arena:
        bot = await arena.register()
        async with learned(bot) as connection:
            second = await connection.ask(request(bot, text(client_action_id="second")))
            refused = [await connection.ask(request(bot, text(client_action_id="third")))]
            assert is_at_sight(bot, connection)
        refused += [await ask(bot, way, text(client_action_id="third")) for way in WAYS[:2]]
        count = arena.parts.metrics.registry.get_sample_value("arena_rate_limited_total", {"kind": "key"})

    assert second.headers["x-ratelimit-remaining"] == "0"
    assert [(answer.status, answer.headers["retry-after"]) for answer in refused] == [(429, "3")] * 3
    check_alike(refused)
    assert count == 3


async def test_a_request_that_is_passed_on_is_counted_once() -> None:
    """Whoever it is that looks at a body first, its key pays one request."""
    async with run_server(rate_limit=1_000) as arena:
        bot = await arena.register()
        async with learned(bot) as connection:
            left = [
                int((await connection.ask(request(bot, body))).headers["x-ratelimit-remaining"])
                for body in (text(quantity=0), text(client_action_id="b"), text(quantity=0), text(client_action_id="c"))
            ]

    assert left == [98, 97, 96, 95]


async def test_a_revoked_key_opens_nothing_on_a_connection_that_knew_it() -> None:
    """What is remembered of a request is how it began, not what it may."""
    async with run_server() as arena:
        headers = {"Idempotency-Key": "a-secret-of-my-own"}
        async with arena.client() as client:
            made = (await client.post("/api/agents/register", headers=headers)).json()
            bot = Bot(arena, made["agent_id"], made["api_key"])
            async with learned(bot) as connection:
                before = await connection.ask(request(bot, text(client_action_id="before")))
                await client.post("/api/agents/register", headers=headers)

                after = await connection.ask(request(bot, text(client_action_id="after")))

    assert (before.status, after.status, after.json()["code"]) == (202, 401, 131)


async def test_an_agent_that_left_gets_its_receipts_and_nothing_else() -> None:
    """Also on a connection that acted for it."""
    async with run_server() as arena:
        bot = await arena.register()
        async with learned(bot) as connection:
            first = await connection.ask(request(bot, text(client_action_id="first")))
            async with arena.client(bot.api_key) as client:
                await client.delete(f"/api/agents/{bot.agent_id}", headers={"Prefer": "respond-async"})
            await arena.step()

            again = await connection.ask(request(bot, text(client_action_id="first")))
            new = await connection.ask(request(bot, text(client_action_id="new")))

    assert (first.status, again.status, again.json()["duplicate"]) == (202, 202, True)
    assert (new.status, new.json()["code"]) == (404, 110)


async def test_every_way_is_counted_and_timed(bot: Bot) -> None:
    """In one series."""
    registry = bot.arena.parts.metrics.registry
    labels = {"method": "POST", "route": OPERATION.path, "status": "202"}
    before = [registry.get_sample_value("arena_http_requests_total", labels) or 0.0]

    async with learned(bot) as connection:
        before.append(registry.get_sample_value("arena_http_requests_total", labels) or 0.0)
        await connection.ask(request(bot, text(client_action_id="counted-1")))
        await connection.ask(request(bot, text(client_action_id="counted-2"), JSON, UNUSUAL))
    after = registry.get_sample_value("arena_http_requests_total", labels)
    timed = registry.get_sample_value("arena_http_seconds_count", {"route": OPERATION.path})

    assert (before[1] - before[0], after) == (1.0, before[0] + 3)
    assert timed is not None
    assert timed >= after


# --- which way ---------------------------------------------------------------------------------------------------
async def test_a_request_like_the_one_before_takes_the_short_way(bot: Bot) -> None:
    """Another body, another length, another agent of the owner: still alike."""
    mate = await bot.arena.register(bot.api_key)
    async with learned(bot) as connection:
        for i, agent_id in enumerate((bot.agent_id, mate.agent_id, bot.agent_id)):
            body = text(client_action_id="x" * (i + 1) + "-like")
            answer = await connection.ask(request(bot, body, agent_id=agent_id))
            assert (answer.status, is_at_sight(bot, connection)) == (202, True)


async def test_moods_take_the_short_way(bot: Bot) -> None:
    """An agent states one in every tick."""
    moods = {"type": "set_sentiment", "sentiment": 0.5, "fear": 0.1, "greed": 0.25, "confidence": 1.0}
    async with learned(bot) as connection:
        answer = await connection.ask(request(bot, json.dumps({**moods, "client_action_id": "moods"}).encode()))
        assert (answer.status, is_at_sight(bot, connection)) == (202, True)


async def test_requests_between_do_not_make_it_forget(bot: Bot) -> None:
    """A bot reads prices and acts on one connection."""
    async with learned(bot) as connection:
        for i in range(3):
            assert (await connection.ask(GET)).status == 200
            assert not is_at_sight(bot, connection)
            answer = await connection.ask(request(bot, text(client_action_id=f"between-{i}")))
            assert (answer.status, is_at_sight(bot, connection)) == (202, True)


async def test_another_head_is_learned_anew(bot: Bot) -> None:
    """A client that changes its headers goes the long way once."""
    async with learned(bot) as connection:
        ways = []
        for i in range(3):
            await connection.ask(request(bot, text(client_action_id=f"anew-{i}"), JSON, "Accept: text/x"))
            ways.append(is_at_sight(bot, connection))

    assert ways == [False, True, True]


@pytest.mark.parametrize(
    "headers",
    [
        (JSON, UNUSUAL),
        (JSON, "X-Request-Id: same"),
        (JSON, "Accept-Charset: utf-8"),
        (MSGPACK,),
    ],
)
async def test_what_is_not_indifferent_is_never_learned(bot: Bot, headers: tuple[str, ...]) -> None:
    """A header the short way does not know keeps its requests on the long one."""
    async with connected(bot.arena.url) as connection:
        for i in range(3):
            body: dict[str, Any] = {**LIMIT, "client_action_id": f"never-{len(headers)}{headers[-1][:3]}-{i}"}
            data = msgpack.packb(body) if headers == (MSGPACK,) else json.dumps(body).encode()
            assert (await connection.ask(request(bot, data, *headers))).status == 202
            assert not is_at_sight(bot, connection)


async def test_a_refused_head_is_never_learned(bot: Bot) -> None:
    """Only what was let pass by everything is let pass again."""
    async with connected(bot.arena.url) as connection:
        for _ in range(3):
            assert (await connection.ask(request(bot, text(quantity=0)))).status == 400
        assert not is_at_sight(bot, connection)
        await connection.ask(request(bot, text(client_action_id="first-good-one")))
        assert not is_at_sight(bot, connection)


@pytest.mark.parametrize("cut", [1, 60, 200, -1])
async def test_a_request_in_pieces_goes_the_long_way(bot: Bot, cut: int) -> None:
    """It is put together by the parser, and answered as ever."""
    whole = request(bot, text(client_action_id=f"pieces{cut}"))
    async with learned(bot) as connection:
        connection.writer.write(whole[:cut])
        await until(lambda: not protocol(bot, connection)._is_between())
        answer = await connection.ask(whole[cut:])
        assert not is_at_sight(bot, connection)
        again = await connection.ask(request(bot, text(client_action_id=f"pieced{cut}")))
        assert is_at_sight(bot, connection)

    assert (answer.status, again.status) == (202, 202)


async def test_requests_sent_at_once_are_answered_in_turn(bot: Bot) -> None:
    """Pipelined, they go through the parser; their answers come in the order of the requests."""
    names = [f"piped-{i}" for i in range(20)]
    async with learned(bot) as connection:
        connection.writer.write(b"".join(request(bot, text(client_action_id=name)) for name in names))
        answers = [(await connection.answer()).json()["client_action_id"] for _ in names]

    assert answers == names


async def test_more_bytes_than_announced_are_the_next_request(bot: Bot) -> None:
    """They are not taken for a longer body."""
    async with learned(bot) as connection:
        connection.writer.write(request(bot, text(client_action_id="longer")) + GET)
        answers = [await connection.answer() for _ in range(2)]

    assert [answer.status for answer in answers] == [202, 200]
    assert answers[0].json()["client_action_id"] == "longer"


async def test_another_server_asks_the_route(bot: Bot) -> None:
    """Any ASGI server, or none: HotRoute is a plain application."""
    transport = httpx2.ASGITransport(app=bot.arena.app)
    headers = {"Authorization": f"Bearer {bot.api_key}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
        response = await client.post(
            f"/api/agents/{bot.agent_id}/action", json={**LIMIT, "client_action_id": "elsewhere"}
        )

    assert (response.status_code, response.json()["client_action_id"]) == (202, "elsewhere")


# --- while the disk is busy, or gone -----------------------------------------------------------------------------
async def test_an_answer_waits_for_the_disk_and_what_follows_waits_for_the_answer(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request sent while one is being answered at sight is read, and answered after it."""
    disk = Disk(monkeypatch)
    async with learned(bot) as connection:
        with disk.shut():
            connection.writer.write(request(bot, text(client_action_id="waits")))
            await until(lambda: is_at_sight(bot, connection) and disk.is_busy)
            connection.writer.write(GET)
            await until(lambda: bool(protocol(bot, connection).pipeline))
        answers = [await connection.answer() for _ in range(2)]

    assert [answer.status for answer in answers] == [202, 200]
    assert answers[0].json()["client_action_id"] == "waits"


async def test_a_client_that_hangs_up_meanwhile_has_acted_all_the_same(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is answered, nothing breaks, and the receipt is there to be asked for."""
    disk = Disk(monkeypatch)
    async with learned(bot) as connection:
        with disk.shut():
            connection.writer.write(request(bot, text(client_action_id="hung-up")))
            await until(lambda: is_at_sight(bot, connection) and disk.is_busy)
            lost = protocol(bot, connection)
            connection.writer.close()
            await until(lambda: lost not in bot.arena.server.server_state.connections)

    assert (await bot.receipt("hung-up"))["status"] == "accepted"


async def test_a_disk_that_fails_is_504_and_then_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent to it may or may not be applied; what comes later surely is not."""

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    answers: list[Answer] = []

    async def act() -> None:
        async with run_server() as arena:
            bot = await arena.register()
            async with learned(bot) as connection:
                monkeypatch.setattr(os, "fdatasync", failing)
                answers.append(await connection.ask(request(bot, text(client_action_id="unknown"))))
                assert is_at_sight(bot, connection)
                monkeypatch.undo()
                answers.append(await connection.ask(request(bot, text(client_action_id="refused"))))
                assert is_at_sight(bot, connection)
                answers.extend([await ask(bot, way, text(client_action_id="refused")) for way in WAYS[:2]])

    with pytest.raises(JournalFailed, match="the disk is gone"):
        # how such a server ends
        await act()

    unknown, *refused = answers
    assert (unknown.status, unknown.json()["code"]) == (504, 504)
    assert [(answer.status, answer.json()["code"]) for answer in refused] == [(503, 502)] * 3
    check_alike(refused)


async def test_a_server_that_stops_answers_what_it_is_answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says that it closes the connection."""
    disk = Disk(monkeypatch)
    async with run_server() as arena:
        bot = await arena.register()
        async with learned(bot) as connection:
            with disk.shut():
                connection.writer.write(request(bot, text(client_action_id="last")))
                await until(lambda: is_at_sight(bot, connection) and disk.is_busy)
                cycle = protocol(bot, connection).cycle
                arena.server.stop()
                await until(lambda: not cycle.keep_alive)
            answer = await connection.answer()
            rest = await connection.end()

    assert (answer.status, answer.headers["connection"], rest) == (202, "close", b"")


# --- helpers -----------------------------------------------------------------------------------------------------
def request(bot: Bot, body: bytes, *headers: str, key: str | None = None, agent_id: str = "", query: str = "") -> bytes:
    """Return the bytes of an action."""
    path = f"/api/agents/{agent_id or bot.agent_id}/action{query}"
    return post(path, body, key or f"Authorization: Bearer {bot.api_key}", *(headers or (JSON,)))


@asynccontextmanager
async def learned(bot: Bot) -> AsyncIterator[Connection]:
    """Give a connection on which an action of a bot was accepted, so that others like it are known."""
    async with connected(bot.arena.url) as connection:
        answer = await connection.ask(request(bot, text(client_action_id=f"warm-{next(_numbers)}")))
        assert answer.status in (202, 404, 429), answer
        yield connection


_numbers = itertools.count()


async def ask(bot: Bot, way: str, body: bytes, *headers: str, **changes: str) -> Answer:
    """Send an action one of the ways and return its answer."""
    headers = headers or (JSON,)
    if way == "ordinary":
        headers = (*headers, UNUSUAL)
    async with connected(bot.arena.url) if way != "protocol" else learned(bot) as connection:
        return await connection.ask(request(bot, body, *headers, **changes))


def protocol(bot: Bot, connection: Connection) -> ArenaHttpProtocol:
    """Return the server's end of a connection."""
    mine = connection.writer.get_extra_info("sockname")
    found = (other for other in bot.arena.server.server_state.connections if other.client == mine)
    return cast(ArenaHttpProtocol, next(found))


def is_at_sight(bot: Bot, connection: Connection) -> bool:
    """Return whether the last request of a connection was answered at sight, or is going to be."""
    return isinstance(protocol(bot, connection).cycle, HotCycle)


def journaled(bot: Bot) -> int:
    """Return the sequence of the next record."""
    return bot.arena.recorder.journal.next_seq


def check_alike(answers: list[Answer]) -> None:
    """See to it that answers differ in nothing but what is each one's own."""
    assert [_common(answer) for answer in answers] == [_common(answers[0])] * len(answers)


def _common(answer: Answer) -> tuple[int, dict[str, str], Any]:
    """Return an answer without what is its own: date, name, what is left of the rate, sequence, id."""
    own = {"date", "x-request-id", "ratelimit", "x-ratelimit-remaining", "x-ratelimit-reset", "content-length"}
    headers = {name: "" if name in own else value for name, value in answer.headers.items()}
    document = {
        name: value
        for name, value in answer.json().items()
        if name not in ("request_id", "seq", "client_action_id", "detail")
    }
    return answer.status, headers, document
