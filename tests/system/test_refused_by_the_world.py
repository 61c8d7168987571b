"""Refused by the world, one by one: 202, then an outcome with its code, and an economy that never noticed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from engine.markets import HOURS, NAMES
from engine.messages import Reject, Status
from engine.state import LOANS, TREASURY
from tests.support.arena import Bot, RunningServer, run_server
from tests.support.twins import differing, twin_without
from tests.support.worlds import small_config

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: The one trace a refused action leaves: its agent is not idle.
SIGN_OF_LIFE = {"agent_last_tick"}
Action = dict[str, Any]
Prepare = Callable[[Bot], Awaitable[Action]]


def limit(action_id: str, **changes: Any) -> Action:
    """Return a buy order far below the market, with changes."""
    order = {"type": "limit", "market": "food", "side": "buy", "quantity": 5, "price": "0.5"}
    return {"client_action_id": action_id, **order, **changes}


def cancel(action_id: str, order_id: str) -> Action:
    """Return the cancellation of an order."""
    return {"client_action_id": action_id, "type": "cancel", "order_id": order_id}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def arena() -> AsyncIterator[RunningServer]:
    """A world by hand whose asset markets are closed in the second half of the day."""
    async with run_server(engine=small_config(market_open_hours=12), rate_limit=1_000_000) as arena:
        yield arena


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def narrow() -> AsyncIterator[RunningServer]:
    """A world by hand whose prices may move by 1 % a tick: some market is always halted."""
    async with run_server(engine=small_config(max_price_change=0.01), rate_limit=1_000_000) as arena:
        yield arena


# --- what each case does before, and the action that is refused then ---------------------------------------------
async def no_funds(bot: Bot) -> Action:
    """More than all its cash."""
    return limit("refused", quantity=1_000_000)


async def funds_in_escrow(bot: Bot) -> Action:
    """Cash that an open order holds is not free."""
    await bot.decided(limit("open", quantity=1_900))
    return limit("refused", quantity=200)


async def no_holdings(bot: Bot) -> Action:
    """A sale of what it never had."""
    return limit("refused", side="sell", price="2")


async def holdings_reserved(bot: Bot) -> Action:
    """Lots that an open order promises are not free."""
    await buy_food(bot, 2)
    await bot.decided(limit("offer", side="sell", quantity=2, price="1000000"))
    return limit("refused", side="sell", quantity=1, price="1000000")


async def action_expired(bot: Bot) -> Action:
    """valid_until_tick lies in the past."""
    return limit("refused", valid_until_tick=bot.arena.tick - 1)


async def order_expired(bot: Bot) -> Action:
    """The order's last tick lies in the past."""
    return limit("refused", time_in_force="gtt", expires_tick=bot.arena.tick)


async def cancel_expired_order(bot: Bot) -> Action:
    """The order lapsed by itself."""
    outcome = await bot.decided(limit("gtt", time_in_force="gtt", expires_tick=bot.arena.tick + 2))
    await bot.arena.step(2)
    assert (await bot.receipt("gtt"))["outcome"]["status"] == "expired"
    return cancel("refused", outcome["order_id"])


async def cancel_foreign_order(bot: Bot) -> Action:
    """Somebody else's order, open."""
    other = await bot.arena.register()
    outcome = await other.decided(limit("theirs"))
    return cancel("refused", outcome["order_id"])


async def cancel_order_of_ones_other_agent(bot: Bot) -> Action:
    """Of the same owner, but not this agent's."""
    mate = await bot.arena.register(bot.api_key)
    outcome = await mate.decided(limit("its-own"))
    return cancel("refused", outcome["order_id"])


async def replace_foreign_order(bot: Bot) -> Action:
    """Changing it is no more allowed than cancelling it."""
    action = await cancel_foreign_order(bot)
    return {**action, "type": "replace", "quantity": 1, "price": "0.4", "side": "buy"}


