"""Phase 4: the ledger of money every tick, and monetary policy once a day.

Ledger: residents, outside agents (free and escrow), eight pools, treasury, bank, central bank. Their sum is zero at
every tick, so the money supply M is minus the sum of the last three. Only here are the last three changed, from the
flows the other phases left.
Growth rates are annual. "Central-bank purchases through the auction" are not used: easing acts by the transfer.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numba import njit

from engine.config import Config
from engine.errors import InvariantBroken
from engine.markets import (
    CONSOL,
    FUND_POOL,
    GOOD_FIRST,
    GOOD_LAST,
    HOURS,
    INPUT_1,
    INPUT_2,
    MARKETS,
    RAW_FIRST,
    SECTOR,
    SHARE_FIRST,
    SHARE_LAST,
    SHOPPING_HOURS,
    VISITS,
)
from engine.state import (
    BANK,
    BENEFIT,
    BENEFIT_DAY,
    CENTRAL_BANK,
    CONSUMPTION_NOMINAL,
    CONSUMPTION_REAL,
    CPI,
    DAY,
    DAY_BENEFIT,
    DAY_COUPON,
    DAY_CPI,
    DAY_EMPLOYED,
    DAY_MONEY,
    DAY_NOMINAL,
    DAY_REAL,
    DAY_TAX,
    DAY_UNEMPLOYED,
    DAYS_KEPT,
    DEBT_DAYS,
    DEBT_DAYS_Q8,
    EASING,
    EXPECTED_INFLATION,
    EXPECTED_STEP_Q8,
    F64,
    FEAR,
    FLOW_ADVANCE_BACK,
    FLOW_ADVANCE_PAID,
    FLOW_BENEFIT,
    FLOW_EMPLOYED,
    FLOW_ESTATE_INCOME,
    FLOW_ESTATE_SOLD,
    FLOW_FUND_INCOME,
    FLOW_FUND_PAID,
    FLOW_INTEREST,
    FLOW_LOANS_NEW,
    FLOW_LOANS_REPAID,
    FLOW_NOMINAL,
    FLOW_OUTSIDE_INTEREST,
    FLOW_OUTSIDE_LOANS_NEW,
    FLOW_OUTSIDE_REPAID,
    FLOW_OUTSIDE_WRITTEN_OFF,
    FLOW_REAL,
    FLOW_TAX,
    FLOW_TRANSFER,
    FLOW_UNEMPLOYED,
    FLOW_WRITTEN_OFF,
    FUND_RATE,
    GAP,
    GDP_NOMINAL_LAST,
    GREED,
    I64,
    INFLATION_FORMULA,
    INFLATION_QUARTERLY,
    INFLATION_TREND,
    INFLATION_YEARLY,
    LOAN_RATE_Q32,
    LOANS,
    MONEY_GROWTH,
    MONEY_LAST,
    POLICY_RATE,
    POTENTIAL,
    RHO,
    RHO_Q16,
    SENTIMENT,
    SUBSISTENCE,
    TAX_DAY,
    TERM_BASE,
    TERM_BEHAVIOUR,
    TERM_DEMAND,
    TERM_MONEY,
    TERM_VELOCITY,
    TIGHTENING,
    TOTAL_SKILL,
    TRANSFER,
    TRANSFER_UCR,
    TREASURY,
    TURN_EASING,
    TURN_TIGHTENING,
    UNEMPLOYMENT,
    VELOCITY,
    VELOCITY_CHANGE,
    WAGE,
    State,
)

WRITES = (
    "pools",
    "ledger",
    "income_per_lot",
    "macro",
    "counters",
    "days",
    "visit_share_q16",
    "input1_q16",
    "input2_q16",
    "turns",
)

BANK_HOUR = 5
"""tick mod 24 at which the bank pays out 1/30 of its equity."""
BANK_PAYOUT = 30
PAYOUT_TICKS = 240
"""A share's income per tick is this part of its sector's pool."""
QUARTER_DAYS, YEAR_DAYS = 90, 360
WEIGHT_MONEY, WEIGHT_VELOCITY, WEIGHT_DEMAND, WEIGHT_BEHAVIOUR = 0.25, 0.1, 0.3, 0.02
REAL_RATE, NATURAL_UNEMPLOYMENT = 0.02, 0.05
TAYLOR_INFLATION, TAYLOR_OKUN, RATE_SMOOTHING = 0.5, 1.0, 0.03
"""A trend of 40 days and smoothing .03 a day are stable; on yearly inflation the rule oscillates (ECONOMY D)."""
TIGHTENING_ABOVE, EASING_RATE = 0.10, 0.012
RHO_SLOPE, RHO_LOW, RHO_HIGH = 1.5, 0.82, 1.08
DEBT_TARGET_DAYS, CREDIT_SLOPE, DEBT_DAYS_LOW = 20.0, 4.0, 4.0
LOAN_MARGIN = 0.03
EASING_MONEY, TIGHTENING_MONEY, STABILISER = 0.03, 0.06, 0.6
INPUT_BASE_1, INPUT_BASE_2 = 13_107, 6_553
"""Input lots a lot at base prices, .2 and .1 in Q16."""
INPUT_LOW, INPUT_HIGH, INPUT_SPEED = 0.25, 1.5, 20.0
IDENTITY_ERROR = 1e-12

_SECTOR, _VISITS = np.array(SECTOR), np.array(VISITS)
_INPUT_1, _INPUT_2 = np.array(INPUT_1), np.array(INPUT_2)


def step(state: State, config: Config) -> None:
    """Book the tick's flows, pay out for the next tick, add to the day's sums; at day end measure and steer.

    Raises InvariantBroken when M V = P Y fails. Source: specification 004, Monetary System; ECONOMY A9, A17 phase 4.
    """
    _book(
        state.tick % HOURS == BANK_HOUR,
        state.flows,
        state.dividends,
        state.price,
        state.shares_out,
        state.income_per_lot,
        state.pools,
        state.ledger,
        state.macro,
        state.counters,
    )
    state.turns[TURN_TIGHTENING] = 0
    state.turns[TURN_EASING] = 0
    if state.tick % HOURS == HOURS - 1:
        _end_day(
            state.layout.households,
            config.base_inflation_rate,
            config.policy_active,
            state.price,
            state.subsistence,
            state.days,
            state.visit_share_q16,
            state.input1_q16,
            state.input2_q16,
            state.turns,
            state.macro,
            state.counters,
        )
        check_quantity_identity(state)


def check_quantity_identity(state: State) -> None:
    """Raise InvariantBroken unless M V = P Y within 1e-12 for the last whole day. Source: ECONOMY A9.2, A14.10."""
    macro = state.macro
    spent = float(macro[GDP_NOMINAL_LAST])
    left = float(macro[MONEY_LAST]) * float(macro[VELOCITY])
    if abs(left - YEAR_DAYS * spent) > IDENTITY_ERROR * max(left, 1.0):
        raise InvariantBroken(f"M V = {left} differs from P Y = {YEAR_DAYS * spent} on day {state.counters[DAY] - 1}")


@njit(cache=True, nogil=True, error_model="numpy")
def velocity_of_money(nominal_day: float, money: float) -> float:
    """Return V = P Y / M a year: 360 x the day's nominal consumption / money supply. Source: specification 004."""
    return YEAR_DAYS * nominal_day / money


