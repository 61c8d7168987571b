"""A tick of the traders: fundamentalists and chartists in herding groups, each in one market.

Kernel of the behaviour phase. Everything is integer: bp, Q4, Q8, rounded down. Source: ECONOMY A7 Trader; herding
groups of Zipf size after Cont & Bouchaud (2000), strategies after Franke & Westerhoff (2012).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numba import njit
from numpy.typing import NDArray

from engine.kernels import kernel
from engine.phases._kernels import bits, draw_all, quotient
from engine.phases._minds import drift
from engine.phases._orders import LOTS_MAX, fills, stand
from engine.rng import mix32, normal_units
from engine.state import FLOW_FUND_INCOME, GROUPS

ACTIVITY, ACTIVITY_MAX = 48, 250
"""Of 256 at VM 1: how many traders act in a tick."""
VALUE_RANGE = 2_000
"""bp: how far fundamental value is believed to differ from the price."""
EDGE = 60
"""bp at VM 1: the largest profit a trader asks for."""
TREND_WEIGHT = 75
"""Of 256: the part of a trend that chartists expect to go on. With 150 (ECONOMY A7) and shocks that grow with losses
the consol's returns correlated by .07 two ticks apart; with 100 those of a calm world of 100,000 residents did by more
than the band's .06 in 3 markets of 15, with 75 in 2."""
BUY_CAP = 2_000
"""bp above the reference level, the highest bid."""
OWN_NOISE = np.uint64(0x51ED270B)

I32 = NDArray[np.int32]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]
Moods = NDArray[np.int16]


def group_table() -> NDArray[np.int64]:
    """Return the herding group of each byte: Zipf weights 1/k, k = 1..64. The first has 54 of 256, one has none."""
    weights = [Fraction(1, k) for k in range(1, GROUPS + 1)]
    bounds = [sum(weights[: k + 1]) / sum(weights) for k in range(GROUPS)]
    rows = [next(k for k in range(GROUPS) if bounds[k] >= Fraction(2 * b + 1, 512)) for b in range(256)]
    return np.array(rows, dtype=np.int64)


GROUP = group_table()


@kernel
def run(
    first_block: int,
    last_block: int,
    trader_first: int,
    block_start: I64,
    block_end: I64,
    block_home: I64,
    block_before: I64,
    cash: I64,
    ord_level: I32,
    ord_qty: I32,
    sentiment: Moods,
    fear: Moods,
    greed: Moods,
    confidence: Moods,
    memory: Moods,
    inventory: I64,
    level: I64,
    price: I64,
    fundamental: I64,
    income_per_lot: I64,
    bias: I64,
    trend_fast: I64,
    trend_slow: I64,
    chartists_q16: I64,
    vm_q8: I64,
    sigma_q4: I64,
    group_draw: I64,
    margin_level: I64,
    margin_ration: I64,
    margin_total: I64,
    targets: I64,
    keys: U32,
    down: int,
    up: int,
    fill_scratch: I32,
    draw_scratch: U32,
    value_scratch: I64,
    histogram: I64,
    touched: I64,
    flows: I64,
    mood_sum: I64,
) -> None:
    """Settle, decide and feel for the trader blocks first_block .. last_block - 1.

    bias: bp off valuations by market: the panic's, less the shift of quotes for outside flow.
    Income on the inventory held before the fills goes to the fund pool. Adds to histogram, touched, flows and
    mood_sum, one thread's own. inventory is indexed by id - trader_first.
    """
    for b in range(first_block, last_block):
        start, end, home = block_start[b], block_end[b], block_home[b]
        n = end - start
        fill, draws, values = fill_scratch[:n], draw_scratch[:n], value_scratch[:n]
        limit, quantity, money = ord_level[start:end], ord_qty[start:end], cash[start:end]
        stock = inventory[start - trader_first : end - trader_first]

        before = block_before[b]
        fills(limit, quantity, home, margin_level, margin_ration, margin_total, before[0], before[1], fill)
        flows[FLOW_FUND_INCOME] += income_per_lot[home] * _take(money, stock, fill, price[home])

        reference, vm = level[home], vm_q8[home]
        draw_all(start, keys[0, 0], keys[0, 1], draws)
        _hear(start, group_draw[home], values)
        _value(
            start, draws, vm, sigma_q4[home], chartists_q16[home], fundamental[home] - reference, trend_fast[home],
            trend_slow[home], bias[home], values,
        )  # fmt: skip
        _size(draws, vm, price[home], values, money, stock, quantity)
        _limit(draws, vm, values, reference, reference + min(BUY_CAP, up), reference - down, limit)
        stand(limit, quantity, home, reference, down, up, histogram, touched)

        drift(
            start, home, keys[1, 0], keys[1, 1], targets, sentiment[start:end], fear[start:end], greed[start:end],
            confidence[start:end], memory[start:end], draws, mood_sum,
        )  # fmt: skip