async def cancel_twice(bot: Bot) -> Action:
    """The first time it worked."""
    outcome = await bot.decided(limit("open"))
    first = await bot.decided(cancel("first", outcome["order_id"]))
    assert first["status"] == "done"
    return cancel("refused", outcome["order_id"])


async def cancel_twice_in_a_tick(bot: Bot) -> Action:
    """The first one stands before it in the same tick."""
    outcome = await bot.decided(limit("open"))
    assert (await bot.act(cancel("first", outcome["order_id"]))).status_code == 202
    return cancel("refused", outcome["order_id"])


async def halted_market(bot: Bot) -> Action:
    """An order that could not rest until the halt is over."""
    return limit("refused", market=halted(bot), quantity=1, time_in_force="ioc")


async def market_order_in_a_halt(bot: Bot) -> Action:
    """A market order never rests."""
    return {"client_action_id": "refused", "type": "market", "market": halted(bot), "side": "buy", "quantity": 1}


async def closed_market(bot: Bot) -> Action:
    """An asset market outside its hours."""
    while (bot.arena.tick + 1) % HOURS < 12:
        await bot.arena.step()
    return limit("refused", market="eq_tech", quantity=1, time_in_force="ioc")


async def own_order_crossed(bot: Bot) -> Action:
    """A bid at or above one's own offer."""
    await buy_food(bot, 1)
    await bot.decided(limit("offer", side="sell", quantity=1, price="500"))
    return limit("refused", quantity=1, price="501")


async def seventeenth_action(bot: Bot) -> Action:
    """Sixteen of the same tick stand before it, good ones."""
    for number in range(16):
        assert (await bot.act(limit(f"good-{number}", quantity=1))).status_code == 202
    return limit("refused", quantity=1)


async def sixty_fifth_order(bot: Bot) -> Action:
    """Sixty-four are open."""
    for tick in range(4):
        for number in range(16):
            assert (await bot.act(limit(f"open-{tick}-{number}", quantity=1))).status_code == 202
        await bot.arena.step()
    assert len((await bot.account())["orders"]) == 64
    return limit("refused", quantity=1)


async def loan_too_large(bot: Bot) -> Action:
    """Half of what it has is the most it may owe."""
    return {"client_action_id": "refused", "type": "borrow", "amount": "500.000001"}


async def more_than_owed(bot: Bot) -> Action:
    """Repaying more than the debt."""
    await bot.decided({"client_action_id": "loan", "type": "borrow", "amount": "10"})
    return {"client_action_id": "refused", "type": "repay", "amount": "10.000001"}


async def no_inputs(bot: Bot) -> Action:
    """Making goods out of nothing."""
    return {"client_action_id": "refused", "type": "produce", "market": "food", "quantity": 1}


async def nothing_to_consume(bot: Bot) -> Action:
    """Using up what is not there."""
    return {"client_action_id": "refused", "type": "consume", "market": "food", "quantity": 1}


async def second_mood(bot: Bot) -> Action:
    """One set_sentiment a tick."""
    mood = {"type": "set_sentiment", "sentiment": 0.9, "fear": 0.1, "greed": 0.5, "confidence": 1}
    assert (await bot.act({"client_action_id": "mood", **mood})).status_code == 202
    return {"client_action_id": "refused", **mood, "sentiment": 0.1}


CASES: list[tuple[Prepare, Reject]] = [
    (no_funds, Reject.NO_FUNDS),
    (funds_in_escrow, Reject.NO_FUNDS),
    (no_holdings, Reject.NO_HOLDINGS),
    (holdings_reserved, Reject.NO_HOLDINGS),
    (action_expired, Reject.ACTION_EXPIRED),
    (order_expired, Reject.ACTION_EXPIRED),
    (cancel_expired_order, Reject.UNKNOWN_ORDER),
    (cancel_foreign_order, Reject.UNKNOWN_ORDER),
    (cancel_order_of_ones_other_agent, Reject.UNKNOWN_ORDER),
    (replace_foreign_order, Reject.UNKNOWN_ORDER),
    (cancel_twice, Reject.UNKNOWN_ORDER),
    (cancel_twice_in_a_tick, Reject.UNKNOWN_ORDER),
    (closed_market, Reject.MARKET_CLOSED),
    (own_order_crossed, Reject.SELF_TRADE),
    (sixty_fifth_order, Reject.OPEN_ORDERS),
    (loan_too_large, Reject.CREDIT_LIMIT),
    (more_than_owed, Reject.REPAY_OVER_DEBT),
    (no_inputs, Reject.NO_INPUTS),
    (nothing_to_consume, Reject.NO_HOLDINGS),
    (second_mood, Reject.MOOD_PER_TICK),
]


