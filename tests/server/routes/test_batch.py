"""Batches over real HTTP: item by item, once in any encoding, refused early when there is no room."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx2
import msgpack
import pytest
import pytest_asyncio
from arena_client import ArenaClient, BadRequest, Credentials
from arena_client.columns import BatchOutcome, decode_answer, encode_columns

from engine.journal import RecordKind, decode_actions, decode_mark
from engine.markets import ID
from engine.messages import Reject, Status
from server import documents
from server.clock import ManualClock
from server.live.journal import read_segments, segment_paths
from server.protocols import HotCycle
from tests.support.arena import Bot, RunningServer, run_server
from tests.support.deadlines import seconds
from tests.support.live import until
from tests.support.raw_http import connected, post

LIMIT: dict[str, Any] = {
    "client_action_id": "a-1", "type": "limit", "market": "food", "side": "buy", "quantity": 5, "price": "0.5",
}  # fmt: skip
MSGPACK = {"Content-Type": "application/msgpack"}
BINARY = "Content-Type: application/msgpack"


def limit(action_id: str, agent_id: str, **changes: Any) -> dict[str, Any]:
    """Return a buy order far below the market, with changes."""
    return {**LIMIT, "client_action_id": action_id, "agent_id": agent_id, **changes}


def binary_limits(names: list[str], agent_id: Any, **changes: Any) -> bytes:
    """Return the same orders as a binary batch."""
    columns = {
        "agent_id": agent_id,
        "type": "limit",
        "market": ID["food"],
        "side": "buy",
        "quantity": 5,
        "price": "0.5",
    }
    return encode_columns({**columns, "client_action_id": names, **changes})


@pytest_asyncio.fixture
async def arena() -> AsyncIterator[RunningServer]:
    """A world that ticks by hand."""
    async with run_server() as arena:
        yield arena


# --- objects -----------------------------------------------------------------------------------------------------
async def test_a_batch_is_taken_item_by_item(arena: RunningServer) -> None:
    """Good ones are accepted, bad ones answered, each with the status it would have had alone."""
    bot = await arena.register()
    mate, stranger = await arena.register(bot.api_key), await arena.register()
    items = [
        limit("b1", bot.agent_id),
        limit("b2", mate.agent_id),
        limit("b3", stranger.agent_id),
        limit("b4", bot.agent_id, quantity=0),
        {**LIMIT, "client_action_id": "b5"},
        limit("b1", bot.agent_id, quantity=9),
        limit("b1", bot.agent_id),
        7,
        limit("b6", bot.agent_id, expires_tick=None),
    ]

    response = await objects(bot, items)

    results = documents.BatchResults.model_validate_json(response.content)
    assert results.results is not None
    assert response.status_code == 202
    assert [result.status for result in results.results] == [202, 202, 404, 400, 404, 409, 202, 400, 202]
    assert (results.accepted, results.refused) == (4, 5)
    assert results.results[6].receipt is not None
    assert results.results[6].receipt.duplicate
    assert results.results[3].error is not None
    assert results.results[3].error.errors[0].field == "quantity"


async def test_a_batch_is_one_record_in_its_order(arena: RunningServer) -> None:
    """Sequences in a row, in the journal, in the queue and on the receipts; the mark counts every action."""
    bot = await arena.register()
    names = [f"b{i}" for i in range(5)]

    response = await objects(bot, [limit(name, bot.agent_id) for name in names])
    queued = arena.recorder.queue._filling[: len(arena.recorder.queue)]["seq"].tolist()
    await arena.step()

    seqs = [result["receipt"]["seq"] for result in response.json()["results"]]
    records = list(read_segments(segment_paths(arena.parts.settings.data)))
    (record,) = [record for record in records if record.kind is RecordKind.ACTIONS]
    assert seqs == queued == list(range(record.sequence, record.sequence + 5))
    assert decode_actions(record).client_action_ids == names
    assert decode_mark(records[-1].payload).actions == 5
    assert [(await bot.receipt(name))["seq"] for name in names] == seqs
    assert len((await bot.account())["orders"]) == 5


async def test_a_batch_waits_for_its_outcomes_and_can_be_validated(arena: RunningServer) -> None:
    """The same two questions as for one action."""
    bot = await arena.register()
    items = [limit("b1", bot.agent_id), limit("b2", bot.agent_id, side="sell")]

    checked = await objects(bot, items, validate="true")
    (decided,) = await waited(arena, objects(bot, items, wait="outcome"))

    assert [row["verdict"]["code"] for row in checked.json()["results"]] == [0, Reject.NO_HOLDINGS]
    assert [row["status"] for row in decided.json()["results"]] == [200, 422]
    assert decided.json()["results"][1]["error"]["receipt"]["outcome"]["code"] == Reject.NO_HOLDINGS
    documents.BatchResults.model_validate_json(checked.content)
    documents.BatchResults.model_validate_json(decided.content)


@pytest.mark.parametrize("body", [{"actions": []}, {"actions": [{}] * 1_001}, {}, {"actions": [], "x": 1}, []])
async def test_a_batch_of_another_shape_is_refused_as_a_whole(arena: RunningServer, body: Any) -> None:
    """1 to 1,000 actions in a list under `actions`."""
    bot = await arena.register()
    async with arena.client(bot.api_key) as client:
        response = await client.post("/api/actions", json=body)

    assert response.status_code == 400


# --- columns -----------------------------------------------------------------------------------------------------
async def test_columns_are_answered_in_columns(arena: RunningServer) -> None:
    """Lists for lists; texts only for what is wrong, with the places it is wrong at."""
    bot, stranger = await arena.register(), await arena.register()
    columns = {
        "agent_id": [bot.agent_id, stranger.agent_id, bot.agent_id, bot.agent_id, "a9"],
        "type": ["limit", "limit", "cancel", "limit", "limit"],
        "client_action_id": ["c1", "c2", "c3", "c1", "c4"],
        "market": ["food", "food", None, "food", "food"],
        "side": ["buy", "buy", None, "buy", "buy"],
        "quantity": [5, 5, None, 5, 5],
        "price": ["0.5", "0.5", None, 0.5, "0.5"],
    }

    async with arena.client(bot.api_key) as client:
        response = await client.post("/api/actions", json={"columns": columns})

    document = response.json()
    documents.BatchResults.model_validate(document)
    assert response.status_code == 202
    assert (document["accepted"], document["refused"]) == (2, 3)
    assert document["columns"]["status"] == [202, 404, 400, 202, 404]
    assert document["columns"]["code"] == [0, 110, 101, 0, 110]
    assert document["columns"]["duplicate"] == [False, False, False, True, False]
    seqs = document["columns"]["seq"]
    assert seqs[0] == seqs[3] > 0
    assert seqs[1] == seqs[2] == seqs[4] == 0
    errors = {error["indexes"][0]: error["detail"] for error in document["errors"]}
    assert errors[2].startswith("order_id: missing")
    assert "'a9'" in errors[4]


async def test_a_binary_batch_is_answered_in_binary(arena: RunningServer) -> None:
    """Typed arrays for typed arrays, and the receipts are those of any other action."""
    bot = await arena.register()

    response = await binary(bot, binary_limits(["x1", "x2", "x1"], bot.agent_id, quantity=[5, 0, 5]))
    outcome = decode_answer(response.content)
    await arena.step()

    assert (response.status_code, response.headers["content-type"]) == (202, "application/msgpack")
    assert (outcome.accepted, outcome.refused) == (2, 1)
    assert outcome.status.tolist() == [202, 400, 202]
    assert outcome.code.tolist() == [0, 101, 0]
    assert outcome.duplicate.tolist() == [0, 0, 1]
    ((places, error),) = outcome.errors
    assert (places, error.status) == ([1], 400)
    assert error.detail.startswith("quantity: missing")
    receipt = await bot.receipt("x1")
    assert (receipt["seq"], receipt["outcome"]["status"]) == (outcome.seq[0], "resting")


async def test_columns_wait_for_outcomes_and_can_be_validated(arena: RunningServer) -> None:
    """What became of each action stands in columns of its own, money in ucr."""
    bot = await arena.register()
    body = binary_limits(["w1", "w2", "w3"], bot.agent_id, side=["buy", "sell", "buy"], price=["0.5", "0.5", "1.5"])

    checked = decode_answer((await binary(bot, body, validate="true")).content)
    (response,) = await waited(arena, binary(bot, body, wait="outcome"))

    assert checked.code.tolist() == [0, Reject.NO_HOLDINGS, 0]
    decided = decode_answer(response.content)
    assert response.status_code == 200
    assert decided.status.tolist() == [200, 422, 200]
    assert decided.code.tolist() == [0, Reject.NO_HOLDINGS, 0]
    found = {name: column.tolist() for name, column in decided.outcomes.items()}
    assert found["outcome"] == [Status.RESTING, Status.REJECTED, Status.FILLED]
    assert (found["needed"], found["available"]) == ([0, 5, 0], [0, 0, 0])
    assert (found["filled"], found["open"]) == ([0, 0, 5], [5, 0, 0])
    assert found["value_ucr"][2] == -5 * found["price_ucr"][2] < 0
    assert found["order_id"][0] == decided.seq[0]
    assert set(found["outcome_tick"]) == {arena.tick} or set(found["outcome_tick"]) == {arena.tick - 1}
    assert decided.errors == []


async def test_the_same_action_is_recognised_in_every_encoding(arena: RunningServer) -> None:
    """Sent alone, as an object, in a list, in a typed array, by text or by number: one effect, one receipt."""
    bot = await arena.register()
    first = (await bot.act({**LIMIT, "client_action_id": "77"})).json()
    item = limit("77", bot.agent_id)

    as_object = (await objects(bot, [item])).json()["results"][0]["receipt"]
    async with arena.client(bot.api_key) as client:
        lists = {"columns": {name: [value] for name, value in item.items()}}
        in_columns = (await client.post("/api/actions", json=lists)).json()["columns"]
        packed = await client.post("/api/actions", content=msgpack.packb(lists), headers=MSGPACK)
    by_text = decode_answer((await binary(bot, binary_limits(["77"], bot.agent_id))).content)
    by_number = await binary(bot, binary_limits([], bot.agent_id, client_action_id=None, client_action_number=[77]))
    other = decode_answer((await binary(bot, binary_limits(["77"], bot.agent_id, quantity=6))).content)

    assert as_object == {**first, "duplicate": True}
    assert (in_columns["seq"], in_columns["duplicate"]) == ([first["seq"]], [True])
    assert packed.json()["columns"] == in_columns
    for outcome in (by_text, decode_answer(by_number.content)):
        assert (outcome.seq[0], outcome.duplicate[0]) == (first["seq"], 1)
    assert (other.status[0], other.code[0]) == (409, 140)
    assert f"accepted as {first['seq']}" in other.errors[0][1].detail
    await arena.step()
    assert len((await bot.account())["orders"]) == 1


async def test_an_action_of_a_batch_keeps_its_receipt_over_a_restart(tmp_path: Path) -> None:
    """Duplicates are recognised by the next process, in any encoding; another action is refused."""
    async with run_server(tmp_path) as arena:
        bot = await arena.register()
        before = decode_answer((await binary(bot, binary_limits(["r1", "r2"], bot.agent_id))).content)
        await arena.step()
    async with run_server(tmp_path) as again:
        bot = Bot(again, bot.agent_id, bot.api_key)
        after = decode_answer((await binary(bot, binary_limits(["r1", "r2"], bot.agent_id))).content)
        other = await bot.act({**LIMIT, "client_action_id": "r2", "quantity": 6})
        receipt = await bot.receipt("r2")

    assert after.seq.tolist() == before.seq.tolist()
    assert after.duplicate.tolist() == [1, 1]
    assert (other.status_code, receipt["outcome"]["status"]) == (409, "resting")


async def test_an_agent_that_has_left_gets_the_receipts_it_has(arena: RunningServer) -> None:
    """In a batch as alone: what it was promised can still be asked for, nothing new is taken."""
    bot = await arena.register()
    mate = await arena.register(bot.api_key)
    await objects(bot, [limit("l1", mate.agent_id)])
    await arena.step()

    async def leave() -> httpx2.Response:
        async with arena.client(bot.api_key) as client:
            return await client.delete(f"/api/agents/{mate.agent_id}")

    await waited(arena, leave())
    outcome = decode_answer((await binary(bot, binary_limits(["l1", "l2"], mate.agent_id))).content)

    assert outcome.status.tolist() == [202, 404]
    assert outcome.duplicate.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (msgpack.packb({"columns": {"type": b"\x01", "agent_id": b"1"}}), "has 1 bytes"),
        (msgpack.packb({"columns": {"type": b"\x01", "agent_id": 5}}), "bytes is not taken"),
        (msgpack.packb({"columns": {}}), "0 actions"),
        (msgpack.packb({"actions": [b"x"]}), "bytes is not taken"),
    ],
)
async def test_binary_values_are_columns_or_nothing(arena: RunningServer, body: bytes, said: str) -> None:
    """Anywhere else they are refused as before; the journal is as it was."""
    bot = await arena.register()
    before = arena.recorder.journal.next_seq

    response = await binary(bot, body)

    assert response.status_code == 400
    assert said in response.json()["detail"]
    assert arena.recorder.journal.next_seq == before


async def test_a_binary_body_may_be_a_megabyte_and_no_more(arena: RunningServer) -> None:
    """JSON has its 256 KiB."""
    bot = await arena.register()

    large = await binary(bot, b"\xc4" * ((1 << 20) + 1))
    fits = await binary(bot, b"\xc4" * (1 << 20))

    assert (large.status_code, fits.status_code) == (413, 400)
    assert "1048576" in large.json()["detail"]


# --- no room -----------------------------------------------------------------------------------------------------
async def test_what_has_no_room_is_refused_and_the_rest_is_taken() -> None:
    """The first of a batch that fit are accepted, the others are surely not applied; known ids are still known."""
    async with run_server(queue_actions_max=16) as arena:
        bot = await arena.register()
        await objects(bot, [limit(f"q{i}", bot.agent_id, quantity=1) for i in range(14)])

        names = ["q14", "q15", "q16", "q3"]
        outcome = decode_answer((await binary(bot, binary_limits(names, bot.agent_id, quantity=1))).content)
        await arena.step()

        assert outcome.status.tolist() == [202, 202, 429, 202]
        assert outcome.duplicate.tolist() == [0, 0, 0, 1]
        ((places, error),) = outcome.errors
        assert (places, error.code) == ([2], 411)
        async with arena.client(bot.api_key) as client:
            assert (await client.get(f"/api/agents/{bot.agent_id}/actions/q16")).status_code == 404


async def test_a_full_queue_refuses_a_batch_before_a_byte_of_it_is_looked_at() -> None:
    """429 with Retry-After for whatever comes, nonsense too; counted."""
    async with run_server(queue_actions_max=16) as arena:
        bot = await arena.register()
        await objects(bot, [limit(f"q{i}", bot.agent_id, quantity=1) for i in range(16)])
        before = arena.recorder.journal.next_seq

        refused = [await binary(bot, body) for body in (b"nonsense", binary_limits(["x"], bot.agent_id))]

        assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(429, 411)] * 2
        assert refused[0].headers["retry-after"] == "1"
        assert refused[0].json()["temporary"]
        assert arena.recorder.journal.next_seq == before
        sample = arena.parts.metrics.registry.get_sample_value
        assert sample("arena_batches_refused_total") == 2
        await arena.step()
        assert (await binary(bot, binary_limits(["x"], bot.agent_id))).status_code == 202


async def test_a_batch_that_others_came_before_while_its_body_arrived_is_refused_whole() -> None:
    """There was room when its head came and none when it could be looked at: it costs no more than a refusal."""
    async with run_server(queue_actions_max=16) as arena:
        bot = await arena.register()
        key = f"Authorization: Bearer {bot.api_key}"
        filling, late = (
            post("/api/actions", binary_limits([f"{name}{i}" for i in range(16)], bot.agent_id), key, BINARY)
            for name in ("f", "l")
        )
        async with connected(arena.url) as first, connected(arena.url) as second:
            second.writer.write(late[:-1])
            await until(lambda: any(is_sending(one) for one in arena.server.server_state.connections))
            taken = await first.ask(filling)
            refused = await second.ask(late[-1:])

    assert (taken.status, refused.status, refused.json()["code"]) == (202, 429, 411)
    assert arena.parts.metrics.registry.get_sample_value("arena_batches_refused_total") == 1


def is_sending(connection: Any) -> bool:
    """Whether a request has begun whose body is not all there."""
    cycle = getattr(connection, "cycle", None)
    return cycle is not None and cycle.more_body


async def test_a_batch_without_room_is_refused_alike_at_sight_and_by_the_route() -> None:
    """Status, every header and the document; counted, taken from the key's rate, and timed, both ways."""
    async with full_server() as (arena, bot):
        sample = arena.parts.metrics.registry.get_sample_value
        ways = {"at sight": (), "route": ("Cookie: no=thing",)}
        answers = {}
        async with connected(arena.url) as connection:
            for way, headers in ways.items():
                answers[way] = await connection.ask(post("/api/actions", bytes(70_000), key_of(bot), BINARY, *headers))
                (mine,) = arena.server.server_state.connections
                assert isinstance(cast(Any, mine).cycle, HotCycle) == (way == "at sight")

        one, other = answers.values()
        assert (one.status, one.json()["code"], one.headers["retry-after"]) == (429, 411, "1")
        assert one.json().keys() == other.json().keys()
        assert one.headers.keys() == other.headers.keys()
        own = ("x-request-id", "date", "ratelimit", "x-ratelimit-remaining", "x-ratelimit-reset")
        assert {name: one.headers[name] for name in one.headers if name not in own} == {
            name: other.headers[name] for name in other.headers if name not in own
        }
        assert int(one.headers["x-ratelimit-remaining"]) == int(other.headers["x-ratelimit-remaining"]) + 1
        assert sample("arena_batches_refused_total") == 2
        labels = {"method": "POST", "route": "/api/actions", "status": "429"}
        assert sample("arena_http_requests_total", labels) == 2
        # with the one that filled it
        assert sample("arena_http_seconds_count", {"route": "/api/actions"}) == 3


