"""Curves: surplus and elasticity in closed form, the auction's numbers from a copy of its orders, costs in steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.curves import (
    Side,
    Standing,
    arc_elasticity,
    consumer_surplus,
    crossing,
    demanded,
    elasticities,
    marginal_cost,
    point_elasticity,
    polyline,
    producer_surplus,
    recipe,
    standing_orders,
    supplied,
    thinned,
)
from engine.economy import Economy
from engine.ladder import prices, window
from engine.markets import GOOD_FIRST, GOOD_LAST, LABOUR, MARKETS, RAW_FIRST, RAW_LAST, SHARE_FIRST
from engine.messages import Kind
from engine.phases.behaviour import rebuild_histogram
from tests.support.worlds import RandomBots, run, small_config

WINDOW = window(0.5)


@given(top=st.floats(1.0, 1e6), slope=st.floats(1e-6, 1e3), share=st.floats(0.01, 1.0), points=st.integers(2, 500))
def test_surplus_of_linear_curves_is_a_triangle(top: float, slope: float, share: float, points: int) -> None:
    """Numerically as in closed form, within 1e-6 of it, however many points the curve has."""
    reach = top / slope
    quantity = share * reach
    price = top - slope * quantity
    quantities = np.linspace(0.0, reach, points)

    buyers = consumer_surplus(quantities, top - slope * quantities, quantity, price)
    sellers = producer_surplus(quantities, slope * quantities, quantity, slope * quantity)

    triangle = 0.5 * slope * quantity**2
    scale = top * quantity
    assert buyers == pytest.approx(triangle, rel=1e-6, abs=1e-9 * scale)
    assert sellers == pytest.approx(triangle, rel=1e-6, abs=1e-9 * scale)


def test_surplus_of_steps_is_the_sum_over_their_lots() -> None:
    """Vertical parts of a curve have no area."""
    table = np.array([10, 20, 30, 40])
    bids = Side(np.array([1, 3]), np.array([5, 2]))

    quantities, limits = polyline(bids, table, falling=True)

    assert quantities.tolist() == [0, 2, 2, 7]
    assert limits.tolist() == [40, 40, 20, 20]
    assert consumer_surplus(quantities, limits, 4.0, 15.0) == 2 * (40 - 15) + 2 * (20 - 15)
    assert consumer_surplus(quantities, limits, 0.0, 15.0) == 0.0


def test_a_surplus_beyond_the_curve_is_refused() -> None:
    """There is no price where there is no curve."""
    with pytest.raises(ValueError, match=r"ends at 7.0, asked for 8.0"):
        consumer_surplus(np.array([0.0, 7.0]), np.array([1.0, 1.0]), 8.0, 0.5)


@given(elasticity=st.floats(-5.0, 5.0), price=st.floats(0.5, 2.0))
def test_point_elasticity_of_a_constant_elasticity_curve(elasticity: float, price: float) -> None:
    """q = p^e has elasticity e at every price."""
    grid = np.linspace(0.2, 4.0, 20_001)

    assert point_elasticity(grid, grid**elasticity, price) == pytest.approx(elasticity, abs=2e-3)


def test_point_elasticity_of_a_line() -> None:
    """q = 100 - 2 p has elasticity -2 p / q."""
    grid = np.linspace(1.0, 49.0, 1_001)

    assert point_elasticity(grid, 100.0 - 2.0 * grid, 25.0, step=1e-4) == pytest.approx(-1.0, rel=1e-6)
    assert point_elasticity(grid, np.zeros(1_001), 25.0) == 0.0


def test_arc_elasticity_is_the_same_in_both_directions() -> None:
    """Between two points of a curve, relative to their means."""
    assert arc_elasticity(10.0, 40.0, 12.0, 30.0) == pytest.approx(-10.0 / 35.0 * 11.0 / 2.0)
    assert arc_elasticity(12.0, 30.0, 10.0, 40.0) == arc_elasticity(10.0, 40.0, 12.0, 30.0)
    assert arc_elasticity(10.0, 0.0, 12.0, 0.0) == 0.0
    with pytest.raises(ValueError, match="two prices"):
        arc_elasticity(10.0, 1.0, 10.0, 2.0)


def test_the_copy_of_standing_orders_knows_the_next_auction() -> None:
    """Price, volume, both surpluses and elasticities of every market, exact, when no outside order comes between."""
    economy = Economy(small_config(), 3)
    for _ in run(economy, 40, RandomBots(8, 1, edges=True)):
        pass

    for _ in range(26):
        copies = [standing_orders(economy.state, m, WINDOW) for m in range(MARKETS)]
        market = economy.advance().public.market
        for m, own in enumerate(copies):
            met = crossing(own)
            assert met.volume == market["volume"][m], m
            if met.volume == 0:
                continue
            assert met.level == market["level"][m], m
            price = int(prices()[met.level])
            buyers = consumer_surplus(*polyline(own.bids, prices(), falling=True), met.volume, price)
            sellers = producer_surplus(*polyline(own.asks, prices(), falling=False), met.volume, price)
            assert buyers == pytest.approx(market["consumer_surplus"][m], rel=1e-9, abs=1.0)
            assert sellers == pytest.approx(market["producer_surplus"][m], rel=1e-9, abs=1.0)
            assert elasticities(own) == pytest.approx((market["elasticity_demand"][m], market["elasticity_supply"][m]))


def test_outside_orders_and_the_estate_are_in_the_copy() -> None:
    """At the window's edge where the auction counts them there."""
    economy = Economy(small_config(), 3)
    for _ in range(30):
        economy.advance()
    before = standing_orders(economy.state, 9, WINDOW)
    bots = RandomBots(1, 1)
    economy.advance(bots.rows(economy, 1))
    order = bots._row(economy.tick, Kind.LIMIT, 1, market=9, side=1, quantity=7, level=before.reference - 300)
    economy.advance(order)
    economy.state.estate[9] = 8_000
    rebuild_histogram(economy.state, economy.config)

    after = standing_orders(economy.state, 9, WINDOW)

    assert (after.outside_bids, before.outside_bids, before.outside_asks) == (7, 0, 0)
    assert after.outside_asks > 0
    place = np.searchsorted(after.bids.levels, before.reference - 300)
    assert after.bids.levels[place] == before.reference - 300
    assert after.bids.lots[place] >= 7


