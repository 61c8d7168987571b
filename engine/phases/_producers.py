"""A tick of the producers: offers, purchases, production, the books of the day, and the next purchase and offer.

Kernel of the behaviour phase. It works on a segment (all producers of one market) in long loops, because its blocks
are small: at 100,000 residents a block has about twenty producers, and a loop costs more to enter than to run. What
differs from block to block is the kind of purchase, held per producer in a scratch row.
Source: ECONOMY A7 Firm and extractor; booking as in Delli Gatti et al. (2011) and Assenza et al. (2015).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels import kernel
from engine.markets import GOOD_FIRST, HOURS, INPUT_1, INPUT_2, LABOUR, MARKUP_BP, RAW_FIRST
from engine.phases._kernels import bits, draw_all, quotient
from engine.phases._minds import drift
from engine.phases._orders import LOTS_MAX, fills, stand
from engine.rng import sub_stream
from engine.state import (
    DEBT_DAYS_Q8,
    FLOW_INTEREST,
    FLOW_LOANS_NEW,
    FLOW_LOANS_REPAID,
    FLOW_WRITTEN_OFF,
    GOODS_PRODUCED,
    GOODS_SOLD_OUT,
    GOODS_USED,
    LOAN_RATE_Q32,
    WAGE_REFERENCE,
)

BUYS_LABOUR, BUYS_FIRST, BUYS_SECOND, RESTS = 0, 1, 2, 3
"""Kinds of a purchase by own hour mod 4: labour, first input, second input, labour. Extractors rest for inputs."""
BOOKING_HOUR = 22
HIRING_HOURS = 12
ASK_LOW, ASK_HIGH, ASK_RANGE = 100, 5_000, 1_500
"""bp: an ask stays in cost + 100 .. cost + 5 000, and then in p +- 1 500."""
PAYOUT_DAYS = 3
"""An eighth of the cash beyond so many days of revenue is paid out."""
WRITE_OFF_DAYS, WRITE_OFF_UCR = 90, 1_000_000_000
"""A debt above 90 days of revenue and 1 000 credits is lost."""
WAGE_BID, INPUT_BID, URGENCY = 60, -30, 100
"""bp over the reference level."""
VALUE_CAP, CAP_FLOOR = 1_500, 6_000
"""bp: bids for inputs stay under F + 1 500, a bound that itself stays over p - 6 000."""
RENT_FLOOR, RAW_OFFER = 600, -48
"""bp: an extractor offers at p - 48 + (0..127), not below its unit cost - 600."""

MARKUP_SLOPE, USUAL_UNEMPLOYMENT, SLUMP = 0.2, 0.05, 0.08
"""A firm asks .2 % less for each point of unemployment above the natural one (2/(2 + 38), _households), up to a
slump."""

STREAM_PURCHASE, STREAM_PRODUCTION, STREAM_BOOKING, STREAM_OFFER, STREAM_LIMIT = 21, 51, 9, 33, 35

_INPUT_1 = np.array(INPUT_1)
_INPUT_2 = np.array(INPUT_2)

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
Moods = NDArray[np.int16]


def asked_markup(unemployment: float) -> int:
    """Return the markup firms ask over unit cost, bp, in an economy with such a share of unemployed.

    Markups rise and fall with activity (Nekarda & Ramey 2020, Journal of Money, Credit and Banking 52:S2). Without
    that the only way from unemployment to prices leads through wages, and what resources cost drowns it: seven tenths
    of the variance of monthly inflation. The CPI Phillips curve then had r = -.21 with a standard deviation of .11
    between worlds, the wrong sign in 2 of 143. Markups that fall on in a slump make prices plunge in a disaster and
    rise again while many are still unemployed: inflation below -3 % for 1 % of the days, or the wrong sign again
    (docs/model-experiments.md).
    """
    return MARKUP_BP + round(1e4 * MARKUP_SLOPE * (USUAL_UNEMPLOYMENT - min(unemployment, SLUMP)))


@kernel
def run(
    first_segment: int,
    last_segment: int,
    producer_first: int,
    tick: int,
    hour: int,
    next_hour: int,
    segment_start: I64,
    segment_end: I64,
    segment_market: I64,
    segment_block_start: I64,
    segment_block_end: I64,
    segment_before: I64,
    block_start: I64,
    block_end: I64,
    block_phase: I64,
    block_before: I64,
    cash: I64,
    ord_level: I32,
    ord_qty: I32,
    sentiment: Moods,
    fear: Moods,
    greed: Moods,
    confidence: Moods,
    memory: Moods,
    debt: I64,
    out: I32,
    in1: I32,
    in2: I32,
    hours: I32,
    day_sales: I32,
    ask: I32,
    sales_ema: I32,
    sell_level: I32,
    sell_qty: I32,
    markup: int,
    level: I64,
    price: I64,
    fundamental: I64,
    unit_cost: I64,
    cost_level: I64,
    hours_q16: I64,
    input1_q16: I64,
    input2_q16: I64,
    quota: I64,
    margin_level: I64,
    margin_ration: I64,
    margin_total: I64,
    targets: I64,
    counters: I64,
    ladder: I64,
    keys: U32,
    down: int,
    up: int,
    int_scratch: I32,
    long_scratch: I64,
    draw_scratch: U32,
    histogram: I64,
    touched: I64,
    flows: I64,
    goods_flow: I64,
    dividends: I64,
    mood_sum: I64,
) -> None:
    """Settle, produce, book, decide and feel for the segments first_segment .. last_segment - 1.

    Adds to histogram, touched, flows, goods_flow, dividends and mood_sum, one thread's own. The producers' own arrays
    are indexed by id - producer_first.
    """
    k0, k1 = keys[0, 0], keys[0, 1]
    for s in range(first_segment, last_segment):
        start, end, home = segment_start[s], segment_end[s], segment_market[s]
        first_block, last_block = segment_block_start[s], segment_block_end[s]
        a, z = start - producer_first, end - producer_first
        is_firm = home >= GOOD_FIRST
        fill, signed = int_scratch[0, : z - a], int_scratch[1, : z - a]
        now, following = int_scratch[2, : z - a], int_scratch[3, : z - a]
        lots, wanted, draws = long_scratch[0, : z - a], long_scratch[1, : z - a], draw_scratch[: z - a]
        money, owed, stock, sales = cash[start:end], debt[a:z], out[a:z], sales_ema[a:z]
        limit, quantity, offer_limit, offer = ord_level[start:end], ord_qty[start:end], sell_level[a:z], sell_qty[a:z]
        first_stock, second_stock, labour = in1[a:z], in2[a:z], hours[a:z]
        # an extractor has no inputs; where it looks for them does not matter, it has no order then
        first_market, second_market = max(_INPUT_1[home], LABOUR), max(_INPUT_2[home], LABOUR)

        _negate(offer, signed)
        fills(offer_limit, signed, home, margin_level, margin_ration, margin_total, 0, segment_before[s], fill)
        goods_flow[GOODS_SOLD_OUT, home] += _sell(fill, price[home], money, stock, day_sales[a:z])
        drift(
            start, home, keys[1, 0], keys[1, 1], targets, sentiment[start:end], fear[start:end], greed[start:end],
            confidence[start:end], memory[start:end], draws, mood_sum,
        )  # fmt: skip

        for b in range(first_block, last_block):
            low, high = block_start[b] - start, block_end[b] - start
            kind = _kind(hour + block_phase[b], is_firm)
            now[low:high] = kind
            following[low:high] = _kind(next_hour + block_phase[b], is_firm)
            market = _market_of(kind, first_market, second_market)
            fills(
                limit[low:high], quantity[low:high], market, margin_level, margin_ration, margin_total,
                block_before[b, 0], 0, fill[low:high],
            )  # fmt: skip
        _receive(BUYS_LABOUR, now, fill, price[LABOUR], money, labour)
        if is_firm:
            _receive(BUYS_FIRST, now, fill, price[first_market], money, first_stock)
            _receive(BUYS_SECOND, now, fill, price[second_market], money, second_stock)

        labour_q16, first_q16, second_q16 = hours_q16[home], input1_q16[home], input2_q16[home]
        _work(now, labour, labour_q16, lots)
        if is_firm:
            _bound(first_stock, first_q16, lots)
            _bound(second_stock, second_q16, lots)
            draw_all(start, sub_stream(k0, STREAM_PRODUCTION), k1, draws)
            goods_flow[GOODS_USED, first_market] += _use(lots, first_q16, draws, 0, first_stock)
            goods_flow[GOODS_USED, second_market] += _use(lots, second_q16, draws, 16, second_stock)
        else:
            _bound_by_quota(quota[home - RAW_FIRST], lots)
        goods_flow[GOODS_PRODUCED, home] += _store(lots, stock)

        for b in range(first_block, last_block):
            # by the tick, not the clock, which jumps: a day of sales is 24 ticks of sales
            if (tick + block_phase[b]) % HOURS == BOOKING_HOUR:
                low, high = block_start[b] - start, block_end[b] - start
                draw_all(block_start[b], sub_stream(k0, STREAM_BOOKING), k1, draws[low:high])
                _ask(
                    draws[low:high], level[home], cost_level[home], markup, stock[low:high],
                    day_sales[a + low : a + high], sales[low:high], ask[a + low : a + high],
                )  # fmt: skip
                dividends[home] += _book(
                    price[home], counters[LOAN_RATE_Q32], counters[DEBT_DAYS_Q8], sales[low:high], money[low:high],
                    owed[low:high], flows,
                )  # fmt: skip

        draw_all(start, sub_stream(k0, STREAM_PURCHASE), k1, draws)
        _plan(sales, stock, price[home] < unit_cost[home], wanted)
        wage_cap = level[LABOUR] + up
        _want_labour(following, wanted, labour_q16, draws, lots)
        _bid_for_labour(following, draws, counters[WAGE_REFERENCE] + WAGE_BID, wage_cap, limit)
        dearest = ladder[min(counters[WAGE_REFERENCE] + WAGE_BID + 127, wage_cap)]
        if is_firm:
            for kind in range(BUYS_FIRST, BUYS_SECOND + 1):
                market = _market_of(kind, first_market, second_market)
                per_lot = first_q16 if kind == BUYS_FIRST else second_q16
                held = first_stock if kind == BUYS_FIRST else second_stock
                cap = max(min(level[market] + up, fundamental[market] + VALUE_CAP), level[market] - CAP_FLOOR)
                _want_input(kind, following, wanted, sales, per_lot, held, lots)
                _bid_for_input(kind, following, wanted, sales, per_lot, held, draws, level[market], cap, limit)
                dearest = max(dearest, ladder[min(level[market] + INPUT_BID + 127 + URGENCY, cap)])
        if _is_beyond(lots, dearest, money):
            flows[FLOW_LOANS_NEW] += _finance(
                limit, ladder, sales, price[home], counters[DEBT_DAYS_Q8], lots, money, owed
            )
        for j in range(len(quantity)):
            quantity[j] = lots[j]
        for b in range(first_block, last_block):
            low, high = block_start[b] - start, block_end[b] - start
            market = _market_of(following[low], first_market, second_market)
            stand(limit[low:high], quantity[low:high], market, level[market], down, up, histogram, touched)

        draw_all(start, sub_stream(k0, STREAM_OFFER), k1, draws)
        _offer(stock, draws, offer)
        if is_firm:
            for j in range(len(offer)):
                offer_limit[j] = max(int(ask[a + j]), level[home] - down)
        else:
            draw_all(start, sub_stream(k0, STREAM_LIMIT), k1, draws)
            _limit_raw(
                draws, level[home] + RAW_OFFER, max(cost_level[home] - RENT_FLOOR, level[home] - down), offer_limit
            )
        _negate(offer, signed)
        stand(offer_limit, signed, home, level[home], down, up, histogram, touched)


@kernel
def _kind(own_hour: int, is_firm: bool) -> int:
    quarter = own_hour & 3
    if quarter == 0 or quarter == 3:
        return BUYS_LABOUR
    if not is_firm:
        return RESTS
    return BUYS_FIRST if quarter == 1 else BUYS_SECOND


@kernel
def _market_of(kind: int, first_market: int, second_market: int) -> int:
    if kind == BUYS_FIRST:
        return first_market
    return second_market if kind == BUYS_SECOND else LABOUR


@kernel
def _negate(offer: I32, signed: I32) -> None:
    """Write offers as sells: lots below zero."""
    for j in range(len(offer)):
        signed[j] = -offer[j]


@kernel
def _sell(fill: I32, price: int, cash: I64, stock: I32, day_sales: I32) -> int:
    """Book the offers' fills (lots, below zero) and return the lots sold."""
    sold = 0
    for j in range(len(fill)):
        stock[j] += fill[j]
        sold -= int(fill[j])
    for j in range(len(fill)):
        day_sales[j] -= fill[j]
        cash[j] -= int(fill[j]) * price
    return sold


