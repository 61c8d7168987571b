"""States with random but possible contents: what the behaviour phase may meet between an auction and the next."""

from __future__ import annotations

import numpy as np

from engine import state as places
from engine.config import Config
from engine.ladder import LEVELS
from engine.markets import MARKETS, SHARE_FIRST
from engine.rng import seed_bytes, tick_keys
from engine.state import SLOTS, Parallel, State, new_state, serial


def random_state(config: Config, seed: int, threads: int = 1, parallel: Parallel = serial) -> State:
    """Return a state in the middle of a tick: auction over, histogram empty, many orders at the margins."""
    random = np.random.default_rng(seed)
    state = new_state(config, threads, parallel)
    state.tick = int(random.integers(1, 10_000))
    tick_keys(seed_bytes(seed), state.tick, state.keys)
    state.touched[:, :, 0], state.touched[:, :, 1] = SLOTS, -1
    _fill_markets(state, random)
    _fill_residents(state, random)
    _fill_orders(state, random)
    return state


def _fill_markets(state: State, random: np.random.Generator) -> None:
    ladder = state.ladder
    state.level[:] = random.integers(40_000, 50_000, MARKETS)
    state.level[0] = random.integers(74_000, 78_000)
    state.level[SHARE_FIRST:] = random.integers(90_000, 130_000, MARKETS - SHARE_FIRST)
    state.price[:] = ladder[state.level]
    state.fundamental[:] = state.level + random.integers(-4_000, 4_000, MARKETS)
    state.slow_level[:] = state.level + random.uniform(-1_500, 1_500, MARKETS)
    state.income_per_lot[SHARE_FIRST:] = random.integers(0, 50_000, 8)
    state.base_share_q15[:] = random.integers(14_000, 30_000, MARKETS)
    state.visit_share_q16[:] = random.integers(1_000, 5_000, MARKETS)
    state.subsistence[:] = random.integers(0, 3, MARKETS)
    state.quote_shift[:] = random.integers(-60, 60, MARKETS) * random.integers(0, 2, MARKETS)
    state.panic_bias[:] = random.integers(0, 40, MARKETS) * random.integers(0, 2, MARKETS)
    state.unit_cost[:] = state.price * random.uniform(0.7, 1.2, MARKETS)
    state.cost_level[:] = state.level + random.integers(-2_500, 500, MARKETS)
    state.hours_q16[:] = random.integers(1_000, 5_000, MARKETS)
    state.input1_q16[:] = random.integers(3_000, 20_000, MARKETS)
    state.input2_q16[:] = random.integers(1_500, 10_000, MARKETS)
    state.quota[:] = random.integers(0, 500, len(state.quota)) * random.integers(0, 2, len(state.quota))
    state.trend_fast[:] = random.integers(-2_000, 2_000, MARKETS)
    state.trend_slow[:] = random.integers(-2_000, 2_000, MARKETS)
    state.chartists_q16[:] = random.integers(2_000, 62_000, MARKETS)
    state.vm_q8[:] = random.integers(256, 640, MARKETS)
    state.sigma_q4[:] = random.integers(30, 1_500, MARKETS)
    state.group_draw[:] = random.integers(-510, 511, state.group_draw.shape)
    for name in ("sentiment", "fear", "greed", "confidence"):
        getattr(state, f"target_{name}")[:] = random.integers(0, 32_701, MARKETS)

    trades = random.integers(0, 8, (2, MARKETS)) > 0
    state.margin_level[0] = np.where(trades[0], state.level + random.integers(0, 3, MARKETS), LEVELS)
    state.margin_level[1] = np.where(trades[0], state.level - random.integers(0, 3, MARKETS), -1)
    state.margin_total[:] = 10 ** random.uniform(5, 15, (2, MARKETS))
    state.margin_ration[:] = state.margin_total * random.uniform(0, 1, (2, MARKETS)) * trades
    state.block_before[:] = random.integers(0, 90_000, state.block_before.shape)
    state.segment_before[:] = random.integers(0, 90_000, state.segment_before.shape)
    counters = {
        "WAGE_REFERENCE": state.level[0] + random.integers(-500, 500),
        "BENEFIT": random.integers(0, 20_000_000),
        "FUND_RATE": random.integers(0, 100_000),
        "TRANSFER_UCR": random.integers(0, 50_000_000),
        "RHO_Q16": random.integers(53_739, 70_779),
        "DEBT_DAYS_Q8": random.integers(4 * 256, 25 * 256),
        "LOAN_RATE_Q32": random.integers(400_000, 6_400_000),
        "WAGE_STEP_Q8": random.integers(512, 2_560),
        "EXPECTED_STEP_Q8": random.integers(-200, 800),
        "SUBSISTENCE": random.integers(0, 60_000_000),
    }
    for name, value in counters.items():
        state.counters[getattr(places, name)] = value
    state.macro[places.UNEMPLOYMENT] = random.uniform(0.01, 0.3)


