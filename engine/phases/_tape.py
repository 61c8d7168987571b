"""What residents read from the tape of outside orders, and how far they move their quotes for it.

Kernel of the price phase. What outside agents buy and sell is public, as exchanges in Seoul and Taipei publish the net
purchases of foreigners. Orders alone move prices in proportion to their size and for good (Kyle 1985), because a
resident's quote stands relative to the last price. In real markets an order of x daily volumes, worked over a day,
moves the price by about a daily standard deviation times the square root of x, and the move fades afterwards (Toth et
al. 2011; Donier et al. 2015; Bucci et al. 2018). Residents know that. They move their quotes by the difference between
what the outside flow of the last days deserves by this law and what it has moved the price already: small orders are
followed, large ones find sellers. The move is a function of the flow, the same up and down, so a round trip earns
nothing. It holds up to one daily volume; beyond, every lot moves the price as without it, so that nobody corners a
market cheaply.

An order inside a tick still moves the price in proportion to its size: working it over time pays. Without outside
orders nothing here moves anything. The law is put in by hand, not grown: docs/model-experiments.md has what was tried.
"""

from __future__ import annotations

from math import floor, sqrt

import numpy as np
from numba import njit

from engine.auction import kyle_lambda
from engine.markets import CONSOL, HOURS, RAW_FIRST, RAW_LAST, SHARE_FIRST
from engine.state import F64, I64

FLOW_MEMORY = 120.0
"""Ticks after which outside flow counts 1/e: five days."""
VOLUME_MEMORY = 240.0
"""Ticks over which the usual daily volume is measured: ten days."""
FOLLOWED = 0.7
"""The part of a shift of all quotes that the price follows: not every order stands relative to the price."""
SHIFT_MAX = 500
"""bp: the largest shift of quotes in a tick."""

_ASSETS = np.array([*range(RAW_FIRST, RAW_LAST + 1), *range(SHARE_FIRST, CONSOL + 1)])


@njit(cache=True, nogil=True, error_model="numpy")
def deserved_move(daily_volumes: float, daily_sd: float, daily_volume_move: float) -> float:
    """Return by how many bp residents let an outside net purchase move the price, negative for a sale.

    daily_volumes: its size in usual daily volumes. daily_sd: standard deviation of a day's return, bp.
    daily_volume_move: bp by which a daily volume of orders moves the price by itself.
    Square root up to one daily volume, linear beyond it. Source: Toth et al. 2011 (Phys. Rev. X 1, 021006).
    """
    size = abs(daily_volumes)
    move = daily_sd * sqrt(min(size, 1.0)) + daily_volume_move * max(size - 1.0, 0.0)
    return move if daily_volumes >= 0.0 else -move


@njit(cache=True, nogil=True, error_model="numpy")
def read_tape(
    net: I64,
    volume: I64,
    variance: F64,
    kyle_xy: F64,
    kyle_xx: F64,
    daily_volume: F64,
    outside_flow: F64,
    outside_move: F64,
    quote_shift: I64,
) -> None:
    """Remember a tick's outside net purchases and write the shift of quotes, bp, for the residents' next orders.

    net, volume: lots of this tick by market. variance: bp^2 per tick. outside_flow: in daily volumes, fading.
    outside_move: bp by which outside flow and the shifts made for it have moved the price, as residents reckon.
    Markets without traders keep a shift of 0.
    """
    for m in _ASSETS:
        daily_volume[m] += (HOURS * volume[m] - daily_volume[m]) / VOLUME_MEMORY
        outside_flow[m] -= outside_flow[m] / FLOW_MEMORY
        if net[m] != 0:
            outside_flow[m] += net[m] / max(daily_volume[m], 1.0)
        per_lot = max(kyle_lambda(kyle_xy[m], kyle_xx[m]), 0.0)
        outside_move[m] += per_lot * net[m]
        deserved = deserved_move(outside_flow[m], sqrt(HOURS * variance[m]), per_lot * daily_volume[m])
        shift = min(max(floor(deserved - outside_move[m] + 0.5), -SHIFT_MAX), SHIFT_MAX)
        outside_move[m] += FOLLOWED * shift
        quote_shift[m] = shift
