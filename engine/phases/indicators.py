"""Phase 6: what the tick looks like from outside; reads the world, writes only indicators.

Wealth is measured at day end (tick mod 24 = 23): cash and holdings at reference prices of residents and outside
agents, net of loans and advances; who owes more than he has counts with 0.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numba import njit

from engine.config import Config
from engine.events import PublicState
from engine.layout import HOUSEHOLD, TRADER
from engine.markets import (
    CONSOL,
    GOOD_LAST,
    HOURS,
    INPUT_1,
    INPUT_2,
    MARKETS,
    RAW_FIRST,
    RAW_LAST,
    SHARE_FIRST,
    SHARE_LAST,
    YEAR,
)
from engine.state import (
    AGENT_COUNT,
    BANK,
    BENEFIT_DAY,
    CENTRAL_BANK,
    CONFIDENCE,
    CONSUMPTION_NOMINAL,
    CONSUMPTION_REAL,
    CPI,
    DAY,
    DISAGREEMENT,
    EASING,
    EQUITY_BASE,
    EQUITY_INDEX,
    EUPHORIA_MARKETS,
    EXPECTED_INFLATION,
    EXTREMITY,
    F64,
    FEAR,
    GAP,
    GINI,
    GREED,
    HERDING,
    HOUSEHOLD_WEALTH,
    I32,
    I64,
    INFLATION_FORMULA,
    INFLATION_QUARTERLY,
    INFLATION_TREND,
    INFLATION_YEARLY,
    LEDGER_SUM,
    LOANS,
    MEMORY,
    MONEY_GROWTH,
    MOOD_CONFIDENCE,
    MOOD_FEAR,
    MOOD_GREED,
    MOOD_MEMORY,
    MOOD_SENTIMENT,
    ORDER_COUNT,
    PANIC_MARKETS,
    POLICY_RATE,
    POTENTIAL,
    PPI,
    SENTIMENT,
    SENTIMENT_VARIANCE,
    SHOCK,
    SLOTS_USED,
    TAX_DAY,
    TERM_BASE,
    TERM_BEHAVIOUR,
    TERM_DEMAND,
    TERM_MONEY,
    TERM_VELOCITY,
    TIGHTENING,
    TOP_SHARE,
    TRANSFER,
    TREASURY,
    UNEMPLOYMENT,
    VACANCY,
    VELOCITY,
    VELOCITY_CHANGE,
    VOLATILITY_MULTIPLIER,
    WAGE,
    State,
)

WRITES = ("realised", "realised_day", "macro", "counters")

POWERS, PARTS = 64, 16
"""Wealth buckets: 16 for each power of two of units of 1 024 ucr."""
UNIT_SHIFT = 10
"""Wealth is measured in units of 1 024 ucr, so that the sum over ten million residents fits into 63 bits."""
TOP = 0.01

_INPUT_1, _INPUT_2 = np.array(INPUT_1), np.array(INPUT_2)
_ASSETS = np.array([*range(RAW_FIRST, RAW_LAST + 1), *range(SHARE_FIRST, CONSOL + 1)])


def step(state: State, config: Config) -> None:
    """Measure volatilities, producer prices and the equity index; at day end the distribution of wealth.

    Source: specification 004, indicators; ECONOMY A11, A17 phase 6.
    """
    measure(state)
    if state.tick % HOURS == HOURS - 1:
        measure_wealth(state)


def measure(state: State) -> None:
    """Write realised volatilities, the producer price index and the equity index."""
    _measure(
        state.variance,
        state.returns,
        state.price,
        state.shares_out,
        state.output_weight,
        state.realised,
        state.realised_day,
        state.macro,
    )


def measure_wealth(state: State) -> None:
    """Write the Gini coefficient, the share of the richest 1 %, the mean wealth of a household and the ledger's sum."""
    layout = state.layout
    threads = state.threads
    counts = np.zeros((threads, POWERS * PARTS), np.int64)
    sums = np.zeros((threads, POWERS * PARTS), np.int64)
    households = np.zeros(threads, np.int64)

    def work(thread: int) -> None:
        households[thread] = _count_residents(
            thread * layout.blocks // threads,
            (thread + 1) * layout.blocks // threads,
            layout.block_start,
            layout.block_end,
            layout.block_type,
            layout.block_home,
            layout.producer_first,
            layout.trader_first,
            state.cash,
            state.shares,
            state.debt,
            state.out,
            state.in1,
            state.in2,
            state.inventory,
            state.price,
            counts[thread],
            sums[thread],
        )

    state.parallel(work, threads)
    _count_agents(
        int(state.counters[SLOTS_USED]),
        state.agent_id,
        state.agent_cash,
        state.agent_escrow,
        state.agent_debt,
        state.agent_advance,
        state.agent_holdings,
        state.price,
        counts[0],
        sums[0],
    )
    # whole numbers: the sums over threads are the same in any order
    state.counters[HOUSEHOLD_WEALTH] = (int(households.sum()) << UNIT_SHIFT) // layout.households
    gini, top = inequality(counts.sum(axis=0), sums.sum(axis=0))
    state.counters[LEDGER_SUM] = sum_of_accounts(state)
    state.macro[GINI] = gini
    state.macro[TOP_SHARE] = top


