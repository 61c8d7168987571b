"""Demand and supply of a market as curves: what stands for the next auction, what another lot costs to make.

A copy of the standing orders is taken from a state that stands still; everything else is arithmetic on copies.
Source: specification 004, Supply & Demand Engine (curves, surplus, elasticity, marginal costs).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.ladder import LAST_LEVEL, REFERENCE_HIGH, REFERENCE_LOW
from engine.markets import INPUT_1, INPUT_2, LABOUR, RAW_FIRST
from engine.order_book import ESTATE_BELOW, estate_offer
from engine.state import CENTRE, ORDER_COUNT, State

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ELASTICITY_REACH = 50
"""Levels above and below the reference between which a market's elasticities are taken, as the auction does."""
Q16 = 65_536.0


class Side(NamedTuple):
    """Orders of one side. levels: of the ladder, rising, each once; lots: bid or asked there, above zero."""

    levels: Ints
    lots: Ints

    @property
    def total(self) -> int:
        """All lots of the side."""
        return int(self.lots.sum())


class Standing(NamedTuple):
    """What stands in a market for the auction of `tick`, before the orders that tick brings.

    reference: level of the last auction; down, up: levels the window of the auction reaches from there. outside_bids,
    outside_asks: lots of them that outside agents, or the estate of those that left, placed.
    """

    market: int
    tick: int
    reference: int
    down: int
    up: int
    bids: Side
    asks: Side
    outside_bids: int
    outside_asks: int


class Crossing(NamedTuple):
    """Where demand meets supply. volume 0: nowhere, and level is the reference."""

    level: int
    volume: int
    demand: int
    supply: int


def standing_orders(state: State, m: int, window: tuple[int, int]) -> Standing:
    """Return a copy of what stands in market m for the next auction; the state must hold a whole tick.

    window: levels an auction reaches below and above the reference (engine.ladder.window). Outside orders that the
    auction would clip to the window's edge stand there; those it would leave out stand where their owners put them.
    Source: ECONOMY A6.1, A6.3.
    """
    reference, (down, up) = int(state.level[m]), window
    bids, asks = _residents(state, m, 0), _residents(state, m, 1)
    count = int(state.counters[ORDER_COUNT])
    # the market first: a look at all columns of a million orders takes four times as long
    rows = np.flatnonzero(state.order_market[:count] == m)
    rows = rows[(state.order_qty[rows] > 0) & (state.order_expires[rows] > state.tick)]
    levels, lots, sides = (column[rows] for column in (state.order_level, state.order_qty, state.order_side))
    buys, sells = sides > 0, sides < 0
    outside_bids = np.minimum(levels[buys], reference + up), lots[buys]
    outside_asks = np.maximum(levels[sells], reference - down), lots[sells]
    if offered := int(estate_offer(int(state.estate[m]))):
        outside_asks = (
            np.append(outside_asks[0], reference - min(ESTATE_BELOW, down)),
            np.append(outside_asks[1], offered),
        )
    return Standing(
        m,
        state.tick + 1,
        reference,
        down,
        up,
        _joined(bids, outside_bids),
        _joined(asks, outside_asks),
        int(outside_bids[1].sum()),
        int(outside_asks[1].sum()),
    )


def recipe(state: State, m: int) -> list[tuple[int, float]]:
    """Return what a lot of a market takes: [(market of an input, lots of it)], hours first; empty for what is not made.

    Scarcity is in the hours of a raw material, as in its unit cost. Source: ECONOMY A7 (costs), A10.
    """
    if m < RAW_FIRST or state.hours_q16[m] == 0:
        return []
    if INPUT_1[m] < 0:
        # an extractor's unit cost has the scarcity multiplier in it, its hours have not
        wage = int(state.ladder[state.level[LABOUR]])
        return [(LABOUR, float(state.unit_cost[m]) / wage)]
    return [
        (LABOUR, float(state.hours_q16[m]) / Q16),
        (INPUT_1[m], float(state.input1_q16[m]) / Q16),
        (INPUT_2[m], float(state.input2_q16[m]) / Q16),
    ]


