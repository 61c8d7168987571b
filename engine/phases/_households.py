"""A tick of the households: wages, consumption, shares, and the order for their next hour.

Kernel of the behaviour phase. A block of households acts in one market at a time: labour, its home asset, or a good.
Per-household arithmetic is integer, or float64 with + - * and truncation only, in the order written here, so that
every machine gets the same bits. Source: ECONOMY A7 Household; buffer-stock consumption (Carroll 1997);
expectation-augmented Phillips curve in the reservation wage.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from engine.markets import LABOUR, SHARE_FIRST
from engine.phases._minds import drift
from engine.phases._orders import LOTS_MAX, fills, stand
from engine.rng import draw, mix32, normal_units, sub_stream
from engine.state import (
    BENEFIT,
    EXPECTED_STEP_Q8,
    FLOW_BENEFIT,
    FLOW_EMPLOYED,
    FLOW_FUND_PAID,
    FLOW_NOMINAL,
    FLOW_REAL,
    FLOW_SHARE_INCOME,
    FLOW_TAX,
    FLOW_TRANSFER,
    FLOW_UNEMPLOYED,
    FLOW_WAGE_LEVELS,
    FUND_RATE,
    GOODS_CONSUMED,
    RHO_Q16,
    SUBSISTENCE,
    TRANSFER_UCR,
    WAGE_REFERENCE,
    WAGE_STEP_Q8,
)

TAX_Q16 = 13_107
"""Income tax on wages: 20 %."""
UNEMPLOYED_STEP = 38
"""bp a day by which the unemployed lower their reservation wage; natural unemployment is 2/(2 + 38)."""
SPREAD = 461
"""bp between the wage reference and the mean reservation wage."""
INCOME_SHIFT = 5
"""Income memory: EMA 1/32 of the day's income."""
INCOME_MAX = 2_147_483_647
"""End of income_ema (int32, 1000 ucr a day)."""
INCOME_WEIGHT = 703.125
"""0.703125 of the remembered income, ucr per 1000 ucr."""
CASH_SHARE = 1.0 / 600.0
"""Share of the cash that is spent a day."""
CONFIDENCE_BASE, CONFIDENCE_SLOPE = 0.81689, 0.25 / 32768.0
"""Consumption factor of confidence; 1 at 24000/32768."""
MEMORY_SLACK = 180
"""bp above the remembered price at which households bid on average."""
BID_FLOOR, BID_CAP = 6_000, 800
"""bp around the reference level in which household bids stay."""
VALUE_RANGE, VALUE_SCALE = 3_000, 8_192
"""bp: how far fundamental value is believed to differ from the price, and what that does to the asset share."""
MOOD_BASE, MOOD_SLOPE = 0.824, 0.25 / 32768.0
ASSET_LIMIT, ASSET_CAP = 40, 200
"""bp: buys stand 40 under, sells 40 over the reference level, never over + 200."""

STREAM_LABOUR, STREAM_ASSET, STREAM_GOODS = 77, 5, 3

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Moods = NDArray[np.int16]


