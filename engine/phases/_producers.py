"""A tick of the producers: offers, purchases, production, the books of the day, and the next purchase and offer.

Kernel of the behaviour phase. It works on a segment (all producers of one market) in long loops, because its blocks
are small: at 100,000 residents a block has about twenty producers, and a loop costs more to enter than to run. What
differs from block to block is the kind of purchase, held per producer in a scratch row.
Source: ECONOMY A7 Firm and extractor; booking as in Delli Gatti et al. (2011) and Assenza et al. (2015).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from engine.markets import GOOD_FIRST, INPUT_1, INPUT_2, LABOUR, RAW_FIRST
from engine.phases._minds import drift
from engine.phases._orders import LOTS_MAX, fills, stand
from engine.rng import draw, sub_stream
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
MARKUP = 953
"""bp of the ask over unit cost: 10 %."""
ASK_LOW, ASK_HIGH, ASK_RANGE = 100, 5_000, 1_500
"""bp: an ask stays in cost + 100 .. cost + 5 000, and then in p +- 1 500."""
WRITE_OFF_DAYS, WRITE_OFF_UCR = 90, 1_000_000_000
"""A debt above 90 days of revenue and 1 000 credits is lost."""
WAGE_BID, INPUT_BID, URGENCY = 60, -30, 100
"""bp over the reference level."""
VALUE_CAP, CAP_FLOOR = 1_500, 6_000
"""bp: bids for inputs stay under F + 1 500, a bound that itself stays over p - 6 000."""
RENT_FLOOR, RAW_OFFER = 600, -48
"""bp: an extractor offers at p - 48 + (0..127), not below its unit cost - 600."""

STREAM_PURCHASE, STREAM_PRODUCTION, STREAM_BOOKING, STREAM_OFFER, STREAM_LIMIT = 21, 51, 9, 33, 35

_INPUT_1 = np.array(INPUT_1)
_INPUT_2 = np.array(INPUT_2)

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
Moods = NDArray[np.int16]


@njit(cache=True, nogil=True, error_model="numpy")
def run(
    first_segment: int,
    last_segment: int,
    producer_first: int,
    tick: int,
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
    longest = 0
    for s in range(first_segment, last_segment):
        longest = max(longest, segment_end[s] - segment_start[s])
    scratch = np.empty((5, longest), np.int32)
    draw_buffer = np.empty(longest, np.uint32)
    for s in range(first_segment, last_segment):
        start, end, home = segment_start[s], segment_end[s], segment_market[s]
        n = end - start
        a, z = start - producer_first, end - producer_first
        is_firm = home >= GOOD_FIRST
        fill, now, following = scratch[0, :n], scratch[1, :n], scratch[2, :n]
        draws = draw_buffer[:n]
        my_cash, my_debt = cash[start:end], debt[a:z]
        my_level, my_quantity = ord_level[start:end], ord_qty[start:end]
        my_out, my_in1, my_in2, my_hours = out[a:z], in1[a:z], in2[a:z], hours[a:z]
        my_sales, my_offer_level, my_offer = sales_ema[a:z], sell_level[a:z], sell_qty[a:z]
        _kinds(
            s,
            tick,
            is_firm,
            segment_block_start,
            segment_block_end,
            block_start,
            block_end,
            block_phase,
            now,
            following,
        )
        debt_days = counters[DEBT_DAYS_Q8]

        # offers of the segment
        for j in range(n):
            my_offer[j] = -my_offer[j]
        fills(my_offer_level, my_offer, home, margin_level, margin_ration, margin_total, 0, segment_before[s], fill)
        goods_flow[GOODS_SOLD_OUT, home] += _sell(my_cash, my_out, day_sales[a:z], fill, price[home])
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

        # purchases
        first_market = _INPUT_1[home] if is_firm else LABOUR
        second_market = _INPUT_2[home] if is_firm else LABOUR
        for b in range(segment_block_start[s], segment_block_end[s]):
            low, high = block_start[b] - start, block_end[b] - start
            kind = now[low]
            if kind == RESTS:
                continue
            market = LABOUR if kind == BUYS_LABOUR else (first_market if kind == BUYS_FIRST else second_market)
            fills(
                my_level[low:high],
                my_quantity[low:high],
                market,
                margin_level,
                margin_ration,
                margin_total,
                block_before[b, 0],
                0,
                fill[low:high],
            )
        for j in range(n):
            kind, lots = now[j], np.int64(fill[j])
            if kind == BUYS_LABOUR:
                my_hours[j] += lots
                my_cash[j] -= lots * price[LABOUR]
            elif kind == BUYS_FIRST:
                my_in1[j] += lots
                my_cash[j] -= lots * price[first_market]
            elif kind == BUYS_SECOND:
                my_in2[j] += lots
                my_cash[j] -= lots * price[second_market]

        # production
        _draw(start, sub_stream(k0, STREAM_PRODUCTION), k1, draws)
        labour_q16, first_q16, second_q16 = hours_q16[home], input1_q16[home], input2_q16[home]
        produced = first_used = second_used = 0
        for j in range(n):
            if now[j] != BUYS_LABOUR:
                continue
            lots = (np.int64(my_hours[j]) << 16) // labour_q16
            if is_firm:
                lots = min(lots, (np.int64(my_in1[j]) << 16) // first_q16)
                lots = min(lots, (np.int64(my_in2[j]) << 16) // second_q16)
                h = np.int64(draws[j])
                use = min((lots * first_q16 + (h & 65_535)) >> 16, np.int64(my_in1[j]))
                my_in1[j] -= use
                first_used += use
                use = min((lots * second_q16 + (h >> 16)) >> 16, np.int64(my_in2[j]))
                my_in2[j] -= use
                second_used += use
            else:
                limit = quota[home - RAW_FIRST]
                lots = min(lots, limit // HIRING_HOURS + 1) if limit > 0 else 0
            my_hours[j] = 0
            my_out[j] += lots
            produced += lots
        goods_flow[GOODS_PRODUCED, home] += produced
        if is_firm:
            goods_flow[GOODS_USED, first_market] += first_used
            goods_flow[GOODS_USED, second_market] += second_used

        # books
        for b in range(segment_block_start[s], segment_block_end[s]):
            if (tick + block_phase[b]) % 24 != BOOKING_HOUR:
                continue
            low, high = block_start[b] - start, block_end[b] - start
            _book(
                block_start[b],
                level[home],
                price[home],
                cost_level[home],
                counters[LOAN_RATE_Q32],
                debt_days,
                sub_stream(k0, STREAM_BOOKING),
                k1,
                my_cash[low:high],
                my_debt[low:high],
                my_out[low:high],
                day_sales[a + low : a + high],
                ask[a + low : a + high],
                my_sales[low:high],
                home,
                flows,
                dividends,
            )

        # next purchases
        _draw(start, sub_stream(k0, STREAM_PURCHASE), k1, draws)
        labour_level = level[LABOUR]
        for j in range(n):
            sales = np.int64(my_sales[j]) >> 4
            desired = sales + ((4 * sales - np.int64(my_out[j])) >> 2)
            desired = min(max(desired, 0), ((3 * sales) >> 1) + 1)
            if price[home] < unit_cost[home]:
                desired = (3 * desired) >> 2
            h = np.int64(draws[j])
            kind = following[j]
            if kind == RESTS:
                my_quantity[j] = 0
                my_level[j] = 0
                continue
            if kind == BUYS_LABOUR:
                lots = (desired * labour_q16 // HIRING_HOURS + (h & 65_535)) >> 16
                at = min(counters[WAGE_REFERENCE] + WAGE_BID + ((h >> 16) & 127), labour_level + up)
            else:
                market = first_market if kind == BUYS_FIRST else second_market
                per_lot = first_q16 if kind == BUYS_FIRST else second_q16
                held = np.int64(my_in1[j]) if kind == BUYS_FIRST else np.int64(my_in2[j])
                need = ((3 * sales + desired) * per_lot) >> 16
                lots = max(min(need - held, (need >> 2) + 1), 0)
                at = level[market] + INPUT_BID + ((h >> 16) & 127) + (URGENCY if 3 * held < need else 0)
                at = min(at, max(min(level[market] + up, fundamental[market] + VALUE_CAP), level[market] - CAP_FLOOR))
            lots = min(lots, LOTS_MAX)
            cost = lots * ladder[at]
            if cost > my_cash[j]:
                loan = min(cost - my_cash[j], ((debt_days * (sales * price[home])) >> 7) - my_debt[j])
                if loan > 0:
                    my_cash[j] += loan
                    my_debt[j] += loan
                    flows[FLOW_LOANS_NEW] += loan
                lots = min(lots, my_cash[j] // ladder[at])
            my_quantity[j] = lots
            my_level[j] = at
        for b in range(segment_block_start[s], segment_block_end[s]):
            low, high = block_start[b] - start, block_end[b] - start
            kind = following[low]
            if kind == RESTS:
                continue
            market = LABOUR if kind == BUYS_LABOUR else (first_market if kind == BUYS_FIRST else second_market)
            stand(my_level[low:high], my_quantity[low:high], market, level[market], down, up, histogram, touched)

        # next offers
        offer_key, limit_key = sub_stream(k0, STREAM_OFFER), sub_stream(k0, STREAM_LIMIT)
        reference = level[home]
        for j in range(n):
            lots = (np.int64(my_out[j]) + np.int64(draw(start + j, offer_key, k1) & np.uint32(31))) >> 5
            if is_firm:
                at = np.int64(ask[a + j])
            else:
                at = reference + RAW_OFFER + np.int64(draw(start + j, limit_key, k1) & np.uint32(127))
                at = max(at, cost_level[home] - RENT_FLOOR)
            my_offer_level[j] = max(at, reference - down)
            my_offer[j] = -min(lots, LOTS_MAX)
        stand(my_offer_level, my_offer, home, reference, down, up, histogram, touched)
        for j in range(n):
            my_offer[j] = -my_offer[j]


@njit(cache=True, nogil=True, error_model="numpy")
def _kinds(
    segment: int,
    tick: int,
    is_firm: bool,
    segment_block_start: I64,
    segment_block_end: I64,
    block_start: I64,
    block_end: I64,
    block_phase: I64,
    now: I32,
    following: I32,
) -> None:
    """Write which kind of purchase each producer's order stands for now and in the next auction."""
    start = block_start[segment_block_start[segment]]
    for b in range(segment_block_start[segment], segment_block_end[segment]):
        own_hour = tick + block_phase[b]
        now[block_start[b] - start : block_end[b] - start] = _kind(own_hour, is_firm)
        following[block_start[b] - start : block_end[b] - start] = _kind(own_hour + 1, is_firm)


