"""The intake: every action, every refusal, and what both leave behind."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import actions, invariants
from engine.actions import INTEREST_HOUR, LOTS_MAX, MOOD_START
from engine.agent_index import find, guess, insert, remove, table_size
from engine.ladder import LAST_LEVEL, prices, window
from engine.markets import CONSOL, ID, INPUT_1, INPUT_2, LABOUR, OIL, SHARE_FIRST
from engine.messages import CANCEL_AFTER_TICKS_MAX, Kind, Reject, Status, TimeInForce
from engine.state import (
    AGENT_COUNT,
    FLOW_ADVANCE_BACK,
    FLOW_ADVANCE_PAID,
    FLOW_OUTSIDE_INTEREST,
    FLOW_OUTSIDE_LOANS_NEW,
    FLOW_OUTSIDE_REPAID,
    FLOW_OUTSIDE_WRITTEN_OFF,
    GOODS_CONSUMED,
    GOODS_PRODUCED,
    GOODS_USED,
    MOOD_COUNT,
    NEVER,
    NEXT_DEADLINE,
    ORDER_COUNT,
    SLOTS_USED,
    array_fields,
    persistent,
)
from tests.support.trading_floor import CREDIT, LEVEL, Floor, economic_arrays

P = prices()
DOWN, UP = window(0.5)
FOOD, CHEMICALS = ID["food"], ID["chemicals"]
ENDOWMENT = 1_000 * CREDIT


def refused(floor: Floor, row: np.ndarray) -> Any:
    """Run the intake of one action, check that it changed nothing, and return its outcome."""
    before = economic_arrays(floor.state)

    outcome = floor.intake(row)[0]

    after = economic_arrays(floor.state)
    for name, array in before.items():
        if name not in ("flows", "goods_flow"):
            assert np.array_equal(array, after[name]), name
    assert not after["flows"].any()
    assert not after["goods_flow"].any()
    assert outcome["status"] == Status.REJECTED
    assert len(floor.state.updates) == 0
    return outcome


class TestRefusals:
    """Each code, reached by name; a refused action changes no economic array."""

    def test_unknown_agent(self) -> None:
        """Nobody is registered under the number: never was, or has left."""
        floor = Floor()
        (agent,) = floor.join()

        assert refused(floor, floor.limit(agent + 77, OIL, 1, 1))["code"] == Reject.UNKNOWN_AGENT
        floor.tick(floor.row(agent, Kind.UNREGISTER))
        assert refused(floor, floor.limit(agent, OIL, 1, 1))["code"] == Reject.UNKNOWN_AGENT
        assert refused(floor, floor.row(agent, Kind.UNREGISTER))["code"] == Reject.UNKNOWN_AGENT

    @pytest.mark.parametrize("kind", [Kind.CANCEL, Kind.REPLACE])
    def test_unknown_order(self, kind: Kind) -> None:
        """No such order, another agent's order, an order that is over."""
        floor = Floor()
        mine, other = floor.join(2)
        order = floor.limit(other, OIL, 1, 1, LEVEL - 9)
        floor.tick(order)
        fields = {"order_id": order["seq"], "quantity": 1, "level": LEVEL}

        assert refused(floor, floor.row(mine, kind, **fields))["code"] == Reject.UNKNOWN_ORDER
        assert refused(floor, floor.row(mine, kind, **{**fields, "order_id": 5_000}))["code"] == Reject.UNKNOWN_ORDER
        floor.tick(floor.row(other, Kind.CANCEL, order_id=order["seq"]))
        assert refused(floor, floor.row(other, kind, **fields))["code"] == Reject.UNKNOWN_ORDER

    def test_no_funds(self) -> None:
        """A buy may cost all free cash and no more; needed and available say how much."""
        floor = Floor()
        (agent,) = floor.join()
        most = ENDOWMENT // int(P[LEVEL])

        outcome = refused(floor, floor.limit(agent, OIL, 1, most + 1))

        assert (outcome["code"], outcome["available"]) == (Reject.NO_FUNDS, ENDOWMENT)
        assert outcome["needed"] == (most + 1) * P[LEVEL]
        assert floor.outcome(floor.limit(agent, OIL, 1, most))["status"] == Status.RESTING

    def test_no_funds_of_a_buy_beyond_int64(self) -> None:
        """10^9 lots at 10^6 credits are 10^21 ucr: refused, not wrapped around."""
        floor = Floor()
        (agent,) = floor.join()

        outcome = refused(floor, floor.limit(agent, OIL, 1, LOTS_MAX, LAST_LEVEL))

        assert outcome["code"] == Reject.NO_FUNDS
        assert outcome["needed"] == actions.MONEY_MAX

    def test_no_funds_of_a_market_buy_at_the_window_edge(self) -> None:
        """A market buy must cover the worst price it may get."""
        floor = Floor()
        (agent,) = floor.join()
        most = ENDOWMENT // int(P[LEVEL + UP])

        row = floor.row(agent, Kind.MARKET, market=OIL, side=1, quantity=most + 1)
        assert refused(floor, row)["code"] == Reject.NO_FUNDS
        row = floor.row(agent, Kind.MARKET, market=OIL, side=1, quantity=most)
        assert floor.outcome(row)["status"] == Status.CANCELLED

    def test_no_funds_to_repay(self) -> None:
        """A repayment within the debt needs the cash."""
        floor = Floor()
        (agent,) = floor.join()
        floor.tick(floor.row(agent, Kind.BORROW, amount=400 * CREDIT))
        floor.tick(floor.limit(agent, OIL, 1, 60, LEVEL - 20))

        outcome = refused(floor, floor.row(agent, Kind.REPAY, amount=400 * CREDIT))

        assert (outcome["code"], outcome["needed"]) == (Reject.NO_FUNDS, 400 * CREDIT)

    def test_no_holdings(self) -> None:
        """Lots promised by an open sell cannot be sold, or consumed, again."""
        floor = Floor()
        (agent,) = floor.join()
        floor.give(agent, FOOD, 10)
        floor.tick(floor.limit(agent, FOOD, -1, 7, LEVEL + 99))

        outcome = refused(floor, floor.limit(agent, FOOD, -1, 4, LEVEL + 99))
        assert (outcome["code"], outcome["needed"], outcome["available"]) == (Reject.NO_HOLDINGS, 4, 3)
        row = floor.row(agent, Kind.CONSUME, market=FOOD, quantity=4)
        assert refused(floor, row)["code"] == Reject.NO_HOLDINGS
        assert refused(floor, floor.limit(agent, LABOUR, -1, 1))["code"] == Reject.NO_HOLDINGS

    def test_credit_limit(self) -> None:
        """Debt up to half of cash and escrow and a quarter of the holdings' value, before the loan."""
        floor = Floor()
        (agent,) = floor.join()
        floor.give(agent, OIL, 100)
        floor.tick(floor.limit(agent, OIL, 1, 10, LEVEL - 500))
        limit = (2 * ENDOWMENT + 100 * int(floor.state.price[OIL])) // 4

        outcome = refused(floor, floor.row(agent, Kind.BORROW, amount=limit + 1))

        assert (outcome["code"], outcome["needed"], outcome["available"]) == (Reject.CREDIT_LIMIT, limit + 1, limit)
        assert floor.outcome(floor.row(agent, Kind.BORROW, amount=limit))["status"] == Status.DONE

    def test_repay_over_debt(self) -> None:
        """More than the debt cannot be repaid."""
        floor = Floor()
        (agent,) = floor.join()
        floor.tick(floor.row(agent, Kind.BORROW, amount=5 * CREDIT))

        outcome = refused(floor, floor.row(agent, Kind.REPAY, amount=5 * CREDIT + 1))

        assert (outcome["code"], outcome["available"]) == (Reject.REPAY_OVER_DEBT, 5 * CREDIT)

    @pytest.mark.parametrize("missing", [LABOUR, INPUT_1[FOOD], INPUT_2[FOOD]])
    def test_no_inputs(self, missing: int) -> None:
        """Hours and both inputs are needed, rounded up, and none of them may be promised."""
        floor = Floor()
        (agent,) = floor.join()
        need = {LABOUR: 4, INPUT_1[FOOD]: 21, INPUT_2[FOOD]: 11}
        for market, lots in need.items():
            floor.give(agent, market, lots)
        floor.tick(floor.limit(agent, missing, -1, 1, LEVEL + 500))

        outcome = refused(floor, floor.row(agent, Kind.PRODUCE, market=FOOD, quantity=104))

        assert (outcome["code"], outcome["needed"], outcome["available"]) == (
            Reject.NO_INPUTS, need[missing], need[missing] - 1,
        )  # fmt: skip

    @pytest.mark.parametrize("code", [Reject.MARKET_HALTED, Reject.MARKET_CLOSED])
    def test_market_halted_or_market_closed(self, code: Reject) -> None:
        """Orders that cannot rest are refused; limits good till cancelled or till a tick rest."""
        floor = Floor(market_open_hours=24 if code == Reject.MARKET_HALTED else 1)
        (agent,) = floor.join()
        if code == Reject.MARKET_HALTED:
            floor.state.halt_until[OIL] = 20

        for row in (
            floor.limit(agent, OIL, 1, 1, time_in_force=TimeInForce.IOC),
            floor.row(agent, Kind.MARKET, market=OIL, side=1, quantity=1),
        ):
            outcome = refused(floor, row)
            assert outcome["code"] == code
            assert outcome["needed"] == (20 if code == Reject.MARKET_HALTED else 24)
        resting = floor.tick(
            floor.limit(agent, OIL, 1, 1),
            floor.limit(agent, OIL, 1, 1, time_in_force=TimeInForce.GTT, order_until=99),
            floor.limit(agent, FOOD, 1, 1, time_in_force=TimeInForce.IOC),
        )
        assert resting["status"].tolist() == [Status.RESTING, Status.RESTING, Status.CANCELLED]

    @pytest.mark.parametrize("side", [1, -1])
    @pytest.mark.parametrize("same_agent", [True, False])
    def test_self_trade(self, side: int, same_agent: bool) -> None:
        """An order that crosses an open one of any agent of the same owner is refused; touching is crossing."""
        floor = Floor()
        first, second = floor.join(2, owner=900)
        other = first if same_agent else second
        for agent in (first, second):
            floor.give(agent, OIL, 10)
        floor.tick(floor.limit(first, OIL, -side, 2, LEVEL))

        assert refused(floor, floor.limit(other, OIL, side, 1, LEVEL))["code"] == Reject.SELF_TRADE
        assert refused(floor, floor.limit(other, OIL, side, 1, LEVEL + 5 * side))["code"] == Reject.SELF_TRADE
        assert floor.outcome(floor.limit(other, OIL, side, 1, LEVEL - side))["status"] == Status.RESTING
        assert floor.outcome(floor.limit(other, CONSOL, 1, 1, LEVEL))["status"] == Status.RESTING

    def test_action_expired(self) -> None:
        """valid_until is the last tick it may be applied in; so is the last tick of a GTT order."""
        floor = Floor()
        (agent,) = floor.join()
        now = floor.state.tick + 1

        row = floor.limit(agent, OIL, 1, 1)
        row["valid_until"] = now - 1
        assert refused(floor, row)["code"] == Reject.ACTION_EXPIRED
        row = floor.limit(agent, OIL, 1, 1, time_in_force=TimeInForce.GTT, order_until=now)
        assert refused(floor, row)["code"] == Reject.ACTION_EXPIRED
        row = floor.limit(agent, OIL, 1, 1)
        row["valid_until"] = floor.state.tick + 1
        assert floor.outcome(row)["status"] == Status.RESTING

    def test_actions_per_tick(self) -> None:
        """The seventeenth action of a tick is refused with the tick of its retry; refused ones count, too."""
        floor = Floor()
        one, two = floor.join(2)
        rows = [floor.row(one, Kind.CANCEL, order_id=9_999) for _ in range(16)]

        outcomes = floor.tick(*rows, floor.limit(one, OIL, 1, 1), floor.limit(two, OIL, 1, 1))

        assert outcomes["code"].tolist() == [Reject.UNKNOWN_ORDER] * 16 + [Reject.ACTIONS_PER_TICK, 0]
        assert outcomes["needed"][16] == floor.state.tick + 1
        assert floor.outcome(floor.limit(one, OIL, 1, 1))["status"] == Status.RESTING

    def test_open_orders(self) -> None:
        """The 65th open order is refused; a replace of one is not."""
        floor = Floor(open_orders_max=3)
        (agent,) = floor.join()
        rows = [floor.limit(agent, OIL, 1, 1, LEVEL - i) for i in range(3)]
        floor.tick(*rows)

        outcome = refused(floor, floor.limit(agent, OIL, 1, 1, LEVEL - 9))
        assert (outcome["code"], outcome["needed"], outcome["available"]) == (Reject.OPEN_ORDERS, 4, 3)
        row = floor.row(agent, Kind.REPLACE, order_id=rows[0]["seq"], quantity=2, level=LEVEL - 9)
        assert floor.outcome(row)["status"] == Status.RESTING

    def test_book_full(self) -> None:
        """The table of all orders has an end."""
        floor = Floor(order_book_max=1_024, open_orders_max=1_000, actions_per_tick_max=1_000)
        one, two = floor.join(2)
        rows = [floor.limit(agent, LABOUR, 1, 1, 0) for agent in (one, two) for _ in range(512)]
        assert set(floor.tick(*rows)["status"].tolist()) == {Status.RESTING}

        outcome = refused(floor, floor.limit(one, OIL, 1, 1, 0))

        assert (outcome["code"], outcome["available"]) == (Reject.BOOK_FULL, 1_024)

    def test_mood_per_tick(self) -> None:
        """set_sentiment counts once a tick."""
        floor = Floor()
        (agent,) = floor.join()
        row = floor.row(agent, Kind.SET_SENTIMENT, mood=(1, 2, 3, 4))

        outcomes = floor.tick(row, floor.row(agent, Kind.SET_SENTIMENT, mood=(9, 9, 9, 9)))

        assert outcomes["code"].tolist() == [0, Reject.MOOD_PER_TICK]
        assert outcomes["needed"][1] == floor.state.tick + 1
        assert floor.state.agent_mood[0].tolist() == [1, 2, 3, 4]

    def test_agents_full(self) -> None:
        """A world takes max_agents and no more."""
        floor = Floor(max_agents=2)
        floor.join(2)

        assert refused(floor, floor.row(900, Kind.REGISTER))["code"] == Reject.AGENTS_FULL

    def test_agents_per_owner(self) -> None:
        """An owner has so many agents at a time."""
        floor = Floor(agents_per_owner_max=2)
        floor.join(2, owner=7_000)

        outcome = refused(floor, floor.row(900, Kind.REGISTER, owner=7_000))

        assert (outcome["code"], outcome["needed"], outcome["available"]) == (Reject.AGENTS_PER_OWNER, 3, 2)

    @pytest.mark.parametrize(
        "fields",
        [
            {"kind": 0},
            {"kind": 200},
            {"market": 32},
            {"market": -1},
            {"side": 0},
            {"side": 3},
            {"quantity": 0},
            {"quantity": -5},
            {"quantity": LOTS_MAX + 1},
            {"level": -1},
            {"level": LAST_LEVEL + 1},
            {"time_in_force": 3},
            {"kind": Kind.REPLACE, "quantity": 0},
            {"kind": Kind.BORROW, "amount": 0},
            {"kind": Kind.BORROW, "amount": 2**63 - 1},
            {"kind": Kind.REPAY, "amount": -1},
            {"kind": Kind.PRODUCE, "market": OIL},
            {"kind": Kind.CONSUME, "market": CHEMICALS},
            {"kind": Kind.CONSUME, "market": CONSOL},
            {"kind": Kind.SET_SENTIMENT, "mood": (0, 0, 0, 32_768)},
            {"kind": Kind.SET_SENTIMENT, "mood": (0, -1, 0, 0)},
            {"kind": Kind.CANCEL_ALL, "market": 32},
            {"kind": Kind.CANCEL_ALL, "market": -2},
            {"kind": Kind.CANCEL_AFTER, "quantity": -1},
            {"kind": Kind.CANCEL_AFTER, "quantity": CANCEL_AFTER_TICKS_MAX + 1},
            {"seq": 1},
        ],
        ids=str,
    )
    def test_malformed(self, fields: dict[str, Any]) -> None:
        """What admission should have stopped is refused here again: nothing may leave the arrays."""
        floor = Floor()
        (agent,) = floor.join()
        floor.tick(floor.limit(agent, OIL, 1, 1))
        row = floor.limit(agent, OIL, 1, 1)
        for name, value in fields.items():
            row[name] = value

        assert refused(floor, row)["code"] == Reject.MALFORMED

    def test_malformed_registration(self) -> None:
        """A number that is taken, or none at all."""
        floor = Floor()
        (agent,) = floor.join()
        nobody = floor.row(0, Kind.REGISTER)
        nobody["seq"] = 0

        assert refused(floor, floor.row(agent, Kind.REGISTER))["code"] == Reject.MALFORMED
        assert refused(floor, nobody)["code"] == Reject.MALFORMED