def sum_of_accounts(state: State) -> int:
    """Return the sum of all cash accounts, ucr: 0 unless money was made or lost. Source: ECONOMY A9, A14.1."""
    used = int(state.counters[SLOTS_USED])
    inside = int(state.cash.sum()) + int(state.pools.sum()) + int(state.ledger[:LOANS].sum())
    return inside + int(state.agent_cash[:used].sum()) + int(state.agent_escrow[:used].sum())


def capture(state: State, config: Config) -> PublicState:
    """Return everything public of the last tick, copied; the names are those of engine.public.

    Market arrays have shape (32,), resource arrays (7,); money in ucr, rates as fractions.
    """
    macro = state.macro.tolist()
    counters = state.counters.tolist()
    ledger = state.ledger.tolist()
    ladder, mean, surplus, depth = state.ladder, state.mood_mean, state.surplus.copy(), state.depth.copy()
    has_bid, has_ask = state.best_bid >= 0, state.best_ask >= 0
    means = mean.copy()
    market = {
        "price": state.price.copy(),
        "level": state.level.copy(),
        "return_bp": state.market_return.copy(),
        "volume": state.cleared_volume.copy(),
        "value": state.cleared_volume * state.price,
        "best_bid": ladder[state.best_bid] * has_bid,
        "best_ask": ladder[state.best_ask] * has_ask,
        "spread_bp": np.where(has_bid & has_ask, state.best_ask - state.best_bid, -1),
        "bid_depth": depth[0],
        "ask_depth": depth[1],
        "imbalance": state.imbalance.copy(),
        "demand": state.demand.copy(),
        "supply": state.supply.copy(),
        "indicative_price": state.indicative.copy(),
        "kyle_lambda": np.divide(state.kyle_xy, state.kyle_xx, out=np.zeros(MARKETS), where=state.kyle_xx > 0.0),
        "elasticity": state.elasticity.copy(),
        "elasticity_demand": state.elasticity_demand.copy(),
        "elasticity_supply": state.elasticity_supply.copy(),
        "consumer_surplus": surplus[0],
        "producer_surplus": surplus[1],
        "volatility": state.realised.copy(),
        "volatility_day": state.realised_day.copy(),
        "volatility_multiplier": state.market_vm.copy(),
        "sentiment": means[MOOD_SENTIMENT],
        "fear": means[MOOD_FEAR],
        "greed": means[MOOD_GREED],
        "confidence": means[MOOD_CONFIDENCE],
        "memory": means[MOOD_MEMORY],
        "herding": state.market_herding.copy(),
        "extremity": state.market_extremity.copy(),
        "fundamentalists": state.fundamentalists.copy(),
        "fundamental_price": ladder[state.fundamental],
        "income_per_lot": state.income_per_lot.copy(),
        "is_halted": (state.halt_until > state.tick).astype(np.int64),
        "is_panic": state.is_panic.copy(),
        "is_euphoria": state.is_euphoria.copy(),
    }
    resource = {
        "reserves": state.reserves.copy(),
        "base": state.reserves_base.copy(),
        "scarcity": state.scarcity.copy(),
        "multiplier": state.multiplier.copy(),
        "quota": state.quota.copy(),
        "extracted_today": state.extracted_day.copy(),
        "added": state.reserves_added.copy(),
        "lost": state.reserves_lost.copy(),
    }
    psychology = {
        "sentiment": macro[SENTIMENT],
        "fear": macro[FEAR],
        "greed": macro[GREED],
        "confidence": macro[CONFIDENCE],
        "memory": macro[MEMORY],
        "herding": macro[HERDING],
        "extremity": macro[EXTREMITY],
        "disagreement": macro[DISAGREEMENT],
        "sentiment_variance": macro[SENTIMENT_VARIANCE],
        "volatility_multiplier": macro[VOLATILITY_MULTIPLIER],
        "shock": macro[SHOCK],
        "panic_markets": counters[PANIC_MARKETS],
        "euphoria_markets": counters[EUPHORIA_MARKETS],
    }
    money = -(ledger[TREASURY] + ledger[BANK] + ledger[CENTRAL_BANK])
    monetary = {
        "policy_rate": macro[POLICY_RATE],
        "inflation_quarterly": macro[INFLATION_QUARTERLY],
        "inflation_yearly": macro[INFLATION_YEARLY],
        "inflation_trend": macro[INFLATION_TREND],
        "expected_inflation": macro[EXPECTED_INFLATION],
        "inflation_formula": macro[INFLATION_FORMULA],
        "term_base": macro[TERM_BASE],
        "term_money": macro[TERM_MONEY],
        "term_velocity": macro[TERM_VELOCITY],
        "term_demand": macro[TERM_DEMAND],
        "term_behaviour": macro[TERM_BEHAVIOUR],
        "money_supply": money,
        "money_growth": macro[MONEY_GROWTH],
        "velocity": macro[VELOCITY],
        "velocity_change": macro[VELOCITY_CHANGE],
        "credit": ledger[LOANS],
        "treasury": ledger[TREASURY],
        "bank": ledger[BANK],
        "central_bank": ledger[CENTRAL_BANK],
        "ledger_sum": counters[LEDGER_SUM],
        "tightening": counters[TIGHTENING],
        "easing": counters[EASING],
        "transfer": macro[TRANSFER],
        "tax_day": macro[TAX_DAY],
        "benefit_day": macro[BENEFIT_DAY],
    }
    indicators = {
        "cpi": macro[CPI],
        "ppi": macro[PPI],
        "inflation": macro[INFLATION_QUARTERLY],
        "unemployment": macro[UNEMPLOYMENT],
        "vacancy_rate": macro[VACANCY],
        "wage": counters[WAGE],
        "consumption_nominal": macro[CONSUMPTION_NOMINAL],
        "consumption_real": macro[CONSUMPTION_REAL],
        "potential": macro[POTENTIAL],
        "gap": macro[GAP],
        "policy_rate": macro[POLICY_RATE],
        "money_supply": money,
        "velocity": macro[VELOCITY],
        "equity_index": macro[EQUITY_INDEX],
        "volatility": float(state.realised[_ASSETS].mean()),
        "sentiment": macro[SENTIMENT],
        "volatility_multiplier": macro[VOLATILITY_MULTIPLIER],
        "gini": macro[GINI],
        "top_share": macro[TOP_SHARE],
        "agents": counters[AGENT_COUNT],
        "open_orders": counters[ORDER_COUNT],
        "day": counters[DAY],
    }
    return PublicState(state.tick, market, resource, psychology, monetary, indicators)