def demanded(bids: Side, levels: Ints) -> Ints:
    """Return the lots bid at each level or above it: the demand curve."""
    below = np.concatenate((np.zeros(1, np.int64), np.cumsum(bids.lots)))
    lots: Ints = below[-1] - below[np.searchsorted(bids.levels, levels)]
    return lots


def supplied(asks: Side, levels: Ints) -> Ints:
    """Return the lots asked at each level or below it: the supply curve."""
    below = np.concatenate((np.zeros(1, np.int64), np.cumsum(asks.lots)))
    lots: Ints = below[np.searchsorted(asks.levels, levels, side="right")]
    return lots


def crossing(standing: Standing) -> Crossing:
    """Return where the next auction would clear if nothing else came.

    Largest volume, then smallest imbalance, then closest to the reference, then the lower level; levels inside the
    window and the ladder's reference range. Source: ECONOMY A6.2.
    """
    low = max(standing.reference - standing.down, REFERENCE_LOW)
    high = min(standing.reference + standing.up, REFERENCE_HIGH)
    levels = np.arange(low, high + 1)
    # an order nobody can see from inside the window is in no auction
    demand, supply = demanded(standing.bids, levels), supplied(standing.asks, levels)
    volume = np.minimum(demand, supply)
    if not volume.any():
        return Crossing(standing.reference, 0, 0, 0)
    order = np.lexsort((levels, np.abs(levels - standing.reference), np.abs(demand - supply), -volume))
    best = order[0]
    return Crossing(int(levels[best]), int(volume[best]), int(demand[best]), int(supply[best]))


def polyline(side: Side, prices: Ints, *, falling: bool) -> tuple[Floats, Floats]:
    """Return a side as (lots, price) points of its curve: lots rising from 0, one flat step a level.

    prices: the ladder. falling: a demand curve, highest bid first; else a supply curve, lowest ask first.
    """
    order = slice(None, None, -1) if falling else slice(None)
    lots, limits = side.lots[order].astype(np.float64), prices[side.levels[order]].astype(np.float64)
    ends = np.cumsum(lots)
    quantities = np.stack((ends - lots, ends), axis=1).ravel()
    return quantities, np.repeat(limits, 2)


def consumer_surplus(quantities: Floats, prices: Floats, quantity: float, price: float) -> float:
    """Return the integral of (demand curve - price) over 0..quantity: what buyers would have paid beyond the price.

    quantities, prices: points of the curve, quantities not falling; straight between them, so that linear curves and
    steps are exact. quantity is at most the curve's last. Source: specification 004, consumer surplus.
    """
    return _area(quantities, prices, quantity) - price * quantity


def producer_surplus(quantities: Floats, prices: Floats, quantity: float, price: float) -> float:
    """Return the integral of (price - supply curve) over 0..quantity; as consumer_surplus."""
    return price * quantity - _area(quantities, prices, quantity)


def point_elasticity(prices: Floats, quantities: Floats, price: float, step: float = 0.005) -> float:
    """Return (dQ/Q) / (dP/P) at a price, from the curve's quantities a fraction `step` of the price around it.

    prices: rising, with the quantity at each; straight between points. In logarithms, so that a curve of constant
    elasticity gives it at every step. 0 where the quantity is zero on either side.
    Source: specification 004, price elasticity.
    """
    around = np.array([price * (1.0 - step), price * (1.0 + step)])
    below, above = np.interp(around, prices, quantities)
    if below <= 0.0 or above <= 0.0:
        return 0.0
    return float(np.log(above / below) / np.log(around[1] / around[0]))


def arc_elasticity(price_from: float, quantity_from: float, price_to: float, quantity_to: float) -> float:
    """Return (dQ / mean Q) / (dP / mean P) between two points of a curve; 0 where both quantities are 0.

    Raises ValueError when both prices are the same. Source: Allen 1934, Review of Economic Studies 1(3).
    """
    if price_from == price_to:
        raise ValueError(f"an arc needs two prices, got {price_from} twice")
    total = quantity_from + quantity_to
    if total == 0.0:
        return 0.0
    return (quantity_to - quantity_from) / total * (price_from + price_to) / (price_to - price_from)


