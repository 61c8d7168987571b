"""Residents' standing orders: what they got in the auction, and their place in the next one's histogram.

Kernels of the behaviour phase. Arrays are slices of one block or segment; what they trust: levels lie on the ladder,
margins come from the auction in which these orders stood. Source: ECONOMY A6.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.arithmetic import muldiv
from engine.kernels import kernel
from engine.state import CENTRE

LOTS_MAX = 1_000_000_000
"""Largest resident order, lots: as for outside agents, and far from the end of int32."""
_MARGINAL = -2_147_483_648
"""Stands in for the fill of an order at the margin until its share is known."""

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


@kernel
def fills(
    level: I32,
    quantity: I32,
    market: int,
    margin_level: I64,
    margin_ration: I64,
    margin_total: I64,
    bought_before: int,
    sold_before: int,
    fill: I32,
) -> None:
    """Write the signed lots each order got: all of it beyond the margin, a share at the margin, nothing else.

    bought_before, sold_before: marginal lots of the orders before these, in the order of A6.4.
    """
    buy_at, sell_at = margin_level[0, market], margin_level[1, market]
    marginal = 0
    # products with facts instead of branches: LLVM vectorises this (2.0 -> 0.2 ns per order)
    for j in range(len(level)):
        lots, at = int(quantity[j]), int(level[j])
        ahead = (at - buy_at) * (lots > 0) + (sell_at - at) * (lots < 0)
        is_marginal = (ahead == 0) & (lots != 0)
        fill[j] = lots * (ahead > 0) + _MARGINAL * is_marginal
        marginal += is_marginal
    if marginal > 0:
        _share_margin(quantity, market, margin_ration, margin_total, bought_before, sold_before, fill)


@kernel
def _share_margin(
    quantity: I32,
    market: int,
    margin_ration: I64,
    margin_total: I64,
    bought_before: int,
    sold_before: int,
    fill: I32,
) -> None:
    """Share the rations among the orders at the margins by cumulative rounding: floor(R C / Q) - floor(R C' / Q)."""
    buy_ration, buy_total = margin_ration[0, market], max(margin_total[0, market], 1)
    sell_ration, sell_total = margin_ration[1, market], max(margin_total[1, market], 1)
    bought = muldiv(buy_ration, bought_before, buy_total)
    sold = muldiv(sell_ration, sold_before, sell_total)
    for j in range(len(fill)):
        if fill[j] != _MARGINAL:
            continue
        lots = int(quantity[j])
        if lots > 0:
            bought_before += lots
            upto = muldiv(buy_ration, bought_before, buy_total)
            fill[j] = upto - bought
            bought = upto
        else:
            sold_before -= lots
            upto = muldiv(sell_ration, sold_before, sell_total)
            fill[j] = sold - upto
            sold = upto


@kernel
def stand(
    level: I32,
    quantity: I32,
    market: int,
    reference: int,
    down: int,
    up: int,
    histogram: I64,
    touched: I64,
) -> None:
    """Add orders to their market's histogram around its reference level and widen the touched range.

    A buy below the window reference - down .. reference + up and a sell above it lapse; those beyond its other end
    were cut to it when they were decided.
    """
    low, high = touched[market, 0], touched[market, 1]
    shift = CENTRE - reference
    lowest_buy, highest_sell = CENTRE - down, CENTRE + up
    for j in range(len(level)):
        lots = int(quantity[j])
        slot = int(level[j]) + shift
        if lots > 0:
            if slot < lowest_buy:
                continue
            histogram[market, 0, slot] += lots
        elif lots < 0:
            if slot > highest_sell:
                continue
            histogram[market, 1, slot] -= lots
        else:
            continue
        low = min(low, slot)
        high = max(high, slot)
    touched[market, 0], touched[market, 1] = low, high