def test_every_code_has_a_test() -> None:
    """The refusals above cover the list of codes."""
    tests = " ".join(name for name in dir(TestRefusals) if name.startswith("test_"))

    for code in Reject:
        assert code == Reject.NONE or code.name.lower() in tests, code.name


class TestOrders:
    """Placing, cancelling and replacing."""

    def test_a_buy_holds_its_worst_price_in_escrow(self) -> None:
        """Cash moves to escrow when the order is placed and back when it is cancelled."""
        floor = Floor()
        (agent,) = floor.join()
        order = floor.limit(agent, OIL, 1, 3, LEVEL - 100)

        placed = floor.outcome(order)
        assert (placed["order_id"], placed["open"]) == (order["seq"][0], 3)
        assert floor.state.agent_escrow[0] == 3 * P[LEVEL - 100]
        cancelled = floor.outcome(floor.row(agent, Kind.CANCEL, order_id=order["seq"]))

        assert (cancelled["status"], cancelled["order_id"]) == (Status.DONE, order["seq"][0])
        assert floor.state.updates["status"].tolist() == [Status.CANCELLED]
        assert (floor.state.agent_cash[0], floor.state.agent_escrow[0]) == (ENDOWMENT, 0)
        assert floor.state.agent_orders[0] == 0

    def test_an_order_cancelled_in_its_own_tick_never_trades(self) -> None:
        """Its own outcome says cancelled; there is no update, for nobody knew it."""
        floor = Floor()
        buyer, seller = floor.join(2)
        floor.give(seller, OIL, 5)
        order = floor.limit(buyer, OIL, 1, 3)

        outcomes = floor.tick(
            order, floor.row(buyer, Kind.CANCEL, order_id=order["seq"]), floor.limit(seller, OIL, -1, 3)
        )

        assert outcomes["status"].tolist() == [Status.CANCELLED, Status.DONE, Status.RESTING]
        assert len(floor.state.updates) == 0

    def test_a_replace_that_only_reduces_keeps_its_place(self) -> None:
        """The id and the age stay, the rest of the escrow is free again."""
        floor = Floor()
        (agent,) = floor.join()
        order = floor.limit(agent, OIL, 1, 5, LEVEL - 100)
        floor.tick(order)
        since = floor.state.order_since[0]

        outcome = floor.outcome(floor.row(agent, Kind.REPLACE, order_id=order["seq"], quantity=2, level=LEVEL - 100))

        assert (outcome["status"], outcome["order_id"], outcome["open"]) == (Status.DONE, order["seq"][0], 2)
        assert floor.state.updates[["open", "status"]].tolist() == [(2, Status.PARTIAL)]
        assert (floor.state.order_id[0], floor.state.order_since[0]) == (order["seq"][0], since)
        assert floor.state.agent_escrow[0] == 2 * P[LEVEL - 100]

    @pytest.mark.parametrize(("lots", "step"), [(6, 0), (5, 1), (2, -1)])
    def test_any_other_replace_is_a_new_order(self, lots: int, step: int) -> None:
        """More lots or another price: the old id is cancelled, the new order queues behind."""
        floor = Floor()
        one, two = floor.join(2)
        order = floor.limit(one, OIL, 1, 5, LEVEL - 100)
        floor.tick(order, floor.limit(two, OIL, 1, 1, LEVEL - 100))

        row = floor.row(one, Kind.REPLACE, order_id=order["seq"], quantity=lots, level=LEVEL - 100 + step)
        outcome = floor.outcome(row)

        assert (outcome["status"], outcome["order_id"], outcome["open"]) == (Status.RESTING, row["seq"][0], lots)
        assert floor.state.updates[["order_id", "status"]].tolist() == [(order["seq"][0], Status.CANCELLED)]
        assert floor.state.order_id[:2].tolist() == [order["seq"][0] + 1, row["seq"][0]]
        assert floor.state.agent_escrow[0] == lots * P[LEVEL - 100 + step]

    def test_a_replace_in_the_tick_of_its_order_keeps_the_time_in_force(self) -> None:
        """Good till cancelled, for three ticks more, for this tick, for one auction: moved, each stays what it was."""
        floor = Floor()
        agents = floor.join(4)
        now = floor.state.tick + 1
        terms = [(TimeInForce.GTC, 0), (TimeInForce.GTT, now + 3), (TimeInForce.GTT, now), (TimeInForce.IOC, 0)]
        orders = [
            floor.limit(agent, OIL, 1, 5, LEVEL - 100, time_in_force=kind, order_until=until)
            for agent, (kind, until) in zip(agents, terms, strict=True)
        ]
        moves = [
            floor.row(agent, Kind.REPLACE, order_id=order["seq"], quantity=5, level=LEVEL - 101)
            for agent, order in zip(agents, orders, strict=True)
        ]

        outcomes = floor.tick(*orders, *moves)

        assert outcomes["status"].tolist() == [Status.CANCELLED] * 4 + [
            Status.RESTING, Status.RESTING, Status.EXPIRED, Status.CANCELLED,
        ]  # fmt: skip
        assert floor.state.order_expires[:2].tolist() == [NEVER, now + 3]
        assert floor.state.counters[ORDER_COUNT] == 2

    def test_an_order_of_an_earlier_tick_that_is_over_crosses_nothing(self) -> None:
        """Where an owner's orders were is not forgotten at once, but it means nothing in the next tick."""
        floor = Floor()
        one, two = floor.join(2, owner=7)
        floor.give(two, OIL, 9)
        buy = floor.limit(one, OIL, 1, 1, LEVEL, time_in_force=TimeInForce.GTT, order_until=floor.state.tick + 1)
        assert floor.outcome(buy)["status"] == Status.EXPIRED

        first = floor.limit(two, OIL, -1, 1, LEVEL)
        outcomes = floor.tick(first, floor.limit(one, OIL, 1, 1, LEVEL))

        assert outcomes["status"].tolist() == [Status.RESTING, Status.REJECTED]
        assert outcomes["code"].tolist() == [0, Reject.SELF_TRADE]

    def test_a_replace_may_spend_what_it_releases(self) -> None:
        """All cash is in escrow; moving the order one level down needs none, doubling it is refused."""
        floor = Floor()
        (agent,) = floor.join()
        lots = ENDOWMENT // int(P[LEVEL])
        order = floor.limit(agent, OIL, 1, lots, LEVEL)
        floor.tick(order)

        row = floor.row(agent, Kind.REPLACE, order_id=order["seq"], quantity=2 * lots, level=LEVEL)
        assert refused(floor, row)["code"] == Reject.NO_FUNDS
        row = floor.row(agent, Kind.REPLACE, order_id=order["seq"], quantity=lots, level=LEVEL - 1)
        assert floor.outcome(row)["status"] == Status.RESTING

    def test_a_refused_replace_leaves_the_order(self) -> None:
        """It would cross an own order: the old one stands as before."""
        floor = Floor()
        (agent,) = floor.join()
        floor.give(agent, OIL, 5)
        order = floor.limit(agent, OIL, 1, 1, LEVEL - 200)
        floor.tick(order, floor.limit(agent, OIL, -1, 1, LEVEL + 200))

        row = floor.row(agent, Kind.REPLACE, order_id=order["seq"], quantity=1, level=LEVEL + 200)

        assert refused(floor, row)["code"] == Reject.SELF_TRADE

    def test_a_market_order_takes_the_window(self) -> None:
        """It trades at the clearing price with whoever is inside the window."""
        floor = Floor()
        buyer, seller = floor.join(2)
        floor.give(seller, OIL, 5)
        floor.tick(floor.limit(seller, OIL, -1, 3, LEVEL + 900))

        outcome = floor.outcome(floor.row(buyer, Kind.MARKET, market=OIL, side=1, quantity=2))

        assert (outcome["filled"], outcome["status"]) == (2, Status.FILLED)
        assert outcome["price"] == P[LEVEL + 900]


