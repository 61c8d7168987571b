"""The behaviour phase against its naive twin on random worlds, its bounds, and its independence of threads."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import state as places
from engine.config import Config
from engine.ladder import LEVELS
from engine.layout import HOUSEHOLD
from engine.markets import MARKUP_BP
from engine.phases import behaviour
from engine.phases._kernels import quotient
from engine.phases._orders import fills
from engine.phases._producers import asked_markup
from engine.phases._traders import GROUP
from engine.state import CENTRE, SLOTS, State, array_fields
from tests.support.deadlines import seconds
from tests.support.naive_behaviour import NaiveBehaviour
from tests.support.random_states import random_state
from tests.support.worlds import in_threads

ROOT = Path(__file__).resolve().parents[3]
CONFIG = Config(residents=2_000, max_agents=1, order_book_max=1_024)
SUMS = ("flows", "goods_flow", "dividends", "mood_sum")
SEEDS = range(2 if os.environ.get("NUMBA_DISABLE_JIT") == "1" else 12)
"""Random worlds; interpreted kernels need half a second for one."""


def differences(state: State, twin: NaiveBehaviour) -> list[str]:
    """Return the names of the arrays in which the phase and its twin differ."""
    names = [n for n in NaiveBehaviour.CHANGED + SUMS if getattr(state, n).tolist() != getattr(twin, n)]
    return names + ([] if book(state) == twin.book else ["histogram"])


def book(state: State) -> dict[tuple[int, int, int], int]:
    """Return the histogram as (market, side, level) -> lots."""
    merged = state.histogram.sum(axis=0)
    return {
        (m, side, slot - CENTRE + int(state.level[m])): int(merged[m, side, slot])
        for m, side, slot in np.argwhere(merged).tolist()
    }


def touched(state: State) -> list[tuple[int, int]]:
    """Return the lowest and highest touched slot of each market over all threads."""
    return list(
        zip(state.touched[:, :, 0].min(axis=0).tolist(), state.touched[:, :, 1].max(axis=0).tolist(), strict=True)
    )


def stepped(seed: int, config: Config = CONFIG) -> State:
    """Return a random state after one step."""
    state = random_state(config, seed)
    behaviour.step(state, config)
    return state


def close_markets(state: State) -> None:
    """Make the auction one in which nothing was traded."""
    state.margin_level[0], state.margin_level[1] = LEVELS, -1


def digest(state: State) -> str:
    """Return a digest of all that the phase writes."""
    whole = hashlib.blake2b(digest_size=16)
    for name in behaviour.WRITES:
        whole.update(getattr(state, name).tobytes())
    return whole.hexdigest()


# --- the twin ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_step_equals_its_naive_twin(seed: int) -> None:
    """Every array, every sum and the next histogram are the twin's, bit for bit."""
    state = random_state(CONFIG, seed)
    twin = NaiveBehaviour(state, CONFIG.max_price_change)

    behaviour.step(state, CONFIG)
    twin.run()

    assert differences(state, twin) == []


@pytest.mark.parametrize("change", [0.01, 0.1, 0.3])
def test_step_equals_its_twin_with_a_smaller_window(change: float) -> None:
    """Limits are cut to the window or lapse when max_price_change is smaller than they assume."""
    config = Config(residents=2_000, max_agents=1, order_book_max=1_024, max_price_change=change)
    state = random_state(config, 100)
    twin = NaiveBehaviour(state, change)

    behaviour.step(state, config)
    twin.run()

    assert differences(state, twin) == []


def test_step_equals_its_twin_when_nothing_was_traded() -> None:
    """Halted markets: no fill at all, benefits for everybody whose hour it was."""
    state = random_state(CONFIG, 200)
    close_markets(state)
    twin = NaiveBehaviour(state, CONFIG.max_price_change)

    behaviour.step(state, CONFIG)
    twin.run()

    assert differences(state, twin) == []
    assert state.flows[places.FLOW_TAX] == state.flows[places.FLOW_NOMINAL] == 0


def test_random_worlds_reach_every_flow() -> None:
    """The comparison would say little if loans, write-offs or marginal fills never happened in it."""
    totals = np.sum([stepped(seed).flows for seed in range(6)], axis=0)

    reached = [name for name in dir(places) if name.startswith("FLOW_") and totals[getattr(places, name)] != 0]

    own = [
        name
        for name in dir(places)
        if name.startswith("FLOW_") and not name.startswith(("FLOW_OUT", "FLOW_AD", "FLOW_ES"))
    ]
    assert reached == own


