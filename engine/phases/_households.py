"""A tick of the households: wages, consumption, shares, and the order for their next hour.

Kernel of the behaviour phase. A block of households acts in one market at a time: labour, its home asset, or a good.
Per-household arithmetic is integer, or float64 with + - * and truncation only, in the order written here, so that
every machine gets the same bits. Source: ECONOMY A7 Household; buffer-stock consumption (Carroll 1997) of households
that differ in patience; expectation-augmented Phillips curve in the reservation wage.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from engine.kernels import kernel
from engine.markets import HOURS, LABOUR, SHARE_FIRST, WAGE_SPREAD_BP
from engine.phases._kernels import bits, draw_all, quotient
from engine.phases._minds import drift
from engine.phases._orders import LOTS_MAX, fills, stand
from engine.rng import mix32, normal_units, sub_stream
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
INCOME_SHIFT = 5
"""Income memory: EMA 1/32 of the day's income."""
INCOME_MAX = 2_147_483_647
"""End of income_ema (int32, 1000 ucr a day)."""
INCOME_WEIGHT = 703.125
"""0.703125 of the remembered income, ucr per 1000 ucr."""
CASH_SHARE_LEAST, CASH_SHARE_MOST = 1.0 / 6_400.0, 1.0 / 160.0
"""Share of the cash that is spent a day, by the most and the least patient household; the mean of 1 / share is 605."""
CASH_SHARE_STEP = (CASH_SHARE_MOST - CASH_SHARE_LEAST) / 65_536.0
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
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Moods = NDArray[np.int16]


@kernel
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
    slow_level: F64,
    income_per_lot: I64,
    base_share_q15: I64,
    visit_share_q16: I64,
    subsistence: I64,
    panic_bias: I64,
    quote_shift: I64,
    margin_level: I64,
    margin_ration: I64,
    margin_total: I64,
    targets: I64,
    counters: I64,
    ladder: I64,
    keys: U32,
    down: int,
    up: int,
    fill_scratch: I32,
    draw_scratch: U32,
    amount_scratch: F64,
    histogram: I64,
    touched: I64,
    flows: I64,
    goods_flow: I64,
    mood_sum: I64,
) -> None:
    """Settle, do the hour's business, decide and feel for the household blocks first_block .. last_block - 1.

    market_now, market_next: where each block's orders stood in this tick's auction and will stand in the next.
    Adds to histogram, touched, flows, goods_flow and mood_sum, one thread's own. keys: rows of the residents' and the
    minds' streams. Blocks are trusted to start at household 0, so that ids index all arrays.
    """
    k0, k1 = keys[0, 0], keys[0, 1]
    for b in range(first_block, last_block):
        start, end, home = block_start[b], block_end[b], block_home[b]
        now, following = market_now[b], market_next[b]
        fill, draws, amounts = fill_scratch[: end - start], draw_scratch[: end - start], amount_scratch[: end - start]
        money, lots_held = cash[start:end], shares[start:end]
        limit, quantity = ord_level[start:end], ord_qty[start:end]
        income, mood = income_ema[start:end], confidence[start:end]
        wage, offered = reserve_wage[start:end], skill[start:end]

        before = block_before[b]
        fills(limit, quantity, now, margin_level, margin_ration, margin_total, before[0], before[1], fill)
        per_lot = income_per_lot[home]
        flows[FLOW_SHARE_INCOME] += per_lot * _pay(money, lots_held, fill, per_lot, price[now])
        if now >= SHARE_FIRST:
            for j in range(len(fill)):
                lots_held[j] += fill[j]
        elif now != LABOUR:
            _consume(now, fill, price[now], flows, goods_flow)
        elif quantity[0] != 0:  # no labour order stands only before the first auction
            draw_all(start, sub_stream(k0, STREAM_LABOUR), k1, draws)
            _settle_labour(money, fill, offered, employed[start:end], price[LABOUR], counters, flows)
            _remember_income(income, lots_held, fill, offered, HOURS * per_lot, price[LABOUR], counters)
            _ask_wage(start, wage, employed[start:end], draws, counters, flows)

        reference = level[following]
        if following == LABOUR:
            for j in range(len(quantity)):
                quantity[j] = -offered[j]
                limit[j] = max(int(wage[j]), reference - down)
        elif following >= SHARE_FIRST:
            draw_all(start, sub_stream(k0, STREAM_ASSET), k1, draws)
            believed = min(max(fundamental[home] - reference, -VALUE_RANGE), VALUE_RANGE) + VALUE_SCALE
            base_share = (believed * base_share_q15[home]) * (1.0 / (VALUE_SCALE * 32768.0))
            _wish_shares(mood, greed[start:end], fear[start:end], money, lots_held, price[home], base_share, amounts)
            highest = reference + min(ASSET_CAP, up)
            _order_shares(amounts, draws, money, lots_held, 4 * ladder[highest], quantity)
            around = reference + quote_shift[home]
            _limit_shares(draws, quantity, around, highest, reference - down, panic_bias[home], limit)
        else:
            draw_all(start, sub_stream(k0, STREAM_GOODS), k1, draws)
            _budget(start, money, income, mood, counters[RHO_Q16] * (1.0 / 65536.0), amounts)
            per_taste = visit_share_q16[following] / (65536.0 * 256.0 * price[following])
            _order_goods(
                start, following, amounts, draws, counters[SUBSISTENCE], subsistence[following], per_taste, quantity
            )
            highest = reference + min(BID_CAP, up)
            _keep_affordable(money, ladder[highest], quantity)
            _limit_goods(draws, int(slow_level[following]) + MEMORY_SLACK, reference - BID_FLOOR, highest, limit)
        stand(limit, quantity, following, reference, down, up, histogram, touched)

        drift(
            start, home, keys[1, 0], keys[1, 1], targets, sentiment[start:end], fear[start:end], greed[start:end], mood,
            memory[start:end], draws, mood_sum,
        )  # fmt: skip


