"""Money is booked account by account and steered by named formulas: by hand, and against the naive twin."""

from __future__ import annotations

import numpy as np
import pytest

from engine import state as at
from engine.config import Config
from engine.errors import InvariantBroken
from engine.phases import monetary
from engine.phases.monetary import (
    check_quantity_identity,
    consumption_factor,
    debt_target_days,
    inflation_formula,
    input_coefficient,
    taylor_rule,
    velocity_of_money,
)
from engine.state import State
from tests.support.macro_states import CONFIG, begin_tick, changed_arrays, disturbed_state, fresh_state
from tests.support.naive_macro import NaiveMacro

NO_POLICY = Config(residents=2_000, max_agents=8, order_book_max=1_024, policy_active=False)


def test_inflation_formula_has_five_terms_that_sum() -> None:
    """base .02, money growth 6 %, velocity +10 %, gap -2 %, greed .3, fear .1, sentiment .6."""
    terms = inflation_formula(0.02, 0.06, 0.10, -0.02, 0.3, 0.1, 0.6)

    assert terms == pytest.approx((0.02, 0.01, 0.01, -0.006, 0.006))
    assert sum(terms) == pytest.approx(0.04)


def test_inflation_formula_is_the_base_rate_in_a_steady_economy() -> None:
    assert sum(inflation_formula(0.02, 0.02, 0.0, 0.0, 0.1, 0.1, 0.5)) == pytest.approx(0.02)


def test_the_published_formula_is_the_sum_of_its_published_terms() -> None:
    state = disturbed_state(3)
    begin_tick(state, 23)
    state.macro[at.GREED] = 0.3

    monetary.step(state, CONFIG)

    terms = state.macro[[at.TERM_BASE, at.TERM_MONEY, at.TERM_VELOCITY, at.TERM_DEMAND, at.TERM_BEHAVIOUR]]
    assert state.macro[at.INFLATION_FORMULA] == pytest.approx(terms.sum(), abs=1e-15)
    assert (terms != 0.0).all()


@pytest.mark.parametrize(
    ("inflation", "unemployment", "rate"),
    [
        (0.02, 0.05, 0.04),  # neutral
        (0.04, 0.05, 0.07),  # 1.5 points a point of inflation
        (0.02, 0.07, 0.02),  # a point a point of unemployment
        (0.10, 0.05, 0.16),
        (0.12, 0.05, 0.20),  # automatic tightening: another half point above 10 %
        (-0.05, 0.10, 0.0),
        (0.60, 0.05, 0.5),
    ],
)
def test_taylor_rule(inflation: float, unemployment: float, rate: float) -> None:
    assert taylor_rule(inflation, 0.02, unemployment) == pytest.approx(rate, abs=1e-12)


def test_taylor_rule_leans_on_the_target() -> None:
    assert taylor_rule(0.03, 0.05, 0.05) == pytest.approx(0.04)


def test_consumption_factor_and_its_bounds() -> None:
    assert consumption_factor(0.04, 0.02) == pytest.approx(1.0)
    assert consumption_factor(0.06, 0.02) == pytest.approx(0.97)
    assert consumption_factor(0.5, 0.0) == 0.82
    assert consumption_factor(0.0, 0.1) == 1.08


def test_debt_target_days_halve_while_tightening() -> None:
    assert debt_target_days(0.04, False) == pytest.approx(20.0)
    assert debt_target_days(0.09, False) == pytest.approx(16.0)
    assert debt_target_days(0.09, True) == pytest.approx(8.0)
    assert debt_target_days(0.30, True) == 4.0


def test_velocity_is_a_years_spending_over_money() -> None:
    assert velocity_of_money(10.0, 4_500.0) == pytest.approx(0.8)


def test_input_coefficients_move_a_twentieth_toward_the_ces_optimum() -> None:
    """An input four times as dear is used half as much: 13 107 -> 13 107 + int(-6 553.5 / 20)."""
    assert input_coefficient(13_107, 13_107, 1.0) == 13_107
    assert input_coefficient(13_107, 13_107, 4.0) == 13_107 - 327
    assert input_coefficient(13_107, 13_107, 1e9) == 13_107 + int(-0.75 * 13_107 / 20)
    assert input_coefficient(6_553, 6_553, 1e-9) == 6_553 + int(0.5 * 6_553 / 20)


