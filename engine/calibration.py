"""The calibrated start: quantities solved so that goods sell at 1 credit, wages are 20 credits an hour, 5 % of the
households are unemployed and every flow repeats.

The start is the same bits on every machine: draws come from the counter generator at tick 0, powers and exponentials
are our own, sums over residents are integer sums or loops in id order, and the input-output system has no cycles, so
it is solved by substitution. Whatever ECONOMY A16 leaves open is decided here:
skills are dealt for any number of households (also beyond 500,000); G is scaled by its own mean; holdings that share
a total are cut by cumulative rounding, so that the total is met exactly; fractions of a lot and of a ucr are dropped.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numba import njit
from numpy.typing import NDArray

from engine.arithmetic import exponential, half_even, power_of
from engine.config import Config
from engine.ladder import LAST_LEVEL, UCR, level_above
from engine.layout import EXTRACTOR, FIRM, HOUSEHOLD, TRADER
from engine.markets import (
    CONSOL,
    FINAL,
    FINITE,
    GOOD_FIRST,
    GOOD_LAST,
    HOURS,
    ID,
    IMPORTANCE,
    INPUT_1,
    INPUT_2,
    LABOUR,
    MARKETS,
    RAW_FIRST,
    RAW_LAST,
    RESOURCES,
    SECTOR,
    SHARE_FIRST,
    SHARE_LAST,
    SHOPPING_HOURS,
    VISITS,
    WAGE_SPREAD_BP,
    YEAR,
)
from engine.phases import indicators, psychology
from engine.phases._households import cash_share
from engine.resources import HOURS_SCARCITY, measure_resources, price_multiplier
from engine.rng import draw, key, normal, seed_bytes
from engine.state import (
    BANK,
    BENEFIT,
    BENEFIT_DAY,
    CENTRAL_BANK,
    CONFIDENCE,
    CONSUMPTION_NOMINAL,
    CONSUMPTION_REAL,
    CPI,
    DEBT_DAYS,
    DEBT_DAYS_Q8,
    EQUITY_BASE,
    EQUITY_INDEX,
    EXPECTED_INFLATION,
    EXPECTED_STEP_Q8,
    F64,
    FEAR,
    FUND_RATE,
    GDP_NOMINAL_LAST,
    GREED,
    I8,
    I32,
    I64,
    INFLATION_FORMULA,
    INFLATION_QUARTERLY,
    INFLATION_TREND,
    INFLATION_YEARLY,
    LOAN_RATE_Q32,
    LOANS,
    MEMORY,
    MONEY_GROWTH,
    MONEY_LAST,
    POLICY_RATE,
    POTENTIAL,
    PPI,
    RHO,
    RHO_Q16,
    SENTIMENT,
    SUBSISTENCE,
    TAX_DAY,
    TERM_BASE,
    TOTAL_SKILL,
    TRANSFER,
    TRANSFER_UCR,
    TREASURY,
    UNEMPLOYMENT,
    VELOCITY,
    VM_Q8,
    VOLATILITY_MULTIPLIER,
    WAGE,
    WAGE_LEVEL,
    WAGE_REFERENCE,
    WAGE_STEP,
    WAGE_STEP_Q8,
    State,
)

STREAM_SKILL, STREAM_SHUFFLE, STREAM_CASH, STREAM_SHARES, STREAM_TRADERS, STREAM_FIRMS, STREAM_ASKS = range(60, 67)
"""Streams of the start, all at tick 0, index = agent id."""

WAGE_CREDITS = 20
UNEMPLOYED = 0.05
INPUT_SHARE_1, INPUT_SHARE_2 = 0.2, 0.1
MARKUP = 1.1
SCARCITY_FINITE, SCARCITY_OTHER = 0.15, 0.3
DAILY_USE = 0.0006
"""Initial daily use of a resource as a fraction of its base reserves."""
RATE, LOAN_RATE, TAX, BENEFIT_SHARE, DEBT_TARGET_DAYS = 0.04, 0.07, 0.2, 0.4, 20
SHARE_YIELD, CONSOL_YIELD = 0.07, 0.06
COUPON = 694
"""ucr a lot and tick: int(10^8 x .06 / 8 640)."""
PAYOUT_TICKS = 240
"""Ticks of income that a sector pool holds."""
INCOME_WEIGHT = 0.703125
SUBSISTENCE_LOTS = {"food": 2, "energy": 1, "housing": 1, "transport": 1, "healthcare": 1, "clothing": 1}
START_VM_Q8 = 280
START_FUNDAMENTALISTS = 0.7
START_SENTIMENT, START_UNREST, START_CONFIDENCE = 16_384, 1_500, 24_000


def calibrate(state: State, config: Config, seed: int | bytes) -> None:
    """Fill a new state (every array zero) with the calibrated start before tick 0.

    Source: ECONOMY A16.
    """
    seed = seed_bytes(seed)
    _set_technology(state)
    total_skill = _set_skills(state, seed)
    consumption = (1.0 - UNEMPLOYED) * total_skill / hours_per_consumed_lot(state.base_hours)
    output = gross_output() * consumption
    _set_prices(state, output)
    _set_households(state, seed, consumption, total_skill)
    _set_producers(state, seed, output)
    _set_assets(state, seed, output)
    _set_minds(state)
    _set_macro(state, consumption, total_skill)
    _set_ledger(state, consumption)
    refresh(state, config)
    indicators.measure_wealth(state)


def refresh(state: State, config: Config) -> None:
    """Rebuild the scratch that follows from the persistent arrays: counts, moods, scarcity, volatility.

    What one auction leaves (volume, depth, surplus) stays zero until the next tick.
    """
    state.best_bid[:] = -1
    state.best_ask[:] = -1
    state.indicative[:] = state.price
    psychology.count_minds(state)
    psychology.measure(state, config)
    measure_resources(state)
    indicators.measure(state)


def gross_output() -> F64:
    """Return x = (I - A)^-1 s, shape (32,): lots produced per lot of household consumption, inputs included.

    A[input, good] = .2 for the first and .1 for the second input; s = visits / 22. Source: ECONOMY A16.
    """
    output = np.full(MARKETS, -1.0)
    for market in range(MARKETS):
        _substitute(market, output)
    return output


def hours_per_consumed_lot(base_hours: F64) -> float:
    """Return ell: hours of labour that one lot of household consumption needs, inputs included."""
    output = gross_output()
    total = 0.0
    for m in range(RAW_FIRST, GOOD_LAST + 1):
        total += base_hours[m] * (1.0 + HOURS_SCARCITY * start_scarcity(m)) * output[m]
    return total


def start_scarcity(market: int) -> float:
    """Return the scarcity of a market's resource at the start, 0 for what is not a resource."""
    if not RAW_FIRST <= market <= RAW_LAST:
        return 0.0
    return SCARCITY_FINITE if market in FINITE else SCARCITY_OTHER