@kernel
def _receive(kind: int, now: I32, fill: I32, price: int, cash: I64, held: I32) -> None:
    """Book the fills of the purchases of a kind."""
    for j in range(len(fill)):
        lots = int(fill[j]) * (now[j] == kind)
        held[j] += lots
        cash[j] -= lots * price


@kernel
def _work(now: I32, labour: I32, labour_q16: int, lots: I64) -> None:
    """Write what the hours bought in this tick can make; all of them are used up."""
    per_hour = 1.0 / labour_q16
    for j in range(len(lots)):
        works = now[j] == BUYS_LABOUR
        lots[j] = quotient(int(labour[j]) << 16, labour_q16, per_hour) * works
        labour[j] = 0 if works else labour[j]


@kernel
def _bound(held: I32, per_lot_q16: int, lots: I64) -> None:
    """Cut production to what an input allows."""
    reciprocal = 1.0 / per_lot_q16
    for j in range(len(lots)):
        lots[j] = min(lots[j], quotient(int(held[j]) << 16, per_lot_q16, reciprocal))


@kernel
def _bound_by_quota(quota: int, lots: I64) -> None:
    """Cut extraction to an hour's part of the quota; there is none without a quota."""
    most = quota // HIRING_HOURS + 1 if quota > 0 else 0
    for j in range(len(lots)):
        lots[j] = min(lots[j], most)


