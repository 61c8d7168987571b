"""The integer price ladder: level <-> price.

P[j] = round_half_even(10^4 x 1.0001^j) ucr for j = 0 .. 184 399, so a level is a basis point at every price and a
log-return is a difference of levels. Built once per process in whole numbers, to 112 binary places.
Source: ECONOMY A1; the construction is the tick spacing of Uniswap v3.
"""

from __future__ import annotations

from decimal import Context, Decimal
from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

LEVELS = 184_400
LAST_LEVEL = LEVELS - 1
UCR = 1_000_000
"""Micro-credits in a credit."""
FRACTION_BITS = 112
"""Binary places to which a price is computed before it is rounded."""
REFERENCE_LOW, REFERENCE_HIGH = 7_000, 175_000
"""Reference levels stay in here, so that an auction's window never leaves the ladder."""


@cache
def prices() -> NDArray[np.int64]:
    """Return the table P, shape (LEVELS,), ucr per lot, strictly increasing, read-only."""
    half = 1 << (FRACTION_BITS - 1)
    rounded = []
    value = 10_000 << FRACTION_BITS
    for _ in range(LEVELS):
        # no power is half-way between two whole numbers: its last decimal is a 1
        rounded.append((value + half) >> FRACTION_BITS)
        # what is cut off comes to less than 10^-21 ucr (decimals took 0.17 s of every start, this takes 0.03 s)
        value = value * 10_001 // 10_000
    table = np.array(rounded, dtype=np.int64)
    table.flags.writeable = False
    return table


@njit(cache=True, nogil=True)
def level_below(table: NDArray[np.int64], price: int) -> int:
    """Return the largest level whose price is <= price, or -1 below the ladder."""
    low, high = 0, len(table)
    while low < high:
        middle = (low + high) // 2
        if table[middle] <= price:
            low = middle + 1
        else:
            high = middle
    return low - 1


@njit(cache=True, nogil=True)
def level_above(table: NDArray[np.int64], price: int) -> int:
    """Return the smallest level whose price is >= price, or len(table) above the ladder."""
    low, high = 0, len(table)
    while low < high:
        middle = (low + high) // 2
        if table[middle] < price:
            low = middle + 1
        else:
            high = middle
    return low


@cache
def window(max_price_change: float) -> tuple[int, int]:
    """Return how many levels an auction's window reaches below and above the reference level.

    The largest moves whose price ratio 1.0001^d stays inside 1 -/+ max_price_change; 0.5 gives (6931, 4054).
    """
    context = Context(prec=40)
    change, ratio, one = Decimal(repr(max_price_change)), Decimal("1.0001"), Decimal(1)
    low = int(context.divide(context.ln(one - change), context.ln(ratio)).copy_abs())
    high = int(context.divide(context.ln(one + change), context.ln(ratio)))
    return low, high