@kernel
def _take(cash: I64, inventory: I64, fill: I32, price: int) -> int:
    """Book the fills and return the inventory held before them."""
    held = 0
    for j in range(len(cash)):
        held += inventory[j]
        inventory[j] += int(fill[j])
        cash[j] -= int(fill[j]) * price
    return held


@njit(inline="always")
def _trait(trader: int) -> np.uint32:
    """Return what never changes: bits 0-15 strategy threshold, 16-23 herding group, 24 horizon (1 = fast)."""
    return mix32(np.uint64(2_246_822_519) * np.uint64(trader) + np.uint64(11))


@kernel
def _hear(first: int, group_draw: I64, heard: I64) -> None:
    """Write each trader's draw of its herding group."""
    for j in range(len(heard)):
        heard[j] = group_draw[GROUP[bits(_trait(first + j), 16, 8)]]


@kernel
def _value(
    first: int,
    draws: U32,
    vm: int,
    sigma_q4: int,
    chartists_q16: int,
    mispricing: int,
    trend_fast: int,
    trend_slow: int,
    bias: int,
    values: I64,
) -> None:
    """Turn the groups' draws into valuations, bp relative to the reference level."""
    pull = (min(max(mispricing, -VALUE_RANGE), VALUE_RANGE) * 24) >> 12
    fast, slow = (trend_fast * TREND_WEIGHT) >> 12, (trend_slow * TREND_WEIGHT) >> 12
    for j in range(len(values)):
        trait = _trait(first + j)
        by_trend = (fast if bits(trait, 24, 1) == 1 else slow) + ((sigma_q4 * 11 * values[j]) >> 12)
        by_worth = pull + ((sigma_q4 * values[j]) >> 10)
        own_noise = normal_units(mix32(np.uint64(draws[j]) + OWN_NOISE))
        judged = by_trend if bits(trait, 0, 16) < chartists_q16 else by_worth
        values[j] = judged + ((own_noise * vm * 6) >> 15) - bias


@kernel
def _size(draws: U32, vm: int, price: int, values: I64, cash: I64, inventory: I64, quantity: I32) -> None:
    """Write the lots: buys for a value of 0 or more, sells below it, nothing of a trader that is not active.

    Not more than cash // P[limit] holds by itself: at VM 7.5, the most the weights of Config allow, a size is 292/512
    of the cash, and a bid costs 1.2214 prices at most.
    """
    activity = min(ACTIVITY_MAX, (((vm * vm) >> 8) * ACTIVITY) >> 8)
    lots_per_ucr = 1.0 / price
    for j in range(len(quantity)):
        size = ((8 + bits(draws[j], 18, 5)) * vm) >> 8
        bought = quotient((cash[j] >> 9) * size, price, lots_per_ucr)
        sold = min((inventory[j] * size + bits(draws[j], 23, 9)) >> 9, inventory[j])
        lots = min(bought, LOTS_MAX) if values[j] >= 0 else -min(sold, LOTS_MAX)
        quantity[j] = lots if bits(draws[j], 0, 8) < activity else 0


@kernel
def _limit(draws: U32, vm: int, values: I64, reference: int, highest: int, lowest: int, limit: I32) -> None:
    """Write the limits: the value less (buys) or plus (sells) the profit wanted."""
    edge_range = (EDGE * vm) >> 8
    for j in range(len(limit)):
        edge = (bits(draws[j], 8, 10) * edge_range) >> 10
        bid = min(reference + values[j] - edge, highest)
        ask = max(reference + values[j] + edge, lowest)
        limit[j] = bid if values[j] >= 0 else ask