@njit(cache=True, nogil=True, error_model="numpy")
def inflation_formula(
    base: float,
    money_growth: float,
    velocity_change: float,
    gap: float,
    greed: float,
    fear: float,
    sentiment: float,
) -> tuple[float, float, float, float, float]:
    """Return the five terms of the inflation formula: base, money, velocity, demand pressure, behaviour.

    base: base inflation a year, also the neutral money growth. The formula's inflation is their sum.
    Source: specification 004, Monetary System, inflation rate; ECONOMY A9.3.
    """
    return (
        base,
        WEIGHT_MONEY * (money_growth - base),
        WEIGHT_VELOCITY * velocity_change,
        WEIGHT_DEMAND * gap,
        WEIGHT_BEHAVIOUR * (greed - fear) + WEIGHT_BEHAVIOUR * (sentiment - 0.5),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def taylor_rule(inflation: float, target: float, unemployment: float) -> float:
    """Return the interest rate the central bank aims at, in [0, .5] a year.

    .02 + pi + .5 (pi - target) + .5 x 2 (.05 - u), and above 10 % inflation .5 (pi - .10) more: automatic tightening.
    Source: specification 004, Monetary System; ECONOMY A9.5; Taylor 1993, with Okun's 2 for the output gap.
    """
    rate = (
        REAL_RATE
        + inflation
        + TAYLOR_INFLATION * (inflation - target)
        + TAYLOR_OKUN * (NATURAL_UNEMPLOYMENT - unemployment)
    )
    if inflation > TIGHTENING_ABOVE:
        rate += 0.5 * (inflation - TIGHTENING_ABOVE)
    return min(0.5, max(0.0, rate))


@njit(cache=True, nogil=True, error_model="numpy")
def consumption_factor(rate: float, expected_inflation: float) -> float:
    """Return rho = 1 - 1.5 (i - expected inflation - .02), in [.82, 1.08]. Source: ECONOMY A9.6."""
    return min(RHO_HIGH, max(RHO_LOW, 1.0 - RHO_SLOPE * (rate - expected_inflation - REAL_RATE)))


@njit(cache=True, nogil=True, error_model="numpy")
def debt_target_days(rate: float, tightening: bool) -> float:
    """Return how many days of revenue producers owe: 20 (1 - 4 (i - .04)), halved while tightening, at least 4."""
    days = DEBT_TARGET_DAYS * (1.0 - CREDIT_SLOPE * (rate - 0.04))
    if tightening:
        days *= 0.5
    return max(DEBT_DAYS_LOW, days)


@njit(cache=True, nogil=True, error_model="numpy")
def input_coefficient(coefficient: int, base: int, relative_price: float) -> int:
    """Return the next input lots a lot (Q16): 1/20 of the way to base / sqrt(relative price), the factor in [.25, 1.5].

    relative_price: of the input, in base prices x CPI, taken as at least .01. CES production with elasticity 1/2.
    Source: ECONOMY A7.
    """
    factor = min(INPUT_HIGH, max(INPUT_LOW, 1.0 / sqrt(max(0.01, relative_price))))
    return coefficient + int((base * factor - coefficient) / INPUT_SPEED)


@njit(cache=True, nogil=True, error_model="numpy")
def _book(
    bank_pays: bool,
    flows: I64,
    dividends: I64,
    price: I64,
    shares_out: I64,
    income_per_lot: I64,
    pools: I64,
    ledger: I64,
    macro: F64,
    counters: I64,
) -> None:
    for m in range(RAW_FIRST, GOOD_LAST + 1):
        pools[_SECTOR[m]] += dividends[m]
    for m in range(SHARE_FIRST, SHARE_LAST + 1):
        pools[m - SHARE_FIRST] -= income_per_lot[m] * shares_out[m]
    pools[FUND_POOL] += flows[FLOW_FUND_INCOME] - flows[FLOW_FUND_PAID]
    coupon = income_per_lot[CONSOL] * shares_out[CONSOL]
    ledger[TREASURY] += (
        flows[FLOW_TAX] - flows[FLOW_BENEFIT] - flows[FLOW_TRANSFER] - coupon
        + flows[FLOW_ADVANCE_BACK] - flows[FLOW_ADVANCE_PAID] + flows[FLOW_ESTATE_SOLD] + flows[FLOW_ESTATE_INCOME]
    )  # fmt: skip
    lent = flows[FLOW_LOANS_NEW] + flows[FLOW_OUTSIDE_LOANS_NEW]
    repaid = flows[FLOW_LOANS_REPAID] + flows[FLOW_OUTSIDE_REPAID]
    ledger[BANK] += repaid + flows[FLOW_INTEREST] + flows[FLOW_OUTSIDE_INTEREST] - lent
    ledger[LOANS] += lent - repaid - flows[FLOW_WRITTEN_OFF] - flows[FLOW_OUTSIDE_WRITTEN_OFF]
    equity = ledger[BANK] + ledger[LOANS]
    if bank_pays and equity > 0:
        ledger[BANK] -= equity // BANK_PAYOUT
        pools[SHARE_LAST - SHARE_FIRST] += equity // BANK_PAYOUT

    for m in range(SHARE_FIRST, SHARE_LAST + 1):
        income_per_lot[m] = pools[m - SHARE_FIRST] // (PAYOUT_TICKS * shares_out[m])
    counters[FUND_RATE] = max(0, pools[FUND_POOL] // counters[TOTAL_SKILL])

    cpi = 0.0
    for m in range(GOOD_FIRST, GOOD_LAST + 1):
        cpi += _VISITS[m] / SHOPPING_HOURS * (price[m] / 1e6)
    macro[CPI] = cpi
    macro[DAY_CPI] += cpi
    macro[DAY_MONEY] += -float(ledger[TREASURY] + ledger[BANK] + ledger[CENTRAL_BANK])
    macro[DAY_NOMINAL] += flows[FLOW_NOMINAL]
    macro[DAY_REAL] += flows[FLOW_REAL] * 1e6
    macro[DAY_EMPLOYED] += flows[FLOW_EMPLOYED]
    macro[DAY_UNEMPLOYED] += flows[FLOW_UNEMPLOYED]
    macro[DAY_TAX] += flows[FLOW_TAX]
    macro[DAY_BENEFIT] += flows[FLOW_BENEFIT]
    macro[DAY_COUPON] += coupon


@njit(cache=True, nogil=True, error_model="numpy")
def _end_day(
    households: int,
    base_inflation: float,
    policy_active: bool,
    price: I64,
    subsistence: I64,
    days: F64,
    visit_share_q16: I64,
    input1_q16: I64,
    input2_q16: I64,
    turns: I64,
    macro: F64,
    counters: I64,
) -> None:
    """Run the day end of ECONOMY A9 in its order, then clear the day's sums."""
    money = macro[DAY_MONEY] / HOURS
    _measure_day(money, base_inflation, days, macro, counters)
    _steer(base_inflation, policy_active, turns, macro, counters)
    _set_transfer(money, households, base_inflation, macro, counters)
    _set_baskets(price, subsistence, visit_share_q16, input1_q16, input2_q16, macro, counters)
    for k in range(DAY_CPI, DAY_COUPON + 1):
        macro[k] = 0.0
    counters[DAY] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _measure_day(money: float, base_inflation: float, days: F64, macro: F64, counters: I64) -> None:
    """Steps 1 to 4: unemployment, consumption, growth rates, the formula, expectations, trend."""
    day = counters[DAY]
    counted = macro[DAY_EMPLOYED] + macro[DAY_UNEMPLOYED]
    if counted > 0.0:
        macro[UNEMPLOYMENT] += (macro[DAY_UNEMPLOYED] / counted - macro[UNEMPLOYMENT]) / 4.0
    macro[CONSUMPTION_NOMINAL] += (macro[DAY_NOMINAL] - macro[CONSUMPTION_NOMINAL]) / 10.0
    macro[CONSUMPTION_REAL] += (macro[DAY_REAL] - macro[CONSUMPTION_REAL]) / 10.0
    macro[POTENTIAL] += (macro[CONSUMPTION_REAL] - macro[POTENTIAL]) / 1440.0
    macro[GAP] = macro[CONSUMPTION_REAL] / macro[POTENTIAL] - 1.0

    cpi = macro[DAY_CPI] / HOURS
    macro[GDP_NOMINAL_LAST] = macro[DAY_NOMINAL]
    macro[MONEY_LAST] = money
    macro[VELOCITY] = velocity_of_money(macro[DAY_NOMINAL], money)
    column = day % DAYS_KEPT
    days[0, column] = cpi
    days[1, column] = money
    days[2, column] = macro[VELOCITY]
    if day >= QUARTER_DAYS:
        before = (day - QUARTER_DAYS) % DAYS_KEPT
        macro[INFLATION_QUARTERLY] = _fourth_power(cpi / days[0, before]) - 1.0
        macro[MONEY_GROWTH] = _fourth_power(money / days[1, before]) - 1.0
        if days[2, before] > 0.0:
            macro[VELOCITY_CHANGE] = macro[VELOCITY] / days[2, before] - 1.0
    if day >= YEAR_DAYS:
        macro[INFLATION_YEARLY] = cpi / days[0, (day - YEAR_DAYS) % DAYS_KEPT] - 1.0
    else:
        macro[INFLATION_YEARLY] += (macro[INFLATION_QUARTERLY] - macro[INFLATION_YEARLY]) / 100.0

    terms = inflation_formula(
        base_inflation, macro[MONEY_GROWTH], macro[VELOCITY_CHANGE], macro[GAP], macro[GREED], macro[FEAR],
        macro[SENTIMENT],
    )  # fmt: skip
    macro[TERM_BASE], macro[TERM_MONEY], macro[TERM_VELOCITY], macro[TERM_DEMAND], macro[TERM_BEHAVIOUR] = terms
    macro[INFLATION_FORMULA] = terms[0] + terms[1] + terms[2] + terms[3] + terms[4]
    expected = 0.5 * base_inflation + 0.35 * macro[INFLATION_QUARTERLY] + 0.15 * macro[INFLATION_FORMULA]
    macro[EXPECTED_INFLATION] += 0.03 * (expected - macro[EXPECTED_INFLATION])
    if day >= 1:
        growth = 360.0 * (cpi / days[0, (day - 1) % DAYS_KEPT] - 1.0)
        macro[INFLATION_TREND] += (growth - macro[INFLATION_TREND]) / 40.0


@njit(cache=True, nogil=True, error_model="numpy")
def _fourth_power(x: float) -> float:
    square = x * x
    return square * square


@njit(cache=True, nogil=True, error_model="numpy")
def _steer(base_inflation: float, policy_active: bool, turns: I64, macro: F64, counters: I64) -> None:
    """Steps 5 and 6: the policy rate, tightening and easing, and what the rate does to spending and credit."""
    trend = macro[INFLATION_TREND]
    tightening = 0
    easing = 0
    if policy_active:
        aim = taylor_rule(trend, base_inflation, macro[UNEMPLOYMENT])
        macro[POLICY_RATE] += RATE_SMOOTHING * (aim - macro[POLICY_RATE])
        tightening = int(trend > TIGHTENING_ABOVE)
        easing = int(trend < 0.0 and macro[POLICY_RATE] < EASING_RATE)
    turns[TURN_TIGHTENING, 0] = tightening - counters[TIGHTENING]
    turns[TURN_EASING, 0] = easing - counters[EASING]
    counters[TIGHTENING] = tightening
    counters[EASING] = easing
    rate, expected = macro[POLICY_RATE], macro[EXPECTED_INFLATION]
    macro[RHO] = consumption_factor(rate, expected) if policy_active else 1.0
    macro[DEBT_DAYS] = debt_target_days(rate, tightening == 1)
    counters[RHO_Q16] = int(macro[RHO] * 65536.0)
    counters[DEBT_DAYS_Q8] = int(macro[DEBT_DAYS] * 256.0)
    counters[LOAN_RATE_Q32] = int((rate + LOAN_MARGIN) / 360.0 * 4294967296.0)
    counters[EXPECTED_STEP_Q8] = int(1e4 * expected / 360.0 * 256.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _set_transfer(money: float, households: int, base_inflation: float, macro: F64, counters: I64) -> None:
    """Step 7: the benefit, and the treasury's transfer: its surplus, new money and the automatic stabiliser."""
    counters[BENEFIT] = counters[WAGE] * 2 // 5
    macro[TAX_DAY] += (macro[DAY_TAX] - macro[TAX_DAY]) / 5.0
    macro[BENEFIT_DAY] += (macro[DAY_BENEFIT] - macro[BENEFIT_DAY]) / 5.0
    quantity = 0.0
    if counters[EASING] == 1:
        quantity = EASING_MONEY * money / 360.0
    if counters[TIGHTENING] == 1:
        quantity = -TIGHTENING_MONEY * money / 360.0
    surplus = (
        macro[TAX_DAY]
        - macro[BENEFIT_DAY]
        - macro[DAY_COUPON]
        + base_inflation * money / 360.0
        + quantity
        - STABILISER * (NATURAL_UNEMPLOYMENT - macro[UNEMPLOYMENT]) * macro[CONSUMPTION_NOMINAL]
    )
    macro[TRANSFER] += (max(0.0, surplus / households) - macro[TRANSFER]) / 5.0
    counters[TRANSFER_UCR] = int(macro[TRANSFER])


@njit(cache=True, nogil=True, error_model="numpy")
def _set_baskets(
    price: I64,
    subsistence: I64,
    visit_share_q16: I64,
    input1_q16: I64,
    input2_q16: I64,
    macro: F64,
    counters: I64,
) -> None:
    """Step 8: cost of subsistence, household shares and input coefficients follow relative prices."""
    cost = 0
    mass = 0.0
    for m in range(MARKETS):
        if _VISITS[m] > 0:
            cost += _VISITS[m] * subsistence[m] * price[m]
            mass += _VISITS[m] * sqrt(price[m] / (1e6 * macro[CPI]))
    counters[SUBSISTENCE] = cost
    for m in range(GOOD_FIRST, GOOD_LAST + 1):
        base = 1e6 * macro[CPI]
        if _VISITS[m] > 0:
            visit_share_q16[m] = int(sqrt(price[m] / base) / mass * 65536.0)
        input1_q16[m] = input_coefficient(input1_q16[m], INPUT_BASE_1, price[_INPUT_1[m]] / base)
        input2_q16[m] = input_coefficient(input2_q16[m], INPUT_BASE_2, price[_INPUT_2[m]] / base)
