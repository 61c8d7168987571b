"""Resting outside orders: one table by age for all markets, settled and compacted in every tick.

A tick's new orders are appended, cancelled ones leave a hole of 0 lots, and settlement moves what is left together,
so that the table stays sorted by order id. An agent's orders form a list through the table.
Source: ECONOMY A6.4, A13, A17 phase 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.arithmetic import muldiv
from engine.auction import BUY, CHUNK, SELL, Auction
from engine.kernels import kernel
from engine.markets import LABOUR, MARKETS, SHARE_FIRST
from engine.messages import Status
from engine.state import (
    CENTRE,
    FLOW_ESTATE_INCOME,
    FLOW_ESTATE_SOLD,
    FLOW_OUTSIDE_INCOME,
    ORDER_COUNT,
    SLOTS_USED,
    State,
)

Ints = NDArray[np.int64]
Rows = NDArray[np.void]
Index = int | np.uintp
"""Of an array: unsigned where it cannot be negative, which saves the check for that."""

LAPSES = -1
"""order_expires of an immediate-or-cancel order: what is left after its one auction is cancelled."""
ESTATE_PARTS = 32
"""The estate offers one of so many parts of itself per tick, at least a lot."""
ESTATE_BELOW = 50
"""Levels below the reference at which it is offered."""
OUT_OF_WINDOW = -1
AHEAD = 64
"""Orders whose agents are brought into the cache together."""

_FILLED, _RESTING, _PARTIAL = int(Status.FILLED), int(Status.RESTING), int(Status.PARTIAL)
_CANCELLED, _EXPIRED = int(Status.CANCELLED), int(Status.EXPIRED)


class Book(NamedTuple):
    """The table of orders; rows beyond counters[ORDER_COUNT] mean nothing."""

    id: Ints
    slot: Ints
    market: Ints
    side: Ints
    level: Ints
    quantity: Ints
    expires: Ints
    since: Ints
    next: NDArray[np.int32]
    row: NDArray[np.int32]
    first: NDArray[np.int32]
    counters: Ints


class Accounts(NamedTuple):
    """Outside agents by slot."""

    id: Ints
    owner: Ints
    cash: Ints
    escrow: Ints
    debt: Ints
    advance: Ints
    holdings: Ints
    reserved: Ints
    orders: Ints
    last_tick: Ints
    mood: Ints
    has_mood: Ints
    mood_tick: Ints
    deadline: Ints
    blocked_owner: Ints
    blocked_until: Ints
    actions: Ints
    assets: Ints
    by_number: NDArray[np.int32]
    by_owner: NDArray[np.int32]
    slot_owner: Ints
    owner_next: NDArray[np.int32]
    open_sides: Ints
    net: Ints


def book_of(state: State) -> Book:
    """Return the state's table of orders."""
    return Book(
        state.order_id, state.order_slot, state.order_market, state.order_side, state.order_level, state.order_qty,
        state.order_expires, state.order_since, state.order_next, state.order_row, state.agent_first_order,
        state.counters,
    )  # fmt: skip


def accounts_of(state: State) -> Accounts:
    """Return the state's outside agents."""
    return Accounts(
        state.agent_id, state.agent_owner, state.agent_cash, state.agent_escrow, state.agent_debt,
        state.agent_advance, state.agent_holdings, state.agent_reserved, state.agent_orders, state.agent_last_tick,
        state.agent_mood, state.agent_has_mood, state.agent_mood_tick, state.agent_deadline, state.blocked_owner,
        state.blocked_until, state.agent_actions, state.agent_assets, state.agent_index, state.owner_index,
        state.slot_owner, state.owner_next, state.owner_open, state.outside_net,
    )  # fmt: skip


@kernel
def find_order(book: Book, order_id: int) -> int:
    """Return the index of the open order with that id, -1 when there is none."""
    low, high = 0, book.counters[ORDER_COUNT]
    while low < high:
        middle = (low + high) // 2
        if book.id[middle] < order_id:
            low = middle + 1
        else:
            high = middle
    if low < book.counters[ORDER_COUNT] and book.id[low] == order_id and book.quantity[low] > 0:
        return int(low)
    return -1


