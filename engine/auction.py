"""The call auction of a tick: histograms of all orders, one price per market, margins, what is measured from them.

All in integers, market by market, over the touched range only. Sums of 64 slots let the search skip what is empty: a
market order stands at the window's edge, far from the range the residents touched (0.1 ms instead of 0.8 with it).
Source: ECONOMY A6, A17 phase 1; specification 004, Supply & Demand Engine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernels import kernel
from engine.ladder import LEVELS, REFERENCE_HIGH, REFERENCE_LOW
from engine.markets import CONSOL, HOURS, RAW_FIRST, RAW_LAST, SHARE_FIRST
from engine.state import CENTRE, SLOTS, State

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ASSETS = (*range(RAW_FIRST, RAW_LAST + 1), *range(SHARE_FIRST, CONSOL + 1))
"""The 15 markets that close outside the open hours."""
BUY, SELL = 0, 1
NO_BUYER, NO_SELLER = LEVELS, -1
"""Margin levels of a market without trade: nobody buys above the ladder or sells below it."""
CHUNK = 64
CHUNKS = SLOTS // CHUNK
CURVE_REACH = 50
"""Levels above and below the reference at which a market's curves are compared: a price change of 1 %."""
INDICATIVE_LIMIT = 0.02
"""Largest change of the indicative price (fraction of the price), where maxPriceChange allows as much."""
DEPTH_REACH = 100
"""Levels from the best unfilled order within which unfilled lots count as depth."""
ELASTICITY_STEP = 1.0 / 20.0
KYLE_STEP = 1.0 / 100.0
VARIANCE_STEP = 1.0 / 50.0
EXACT = 9.0e18
"""Sums of money below this are added in int64, larger ones in float64."""


class Auction(NamedTuple):
    """The arrays of the state that the auction reads and writes, by market."""

    histogram: Ints
    touched: Ints
    ladder: Ints
    level: Ints
    price: Ints
    elasticity: Floats
    kyle_xy: Floats
    kyle_xx: Floats
    variance: Floats
    volume: Ints
    margin_level: Ints
    margin_ration: Ints
    margin_total: Ints
    market_return: Ints
    demand: Ints
    supply: Ints
    bids_total: Ints
    asks_total: Ints
    imbalance: Ints
    indicative: Ints
    elasticity_demand: Floats
    elasticity_supply: Floats
    surplus: Floats
    best_bid: Ints
    best_ask: Ints
    depth: Ints
    book_wanted: Ints
    book_level: Ints
    book_lots: Ints


def auction_of(state: State) -> Auction:
    """Return the state's arrays an auction works on."""
    return Auction(
        state.histogram, state.touched, state.ladder, state.level, state.price, state.elasticity, state.kyle_xy,
        state.kyle_xx, state.variance, state.cleared_volume, state.margin_level, state.margin_ration,
        state.margin_total, state.market_return, state.demand, state.supply, state.bids_total, state.asks_total,
        state.imbalance, state.indicative, state.elasticity_demand, state.elasticity_supply, state.surplus,
        state.best_bid, state.best_ask, state.depth, state.book_wanted, state.book_level, state.book_lots,
    )  # fmt: skip


def open_markets(halt_until: NDArray[np.int64], tick: int, open_hours: int) -> NDArray[np.bool_]:
    """Return by market whether it clears in this tick: not halted and, of the assets, inside the open hours."""
    is_open = halt_until <= tick
    if tick % HOURS >= open_hours:
        is_open[list(ASSETS)] = False
    return is_open


@kernel
def price_change(elasticity: float, demand: float, supply: float, limit: float) -> float:
    """Return the fraction by which the price should move: elasticity x (demand / supply - 1), cut to +-limit.

    demand, supply: lots, above zero. Source: specification 004, equilibrium price.
    """
    change = elasticity * (demand / supply - 1.0)
    return min(limit, max(-limit, change))


@kernel
def equilibrium_price(current: float, elasticity: float, demand: float, supply: float, limit: float) -> float:
    """Return Current Price x (1 + Elasticity x (Demand/Supply - 1)), the change cut to +-limit (maxPriceChange).

    current: ucr a lot; demand, supply: lots, above zero. A first-order Newton step to the crossing of iso-elastic
    curves. Source: specification 004, equilibrium price; ECONOMY A6.2.
    """
    return current * (1.0 + price_change(elasticity, demand, supply, limit))