class TestGoods:
    """Making and using goods."""

    def test_producing_turns_hours_and_inputs_into_goods(self) -> None:
        """Needs are rounded up; the flows tell the goods ledger."""
        floor = Floor()
        (agent,) = floor.join()
        for market, lots in ((LABOUR, 10), (INPUT_1[FOOD], 30), (INPUT_2[FOOD], 30)):
            floor.give(agent, market, lots)

        outcome = floor.outcome(floor.row(agent, Kind.PRODUCE, market=FOOD, quantity=100))

        assert (outcome["status"], outcome["filled"]) == (Status.DONE, 100)
        held = floor.state.agent_holdings[0]
        # 100 x 2000, 13107 and 6553 of 65536
        assert [held[m] for m in (FOOD, LABOUR, INPUT_1[FOOD], INPUT_2[FOOD])] == [100, 6, 10, 20]
        flow = floor.state.goods_flow
        assert flow[GOODS_PRODUCED, FOOD] == 100
        assert (flow[GOODS_USED, INPUT_1[FOOD]], flow[GOODS_USED, INPUT_2[FOOD]]) == (20, 10)

    def test_consuming_cheers_up(self) -> None:
        """The goods are gone and counted; sentiment rises by 1/64 of its distance to 1."""
        floor = Floor()
        (agent,) = floor.join()
        floor.give(agent, FOOD, 5)

        floor.tick(floor.row(agent, Kind.CONSUME, market=FOOD, quantity=5))

        assert floor.state.agent_holdings[0, FOOD] == 0
        assert floor.state.goods_flow[GOODS_CONSUMED, FOOD] == 5
        assert floor.state.agent_mood[0, 0] == MOOD_START[0] + (32_767 - MOOD_START[0]) // 64
        assert floor.state.counters[MOOD_COUNT] == 0

    def test_a_mood_counts_from_its_first_use(self) -> None:
        """Agents that have used set_sentiment are counted once."""
        floor = Floor()
        (agent,) = floor.join()

        for _ in range(2):
            floor.tick(floor.row(agent, Kind.SET_SENTIMENT, mood=(32_767, 0, 5, 6)))

        assert floor.state.counters[MOOD_COUNT] == floor.state.agent_has_mood[0] == 1


