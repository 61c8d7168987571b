"""Agents over real HTTP: registering, acting once, being refused by the world, leaving."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import msgpack
import numpy as np
import pytest
import pytest_asyncio

from engine.markets import ID
from engine.messages import Reject
from engine.state import persistent
from server import documents
from server.live import receipts
from server.live.receipt_index import write_generation
from server.live.registry import KEYS_KEPT
from tests.support.arena import Bot, RunningServer, run_server
from tests.support.deadlines import seconds
from tests.support.worlds import small_config

LIMIT: dict[str, Any] = {
    "client_action_id": "a-1", "type": "limit", "market": "food", "side": "buy", "quantity": 5, "price": "0.5",
}  # fmt: skip


def limit(action_id: str, **changes: Any) -> dict[str, Any]:
    """Return a buy order far below the market, with changes."""
    return {**LIMIT, "client_action_id": action_id, **changes}


@pytest_asyncio.fixture
async def arena() -> AsyncIterator[RunningServer]:
    """A world that ticks by hand."""
    async with run_server() as arena:
        yield arena


# --- registering -------------------------------------------------------------------------------------------------
async def test_registering_gives_an_agent_with_its_endowment_in_the_next_tick(arena: RunningServer) -> None:
    """201 with id and key, private to the one who asked; until the tick the agent waits."""
    async with arena.client() as client:
        response = await client.post("/api/agents/register")
    made = documents.Registered.model_validate_json(response.content)
    bot = Bot(arena, made.agent_id, made.api_key)

    waiting = await bot.account()
    await arena.step()
    account = await bot.account()

    assert response.status_code == 201
    assert response.headers["location"] == f"/api/agents/{made.agent_id}"
    assert response.headers["cache-control"] == "private, no-store"
    assert (waiting["status"], waiting["cash"]) == ("registering", "0.000000")
    assert (account["status"], account["cash"], account["advance"]) == ("active", "1000.000000", "1000.000000")
    assert account["wealth"] == "0.000000"
    documents.Agent.model_validate(account)


async def test_the_same_idempotency_key_gives_the_same_agent_a_new_key_and_revokes_the_old(
    arena: RunningServer,
) -> None:
    """A lost answer costs nothing."""
    headers = {"Idempotency-Key": "a-secret-of-my-own"}
    async with arena.client() as client:
        first = (await client.post("/api/agents/register", headers=headers)).json()
        await arena.step()
        second = (await client.post("/api/agents/register", headers=headers)).json()
        old, new = [
            await client.get(f"/api/agents/{made['agent_id']}", headers={"X-API-Key": made["api_key"]})
            for made in (first, second)
        ]

    assert first["agent_id"] == second["agent_id"]
    assert first["api_key"] != second["api_key"]
    assert (old.status_code, new.status_code) == (401, 200)
    assert len(arena.recorder.registry) == 1


@pytest.mark.parametrize("key", ["short", "x" * 129, "has spaces in it, alas"])
async def test_an_idempotency_key_that_could_be_guessed_is_refused(arena: RunningServer, key: str) -> None:
    """Whoever knows it gets a key to the agent, so it is a secret."""
    async with arena.client() as client:
        response = await client.post("/api/agents/register", headers={"Idempotency-Key": key})

    assert response.status_code == 400
    assert "16 to 128" in response.json()["detail"]
    assert len(arena.recorder.registry) == 0


async def test_registering_with_fields_or_another_type_is_refused(arena: RunningServer) -> None:
    """The world decides what an agent begins with."""
    async with arena.client() as client:
        wrong = await client.post("/api/agents/register", json={"cash": 1_000_000})
        plain = await client.post("/api/agents/register", content=b"{}", headers={"Content-Type": "text/plain"})
        empty = await client.post("/api/agents/register", json={})

    assert (wrong.status_code, plain.status_code, empty.status_code) == (400, 415, 201)


async def test_a_full_world_answers_409() -> None:
    """As many agents as maxAgents says; then the place of one that left is free again."""
    async with run_server(engine=small_config(max_agents=2)) as arena:
        bot = await arena.register()
        await arena.register()
        async with arena.client() as client:
            full = await client.post("/api/agents/register")
            await leave(bot)
            after = await client.post("/api/agents/register")

    assert (full.status_code, full.json()["code"]) == (409, Reject.AGENTS_FULL)
    assert "2 agents" in full.json()["detail"]
    assert after.status_code == 201


async def test_an_owner_has_so_many_agents_and_no_more() -> None:
    """Registering with a key adds to the owner of the key."""
    async with run_server(engine=small_config(agents_per_owner_max=2)) as arena:
        bot = await arena.register()
        second = await arena.register(bot.api_key)
        async with arena.client(bot.api_key) as client:
            full = await client.post("/api/agents/register")
            foreign = await client.get(f"/api/agents/{second.agent_id}")

    assert (full.status_code, full.json()["code"]) == (409, Reject.AGENTS_PER_OWNER)
    assert foreign.status_code == 200


async def test_a_bot_that_comes_and_goes_for_ever_keeps_its_first_key_and_the_newest(arena: RunningServer) -> None:
    """Those of the agents that left last as well; one in the middle is told that it was revoked."""
    first = await arena.register()
    await first.leave()
    keys = [first.api_key]
    for _ in range(100):
        bot = await arena.register(keys[-1])
        keys.append(bot.api_key)
        await bot.leave()

    answers = {}
    for name, key in (("first", keys[0]), ("middle", keys[50]), ("newest kept", keys[-KEYS_KEPT]), ("last", keys[-1])):
        async with arena.client(key) as client:
            answers[name] = await client.post("/api/agents/register")

    assert {name: answer.status_code for name, answer in answers.items()} == {
        "first": 201, "middle": 401, "newest kept": 201, "last": 201,
    }  # fmt: skip
    assert answers["middle"].json()["code"] == 131
    assert "revoked" in answers["middle"].json()["detail"]


# --- acting ------------------------------------------------------------------------------------------------------
async def test_an_action_is_accepted_and_decided_in_the_next_tick(arena: RunningServer) -> None:
    """202 with a receipt without outcome, then the outcome under the same id."""
    bot = await arena.register()

    response = await bot.act(limit("buy", price="1.5", quantity=3))
    await arena.step()
    receipt = await bot.receipt("buy")

    accepted = documents.Receipt.model_validate_json(response.content)
    assert (response.status_code, accepted.outcome, accepted.duplicate) == (202, None, False)
    decided = documents.Receipt.model_validate(receipt)
    assert decided.seq == accepted.seq
    assert decided.tick == arena.tick
    assert decided.outcome is not None
    assert (decided.outcome.status, decided.outcome.filled) == ("filled", 3)
    assert (await bot.account())["holdings"]["food"] == {"quantity": 3, "reserved": 0}


async def test_a_resting_order_is_seen_in_the_account_with_its_escrow(arena: RunningServer) -> None:
    """The price is the ladder's, at or below the one asked for."""
    bot = await arena.register()

    outcome = await bot.decided(limit("rest", quantity=10))
    account = await bot.account()

    (order,) = account["orders"]
    assert outcome["status"] == "resting"
    assert (order["order_id"], order["market"], order["side"], order["quantity"]) == (
        outcome["order_id"],
        "food",
        "buy",
        10,
    )
    assert Decimal("0.4999") < Decimal(order["price"]) <= Decimal("0.5")
    assert Decimal(account["escrow"]) == 10 * Decimal(order["price"])
    assert Decimal(account["cash"]) + Decimal(account["escrow"]) == 1_000