@kernel
def price_elasticity(quantity_from: float, quantity_to: float, change: float) -> float:
    """Return (dQ/Q) / (dP/P) for a quantity that falls from one value to another over a price change (fraction).

    dQ/Q is taken at the mean of both quantities plus one lot, so that an empty curve has elasticity 0.
    Source: specification 004, price elasticity; ECONOMY A6.2.
    """
    return (quantity_from - quantity_to) / ((quantity_from + quantity_to) * 0.5 + 1.0) / change


@kernel
def kyle_lambda(kyle_xy: float, kyle_xx: float) -> float:
    """Return the price impact of a lot, bp: mean of return x imbalance over mean of imbalance^2, 0 without imbalance.

    Source: specification 004, Kyle's lambda; Kyle 1985, Econometrica 53(6), as a regression through the origin.
    """
    return kyle_xy / kyle_xx if kyle_xx > 0.0 else 0.0


@kernel
def consumer_surplus(prices: Ints, quantities: Ints, price: int) -> float:
    """Return what buyers would have paid beyond the price, ucr: the sum of (limit - price) x lots.

    prices: limits of the filled bids, ucr a lot; quantities: their lots. Bids below the price do not count. Exact
    below 9e18 ucr, float64 beyond. Source: specification 004, consumer surplus, the integral of the demand curve.
    """
    return _gain(prices, quantities, price, 1)


@kernel
def producer_surplus(prices: Ints, quantities: Ints, price: int) -> float:
    """Return what sellers got beyond their limits, ucr: the sum of (price - limit) x lots; as consumer_surplus."""
    return _gain(prices, quantities, price, -1)


@kernel
def _gain(prices: Ints, quantities: Ints, price: int, sign: int) -> float:
    """Return the sum of max(0, sign x (limit - price)) x lots."""
    widest, lots = 0, 0
    for k in range(len(prices)):
        widest = max(widest, sign * (prices[k] - price))
        lots += quantities[k]
    if float(widest) * float(lots) < EXACT:
        exact = 0
        for k in range(len(prices)):
            exact += max(0, sign * (prices[k] - price)) * quantities[k]
        return float(exact)
    wide = 0.0
    for k in range(len(prices)):
        wide += float(max(0, sign * (prices[k] - price))) * float(quantities[k])
    return wide


@kernel
def clear_markets(
    auction: Auction, is_open: NDArray[np.bool_], sums: Ints, reach: Ints, down: int, up: int, limit: float
) -> None:  # fmt: skip
    """Clear every open market, empty all histograms and write what was measured.

    sums: shape (markets, 2, CHUNKS), lots added besides those of the touched ranges, by chunk; reach: shape (markets,
    2), the slots between which they are. sums are zero afterwards. down, up: levels of the window. limit: cut of the
    indicative change (fraction of the price). Trusts that every order stands in its market's window. A closed market
    trades nothing and keeps its reference.
    """
    for m in range(len(auction.level)):
        touched_low, touched_high = _merge_threads(auction.histogram, auction.touched, m)
        low, high = min(touched_low, reach[m, 0]), max(touched_high, reach[m, 1])
        bids, asks = auction.histogram[0, m, BUY], auction.histogram[0, m, SELL]
        bid_sums, ask_sums = sums[m, BUY], sums[m, SELL]
        _sum_chunks(bids, touched_low, touched_high, bid_sums)
        _sum_chunks(asks, touched_low, touched_high, ask_sums)
        _reset(auction, m)
        if is_open[m]:
            _clear(auction, m, bids, asks, bid_sums, ask_sums, low, high, down, up, limit)
        _empty(bids, low, high, bid_sums)
        _empty(asks, low, high, ask_sums)