def test_interpreted_kernels_give_the_same_bits() -> None:
    """NUMBA_DISABLE_JIT=1: the same digest, without a warning, and no index past an array's end."""
    code = (
        "import sys\n"
        "from tests.engine.phases.test_behaviour import digest, stepped\n"
        "sys.stdout.write(digest(stepped(7)) + ' ' + digest(stepped(8)))"
    )

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=seconds(100),
        check=True,
    )

    assert done.stdout.split() == [digest(stepped(7)), digest(stepped(8))]


# --- threads, histogram, declared writes ------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_change_nothing(threads: int) -> None:
    """Ranges in a pool of threads: the same residents, sums and histogram."""
    one = stepped(3)
    many = random_state(CONFIG, 3, threads, in_threads(threads))

    behaviour.step(many, CONFIG)

    names = [name for name in behaviour.WRITES if name not in ("histogram", "touched")]
    assert [n for n in names if not np.array_equal(getattr(one, n), getattr(many, n))] == []
    assert np.array_equal(one.histogram.sum(axis=0), many.histogram.sum(axis=0))
    assert touched(one) == touched(many)


@pytest.mark.parametrize("seed", [0, 5])
def test_rebuilt_histogram_is_the_one_step_left(seed: int) -> None:
    """Histograms follow from the standing orders, so a snapshot need not hold them."""
    state = stepped(seed)
    before, reach = book(state), touched(state)

    state.histogram[:] = 77
    behaviour.rebuild_histogram(state, CONFIG)

    assert book(state) == before
    assert touched(state) == reach


def test_touched_is_exactly_where_orders_stand() -> None:
    """prices clears only what was touched, so it must cover every order; and nothing when there is none."""
    state = stepped(4)

    for (low, high), sides in zip(touched(state), state.histogram.sum(axis=0), strict=True):
        slots = np.flatnonzero(sides.sum(axis=0))
        assert (low, high) == ((slots[0], slots[-1]) if len(slots) else (SLOTS, -1))


def test_writes_names_exactly_what_changes() -> None:
    """The declared data flow is the one in memory."""
    state = random_state(CONFIG, 1)
    before = {item.name: getattr(state, item.name).copy() for item in array_fields()}

    behaviour.step(state, CONFIG)

    changed = {name for name, array in before.items() if not np.array_equal(array, getattr(state, name))}
    assert changed == set(behaviour.WRITES)


# --- what must always hold --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_standing_orders_are_covered(seed: int) -> None:
    """Every buy is paid by cash at its limit, every sell by what is held: fills can never make anything negative."""
    state = stepped(seed)
    layout = state.layout
    bids = state.ord_qty > 0
    cost = state.ord_qty[bids].astype(np.int64) * state.ladder[state.ord_level[bids]]
    assert bool((cost <= state.cash[bids]).all())

    following = layout.markets_at(state.tick + 1)
    works = np.repeat(following == 0, layout.block_end - layout.block_start)[: layout.households]
    sold = -state.ord_qty[: layout.households]
    assert bool((sold <= np.where(works, state.skill, state.shares)).all())
    assert bool((-state.ord_qty[layout.trader_first :] <= state.inventory).all())
    assert bool((state.ord_qty[layout.households : layout.trader_first] >= 0).all())
    assert bool(((state.sell_qty >= 0) & (state.sell_qty <= state.out)).all())


@pytest.mark.parametrize("seed", range(3))
def test_limits_stay_inside_the_window_or_lapse(seed: int) -> None:
    """No bid above the top, no sell below the bottom; the histogram holds nothing outside."""
    state = stepped(seed)
    merged = state.histogram.sum(axis=0)

    assert merged[:, :, : CENTRE - places.WINDOW_DOWN].sum() == 0
    assert merged[:, :, CENTRE + places.WINDOW_UP + 1 :].sum() == 0


def test_moods_stay_between_zero_and_one() -> None:
    """From the ends of the scale toward targets at the ends."""
    state = random_state(CONFIG, 9)
    for name in ("sentiment", "fear", "greed", "confidence", "memory"):
        getattr(state, name)[:1_000], getattr(state, name)[1_000:] = 0, 32_767
    state.target_fear[:], state.target_sentiment[:] = 0, 32_700

    behaviour.step(state, CONFIG)

    for name in ("sentiment", "fear", "greed", "confidence", "memory"):
        assert int(getattr(state, name).min()) >= 0