@kernel
def _pay(cash: I64, shares: I32, fill: I32, per_lot: int, price: int) -> int:
    """Pay income on the shares held before the fills, then the fills themselves; return the shares."""
    held = 0
    for j in range(len(cash)):
        cash[j] += per_lot * int(shares[j]) - int(fill[j]) * price
        held += int(shares[j])
    return held


@kernel
def _consume(market: int, fill: I32, price: int, flows: I64, goods_flow: I64) -> None:
    """Count what was bought: it is consumed at once."""
    lots = 0
    for j in range(len(fill)):
        lots += int(fill[j])
    flows[FLOW_NOMINAL] += lots * price
    flows[FLOW_REAL] += lots
    goods_flow[GOODS_CONSUMED, market] += lots


@kernel
def _settle_labour(
    cash: I64, fill: I32, skill: I32, employed: NDArray[np.int8], wage: int, counters: I64, flows: I64
) -> None:
    """Tax the wages (already paid), pay benefit, transfer and fund distribution, note who is employed."""
    benefit, transfer, fund_rate = counters[BENEFIT], counters[TRANSFER_UCR], counters[FUND_RATE]
    taxes = idle = working = offered = 0
    for j in range(len(cash)):
        hours, full_day = -int(fill[j]), int(skill[j])
        tax = (hours * wage * TAX_Q16) >> 16
        has_work = 1 if 2 * hours >= full_day else 0
        idle_hours = (1 - has_work) * full_day
        cash[j] += benefit * idle_hours + fund_rate * full_day + transfer - tax
        employed[j] = has_work
        taxes += tax
        idle += idle_hours
        working += has_work
        offered += full_day
    flows[FLOW_TAX] += taxes
    flows[FLOW_BENEFIT] += benefit * idle
    flows[FLOW_TRANSFER] += transfer * len(cash)
    flows[FLOW_FUND_PAID] += fund_rate * offered
    flows[FLOW_EMPLOYED] += working
    flows[FLOW_UNEMPLOYED] += len(cash) - working


@kernel
def _remember_income(
    income_ema: I32, shares: I32, fill: I32, skill: I32, day_per_lot: int, wage: int, counters: I64
) -> None:
    """Move income_ema toward the income of the day: wage after tax, benefit, transfer, fund, a day of dividends."""
    benefit, transfer, fund_rate = counters[BENEFIT], counters[TRANSFER_UCR], counters[FUND_RATE]
    for j in range(len(income_ema)):
        hours, full_day = -int(fill[j]), int(skill[j])
        earned = hours * wage - ((hours * wage * TAX_Q16) >> 16)
        idle_hours = full_day * (2 * hours < full_day)
        income = earned + benefit * idle_hours + fund_rate * full_day + transfer + day_per_lot * int(shares[j])
        old = int(income_ema[j])
        income_ema[j] = min(old + ((quotient(income, 1_000, 0.001) - old + 31) >> INCOME_SHIFT), INCOME_MAX)


@kernel
def _ask_wage(first: int, reserve_wage: I32, employed: NDArray[np.int8], draws: U32, counters: I64, flows: I64) -> None:
    """Move the reservation wages by a day: for work found or not, with expected inflation, toward the reference."""
    up_step, down_step = counters[WAGE_STEP_Q8], -UNEMPLOYED_STEP * 256
    inflation_step, reference = counters[EXPECTED_STEP_Q8], counters[WAGE_REFERENCE]
    total = 0
    for j in range(len(reserve_wage)):
        wage = int(reserve_wage[j])
        wage += ((up_step if employed[j] != 0 else down_step) + bits(draws[j], 8, 8)) >> 8
        wage += (inflation_step + bits(draws[j], 0, 8)) >> 8
        offset = (((2_654_435_761 * (first + j)) >> 7) & 1_023) - 512
        wage += (reference + offset - WAGE_SPREAD_BP - wage + bits(draws[j], 16, 7)) >> 7
        reserve_wage[j] = wage
        total += wage
    flows[FLOW_WAGE_LEVELS] += total