@kernel
def _clear(
    auction: Auction, m: int, bids: Ints, asks: Ints, bid_sums: Ints, ask_sums: Ints, low: int, high: int, down: int,
    up: int, limit: float,
) -> None:  # fmt: skip
    """Find the price of one market, its margins and its measures."""
    reference = auction.level[m]
    bids_total = _range_sum(bids, bid_sums, low, high)
    asks_total = _range_sum(asks, ask_sums, low, high)
    if bids_total == 0 and asks_total == 0:
        return
    auction.bids_total[m], auction.asks_total[m] = bids_total, asks_total
    change = _measure_curves(auction, m, bids, asks, bid_sums, ask_sums, low, high, limit)
    slot, demand, supply = best_slot(bids, asks, bid_sums, ask_sums, low, high, reference)
    volume = min(demand, supply)
    if volume == 0:
        move = min(up, max(-down, np.int64(10_000.0 * change)))
        level = min(REFERENCE_HIGH, max(REFERENCE_LOW, reference + move))
        _find_best(auction, m, bids, asks, bid_sums, ask_sums, low, high, high, 0, low, 0)
    else:
        level = reference + slot - CENTRE
        buy_slot, bid_rest = _margin_up(bids, slot, demand, volume)
        sell_slot, ask_rest = _margin_down(asks, slot, supply, volume)
        auction.volume[m] = volume
        auction.margin_level[BUY, m] = reference + buy_slot - CENTRE
        auction.margin_level[SELL, m] = reference + sell_slot - CENTRE
        auction.margin_total[BUY, m] = bids[buy_slot]
        auction.margin_total[SELL, m] = asks[sell_slot]
        auction.margin_ration[BUY, m] = bids[buy_slot] - bid_rest
        auction.margin_ration[SELL, m] = asks[sell_slot] - ask_rest
        _measure_surplus(auction, m, bids, asks, bid_sums, ask_sums, low, high, slot, buy_slot, sell_slot)
        _find_best(
            auction, m, bids, asks, bid_sums, ask_sums, low, high, buy_slot, bids[buy_slot] - bid_rest, sell_slot,
            asks[sell_slot] - ask_rest,
        )  # fmt: skip
    auction.market_return[m] = level - reference
    auction.level[m] = level
    auction.price[m] = auction.ladder[level]


@kernel
def best_slot(
    bids: Ints, asks: Ints, bid_sums: Ints, ask_sums: Ints, low: int, high: int, reference: int
) -> tuple[int, int, int]:
    """Return (slot of the clearing price, demand there, supply there); the lesser of the two is the volume, 0 = none.

    bids, asks: lots by slot, nothing outside low..high; *_sums: their sums by chunk. The largest volume wins, then
    the smallest imbalance, then the slot closest to the reference (CENTRE), then the lower one. Demand falls and
    supply rises with the price, so the best slots are a run around the first slot where supply covers demand.
    Slots whose level would leave REFERENCE_LOW..REFERENCE_HIGH are no candidates.
    """
    first = max(low, REFERENCE_LOW - reference + CENTRE)
    last = min(high, REFERENCE_HIGH - reference + CENTRE)
    if first > last:
        return CENTRE, 0, 0
    demand = _range_sum(bids, bid_sums, first, high)
    supply = _range_sum(asks, ask_sums, low, first - 1)  # at the slot before k; asks[k] is added below
    k = first
    while k <= last:
        if k % CHUNK == 0 and k + CHUNK - 1 <= last:
            chunk = k // CHUNK
            if demand - bid_sums[chunk] + bids[k + CHUNK - 1] > supply + ask_sums[chunk]:
                demand -= bid_sums[chunk]
                supply += ask_sums[chunk]
                k += CHUNK
                continue
        if demand <= supply + asks[k]:
            break
        supply += asks[k]
        demand -= bids[k]
        k += 1
    # left of k buyers wait and supply limits the volume, from k on demand does
    left_supply = supply if k > first else 0
    left_demand = demand + bids[k - 1] if k > first else 0
    right_demand = demand if k <= last else 0
    right_supply = supply + asks[k] if k <= last else 0
    volume = max(left_supply, right_demand)
    if volume == 0:
        return CENTRE, 0, 0
    use_left, use_right = left_supply == volume, right_demand == volume
    if use_left and use_right:
        use_right = right_supply - right_demand <= left_demand - left_supply
        use_left = left_demand - left_supply <= right_supply - right_demand
    start, end = k, k - 1
    if use_left:
        start = k - 1
        while start > first and start > CENTRE and bids[start - 1] == 0 and asks[start] == 0:
            start -= 1
    if use_right:
        end = k
        while end < last and end < CENTRE and bids[end] == 0 and asks[end + 1] == 0:
            end += 1
    slot = min(end, max(start, CENTRE))
    if slot < k:
        return slot, left_demand, left_supply
    return slot, right_demand, right_supply


@kernel
def _margin_up(bids: Ints, slot: int, demand: int, volume: int) -> tuple[int, int]:
    """Return the highest slot whose demand still covers the volume, and the lots bid there that get nothing."""
    while demand - bids[slot] >= volume:
        demand -= bids[slot]
        slot += 1
    return slot, demand - volume


@kernel
def _margin_down(asks: Ints, slot: int, supply: int, volume: int) -> tuple[int, int]:
    """Return the lowest slot whose supply still covers the volume, and the lots asked there that get nothing."""
    while supply - asks[slot] >= volume:
        supply -= asks[slot]
        slot -= 1
    return slot, supply - volume


