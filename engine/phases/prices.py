"""Phase 1: every market clears at one price; outside orders settle; the residents' margins are laid out.

Last, residents read what outside agents bought and sold (_tape), for the orders they decide in phase 2.

Markets rest in a halt and, with market_open_hours below 24, asset markets in the closed hours: outside orders stay,
resident ones lapse, the reference price stands still. Source: ECONOMY A5.1, A6, A15, A17 phase 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.auction import (
    CHUNKS,
    INDICATIVE_LIMIT,
    Auction,
    auction_of,
    clear_markets,
    marginal_lots,
    marginal_offers,
    open_markets,
    prefix_margins,
    remember,
)
from engine.config import Config
from engine.kernels import kernel
from engine.ladder import window
from engine.markets import HOURS, LABOUR, MARKETS, NAMES
from engine.messages import ORDER_UPDATE
from engine.order_book import FILLS, Accounts, Book, accounts_of, add_orders, book_of, pay_income, settle
from engine.phases._tape import read_tape
from engine.state import ORDER_COUNT, SLOTS, SLOTS_USED, State, announce

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Rows = NDArray[np.void]

WRITES = (
    "level", "price", "returns", "halt_until", "elasticity", "kyle_xy", "kyle_xx", "variance", "counters",
    "owner_open", "agent_cash", "agent_escrow", "agent_holdings", "agent_reserved", "agent_orders", "estate",
    "order_id", "order_slot", "order_market", "order_side", "order_level", "order_qty", "order_expires",
    "order_since", "histogram", "touched", "agent_assets", "agent_first_order", "order_next", "new_order",
    "new_order_count",
    "cleared_volume", "margin_level", "margin_ration", "margin_total", "block_before", "segment_before",
    "market_return", "imbalance", "best_bid", "best_ask", "depth", "book_level",
    "book_lots", "demand", "supply", "bids_total", "asks_total",
    "indicative", "elasticity_demand", "elasticity_supply", "surplus", "flows", "daily_volume", "outside_flow",
    "outside_move", "outside_net", "quote_shift",
)  # fmt: skip

HALT_TICKS = 24
"""Ticks a halted market does not clear."""
LAST_HOUR = HOURS - 1


def step(state: State, config: Config) -> None:
    """Clear all markets, settle outside agents, prepare the residents' margins and set the new reference prices.

    Also adds the changes to older outside orders to state.updates and completes the outcomes of this tick's orders.
    Source: ECONOMY A17 phase 1.
    """
    down, up = window(config.max_price_change)
    _resume(state)
    is_open = open_markets(state.halt_until, state.tick, config.market_open_hours)
    hour = state.tick % HOURS
    outside = np.zeros((2, MARKETS), np.int64)
    updates = np.empty(int(state.counters[ORDER_COUNT]), ORDER_UPDATE)
    is_halted = np.zeros(MARKETS, np.bool_)
    state.outside_net[:] = 0
    reported, halts = _trade(
        book_of(state), accounts_of(state), auction_of(state), state.estate, state.flows, state.income_per_lot,
        state.returns, is_open, state.tick, hour, down, up, min(INDICATIVE_LIMIT, config.max_price_change),
        state.outcomes, updates, outside, is_halted, np.zeros((MARKETS, 2, CHUNKS), np.int64),
        np.empty((MARKETS, 2), np.int64), np.zeros((2, MARKETS), np.int64), np.empty(FILLS, np.int64),
    )  # fmt: skip
    if reported:
        state.updates = np.concatenate((state.updates, updates[:reported]))
    if hour == LAST_HOUR:
        state.agent_holdings[: state.counters[SLOTS_USED], LABOUR] = 0
    _lay_out_margins(state, outside)
    read_tape(
        state.outside_net, state.cleared_volume, state.variance, state.kyle_xy, state.kyle_xx, state.daily_volume,
        state.outside_flow, state.outside_move, state.quote_shift,
    )  # fmt: skip
    if halts:
        _halt(state, is_halted)


@kernel
def _trade(
    book: Book, accounts: Accounts, auction: Auction, estate: Ints, flows: Ints, income_per_lot: Ints, returns: Ints,
    is_open: Flags, tick: int, hour: int, down: int, up: int, limit: float, outcomes: Rows, updates: Rows,
    outside: Ints, is_halted: Flags, sums: Ints, reach: Ints, given: Ints, fills: Ints,
) -> tuple[int, int]:  # fmt: skip
    """Clear all markets and settle outside agents; return the numbers of update rows and of markets to halt.

    outside: shape (2, markets), zero; becomes the marginal lots that come before the residents'. sums, given: zero;
    reach, fills: anything. All in one call, for handing a hundred arrays over takes as long as some of the steps do
    (with the search for halts in here, and on large pages, a phase without outside orders: 0.196 -> 0.158 ms).
    """
    reach[:, 0], reach[:, 1] = SLOTS, -1
    add_orders(book, auction, estate, is_open, down, up, sums, reach)
    clear_markets(auction, is_open, sums, reach, down, up, limit)
    pay_income(accounts, income_per_lot, estate, book.counters, flows)
    reported = settle(
        book, accounts, auction, estate, flows, is_open, tick, hour == LAST_HOUR, down, up, outcomes, updates, outside,
        given, fills,
    )  # fmt: skip
    remember(auction, is_open, hour, returns)
    return reported, _find_halts(is_open, auction.market_return, returns, down, up, is_halted)


@kernel
def _find_halts(is_open: Flags, move: Ints, returns: Ints, down: int, up: int, is_halted: Flags) -> int:
    """Note and count the markets that moved to the window's edge, or further from yesterday than it is wide."""
    halts = 0
    for m in range(len(is_open)):
        day = 0
        for row in range(len(returns)):
            day += returns[row, m]
        is_halted[m] = is_open[m] and (move[m] <= -down or move[m] >= up or day < -down or day > up)
        halts += is_halted[m]
    return halts


def _resume(state: State) -> None:
    """End the halts that are over."""
    if np.count_nonzero(state.halt_until):
        for m in np.flatnonzero((state.halt_until > 0) & (state.halt_until <= state.tick)):
            state.halt_until[m] = 0
            announce(state, "market_resumed", market=NAMES[m])


def _halt(state: State, is_halted: Flags) -> None:
    for m in np.flatnonzero(is_halted):
        state.halt_until[m] = state.tick + 1 + HALT_TICKS
        move = int(state.market_return[m])
        announce(state, "market_halted", market=NAMES[m], return_bp=move, until=int(state.halt_until[m]))


def _lay_out_margins(state: State, outside: NDArray[np.int64]) -> None:
    """Write the running sums of marginal lots before every block's and segment's orders; outside ones come first."""
    layout = state.layout
    markets = layout.markets_at(state.tick)
    blocks, threads = layout.blocks, state.threads

    def sum_range(i: int) -> None:
        marginal_lots(
            state.ord_level, state.ord_qty, layout.block_start, layout.block_end, markets, state.margin_level,
            i * blocks // threads, (i + 1) * blocks // threads, state.block_before,
        )  # fmt: skip

    state.parallel(sum_range, threads)
    marginal_offers(
        state.sell_level, state.sell_qty, layout.producer_first, layout.segment_start, layout.segment_end,
        layout.segment_market, state.margin_level, state.segment_before,
    )  # fmt: skip
    prefix_margins(outside, markets, layout.segment_market, state.block_before, state.segment_before)