async def test_a_body_that_was_refused_is_let_go_as_it_comes_and_the_next_request_is_heard() -> None:
    """The answer comes behind the head; what follows of the body belongs to nobody."""
    async with full_server() as (arena, bot):
        batch = post("/api/actions", b"GET / HTTP/1.1\r\n\r\n" * 5_000, key_of(bot), BINARY)
        head = batch.index(b"\r\n\r\n") + 4
        async with connected(arena.url) as connection:
            for cut in (head, head + 1, len(batch) - 1, len(batch)):
                refused = await connection.ask(batch[:cut])
                await arena.step()
                taken = await connection.ask(batch[cut:] + post("/api/actions", one_more(bot), key_of(bot), BINARY))
                assert (refused.status, taken.status) == (429, 202), cut
                await fill(bot)
            # both in one piece
            connection.writer.write(batch * 2)
            assert [(await connection.answer()).status for _ in range(2)] == [429, 429]


async def test_only_who_may_send_batches_is_refused_for_want_of_room() -> None:
    """A key that opens nothing is 401, and a key with nothing left of its rate is told so."""
    async with full_server(rate_limit=200) as (arena, bot), connected(arena.url) as connection:
        unknown = await connection.ask(post("/api/actions", b"", "Authorization: Bearer ak_no", BINARY))
        while (refused := await connection.ask(post("/api/actions", b"", key_of(bot), BINARY))).json()["code"] == 411:
            assert refused.status == 429

    assert unknown.status == 401
    assert (refused.status, refused.json()["code"]) == (429, 410)