def _substitute(market: int, output: F64) -> float:
    if output[market] < 0.0:
        total = VISITS[market] / SHOPPING_HOURS
        for good in range(GOOD_FIRST, GOOD_LAST + 1):
            if INPUT_1[good] == market:
                total += INPUT_SHARE_1 * _substitute(good, output)
            if INPUT_2[good] == market:
                total += INPUT_SHARE_2 * _substitute(good, output)
        output[market] = total
    return float(output[market])


def _set_technology(state: State) -> None:
    for m in range(RAW_FIRST, GOOD_LAST + 1):
        scarcity = start_scarcity(m)
        if m <= RAW_LAST:
            rent = price_multiplier(scarcity, IMPORTANCE[m - RAW_FIRST])
            state.base_hours[m] = 1.0 / MARKUP / WAGE_CREDITS / (rent * (1.0 + HOURS_SCARCITY * scarcity))
        else:
            state.base_hours[m] = (1.0 / MARKUP - INPUT_SHARE_1 - INPUT_SHARE_2) / WAGE_CREDITS
            state.input1_q16[m] = int(INPUT_SHARE_1 * 65536)
            state.input2_q16[m] = int(INPUT_SHARE_2 * 65536)
        state.hours_q16[m] = half_even(state.base_hours[m] * (1.0 + HOURS_SCARCITY * scarcity) * 65536.0)
        state.unit_cost[m] = int(UCR / MARKUP)
        state.cost_level[m] = level_above(state.ladder, state.unit_cost[m])
    for name in FINAL:
        state.visit_share_q16[ID[name]] = 65536 // SHOPPING_HOURS
        state.subsistence[ID[name]] = SUBSISTENCE_LOTS.get(name, 0)