class TestLoans:
    """Borrowing, interest, default."""

    def test_a_loan_and_its_repayment(self) -> None:
        """Cash and debt move together; the flows carry them to the bank."""
        floor = Floor()
        (agent,) = floor.join()

        floor.tick(floor.row(agent, Kind.BORROW, amount=300 * CREDIT))
        assert floor.state.flows[FLOW_OUTSIDE_LOANS_NEW] == 300 * CREDIT
        assert (floor.state.agent_cash[0], floor.state.agent_debt[0]) == (1_300 * CREDIT, 300 * CREDIT)
        floor.tick(floor.row(agent, Kind.REPAY, amount=100 * CREDIT))

        assert floor.state.flows[FLOW_OUTSIDE_REPAID] == 100 * CREDIT
        assert (floor.state.agent_cash[0], floor.state.agent_debt[0]) == (1_200 * CREDIT, 200 * CREDIT)
        assert floor.cash_sum() == 0

    @pytest.mark.parametrize("cash", [0, 7, 10**9])
    def test_interest_is_paid_from_cash_and_the_rest_is_lent(self, cash: int) -> None:
        """At hour 22: floor(debt x daily rate), what cash does not cover is added to the debt."""
        floor = Floor(tick=20)
        (agent,) = floor.join()
        floor.give(agent, OIL, 1_000)
        floor.state.agent_cash[0], floor.state.agent_debt[0] = cash, 500 * CREDIT

        floor.tick()
        assert floor.state.flows[FLOW_OUTSIDE_INTEREST] == 0
        floor.tick()

        assert floor.state.tick % 24 == INTEREST_HOUR
        interest = 500 * CREDIT * int(0.07 / 360 * 2**32) >> 32
        paid = min(cash, interest)
        assert floor.state.flows[FLOW_OUTSIDE_INTEREST] == interest
        assert floor.state.flows[FLOW_OUTSIDE_LOANS_NEW] == interest - paid
        assert floor.state.agent_debt[0] == 500 * CREDIT + interest - paid
        assert floor.state.agent_cash[0] == cash - paid

    def test_a_debt_above_all_assets_is_a_default(self) -> None:
        """Orders end, cash repays, the rest is written off, holdings go to the estate, the agent is gone."""
        floor = Floor(tick=21, blocked_ticks=100)
        (agent,) = floor.join()
        floor.give(agent, OIL, 10)
        floor.give(agent, LABOUR, 3)
        floor.state.agent_debt[0] = 5_000 * CREDIT
        floor.tick(floor.limit(agent, OIL, 1, 2, LEVEL - 400), floor.limit(agent, OIL, -1, 4, LEVEL + 400))

        state = floor.state
        assert state.tick % 24 == INTEREST_HOUR
        assert [(e.name, e.data) for e in state.events] == [("agent_defaulted", {"agent": agent})]
        assert state.outcomes["status"].tolist() == [Status.CANCELLED] * 2
        repaid = state.flows[FLOW_OUTSIDE_REPAID]
        assert repaid == ENDOWMENT - state.flows[FLOW_OUTSIDE_INTEREST]
        assert state.flows[FLOW_OUTSIDE_WRITTEN_OFF] == 5_000 * CREDIT - repaid
        assert (state.agent_cash[0], state.agent_escrow[0], state.agent_debt[0]) == (0, 0, 0)
        assert not state.agent_holdings[0].any()
        assert (state.estate[OIL], state.estate[LABOUR]) == (10, 0)
        assert (state.agent_id[0], state.blocked_owner[0], state.blocked_until[0]) == (0, agent, 122)
        assert state.counters[AGENT_COUNT] == 0