_names = itertools.count()


@asynccontextmanager
async def full_server(**settings: Any) -> AsyncIterator[tuple[RunningServer, Bot]]:
    """Run a server in which there is no room for an action until the next tick, and a bot with an agent in it."""
    async with run_server(queue_actions_max=16, **settings) as arena:
        bot = await arena.register()
        await fill(bot)
        yield arena, bot


async def fill(bot: Bot) -> None:
    """Take all the room there is, whatever of it is taken."""
    names = [f"f{next(_names)}" for _ in range(16)]
    await objects(bot, [limit(name, bot.agent_id, quantity=1) for name in names])


def one_more(bot: Bot) -> bytes:
    """Return a batch of one order."""
    return binary_limits([f"o{next(_names)}"], bot.agent_id, quantity=1)


def key_of(bot: Bot) -> str:
    """Return the header with a bot's key."""
    return f"Authorization: Bearer {bot.api_key}"


async def test_while_more_come_than_fit_the_room_of_a_tick_opens_bit_by_bit() -> None:
    """Who comes later in it finds room as well; single actions are not held back."""
    async with run_server(queue_actions_max=20) as arena:
        bot = await arena.register()
        assert isinstance(arena.clock, ManualClock)

        async def send(names: str) -> int:
            return (await binary(bot, binary_limits(list(names), bot.agent_id, quantity=1))).status_code

        await send("abcdefghijklmnopqrst")
        await arena.step()
        statuses = [await send("ABCD"), await send("E")]
        alone = await bot.act({**LIMIT, "client_action_id": "alone"})
        arena.clock.advance(0.8 * arena.parts.settings.tick_rate / 1_000)
        statuses += [await send("FGHIJ"), await send("KLMNO")]
        await arena.step()
        unhurried = [await send("PQRSTUVWX"), await send("YZ")]

    assert statuses == [202, 429, 202, 202]
    assert alone.status_code == 202
    assert unhurried == [202, 202]