@pytest.mark.parametrize(("prepare", "code"), CASES, ids=[prepare.__name__ for prepare, _ in CASES])
async def test_what_the_world_refuses_is_accepted_decided_and_changes_nothing(
    arena: RunningServer, prepare: Prepare, code: Reject
) -> None:
    """202 and no outcome yet; then its code in the next view, and a world equal to one that never got it."""
    await check_refused(arena, prepare, code)


@pytest.mark.parametrize("prepare", [halted_market, market_order_in_a_halt])
async def test_a_halted_market_takes_only_orders_that_may_rest(narrow: RunningServer, prepare: Prepare) -> None:
    """The refusal names the tick from which on it may be tried again; an order that may rest does."""
    bot, outcome = await check_refused(narrow, prepare, Reject.MARKET_HALTED)

    assert outcome["needed"] > outcome["available"] == narrow.tick
    assert (await bot.decided(limit("rests", market=halted(bot), quantity=1)))["status"] == "resting"


async def test_a_seventeenth_action_is_told_when_to_come_back(arena: RunningServer) -> None:
    """The refusal carries the next tick, and there the same order stands."""
    bot, outcome = await check_refused(arena, seventeenth_action, Reject.ACTIONS_PER_TICK)

    assert outcome["needed"] == arena.tick + 1
    assert (await bot.decided(limit("again", quantity=1)))["status"] == "resting"


async def test_a_comparison_with_a_twin_can_fail(arena: RunningServer) -> None:
    """An order the world took is missed at once: the twin without it has other orders and another account."""
    bot = await arena.register()
    accepted = (await bot.act(limit("taken"))).json()
    await arena.step()

    missing = differing(arena.economy.state, twin_without(arena.parts.world, {accepted["seq"]}).state)

    assert {"order_id", "order_qty", "agent_cash", "agent_escrow"} <= missing


async def test_leaving_with_open_orders_and_debt_settles_the_agent_and_nothing_else(arena: RunningServer) -> None:
    """202, then done with code 0: orders cancelled, debt repaid, the advance given back; residents never noticed."""
    # no interest is charged in between
    while arena.tick % HOURS > 12:
        await arena.step()
    bot = await arena.register()
    await bot.decided(limit("open"))
    await bot.decided({"client_action_id": "loan", "type": "borrow", "amount": "100"})
    account = await bot.account()
    async with arena.client(bot.api_key) as client:
        accepted = await client.delete(f"/api/agents/{bot.agent_id}", headers={"Prefer": "respond-async"})
        await arena.step()
        gone = await client.get(f"/api/agents/{bot.agent_id}")
    told = (await bot.receipt(accepted.json()["client_action_id"]))["outcome"]
    twin = twin_without(arena.parts.world, {accepted.json()["seq"]}).state
    state = arena.economy.state
    (outcome,) = arena.parts.published.view.report.outcomes

    assert (account["debt"], len(account["orders"])) == ("100.000000", 1)
    assert (accepted.status_code, accepted.json()["outcome"], gone.status_code) == (202, None, 404)
    assert (outcome["seq"], outcome["code"], Status(outcome["status"])) == (accepted.json()["seq"], 0, Status.DONE)
    assert outcome["value"] == -1_000_000_000
    assert (told["status"], told["code"], told["value"]) == ("done", 0, "-1000.000000")
    assert not (state.agent_id == int(bot.agent_id[1:])).any()
    given = ("cash", "escrow", "debt", "advance", "orders")
    left = {name: int(getattr(twin, f"agent_{name}").sum() - getattr(state, f"agent_{name}").sum()) for name in given}
    spent = left.pop("escrow")
    assert 0 < spent < 2_500_000
    assert left == {"cash": 1_100_000_000 - spent, "debt": 100_000_000, "advance": 1_000_000_000, "orders": 1}
    assert state.ledger[TREASURY] - twin.ledger[TREASURY] == 1_000_000_000
    assert twin.ledger[LOANS] - state.ledger[LOANS] == 100_000_000
    touched = differing(state, twin)
    assert {name for name in touched if not name.startswith(("agent_", "order_"))} == {"ledger", "counters", "macro"}