def _set_prices(state: State, output: F64) -> None:
    """Set what markets begin with; shares and the consol get their prices with their dividends."""
    state.level[: GOOD_LAST + 1] = level_above(state.ladder, UCR)
    state.level[LABOUR] = level_above(state.ladder, WAGE_CREDITS * UCR)
    state.price[: GOOD_LAST + 1] = state.ladder[state.level[: GOOD_LAST + 1]]
    state.elasticity[:] = 0.2
    state.fundamentalists[:] = START_FUNDAMENTALISTS
    state.chartists_q16[:] = int((1.0 - START_FUNDAMENTALISTS) * 65536.0)
    state.vm_q8[:] = START_VM_Q8
    state.sigma_q4[:] = (psychology.SHOCK_BASE * 0.8 * 16.0).astype(np.int64)
    state.output_weight[RAW_FIRST : GOOD_LAST + 1] = output[RAW_FIRST : GOOD_LAST + 1]
    base = (output[RAW_FIRST : RAW_LAST + 1] / DAILY_USE).astype(np.int64)
    state.reserves_base[:] = base
    for r in range(RESOURCES):
        state.reserves[r] = int((1.0 - start_scarcity(RAW_FIRST + r)) * base[r])
    state.reserves_initial[:] = state.reserves


def _set_skills(state: State, seed: bytes) -> int:
    """Deal Pareto skills so that the 24 household phases offer equal hours, shuffled within a phase."""
    layout = state.layout
    count = layout.households
    drawn = np.zeros(401, np.int64)
    _draw_skills(count, *_key(seed, STREAM_SKILL), drawn)
    phases = _household_phases(state)
    capacity = np.bincount(phases, minlength=HOURS).astype(np.int64)
    dealt = np.empty(count, np.int32)
    _deal(drawn, capacity, dealt)
    shuffle = np.empty(count, np.uint32)
    _fill_draws(*_key(seed, STREAM_SHUFFLE), shuffle)
    # by phase, within it by draw, ties by id: both sorts are stable
    state.skill[np.lexsort((shuffle, phases))] = dealt
    total = int(state.skill.sum(dtype=np.int64))
    state.counters[TOTAL_SKILL] = total
    return total


def _household_phases(state: State) -> I8:
    layout = state.layout
    blocks = layout.block_type == HOUSEHOLD
    sizes = (layout.block_end - layout.block_start)[blocks]
    return np.repeat(layout.block_phase[blocks], sizes).astype(np.int8)


def _set_households(state: State, seed: bytes, consumption: float, total_skill: int) -> None:
    layout = state.layout
    count = layout.households
    relative = np.empty(count, np.float64)
    _draw_lognormal(0.5, *_key(seed, STREAM_CASH), relative)
    income = consumption * UCR / total_skill
    horizon = np.empty(count, np.float64)
    _fill_horizons(horizon)
    _fill_household_money(state.skill, relative, horizon, income, state.income_ema, state.cash)
    _fill_reserve_wages(int(state.level[LABOUR]), state.reserve_wage)
    holdings = np.empty(count, np.float64)
    _draw_pareto(0, 1.8, 300.0, *_key(seed, STREAM_SHARES), holdings)
    # whoever earns more and is more patient has put more into shares: in the long run wealth is income x horizon
    means = state.skill * horizon
    _scale(means, float(count))
    holdings *= means
    for b in np.flatnonzero(layout.block_type == HOUSEHOLD).tolist():
        start, end = layout.block_start[b], layout.block_end[b]
        lots = 200.0 if layout.block_home[b] == CONSOL else 20.0
        state.shares[start:end] = (lots * holdings[start:end]).astype(np.int32)
    state.employed[:] = 1