@njit(cache=True, nogil=True, error_model="numpy")
def run(
    first_block: int,
    last_block: int,
    block_start: I64,
    block_end: I64,
    block_home: I64,
    market_now: I64,
    market_next: I64,
    block_before: I64,
    cash: I64,
    ord_level: I32,
    ord_qty: I32,
    sentiment: Moods,
    fear: Moods,
    greed: Moods,
    confidence: Moods,
    memory: Moods,
    shares: I32,
    income_ema: I32,
    reserve_wage: I32,
    skill: I32,
    employed: NDArray[np.int8],
    level: I64,
    price: I64,
    fundamental: I64,
    slow_level: NDArray[np.float64],
    income_per_lot: I64,
    base_share_q15: I64,
    visit_share_q16: I64,
    subsistence: I64,
    panic_bias: I64,
    margin_level: I64,
    margin_ration: I64,
    margin_total: I64,
    targets: I64,
    counters: I64,
    ladder: I64,
    keys: NDArray[np.uint32],
    down: int,
    up: int,
    histogram: I64,
    touched: I64,
    flows: I64,
    goods_flow: I64,
    mood_sum: I64,
) -> None:
    """Settle, do the hour's business, decide and feel for the household blocks first_block .. last_block - 1.

    Adds to histogram, touched, flows, goods_flow and mood_sum, one thread's own. keys: rows of the residents' and the
    minds' streams. Blocks are trusted to start at household 0, so that ids index all arrays.
    """
    longest = 0
    for b in range(first_block, last_block):
        longest = max(longest, block_end[b] - block_start[b])
    fill_buffer = np.empty(longest, np.int32)
    draw_buffer = np.empty(longest, np.uint32)
    budget_buffer = np.empty(longest, np.float64)
    k0, k1 = keys[0, 0], keys[0, 1]
    for b in range(first_block, last_block):
        start, end, home = block_start[b], block_end[b], block_home[b]
        now, next_market = market_now[b], market_next[b]
        fill, draws = fill_buffer[: end - start], draw_buffer[: end - start]
        my_cash, my_shares = cash[start:end], shares[start:end]
        my_level, my_quantity = ord_level[start:end], ord_qty[start:end]
        my_confidence, my_income = confidence[start:end], income_ema[start:end]
        my_wage, my_skill = reserve_wage[start:end], skill[start:end]

        fills(
            my_level,
            my_quantity,
            now,
            margin_level,
            margin_ration,
            margin_total,
            block_before[b, 0],
            block_before[b, 1],
            fill,
        )
        per_share = income_per_lot[home]
        flows[FLOW_SHARE_INCOME] += per_share * _pay(my_cash, my_shares, fill, per_share, price[now])
        if now == LABOUR:
            # no labour order stands before the first auction only
            if my_quantity[0] != 0:
                _draw(start, sub_stream(k0, STREAM_LABOUR), k1, draws)
                is_employed = employed[start:end]
                _settle_labour(my_cash, fill, my_skill, is_employed, price[LABOUR], counters, flows)
                _remember_income(
                    my_income, my_shares, fill, my_skill, 24 * per_share, price[LABOUR], counters, budget_buffer
                )
                flows[FLOW_WAGE_LEVELS] += _ask_wage(start, my_wage, is_employed, draws, counters)
        elif now >= SHARE_FIRST:
            for j in range(len(fill)):
                my_shares[j] += fill[j]
        else:
            lots = 0
            for j in range(len(fill)):
                lots += np.int64(fill[j])
            flows[FLOW_NOMINAL] += lots * price[now]
            flows[FLOW_REAL] += lots
            goods_flow[GOODS_CONSUMED, now] += lots

        reference = level[next_market]
        if next_market == LABOUR:
            for j in range(len(fill)):
                my_quantity[j] = -my_skill[j]
                my_level[j] = max(np.int64(my_wage[j]), reference - down)
        elif next_market >= SHARE_FIRST:
            _draw(start, sub_stream(k0, STREAM_ASSET), k1, draws)
            believed = min(max(fundamental[home] - reference, -VALUE_RANGE), VALUE_RANGE) + VALUE_SCALE
            base_share = (believed * base_share_q15[home]) * (1.0 / (VALUE_SCALE * 32768.0))
            _wish_shares(
                my_confidence,
                greed[start:end],
                fear[start:end],
                my_cash,
                my_shares,
                price[home],
                base_share,
                budget_buffer,
            )
            cap = min(ASSET_CAP, up)
            _order_shares(budget_buffer, draws, my_cash, my_shares, 4 * ladder[reference + cap], my_quantity)
            _limit_shares(draws, my_quantity, reference, cap, down, panic_bias[home], my_level)
        else:
            _draw(start, sub_stream(k0, STREAM_GOODS), k1, draws)
            cap = min(BID_CAP, up)
            _budget(my_cash, my_income, my_confidence, counters[RHO_Q16] * (1.0 / 65536.0), budget_buffer)
            _order_goods(
                start,
                next_market,
                budget_buffer,
                draws,
                np.float64(counters[SUBSISTENCE]),
                np.float64(subsistence[next_market]),
                visit_share_q16[next_market] / (65536.0 * 256.0 * price[next_market]),
                my_quantity,
            )
            _keep_affordable(my_cash, ladder[reference + cap], my_quantity)
            _limit_goods(draws, np.int64(slow_level[next_market]) + MEMORY_SLACK, reference, cap, my_level)
        stand(my_level, my_quantity, next_market, reference, down, up, histogram, touched)
        drift(
            start,
            home,
            keys[1, 0],
            keys[1, 1],
            targets,
            sentiment[start:end],
            fear[start:end],
            greed[start:end],
            my_confidence,
            memory[start:end],
            draws,
            mood_sum,
        )