def accounts(state: State) -> int:
    return int(state.pools.sum()) + int(state.ledger[:3].sum())


def test_every_flow_ends_in_its_account() -> None:
    """One flow at a time: what leaves the residents enters exactly one account."""
    expected = {
        at.FLOW_TAX: ("treasury", 1), at.FLOW_BENEFIT: ("treasury", -1), at.FLOW_TRANSFER: ("treasury", -1),
        at.FLOW_ADVANCE_PAID: ("treasury", -1), at.FLOW_ADVANCE_BACK: ("treasury", 1),
        at.FLOW_ESTATE_SOLD: ("treasury", 1), at.FLOW_ESTATE_INCOME: ("treasury", 1),
        at.FLOW_LOANS_NEW: ("bank", -1), at.FLOW_LOANS_REPAID: ("bank", 1), at.FLOW_INTEREST: ("bank", 1),
        at.FLOW_OUTSIDE_LOANS_NEW: ("bank", -1), at.FLOW_OUTSIDE_REPAID: ("bank", 1),
        at.FLOW_OUTSIDE_INTEREST: ("bank", 1), at.FLOW_FUND_INCOME: ("fund", 1), at.FLOW_FUND_PAID: ("fund", -1),
    }  # fmt: skip
    for flow in range(at.FLOWS):
        state = fresh_state()
        state.income_per_lot[:] = 0
        ledger, pools = state.ledger.copy(), state.pools.copy()
        state.flows[flow] = 1_000_000

        monetary.step(state, CONFIG)

        change = dict(zip(("treasury", "bank", "central_bank", "loans"), (state.ledger - ledger).tolist(), strict=True))
        change["fund"] = int(state.pools[7] - pools[7])
        loans = {
            at.FLOW_LOANS_NEW: 1, at.FLOW_OUTSIDE_LOANS_NEW: 1, at.FLOW_LOANS_REPAID: -1, at.FLOW_OUTSIDE_REPAID: -1,
            at.FLOW_WRITTEN_OFF: -1, at.FLOW_OUTSIDE_WRITTEN_OFF: -1,
        }  # fmt: skip
        account, sign = expected.get(flow, ("none", 0))
        for name in ("treasury", "bank", "central_bank", "fund"):
            assert change[name] == (1_000_000 * sign if name == account else 0), (flow, name)
        assert change["loans"] == 1_000_000 * loans.get(flow, 0), flow
        assert np.array_equal(state.pools[:7], pools[:7])


