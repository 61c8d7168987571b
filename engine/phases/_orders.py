"""Residents' standing orders: what they got in the auction, and their place in the next one's histogram.

Kernels of the behaviour phase. Arrays are slices of one block or segment; what they trust: levels lie on the ladder,
margins come from the auction in which these orders stood. Source: ECONOMY A6.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from engine.arithmetic import muldiv
from engine.state import CENTRE

LOTS_MAX = 1_000_000_000
"""Largest resident order, lots: as for outside agents, and far from the end of int32."""


@njit(cache=True, nogil=True, error_model="numpy")
def fills(
    level: NDArray[np.int32],
    quantity: NDArray[np.int32],
    market: int,
    margin_level: NDArray[np.int64],
    margin_ration: NDArray[np.int64],
    margin_total: NDArray[np.int64],
    bought_before: int,
    sold_before: int,
    fill: NDArray[np.int32],
) -> None:
    """Write the signed lots each order got: all of it beyond the margin, a share at the margin, nothing else.

    bought_before, sold_before: marginal lots of the orders before these, in the order of A6.4.
    """
    buy_at, sell_at = margin_level[0, market], margin_level[1, market]
    marginal = 0
    for j in range(len(level)):
        lots = quantity[j]
        at = np.int64(level[j])
        ahead = at - buy_at if lots > 0 else sell_at - at
        fill[j] = lots if ahead > 0 else 0
        marginal += 1 if ahead == 0 else 0
    if marginal > 0:
        _marginal_fills(level, quantity, buy_at, margin_ration[0, market], margin_total[0, market], bought_before, fill)
        _marginal_fills(level, quantity, sell_at, -margin_ration[1, market], margin_total[1, market], sold_before, fill)


@njit(cache=True, nogil=True, error_model="numpy")
def _marginal_fills(
    level: NDArray[np.int32],
    quantity: NDArray[np.int32],
    margin: int,
    signed_ration: int,
    total: int,
    before: int,
    fill: NDArray[np.int32],
) -> None:
    """Share the ration (negative: of sellers) among the orders at the margin by cumulative rounding."""
    ration = abs(signed_ration)
    if ration == 0 or total == 0:
        return
    sign = 1 if signed_ration > 0 else -1
    running = before
    filled = muldiv(ration, running, total)
    for j in range(len(level)):
        lots = sign * np.int64(quantity[j])
        if level[j] == margin and lots > 0:
            running += lots
            filled_now = muldiv(ration, running, total)
            fill[j] = sign * (filled_now - filled)
            filled = filled_now


@njit(cache=True, nogil=True, error_model="numpy")
def stand(
    level: NDArray[np.int32],
    quantity: NDArray[np.int32],
    market: int,
    reference: int,
    down: int,
    up: int,
    histogram: NDArray[np.int64],
    touched: NDArray[np.int64],
) -> None:
    """Add orders to their market's histogram around its reference level and widen the touched range.

    A buy below the window reference - down .. reference + up and a sell above it lapse; those beyond its other end
    were cut to it when they were decided.
    """
    low, high = touched[market, 0], touched[market, 1]
    shift = CENTRE - reference
    for j in range(len(level)):
        lots = np.int64(quantity[j])
        slot = np.int64(level[j]) + shift
        if lots > 0 and slot >= CENTRE - down:
            histogram[market, 0, slot] += lots
        elif lots < 0 and slot <= CENTRE + up:
            histogram[market, 1, slot] -= lots
        else:
            continue
        low = min(low, slot)
        high = max(high, slot)
    touched[market, 0], touched[market, 1] = low, high