def _set_producers(state: State, seed: bytes, output: F64) -> None:
    layout = state.layout
    first, count = layout.producer_first, layout.producers
    weights = np.empty(count, np.float64)
    _draw_pareto(first, 1.8, 50.0, *_key(seed, STREAM_FIRMS), weights)
    weights[layout.firms :] = 1.0
    asks = np.empty(count, np.uint32)
    _fill_draws(*_key(seed, STREAM_ASKS), asks, first)
    producing = np.isin(layout.block_type, (FIRM, EXTRACTOR))
    blocks_of = np.bincount(layout.block_home[producing], minlength=MARKETS)
    for b in np.flatnonzero(producing).tolist():
        home = int(layout.block_home[b])
        start, end = int(layout.block_start[b]) - first, int(layout.block_end[b]) - first
        _scale(weights[start:end], float(output[home]) / float(blocks_of[home]))
    sales = weights
    state.out[:] = (4.0 * sales).astype(np.int32)
    state.in1[: layout.firms] = (0.8 * sales[: layout.firms]).astype(np.int32)
    state.in2[: layout.firms] = (0.4 * sales[: layout.firms]).astype(np.int32)
    state.sales_ema[:] = np.maximum(16, (16.0 * sales).astype(np.int64))
    state.ask[:] = int(state.level[GOOD_FIRST]) - 100 + ((asks.astype(np.int64) * 200) >> 32)
    state.cash[first : first + count] = (3.0 * UCR * sales).astype(np.int64)
    state.debt[:] = (DEBT_TARGET_DAYS * UCR * sales).astype(np.int64)
    for b in np.flatnonzero(producing).tolist():
        home = int(layout.block_home[b])
        rows = slice(int(layout.block_start[b]) - first, int(layout.block_end[b]) - first)
        state.goods_initial[home] += int(state.out[rows].sum(dtype=np.int64))
        if INPUT_1[home] >= 0:
            state.goods_initial[INPUT_1[home]] += int(state.in1[rows].sum(dtype=np.int64))
            state.goods_initial[INPUT_2[home]] += int(state.in2[rows].sum(dtype=np.int64))


def sector_profits(output: F64, base_hours: F64) -> list[float]:
    """Return the profit a day of the seven sectors, credits: revenue less wages and inputs, less interest.

    The last, the bank's, is the interest the other six pay on their debts.
    """
    profits = [0.0] * 7
    revenue = 0.0
    for m in range(RAW_FIRST, GOOD_LAST + 1):
        hours = base_hours[m] * (1.0 + HOURS_SCARCITY * start_scarcity(m))
        inputs = INPUT_SHARE_1 + INPUT_SHARE_2 if m >= GOOD_FIRST else 0.0
        profits[SECTOR[m]] += float(output[m]) * (1.0 - WAGE_CREDITS * hours - inputs)
        revenue += float(output[m])
    gross = 0.0
    for profit in profits:
        gross += profit
    interest = DEBT_TARGET_DAYS * revenue * LOAN_RATE / 360.0
    net = [profit * (1.0 - interest / gross) for profit in profits]
    net[6] = interest
    return net


