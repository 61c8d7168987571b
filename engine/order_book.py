"""Outside orders: this tick's new ones, and the table by age of those that rest, settled in every tick.

Most orders end with the auction they are placed for, so a new order is kept in one short row of its own. Settlement
moves what stays to the end of the table and closes the holes of 0 lots that ended orders leave there, so that the
table stays sorted by order id. An agent's resting orders form a list through the table, an owner's new orders another.

An agent's first action of a tick is mostly its only one. An order that is one is placed loose: nothing is set aside
for it, no count goes up and its outcome is not written, for nobody looks. When its agent acts again, secure does all
of that; otherwise settlement moves the money of what was filled, and secures what stays.
Source: ECONOMY A6.4, A13, A17 phase 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.arithmetic import muldiv
from engine.auction import CHUNK, Auction
from engine.kernels import kernel, prefetch, whole
from engine.markets import LABOUR, MARKETS, SHARE_FIRST
from engine.messages import Kind, Status
from engine.state import (
    CENTRE,
    FLOW_ESTATE_INCOME,
    FLOW_ESTATE_SOLD,
    FLOW_OUTSIDE_INCOME,
    LANES,
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
AHEAD = 24
"""So many orders before its own turn what an order needs of its agent is brought into the cache.

16 cost an order 0.5 ns more, 48 as much; 32 orders in one go right before their turn 4 ns.
"""
FILLS = 32
"""Fills that are known at a time, a power of two above AHEAD."""
COUNT, TICK = 0, 1
"""Of Book.new_count."""

_LIMIT = int(Kind.LIMIT)
_FILLED, _RESTING, _PARTIAL = int(Status.FILLED), int(Status.RESTING), int(Status.PARTIAL)
_CANCELLED, _EXPIRED = int(Status.CANCELLED), int(Status.EXPIRED)


class Book(NamedTuple):
    """The table of resting orders, of which rows beyond counters[ORDER_COUNT] mean nothing, and the new orders.

    new: dtype NEW_ORDER, in arrival order; rows beyond new_count[COUNT] mean nothing. new_count[TICK]: of these orders.
    The index of an order is that of its row in the table, or the number of rows there plus that of its row in new: it
    holds until settlement.
    """

    id: Ints
    slot: Ints
    market: Ints
    side: Ints
    level: Ints
    quantity: Ints
    expires: Ints
    since: Ints
    next: NDArray[np.int32]
    first: NDArray[np.int32]
    counters: Ints
    new: Rows
    new_expires: Ints
    new_count: Ints


class Order(NamedTuple):
    """An order, wherever it is kept. row: of the action that placed it, in this tick's outcomes; -1 for older ones."""

    id: int
    slot: int
    market: int
    side: int
    level: int
    quantity: int
    expires: int
    row: int


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
    open: Rows
    net: Ints