def test_dividends_enter_their_sectors_pool_and_leave_by_income_per_lot() -> None:
    state = fresh_state()
    pools, income = state.pools.copy(), state.income_per_lot.copy()
    state.dividends[1] = 5_000  # oil: energy
    state.dividends[10] = 7_000  # housing: property

    monetary.step(state, CONFIG)

    paid = income[24:31] * state.shares_out[24:31]
    expected = pools[:7] - paid + np.array([5_000, 0, 0, 0, 7_000, 0, 0])
    assert np.array_equal(state.pools[:7], expected)
    assert np.array_equal(state.income_per_lot[24:31], expected // (240 * state.shares_out[24:31]))
    assert state.income_per_lot[31] == 694


def test_coupons_are_paid_by_the_treasury() -> None:
    state = fresh_state()

    monetary.step(state, CONFIG)

    assert state.ledger[at.TREASURY] == -694 * int(state.shares_out[31])


def test_the_bank_pays_out_a_thirtieth_of_its_equity_once_a_day() -> None:
    for tick, equity, paid in ((5, 3_000, 100), (6, 3_000, 0), (5, -3_000, 0), (29, 29, 0)):
        state = fresh_state(tick=tick)
        state.income_per_lot[:] = 0
        state.ledger[at.BANK] += equity
        bank, pool = int(state.ledger[at.BANK]), int(state.pools[6])

        monetary.step(state, CONFIG)

        assert state.ledger[at.BANK] == bank - paid
        assert state.pools[6] == pool + paid


def test_the_fund_pays_per_hour_of_skill_and_never_below_zero() -> None:
    state = fresh_state()
    skill = int(state.counters[at.TOTAL_SKILL])

    state.pools[7] = 3 * skill + 1
    monetary.step(state, CONFIG)
    assert state.counters[at.FUND_RATE] == 3

    state.pools[7] = -1
    monetary.step(state, CONFIG)
    assert state.counters[at.FUND_RATE] == 0


def test_the_phase_neither_makes_nor_loses_money() -> None:
    """What the residents paid and received by flow is what the other accounts change by, on any tick."""
    for seed in range(10):
        state = disturbed_state(seed)
        before = accounts(state)
        f = state.flows.tolist()
        residents = (
            f[at.FLOW_BENEFIT] + f[at.FLOW_TRANSFER] + f[at.FLOW_FUND_PAID] - f[at.FLOW_TAX]
            + f[at.FLOW_LOANS_NEW] - f[at.FLOW_LOANS_REPAID] - f[at.FLOW_INTEREST]
            + f[at.FLOW_OUTSIDE_LOANS_NEW] - f[at.FLOW_OUTSIDE_REPAID] - f[at.FLOW_OUTSIDE_INTEREST]
            + f[at.FLOW_ADVANCE_PAID] - f[at.FLOW_ADVANCE_BACK] - f[at.FLOW_ESTATE_SOLD] - f[at.FLOW_ESTATE_INCOME]
            - f[at.FLOW_FUND_INCOME] - int(state.dividends.sum())
            + int((state.income_per_lot[24:] * state.shares_out[24:]).sum())
        )  # fmt: skip

        monetary.step(state, CONFIG)

        assert accounts(state) - before == -residents


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("config", [CONFIG, NO_POLICY], ids=["policy", "no policy"])
def test_step_agrees_with_its_naive_twin(seed: int, config: Config) -> None:
    state = disturbed_state(seed)
    twin = NaiveMacro(state, config)

    monetary.step(state, config)
    twin.ledger_table()
    twin.day_sums()
    if state.tick % 24 == 23:
        twin.day_end()

    for name in ("pools", "ledger", "income_per_lot", "visit_share_q16", "input1_q16", "input2_q16"):
        assert getattr(state, name).tolist() == getattr(twin, name), name
    # money is summed in another order, so to a part in 10^9
    assert state.macro.tolist() == pytest.approx(_with_terms(state, twin.macro), rel=1e-9, abs=1e-13)
    assert state.counters.tolist() == pytest.approx(twin.counters, rel=1e-9)
    assert state.days.ravel().tolist() == pytest.approx([x for row in twin.days for x in row], rel=1e-12)


def _with_terms(state: State, macro: list[float]) -> list[float]:
    """The twin has no terms and keeps no last day; those have tests of their own."""
    own = (
        at.TERM_BASE, at.TERM_MONEY, at.TERM_VELOCITY, at.TERM_DEMAND, at.TERM_BEHAVIOUR, at.GDP_NOMINAL_LAST,
        at.MONEY_LAST,
    )  # fmt: skip
    return [float(state.macro[k]) if k in own else value for k, value in enumerate(macro)]


def run_day(state: State, config: Config, cpi_growth: float = 0.0) -> None:
    """Advance the ledger by a day in which every price grows by a factor at once and people spend as usual."""
    first = int(state.counters[at.DAY]) * 24
    state.price[8:24] = (state.price[8:24] * (1.0 + cpi_growth)).astype(np.int64)
    for tick in range(first, first + 24):
        begin_tick(state, tick)
        state.flows[at.FLOW_NOMINAL] = int(state.macro[at.POTENTIAL] / 24)
        state.flows[at.FLOW_REAL] = int(state.macro[at.POTENTIAL] / 24e6)
        state.flows[at.FLOW_EMPLOYED], state.flows[at.FLOW_UNEMPLOYED] = 95, 5
        monetary.step(state, config)


def test_money_times_velocity_is_price_times_output() -> None:
    state = fresh_state()
    run_day(state, CONFIG, 0.01)

    money, velocity = state.macro[at.MONEY_LAST], state.macro[at.VELOCITY]
    spent = 360 * state.macro[at.GDP_NOMINAL_LAST]
    assert abs(money * velocity / spent - 1) < 1e-12
    check_quantity_identity(state)

    state.macro[at.VELOCITY] *= 1 + 1e-11
    with pytest.raises(InvariantBroken, match="M V"):
        check_quantity_identity(state)


def test_day_values_are_means_over_the_day() -> None:
    state = fresh_state()

    run_day(state, CONFIG)

    assert state.counters[at.DAY] == 1
    assert state.days[0, 0] == pytest.approx(1.0)
    assert state.macro[at.UNEMPLOYMENT] == pytest.approx(0.05)
    assert state.macro[at.VELOCITY] == pytest.approx(360 * state.macro[at.GDP_NOMINAL_LAST] / state.days[1, 0])
    assert not state.macro[at.DAY_CPI : at.DAY_COUPON + 1].any()


def test_a_quarter_of_inflation_is_annualised() -> None:
    """Prices grow by 1 % on day 50: from day 90 to 139 quarterly inflation is 1.01^4 - 1, then 0."""
    state = fresh_state()
    quarterly = []
    for day in range(145):
        run_day(state, CONFIG, 0.01 if day == 50 else 0.0)
        quarterly.append(float(state.macro[at.INFLATION_QUARTERLY]))

    assert quarterly[89] == 0.02
    assert quarterly[90:140] == pytest.approx([1.01**4 - 1] * 50, abs=1e-5)
    assert quarterly[140:] == pytest.approx([0.0] * 5, abs=1e-5)


def test_runaway_prices_bring_tightening_and_falling_ones_easing() -> None:
    state = fresh_state()
    turned = []
    for _ in range(60):
        run_day(state, CONFIG, 0.002)
        turned.append(int(state.turns[at.TURN_TIGHTENING, 0]))

    assert sum(turned) == 1
    assert state.counters[at.TIGHTENING] == 1
    assert state.macro[at.INFLATION_TREND] > 0.10
    assert state.macro[at.POLICY_RATE] > 0.10
    assert state.macro[at.RHO] < 1.0
    tight = float(state.macro[at.TRANSFER])

    for _ in range(250):
        run_day(state, CONFIG, -0.0005)

    assert state.counters[at.TIGHTENING] == 0
    assert state.counters[at.EASING] == 1
    assert state.macro[at.POLICY_RATE] < 0.012
    assert state.macro[at.TRANSFER] > tight


def test_without_policy_the_rate_stays_and_nothing_is_switched() -> None:
    state = fresh_state()
    for _ in range(60):
        run_day(state, NO_POLICY, 0.002)

    assert state.macro[at.POLICY_RATE] == 0.04
    assert state.macro[at.RHO] == 1.0
    assert state.counters[at.TIGHTENING] == 0
    assert state.macro[at.INFLATION_TREND] > 0.10
    assert state.macro[at.EXPECTED_INFLATION] != 0.02


def test_the_stabiliser_pays_more_when_many_are_without_work() -> None:
    transfers = []
    for unemployed in (5, 15):
        state = fresh_state()
        for _ in range(10):
            run_day(state, CONFIG)
            state.macro[at.UNEMPLOYMENT] = unemployed / 100
        transfers.append(float(state.macro[at.TRANSFER]))

    assert transfers[1] > transfers[0]


def test_wealthier_prices_move_the_baskets() -> None:
    """Food four times as dear: households spend a larger share on it, producers use half of what needs it."""
    state = fresh_state(tick=22)
    state.price[9] *= 4
    begin_tick(state, 23)

    monetary.step(state, CONFIG)

    cpi = 1 + 4 / 22 * 3
    mass = 18 * (1 / cpi) ** 0.5 + 4 * (4 / cpi) ** 0.5
    assert state.macro[at.CPI] == pytest.approx(cpi)
    assert state.visit_share_q16[9] == int((4 / cpi) ** 0.5 / mass * 65536)
    assert state.counters[at.SUBSISTENCE] == (8 * 4 + 11) * 1_000_000


def test_the_phase_writes_exactly_what_it_says() -> None:
    states = (disturbed_state(seed) for seed in range(12))

    assert changed_arrays(monetary.step, states, CONFIG) == set(monetary.WRITES)