def _set_assets(state: State, seed: bytes, output: F64) -> None:
    """Give traders their inventories and cash, and shares and the consol their dividends, pools and prices."""
    layout = state.layout
    first = layout.trader_first
    weights = np.empty(layout.traders, np.float64)
    _draw_pareto(first, 1.5, 200.0, *_key(seed, STREAM_TRADERS), weights)
    profits = sector_profits(output, state.base_hours)
    held, cash = _household_assets(state)
    for m in (*range(RAW_FIRST, RAW_LAST + 1), *range(SHARE_FIRST, CONSOL + 1)):
        rows = _trader_rows(state, m)
        if m <= RAW_LAST:
            total, share = int(30.0 * output[m]), 1.0
        else:
            total, share = held[m] // 2, 0.75
        _cut(total, weights[rows], state.inventory[rows])
        state.goods_initial[m] += total
        if m >= SHARE_FIRST:
            state.shares_out[m] = held[m] + total
            state.goods_initial[m] += held[m]
            _set_dividend(state, m, profits)
            value = held[m] * int(state.price[m])
            state.base_share_q15[m] = int(32768.0 * value / (value + cash[m]))
        values = state.inventory[rows] * state.price[m]
        state.cash[first + rows.start : first + rows.stop] = (share * values).astype(np.int64)
    state.slow_level[:] = state.level
    state.fundamental[:] = state.level


def _set_dividend(state: State, market: int, profits: list[float]) -> None:
    shares_out = int(state.shares_out[market])
    if market == CONSOL:
        income, income_yield = COUPON, CONSOL_YIELD
    else:
        pool = market - SHARE_FIRST
        income, income_yield = int(profits[pool] * UCR / HOURS / shares_out), SHARE_YIELD
        state.pools[pool] = PAYOUT_TICKS * income * shares_out
    state.income_per_lot[market] = income
    state.dividend_ema[market] = YEAR * income
    level = min(LAST_LEVEL, level_above(state.ladder, ceil(YEAR * income / income_yield)))
    state.level[market] = level
    state.price[market] = state.ladder[level]


def _household_assets(state: State) -> tuple[list[int], list[int]]:
    """Return lots and cash of the households of each home asset, by market."""
    layout = state.layout
    held, cash = [0] * MARKETS, [0] * MARKETS
    for b in np.flatnonzero(layout.block_type == HOUSEHOLD).tolist():
        home, rows = int(layout.block_home[b]), slice(int(layout.block_start[b]), int(layout.block_end[b]))
        held[home] += int(state.shares[rows].sum(dtype=np.int64))
        cash[home] += int(state.cash[rows].sum())
    return held, cash


def _trader_rows(state: State, market: int) -> slice:
    """Return the rows of the trader arrays whose home is the market."""
    layout = state.layout
    mine = np.flatnonzero((layout.block_type == TRADER) & (layout.block_home == market))
    return slice(
        int(layout.block_start[mine[0]]) - layout.trader_first, int(layout.block_end[mine[-1]]) - layout.trader_first
    )


def _set_minds(state: State) -> None:
    state.sentiment[:] = START_SENTIMENT
    state.memory[:] = START_SENTIMENT
    state.fear[:] = START_UNREST
    state.greed[:] = START_UNREST
    state.confidence[:] = START_CONFIDENCE
    # A8 at z = 0 and u = .05
    fear_mean = START_UNREST / 32768.0
    state.target_sentiment[:] = int(32_700 * 0.5)
    state.target_fear[:] = int(32_700 * 0.04)
    state.target_greed[:] = int(32_700 * 0.04 * 0.8)
    state.target_confidence[:] = int(32_700 * (0.75 - 0.3 * fear_mean))