@kernel
def _use(lots: I64, per_lot_q16: int, draws: U32, lowest_bit: int, held: I32) -> int:
    """Take the input of the lots made, rounded with 16 bits, out of stock; return its sum."""
    total = 0
    for j in range(len(lots)):
        used = min((lots[j] * per_lot_q16 + bits(draws[j], lowest_bit, 16)) >> 16, int(held[j]))
        held[j] -= used
        total += used
    return total


@kernel
def _store(lots: I64, stock: I32) -> int:
    """Put the lots made into stock and return their sum."""
    total = 0
    for j in range(len(lots)):
        stock[j] += lots[j]
        total += lots[j]
    return total


@kernel
def _ask(
    draws: U32, reference: int, cost_level: int, markup: int, stock: I32, day_sales: I32, sales_ema: I32, ask: I32
) -> None:
    """Close a day of sales and move the ask: against the stock, toward cost and markup."""
    for j in range(len(ask)):
        memory = int(sales_ema[j])
        memory = max(memory + ((16 * int(day_sales[j]) - memory + 8) >> 4), 16)
        sales_ema[j] = memory
        day_sales[j] = 0
        sales, step, at = memory >> 4, bits(draws[j], 0, 6), int(ask[j])
        if stock[j] > 5 * sales:  # 1.25 of the target of four days
            at -= step
        elif stock[j] < 3 * sales:
            at += step
        at += (cost_level + markup - at + 16) >> 5
        at = min(max(at, cost_level + ASK_LOW), cost_level + ASK_HIGH)
        ask[j] = min(max(at, reference - ASK_RANGE), reference + ASK_RANGE)