def _fill_residents(state: State, random: np.random.Generator) -> None:
    layout = state.layout
    n, households, producers = layout.residents, layout.households, layout.producers
    state.cash[:] = 10 ** random.uniform(3, 12, n)
    for name in ("sentiment", "fear", "greed", "confidence", "memory"):
        getattr(state, name)[:] = random.integers(0, 32_768, n)
    state.shares[:] = random.integers(0, 200, households) * random.integers(0, 2, households)
    state.income_ema[:] = 10 ** random.uniform(2, 7, households)
    state.reserve_wage[:] = state.level[0] + random.integers(-6_000, 6_000, households)
    state.skill[:] = random.integers(3, 60, households)
    state.employed[:] = random.integers(0, 2, households)
    state.inventory[:] = 10 ** random.uniform(0, 6, layout.traders)
    state.debt[:] = 10 ** random.uniform(0, 16, producers) * random.integers(0, 2, producers)
    state.sales_ema[:] = 16 * 10 ** random.uniform(0, 4, producers)
    for name, days in (("out", 8.0), ("in1", 2.0), ("in2", 1.0), ("hours", 0.1), ("day_sales", 2.0)):
        getattr(state, name)[:] = state.sales_ema * random.uniform(0, days, producers) / 16
    state.ask[:] = 46_054 + random.integers(-3_000, 3_000, producers)


def _fill_orders(state: State, random: np.random.Generator) -> None:
    layout = state.layout
    markets = layout.markets_at(state.tick)
    for b in range(layout.blocks):
        start, end, market = int(layout.block_start[b]), int(layout.block_end[b]), int(markets[b])
        if market < 0:
            continue
        count = end - start
        state.ord_level[start:end] = state.level[market] + random.integers(-4, 5, count)
        if market == 0 and start < layout.households:
            state.ord_qty[start:end] = -state.skill[start:end]
            continue
        affordable = np.minimum(state.cash[start:end] // state.ladder[state.level[market] + 5], 100_000)
        bought = (affordable * random.uniform(0, 1, count)).astype(np.int64)
        if start < layout.households:
            holding = state.shares[start:end].astype(np.int64)
        elif start >= layout.trader_first:
            holding = state.inventory[start - layout.trader_first : end - layout.trader_first]
        else:
            holding = np.zeros(count, np.int64)
        sold = -(holding * random.uniform(0, 1, count)).astype(np.int64)
        both = (market >= SHARE_FIRST or start >= layout.trader_first) and random.integers(0, 2, count) == 1
        state.ord_qty[start:end] = np.where(both, sold, bought)
    state.sell_qty[:] = state.out * random.uniform(0, 0.1, layout.producers)
    homes = np.repeat(layout.segment_market, layout.segment_end - layout.segment_start)
    state.sell_level[:] = state.level[homes] + random.integers(-4, 5, layout.producers)