async def test_the_same_action_again_is_the_same_receipt_in_any_encoding(arena: RunningServer) -> None:
    """One effect per client_action_id, before and after its tick."""
    bot = await arena.register()
    first = (await bot.act(limit("once"))).json()

    again = (await bot.act(limit("once", price=0.5))).json()
    await arena.step()
    later = await bot.act(limit("once"))
    async with arena.client(bot.api_key) as client:
        packed = await client.post(
            f"/api/agents/{bot.agent_id}/action",
            content=msgpack.packb(limit("once", price=0.5, time_in_force="gtc")),
            headers={"Content-Type": "application/msgpack"},
        )

    assert again == {**first, "duplicate": True}
    assert later.status_code == packed.status_code == 202
    assert packed.json() == later.json()
    assert (later.json()["seq"], later.json()["duplicate"]) == (first["seq"], True)
    assert len((await bot.account())["orders"]) == 1


@pytest.mark.parametrize(
    "change", [{"price": "0.51"}, {"quantity": 6}, {"side": "sell"}, {"market": "oil"}, {"valid_until_tick": 500}]
)
async def test_another_action_under_a_used_id_is_409(arena: RunningServer, change: dict[str, Any]) -> None:
    """Nothing of it happens."""
    bot = await arena.register()
    await bot.act(limit("once"))
    before = arena.recorder.journal.next_seq

    response = await bot.act(limit("once", **change))

    assert (response.status_code, response.json()["code"]) == (409, 140)
    assert arena.recorder.journal.next_seq == before


