"""Indicators say what the world is like, and the captured public state is complete and does not change afterwards."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from math import sqrt

import numpy as np
import pytest

from engine import public
from engine import state as at
from engine.calibration import calibrate
from engine.events import PublicState
from engine.layout import HOUSEHOLD, TRADER
from engine.markets import INPUT_1, INPUT_2
from engine.phases import indicators
from engine.phases.indicators import capture, inequality, sum_of_accounts, wealth_bucket
from engine.state import State, new_state
from tests.support.macro_states import CONFIG, changed_arrays, disturbed_state, fresh_state

GROUPS = (
    ("market", public.MARKET_FIELDS),
    ("resource", public.RESOURCE_FIELDS),
    ("psychology", public.PSYCHOLOGY_FIELDS),
    ("monetary", public.MONETARY_FIELDS),
    ("indicators", public.INDICATOR_FIELDS),
)


@pytest.mark.parametrize(("group", "fields"), GROUPS, ids=[name for name, _ in GROUPS])
def test_capture_fills_exactly_the_public_names(group: str, fields: tuple[public.Field, ...]) -> None:
    values = getattr(capture(fresh_state(), CONFIG), group)

    assert list(values) == [field.name for field in fields]
    for name, value in values.items():
        if group in ("market", "resource"):
            assert value.shape == (32 if group == "market" else 7,), name
            assert value.dtype in (np.int64, np.float64), name
        else:
            assert type(value) in (int, float), name


def test_whole_units_are_whole_numbers() -> None:
    captured = capture(disturbed_state(1), CONFIG)
    for field in public.MARKET_FIELDS:
        if field.unit in ("lots", "level", "flag", "bp") or field.name in ("price", "best_bid", "best_ask"):
            assert captured.market[field.name].dtype == np.int64, field.name
    for field in public.RESOURCE_FIELDS:
        if field.unit == "lots":
            assert captured.resource[field.name].dtype == np.int64, field.name


def everything(captured: PublicState) -> list[object]:
    arrays = [array.tolist() for group in (captured.market, captured.resource) for array in group.values()]
    return [*arrays, captured.psychology, captured.monetary, captured.indicators]


def test_what_was_captured_does_not_change_with_the_world() -> None:
    state = fresh_state()
    captured = capture(state, CONFIG)
    before = everything(captured)
    assert before == everything(capture(state, CONFIG))

    for item in at.array_fields():
        array = getattr(state, item.name)
        if array.flags.writeable:
            # rows of several fields byte by byte
            changed = array.view(np.uint8) if array.dtype.names else array
            changed += 1

    assert everything(captured) == before
    assert before != everything(capture(state, CONFIG))


def test_missing_quotes_have_no_price_and_no_spread() -> None:
    state = fresh_state()
    state.best_bid[:] = -1
    state.best_ask[:] = 46_100
    state.best_bid[5] = 46_060

    market = capture(state, CONFIG).market

    assert market["best_bid"][4] == 0
    assert market["spread_bp"][4] == -1
    assert market["best_bid"][5] == state.ladder[46_060]
    assert market["spread_bp"][5] == 40


def test_kyle_lambda_is_a_ratio_of_sums_and_zero_before_any_flow() -> None:
    state = fresh_state()
    state.kyle_xy[3], state.kyle_xx[3] = 6.0, 400.0

    market = capture(state, CONFIG).market

    assert market["kyle_lambda"][3] == pytest.approx(0.015)
    assert market["kyle_lambda"][4] == 0.0


def test_a_market_is_halted_until_its_tick() -> None:
    state = fresh_state(tick=10)
    state.halt_until[1], state.halt_until[2] = 11, 10

    assert capture(state, CONFIG).market["is_halted"][:4].tolist() == [0, 1, 0, 0]


def test_realised_volatility_is_annual() -> None:
    """Returns of 20 bp every tick: sqrt(8 640) x 20 / 10^4 = .1859; and the same over a day."""
    state = fresh_state()
    state.variance[24] = 400.0
    state.returns[:, 24] = 20
    state.returns[::2, 25] = -20

    indicators.measure(state)

    assert state.realised[24] == pytest.approx(sqrt(8_640) * 0.002)
    assert state.realised_day[24] == pytest.approx(sqrt(360 * 24 * 0.002**2))
    assert state.realised_day[25] == pytest.approx(sqrt(360 * 12 * 0.002**2))


def test_producer_prices_are_weighed_by_initial_output() -> None:
    state = fresh_state()
    state.price[1] *= 2

    indicators.measure(state)

    assert state.macro[at.PPI] == pytest.approx(1 + 0.03524 / 1.34904, abs=1e-4)


def test_the_equity_index_follows_the_value_of_all_shares() -> None:
    state = fresh_state()
    indicators.measure(state)
    assert state.macro[at.EQUITY_INDEX] == pytest.approx(100.0)
    weight = float(state.price[30]) * float(state.shares_out[30]) / state.macro[at.EQUITY_BASE]

    state.price[30] *= 3
    state.price[31] *= 5
    indicators.measure(state)

    assert state.macro[at.EQUITY_INDEX] == pytest.approx(100 * (1 + 2 * weight))


def test_wealth_buckets_are_sixteenths_of_a_power_of_two() -> None:
    assert [wealth_bucket(w) for w in (-5, 0, 1, 2, 3)] == [0, 0, 0, 16, 24]
    for power in (4, 10, 33, 52):
        for part in range(16):
            low = (16 + part) << (power - 4)
            high = ((17 + part) << (power - 4)) - 1
            assert wealth_bucket(low) == wealth_bucket(high) == 16 * power + part


def test_inequality_of_equals_is_zero_and_of_one_owner_nearly_one() -> None:
    counts, sums = np.zeros(1_024, np.int64), np.zeros(1_024, np.int64)
    counts[100], sums[100] = 1_000, 10**6
    assert inequality(counts, sums) == pytest.approx((0.0, 0.01))

    counts[0], sums[0] = 999, 0
    counts[100] = 1
    assert inequality(counts, sums) == pytest.approx((0.999, 1.0))


def test_inequality_by_hand() -> None:
    """Three own 1, one owns 5: Gini 1 - (3/4 x 3/8 + 1/4 x 11/8) = .375; the richest 1 % (.04 people) own .025."""
    counts, sums = np.zeros(1_024, np.int64), np.zeros(1_024, np.int64)
    counts[0], sums[0] = 3, 3
    counts[wealth_bucket(5)], sums[wealth_bucket(5)] = 1, 5

    assert inequality(counts, sums) == pytest.approx((0.375, 0.04 * 5 / 8))


def test_inequality_of_nobody_is_zero() -> None:
    assert inequality(np.zeros(1_024, np.int64), np.zeros(1_024, np.int64)) == (0.0, 0.0)


def test_wealth_is_measured_by_buckets_nearly_as_well_as_by_sorting() -> None:
    state = fresh_state()
    indicators.measure_wealth(state)

    wealth = np.sort(everybody(state))
    n = len(wealth)
    exact = 2 * float((np.arange(1, n + 1) * wealth).sum()) / (n * wealth.sum()) - (n + 1) / n
    assert state.macro[at.GINI] == pytest.approx(exact, abs=0.001)
    assert state.macro[at.TOP_SHARE] == pytest.approx(wealth[-n // 100 :].sum() / wealth.sum(), abs=0.005)
    households = everybody(state)[: state.layout.households]
    assert state.counters[at.HOUSEHOLD_WEALTH] / 1e6 == pytest.approx(households.mean(), rel=1e-6)


def everybody(state: State) -> np.ndarray:
    """Return the wealth of every resident, credits, by id: cash and holdings less debt, at least 0."""
    layout, price = state.layout, state.price
    wealth = state.cash.astype(float)
    for b in range(layout.blocks):
        rows, home = slice(layout.block_start[b], layout.block_end[b]), layout.block_home[b]
        if layout.block_type[b] == HOUSEHOLD:
            wealth[rows] += state.shares[rows] * float(price[home])
        elif layout.block_type[b] == TRADER:
            mine = slice(rows.start - layout.trader_first, rows.stop - layout.trader_first)
            wealth[rows] += state.inventory[mine] * float(price[home])
        else:
            mine = slice(rows.start - layout.producer_first, rows.stop - layout.producer_first)
            wealth[rows] += state.out[mine] * float(price[home]) - state.debt[mine]
            if INPUT_1[home] >= 0:
                wealth[rows] += state.in1[mine] * float(price[INPUT_1[home]])
                wealth[rows] += state.in2[mine] * float(price[INPUT_2[home]])
    return np.maximum(0.0, wealth) / 1e6


def test_an_outside_agent_counts_net_of_its_advance() -> None:
    state = fresh_state()
    indicators.measure_wealth(state)
    before = float(state.macro[at.GINI]), float(state.macro[at.TOP_SHARE])
    state.counters[at.SLOTS_USED] = 1
    state.agent_id[0] = 7
    state.agent_cash[0] = state.agent_advance[0] = 10**15
    indicators.measure_wealth(state)
    assert state.macro[at.TOP_SHARE] == pytest.approx(before[1], rel=1e-3)

    state.agent_advance[0] = 0
    indicators.measure_wealth(state)

    assert state.macro[at.TOP_SHARE] > 0.7


def test_wealth_does_not_depend_on_threads() -> None:
    results = []
    with ThreadPoolExecutor(3) as pool:
        for threads in (1, 3, 7):
            state = new_state(CONFIG, threads, lambda work, n: list(pool.map(work, range(n))) and None)
            calibrate(state, CONFIG, 1)
            indicators.measure_wealth(state)
            results.append((state.macro[at.GINI], state.macro[at.TOP_SHARE], state.counters[at.HOUSEHOLD_WEALTH]))

    assert results[0] == results[1] == results[2]


def test_wealth_is_measured_at_day_end_only() -> None:
    state = fresh_state(tick=22)
    state.cash[0] *= 100_000
    before = float(state.macro[at.GINI])
    indicators.step(state, CONFIG)
    assert state.macro[at.GINI] == before

    state.tick = 23
    indicators.step(state, CONFIG)
    assert state.macro[at.GINI] != before


def test_the_ledger_sum_tells_when_money_appears() -> None:
    state = fresh_state(tick=23)
    assert sum_of_accounts(state) == 0

    state.cash[3] += 5
    state.counters[at.SLOTS_USED] = 1
    state.agent_escrow[0] = 2
    indicators.step(state, CONFIG)

    assert state.counters[at.LEDGER_SUM] == 7
    assert capture(state, CONFIG).monetary["ledger_sum"] == 7


def test_money_supply_is_what_the_three_banks_miss() -> None:
    state = fresh_state()

    captured = capture(state, CONFIG)

    assert captured.monetary["money_supply"] == int(state.cash.sum() + state.pools.sum())
    assert captured.indicators["money_supply"] == captured.monetary["money_supply"]


def test_the_phase_writes_exactly_what_it_says() -> None:
    states = (disturbed_state(seed) for seed in range(12))

    assert changed_arrays(indicators.step, states, CONFIG) == set(indicators.WRITES)
