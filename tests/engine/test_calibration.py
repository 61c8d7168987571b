"""The calibrated start meets the check figures of the specification and repeats bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from engine.calibration import (
    calibrate,
    gross_output,
    hours_per_consumed_lot,
    refresh,
    sector_profits,
    start_scarcity,
)
from engine.config import Config
from engine.layout import HOUSEHOLD, TRADER
from engine.markets import CONSOL, FINAL, ID, INPUT_1, INPUT_2, SHARE_FIRST
from engine.state import (
    BANK,
    BENEFIT_DAY,
    CONSUMPTION_REAL,
    EXPECTED_STEP_Q8,
    GINI,
    LEDGER_SUM,
    LOAN_RATE_Q32,
    LOANS,
    SUBSISTENCE,
    TAX_DAY,
    TOTAL_SKILL,
    TRANSFER,
    VELOCITY,
    WAGE,
    State,
    array_fields,
    new_state,
    persistent,
    state_hash,
)

HOUSEHOLDS = 14_400


def start(seed: int = 1, **changes: int) -> State:
    config = Config(**{"residents": 20_000, "max_agents": 64, "order_book_max": 4_096, **changes})
    state = new_state(config)
    calibrate(state, config, seed)
    return state


@pytest.fixture(scope="module")
def world() -> State:
    return start()


@pytest.mark.parametrize(
    ("name", "output", "hours_q16"),
    [
        ("oil", 0.03524, 1972),
        ("lithium", 0.01764, 2038),
        ("rare_earths", 0.00655, 2004),
        ("fresh_water", 0.04000, 1396),
        ("arable_land", 0.03182, 1589),
        ("carbon_credits", 0.01798, 1786),
        ("intellectual_property", 0.03636, 1682),
        ("energy", 0.13982, 1996),
        ("chemicals", 0.03636, 1996),
        ("materials", 0.04000, 1996),
        ("machinery", 0.01818, 1996),
        ("food", 0.18182, 1996),
        ("housing", 0.13636, 1996),
        ("electronics", 0.06545, 1996),
        ("transport", 0.09091, 1996),
        ("healthcare", 0.09091, 1996),
        ("clothing", 0.09091, 1996),
        ("education", 0.04545, 1996),
        ("vehicles", 0.04545, 1996),
    ],
)
def test_gross_output_and_hours_are_the_check_figures(world: State, name: str, output: float, hours_q16: int) -> None:
    market = ID[name]

    assert gross_output()[market] == pytest.approx(output, abs=5e-6)
    assert round(world.base_hours[market] * 65536) == hours_q16


def test_the_input_output_system_is_solved() -> None:
    output = gross_output()

    used = np.zeros(32)
    for good in range(8, 24):
        used[INPUT_1[good]] += 0.2 * output[good]
        used[INPUT_2[good]] += 0.1 * output[good]
    left = output - used

    assert left[[ID[name] for name in FINAL]].sum() == pytest.approx(1.0)
    assert output.sum() == pytest.approx(1.34904, abs=5e-6)
    assert np.allclose(left[1:8], 0.0)


def test_hours_per_consumed_lot_is_the_check_figure(world: State) -> None:
    assert hours_per_consumed_lot(world.base_hours) == pytest.approx(0.040882, abs=5e-7)


def test_unit_costs_leave_the_markup(world: State) -> None:
    """At 20 credits an hour and inputs at 1 credit every good and resource costs 1 / 1.1 credit."""
    for market in range(1, 24):
        scarcity = start_scarcity(market)
        hours = world.base_hours[market] * (1 + 0.5 * scarcity)
        importance = (0.9, 0.8, 0.85, 0.95, 0.7, 0.5, 0.6)[market - 1] if market <= 7 else 0.0
        inputs = 0.3 if market >= 8 else 0.0

        assert 20 * hours * (1 + 3 * scarcity * importance) + inputs == pytest.approx(1 / 1.1)
        assert (
            world.ladder[world.cost_level[market] - 1]
            < world.unit_cost[market]
            <= world.ladder[world.cost_level[market]]
        )


def test_every_phase_offers_equal_hours(world: State) -> None:
    layout = world.layout
    offered = np.zeros(24, np.int64)
    for b in np.flatnonzero(layout.block_type == HOUSEHOLD):
        offered[layout.block_phase[b]] += world.skill[layout.block_start[b] : layout.block_end[b]].sum()

    assert offered.max() - offered.min() <= 0.03 * offered.mean()
    assert offered.sum() == world.counters[TOTAL_SKILL]


def test_skills_are_pareto_and_independent_of_the_home_asset(world: State) -> None:
    assert world.skill.min() >= 3
    assert world.skill.max() <= 400
    assert world.skill.mean() == pytest.approx(8.27, abs=0.25)
    assert (world.skill >= 20).mean() == pytest.approx((4.5 / 19.5) ** 2.2, abs=0.006)
    homes = np.repeat(world.layout.block_home, world.layout.block_end - world.layout.block_start)[:HOUSEHOLDS]
    log_skill = np.log(world.skill)
    means = [log_skill[homes == asset].mean() for asset in range(SHARE_FIRST, CONSOL + 1)]
    assert max(means) - min(means) < 0.07


def test_dealing_keeps_every_drawn_skill() -> None:
    """Skills come from one draw per household: the multiset does not depend on how they are dealt."""
    from engine.arithmetic import half_even, power_of
    from engine.rng import draw, key

    state = start(residents=2_000)
    k0, k1 = (np.uint32(word) for word in key((1).to_bytes(32, "little"), 0, 60))
    drawn = []
    for i in range(state.layout.households):
        u = int(draw(i, k0, k1)) / 2**32
        drawn.append(min(400, max(3, half_even(min(1e3, 4.5 * power_of(u, -1 / 2.2))))))

    assert sorted(drawn) == sorted(state.skill.tolist())


def test_money_is_where_the_specification_puts_it(world: State) -> None:
    layout, cash = world.layout, world.cash
    money = int(cash.sum() + world.pools.sum())

    assert money / HOUSEHOLDS / 1e6 == pytest.approx(83_000, rel=0.04)
    assert cash[:HOUSEHOLDS].sum() / money == pytest.approx(0.41, abs=0.015)
    assert cash[HOUSEHOLDS : layout.trader_first].sum() / money == pytest.approx(0.01, abs=0.003)
    assert cash[layout.trader_first :].sum() / money == pytest.approx(0.57, abs=0.02)
    assert world.pools.sum() / money == pytest.approx(0.005, abs=0.002)
    assert world.macro[VELOCITY] == pytest.approx(0.83, abs=0.03)


def test_the_ledger_sums_to_exactly_zero(world: State) -> None:
    accounts = int(world.cash.sum()) + int(world.pools.sum()) + int(world.ledger[:LOANS].sum())

    assert accounts == 0
    assert world.counters[LEDGER_SUM] == 0
    assert world.ledger[LOANS] == world.debt.sum() == -world.ledger[BANK]


def test_shares_cost_what_their_dividends_are_worth(world: State) -> None:
    for market in range(SHARE_FIRST, CONSOL):
        worth = 8_640 * int(world.income_per_lot[market]) / 0.07
        assert world.ladder[world.level[market] - 1] < worth <= world.price[market]
        assert 300e6 < world.price[market] < 9_000e6
        pool = world.pools[market - SHARE_FIRST]
        assert pool == 240 * world.income_per_lot[market] * world.shares_out[market]
    assert world.price[CONSOL] / 1e6 == pytest.approx(99.94, abs=0.01)


def test_holdings_add_up_to_what_is_outstanding(world: State) -> None:
    layout = world.layout
    held = np.zeros(32, np.int64)
    for b in range(layout.blocks):
        rows = slice(layout.block_start[b], layout.block_end[b])
        if layout.block_type[b] == HOUSEHOLD:
            held[layout.block_home[b]] += world.shares[rows].sum()
    by_households = held.copy()
    for b in np.flatnonzero(layout.block_type == TRADER):
        rows = slice(layout.block_start[b] - layout.trader_first, layout.block_end[b] - layout.trader_first)
        held[layout.block_home[b]] += world.inventory[rows].sum()

    assert np.array_equal(held[24:], world.shares_out[24:])
    assert np.array_equal(held[24:] - by_households[24:], by_households[24:] // 2)


def test_base_share_is_the_share_of_wealth_in_the_home_asset(world: State) -> None:
    rows = np.flatnonzero(np.repeat(world.layout.block_home, world.layout.block_end - world.layout.block_start) == 31)
    rows = rows[rows < HOUSEHOLDS]
    value = int(world.shares[rows].sum()) * int(world.price[31])

    assert world.base_share_q15[31] == int(32768 * value / (value + int(world.cash[rows].sum())))
    assert (world.base_share_q15[24:] > 0.3 * 32768).all()
    assert (world.base_share_q15[24:] < 0.95 * 32768).all()


def test_the_banks_profit_is_the_interest_of_the_others(world: State) -> None:
    output = gross_output() * 1e6

    profits = sector_profits(output, world.base_hours)

    revenue = output.sum()
    gross = 0.0
    for m in range(1, 24):
        hours = world.base_hours[m] * (1 + 0.5 * start_scarcity(m))
        gross += output[m] * (1 - 20 * hours - (0.3 if m >= 8 else 0.0))
    assert profits[6] == pytest.approx(20 * revenue * 0.07 / 360)
    assert sum(profits) == pytest.approx(gross)


def test_producers_hold_days_of_sales(world: State) -> None:
    sales = world.debt / 20e6

    assert np.abs(world.out - 4 * sales).max() <= 1
    assert np.abs(world.in1[: world.layout.firms] - 0.8 * sales[: world.layout.firms]).max() <= 1
    assert np.abs(world.sales_ema - np.maximum(16, 16 * sales)).max() <= 1
    assert not world.in1[world.layout.firms :].any()
    assert np.abs(world.ask - 46_054 + 0.5).max() <= 100
    consumption = world.macro[CONSUMPTION_REAL] / 1e6
    assert sales.sum() == pytest.approx(1.34904 * consumption, rel=1e-4)


def test_blocks_of_a_market_sell_equal_amounts(world: State) -> None:
    layout = world.layout
    for market in (1, 9, 20):
        sums = [
            world.debt[layout.block_start[b] - HOUSEHOLDS : layout.block_end[b] - HOUSEHOLDS].sum()
            for b in np.flatnonzero(layout.block_home == market)
            if layout.block_type[b] not in (HOUSEHOLD, TRADER)
        ]
        assert max(sums) - min(sums) <= 1e-6 * max(sums)


def test_reserves_begin_at_their_scarcity(world: State) -> None:
    consumption = world.macro[CONSUMPTION_REAL] / 1e6

    assert world.reserves_base[0] == int(gross_output()[1] * consumption / 0.0006)
    assert world.reserves[:3] / world.reserves_base[:3] == pytest.approx(0.85, abs=1e-6)
    assert world.reserves[3:] / world.reserves_base[3:] == pytest.approx(0.7, abs=1e-6)
    assert world.scarcity == pytest.approx([0.15] * 3 + [0.3] * 4, abs=1e-5)
    assert world.multiplier[0] == pytest.approx(1.405, abs=1e-5)


def test_start_values_of_the_minds_and_markets(world: State) -> None:
    assert set(world.sentiment.tolist()) == {16_384}
    assert set(world.fear.tolist()) == {1_500}
    assert set(world.confidence.tolist()) == {24_000}
    assert world.target_fear.tolist() == [1_308] * 32
    assert world.target_greed.tolist() == [1_046] * 32
    assert world.target_sentiment.tolist() == [16_350] * 32
    assert world.target_confidence.tolist() == [24_075] * 32
    assert world.vm_q8.tolist() == [280] * 32
    assert world.visit_share_q16[[ID[name] for name in FINAL]].tolist() == [2_978] * 13
    assert world.sigma_q4[[1, 24, 31]].tolist() == [153, 115, 57]
    assert world.level[[0, 1, 23]].tolist() == [76_013, 46_054, 46_054]
    assert world.income_per_lot[31] == 694
    assert np.array_equal(world.fundamental, world.level)
    assert world.input1_q16[8:24].tolist() == [13_107] * 16
    assert world.input2_q16[8:24].tolist() == [6_553] * 16


def test_start_values_of_the_macro_economy(world: State) -> None:
    skill = int(world.counters[TOTAL_SKILL])
    coupons = 24 * 694 * int(world.shares_out[31])

    assert world.macro[TAX_DAY] == pytest.approx(0.2 * 0.95 * skill * 20e6)
    assert world.macro[BENEFIT_DAY] == pytest.approx(0.05 * skill * 8e6)
    assert world.macro[TRANSFER] == pytest.approx((0.19 * skill * 20e6 - 0.05 * skill * 8e6 - coupons) / HOUSEHOLDS)
    assert world.counters[SUBSISTENCE] == 19_000_000
    assert world.counters[WAGE] == 20_000_350
    assert world.counters[EXPECTED_STEP_Q8] == 142
    assert world.counters[LOAN_RATE_Q32] == int(0.07 / 360 * 2**32)
    assert world.macro[CONSUMPTION_REAL] / HOUSEHOLDS / 1e6 == pytest.approx(192, abs=6)
    assert 0.5 < world.macro[GINI] < 0.8


def test_reservation_wages_lie_around_the_wage_less_the_spread(world: State) -> None:
    offsets = world.reserve_wage - (76_013 - 461)

    assert offsets.min() >= -512
    assert offsets.max() <= 511
    assert offsets[0] == -512
    assert offsets[1] == (2_654_435_761 >> 7) % 1024 - 512
    assert abs(offsets.mean()) < 10


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    assert state_hash(start(3, residents=2_000)) == state_hash(start(3, residents=2_000))
    assert state_hash(start(3, residents=2_000)) != state_hash(start(4, residents=2_000))


def test_no_array_is_left_out_of_the_start(world: State) -> None:
    """What stays zero is zero on purpose: orders, moods of the past, counts since the start, outside agents."""
    zero = {name for name, array in persistent(world) if array.size and not array.any()}

    assert zero == {
        "ord_level", "ord_qty", "hours", "day_sales", "sell_level", "sell_qty", "returns", "halt_until", "kyle_xy",
        "kyle_xx", "variance", "news", "trend_fast", "trend_slow", "panic_bias", "group_draw", "is_panic",
        "is_euphoria", "is_volatile", "quota", "extracted_day", "goods_made", "goods_gone", "reserves_added",
        "reserves_lost", "days", "estate", "daily_volume", "outside_flow", "outside_move",
    }  # fmt: skip


def test_refresh_changes_nothing_that_persists(world: State) -> None:
    before = state_hash(world)

    refresh(world, Config(residents=20_000, max_agents=64, order_book_max=4_096))

    assert state_hash(world) == before
    assert world.mood_count.sum() == 20_000
    assert world.mood_count[0] == 0


def test_every_holding_of_the_start_is_counted(world: State) -> None:
    layout = world.layout
    raw = np.zeros(32, np.int64)
    for b in np.flatnonzero((layout.block_type != HOUSEHOLD) & (layout.block_type != TRADER)):
        home, rows = layout.block_home[b], slice(layout.block_start[b] - HOUSEHOLDS, layout.block_end[b] - HOUSEHOLDS)
        raw[home] += world.out[rows].sum()
        if INPUT_1[home] >= 0:
            raw[INPUT_1[home]] += world.in1[rows].sum()
            raw[INPUT_2[home]] += world.in2[rows].sum()

    assert np.array_equal(raw[8:24], world.goods_initial[8:24])
    assert world.goods_initial[1:8].sum() == raw[1:8].sum() + world.inventory[: _raw_traders(world)].sum()
    assert np.array_equal(world.goods_initial[24:], world.shares_out[24:])
    assert world.goods_initial[0] == 0


def _raw_traders(world: State) -> int:
    layout = world.layout
    last = np.flatnonzero((layout.block_type == TRADER) & (layout.block_home <= 7))[-1]
    return int(layout.block_end[last] - layout.trader_first)


def test_arrays_keep_their_declared_types(world: State) -> None:
    for item in array_fields():
        assert getattr(world, item.name).dtype == item.metadata["dtype"], item.name