@njit(cache=True, nogil=True, error_model="numpy")
def _draw(first: int, k0: np.uint32, k1: np.uint32, draws: NDArray[np.uint32]) -> None:
    for j in range(len(draws)):
        draws[j] = draw(first + j, k0, k1)


@njit(cache=True, nogil=True, error_model="numpy")
def _pay(cash: I64, shares: I32, fill: I32, per_share: int, price: int) -> int:
    """Pay income on the shares held before the fills, then the fills themselves; return the shares."""
    held = 0
    for j in range(len(cash)):
        cash[j] += per_share * shares[j] - fill[j] * price
        held += np.int64(shares[j])
    return held


@njit(cache=True, nogil=True, error_model="numpy")
def _settle_labour(
    cash: I64, fill: I32, skill: I32, employed: NDArray[np.int8], wage: int, counters: I64, flows: I64
) -> None:
    """Tax the wages (already paid), pay benefit, transfer and fund distribution, note who is employed."""
    benefit, transfer, fund_rate = counters[BENEFIT], counters[TRANSFER_UCR], counters[FUND_RATE]
    tax_sum = benefit_hours = employed_sum = skill_sum = 0
    for j in range(len(cash)):
        hours = -np.int64(fill[j])
        offered = np.int64(skill[j])
        tax = (hours * wage * TAX_Q16) >> 16
        has_work = np.int64(2 * hours >= offered)
        idle_hours = (1 - has_work) * offered
        cash[j] += benefit * idle_hours + fund_rate * offered + transfer - tax
        employed[j] = has_work
        tax_sum += tax
        benefit_hours += idle_hours
        employed_sum += has_work
        skill_sum += offered
    flows[FLOW_TAX] += tax_sum
    flows[FLOW_BENEFIT] += benefit * benefit_hours
    flows[FLOW_TRANSFER] += transfer * len(cash)
    flows[FLOW_FUND_PAID] += fund_rate * skill_sum
    flows[FLOW_EMPLOYED] += employed_sum
    flows[FLOW_UNEMPLOYED] += len(cash) - employed_sum


