"""Calibrated states with random but possible flows, moods and prices: what phases 3 to 7 may meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from engine import state as at
from engine.calibration import calibrate
from engine.config import Config
from engine.markets import HOURS, MARKETS
from engine.phases.psychology import count_minds
from engine.rng import seed_bytes, tick_keys
from engine.state import State, new_state

CONFIG = Config(residents=2_000, max_agents=8, order_book_max=1_024)


def fresh_state(config: Config = CONFIG, tick: int = 0) -> State:
    """Return a calibrated state about to run the phases of a tick, with no flows and no returns."""
    state = new_state(config)
    calibrate(state, config, 1)
    begin_tick(state, tick)
    return state


def begin_tick(state: State, tick: int, seed: int = 1) -> None:
    """Set the tick and its keys and clear its sums, as tick.advance does."""
    state.tick = tick
    state.events = []
    tick_keys(seed_bytes(seed), tick, state.keys)
    state.flows[:] = 0
    state.goods_flow[:] = 0
    state.dividends[:] = 0


def disturbed_state(seed: int, config: Config = CONFIG) -> State:
    """Return a state in the middle of a random tick of a turbulent economy."""
    random = np.random.default_rng(seed)
    state = fresh_state(config)
    day = int(random.choice([0, 1, 30, 89, 90, 200, 359, 360, 719, 720, 1_500]))
    begin_tick(state, day * HOURS + int(random.choice([0, 5, 11, 23, 23])), seed)
    _disturb_markets(state, random)
    _disturb_minds(state, random)
    _disturb_macro(state, random, day)
    state.flows[:] = random.integers(0, 10**9, at.FLOWS)
    state.flows[at.FLOW_EMPLOYED], state.flows[at.FLOW_UNEMPLOYED] = random.integers(0, 60, 2)
    settled = state.flows[at.FLOW_EMPLOYED] + state.flows[at.FLOW_UNEMPLOYED]
    state.flows[at.FLOW_WAGE_LEVELS] = settled * random.integers(74_000, 77_000)
    state.goods_flow[:] = random.integers(0, 500, state.goods_flow.shape)
    state.dividends[1:24] = random.integers(0, 10**8, 23)
    return state


def _disturb_markets(state: State, random: np.random.Generator) -> None:
    state.level[:] += random.integers(-3_000, 3_000, MARKETS)
    state.price[:] = state.ladder[state.level]
    state.fundamental[:] = state.level + random.integers(-4_000, 4_000, MARKETS)
    state.slow_level[:] = state.level + random.uniform(-500, 500, MARKETS)
    state.market_return[:] = random.normal(0, 30, MARKETS).astype(np.int64)
    state.returns[:] = random.normal(0, 30, state.returns.shape).astype(np.int64)
    state.variance[:] = random.uniform(0, 3_000, MARKETS)
    state.news[:] = random.normal(0, 300, MARKETS)
    state.trend_fast[:] = random.integers(-2_000, 2_000, MARKETS)
    state.trend_slow[:] = random.integers(-2_000, 2_000, MARKETS)
    state.fundamentalists[:] = random.uniform(0.05, 0.97, MARKETS)
    state.input1_q16[8:24] = random.integers(3_000, 20_000, 16)
    state.input2_q16[8:24] = random.integers(1_500, 10_000, 16)
    state.income_per_lot[24:31] += random.integers(0, 5_000, 7)
    state.bids_total[0] = random.integers(0, 10_000)
    state.cleared_volume[0] = random.integers(0, int(state.bids_total[0]) + 1)
    state.reserves[:] = state.reserves_base * random.uniform(0.05, 1.15, 7)


def _disturb_minds(state: State, random: np.random.Generator) -> None:
    for name in ("sentiment", "fear", "greed", "confidence", "memory"):
        center = random.uniform(5_000, 28_000)
        values = random.normal(center, random.uniform(500, 4_000), state.layout.residents)
        getattr(state, name)[:] = np.clip(values, 0, 32_767).astype(np.int16)
    count_minds(state)
    state.macro[at.SHOCK] = random.choice([0.0, 0.3, 0.6])
    state.is_panic[1:] = random.integers(0, 2, MARKETS - 1)
    state.is_euphoria[1:] = random.integers(0, 2, MARKETS - 1)


def _disturb_macro(state: State, random: np.random.Generator, day: int) -> None:
    macro, counters = state.macro, state.counters
    counters[at.DAY] = day
    macro[at.UNEMPLOYMENT] = random.uniform(0.0, 0.2)
    macro[at.POLICY_RATE] = random.choice([0.001, 0.02, 0.04, 0.2])
    macro[at.INFLATION_TREND] = random.choice([-0.05, 0.01, 0.09, 0.2])
    macro[at.EXPECTED_INFLATION] = random.uniform(-0.05, 0.2)
    macro[at.WAGE_LEVEL] += random.uniform(-500, 500)
    state.days[0] = random.uniform(0.8, 1.3, at.DAYS_KEPT)
    state.days[1] = random.uniform(1e14, 1.2e14, at.DAYS_KEPT)
    state.days[2] = random.uniform(0.7, 0.9, at.DAYS_KEPT)
    macro[at.DAY_CPI] = 23.0 * random.uniform(0.9, 1.2)
    macro[at.DAY_MONEY] = 23.0 * random.uniform(1e14, 1.2e14)
    macro[at.DAY_NOMINAL] = random.uniform(2e11, 3e11)
    macro[at.DAY_REAL] = random.uniform(2e11, 3e11)
    macro[at.DAY_EMPLOYED], macro[at.DAY_UNEMPLOYED] = random.integers(0, 2_000, 2)
    macro[at.DAY_TAX] = random.uniform(0, 1e11)
    macro[at.DAY_BENEFIT] = random.uniform(0, 1e10)


def changed_arrays(step: Callable[[State, Config], None], states: Iterable[State], config: Config) -> set[str]:
    """Run a phase on each state and return the names of all arrays it changed in any of them."""
    changed: set[str] = set()
    for state in states:
        before = {item.name: getattr(state, item.name).copy() for item in at.array_fields()}
        step(state, config)
        changed |= {name for name, array in before.items() if not np.array_equal(array, getattr(state, name))}
    return changed