async def test_when_batches_have_had_their_share_of_the_time_more_are_refused(arena: RunningServer) -> None:
    """A flood of slow ones costs others nothing: what comes too much is refused before it is looked at."""
    bot = await arena.register()
    assert isinstance(arena.clock, ManualClock)
    with arena.parts.admission.budget.spent():
        arena.clock.advance(0.5)

    refused = await binary(bot, binary_limits(["x"], bot.agent_id))
    alone = await bot.act({**LIMIT, "client_action_id": "alone"})
    arena.clock.advance(1.0)
    taken = await binary(bot, binary_limits(["x"], bot.agent_id))

    assert (refused.status_code, refused.json()["code"]) == (429, 411)
    assert "time there is" in refused.json()["detail"]
    assert (alone.status_code, taken.status_code) == (202, 202)


async def test_a_batch_that_would_wait_too_long_for_its_turn_is_refused(arena: RunningServer) -> None:
    """Those who wait already have theirs; single actions have nothing to do with it."""
    bot = await arena.register()
    clock, turns = arena.clock, arena.parts.admission.turns
    assert isinstance(clock, ManualClock)

    async def slow() -> None:
        await turns.take()
        clock.advance(0.01)

    batch = post("/api/actions", binary_limits(["x"], bot.agent_id), key_of(bot), BINARY)
    async with connected(arena.url) as connection:
        others = [asyncio.create_task(slow()) for _ in range(1_000)]
        await others[10]
        refused = await connection.ask(batch)
        alone = await bot.act({**LIMIT, "client_action_id": "alone"})
        assert len(turns) > 0
        await asyncio.gather(*others)
        taken = await connection.ask(batch)

    assert (refused.status, refused.json()["code"]) == (429, 411)
    assert "as many batches wait" in refused.json()["detail"]
    assert (alone.status_code, taken.status) == (202, 202)