@kernel
def _book(price: int, rate_q32: int, debt_days_q8: int, sales_ema: I32, cash: I64, debt: I64, flows: I64) -> int:
    """Pay interest, borrow or repay toward the debt target, write off hopeless debt; return the dividends paid."""
    interest_sum = lent = repaid_sum = lost = dividends = 0
    for j in range(len(cash)):
        owed, money = debt[j], cash[j]
        revenue = (int(sales_ema[j]) >> 4) * price
        # debt x rate passes 2^63: multiply the halves
        interest = (owed >> 32) * rate_q32 + (((owed & 0xFFFFFFFF) * rate_q32) >> 32)
        unpaid = interest - min(interest, money)
        money -= interest - unpaid
        owed += unpaid
        loan = repaid = 0
        target = (debt_days_q8 * revenue) >> 8
        if owed < target:
            loan = (target - owed) >> 6
        elif owed > target and money > 0:
            repaid = min((owed - target) >> 6, money)
        owed += loan - repaid
        money += loan - repaid
        dividend = max(money - PAYOUT_DAYS * revenue, 0) >> 3
        is_lost = owed > WRITE_OFF_DAYS * revenue + WRITE_OFF_UCR
        cash[j] = money - dividend
        debt[j] = 0 if is_lost else owed
        interest_sum += interest
        lent += unpaid + loan
        repaid_sum += repaid
        lost += owed if is_lost else 0
        dividends += dividend
    flows[FLOW_INTEREST] += interest_sum
    flows[FLOW_LOANS_NEW] += lent
    flows[FLOW_LOANS_REPAID] += repaid_sum
    flows[FLOW_WRITTEN_OFF] += lost
    return dividends