def book_of(state: State) -> Book:
    """Return the state's table of orders."""
    return Book(
        state.order_id, state.order_slot, state.order_market, state.order_side, state.order_level, state.order_qty,
        state.order_expires, state.order_since, state.order_next, state.agent_first_order, state.counters,
        state.new_order, state.new_expires, state.new_order_count,
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
    count = book.counters[ORDER_COUNT]
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if book.id[middle] < order_id:
            low = middle + 1
        else:
            high = middle
    if low < count:
        return int(low) if book.id[low] == order_id and book.quantity[low] > 0 else -1
    low, high = 0, book.new_count[COUNT]
    while low < high:
        middle = (low + high) // 2
        if book.new[middle]["id"] < order_id:
            low = middle + 1
        else:
            high = middle
    if low < book.new_count[COUNT] and book.new[low]["id"] == order_id and book.new[low]["quantity"] > 0:
        return int(count + low)
    return -1


@kernel
def order_at(book: Book, i: int) -> Order:
    """Return the order of an index."""
    count = book.counters[ORDER_COUNT]
    if i < count:
        return Order(
            book.id[i], book.slot[i], book.market[i], book.side[i], book.level[i], book.quantity[i], book.expires[i], -1
        )
    return _new_at(book, i - count)


@kernel
def _new_at(book: Book, k: int) -> Order:
    new = book.new[np.uintp(k)]
    term = whole(new["term"])
    expires = book.new_expires[np.uintp(k)] if term > 0 else (book.new_count[TICK] if term == 0 else LAPSES)
    return Order(
        new["id"], whole(new["slot"]), whole(new["market"]), whole(new["side"]), whole(new["level"]),
        whole(new["quantity"]), expires, whole(new["row"]),
    )  # fmt: skip


@kernel
def set_lots(book: Book, i: int, lots: int) -> None:
    """Change how many lots of an order are open; 0 ends it."""
    count = book.counters[ORDER_COUNT]
    if i < count:
        book.quantity[i] = lots
    else:
        book.new[i - count]["quantity"] = lots


@kernel
def last_id(book: Book) -> int:
    """Return the highest id of the book, 0 when it is empty."""
    if book.new_count[COUNT] > 0:
        return int(book.new[book.new_count[COUNT] - 1]["id"])
    return int(book.id[book.counters[ORDER_COUNT] - 1]) if book.counters[ORDER_COUNT] > 0 else 0


@kernel
def add_new(book: Book, accounts: Accounts, order: Order, is_loose: int) -> None:
    """Put a new order behind all others; trusts that there is room and that its id is the highest.

    is_loose: 1 when nothing is set aside for it.
    """
    place = place_of(accounts, order.slot)
    tick = book.new_count[TICK]
    is_now = _is_now(place, tick)
    place["tick"], place["new"] = tick, place["new"] & np.uintp(is_now) | _bit(order.market, order.side)
    for each in range(LANES):
        place["newest"][each] &= is_now
    k, lane = np.uintp(book.new_count[COUNT]), np.uintp(order.market & (LANES - 1))
    new = book.new[k]
    new["id"], new["quantity"], new["slot"] = order.id, order.quantity, order.slot
    new["level"], new["row"], new["next"] = order.level, order.row, place["newest"][lane]
    new["market"], new["side"], new["is_loose"] = order.market, order.side, is_loose
    new["term"] = LAPSES if order.expires == LAPSES else int(order.expires > tick)
    if order.expires > tick:
        book.new_expires[k] = order.expires
    book.new_count[COUNT] += 1
    place["newest"][lane] = book.new_count[COUNT]


@kernel
def place_of(accounts: Accounts, slot: Index) -> np.void:
    """Return where the owner of an agent keeps its bits and its list of new orders; owners may share a place."""
    place: np.void = accounts.open[_place_row(accounts, slot)]
    return place


@kernel
def prefetch_place(accounts: Accounts, slot: Index) -> None:
    """Bring it into the cache."""
    prefetch(accounts.open, _place_row(accounts, slot))


@kernel
def _place_row(accounts: Accounts, slot: Index) -> np.uintp:
    return np.uintp(accounts.owner[np.uintp(slot)] & (len(accounts.open) - 1))


@kernel
def _is_now(place: np.void, tick: int) -> np.int64:
    """Return all bits when a place was written in that tick, no bit when in an earlier one.

    Whether an owner's order is its first of a tick is no pattern a branch could learn, and of a product with a
    comparison the compiler makes one.
    """
    bits: np.int64 = ~((place["tick"] - np.int64(tick)) >> 62)
    return bits


@kernel
def newest_order(book: Book, accounts: Accounts, slot: Index, lane: int) -> int:
    """Return the row of the newest new order in a list of the owner of an agent, -1 when there is none."""
    place = place_of(accounts, slot)
    return whole(place["newest"][np.uintp(lane)]) - 1 if place["tick"] == book.new_count[TICK] else -1


@kernel
def _bit(market: Index, side: int) -> np.uintp:
    """Return the bit of a market and a side in a place of OWNER_OPEN."""
    return np.uintp(np.uintp(1) << (np.uintp(market) + np.uintp(side < 0) * np.uintp(MARKETS)))


@kernel
def set_aside(accounts: Accounts, ladder: Ints, order: Order, lots: int) -> None:
    """Hold what so many lots of an order need: a buy's escrow, a sell's reserved lots."""
    if order.side > 0:
        money = ladder[order.level] * lots
        accounts.cash[order.slot] -= money
        accounts.escrow[order.slot] += money
    else:
        accounts.reserved[order.slot, order.market] += lots


@kernel
def release(accounts: Accounts, ladder: Ints, order: Order, lots: int) -> None:
    """Give back what so many lots of an open order hold."""
    set_aside(accounts, ladder, order, -lots)


@kernel
def secure(book: Book, accounts: Accounts, ladder: Ints, outcomes: Rows, slot: int) -> None:
    """Set aside what the agent's loose order needs, if it has one, count it, and write its outcome so far."""
    for lane in range(LANES):
        k = newest_order(book, accounts, slot, lane)
        while k >= 0:
            new = book.new[k]
            if new["slot"] == slot and new["is_loose"] == 1:
                order = _new_at(book, k)
                set_aside(accounts, ladder, order, order.quantity)
                accounts.orders[slot] += 1
                new["is_loose"] = 0
                write_outcome(outcomes[order.row], order.id, accounts.id[slot], 0, 0, order.quantity, 0, _RESTING)
                return
            k = whole(new["next"]) - 1


@kernel
def write_outcome(
    outcome: np.void, order_id: int, agent_id: int, fill: int, value: int, rest: int, price: int, status: int
) -> None:
    """Write all of the outcome of an accepted limit order."""
    outcome["seq"], outcome["agent_id"], outcome["order_id"], outcome["kind"] = order_id, agent_id, order_id, _LIMIT
    outcome["filled"], outcome["value"], outcome["open"], outcome["price"] = fill, value, rest, price
    outcome["needed"] = outcome["available"] = outcome["code"] = 0
    outcome["status"] = status


@kernel
def crosses_own_order(
    book: Book, accounts: Accounts, slot: int, market: int, side: int, level: int, except_for: int
) -> bool:
    """Return whether an order would cross an open one of the same owner. except_for: index of one that leaves.

    Orders are looked at only when one of them may be on the other side of that market: a place has too many bits at
    times (owners share it; orders end within a tick), never too few.
    """
    place, bit = place_of(accounts, slot), _bit(market, -side)
    if (place["resting"] | place["new"] & np.uintp(_is_now(place, book.new_count[TICK]))) & bit == 0:
        return False
    return (
        place["resting"] & bit != 0 and _crosses_resting(book, accounts, slot, market, side, level, except_for)
    ) or _crosses_new(book, accounts, slot, market, side, level, except_for - book.counters[ORDER_COUNT])


@kernel
def _crosses_resting(
    book: Book, accounts: Accounts, slot: int, market: int, side: int, level: int, except_for: int
) -> bool:
    """Look at the resting orders of all agents of the owner."""
    other = slot
    while True:
        i = book.first[other] - 1 if accounts.orders[other] > 0 else -1
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
        other = accounts.owner_next[other] - 1
        if other == slot:
            return False


@kernel
def _crosses_new(
    book: Book, accounts: Accounts, slot: int, market: int, side: int, level: int, except_for: int
) -> bool:
    """Look at the new orders of all owners that share the place."""
    owner = accounts.owner[slot]
    k = newest_order(book, accounts, slot, market & (LANES - 1))
    while k >= 0:
        new = book.new[k]
        if (
            new["market"] == market
            and new["side"] == -side
            and side * (level - whole(new["level"])) >= 0
            and new["quantity"] > 0
            and k != except_for
            and accounts.owner[new["slot"]] == owner
        ):
            return True
        k = whole(new["next"]) - 1
    return False


@kernel
def of_side(side: int, of_buy: int, of_sell: int) -> int:
    """Return the number for that side, +1 or -1; both are worked out.

    Which side is next is no pattern a branch could learn, and a wrong guess costs as much as sixty instructions. The
    compiler makes branches of conditional expressions, and of products with a condition; of this it cannot (settling
    an order, with the bits in _fill: 26 -> 23 ns).
    """
    return of_buy ^ ((of_buy ^ of_sell) & (side >> 1))


@kernel
def window_slot(side: int, level: int, reference: int, down: int, up: int) -> int:
    """Return the histogram slot an order counts at, OUT_OF_WINDOW when it does not take part.

    A buy above the window counts at its top, a sell below it at its bottom.
    """
    # seen from its own side, so that both sides take the same path
    offset = side * (level - reference)
    ahead = of_side(side, up, down)
    behind = up + down - ahead
    return CENTRE + side * min(offset, ahead) if offset >= -behind else OUT_OF_WINDOW


@kernel
def add_orders(
    book: Book, auction: Auction, estate: Ints, is_open: NDArray[np.bool_], down: int, up: int, sums: Ints, reach: Ints
) -> None:  # fmt: skip
    """Add the outside orders and the estate's offers to the histograms of the open markets.

    sums, reach: as clear_markets takes them; zero and (SLOTS, -1) before.
    """
    for i in range(book.counters[ORDER_COUNT]):
        if book.quantity[i] > 0:
            m = np.uintp(book.market[i])
            _add(auction, is_open, down, up, sums, reach, m, book.side[i], book.level[i], book.quantity[i])
    for k in range(book.new_count[COUNT]):
        order = _new_at(book, k)
        if order.quantity > 0:
            m = np.uintp(order.market)
            _add(auction, is_open, down, up, sums, reach, m, order.side, order.level, order.quantity)
    for home in range(MARKETS):
        lots = estate_offer(estate[home])
        if lots > 0:
            level = auction.level[home] - min(ESTATE_BELOW, down)
            _add(auction, is_open, down, up, sums, reach, np.uintp(home), -1, level, lots)


@kernel
def _add(
    auction: Auction, is_open: NDArray[np.bool_], down: int, up: int, sums: Ints, reach: Ints, m: Index, side: int,
    level: int, lots: int,
) -> None:  # fmt: skip
    slot = window_slot(side, level, auction.level[m], down, up)
    if is_open[m] and slot != OUT_OF_WINDOW:
        s, at = np.uintp(side < 0), np.uintp(slot)
        auction.histogram[0, m, s, at] += lots
        sums[m, s, at // np.uintp(CHUNK)] += lots
        # hardly an order reaches further than all before it: what is not written need not be waited for
        if slot < reach[m, 0]:
            reach[m, 0] = slot
        if slot > reach[m, 1]:
            reach[m, 1] = slot


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
    hours_lapse: bool, down: int, up: int, outcomes: Rows, updates: Rows, running: Ints, given: Ints, fills: Ints,
) -> int:  # fmt: skip
    """Fill every outside order, end those that are over, close the table's holes; return the number of update rows.

    running, given: shape (2, markets), zero; running becomes the marginal lots of new orders and the estate, which
    come before the residents'. Carried-over orders leave the margins' ration and total. hours_lapse: what is left of
    sells of labour expires, for unused hours are lost. updates: room for one row per resting order. fills: scratch of
    FILLS.
    """
    reported, holes = 0, 0
    for k in range(book.counters[ORDER_COUNT]):
        i = np.uintp(k)
        quantity = book.quantity[i]
        if quantity == 0:
            holes += 1
            continue
        order = order_at(book, k)
        m, side = np.uintp(order.market), order.side
        fill = _fill(
            auction, m, side, _counted(auction, m, side, order.level, down, up), quantity, True, running, given
        )
        status = _status(quantity - fill, fill, order.expires, tick, hours_lapse and side < 0 and m == LABOUR)
        if status == _RESTING:
            continue
        is_over = status != _PARTIAL
        _pay(accounts, auction, order, fill, quantity if is_over else fill)
        accounts.orders[np.uintp(order.slot)] -= is_over
        holes += is_over
        rest = 0 if is_over else quantity - fill
        book.quantity[i] = rest
        price = auction.price[m] if fill > 0 else 0
        value = -side * fill * auction.price[m]
        agent = accounts.id[order.slot]
        report(updates[reported], order.id, agent, fill, value, rest, price, order.market, side, status)
        reported += 1
    if holes > 0:
        _compact(book, accounts)
    _settle_new(book, accounts, auction, tick, hours_lapse, down, up, outcomes, running, given, fills)
    _settle_estate(auction, estate, flows, is_open, down, running, given)
    return reported


@kernel
def _settle_new(
    book: Book, accounts: Accounts, auction: Auction, tick: int, hours_lapse: bool, down: int, up: int, outcomes: Rows,
    running: Ints, given: Ints, fills: Ints,
) -> None:  # fmt: skip
    """Fill this tick's orders, complete their outcomes and move what stays into the table."""
    count = book.new_count[COUNT]
    for k in range(min(count, AHEAD)):
        _allot(book, accounts, auction, k, down, up, outcomes, running, given, fills)
    for k in range(count):
        if k + AHEAD < count:
            _allot(book, accounts, auction, k + AHEAD, down, up, outcomes, running, given, fills)
        _finish(book, accounts, auction, k, fills[np.uintp(k & (FILLS - 1))], tick, hours_lapse, outcomes)
    book.new_count[COUNT] = 0


@kernel
def _allot(
    book: Book, accounts: Accounts, auction: Auction, k: int, down: int, up: int, outcomes: Rows, running: Ints,
    given: Ints, fills: Ints,
) -> None:  # fmt: skip
    """Write how many lots a new order gets, and bring what _finish needs of its agent into the cache."""
    new = book.new[np.uintp(k)]
    m, side, slot = np.uintp(new["market"]), whole(new["side"]), np.uintp(new["slot"])
    level = _counted(auction, m, side, whole(new["level"]), down, up)
    fill = _fill(auction, m, side, level, whole(new["quantity"]), False, running, given)
    fills[np.uintp(k & (FILLS - 1))] = fill
    prefetch(accounts.cash, slot)
    prefetch(accounts.id, slot)
    # of an order without a fill the first agent's, by bits: of a product the compiler makes a branch
    prefetch(accounts.holdings, np.uintp((whole(slot) * MARKETS + whole(m)) & (-fill >> 62)))
    prefetch(outcomes, np.uintp(new["row"]))


@kernel
def _finish(
    book: Book, accounts: Accounts, auction: Auction, k: int, fill: int, tick: int, hours_lapse: bool, outcomes: Rows
) -> None:
    """Settle a new order that gets so many lots."""
    order, is_loose, term = _new_at(book, k), book.new[np.uintp(k)]["is_loose"], book.new[np.uintp(k)]["term"]
    if order.quantity == 0:
        return
    m, slot, rest = np.uintp(order.market), np.uintp(order.slot), order.quantity - fill
    # which order is filled is no pattern a branch could learn: here and below both ways are the same
    is_over = (term <= 0) | (hours_lapse & (order.side < 0) & (m == LABOUR))
    stays = (rest > 0) & (not is_over)
    left = rest * stays
    ends = _CANCELLED if term == LAPSES else _EXPIRED
    goes_on = _PARTIAL if fill > 0 else _RESTING
    status = _FILLED if rest == 0 else (ends if is_over else goes_on)
    price, value = auction.price[m] * (fill > 0), -order.side * fill * auction.price[m]
    outcome = outcomes[np.uintp(order.row)]
    if is_loose == 1:
        accounts.cash[slot] += value
        _deliver(accounts, slot, m, order.side * fill)
        if stays:
            set_aside(accounts, auction.ladder, order, rest)
            accounts.orders[slot] += 1
        write_outcome(outcome, order.id, accounts.id[slot], fill, value, left, price, status)
    else:
        _pay(accounts, auction, order, fill, fill if stays else order.quantity)
        accounts.orders[slot] -= not stays
        outcome["filled"], outcome["value"], outcome["price"] = fill, value, price
        outcome["open"], outcome["status"] = left, status
    if stays:
        _keep(book, accounts, order, rest, tick)


@kernel
def _counted(auction: Auction, m: Index, side: int, level: int, down: int, up: int) -> int:
    """Return the level an order counts at: at most the window's edge.

    Outside it on the other side, or in a closed market, it is behind every margin.
    """
    reference = auction.level[m] - auction.market_return[m]
    return of_side(side, min(level, reference + up), max(level, reference - down))


@kernel
def _fill(
    auction: Auction, m: Index, side: int, level: int, quantity: int, is_carried: bool, running: Ints, given: Ints
) -> int:
    """Return the lots an order gets (ECONOMY A6.4): carried-over ones first, new ones by cumulative rounding."""
    # 0 or 1 as in side < 0, of which the compiler would make a branch: see of_side
    s = np.uintp((1 - side) >> 1)
    ahead = side * (level - auction.margin_level[s, m])
    if ahead != 0:
        # all of it or nothing, which is no pattern either: -ahead >> 62 is -1 where ahead is positive, 0 elsewhere
        return int(quantity & (-ahead >> 62))
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
def _pay(accounts: Accounts, auction: Auction, order: Order, fill: int, freed: int) -> None:
    """Move money and lots of a fill; what the price is better than the limit goes back to the buyer.

    freed: lots whose escrow or reservation ends, the filled ones and, of an order that is over, the rest.
    """
    release(accounts, auction.ladder, order, freed)
    m, slot = np.uintp(order.market), np.uintp(order.slot)
    accounts.cash[slot] -= order.side * fill * auction.price[m]
    _deliver(accounts, slot, m, order.side * fill)


@kernel
def _deliver(accounts: Accounts, slot: Index, m: Index, lots: int) -> None:
    """Add lots to an agent's holdings, negative ones take away."""
    # who gets nothing adds nothing to the first agent's: which order is filled is no pattern a branch could learn
    moves, is_share = np.uintp(lots != 0), np.uintp(m >= SHARE_FIRST)
    accounts.holdings[slot * moves, m * moves] += lots
    accounts.assets[slot * moves * is_share] += lots * is_share
    accounts.net[m] += lots


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
def _compact(book: Book, accounts: Accounts) -> None:
    """Close the holes in the table and make the agents' lists anew."""
    count, kept = book.counters[ORDER_COUNT], 0
    for i in range(count):
        slot = np.uintp(book.slot[i])
        book.first[slot] = 0
        place_of(accounts, slot)["resting"] = np.uintp(0)
    for i in range(count):
        if book.quantity[i] > 0:
            if kept < i:
                book.id[kept], book.slot[kept], book.market[kept] = book.id[i], book.slot[i], book.market[i]
                book.side[kept], book.level[kept], book.quantity[kept] = book.side[i], book.level[i], book.quantity[i]
                book.expires[kept], book.since[kept] = book.expires[i], book.since[i]
            kept += 1
    book.counters[ORDER_COUNT] = kept
    for i in range(kept):
        _list_order(book, accounts, np.uintp(i))


@kernel
def _keep(book: Book, accounts: Accounts, order: Order, lots: int, tick: int) -> None:
    """Move what stays of a new order to the end of the table."""
    i = np.uintp(book.counters[ORDER_COUNT])
    book.counters[ORDER_COUNT] += 1
    book.id[i], book.slot[i], book.market[i], book.side[i] = order.id, order.slot, order.market, order.side
    book.level[i], book.quantity[i], book.expires[i], book.since[i] = order.level, lots, order.expires, tick
    _list_order(book, accounts, i)


@kernel
def _list_order(book: Book, accounts: Accounts, i: Index) -> None:
    """Put a resting order into its agent's list and note that its owner has one on that side of that market."""
    slot = np.uintp(book.slot[i])
    book.next[i] = book.first[slot]
    book.first[slot] = i + 1
    place_of(accounts, slot)["resting"] |= _bit(book.market[i], book.side[i])


@kernel
def _settle_estate(
    auction: Auction, estate: Ints, flows: Ints, is_open: NDArray[np.bool_], down: int, running: Ints, given: Ints
) -> None:
    for m in range(MARKETS):
        lots = estate_offer(estate[m])
        if lots > 0 and is_open[m]:
            level = auction.level[m] - auction.market_return[m] - min(ESTATE_BELOW, down)
            fill = _fill(auction, np.uintp(m), -1, level, lots, False, running, given)
            estate[m] -= fill
            flows[FLOW_ESTATE_SOLD] += fill * auction.price[m]


@kernel
def rebuild_lists(book: Book, accounts: Accounts) -> None:
    """Make every agent's list of orders from the table; no order is new."""
    book.first[:] = 0
    book.new_count[COUNT] = 0
    for place in accounts.open:
        place["resting"] = place["new"] = np.uintp(0)
        place["tick"] = 0
        for lane in range(LANES):
            place["newest"][lane] = 0
    for i in range(book.counters[ORDER_COUNT]):
        _list_order(book, accounts, np.uintp(i))