@kernel
def _measure_curves(
    auction: Auction, m: int, bids: Ints, asks: Ints, bid_sums: Ints, ask_sums: Ints, low: int, high: int, limit: float
) -> float:
    """Write demand, supply, imbalance, indicative price and elasticities; return the indicative change."""
    demand = _range_sum(bids, bid_sums, max(low, CENTRE), high)
    supply = _range_sum(asks, ask_sums, low, min(high, CENTRE))
    auction.demand[m], auction.supply[m] = demand, supply
    auction.imbalance[m] = demand - supply
    elasticity = auction.elasticity[m]
    price = float(auction.price[m])
    auction.indicative[m] = np.int64(equilibrium_price(price, elasticity, demand + 1.0, supply + 1.0, limit))
    below, above = CENTRE - CURVE_REACH, CENTRE + CURVE_REACH
    change = 2.0 * CURVE_REACH / 10_000.0
    e_d = price_elasticity(
        float(_range_sum(bids, bid_sums, max(low, below), high)),
        float(_range_sum(bids, bid_sums, max(low, above), high)),
        change,
    )
    e_s = price_elasticity(
        float(_range_sum(asks, ask_sums, low, min(high, above))),
        float(_range_sum(asks, ask_sums, low, min(high, below))),
        change,
    )
    auction.elasticity_demand[m], auction.elasticity_supply[m] = e_d, e_s
    auction.elasticity[m] += (1.0 / max(2.0, e_d + e_s) - elasticity) * ELASTICITY_STEP
    return price_change(elasticity, demand + 1.0, supply + 1.0, limit)


@kernel
def _measure_surplus(
    auction: Auction, m: int, bids: Ints, asks: Ints, bid_sums: Ints, ask_sums: Ints, low: int, high: int,
    slot: int, buy_slot: int, sell_slot: int,
) -> None:  # fmt: skip
    """Write buyers' and sellers' surplus: whole slots better than the margin, the ration at it."""
    shift = auction.level[m] - CENTRE
    price = auction.ladder[slot + shift]
    k = buy_slot + 1
    limits, lots = auction.ladder[k + shift : high + 1 + shift], bids[k : high + 1]
    gain = _surplus(limits, lots, bid_sums, k, price, 1)
    gain += float(auction.ladder[buy_slot + shift] - price) * float(auction.margin_ration[BUY, m])
    auction.surplus[0, m] = gain
    limits, lots = auction.ladder[low + shift : sell_slot + shift], asks[low:sell_slot]
    gain = _surplus(limits, lots, ask_sums, low, price, -1)
    gain += float(price - auction.ladder[sell_slot + shift]) * float(auction.margin_ration[SELL, m])
    auction.surplus[1, m] = gain


@kernel
def _surplus(limits: Ints, lots: Ints, sums: Ints, start: int, price: int, sign: int) -> float:
    """Return the surplus of the lots from slot start on, chunk by chunk, empty chunks left out."""
    total = 0.0
    i, n = 0, len(lots)
    while i < n:
        chunk = (start + i) // CHUNK
        end = min(n, (chunk + 1) * CHUNK - start)
        if sums[chunk] > 0:
            total += _gain(limits[i:end], lots[i:end], price, sign)
        i = end
    return total


@kernel
def _find_best(
    auction: Auction, m: int, bids: Ints, asks: Ints, bid_sums: Ints, ask_sums: Ints, low: int, high: int,
    buy_slot: int, bid_filled: int, sell_slot: int, ask_filled: int,
) -> None:  # fmt: skip
    """Write the best unfilled bid and ask and the unfilled lots near them.

    buy_slot, sell_slot: margins; everything beyond them is filled, *_filled of the lots at them.
    """
    shift = auction.level[m] - CENTRE
    at = buy_slot if bids[buy_slot] > bid_filled else _next_down(bids, bid_sums, buy_slot - 1, low)
    if at >= low:
        auction.best_bid[m] = at + shift
        total = _range_sum(bids, bid_sums, max(low, at - DEPTH_REACH), at)
        auction.depth[BUY, m] = total - bid_filled if at == buy_slot else total
    at = sell_slot if asks[sell_slot] > ask_filled else _next_up(asks, ask_sums, sell_slot + 1, high)
    if at <= high:
        auction.best_ask[m] = at + shift
        total = _range_sum(asks, ask_sums, at, min(high, at + DEPTH_REACH))
        auction.depth[SELL, m] = total - ask_filled if at == sell_slot else total
    if auction.book_wanted[m] > 0:
        _note_book(auction, m, bids, asks, bid_sums, ask_sums, low, high, buy_slot, bid_filled, sell_slot, ask_filled)