@kernel
def _plan(sales_ema: I32, stock: I32, is_dear: bool, desired: I64) -> None:
    """Write the desired output a day: sales, and a quarter of what the stock lacks; less while cost exceeds price."""
    quarters = 3 if is_dear else 4
    for j in range(len(desired)):
        sales = int(sales_ema[j]) >> 4
        lots = min(max(sales + ((4 * sales - int(stock[j])) >> 2), 0), ((3 * sales) >> 1) + 1)
        desired[j] = (quarters * lots) >> 2


@kernel
def _want_labour(following: I32, desired: I64, labour_q16: int, draws: U32, lots: I64) -> None:
    """Write the hours to buy for a twelfth of the desired output; nothing for other kinds of purchase."""
    for j in range(len(lots)):
        hours_q16 = quotient(desired[j] * labour_q16, HIRING_HOURS, 1.0 / HIRING_HOURS)
        hours = min((hours_q16 + bits(draws[j], 0, 16)) >> 16, LOTS_MAX)
        lots[j] = hours * (following[j] == BUYS_LABOUR)


@kernel
def _bid_for_labour(following: I32, draws: U32, lowest: int, cap: int, limit: I32) -> None:
    """Write the limits for labour; 0 for other kinds."""
    for j in range(len(limit)):
        limit[j] = min(lowest + bits(draws[j], 16, 7), cap) * (following[j] == BUYS_LABOUR)


@kernel
def _want_input(
    kind: int, following: I32, desired: I64, sales_ema: I32, per_lot_q16: int, held: I32, lots: I64
) -> None:
    """Write the lots of an input to buy: toward three days of sales and one of output, a quarter of it at most."""
    for j in range(len(lots)):
        need = ((3 * (int(sales_ema[j]) >> 4) + desired[j]) * per_lot_q16) >> 16
        missing = min(max(min(need - int(held[j]), (need >> 2) + 1), 0), LOTS_MAX)
        lots[j] = missing if following[j] == kind else lots[j]


@kernel
def _bid_for_input(
    kind: int,
    following: I32,
    desired: I64,
    sales_ema: I32,
    per_lot_q16: int,
    held: I32,
    draws: U32,
    reference: int,
    cap: int,
    limit: I32,
) -> None:
    """Write the limits for an input: higher when less than a third of the need is held."""
    for j in range(len(limit)):
        need = ((3 * (int(sales_ema[j]) >> 4) + desired[j]) * per_lot_q16) >> 16
        urgency = URGENCY * (3 * int(held[j]) < need)
        bid = min(reference + INPUT_BID + bits(draws[j], 16, 7) + urgency, cap)
        limit[j] = bid if following[j] == kind else limit[j]


@kernel
def _is_beyond(lots: I64, dearest: int, cash: I64) -> bool:
    """Return whether any purchase might cost more than the cash, at a price no bid exceeds."""
    count = 0
    for j in range(len(lots)):
        count += lots[j] * dearest > cash[j]
    return count > 0


@kernel
def _finance(
    limit: I32, ladder: I64, sales_ema: I32, price: int, debt_days_q8: int, lots: I64, cash: I64, debt: I64
) -> int:
    """Borrow what purchases cost beyond the cash, up to twice the debt target, and cut them; return the loans."""
    lent = 0
    for j in range(len(lots)):
        cost = lots[j] * ladder[limit[j]]
        if cost > cash[j]:
            room = ((debt_days_q8 * ((int(sales_ema[j]) >> 4) * price)) >> 7) - debt[j]
            loan = max(min(cost - cash[j], room), 0)
            cash[j] += loan
            debt[j] += loan
            lent += loan
            lots[j] = min(lots[j], cash[j] // ladder[limit[j]])
    return lent


@kernel
def _offer(stock: I32, draws: U32, offer: I32) -> None:
    """Write the offers: a thirty-second of the stock, rounded with 5 bits."""
    for j in range(len(offer)):
        offer[j] = min((int(stock[j]) + bits(draws[j], 0, 5)) >> 5, LOTS_MAX)


@kernel
def _limit_raw(draws: U32, least: int, lowest: int, limit: I32) -> None:
    """Write the limits of extractors, who take the price."""
    for j in range(len(limit)):
        limit[j] = max(least + bits(draws[j], 0, 7), lowest)
