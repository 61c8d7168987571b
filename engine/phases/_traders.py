"""A tick of the traders: fundamentalists and chartists in herding groups, each in one market.

Kernel of the behaviour phase. Everything is integer: bp, Q4, Q8, rounded down. Source: ECONOMY A7 Trader; herding
groups of Zipf size after Cont & Bouchaud (2000), strategies after Franke & Westerhoff (2012).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numba import njit
from numpy.typing import NDArray

from engine.phases._minds import drift
from engine.phases._orders import LOTS_MAX, fills, stand
from engine.rng import draw, mix32, normal_units
from engine.state import FLOW_FUND_INCOME, GROUPS

ACTIVITY, ACTIVITY_MAX = 48, 250
"""Of 256 at VM 1: how many traders act in a tick."""
VALUE_RANGE = 2_000
"""bp: how far fundamental value is believed to differ from the price."""
EDGE = 60
"""bp at VM 1: the largest profit a trader asks for."""
BUY_CAP = 2_000
"""bp above the reference level, the highest bid."""
OWN_NOISE = 0x51ED270B

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Moods = NDArray[np.int16]


def group_table() -> NDArray[np.int64]:
    """Return the herding group of each byte: Zipf weights 1/k, k = 1..64. The first has 54 of 256, one has none."""
    weights = [Fraction(1, k) for k in range(1, GROUPS + 1)]
    bounds = [sum(weights[: k + 1]) / sum(weights) for k in range(GROUPS)]
    rows = [next(k for k in range(GROUPS) if bounds[k] >= Fraction(2 * b + 1, 512)) for b in range(256)]
    return np.array(rows, dtype=np.int64)


GROUP = group_table()


@njit(cache=True, nogil=True, error_model="numpy")
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
    panic_bias: I64,
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
    keys: NDArray[np.uint32],
    down: int,
    up: int,
    histogram: I64,
    touched: I64,
    flows: I64,
    mood_sum: I64,
) -> None:
    """Settle, decide and feel for the trader blocks first_block .. last_block - 1.

    Income on the inventory held before the fills goes to the fund pool. Adds to histogram, touched, flows and
    mood_sum, one thread's own. inventory is indexed by id - trader_first.
    """
    longest = 0
    for b in range(first_block, last_block):
        longest = max(longest, block_end[b] - block_start[b])
    fill_buffer = np.empty(longest, np.int32)
    draw_buffer = np.empty(longest, np.uint32)
    for b in range(first_block, last_block):
        start, end, home = block_start[b], block_end[b], block_home[b]
        fill, draws = fill_buffer[: end - start], draw_buffer[: end - start]
        my_level, my_quantity = ord_level[start:end], ord_qty[start:end]
        my_cash, my_inventory = cash[start:end], inventory[start - trader_first : end - trader_first]
        fills(
            my_level,
            my_quantity,
            home,
            margin_level,
            margin_ration,
            margin_total,
            block_before[b, 0],
            block_before[b, 1],
            fill,
        )
        flows[FLOW_FUND_INCOME] += income_per_lot[home] * _take(my_cash, my_inventory, fill, price[home])
        _decide(
            start,
            my_cash,
            my_inventory,
            level[home],
            price[home],
            down,
            up,
            fundamental[home],
            trend_fast[home],
            trend_slow[home],
            chartists_q16[home],
            vm_q8[home],
            sigma_q4[home],
            panic_bias[home],
            group_draw[home],
            keys[0, 0],
            keys[0, 1],
            my_level,
            my_quantity,
        )
        stand(my_level, my_quantity, home, level[home], down, up, histogram, touched)
        drift(
            start,
            home,
            keys[1, 0],
            keys[1, 1],
            targets,
            sentiment[start:end],
            fear[start:end],
            greed[start:end],
            confidence[start:end],
            memory[start:end],
            draws,
            mood_sum,
        )


@njit(cache=True, nogil=True, error_model="numpy")
def _take(cash: I64, inventory: I64, fill: I32, price: int) -> int:
    """Book the fills and return the inventory held before them."""
    held = 0
    for j in range(len(cash)):
        held += inventory[j]
        inventory[j] += fill[j]
        cash[j] -= fill[j] * price
    return held


@njit(cache=True, nogil=True, error_model="numpy")
def _decide(
    first: int,
    cash: I64,
    inventory: I64,
    reference: int,
    price: int,
    down: int,
    up: int,
    fundamental: int,
    trend_fast: int,
    trend_slow: int,
    chartists_q16: int,
    vm: int,
    sigma_q4: int,
    bias: int,
    group_draw: I64,
    k0: np.uint32,
    k1: np.uint32,
    limit: I32,
    quantity: I32,
) -> None:
    """Write the next orders; a trader that is not active has none (level 0, 0 lots)."""
    activity = min(ACTIVITY_MAX, (((vm * vm) >> 8) * ACTIVITY) >> 8)
    mispricing = (min(max(fundamental - reference, -VALUE_RANGE), VALUE_RANGE) * 24) >> 12
    fast, slow = (trend_fast * 150) >> 12, (trend_slow * 150) >> 12
    edge_range = (EDGE * vm) >> 8
    for j in range(len(cash)):
        h = np.int64(draw(first + j, k0, k1))
        limit[j] = 0
        quantity[j] = 0
        if (h & 255) >= activity:
            continue
        trait = np.int64(mix32(np.uint64(2_246_822_519) * np.uint64(first + j) + np.uint64(11)))
        crowd = group_draw[GROUP[(trait >> 16) & 255]]
        if (trait & 65_535) < chartists_q16:
            value = (fast if (trait >> 24) & 1 else slow) + ((sigma_q4 * 11 * crowd) >> 12)
        else:
            value = mispricing + ((sigma_q4 * crowd) >> 10)
        own_noise = np.int64(normal_units(mix32(np.uint64(h + OWN_NOISE))))
        value += ((own_noise * vm * 6) >> 15) - bias
        edge = (((h >> 8) & 1_023) * edge_range) >> 10
        size = ((8 + ((h >> 18) & 31)) * vm) >> 8
        if value >= 0:
            at = min(reference + value - edge, reference + min(BUY_CAP, up))
            lots = (cash[j] >> 9) * size // price
            # at VM 7.5, the most the weights allow, size is 292/512 of the cash and a bid costs 1.2214 prices at most:
            # so cash // P[limit] is never the smaller one
            limit[j] = at
            quantity[j] = min(lots, LOTS_MAX)
        else:
            limit[j] = max(reference + value + edge, reference - down)
            quantity[j] = -min(min((inventory[j] * size + (h >> 23)) >> 9, inventory[j]), LOTS_MAX)