@kernel
def _note_book(
    auction: Auction, m: int, bids: Ints, asks: Ints, bid_sums: Ints, ask_sums: Ints, low: int, high: int,
    buy_slot: int, bid_filled: int, sell_slot: int, ask_filled: int,
) -> None:  # fmt: skip
    """Write the wanted levels of what is unfilled, best first; arguments as _find_best, which costs 1 us without it."""
    shift = auction.level[m] - CENTRE
    bid_at = buy_slot if bids[buy_slot] > bid_filled else _next_down(bids, bid_sums, buy_slot - 1, low)
    ask_at = sell_slot if asks[sell_slot] > ask_filled else _next_up(asks, ask_sums, sell_slot + 1, high)
    for k in range(auction.book_wanted[m]):
        if bid_at >= low:
            auction.book_level[BUY, m, k] = bid_at + shift
            auction.book_lots[BUY, m, k] = bids[bid_at] - (bid_filled if bid_at == buy_slot else 0)
            bid_at = _next_down(bids, bid_sums, bid_at - 1, low)
        if ask_at <= high:
            auction.book_level[SELL, m, k] = ask_at + shift
            auction.book_lots[SELL, m, k] = asks[ask_at] - (ask_filled if ask_at == sell_slot else 0)
            ask_at = _next_up(asks, ask_sums, ask_at + 1, high)