@kernel
def append_order(
    book: Book, accounts: Accounts, order_id: int, slot: int, market: int, side: int, level: int, quantity: int,
    expires: int, since: int, row: int,
) -> None:  # fmt: skip
    """Put a new order behind all others; trusts that there is room and that its id is the highest.

    row: of the action that placed it, in this tick's outcomes.
    """
    i = np.uintp(book.counters[ORDER_COUNT])
    book.counters[ORDER_COUNT] += 1
    book.id[i], book.slot[i], book.market[i], book.side[i] = order_id, slot, market, side
    book.level[i], book.quantity[i], book.expires[i], book.since[i] = level, quantity, expires, since
    book.row[i] = row + 1
    _list_order(book, accounts, i)


@kernel
def _list_order(book: Book, accounts: Accounts, i: Index) -> None:
    """Put an order into its agent's list and note that its owner has one on that side of that market."""
    slot = np.uintp(book.slot[i])
    book.next[i] = book.first[slot]
    book.first[slot] = i + 1
    at = np.uintp(accounts.owner[slot] & (len(accounts.open_sides) - 1))
    accounts.open_sides[at, np.uintp(BUY if book.side[i] > 0 else SELL)] |= 1 << book.market[i]


@kernel
def release(book: Book, accounts: Accounts, ladder: Ints, i: int, lots: int) -> None:
    """Give back what so many lots of an open order hold: a buy's escrow, a sell's reserved lots."""
    slot = book.slot[i]
    if book.side[i] > 0:
        money = ladder[book.level[i]] * lots
        accounts.escrow[slot] -= money
        accounts.cash[slot] += money
    else:
        accounts.reserved[slot, book.market[i]] -= lots


@kernel
def crosses_own_order(
    book: Book, accounts: Accounts, slot: int, market: int, side: int, level: int, except_for: int
) -> bool:
    """Return whether an order would cross an open one of the same owner. except_for: index of one that leaves.

    The owner's agents are asked only when one of them may have an order on the other side of that market: open_sides
    has too many bits at times (owners share places; orders end within a tick), never too few.
    """
    there = accounts.open_sides[accounts.owner[slot] & (len(accounts.open_sides) - 1), SELL if side > 0 else BUY]
    if (there >> market) & 1 == 0:
        return False
    other = slot
    while True:
        if accounts.orders[other] > 0 and _crosses(book, other, market, side, level, except_for):
            return True
        other = accounts.owner_next[other] - 1
        if other == slot:
            return False


@kernel
def _crosses(book: Book, slot: int, market: int, side: int, level: int, except_for: int) -> bool:
    i = book.first[slot] - 1
    while i >= 0:
        if (
            book.market[i] == market
            and book.side[i] == -side
            and book.quantity[i] > 0
            and i != except_for
            and side * (level - book.level[i]) >= 0
        ):
            return True
        i = book.next[i] - 1
    return False


@kernel
def window_slot(side: int, level: int, reference: int, down: int, up: int) -> int:
    """Return the histogram slot an order counts at, OUT_OF_WINDOW when it does not take part.

    A buy above the window counts at its top, a sell below it at its bottom.
    """
    offset = level - reference
    if side > 0:
        offset = min(offset, up)
        return CENTRE + offset if offset >= -down else OUT_OF_WINDOW
    offset = max(offset, -down)
    return CENTRE + offset if offset <= up else OUT_OF_WINDOW


@kernel
def add_orders(
    book: Book, auction: Auction, estate: Ints, is_open: NDArray[np.bool_], down: int, up: int, sums: Ints, reach: Ints
) -> None:  # fmt: skip
    """Add the outside orders and the estate's offers to the histograms of the open markets.

    sums, reach: as clear_markets takes them; zero and (SLOTS, -1) before.
    """
    for i in range(book.counters[ORDER_COUNT]):
        m, side = book.market[i], book.side[i]
        if book.quantity[i] > 0 and is_open[m]:
            slot = window_slot(side, book.level[i], auction.level[m], down, up)
            if slot != OUT_OF_WINDOW:
                _add(auction.histogram, sums, reach, m, BUY if side > 0 else SELL, slot, book.quantity[i])
    for m in range(MARKETS):
        lots = estate_offer(estate[m])
        if lots > 0 and is_open[m]:
            _add(auction.histogram, sums, reach, m, SELL, CENTRE - min(ESTATE_BELOW, down), lots)