def test_cash_changes_by_the_flows_alone() -> None:
    """Without trade the sum of all cash moves by what the ledger is told, to the last micro-credit."""
    state = random_state(CONFIG, 11)
    close_markets(state)
    before, debt = int(state.cash.sum()), int(state.debt.sum())

    behaviour.step(state, CONFIG)

    flow = {name: int(state.flows[getattr(places, name)]) for name in dir(places) if name.startswith("FLOW_")}
    incomes = flow["FLOW_SHARE_INCOME"] + flow["FLOW_BENEFIT"] + flow["FLOW_TRANSFER"] + flow["FLOW_FUND_PAID"]
    loans = flow["FLOW_LOANS_NEW"] - flow["FLOW_LOANS_REPAID"] - flow["FLOW_INTEREST"]
    assert int(state.cash.sum()) - before == incomes + loans - int(state.dividends.sum())
    new_debt = flow["FLOW_LOANS_NEW"] - flow["FLOW_LOANS_REPAID"] - flow["FLOW_WRITTEN_OFF"]
    assert int(state.debt.sum()) - debt == new_debt


def test_goods_change_by_the_flows_alone() -> None:
    """Stocks move by what is produced, used and sold; extraction stops without a quota."""
    state = random_state(CONFIG, 12)
    close_markets(state)
    state.quota[:] = 0
    before = int(state.out.sum()) + int(state.in1.sum()) + int(state.in2.sum())

    behaviour.step(state, CONFIG)

    made, used = state.goods_flow[places.GOODS_PRODUCED], state.goods_flow[places.GOODS_USED]
    assert int(state.out.sum()) + int(state.in1.sum()) + int(state.in2.sum()) - before == made.sum() - used.sum()
    assert made[1:8].sum() == 0
    assert made[8:24].sum() > 0


def test_the_first_tick_pays_no_wage_and_moves_no_reservation_wage() -> None:
    """No order stands at the start: households only get their income, and everybody decides."""
    state = random_state(CONFIG, 13)
    state.ord_qty[:] = 0
    state.sell_qty[:] = 0
    wages, income, employed = state.reserve_wage.copy(), state.income_ema.copy(), state.employed.copy()

    behaviour.step(state, CONFIG)

    assert np.array_equal(wages, state.reserve_wage)
    assert np.array_equal(income, state.income_ema)
    assert np.array_equal(employed, state.employed)
    assert state.flows[places.FLOW_EMPLOYED] + state.flows[places.FLOW_UNEMPLOYED] == 0
    assert state.flows[places.FLOW_SHARE_INCOME] > 0
    assert np.count_nonzero(state.ord_qty) > 800


def test_debts_and_incomes_too_large_for_64_bit_products_are_exact() -> None:
    """Interest on the largest debt is the twin's, and income memory ends at the end of its type."""
    state = random_state(CONFIG, 14)
    state.debt[:] = places.NEVER // 5
    state.counters[places.LOAN_RATE_Q32] = 6_400_000
    state.counters[places.BENEFIT] = 10**13
    twin = NaiveBehaviour(state, CONFIG.max_price_change)

    behaviour.step(state, CONFIG)
    twin.run()

    assert differences(state, twin) == []
    assert int(state.income_ema.max()) == 2**31 - 1


def test_consumption_is_neutral_at_the_initial_mood() -> None:
    """At confidence 24000, no cash and rho 1, households plan 0.703125 of their income; a taste averages one."""
    state = random_state(CONFIG, 15)
    state.confidence[:], state.counters[places.RHO_Q16], state.counters[places.SUBSISTENCE] = 24_000, 65_536, 0
    state.subsistence[:], state.visit_share_q16[:] = 0, 65_536 // 22
    state.cash[:], state.income_ema[:] = 10**9, 1_000_000
    close_markets(state)
    state.income_per_lot[:] = 0

    behaviour.step(state, CONFIG)

    layout = state.layout
    following = np.repeat(layout.markets_at(state.tick + 1), layout.block_end - layout.block_start)
    shopping = (following >= 8) & (following < 24) & (np.arange(layout.residents) < layout.households)
    spent = (state.ord_qty[shopping] * state.price[following[shopping]]).mean() * 22
    assert spent == pytest.approx(0.703125 * 1e9 + 1e9 / 600, rel=0.02)