@njit(cache=True, nogil=True, error_model="numpy")
def inequality(counts: I64, sums: I64) -> tuple[float, float]:
    """Return the Gini coefficient and the share of the richest 1 % of people in buckets of rising wealth.

    counts: people per bucket, sums: their wealth. Inside a bucket all are taken as equal.
    Source: ECONOMY A11; Lorenz curve by trapezoids.
    """
    people, wealth = 0, 0
    for k in range(len(counts)):
        people += counts[k]
        wealth += sums[k]
    if people == 0 or wealth == 0:
        return 0.0, 0.0
    below, area = 0, 0.0
    for k in range(len(counts)):
        area += counts[k] / people * (2.0 * below + sums[k]) / wealth
        below += sums[k]
    left, top = TOP * people, 0.0
    for k in range(len(counts) - 1, -1, -1):
        if counts[k] > 0 and left > 0.0:
            taken = min(float(counts[k]), left)
            top += sums[k] * (taken / counts[k])
            left -= taken
    return 1.0 - area, top / wealth


@njit(cache=True, nogil=True, error_model="numpy")
def wealth_bucket(wealth: int) -> int:
    """Return the bucket 0..1023 of a wealth in units, below 2^53: 16 x floor(log2) + the next four bits; 0 for 0.

    A float64 carries both: its exponent and the first bits of its fraction.
    """
    if wealth <= 0:
        return 0
    return int(np.float64(wealth).view(np.int64) >> 48) - (1023 << 4)