@kernel
def _next_down(lots: Ints, sums: Ints, at: int, low: int) -> int:
    """Return the highest slot at or below `at` with lots, low - 1 when there is none."""
    while at >= low:
        if at % CHUNK == CHUNK - 1 and sums[at // CHUNK] == 0:
            at -= CHUNK
        elif lots[at] > 0:
            return at
        else:
            at -= 1
    return low - 1


@kernel
def _next_up(lots: Ints, sums: Ints, at: int, high: int) -> int:
    """Return the lowest slot at or above `at` with lots, high + 1 when there is none."""
    while at <= high:
        if at % CHUNK == 0 and sums[at // CHUNK] == 0:
            at += CHUNK
        elif lots[at] > 0:
            return at
        else:
            at += 1
    return high + 1


@kernel
def _merge_threads(histogram: Ints, touched: Ints, m: int) -> tuple[int, int]:
    """Add all threads' histograms of a market into the first, empty the others, return the touched range."""
    low, high = touched[0, m, 0], touched[0, m, 1]
    for thread in range(1, len(histogram)):
        start, end = touched[thread, m, 0], touched[thread, m, 1]
        low, high = min(low, start), max(high, end)
        for side in range(2):
            mine, theirs = histogram[0, m, side], histogram[thread, m, side]
            for k in range(start, end + 1):
                mine[k] += theirs[k]
                theirs[k] = 0
    touched[:, m, 0] = SLOTS
    touched[:, m, 1] = -1
    return low, high


@kernel
def _sum_chunks(lots: Ints, low: int, high: int, sums: Ints) -> None:
    """Write the sum of every chunk that low..high reaches."""
    if low > high:
        return
    for chunk in range(low // CHUNK, high // CHUNK + 1):
        total = 0
        for k in range(chunk * CHUNK, chunk * CHUNK + CHUNK):
            total += lots[k]
        sums[chunk] = total


@kernel
def _range_sum(lots: Ints, sums: Ints, start: int, end: int) -> int:
    """Return the lots of slots start..end, inside the range whose chunk sums are known."""
    total = 0
    if start > end:
        return total
    first, last = start // CHUNK, end // CHUNK
    if first == last:
        for k in range(start, end + 1):
            total += lots[k]
        return total
    for k in range(start, (first + 1) * CHUNK):
        total += lots[k]
    for chunk in range(first + 1, last):
        total += sums[chunk]
    for k in range(last * CHUNK, end + 1):
        total += lots[k]
    return total


@kernel
def _empty(lots: Ints, low: int, high: int, sums: Ints) -> None:
    """Zero the chunks that hold lots, and their sums."""
    if low > high:
        return
    for chunk in range(low // CHUNK, high // CHUNK + 1):
        if sums[chunk] != 0:
            lots[chunk * CHUNK : chunk * CHUNK + CHUNK] = 0
            sums[chunk] = 0


@kernel
def _reset(auction: Auction, m: int) -> None:
    """Write what holds for a market without trade and without orders."""
    auction.volume[m] = 0
    auction.margin_level[BUY, m], auction.margin_level[SELL, m] = NO_BUYER, NO_SELLER
    for side in range(2):
        auction.margin_ration[side, m] = auction.margin_total[side, m] = 0
        auction.surplus[side, m] = 0.0
        auction.depth[side, m] = 0
        for k in range(auction.book_wanted[m]):
            auction.book_lots[side, m, k] = 0
    auction.market_return[m] = 0
    auction.demand[m] = auction.supply[m] = auction.imbalance[m] = 0
    auction.bids_total[m] = auction.asks_total[m] = 0
    auction.indicative[m] = auction.price[m]
    auction.elasticity_demand[m] = auction.elasticity_supply[m] = 0.0
    auction.best_bid[m] = auction.best_ask[m] = -1


@kernel
def marginal_lots(
    level: NDArray[np.int32], quantity: NDArray[np.int32], block_start: Ints, block_end: Ints, block_market: Ints,
    margin_level: Ints, first: int, last: int, sums: Ints,
) -> None:  # fmt: skip
    """Write each block's lots at its market's margins into sums, shape (blocks, 2), for blocks first..last - 1.

    level, quantity: standing orders by resident, + buys, - sells. block_market: -1 where a block has no orders.
    """
    for b in range(first, last):
        m = block_market[b]
        sums[b, BUY] = sums[b, SELL] = 0
        if m >= 0:
            start, end = block_start[b], block_end[b]
            bought, sold = _at_margin(
                level[start:end], quantity[start:end], margin_level[BUY, m], margin_level[SELL, m]
            )
            sums[b, BUY], sums[b, SELL] = bought, sold


@kernel
def _at_margin(
    level: NDArray[np.int32], quantity: NDArray[np.int32], buy_level: int, sell_level: int
) -> tuple[int, int]:
    # compare and add without branches, so that the loop vectorises
    bought = sold = 0
    for i in range(len(level)):
        lots = np.int64(quantity[i])
        bought += int(lots) if (level[i] == buy_level) & (lots > 0) else 0
        sold -= int(lots) if (level[i] == sell_level) & (lots < 0) else 0
    return bought, sold


@kernel
def marginal_offers(
    sell_level: NDArray[np.int32], sell_qty: NDArray[np.int32], first_id: int, segment_start: Ints,
    segment_end: Ints, segment_market: Ints, margin_level: Ints, sums: Ints,
) -> None:  # fmt: skip
    """Write each segment's offered lots at its market's margin into sums. first_id: id of the first producer."""
    for s in range(len(segment_start)):
        margin = margin_level[SELL, segment_market[s]]
        total = np.int64(0)
        for i in range(segment_start[s] - first_id, segment_end[s] - first_id):
            total += np.int64(sell_qty[i]) if sell_level[i] == margin else 0
        sums[s] = total


@kernel
def prefix_margins(
    outside: Ints, block_market: Ints, segment_market: Ints, block_before: Ints, segment_before: Ints
) -> None:
    """Turn sums of marginal lots into running sums before each block and segment, in the order of A6.4.

    outside: shape (2, markets), marginal lots of the new outside orders, which come first; used up.
    """
    for b in range(len(block_market)):
        m = block_market[b]
        if m >= 0:
            for side in range(2):
                lots = block_before[b, side]
                block_before[b, side] = outside[side, m]
                outside[side, m] += lots
    for s in range(len(segment_market)):
        m = segment_market[s]
        lots = segment_before[s]
        segment_before[s] = outside[SELL, m]
        outside[SELL, m] += lots


@kernel
def remember(auction: Auction, is_open: NDArray[np.bool_], row: int, returns: Ints) -> None:
    """Write the tick's returns into the ring's row and update variance and the sums of Kyle's lambda.

    A market that did not clear moved by 0 and says nothing about impact.
    """
    for m in range(len(is_open)):
        move = auction.market_return[m]
        returns[row, m] = move
        auction.variance[m] += (float(move) * float(move) - auction.variance[m]) * VARIANCE_STEP
        if is_open[m]:
            imbalance = float(auction.imbalance[m])
            auction.kyle_xy[m] += (float(move) * imbalance - auction.kyle_xy[m]) * KYLE_STEP
            auction.kyle_xx[m] += (imbalance * imbalance - auction.kyle_xx[m]) * KYLE_STEP