class TestCancelAll:
    """All open orders of an agent at once."""

    def test_orders_of_earlier_ticks_and_of_this_one_end(self) -> None:
        """Older ones are told in the updates, those of the tick in their outcome; what they held is free again."""
        floor = Floor()
        agent, other = floor.join(2)
        floor.give(agent, FOOD, 5)
        old = floor.limit(agent, OIL, 1, 2, LEVEL - 400)
        floor.tick(old, floor.limit(other, OIL, 1, 2, LEVEL - 400))

        outcomes = floor.tick(floor.limit(agent, FOOD, -1, 5, LEVEL + 400), floor.row(agent, Kind.CANCEL_ALL))

        state = floor.state
        assert outcomes[["status", "code", "open"]].tolist() == [(Status.CANCELLED, 0, 0), (Status.DONE, 0, 0)]
        assert state.updates[["order_id", "agent_id", "status"]].tolist() == [(old["seq"][0], agent, Status.CANCELLED)]
        assert (state.agent_escrow[0], state.agent_reserved[0].sum(), state.agent_orders[0]) == (0, 0, 0)
        assert state.agent_cash[0] == ENDOWMENT
        assert state.counters[ORDER_COUNT] == state.agent_orders[1] == 1

    def test_a_market_narrows_it(self) -> None:
        """Only the orders in the named market end."""
        floor = Floor()
        (agent,) = floor.join()
        floor.tick(*(floor.limit(agent, market, 1, 1, LEVEL - 400) for market in (LABOUR, OIL, FOOD, OIL)))

        floor.tick(floor.row(agent, Kind.CANCEL_ALL, market=OIL))

        assert floor.state.order_market[: floor.state.counters[ORDER_COUNT]].tolist() == [LABOUR, FOOD]

    def test_without_open_orders_it_is_done(self) -> None:
        """Nothing to cancel is no mistake."""
        floor = Floor()
        (agent,) = floor.join()

        assert floor.outcome(floor.row(agent, Kind.CANCEL_ALL))["status"] == Status.DONE

    def test_it_gets_through_when_the_agent_may_act_no_more(self) -> None:
        """It is outside the limit of actions per tick, takes nothing of it, and knows its validity."""
        floor = Floor(actions_per_tick_max=2)
        (agent,) = floor.join()
        late = floor.row(agent, Kind.CANCEL_ALL)
        late["valid_until"] = floor.state.tick

        outcomes = floor.tick(
            floor.row(agent, Kind.CANCEL_ALL), late,
            *(floor.limit(agent, OIL, 1, 1, LEVEL - 400) for _ in range(3)),
            floor.row(agent, Kind.CANCEL_AFTER, quantity=9), floor.row(agent, Kind.CANCEL_ALL),
        )  # fmt: skip

        assert outcomes["code"].tolist() == [0, Reject.ACTION_EXPIRED, 0, 0, Reject.ACTIONS_PER_TICK, 0, 0]
        assert floor.state.counters[ORDER_COUNT] == 0