async def test_a_retry_that_outlived_its_receipt_is_refused_when_it_names_its_last_tick(
    arena: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes once more have no second effect, whenever they come."""
    monkeypatch.setattr(receipts, "RETENTION_TICKS", 1)
    bot = await arena.register()
    action = limit("late", valid_until_tick=arena.tick + 1)
    first = await bot.decided(action)
    await arena.step(3)
    async with arena.client(bot.api_key) as client:
        gone = await client.get(f"/api/agents/{bot.agent_id}/actions/late")

    again = await bot.decided(action)

    assert (first["status"], gone.status_code) == ("resting", 404)
    assert (again["status"], again["code"]) == ("rejected", Reject.ACTION_EXPIRED)
    assert len((await bot.account())["orders"]) == 1


async def test_ids_of_two_agents_do_not_meet(arena: RunningServer) -> None:
    """A client_action_id is the agent's own."""
    one, other = await arena.register(), await arena.register()

    answers = [await bot.act(limit("same", quantity=q)) for bot, q in ((one, 1), (other, 2))]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["seq"] != answers[1].json()["seq"]


async def test_wait_outcome_answers_with_the_tick_that_decided(arena: RunningServer) -> None:
    """200 with the outcome, 422 with problem and receipt when the world refused."""
    bot = await arena.register()

    good, bad = await waited(
        arena, bot.act(limit("w1"), wait="outcome"), bot.act(limit("w2", side="sell"), wait="outcome")
    )

    assert (good.status_code, good.json()["outcome"]["status"]) == (200, "resting")
    assert (bad.status_code, bad.json()["code"]) == (422, Reject.NO_HOLDINGS)
    refusal = documents.Refusal.model_validate_json(bad.content)
    assert refusal.receipt.outcome is not None
    assert refusal.receipt.outcome.status == "rejected"
    assert "needs 5, has 0" in refusal.detail


async def test_validate_checks_and_changes_nothing(arena: RunningServer) -> None:
    """The verdict names the code; journal, receipts and account are as they were."""
    bot = await arena.register()
    before, account = arena.recorder.journal.next_seq, await bot.account()

    good = await bot.act(limit("v1"), validate="true")
    poor = await bot.act(limit("v2", quantity=1_000_000_000), validate="true")
    wrong = await bot.act(limit("v3", quantity=0), validate="true")

    verdict = documents.Verdict.model_validate_json(good.content)
    assert (good.status_code, verdict.valid, verdict.tick) == (200, True, arena.tick)
    assert (poor.json()["valid"], poor.json()["code"]) == (False, Reject.NO_FUNDS)
    assert wrong.status_code == 400
    assert arena.recorder.journal.next_seq == before
    assert await bot.account() == account


async def test_an_unknown_receipt_is_404(arena: RunningServer) -> None:
    """Never accepted, or not kept any more."""
    bot = await arena.register()
    async with arena.client(bot.api_key) as client:
        response = await client.get(f"/api/agents/{bot.agent_id}/actions/never")

    assert (response.status_code, response.json()["code"]) == (404, 115)


async def test_an_id_whose_receipt_the_disk_does_not_give_back_is_not_taken_for_a_new_one(
    arena: RunningServer, tmp_path: Path
) -> None:
    """503 for whoever asks for it and for whoever sends it again; other ids go on."""
    bot = await arena.register()
    await bot.decided({"client_action_id": "m", "type": "market", "market": "food", "side": "buy", "quantity": 1})
    receipts = arena.parts.world.receipts
    generation = write_generation(tmp_path, arena.tick, receipts.flush().rows())
    assert generation is not None
    receipts.adopt(generation)
    await arena.step()
    found = await bot.receipt("m")
    os.truncate(generation.path, 10)

    async with arena.client(bot.api_key) as client:
        asked = await client.get(f"/api/agents/{bot.agent_id}/actions/m")
    again = await bot.act({"client_action_id": "m", "type": "market", "market": "food", "side": "buy", "quantity": 1})
    other = await bot.act(limit("other"))

    assert found["outcome"]["status"] == "filled"
    assert [(answer.status_code, answer.json()["code"]) for answer in (asked, again)] == [(503, 507)] * 2
    assert other.status_code == 202


# --- refused by the world ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("action", "code"),
    [
        (limit("r", quantity=1_000_000), Reject.NO_FUNDS),
        (limit("r", side="sell"), Reject.NO_HOLDINGS),
        (limit("r", valid_until_tick=1), Reject.ACTION_EXPIRED),
        (limit("r", time_in_force="gtt", expires_tick=1), Reject.ACTION_EXPIRED),
        ({"client_action_id": "r", "type": "cancel", "order_id": "999"}, Reject.UNKNOWN_ORDER),
        ({"client_action_id": "r", "type": "borrow", "amount": 1_000_000}, Reject.CREDIT_LIMIT),
        ({"client_action_id": "r", "type": "repay", "amount": 1}, Reject.REPAY_OVER_DEBT),
        ({"client_action_id": "r", "type": "produce", "market": "food", "quantity": 1}, Reject.NO_INPUTS),
        ({"client_action_id": "r", "type": "consume", "market": "food", "quantity": 1}, Reject.NO_HOLDINGS),
    ],
)
async def test_what_the_world_refuses_is_accepted_then_rejected_and_changes_nothing(
    arena: RunningServer, action: dict[str, Any], code: Reject
) -> None:
    """202, then an outcome with its code in the next published view; the account is what it was."""
    bot = await arena.register()
    before = await bot.account()

    outcome = await bot.decided(action)
    after = await bot.account()

    assert (outcome["status"], outcome["code"]) == ("rejected", code)
    assert outcome["detail"]
    unchanged = {"tick", "last_action_tick"}
    assert {k: v for k, v in after.items() if k not in unchanged} == {
        k: v for k, v in before.items() if k not in unchanged
    }