def elasticities(standing: Standing) -> tuple[float, float]:
    """Return the elasticities of demand (positive: lots fall as the price rises) and supply around the reference.

    The auction's own measure: the change of lots over 100 levels, relative to their mean plus one lot, a price change
    of 1 %. Source: ECONOMY A6.2.
    """
    ends = np.array([standing.reference - ELASTICITY_REACH, standing.reference + ELASTICITY_REACH])
    change = 2.0 * ELASTICITY_REACH / 10_000.0
    cheap, dear = demanded(standing.bids, ends).tolist()
    low, high = supplied(standing.asks, ends).tolist()
    return (
        (cheap - dear) / ((cheap + dear) * 0.5 + 1.0) / change,
        (high - low) / ((high + low) * 0.5 + 1.0) / change,
    )


def marginal_cost(inputs: Sequence[tuple[float, Floats, Floats]]) -> tuple[Floats, Floats]:
    """Return the supply curve that follows from costs: (lots up to which, cost of each of those lots), steps rising.

    inputs: of each what a lot takes (above zero), and its own supply curve: lots up to which, rising, and the price
    of each of those, rising. Lot after lot is made from the cheapest hours and inputs on offer, so each level of the
    input markets makes a step; the curve ends where an input does. Empty without inputs or where one has no offer.
    Source: specification 004, multi-level supply curves based on marginal costs.
    """
    if not inputs or any(len(lots) == 0 for _, lots, _ in inputs):
        return np.zeros(0), np.zeros(0)
    ends = [lots / per_lot for per_lot, lots, _ in inputs]
    reach = min(float(end[-1]) for end in ends)
    steps = np.unique(np.concatenate(ends))
    steps = steps[steps <= reach]
    costs = np.zeros(len(steps))
    for (per_lot, _, prices), end in zip(inputs, ends, strict=True):
        costs += per_lot * prices[np.searchsorted(end, steps)]
    return steps, costs


def thinned(count: int, most: int) -> Ints:
    """Return at most `most` (at least 2) of the indices 0..count-1, evenly spread, first and last among them."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.rint(np.linspace(0, count - 1, most)).astype(np.int64))


def _residents(state: State, m: int, side: int) -> tuple[Ints, Ints]:
    """Return levels and lots of the residents' orders, copied."""
    low, high = int(state.touched[:, m, 0].min()), int(state.touched[:, m, 1].max())
    lots = state.histogram[:, m, side, low : high + 1].sum(axis=0) if low <= high else np.zeros(0, np.int64)
    places = np.flatnonzero(lots)
    return places + (low + int(state.level[m]) - CENTRE), lots[places]


def _joined(residents: tuple[Ints, Ints], outside: tuple[Ints, Ints]) -> Side:
    """Return orders of both kinds as one side."""
    if not len(outside[0]):
        return Side(*residents)
    levels, places = np.unique(np.concatenate((residents[0], outside[0])), return_inverse=True)
    lots = np.zeros(len(levels), np.int64)
    np.add.at(lots, places, np.concatenate((residents[1], outside[1])))
    return Side(np.clip(levels, 0, LAST_LEVEL), lots)


def _area(quantities: Floats, prices: Floats, quantity: float) -> float:
    """Return the area under a curve up to a quantity, by trapezoids."""
    if quantity <= 0.0:
        return 0.0
    inside = quantities < quantity
    ends = np.append(quantities[inside], quantity)
    heights = np.append(prices[inside], _height(quantities, prices, quantity))
    first = 0.0 if quantities[0] == 0.0 else float(quantities[0]) * float(prices[0])
    return first + float(np.sum(np.diff(ends) * (heights[1:] + heights[:-1]) * 0.5))


def _height(quantities: Floats, prices: Floats, quantity: float) -> float:
    """Return the curve's price at a quantity; where it jumps, the one before the jump."""
    at = int(np.searchsorted(quantities, quantity))
    if at == len(quantities):
        raise ValueError(f"the curve ends at {quantities[-1]}, asked for {quantity}")
    if at == 0 or quantities[at] == quantity:
        return float(prices[at])
    share = (quantity - quantities[at - 1]) / (quantities[at] - quantities[at - 1])
    return float(prices[at - 1] + share * (prices[at] - prices[at - 1]))