class TestSwitch:
    """cancel_after: the dead-man's switch."""

    def test_it_fires_at_the_start_of_its_tick(self) -> None:
        """Orders take part in so many auctions, then they end; those of the tick itself stand; it fires once."""
        floor = Floor()
        agent, other = floor.join(2)
        first = floor.limit(agent, OIL, 1, 1, LEVEL - 400)
        floor.tick(first, floor.limit(other, OIL, 1, 1, LEVEL - 400), floor.row(agent, Kind.CANCEL_AFTER, quantity=2))
        floor.tick()
        assert floor.state.counters[ORDER_COUNT] == 2
        assert floor.state.fired.tolist() == []

        second = floor.limit(agent, OIL, 1, 1, LEVEL - 300)
        outcomes = floor.tick(second)

        state = floor.state
        assert state.fired.tolist() == [agent]
        assert state.updates[["order_id", "status"]].tolist() == [(first["seq"][0], Status.CANCELLED)]
        assert outcomes["status"].tolist() == [Status.RESTING]
        assert (state.agent_deadline[0], state.counters[NEXT_DEADLINE]) == (0, 0)
        floor.tick()
        assert state.fired.tolist() == []
        assert state.counters[ORDER_COUNT] == 2

    def test_setting_it_again_puts_it_off_and_zero_takes_it_back(self) -> None:
        """The last word counts; a deadline that was put off fires nothing at its old tick."""
        floor = Floor()
        one, two = floor.join(2)
        floor.tick(*(floor.limit(agent, OIL, 1, 1, LEVEL - 400) for agent in (one, two)))
        floor.tick(*(floor.row(agent, Kind.CANCEL_AFTER, quantity=2) for agent in (one, two)))
        floor.tick(floor.row(one, Kind.CANCEL_AFTER, quantity=3), floor.row(two, Kind.CANCEL_AFTER, quantity=0))
        fired = []
        for _ in range(4):
            floor.tick()
            fired.append(floor.state.fired.tolist())

        assert fired == [[], [], [one], []]
        assert floor.state.order_slot[: floor.state.counters[ORDER_COUNT]].tolist() == [1]

    def test_of_many_each_fires_in_its_own_tick(self) -> None:
        """The noted next deadline is never behind the nearest one, whatever is set, put off and taken back."""
        chance = np.random.default_rng(5)
        floor = Floor(actions_per_tick_max=1)
        agents = floor.join(8)
        due: dict[int, int] = {}
        for _ in range(300):
            expected = sorted(agent for agent, tick in due.items() if tick == floor.state.tick + 1)
            rows = []
            for agent in expected:
                del due[agent]
            for agent in chance.choice(agents, 2, replace=False).tolist():
                ticks = int(chance.integers(0, 9))
                rows.append(floor.row(agent, Kind.CANCEL_AFTER, quantity=ticks))
                due.pop(agent, None)
                if ticks:
                    due[agent] = floor.state.tick + 1 + ticks

            floor.intake(*rows)

            assert floor.state.fired.tolist() == expected

    def test_who_leaves_takes_it_along(self) -> None:
        """The next agent in the slot has no deadline."""
        floor = Floor()
        (agent,) = floor.join()
        floor.tick(floor.row(agent, Kind.CANCEL_AFTER, quantity=2))
        floor.tick(floor.row(agent, Kind.UNREGISTER))
        floor.join()

        assert floor.state.agent_deadline[0] == 0
        assert floor.state.fired.tolist() == []