async def test_a_world_that_takes_no_input_refuses_batches_at_once(arena: RunningServer) -> None:
    """503 before the body is looked at."""
    bot = await arena.register()
    arena.recorder.freeze("as the test wishes")

    response = await binary(bot, b"nonsense")

    assert (response.status_code, response.json()["code"]) == (503, 502)


async def test_a_thousand_mistakes_hold_nobody_up(arena: RunningServer) -> None:
    """They are looked at a few at a time: another request is answered before the batch is."""
    bot = await arena.register()
    wrong = [limit(f"m{i}", bot.agent_id, quantity="many") for i in range(1_000)]
    order: list[str] = []

    async def ask(name: str, question: Callable[[], Any]) -> httpx2.Response:
        response: httpx2.Response = await question()
        order.append(name)
        return response

    async with arena.client() as client:
        batch = asyncio.create_task(ask("batch", lambda: objects(bot, wrong)))
        await until(lambda: bool(arena.parts.metrics.actions.labels("limit", "invalid")._value.get()))
        await ask("time", lambda: client.get("/api/time"))
        response = await batch

    assert order == ["time", "batch"]
    assert {result["status"] for result in response.json()["results"]} == {400}


async def objects(bot: Bot, items: list[Any], **query: str) -> httpx2.Response:
    """Post a batch of objects with the bot's key."""
    async with bot.arena.client(bot.api_key) as client:
        return await client.post("/api/actions", json={"actions": items}, params=query)