@kernel
def _wish_shares(
    confidence: Moods, greed: Moods, fear: Moods, cash: I64, shares: I32, price: int, base_share: float, wish: F64
) -> None:
    """Write the lots to buy (+) or sell (-) in this step: 1/64 of the gap to the target share of wealth."""
    lots_per_ucr = 1.0 / (64.0 * price)
    for j in range(len(cash)):
        mood = int(confidence[j]) + int(greed[j]) - 2 * int(fear[j])
        own = int(shares[j]) * price
        target = float(cash[j] + own) * (base_share * (MOOD_BASE + mood * MOOD_SLOPE))
        wish[j] = (target - float(own)) * lots_per_ucr


@kernel
def _order_shares(wish: F64, draws: U32, cash: I64, shares: I32, four_prices: int, quantity: I32) -> None:
    """Round the wishes; buys stay within a quarter of the cash at the highest bid, sells within the shares."""
    most = float(LOTS_MAX)
    for j in range(len(quantity)):
        wanted = min(max(wish[j] + bits(draws[j], 24, 8) * (1.0 / 256.0), -most), most)
        lots = int(wanted)
        lots -= 1 if lots > wanted else 0
        if lots > 0 and lots * four_prices > cash[j]:
            lots = cash[j] // four_prices
        quantity[j] = max(lots, -int(shares[j]))


@kernel
def _limit_shares(draws: U32, quantity: I32, around: int, highest: int, lowest: int, bias: int, limit: I32) -> None:
    """Write the limits: buys under, sells over the reference level and its shift, sells lower in a panic."""
    for j in range(len(quantity)):
        noise = (normal_units(draws[j]) * 40) // 148
        if quantity[j] > 0:
            limit[j] = min(around - ASSET_LIMIT + noise, highest)
        else:
            limit[j] = max(min(around + ASSET_LIMIT + noise - bias, highest), lowest)


@njit(inline="always")
def cash_share(household: int) -> float:
    """Return the share of its cash that a household spends a day: a trait, evenly spread over the households.

    The patience of households differs, as only that gives wealth the inequality of real economies (Krusell & Smith
    1998; Carroll, Slacalek, Tokuoka & White 2017): with one patience for all, wealth is as equal as skill, a Gini
    coefficient of .3 to .45 among households. An even spread of the share makes the days it lasts Pareto, cut at 6 400.
    """
    even = ((np.uint64(household) * np.uint64(2_246_822_519)) & np.uint64(0xFFFFFFFF)) >> np.uint64(16)
    return CASH_SHARE_LEAST + float(np.int64(even)) * CASH_SHARE_STEP


@kernel
def _budget(first: int, cash: I64, income_ema: I32, confidence: Moods, policy: float, budget: F64) -> None:
    """Write what each household wants to spend a day, ucr."""
    for j in range(len(cash)):
        plan = INCOME_WEIGHT * int(income_ema[j]) + float(cash[j]) * cash_share(first + j)
        budget[j] = plan * (CONFIDENCE_BASE + int(confidence[j]) * CONFIDENCE_SLOPE) * policy


@kernel
def _order_goods(
    first: int,
    market: int,
    budget: F64,
    draws: U32,
    subsistence_cost: int,
    subsistence_lots: int,
    lots_per_ucr: float,
    quantity: I32,
) -> None:
    """Write the lots of one visit: subsistence, then a share of what is left (Stone-Geary with CES shares).

    lots_per_ucr: share of a visit / price, for a taste of 1/256.
    """
    needed, least, most = float(subsistence_cost), float(subsistence_lots), float(LOTS_MAX)
    poor_share = least * (1.0 / (needed + 1.0))
    seed = np.uint64(0x9E3779B9) * np.uint64(market)
    for j in range(len(quantity)):
        taste = 192 + bits(mix32(np.uint64(97) * np.uint64(first + j) + seed), 0, 7)
        rest = budget[j] - needed
        rich = least + (rest * taste) * lots_per_ucr
        poor = budget[j] * poor_share
        wanted = (rich if rest >= 0.0 else poor) + bits(draws[j], 3, 8) * (1.0 / 256.0)
        quantity[j] = int(min(wanted, most))


@kernel
def _keep_affordable(cash: I64, highest_price: int, quantity: I32) -> None:
    """Cut quantities to what the cash pays at the highest price a bid may have."""
    too_dear = 0
    for j in range(len(quantity)):
        too_dear += int(quantity[j]) * highest_price > cash[j]
    if too_dear == 0:  # nearly always: the loop above vectorises, a division does not
        return
    for j in range(len(quantity)):
        if int(quantity[j]) * highest_price > cash[j]:
            quantity[j] = cash[j] // highest_price


@kernel
def _limit_goods(draws: U32, mean: int, lowest: int, highest: int, limit: I32) -> None:
    """Write the limits: around what the household remembers to have paid."""
    for j in range(len(limit)):
        noise = (normal_units(draws[j]) * 830) >> 11
        limit[j] = min(max(mean + noise, lowest), highest)