class TestSlots:
    """Coming and going."""

    def test_the_endowment_is_an_advance_of_the_treasury(self) -> None:
        """Cash and advance of the new agent, a flow from the treasury; the sum of all accounts stays zero."""
        floor = Floor()

        (agent,) = floor.join()

        assert (floor.state.agent_id[0], floor.state.agent_owner[0]) == (agent, agent)
        assert floor.state.agent_cash[0] == floor.state.agent_advance[0] == ENDOWMENT
        assert floor.state.flows[FLOW_ADVANCE_PAID] == ENDOWMENT
        assert floor.cash_sum() == 0

    def test_the_lowest_free_slot_is_reused_and_left_clean(self) -> None:
        """An agent that leaves with its endowment frees its slot at once; numbers are never reused."""
        floor = Floor()
        agents = floor.join(4)
        for agent in (agents[2], agents[1]):
            floor.tick(floor.row(agent, Kind.UNREGISTER))

        newcomers = floor.join(3)

        assert floor.state.agent_id[:5].tolist() == [agents[0], *newcomers[:2], agents[3], newcomers[2]]
        assert floor.state.counters[AGENT_COUNT] == floor.state.counters[SLOTS_USED] == 5

    def test_a_registration_may_name_its_slot(self) -> None:
        """What a fork does: the named slot if it is free, owner and block notwithstanding, the lowest one otherwise."""
        floor = Floor(max_agents=6, agents_per_owner_max=1, blocked_ticks=10)
        first, second = floor.join(2)
        floor.state.agent_cash[0] -= 1
        floor.tick(floor.row(first, Kind.UNREGISTER))

        outcomes = floor.tick(
            floor.row(801, Kind.REGISTER, owner=second, quantity=4 + 1),
            floor.row(802, Kind.REGISTER, quantity=1 + 1),
            floor.row(803, Kind.REGISTER, quantity=0 + 1),
            floor.row(804, Kind.REGISTER, owner=first, quantity=6 + 1),
            floor.row(805, Kind.REGISTER),
        )

        assert outcomes["available"].tolist() == [4, 2, 0, 3, 5]
        assert floor.state.agent_id.tolist() == [803, second, 802, 804, 801, 805]
        assert floor.state.blocked_owner[0] == floor.state.blocked_until[0] == 0

    def test_leaving_settles_everything(self) -> None:
        """Orders end, debt then advance are repaid, the rest of the cash goes to the treasury, goods to the estate."""
        floor = Floor()
        (agent,) = floor.join()
        floor.give(agent, CONSOL, 7)
        floor.give(agent, LABOUR, 3)
        floor.tick(
            floor.row(agent, Kind.BORROW, amount=100 * CREDIT),
            floor.limit(agent, OIL, 1, 2, LEVEL - 400),
            floor.row(agent, Kind.SET_SENTIMENT, mood=(1, 1, 1, 1)),
        )

        outcome = floor.outcome(floor.row(agent, Kind.UNREGISTER))

        state = floor.state
        assert (outcome["status"], outcome["value"]) == (Status.DONE, -ENDOWMENT)
        assert state.updates["status"].tolist() == [Status.CANCELLED]
        assert state.flows[FLOW_OUTSIDE_REPAID] == 100 * CREDIT
        assert state.flows[FLOW_ADVANCE_BACK] == ENDOWMENT
        assert (state.estate[CONSOL], state.estate[LABOUR]) == (7, 0)
        for item in array_fields():
            shape = item.metadata["shape"]
            if shape and shape[0] == "agents":
                assert not getattr(state, item.name)[0].any(), item.name
        assert state.counters[MOOD_COUNT] == state.counters[AGENT_COUNT] == state.counters[ORDER_COUNT] == 0
        assert floor.cash_sum() == 0

    def test_a_slot_left_with_a_loss_counts_for_its_owner_for_a_while(self) -> None:
        """Endowment lost: the slot stays blocked, nobody takes it, and the owner has one agent less."""
        floor = Floor(max_agents=3, agents_per_owner_max=1, blocked_ticks=10)
        first, second = floor.join(2)
        floor.state.agent_cash[floor.slot(first)] -= 1
        floor.tick(floor.row(first, Kind.UNREGISTER))
        until = floor.state.tick + 10
        assert (floor.state.blocked_owner[0], floor.state.blocked_until[0]) == (first, until)

        assert refused(floor, floor.row(801, Kind.REGISTER, owner=first))["code"] == Reject.AGENTS_PER_OWNER
        assert floor.outcome(floor.row(802, Kind.REGISTER))["status"] == Status.DONE
        assert floor.state.agent_id[:3].tolist() == [0, second, 802]
        assert refused(floor, floor.row(803, Kind.REGISTER))["code"] == Reject.AGENTS_FULL
        while floor.state.tick < until - 1:
            floor.tick()
        assert floor.outcome(floor.row(804, Kind.REGISTER, owner=first))["status"] == Status.DONE
        assert floor.state.agent_id[0] == 804
        assert floor.state.blocked_owner[0] == floor.state.blocked_until[0] == 0

    def test_idle_agents_expire_once_a_day(self) -> None:
        """At hour 0 those that did nothing for too long leave; any action, refused ones too, keeps an agent."""
        floor = Floor(idle_ticks_max=24)
        idle, busy = floor.join(2)
        order = floor.limit(idle, OIL, 1, 1, LEVEL - 300)
        floor.tick(order)
        while floor.state.tick < 47:
            floor.tick(floor.row(busy, Kind.CANCEL, order_id=77))
            assert floor.state.counters[AGENT_COUNT] == 2

        floor.tick()

        assert [(e.name, e.data) for e in floor.state.events] == [("agent_expired", {"agent": idle})]
        assert floor.state.updates[["order_id", "status"]].tolist() == [(order["seq"][0], Status.CANCELLED)]
        assert floor.state.agent_id[:2].tolist() == [0, busy]
        assert floor.cash_sum() == 0

    def test_registration_knows_neither_validity_nor_a_limit_of_actions(self) -> None:
        """An agent acts in the tick of its registration; leaving works after its last allowed action."""
        floor = Floor(actions_per_tick_max=1)
        register = floor.row(5, Kind.REGISTER)
        register["valid_until"] = 0

        outcomes = floor.tick(
            register, floor.limit(5, OIL, 1, 1), floor.limit(5, OIL, 1, 1), floor.row(5, Kind.UNREGISTER)
        )

        assert outcomes["status"].tolist() == [Status.DONE, Status.CANCELLED, Status.REJECTED, Status.DONE]

    def test_a_slot_that_changes_hands_within_a_tick_answers_to_its_present_agent(self) -> None:
        """Agents are looked up before the tick's first action; who leaves or joins meanwhile is noticed."""
        floor = Floor(blocked_ticks=0)
        (old,) = floor.join()
        leaving, joining = floor.row(old, Kind.UNREGISTER), floor.row(9_999, Kind.REGISTER)
        asks = [floor.row(agent, Kind.BORROW, amount=1) for agent in (old, 9_999)]

        outcomes = floor.tick(leaving, joining, *asks)

        assert outcomes["code"].tolist() == [0, 0, Reject.UNKNOWN_AGENT, 0]
        assert floor.slot(9_999) == 0

    def test_a_row_without_number_gets_its_sequence_number(self) -> None:
        """agent_id 0 on a registration means: its own seq."""
        floor = Floor()
        row = floor.row(0, Kind.REGISTER)

        assert floor.outcome(row)["agent_id"] == row["seq"][0]