async def binary(bot: Bot, body: bytes, **query: str) -> httpx2.Response:
    """Post a batch in msgpack with the bot's key."""
    async with bot.arena.client(bot.api_key) as client:
        return await client.post("/api/actions", content=body, headers=MSGPACK, params=query)


async def waited(arena: RunningServer, *requests: Any) -> list[Any]:
    """Run requests that wait for their tick, and ticks until they are answered."""
    answers = asyncio.gather(*requests)
    async with asyncio.timeout(seconds(20)):
        while not answers.done():
            await arena.step()
        return await answers


async def test_the_client_sends_columns(arena: RunningServer) -> None:
    """By names of markets, with names of its own for the actions; what became of them is in arrays."""
    bot = await arena.register()
    async with ArenaClient(arena.url, Credentials(bot.agent_id, bot.api_key)) as client:
        columns = {"type": "limit", "market": ["food", "oil"], "side": "buy", "quantity": [5, 2], "price": "0.5"}

        taken = await client.batch_columns(columns)
        (decided,) = await waited(arena, client.batch_columns(columns, wait=True))
        with pytest.raises(ValueError, match="'gold' is no market"):
            await client.batch_columns(columns | {"market": "gold"})
        with pytest.raises(BadRequest, match="1001 actions"):
            await client.batch_columns(columns | {"market": "food", "quantity": [1] * 1_001})

    assert taken.status.tolist() == [202, 202]
    assert taken.seq[1] == taken.seq[0] + 1
    assert decided.outcomes["open"].tolist() == [5, 2]


def test_an_answer_that_is_none_is_refused_by_the_client() -> None:
    """Only what a server gives to a batch in columns is taken for it."""
    with pytest.raises(ValueError, match="columns"):
        decode_answer(msgpack.packb({"tick": 1}))
    assert BatchOutcome.__slots__