@njit(cache=True, nogil=True, error_model="numpy")
def _measure(
    variance: F64,
    returns: I64,
    price: I64,
    shares_out: I64,
    output_weight: F64,
    realised: F64,
    realised_day: F64,
    macro: F64,
) -> None:
    squares = np.zeros(MARKETS, np.int64)
    for hour in range(HOURS):
        for m in range(MARKETS):
            squares[m] += returns[hour, m] * returns[hour, m]
    for m in range(MARKETS):
        realised[m] = sqrt(YEAR * variance[m]) / 1e4
        realised_day[m] = sqrt(360.0 * squares[m]) / 1e4
    total = 0.0
    weight = 0.0
    for m in range(RAW_FIRST, GOOD_LAST + 1):
        total += output_weight[m] * (price[m] / 1e6)
        weight += output_weight[m]
    macro[PPI] = total / weight
    value = 0.0
    for m in range(SHARE_FIRST, SHARE_LAST + 1):
        value += float(price[m]) * float(shares_out[m])
    macro[EQUITY_INDEX] = 100.0 * value / macro[EQUITY_BASE]


@njit(cache=True, nogil=True, error_model="numpy")
def _count_residents(
    first_block: int,
    last_block: int,
    start: I64,
    end: I64,
    kind: I64,
    home: I64,
    producer_first: int,
    trader_first: int,
    cash: I64,
    shares: I32,
    debt: I64,
    out: I32,
    in1: I32,
    in2: I32,
    inventory: I64,
    price: I64,
    counts: I64,
    sums: I64,
) -> int:
    """Count residents of a range of blocks by wealth and return the households' wealth together, in units."""
    households = 0
    for b in range(first_block, last_block):
        m = home[b]
        p = price[m]
        if kind[b] == HOUSEHOLD:
            for i in range(start[b], end[b]):
                wealth = (cash[i] + shares[i] * p) >> UNIT_SHIFT
                households += wealth
                k = wealth_bucket(wealth)
                counts[k] += 1
                sums[k] += wealth
        elif kind[b] == TRADER:
            for i in range(start[b], end[b]):
                wealth = (cash[i] + inventory[i - trader_first] * p) >> UNIT_SHIFT
                k = wealth_bucket(wealth)
                counts[k] += 1
                sums[k] += wealth
        else:
            p1 = price[_INPUT_1[m]] if _INPUT_1[m] >= 0 else 0
            p2 = price[_INPUT_2[m]] if _INPUT_2[m] >= 0 else 0
            for i in range(start[b], end[b]):
                j = i - producer_first
                stock = out[j] * p + in1[j] * p1 + in2[j] * p2
                wealth = max(0, cash[i] + stock - debt[j]) >> UNIT_SHIFT
                k = wealth_bucket(wealth)
                counts[k] += 1
                sums[k] += wealth
    return households


@njit(cache=True, nogil=True, error_model="numpy")
def _count_agents(
    slots: int,
    number: I64,
    cash: I64,
    escrow: I64,
    debt: I64,
    advance: I64,
    holdings: I64,
    price: I64,
    counts: I64,
    sums: I64,
) -> None:
    for a in range(slots):
        if number[a] == 0:
            continue
        wealth = cash[a] + escrow[a] - debt[a] - advance[a]
        for m in range(MARKETS):
            wealth += holdings[a, m] * price[m]
        wealth = max(0, wealth) >> UNIT_SHIFT
        k = wealth_bucket(wealth)
        counts[k] += 1
        sums[k] += wealth