@njit(cache=True, nogil=True, error_model="numpy")
def _kind(own_hour: int, is_firm: bool) -> int:
    quarter = own_hour & 3
    if quarter == 0 or quarter == 3:
        return BUYS_LABOUR
    if not is_firm:
        return RESTS
    return BUYS_FIRST if quarter == 1 else BUYS_SECOND


@njit(cache=True, nogil=True, error_model="numpy")
def _draw(first: int, k0: np.uint32, k1: np.uint32, draws: U32) -> None:
    for j in range(len(draws)):
        draws[j] = draw(first + j, k0, k1)


@njit(cache=True, nogil=True, error_model="numpy")
def _sell(cash: I64, out: I32, day_sales: I32, fill: I32, price: int) -> int:
    """Book the offers' fills (lots, negative) and return the lots sold."""
    sold = 0
    for j in range(len(cash)):
        lots = -np.int64(fill[j])
        out[j] -= lots
        day_sales[j] += lots
        cash[j] += lots * price
        sold += lots
    return sold


@njit(cache=True, nogil=True, error_model="numpy")
def _book(
    first: int,
    reference: int,
    price: int,
    cost_level: int,
    rate_q32: int,
    debt_days: int,
    k0: np.uint32,
    k1: np.uint32,
    cash: I64,
    debt: I64,
    out: I32,
    day_sales: I32,
    ask: I32,
    sales_ema: I32,
    home: int,
    flows: I64,
    dividends: I64,
) -> None:
    """Close the day of one block: sales memory, ask, interest, debt, dividend, write-off."""
    for j in range(len(cash)):
        memory = np.int64(sales_ema[j])
        memory = max(memory + ((16 * np.int64(day_sales[j]) - memory + 8) >> 4), 16)
        sales_ema[j] = memory
        day_sales[j] = 0
        sales = memory >> 4
        stock = np.int64(out[j])

        step = np.int64(draw(first + j, k0, k1) & np.uint32(63))
        at = np.int64(ask[j])
        if stock > 5 * sales:
            at -= step
        elif stock < 3 * sales:
            at += step
        at += (cost_level + MARKUP - at + 16) >> 5
        at = min(max(at, cost_level + ASK_LOW), cost_level + ASK_HIGH)
        ask[j] = min(max(at, reference - ASK_RANGE), reference + ASK_RANGE)

        owed, money = debt[j], cash[j]
        # debt x rate passes 2^63: multiply the halves
        interest = (owed >> 32) * rate_q32 + (((owed & 0xFFFFFFFF) * rate_q32) >> 32)
        paid = min(interest, money)
        money -= paid
        owed += interest - paid
        new_loans = interest - paid
        repaid = 0
        revenue = sales * price
        target = (debt_days * revenue) >> 8
        if owed < target:
            loan = (target - owed) >> 6
            owed += loan
            money += loan
            new_loans += loan
        elif owed > target and money > 0:
            repaid = min((owed - target) >> 6, money)
            owed -= repaid
            money -= repaid
        dividend = max(money - 3 * revenue, 0) >> 3
        money -= dividend
        written_off = owed if owed > WRITE_OFF_DAYS * revenue + WRITE_OFF_UCR else 0
        debt[j] = owed - written_off
        cash[j] = money
        flows[FLOW_INTEREST] += interest
        flows[FLOW_LOANS_NEW] += new_loans
        flows[FLOW_LOANS_REPAID] += repaid
        flows[FLOW_WRITTEN_OFF] += written_off
        dividends[home] += dividend