async def test_refused_actions_leave_the_economy_as_it_would_have_been() -> None:
    """Of two worlds, one in which an agent was refused ten times: every array but the agent's last sign of life."""
    worlds = []
    for is_refused in (True, False):
        async with run_server() as arena:
            bot = await arena.register()
            for number in range(10 if is_refused else 0):
                assert (await bot.decided(limit(f"r{number}", side="sell")))["status"] == "rejected"
            await arena.step(0 if is_refused else 10)
            worlds.append({name: array.copy() for name, array in persistent(arena.economy.state)})

    refused, other = worlds
    differing = [name for name in other if not np.array_equal(refused[name], other[name])]
    assert differing == ["agent_last_tick"]


async def test_a_foreign_order_cannot_be_cancelled_and_an_own_one_only_once(arena: RunningServer) -> None:
    """Whose order it is, is decided in the tick."""
    one, other = await arena.register(), await arena.register()
    order_id = (await one.decided(limit("mine")))["order_id"]

    foreign = await other.decided({"client_action_id": "c", "type": "cancel", "order_id": order_id})
    first = await one.decided({"client_action_id": "c1", "type": "cancel", "order_id": order_id})
    second = await one.decided({"client_action_id": "c2", "type": "cancel", "order_id": order_id})

    assert (foreign["status"], foreign["code"]) == ("rejected", Reject.UNKNOWN_ORDER)
    assert first["status"] == "done"
    assert (second["status"], second["code"]) == ("rejected", Reject.UNKNOWN_ORDER)
    assert (await one.receipt("mine"))["outcome"]["status"] == "cancelled"