def test_curves_are_cumulative() -> None:
    """Lots at a level or better for whoever would pay or take it."""
    side = Side(np.array([5, 7, 9]), np.array([10, 20, 30]))
    levels = np.array([4, 5, 6, 9, 10])

    assert demanded(side, levels).tolist() == [60, 60, 50, 30, 0]
    assert supplied(side, levels).tolist() == [0, 10, 10, 60, 60]


def test_curves_that_do_not_meet_have_no_crossing() -> None:
    """Nothing is traded and the price stays where it is."""
    own = Standing(
        9, 5, 50_000, 100, 100, Side(np.array([49_990]), np.array([5])), Side(np.array([50_010]), np.array([5])), 0, 0
    )

    assert crossing(own) == (50_000, 0, 0, 0)


def test_marginal_cost_rises_with_the_prices_of_inputs() -> None:
    """Lot after lot from the cheapest offers; the first input to run out ends it."""
    hours = (2.0, np.array([4.0, 10.0]), np.array([1.0, 3.0]))
    ore = (0.5, np.array([2.0, 4.0]), np.array([10.0, 20.0]))

    lots, costs = marginal_cost([hours, ore])

    assert lots.tolist() == [2.0, 4.0, 5.0]
    assert costs.tolist() == [2.0 + 5.0, 6.0 + 5.0, 6.0 + 10.0]


def test_marginal_cost_of_linear_inputs_is_linear() -> None:
    """The sum of the inputs' own lines, in the limit of fine steps."""
    fine = np.arange(1, 20_001) / 1_000.0

    lots, costs = marginal_cost([(2.0, fine, 1.0 + fine), (1.0, fine, 0.5 * fine)])

    assert lots[-1] == 10.0
    assert costs == pytest.approx(2.0 * (1.0 + 2.0 * lots) + 0.5 * lots, abs=0.01)


def test_marginal_cost_without_offers_is_empty() -> None:
    """Nothing can be made when an input is not to be had, or nothing is made at all."""
    empty = np.zeros(0)

    for inputs in ([], [(1.0, empty, empty), (1.0, np.ones(1), np.ones(1))]):
        lots, costs = marginal_cost(inputs)
        assert len(lots) == len(costs) == 0


def test_what_a_lot_takes_costs_its_unit_cost() -> None:
    """The recipe at reference prices is the unit cost the world itself has; what is not made has no recipe."""
    economy = Economy(small_config(), 3)
    for _ in range(30):
        economy.advance()
    state = economy.state

    for m in range(RAW_FIRST, GOOD_LAST + 1):
        parts = recipe(state, m)
        assert len(parts) == (3 if m >= GOOD_FIRST else 1)
        inputs = [state.price[i] if i != LABOUR else None for i, _ in parts]
        assert inputs[0] is None
        if m >= GOOD_FIRST:
            wage = int(state.counters[6])
            cost = sum(lots * (wage if i == LABOUR else int(state.price[i])) for i, lots in parts)
            assert cost == pytest.approx(state.unit_cost[m], rel=1e-5)
        else:
            assert m <= RAW_LAST
            assert parts[0][1] * int(state.price[LABOUR]) == pytest.approx(state.unit_cost[m])
    assert recipe(state, LABOUR) == recipe(state, SHARE_FIRST) == []


@given(count=st.integers(0, 3_000), most=st.integers(2, 500))
def test_thinning_keeps_both_ends(count: int, most: int) -> None:
    """At most so many places, rising, the first and the last among them."""
    places = thinned(count, most).tolist()

    assert len(places) <= most
    assert places == sorted(set(places))
    assert count == 0 or (places[0], places[-1]) == (0, count - 1)
    assert count > most or len(places) == count