def _set_macro(state: State, consumption: float, total_skill: int) -> None:
    macro, counters = state.macro, state.counters
    wages = (1.0 - UNEMPLOYED) * total_skill * WAGE_CREDITS * UCR
    tax = TAX * wages
    benefits = UNEMPLOYED * total_skill * WAGE_CREDITS * UCR * BENEFIT_SHARE
    coupons = float(HOURS * COUPON * int(state.shares_out[CONSOL]))
    transfer = max(0.0, (tax - benefits - coupons) / state.layout.households)
    equity = 0.0
    for m in range(SHARE_FIRST, SHARE_LAST + 1):
        equity += float(state.price[m]) * float(state.shares_out[m])
    macro[POLICY_RATE] = RATE
    for rate in (EXPECTED_INFLATION, INFLATION_QUARTERLY, INFLATION_YEARLY, INFLATION_TREND, MONEY_GROWTH):
        macro[rate] = 0.02
    # at the start nothing but the base term of the formula is at work
    macro[INFLATION_FORMULA] = macro[TERM_BASE] = 0.02
    macro[UNEMPLOYMENT] = UNEMPLOYED
    macro[CPI] = macro[PPI] = 1.0
    for total in (CONSUMPTION_NOMINAL, CONSUMPTION_REAL, POTENTIAL, GDP_NOMINAL_LAST):
        macro[total] = consumption * UCR
    macro[SENTIMENT] = macro[MEMORY] = START_SENTIMENT / 32768.0
    macro[FEAR] = macro[GREED] = START_UNREST / 32768.0
    macro[CONFIDENCE] = START_CONFIDENCE / 32768.0
    macro[VOLATILITY_MULTIPLIER] = START_VM_Q8 / 256.0
    macro[WAGE_LEVEL] = float(state.level[LABOUR])
    macro[WAGE_STEP] = 2.0
    macro[TAX_DAY], macro[BENEFIT_DAY], macro[TRANSFER] = tax, benefits, transfer
    macro[RHO] = 1.0
    macro[DEBT_DAYS] = float(DEBT_TARGET_DAYS)
    macro[EQUITY_BASE] = equity
    macro[EQUITY_INDEX] = 100.0

    counters[WAGE_REFERENCE] = state.level[LABOUR]
    counters[WAGE] = state.price[LABOUR]
    counters[BENEFIT] = int(BENEFIT_SHARE * WAGE_CREDITS * UCR)
    counters[SUBSISTENCE] = UCR * sum(VISITS[ID[name]] * lots for name, lots in SUBSISTENCE_LOTS.items())
    counters[FUND_RATE] = 0
    counters[LOAN_RATE_Q32] = int(LOAN_RATE / 360.0 * 4294967296.0)
    counters[RHO_Q16] = 65536
    counters[DEBT_DAYS_Q8] = DEBT_TARGET_DAYS * 256
    counters[WAGE_STEP_Q8] = 2 * 256
    counters[EXPECTED_STEP_Q8] = int(10_000.0 * 0.02 / 360.0 * 256.0)
    counters[TRANSFER_UCR] = int(transfer)
    counters[VM_Q8] = START_VM_Q8


def _set_ledger(state: State, consumption: float) -> None:
    debts = int(state.debt.sum())
    money = int(state.cash.sum()) + int(state.pools.sum())
    state.ledger[TREASURY] = 0
    state.ledger[BANK] = -debts
    state.ledger[CENTRAL_BANK] = debts - money
    state.ledger[LOANS] = debts
    state.macro[MONEY_LAST] = float(money)
    state.macro[VELOCITY] = 360.0 * consumption * UCR / money


def _key(seed: bytes, stream: int) -> tuple[np.uint32, np.uint32]:
    k0, k1 = key(seed, 0, stream)
    return np.uint32(k0), np.uint32(k1)