async def test_a_halted_market_takes_only_what_may_rest(arena: RunningServer) -> None:
    """Immediate orders are refused with the tick to come back; a limit rests."""
    bot = await arena.register()
    arena.economy.state.halt_until[ID["food"]] = arena.tick + 50

    ioc = await bot.decided(limit("ioc", time_in_force="ioc"))
    market = await bot.decided(
        {"client_action_id": "m", "type": "market", "market": "food", "side": "buy", "quantity": 1}
    )
    rests = await bot.decided(limit("rest"))

    assert [(outcome["status"], outcome["code"]) for outcome in (ioc, market)] == [
        ("rejected", Reject.MARKET_HALTED)
    ] * 2
    assert rests["status"] == "resting"


async def test_the_17th_action_of_a_tick_is_refused(arena: RunningServer) -> None:
    """With the tick when it may come again."""
    bot = await arena.register()
    for number in range(17):
        assert (await bot.act(limit(f"n{number}", quantity=1))).status_code == 202
    await arena.step()

    outcomes = [(await bot.receipt(f"n{number}"))["outcome"] for number in range(17)]

    assert [outcome["status"] for outcome in outcomes[:16]] == ["resting"] * 16
    assert (outcomes[16]["code"], outcomes[16]["needed"]) == (Reject.ACTIONS_PER_TICK, arena.tick + 1)


# --- leaving -----------------------------------------------------------------------------------------------------
async def test_leaving_with_open_orders_and_debt_settles_everything(arena: RunningServer) -> None:
    """204 once the tick has settled it; the order is cancelled, nothing of the agent is left."""
    bot = await arena.register()
    await bot.decided(limit("open"))
    await bot.decided({"client_action_id": "loan", "type": "borrow", "amount": "100"})

    response = await leave(bot)

    state = arena.economy.state
    async with arena.client(bot.api_key) as client:
        gone = await client.get(f"/api/agents/{bot.agent_id}")
    assert response.status_code == 204
    assert response.content == b""
    assert gone.status_code == 404
    assert not (state.agent_id == int(bot.agent_id[1:])).any()
    assert state.agent_cash.sum() == state.agent_escrow.sum() == state.agent_debt.sum() == 0


async def test_leaving_can_be_answered_at_once(arena: RunningServer) -> None:
    """Prefer: respond-async gives 202 and a receipt; what became of it is found under its id."""
    bot = await arena.register()
    await bot.decided(limit("open"))
    async with arena.client(bot.api_key) as client:
        accepted = await client.delete(f"/api/agents/{bot.agent_id}", headers={"Prefer": "respond-async"})
        await arena.step()
        receipt = await client.get(f"/api/agents/{bot.agent_id}/actions/{accepted.json()['client_action_id']}")
        again = await client.delete(f"/api/agents/{bot.agent_id}")

    assert (accepted.status_code, accepted.headers["preference-applied"]) == (202, "respond-async")
    assert accepted.json()["outcome"] is None
    assert (receipt.status_code, receipt.json()["outcome"]["status"]) == (200, "done")
    assert again.status_code == 204