# --- parts ------------------------------------------------------------------------------------------------------------


def filled(orders: list[tuple[int, int]], ration: tuple[int, int], total: tuple[int, int], before: int) -> list[int]:
    """Return the fills of (level - margin, lots) under a margin at level 1 000 on both sides."""
    level = np.array([1_000 + at for at, _ in orders], np.int32)
    lots = np.array([quantity for _, quantity in orders], np.int32)
    out = np.zeros(len(orders), np.int32)
    margins = np.full((2, 32), 1_000)
    rations, totals = (np.array([[x] * 32 for x in pair]) for pair in (ration, total))
    fills(level, lots, 5, margins, rations, totals, before, before, out)
    return [int(x) for x in out]


ORDERS = st.lists(st.tuples(st.integers(-2, 2), st.integers(-500, 500)), min_size=1, max_size=40)


@settings(max_examples=50)
@given(ORDERS, st.floats(0, 1))
def test_rations_are_shared_without_a_residue(orders: list[tuple[int, int]], share: float) -> None:
    """Beyond the margin in full, behind it nothing, and the marginal orders get exactly the ration."""
    bought = sum(lots for at, lots in orders if at == 0 and lots > 0)
    sold = -sum(lots for at, lots in orders if at == 0 and lots < 0)
    ration = (int(share * bought), int(share * sold))

    got = filled(orders, ration, (bought, sold), 0)

    marginal = [(lots, fill) for (at, lots), fill in zip(orders, got, strict=True) if at == 0]
    assert sum(fill for lots, fill in marginal if lots > 0) == ration[0]
    assert -sum(fill for lots, fill in marginal if lots < 0) == ration[1]
    assert all(0 <= fill * (1 if lots > 0 else -1) <= abs(lots) for lots, fill in marginal)
    for (at, lots), fill in zip(orders, got, strict=True):
        if at != 0:
            assert fill == (lots if at * lots > 0 else 0)


@settings(max_examples=50)
@given(ORDERS, st.integers(0, 40), st.floats(0, 1))
def test_splitting_a_block_changes_no_fill(orders: list[tuple[int, int]], cut: int, share: float) -> None:
    """The second part begins with the running sum of the first."""
    buys = [(at, abs(lots)) for at, lots in orders]
    total = sum(lots for at, lots in buys if at == 0) + 9
    ration, first, second = (int(share * total), 0), buys[:cut], buys[cut:]
    if not first or not second:
        return

    running = 9 + sum(lots for at, lots in first if at == 0)

    whole = filled(buys, ration, (total, 0), 9)
    assert filled(first, ration, (total, 0), 9) + filled(second, ration, (total, 0), running) == whole


@given(st.integers(0, 2**63 - 1), st.integers(10_000, 2**40))
def test_quotient_is_the_floor(a: int, b: int) -> None:
    """A multiplication and a correction give exactly a // b; at multiples and one under them as well."""
    for numerator in (a, a // b * b, max(a // b * b - 1, 0)):
        assert quotient(numerator, b, 1.0 / b) == numerator // b


def test_herding_groups_have_zipf_sizes() -> None:
    """The first group has 54 of 256, the last ones one, one has none, sizes never rise."""
    sizes = np.bincount(GROUP, minlength=places.GROUPS)

    assert sizes[0] == 54
    assert sizes.sum() == 256
    assert int((sizes == 0).sum()) == 1
    assert set(sizes[-10:].tolist()) <= {0, 1}


def test_firms_ask_more_when_few_are_unemployed() -> None:
    """A point of unemployment is .2 % of the price, nothing at the natural rate, and no more beyond a slump."""
    assert asked_markup(0.05) == MARKUP_BP
    assert asked_markup(0.03) == MARKUP_BP + 40
    assert asked_markup(0.08) == asked_markup(0.25) == MARKUP_BP - 60


def test_households_stand_first_so_that_ids_index_their_arrays() -> None:
    """What the household kernel trusts."""
    layout = random_state(CONFIG, 0).layout

    assert layout.block_type[0] == HOUSEHOLD
    assert layout.block_start[0] == 0