@njit(cache=True, nogil=True, error_model="numpy")
def _remember_income(
    income_ema: I32,
    shares: I32,
    fill: I32,
    skill: I32,
    day_per_share: int,
    wage: int,
    counters: I64,
    income: NDArray[np.float64],
) -> None:
    """Move income_ema toward the income of the day: wage after tax, benefit, transfer, fund, a day of dividends."""
    benefit, transfer, fund_rate = counters[BENEFIT], counters[TRANSFER_UCR], counters[FUND_RATE]
    for j in range(len(income_ema)):
        hours = -np.int64(fill[j])
        offered = np.int64(skill[j])
        tax = (hours * wage * TAX_Q16) >> 16
        idle_hours = offered if 2 * hours < offered else 0
        total = hours * wage - tax + benefit * idle_hours + fund_rate * offered + transfer + day_per_share * shares[j]
        old = np.int64(income_ema[j])
        income_ema[j] = min(old + ((total // 1000 - old + 31) >> INCOME_SHIFT), INCOME_MAX)


@njit(cache=True, nogil=True, error_model="numpy")
def _ask_wage(
    first: int, reserve_wage: I32, employed: NDArray[np.int8], draws: NDArray[np.uint32], counters: I64
) -> int:
    """Move the reservation wages by a day and return their sum."""
    up_step, down_step = counters[WAGE_STEP_Q8], -UNEMPLOYED_STEP * 256
    inflation_step, reference = counters[EXPECTED_STEP_Q8], counters[WAGE_REFERENCE]
    total = 0
    for j in range(len(reserve_wage)):
        h = np.int64(draws[j])
        wage = np.int64(reserve_wage[j])
        wage += ((up_step if employed[j] != 0 else down_step) + ((h >> 8) & 255)) >> 8
        wage += (inflation_step + (h & 255)) >> 8
        offset = (((2_654_435_761 * (first + j)) >> 7) & 1023) - 512
        wage += (reference + offset - SPREAD - wage + ((h >> 16) & 127)) >> 7
        reserve_wage[j] = wage
        total += wage
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _wish_shares(
    confidence: Moods,
    greed: Moods,
    fear: Moods,
    cash: I64,
    shares: I32,
    price: int,
    base_share: float,
    wish: NDArray[np.float64],
) -> None:
    """Write the lots to buy (+) or sell (-) in this step: 1/64 of the gap to the target share of wealth."""
    lots_per_ucr = 1.0 / (64.0 * price)
    for j in range(len(cash)):
        mood = np.int64(confidence[j]) + np.int64(greed[j]) - 2 * np.int64(fear[j])
        own = shares[j] * price
        target = np.float64(cash[j] + own) * (base_share * (MOOD_BASE + mood * MOOD_SLOPE))
        wish[j] = (target - np.float64(own)) * lots_per_ucr


@njit(cache=True, nogil=True, error_model="numpy")
def _order_shares(
    wish: NDArray[np.float64], draws: NDArray[np.uint32], cash: I64, shares: I32, ucr_per_lot: int, quantity: I32
) -> None:
    """Round the wishes; buys are kept within cash // ucr_per_lot (a quarter of the cash), sells within the shares."""
    for j in range(len(quantity)):
        wanted = min(wish[j] + np.int64(draws[j] >> np.uint32(24)) * (1.0 / 256.0), np.float64(LOTS_MAX))
        lots = np.int64(max(wanted, -np.float64(LOTS_MAX)))
        lots -= 1 if lots > wanted else 0
        if lots > 0 and lots * ucr_per_lot > cash[j]:
            lots = cash[j] // ucr_per_lot
        quantity[j] = max(lots, -np.int64(shares[j]))


@njit(cache=True, nogil=True, error_model="numpy")
def _limit_shares(
    draws: NDArray[np.uint32], quantity: I32, reference: int, cap: int, down: int, bias: int, limit: I32
) -> None:
    for j in range(len(quantity)):
        noise = (np.int64(normal_units(draws[j])) * 40) // 148
        if quantity[j] > 0:
            limit[j] = min(reference - ASSET_LIMIT + noise, reference + cap)
        else:
            limit[j] = max(min(reference + ASSET_LIMIT + noise - bias, reference + cap), reference - down)


@njit(cache=True, nogil=True, error_model="numpy")
def _budget(cash: I64, income_ema: I32, confidence: Moods, policy: float, budget: NDArray[np.float64]) -> None:
    """Write what each household wants to spend a day, ucr."""
    for j in range(len(cash)):
        plan = INCOME_WEIGHT * income_ema[j] + np.float64(cash[j]) * CASH_SHARE
        budget[j] = plan * (CONFIDENCE_BASE + confidence[j] * CONFIDENCE_SLOPE) * policy


@njit(cache=True, nogil=True, error_model="numpy")
def _order_goods(
    first: int,
    market: int,
    budget: NDArray[np.float64],
    draws: NDArray[np.uint32],
    subsistence_cost: float,
    subsistence_lots: float,
    lots_per_ucr: float,
    quantity: I32,
) -> None:
    """Write the lots of one visit: subsistence, then a share of what is left (Stone-Geary with CES shares).

    lots_per_ucr: share of a visit / price for a taste of 1/256.
    """
    poor_share = subsistence_lots * (1.0 / (subsistence_cost + 1.0))
    seed = np.uint64(0x9E3779B9) * np.uint64(market)
    for j in range(len(quantity)):
        taste = 192 + np.int64(mix32(np.uint64(97) * np.uint64(first + j) + seed) & np.uint32(127))
        rounding = np.int64((draws[j] >> np.uint32(3)) & np.uint32(255)) * (1.0 / 256.0)
        rest = budget[j] - subsistence_cost
        rich = subsistence_lots + (rest * taste) * lots_per_ucr
        poor = budget[j] * poor_share
        wanted = (rich if rest >= 0.0 else poor) + rounding
        quantity[j] = np.int32(min(wanted, np.float64(LOTS_MAX)))


@njit(cache=True, nogil=True, error_model="numpy")
def _keep_affordable(cash: I64, highest_price: int, quantity: I32) -> None:
    """Cut quantities to what the cash pays at the highest price a bid may have."""
    for j in range(len(quantity)):
        if quantity[j] * highest_price > cash[j]:
            quantity[j] = cash[j] // highest_price


@njit(cache=True, nogil=True, error_model="numpy")
def _limit_goods(draws: NDArray[np.uint32], mean: int, reference: int, cap: int, limit: I32) -> None:
    lowest, highest = reference - BID_FLOOR, reference + cap
    for j in range(len(limit)):
        noise = (np.int64(normal_units(draws[j])) * 830) >> 11
        limit[j] = min(max(mean + noise, lowest), highest)