class TestIndex:
    """From large, sparse numbers to slots."""

    @given(st.lists(st.tuples(st.booleans(), st.integers(1, 60).map(lambda n: n * 2**33 + n % 3)), max_size=200))
    def test_a_table_is_a_dictionary(self, steps: list[tuple[bool, int]]) -> None:
        """Insertions and removals in any order: every number finds its slot, others find nothing."""
        table, numbers = np.zeros(table_size(60), np.int32), np.zeros(60, np.int64)
        known: dict[int, int] = {}
        free = list(range(60))
        for is_new, number in steps:
            if is_new and number not in known:
                known[number] = free.pop()
                numbers[known[number]] = number
                insert(table, numbers, known[number])
            elif not is_new and number in known:
                remove(table, numbers, number)
                free.append(known.pop(number))
            assert find(table, numbers, number) == known.get(number, -1)
        for number, slot in known.items():
            assert find(table, numbers, number) == slot

    def test_the_first_look_mostly_finds_an_agent(self) -> None:
        """Of agents that joined together each is where its look-up begins; an empty table holds nobody."""
        table, numbers = np.zeros(table_size(60), np.int32), np.arange(1_600, 1_616)

        assert guess(table, 1_600) == -1
        for slot in range(len(numbers)):
            insert(table, numbers, slot)
        assert [guess(table, number) for number in numbers.tolist()] == list(range(16))

    def test_a_rebuilt_index_goes_on_like_the_grown_one(self) -> None:
        """After restoring the persistent arrays the same actions have the same outcomes."""
        floors = [Floor(agents_per_owner_max=2, blocked_ticks=100) for _ in range(2)]
        for floor in floors:
            agents = floor.join(5)
            floor.tick(*(floor.limit(a, OIL, 1, i + 1, LEVEL - i) for i, a in enumerate(agents)))
            floor.state.agent_cash[1] -= 1
            floor.tick(floor.row(agents[1], Kind.UNREGISTER))
        for item in array_fields():
            if item.name in (
                "agent_index",
                "owner_index",
                "slot_owner",
                "owner_next",
                "owner_open",
                "agent_first_order",
            ):
                getattr(floors[1].state, item.name)[:] = 0

        actions.rebuild_index(floors[1].state)

        results = []
        for floor in floors:
            floor.give(1, OIL, 3)
            rows = [
                floor.row(2_000, Kind.REGISTER, owner=2),
                floor.row(2_001, Kind.REGISTER, owner=2),
                floor.limit(1, OIL, -1, 1, LEVEL - 4),
                floor.row(3, Kind.UNREGISTER),
                floor.limit(5, OIL, 1, 1, LEVEL),
            ]
            results.append(floor.tick(*rows).tolist())
            results.append([(n, a.tolist()) for n, a in persistent(floor.state) if n.startswith(("agent", "order"))])
        assert results[0] == results[2]
        assert results[1] == results[3]


ANY_FIELDS = st.fixed_dictionaries(
    {
        "kind": st.integers(0, 14),
        "agent_id": st.integers(0, 6),
        "market": st.sampled_from([-1, LABOUR, OIL, FOOD, SHARE_FIRST, CONSOL, 32, 127]),
        "side": st.sampled_from([-1, 0, 1]),
        "quantity": st.sampled_from([-1, 0, 1, 3, 10, LOTS_MAX, LOTS_MAX + 1]),
        "amount": st.sampled_from([0, 1, 300 * CREDIT, 10**18, 2**63 - 1]),
        "level": st.sampled_from([-1, 0, LEVEL - 3, LEVEL, LEVEL + 3, LAST_LEVEL, LAST_LEVEL + 1]),
        "order_id": st.integers(0, 30),
        "order_until": st.sampled_from([0, 3, 2**63 - 1]),
        "time_in_force": st.integers(0, 3),
        "owner": st.sampled_from([0, 1, 2]),
        "mood": st.sampled_from([(0, 0, 0, 0), (5, 6, 7, 8), (-1, 0, 0, 40_000)]),
    }
)


@given(st.lists(st.lists(ANY_FIELDS, max_size=12), min_size=1, max_size=4))
def test_any_sequence_of_rows_conserves_cash_and_keeps_the_books(ticks: list[list[dict[str, Any]]]) -> None:
    """Whatever is sent, in shape or not: the sum of cash is zero, escrow and reserved lots are those of the orders."""
    floor = Floor()
    for agent in floor.join(3):
        for market in (OIL, FOOD, CONSOL):
            floor.give(agent, market, 50)

    for rows in ticks:
        outcomes = floor.tick(*(floor.any_row(**fields) for fields in rows))

        assert (outcomes["status"] > 0).all()
        assert floor.cash_sum() == 0
        invariants.check_accounts(floor.state)


def test_only_declared_arrays_change() -> None:
    """WRITES of the intake is complete: a tick of every kind of action changes nothing else."""
    floor = Floor()
    one, two = floor.join(2)
    floor.give(one, FOOD, 9)
    before = {item.name: getattr(floor.state, item.name).copy() for item in array_fields()}
    order = floor.limit(one, OIL, 1, 2)
    make: Callable[..., np.ndarray] = floor.row

    floor.intake(
        order, make(one, Kind.REPLACE, order_id=order["seq"], quantity=1, level=LEVEL),
        make(one, Kind.CONSUME, market=FOOD, quantity=1), make(one, Kind.BORROW, amount=9),
        make(one, Kind.REPAY, amount=9), make(one, Kind.SET_SENTIMENT), make(two, Kind.UNREGISTER),
        make(99, Kind.REGISTER), make(one, Kind.MARKET, market=FOOD, side=-1, quantity=1),
        make(one, Kind.CANCEL_AFTER, quantity=1), make(one, Kind.CANCEL_ALL),
    )  # fmt: skip
    floor.intake()

    changed = {name for name, array in before.items() if not np.array_equal(array, getattr(floor.state, name))}
    assert changed <= set(actions.WRITES)


ORDER_FIELDS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(
            [Kind.LIMIT] * 6
            + [Kind.MARKET, Kind.CANCEL, Kind.REPLACE, Kind.CANCEL_ALL, Kind.CONSUME, Kind.BORROW, Kind.UNREGISTER]
        ),
        "agent_id": st.integers(1, 5),
        "market": st.sampled_from([LABOUR, FOOD, OIL, CONSOL]),
        "side": st.sampled_from([-1, 1]),
        "quantity": st.integers(1, 60),
        "amount": st.just(50 * CREDIT),
        "level": st.integers(LEVEL - 2, LEVEL + 2),
        "order_id": st.integers(5, 40),
        "order_until": st.integers(22, 26),
        "time_in_force": st.integers(0, 2),
    }
)


@given(st.lists(st.lists(ORDER_FIELDS, max_size=14), min_size=1, max_size=5))
def test_an_order_placed_loose_ends_like_one_placed_in_full(ticks: list[list[dict[str, Any]]]) -> None:
    """The twin: agents whose first action of a tick is another one place all their orders in full, to the same end."""
    loose, full = Floor(tick=20), Floor(tick=20)
    for floor in (loose, full):
        for agent in (*floor.join(2, owner=1), *floor.join(2, owner=2)):
            for market in (LABOUR, FOOD, OIL, CONSOL):
                floor.give(agent, market, 50)

    for fields in ticks:
        rows = [loose.any_row(**each) for each in fields]
        # taking back a switch that is not set changes nothing, and is not counted
        first = [loose.row(a, Kind.CANCEL_AFTER, seq=0) for a in sorted({each["agent_id"] for each in fields})]

        outcomes, others = loose.tick(*rows), full.tick(*first, *rows)

        assert outcomes.tolist() == others[len(first) :].tolist()
        assert np.array_equal(loose.state.updates, full.state.updates)
        for (name, array), (_, other) in zip(persistent(loose.state), persistent(full.state), strict=True):
            assert np.array_equal(array, other), name