async def test_who_has_left_gets_its_receipts_and_nothing_else(arena: RunningServer) -> None:
    """A repeated action or leaving is answered as before, alone and in a batch; new ones and checks find no agent."""
    bot = await arena.register()
    order = limit("before")
    await bot.decided(order)
    async with arena.client(bot.api_key) as client:
        path = f"/api/agents/{bot.agent_id}"
        left = await client.delete(path, headers={"Prefer": "respond-async"})
        await arena.step()
        before = arena.recorder.journal.next_seq
        again, receipt = await client.post(f"{path}/action", json=order), await bot.receipt("before")
        statuses = [
            (await client.post(f"{path}/action", json={**order, "quantity": 6})).status_code,
            (await client.post(f"{path}/action", json=limit("after"))).status_code,
            (await client.post(f"{path}/action", json=order, params={"validate": "true"})).status_code,
            (await client.get(path)).status_code,
            (await client.delete(path)).status_code,
        ]
        items = [{**item, "agent_id": bot.agent_id} for item in (order, limit("after"))]
        results = (await client.post("/api/actions", json={"actions": items})).json()["results"]

    assert left.status_code == 202
    assert (again.status_code, again.json()) == (202, {**receipt, "duplicate": True})
    assert receipt["outcome"]["status"] == "cancelled"
    assert statuses == [409, 404, 404, 404, 204]
    assert [result["status"] for result in results] == [202, 404]
    assert arena.recorder.journal.next_seq == before


async def check_refused(arena: RunningServer, prepare: Prepare, code: Reject) -> tuple[Bot, Action]:
    """Have an action refused by the world and hold everything about that to what was promised."""
    bot = await arena.register()
    action = await prepare(bot)
    queued = len(arena.parts.world.queue)
    account = await bot.account()

    response = await bot.act(action)
    waiting = await bot.receipt("refused")
    view = arena.parts.published.view
    await arena.step()
    receipt, after = await bot.receipt("refused"), await bot.account()
    twin = twin_without(arena.parts.world, {waiting["seq"]})

    assert response.status_code == 202
    assert response.json() == waiting
    assert (waiting["status"], waiting["tick"], waiting["outcome"]) == ("accepted", None, None)
    assert (receipt["seq"], receipt["tick"]) == (waiting["seq"], view.tick + 1)
    outcome: Action = receipt["outcome"]
    assert (outcome["status"], outcome["code"]) == ("rejected", code)
    assert outcome["detail"]
    assert (outcome["filled"], outcome["open"], outcome["value"]) == (0, 0, "0.000000")
    assert differing(arena.economy.state, twin.state) <= SIGN_OF_LIFE
    assert twin.report().public.indicators == arena.parts.published.view.report.public.indicators
    if not queued:
        passing = {"tick", "last_action_tick", "wealth"}
        assert {k: v for k, v in after.items() if k not in passing} == {
            k: v for k, v in account.items() if k not in passing
        }
    return bot, outcome


async def buy_food(bot: Bot, lots: int) -> None:
    """Buy food well above its price."""
    assert (await bot.decided(limit("bought", quantity=lots, price="2")))["filled"] == lots


def halted(bot: Bot) -> str:
    """Return a market that stays halted for the next ticks."""
    economy = bot.arena.economy
    return NAMES[int(np.argmax(economy.state.halt_until))]