@njit(cache=True, nogil=True, error_model="numpy")
def _draw_skills(count: int, k0: np.uint32, k1: np.uint32, drawn: I64) -> None:
    """Count the skills round_half_even(4.5 U^(-1/2.2)), cut to 3..400, of so many households."""
    for i in range(count):
        h = draw(i, k0, k1)
        skill = 400
        if h != 0:
            value = 4.5 * power_of(float(h) / 4294967296.0, -1.0 / 2.2)
            skill = min(400, max(3, half_even(min(value, 1000.0))))
        drawn[skill] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _deal(drawn: I64, capacity: I64, dealt: I32) -> None:
    """Deal the counted skills, largest first, in rounds: the largest of a round to the phase with the smallest total.

    dealt holds the phases one after another, each in the order dealt. Full phases are left out; ties go to the lower
    phase.
    """
    hours = len(capacity)
    position = np.zeros(hours, np.int64)
    border = np.zeros(hours, np.int64)
    total = np.zeros(hours, np.int64)
    order = np.zeros(hours, np.int64)
    for k in range(1, hours):
        position[k] = position[k - 1] + capacity[k - 1]
    for k in range(hours):
        border[k] = position[k] + capacity[k]
        order[k] = k
    turn = hours
    skill = len(drawn) - 1
    left = drawn[skill]
    for _ in range(len(dealt)):
        while left == 0:
            skill -= 1
            left = drawn[skill]
        while turn < hours and position[order[turn]] == border[order[turn]]:
            turn += 1
        if turn == hours:
            _sort_by_total(total, order)
            turn = 0
            while position[order[turn]] == border[order[turn]]:
                turn += 1
        phase = order[turn]
        dealt[position[phase]] = skill
        position[phase] += 1
        total[phase] += skill
        left -= 1
        turn += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _sort_by_total(total: I64, order: I64) -> None:
    for i in range(1, len(order)):
        k = order[i]
        j = i - 1
        while j >= 0 and (total[order[j]] > total[k] or (total[order[j]] == total[k] and order[j] > k)):
            order[j + 1] = order[j]
            j -= 1
        order[j + 1] = k


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_draws(k0: np.uint32, k1: np.uint32, out: NDArray[np.uint32], first: int = 0) -> None:
    for i in range(len(out)):
        out[i] = draw(first + i, k0, k1)


@njit(cache=True, nogil=True, error_model="numpy")
def _draw_lognormal(sd: float, k0: np.uint32, k1: np.uint32, out: F64) -> None:
    """Fill out with exp(sd z), scaled so that its mean is 1."""
    total = 0.0
    for i in range(len(out)):
        out[i] = exponential(sd * normal(draw(i, k0, k1)))
        total += out[i]
    scale = len(out) / total
    for i in range(len(out)):
        out[i] *= scale


@njit(cache=True, nogil=True, error_model="numpy")
def _draw_pareto(first: int, alpha: float, cut: float, k0: np.uint32, k1: np.uint32, out: F64) -> None:
    """Fill out with (1 - U)^(-1/alpha), cut from above, for ids from first on."""
    for i in range(len(out)):
        rest = 1.0 - float(draw(first + i, k0, k1)) / 4294967296.0
        out[i] = min(cut, power_of(rest, -1.0 / alpha))


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_horizons(out: F64) -> None:
    """Write in how many days each household would spend its cash, income aside."""
    for i in range(len(out)):
        out[i] = 1.0 / cash_share(i)


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_household_money(
    skill: I32, relative: F64, horizon: F64, income_per_hour: float, income_ema: I32, cash: I64
) -> None:
    for i in range(len(skill)):
        income = income_per_hour * skill[i]
        income_ema[i] = int(income / 1000.0)
        cash[i] = int(income * (1.0 - INCOME_WEIGHT) * horizon[i] * relative[i])


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_reserve_wages(wage_level: int, out: I32) -> None:
    for i in range(len(out)):
        offset = ((2_654_435_761 * i) >> 7) % 1024 - 512
        out[i] = wage_level + offset - WAGE_SPREAD_BP


@njit(cache=True, nogil=True, error_model="numpy")
def _scale(values: F64, total: float) -> None:
    """Scale values in place so that they sum to total."""
    mass = 0.0
    for i in range(len(values)):
        mass += values[i]
    factor = total / mass
    for i in range(len(values)):
        values[i] *= factor


@njit(cache=True, nogil=True, error_model="numpy")
def _cut(total: int, weights: F64, out: I64) -> None:
    """Cut a total into whole parts in proportion to weights by cumulative rounding; the parts sum to total."""
    mass = 0.0
    for i in range(len(weights)):
        mass += weights[i]
    running = 0.0
    given = 0
    for i in range(len(weights)):
        running += weights[i]
        upto = total if i == len(weights) - 1 else int(total * (running / mass))
        out[i] = upto - given
        given = upto