@kernel
def _add(histogram: Ints, sums: Ints, reach: Ints, m: int, side: int, slot: int, lots: int) -> None:
    histogram[0, m, side, slot] += lots
    sums[m, side, slot // CHUNK] += lots
    reach[m, 0] = min(reach[m, 0], slot)
    reach[m, 1] = max(reach[m, 1], slot)


@kernel
def estate_offer(lots: int) -> int:
    """Return how many lots the estate offers of so many."""
    return min(lots, max(1, lots // ESTATE_PARTS))


@kernel
def pay_income(accounts: Accounts, income_per_lot: Ints, estate: Ints, counters: Ints, flows: Ints) -> None:
    """Pay dividends and coupons on what outside agents and the estate hold before this tick's fills."""
    paid = 0
    for slot in range(counters[SLOTS_USED]):
        if accounts.assets[slot] > 0:
            income = 0
            for m in range(SHARE_FIRST, MARKETS):
                income += accounts.holdings[slot, m] * income_per_lot[m]
            accounts.cash[slot] += income
            paid += income
    flows[FLOW_OUTSIDE_INCOME] += paid
    for m in range(SHARE_FIRST, MARKETS):
        flows[FLOW_ESTATE_INCOME] += estate[m] * income_per_lot[m]


@kernel
def settle(
    book: Book, accounts: Accounts, auction: Auction, estate: Ints, flows: Ints, is_open: NDArray[np.bool_], tick: int,
    hours_lapse: bool, down: int, up: int, outcomes: Rows, updates: Rows, running: Ints, given: Ints, seen: Ints,
) -> int:  # fmt: skip
    """Fill every outside order, end those that are over, compact the table; return the number of update rows.

    running, given: shape (2, markets), zero; running becomes the marginal lots of new orders and the estate, which
    come before the residents'. Carried-over orders leave the margins' ration and total. hours_lapse: what is left of
    sells of labour expires, for unused hours are lost. updates: room for one row per order. seen: scratch of one.
    """
    reported, holes = 0, 0
    count = book.counters[ORDER_COUNT]
    for k in range(count):
        if k % AHEAD == 0:
            seen[0] = _look_ahead(book, accounts, k, min(count, k + AHEAD))
        i = np.uintp(k)
        quantity = book.quantity[i]
        if quantity == 0:
            holes += 1
            continue
        m, side, row = np.uintp(book.market[i]), book.side[i], book.row[i]
        fill = 0
        if is_open[m]:
            reference = auction.level[m] - auction.market_return[m]
            slot = window_slot(side, book.level[i], reference, down, up)
            if slot != OUT_OF_WINDOW:
                level = reference + slot - CENTRE
                fill = _fill(auction, m, side, level, quantity, book.since[i] < tick, running, given)
        rest = quantity - fill
        status = _status(rest, fill, book.expires[i], tick, hours_lapse and side < 0 and m == LABOUR)
        if status == _RESTING and row == 0:
            continue
        is_over = status != _RESTING and status != _PARTIAL
        _pay(book, accounts, auction, i, fill, quantity if is_over else fill)
        accounts.orders[np.uintp(book.slot[i])] -= is_over
        holes += is_over
        rest = 0 if is_over else rest
        book.quantity[i] = rest
        value = -side * fill * auction.price[m]
        price = auction.price[m] if fill > 0 else 0
        if row > 0:
            outcome = outcomes[row - 1]
            outcome["filled"], outcome["value"], outcome["price"] = fill, value, price
            outcome["open"], outcome["status"] = rest, status
            book.row[i] = 0
        else:
            agent = accounts.id[book.slot[i]]
            report(updates[reported], book.id[i], agent, fill, value, rest, price, book.market[i], side, status)
            reported += 1
    if holes > 0:
        _compact(book, accounts)
    _settle_estate(auction, estate, flows, is_open, down, running, given)
    return reported


@kernel
def _look_ahead(book: Book, accounts: Accounts, first: int, last: int) -> int:
    """Bring what the next orders' settlement needs into the cache; what it returns means nothing.

    The reads do not depend on each other, so that the processor waits for many of them at once.
    """
    total = 0
    for i in range(first, last):
        slot, market = np.uintp(book.slot[i]), np.uintp(book.market[i])
        total += accounts.cash[slot] + accounts.escrow[slot] + accounts.orders[slot] + accounts.holdings[slot, market]
        # buys have nothing reserved: theirs is a read of what is there already, for a branch would cost more
        is_sell = np.uintp(book.side[i] < 0)
        total += accounts.reserved[slot * is_sell, market * is_sell]
    return int(total)


@kernel
def _compact(book: Book, accounts: Accounts) -> None:
    """Close the holes in the table and make the agents' lists anew."""
    count, kept = book.counters[ORDER_COUNT], 0
    for i in range(count):
        slot = np.uintp(book.slot[i])
        book.first[slot] = 0
        at = np.uintp(accounts.owner[slot] & (len(accounts.open_sides) - 1))
        accounts.open_sides[at, BUY] = accounts.open_sides[at, SELL] = 0
    for i in range(count):
        if book.quantity[i] > 0:
            if kept < i:
                book.id[kept], book.slot[kept], book.market[kept] = book.id[i], book.slot[i], book.market[i]
                book.side[kept], book.level[kept], book.quantity[kept] = book.side[i], book.level[i], book.quantity[i]
                book.expires[kept], book.since[kept] = book.expires[i], book.since[i]
            kept += 1
    book.counters[ORDER_COUNT] = kept
    for i in range(kept):
        book.row[i] = 0
        _list_order(book, accounts, i)


@kernel
def _fill(
    auction: Auction, m: Index, side: int, level: int, quantity: int, is_carried: bool, running: Ints, given: Ints
) -> int:
    """Return the lots an order gets (ECONOMY A6.4): carried-over ones first, new ones by cumulative rounding."""
    s = BUY if side > 0 else SELL
    ahead = side * (level - auction.margin_level[s, m])
    if ahead != 0:
        return quantity if ahead > 0 else 0
    if is_carried:
        fill = min(quantity, auction.margin_ration[s, m])
        auction.margin_ration[s, m] -= fill
        auction.margin_total[s, m] -= quantity
        return int(fill)
    running[s, m] += quantity
    given_now = muldiv(auction.margin_ration[s, m], running[s, m], auction.margin_total[s, m])
    fill = given_now - given[s, m]
    given[s, m] = given_now
    return int(fill)


@kernel
def _pay(book: Book, accounts: Accounts, auction: Auction, i: Index, fill: int, freed: int) -> None:
    """Move money and lots of a fill; what the price is better than the limit goes back to the buyer.

    freed: lots whose escrow or reservation ends, the filled ones and, of an order that is over, the rest.
    """
    m, slot = np.uintp(book.market[i]), np.uintp(book.slot[i])
    money = auction.price[m] * fill
    if book.side[i] > 0:
        held = auction.ladder[book.level[i]] * freed
        accounts.escrow[slot] -= held
        accounts.cash[slot] += held - money
        signed = fill
    else:
        accounts.reserved[slot, m] -= freed
        accounts.cash[slot] += money
        signed = -fill
    accounts.holdings[slot, m] += signed
    accounts.net[m] += signed
    accounts.assets[slot] += signed if m >= SHARE_FIRST else 0


@kernel
def _status(rest: int, fill: int, expires: int, tick: int, lapses: bool) -> int:
    if rest == 0:
        return _FILLED
    if expires == LAPSES:
        return _CANCELLED
    if expires <= tick or lapses:
        return _EXPIRED
    return _PARTIAL if fill > 0 else _RESTING


@kernel
def report(
    row: np.void, order_id: int, agent_id: int, fill: int, value: int, rest: int, price: int, market: int, side: int,
    status: int,
) -> None:  # fmt: skip
    """Write an order's change into a row of updates."""
    row["order_id"], row["agent_id"], row["filled"], row["value"] = order_id, agent_id, fill, value
    row["open"], row["price"], row["market"], row["side"], row["status"] = rest, price, market, side, status


@kernel
def _settle_estate(
    auction: Auction, estate: Ints, flows: Ints, is_open: NDArray[np.bool_], down: int, running: Ints, given: Ints
) -> None:
    for m in range(MARKETS):
        lots = estate_offer(estate[m])
        if lots > 0 and is_open[m]:
            level = auction.level[m] - auction.market_return[m] - min(ESTATE_BELOW, down)
            fill = _fill(auction, m, -1, level, lots, False, running, given)
            estate[m] -= fill
            flows[FLOW_ESTATE_SOLD] += fill * auction.price[m]


@kernel
def rebuild_lists(book: Book, accounts: Accounts) -> None:
    """Make every agent's list of orders from the table, all of them older than this tick."""
    book.first[:] = 0
    accounts.open_sides[:, :] = 0
    for i in range(book.counters[ORDER_COUNT]):
        book.row[i] = 0
        _list_order(book, accounts, i)