# --- limits ------------------------------------------------------------------------------------------------------
async def test_requests_above_the_rate_are_429_until_time_has_passed() -> None:
    """A tenth of the minute's requests at once; headers say how many are left."""
    async with run_server(rate_limit=60) as arena:
        bot = await arena.register()
        async with arena.client(bot.api_key) as client:
            answers = [await client.get("/api/time") for _ in range(7)]
            arena.clock.advance(1.0)  # type: ignore[attr-defined]  # a server stepped by hand has a ManualClock
            after = await client.get("/api/time")

    assert [answer.status_code for answer in answers] == [200] * 6 + [429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["5", "4", "3", "2", "1", "0", "0"]
    assert answers[0].headers["ratelimit-policy"] == '"key";q=60;w=60'
    assert (answers[6].headers["retry-after"], answers[6].json()["temporary"]) == ("1", True)
    assert after.status_code == 200


async def test_an_address_without_a_key_has_a_rate_of_its_own() -> None:
    """A tenth of 300 a minute at once; whoever has a key is counted by that."""
    async with run_server(address_rate_limit=300) as arena:
        bot = await arena.register()
        async with arena.client() as client:
            answers = [await client.get("/api/time") for _ in range(30)]
            health = await client.get("/healthz")
        async with arena.client(bot.api_key) as client:
            keyed = await client.get("/api/time")

    assert [answer.status_code for answer in answers] == [200] * 29 + [429], "registering was one"
    assert answers[0].headers["ratelimit-policy"] == '"address";q=300;w=60'
    assert answers[-1].json()["code"] == 410
    assert (health.status_code, keyed.status_code) == (200, 200)


async def test_an_address_may_make_five_owners_a_minute() -> None:
    """Registering is free, so it is slow; an owner's further agents are not newcomers."""
    async with run_server(registration_rate_limit=5) as arena:
        bot = await arena.register()
        async with arena.client() as client:
            answers = [await client.post("/api/agents/register") for _ in range(5)]
        async with arena.client(bot.api_key) as client:
            further = await client.post("/api/agents/register")
        sample = arena.parts.metrics.registry.get_sample_value

        assert [answer.status_code for answer in answers] == [201] * 4 + [429]
        assert "registrations without a key" in answers[-1].json()["detail"]
        assert further.status_code == 201
        assert sample("arena_rate_limited_total", {"kind": "registrations"}) == 1
        assert len(arena.recorder.registry) == 6


async def test_a_full_queue_is_429_and_nothing_is_journaled() -> None:
    """As many actions as may wait for the tick."""
    async with run_server(queue_actions_max=16) as arena:
        bot = await arena.register()
        accepted = [await bot.act(limit(f"q{number}", quantity=1)) for number in range(16)]
        before = arena.recorder.journal.next_seq

        refused = await bot.act(limit("q16", quantity=1))

        assert [answer.status_code for answer in accepted] == [202] * 16
        assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (429, 411, "1")
        assert arena.recorder.journal.next_seq == before
        await arena.step()
        assert (await bot.act(limit("q16", quantity=1))).status_code == 202


async def test_a_world_that_takes_no_input_answers_503_and_goes_on_being_read() -> None:
    """read_only with Retry-After."""
    async with run_server() as arena:
        bot = await arena.register()
        arena.recorder.freeze("as the test wishes")

        refused = await bot.act(limit("late"))
        account = await bot.account()
        async with arena.client() as client:
            status, ready = (await client.get("/api/status")).json(), (await client.get("/readyz")).json()

    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, 502, "30")
    assert account["status"] == "active"
    assert (status["status"], status["reason"], ready["status"]) == ("read_only", "as the test wishes", "read_only")


async def leave(bot: Bot) -> httpx2.Response:
    """Unregister an agent and run the tick that settles it."""

    async def delete() -> httpx2.Response:
        async with bot.arena.client(bot.api_key) as client:
            return await client.delete(f"/api/agents/{bot.agent_id}")

    (response,) = await waited(bot.arena, delete())
    return response


async def waited(arena: RunningServer, *requests: Any) -> list[httpx2.Response]:
    """Run requests that wait for their tick, and ticks until they are answered."""
    answers = asyncio.gather(*requests)
    async with asyncio.timeout(seconds(20)):
        while not answers.done():
            await arena.step()
        return await answers
