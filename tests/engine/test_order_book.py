"""Outside orders in the auction: who is filled first, what is paid, what stays in the table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import invariants
from engine.ladder import LAST_LEVEL, prices, window
from engine.markets import CONSOL, LABOUR, OIL, SHARE_FIRST
from engine.messages import Kind, Status, TimeInForce
from engine.order_book import OUT_OF_WINDOW, book_of, estate_offer, find_order, window_slot
from engine.state import (
    CENTRE,
    FLOW_ESTATE_INCOME,
    FLOW_ESTATE_SOLD,
    FLOW_OUTSIDE_INCOME,
    ORDER_COUNT,
    TREASURY,
)
from tests.support.naive_auction import Order, clear
from tests.support.trading_floor import CREDIT, LEVEL, Floor

P = prices()
DOWN, UP = window(0.5)
RICH = 10**15


def traders(count: int, market: int = OIL, lots: int = 10**6, **changes: object) -> tuple[Floor, list[int]]:
    """Return a floor with agents of different owners that hold lots of a market and plenty of cash."""
    floor = Floor(**changes)
    agents = floor.join(count)
    for agent in agents:
        floor.give(agent, market, lots)
        floor.state.agent_cash[floor.slot(agent)] += RICH
        floor.state.ledger[TREASURY] -= RICH
    return floor, agents


def test_equal_new_orders_share_the_margin_by_cumulative_rounding() -> None:
    """Three equal buyers of 3 for 7 lots: floor(7 C / 9) differences give 2, 2, 3."""
    floor, agents = traders(4)

    outcomes = floor.tick(
        *(floor.limit(a, OIL, 1, 3) for a in agents[:3]), floor.limit(agents[3], OIL, -1, 7, LEVEL - 5)
    )

    assert outcomes["filled"].tolist() == [2, 2, 3, 7]
    assert outcomes["status"].tolist() == [Status.PARTIAL, Status.PARTIAL, Status.FILLED, Status.FILLED]
    assert outcomes["open"].tolist() == [1, 1, 0, 0]


def test_carried_over_orders_go_first_and_oldest_first() -> None:
    """At the margin yesterday's orders are filled before new ones, in order of age, whatever their size."""
    floor, agents = traders(4)
    for agent in agents[:2]:
        floor.tick(floor.limit(agent, OIL, 1, 5))

    level = int(floor.state.level[OIL])
    outcomes = floor.tick(
        floor.limit(agents[2], OIL, 1, 10, LEVEL), floor.limit(agents[3], OIL, -1, 8, min(level, LEVEL) - 50)
    )

    assert floor.state.updates["filled"].tolist() == [5, 3]
    assert floor.state.updates["status"].tolist() == [Status.FILLED, Status.PARTIAL]
    assert outcomes["filled"].tolist() == [0, 8]


def test_better_limits_are_filled_before_age() -> None:
    """A new order above the margin is filled in full while an older one at the margin waits."""
    floor, agents = traders(3)
    floor.tick(floor.limit(agents[0], OIL, 1, 5, LEVEL))

    outcomes = floor.tick(floor.limit(agents[1], OIL, 1, 4, LEVEL + 1), floor.limit(agents[2], OIL, -1, 4, LEVEL - 9))

    assert outcomes["filled"].tolist() == [4, 4]
    assert len(floor.state.updates) == 0


def test_price_improvement_goes_back_to_the_buyer() -> None:
    """A buyer pays the clearing price, not its limit; nothing stays in escrow."""
    floor, (buyer, seller) = traders(2)
    cash = floor.state.agent_cash[floor.slot(buyer)]

    outcome = floor.tick(floor.limit(buyer, OIL, 1, 3, LEVEL + 100), floor.limit(seller, OIL, -1, 3, LEVEL))[0]

    paid = 3 * int(P[floor.state.level[OIL]])
    assert paid < 3 * P[LEVEL + 100]
    assert (outcome["value"], outcome["price"]) == (-paid, paid // 3)
    assert floor.state.agent_cash[floor.slot(buyer)] == cash - paid
    assert floor.state.agent_escrow[floor.slot(buyer)] == 0
    assert floor.state.agent_holdings[floor.slot(seller), OIL] == 10**6 - 3


def test_what_is_left_of_an_ioc_order_is_cancelled() -> None:
    """A partly filled immediate-or-cancel order ends cancelled, its fill reported, its escrow released."""
    floor, (buyer, seller) = traders(2)

    outcome = floor.tick(floor.limit(buyer, OIL, 1, 9, time_in_force=TimeInForce.IOC), floor.limit(seller, OIL, -1, 4))[
        0
    ]

    assert (outcome["filled"], outcome["open"], outcome["status"]) == (4, 0, Status.CANCELLED)
    assert floor.state.agent_escrow[floor.slot(buyer)] == 0
    assert floor.state.counters[ORDER_COUNT] == 0


def test_a_gtt_order_takes_part_in_its_last_tick_and_expires_with_it() -> None:
    """Good till tick n: still open after n - 1, expired after n."""
    floor, (buyer, _) = traders(2)
    last = floor.state.tick + 2
    order = floor.limit(buyer, OIL, 1, 9, LEVEL - 500, time_in_force=TimeInForce.GTT, order_until=last)

    assert floor.outcome(order)["status"] == Status.RESTING
    floor.tick()

    assert floor.state.updates["status"].tolist() == [Status.EXPIRED]
    assert floor.state.updates["open"].tolist() == [0]
    assert floor.state.agent_escrow[floor.slot(buyer)] == 0
    assert floor.state.agent_orders[floor.slot(buyer)] == 0


def test_orders_beyond_the_window_rest_or_count_at_its_edge() -> None:
    """A buy below and a sell above the window wait; a buy above and a sell below trade."""
    assert window_slot(1, LEVEL + UP + 50, LEVEL, DOWN, UP) == CENTRE + UP
    assert window_slot(1, LEVEL - DOWN - 1, LEVEL, DOWN, UP) == OUT_OF_WINDOW
    assert window_slot(-1, LEVEL - DOWN - 50, LEVEL, DOWN, UP) == CENTRE - DOWN
    assert window_slot(-1, LEVEL + UP + 1, LEVEL, DOWN, UP) == OUT_OF_WINDOW
    floor, (far, near) = traders(2)

    outcomes = floor.tick(
        floor.limit(far, OIL, -1, 5, LAST_LEVEL),
        floor.limit(near, OIL, 1, 5, LEVEL + UP + 50),
        floor.limit(far, CONSOL, 1, 1, 0),
    )

    assert outcomes["status"].tolist() == [Status.RESTING] * 3
    assert floor.state.bids_total[OIL] == 5
    assert floor.state.asks_total[OIL] == 0


def test_the_table_stays_sorted_by_age_and_searchable() -> None:
    """Cancels and fills leave no holes; every open order is found by its id, nothing else is."""
    floor, agents = traders(3)
    rows = [floor.limit(agents[i % 3], OIL, 1, 5, LEVEL - 100 - i) for i in range(12)]
    ids = [int(row["seq"][0]) for row in rows]
    floor.tick(*rows)

    floor.tick(*(floor.row(agents[i % 3], Kind.CANCEL, order_id=ids[i]) for i in (0, 5, 11)))

    count = int(floor.state.counters[ORDER_COUNT])
    left = [seq for i, seq in enumerate(ids) if i not in (0, 5, 11)]
    assert floor.state.order_id[:count].tolist() == left
    book = book_of(floor.state)
    assert [find_order(book, seq) for seq in left] == list(range(9))
    assert [find_order(book, ids[5]), find_order(book, 10**12), find_order(book, -1)] == [-1, -1, -1]


def test_dividends_are_paid_on_holdings_before_the_fills() -> None:
    """The seller of this tick gets the income of this tick, the buyer none (ECONOMY A17 c)."""
    floor, (buyer, seller) = traders(2, market=CONSOL, lots=10)
    floor.state.agent_holdings[floor.slot(buyer), CONSOL] = 0
    floor.state.agent_assets[floor.slot(buyer)] = 0
    floor.state.income_per_lot[CONSOL] = 694

    outcomes = floor.tick(floor.limit(buyer, CONSOL, 1, 10), floor.limit(seller, CONSOL, -1, 10))

    assert outcomes["filled"].tolist() == [10, 10]
    assert floor.state.flows[FLOW_OUTSIDE_INCOME] == 6_940
    floor.tick()
    assert floor.state.flows[FLOW_OUTSIDE_INCOME] == 6_940
    endowment = floor.config.endowment_credits * CREDIT
    price = outcomes["price"][0]
    assert floor.state.agent_cash[floor.slot(seller)] == RICH + endowment + 10 * price + 6_940


class TestEstate:
    """What agents left behind is sold slowly for the treasury."""

    @pytest.mark.parametrize(("lots", "offer"), [(0, 0), (1, 1), (31, 1), (64, 2), (3_200, 100)])
    def test_it_offers_a_thirty_second_of_itself_and_at_least_a_lot(self, lots: int, offer: int) -> None:
        """ECONOMY A13."""
        assert estate_offer(lots) == offer

    def test_proceeds_and_income_go_to_the_treasury(self) -> None:
        """A buyer at p - 50 gets the offer; estate, proceeds and dividends add up."""
        floor, (buyer, _) = traders(2)
        floor.state.estate[SHARE_FIRST] = 64
        floor.state.income_per_lot[SHARE_FIRST] = 10

        outcome = floor.outcome(floor.limit(buyer, SHARE_FIRST, 1, 5, LEVEL - 50))

        assert outcome["filled"] == 2
        assert floor.state.estate[SHARE_FIRST] == 62
        assert floor.state.flows[FLOW_ESTATE_SOLD] == 2 * P[LEVEL - 50]
        assert floor.state.flows[FLOW_ESTATE_INCOME] == 640

    def test_it_shares_the_margin_after_new_outside_orders(self) -> None:
        """New sellers at p - 50 and the estate are rationed together, the estate last."""
        floor, (buyer, seller) = traders(2)
        floor.state.estate[OIL] = 32 * 4

        outcomes = floor.tick(floor.limit(seller, OIL, -1, 3, LEVEL - 50), floor.limit(buyer, OIL, 1, 5, LEVEL - 50))

        assert outcomes["filled"].tolist() == [5 * 3 // 7, 5]
        assert floor.state.estate[OIL] == 128 - (5 - 5 * 3 // 7)


def test_hours_lapse_at_the_end_of_the_day() -> None:
    """After the auction of tick mod 24 = 23 held hours are gone and sells of hours expire."""
    floor, (seller, _) = traders(2, market=LABOUR, lots=10, tick=21)
    placed = floor.outcome(floor.limit(seller, LABOUR, -1, 4, LEVEL + 300))
    assert placed["status"] == Status.RESTING

    floor.tick()

    assert floor.state.tick % 24 == 23
    assert floor.state.updates["status"].tolist() == [Status.EXPIRED]
    assert not floor.state.agent_holdings[:, LABOUR].any()
    assert not floor.state.agent_reserved.any()


SIZES = st.integers(1, 12)
STEPS = st.one_of(st.integers(-3, 3), st.integers(-7_500, 4_500))
ORDERS = st.lists(st.tuples(st.sampled_from([-1, 1]), STEPS, SIZES), max_size=8)
RESIDENTS = st.lists(st.tuples(st.sampled_from([-1, 1]), st.integers(-3, 3), SIZES), max_size=8)


@given(old=ORDERS, new=ORDERS, residents=RESIDENTS)
def test_settlement_is_the_naive_one(
    old: list[tuple[int, int, int]], new: list[tuple[int, int, int]], residents: list[tuple[int, int, int]]
) -> None:
    """Every fill, of carried-over and new outside orders and of residents, equals the plain-Python settlement.

    With it: buys = sells = V, nobody pays more than its limit, cash is conserved to the last unit.
    """
    floor, agents = traders(len(old) + len(new), max_agents=32)
    state, layout = floor.state, floor.state.layout
    # the old orders wait in a halt, so that they are carried over unfilled
    state.halt_until[OIL] = state.tick + 2
    floor.tick(*(floor.limit(a, OIL, s, q, LEVEL + d) for a, (s, d, q) in zip(agents, old, strict=False)))
    traders_of_oil = range(layout.trader_first, layout.trader_first + len(residents))
    for i, (side, step, lots) in zip(traders_of_oil, residents, strict=True):
        floor.stand(i, LEVEL + step, side * lots)
    before = floor.cash_sum()

    outcomes = floor.tick(
        *(floor.limit(a, OIL, s, q, LEVEL + d) for a, (s, d, q) in zip(agents[len(old) :], new, strict=True))
    )

    twin = [Order(s, LEVEL + d, q, True) for s, d, q in old] + [Order(s, LEVEL + d, q) for s, d, q in new + residents]
    naive = clear(twin, LEVEL, DOWN, UP)
    updated = dict(zip(state.updates["order_id"].tolist(), state.updates["filled"].tolist(), strict=True))
    first_id = agents[-1] + 1 if agents else 0
    fills = [updated.get(first_id + i, 0) for i in range(len(old))] + outcomes["filled"].tolist()
    first, _ = floor.resident_fills()
    fills += [abs(first[i]) for i in traders_of_oil]
    assert fills == [order.fill for order in twin]
    for order in twin:
        assert order.fill == 0 or order.side * (order.level - naive.level) >= 0
    for i in traders_of_oil:
        state.cash[i] -= first[i] * int(state.price[OIL])
    assert sum(o.fill for o in twin if o.side > 0) == naive.volume == sum(o.fill for o in twin if o.side < 0)
    assert floor.cash_sum() == before == 0
    invariants.check_accounts(state)
    assert np.all(state.agent_cash >= 0)
