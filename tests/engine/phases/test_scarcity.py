"""Reserves fall by what is extracted, grow back as told, and set quotas, multipliers and costs."""

from __future__ import annotations

import numpy as np
import pytest

from engine import state as at
from engine.config import Config
from engine.phases import scarcity
from engine.phases.scarcity import extraction_quota, renewal
from engine.resources import measure_resource, price_multiplier, scarcity_level
from tests.support.macro_states import CONFIG, changed_arrays, disturbed_state, fresh_state
from tests.support.naive_macro import NaiveMacro


def test_scarcity_level_is_what_is_missing() -> None:
    assert scarcity_level(850, 1_000) == pytest.approx(0.15)
    assert scarcity_level(0, 1_000) == 1.0
    assert scarcity_level(1_200, 1_000) == 0.0


def test_price_multiplier_weighs_scarcity_by_importance() -> None:
    """Oil at scarcity .4: 1 + .4 x 3 x .9 = 2.08."""
    assert price_multiplier(0.4, 0.9) == pytest.approx(2.08)
    assert price_multiplier(0.0, 0.9) == 1.0
    assert price_multiplier(1.0, 0.95) == pytest.approx(3.85)


def test_renewal_is_logistic_for_water_and_land() -> None:
    assert renewal(1, 700_000, 1_000_000) == int(0.00286 * 700_000 * 0.3)
    assert renewal(1, 0, 1_000_000) == 0
    assert renewal(1, 1_100_000, 1_000_000) == 0


def test_issuance_meets_the_use_at_the_start() -> None:
    """Carbon credits and IP at 70 %: .0006 of base a day, the initial use; twice that at 40 %; none when full."""
    assert renewal(2, 700_000, 1_000_000) == pytest.approx(600, abs=1)
    assert renewal(2, 400_000, 1_000_000) == pytest.approx(1_200, abs=1)
    assert renewal(2, 1_100_000, 1_000_000) == 0


def test_finite_resources_do_not_grow_back() -> None:
    assert renewal(0, 500_000, 1_000_000) == 0


def test_quota_shares_three_times_the_depletion_rate() -> None:
    assert extraction_quota(0.001, 1_000_000, 5) == 600
    assert extraction_quota(0.002, 1_000_000, 5) == 1_200
    assert extraction_quota(0.001, 1_666, 5) == 0


def test_extraction_leaves_the_reserves_and_is_counted() -> None:
    state = fresh_state(tick=7)
    before = state.reserves.copy()
    state.extracted_day[:] = 10
    state.goods_flow[at.GOODS_PRODUCED, 1:8] = np.arange(100, 107)
    state.goods_flow[at.GOODS_PRODUCED, 9] = 50
    state.goods_flow[at.GOODS_USED, 1] = 30
    state.goods_flow[at.GOODS_CONSUMED, 9] = 20

    scarcity.step(state, CONFIG)

    assert np.array_equal(before - state.reserves, np.arange(100, 107))
    assert np.array_equal(state.extracted_day, np.arange(110, 117))
    assert state.goods_made[[1, 9]].tolist() == [100, 50]
    assert state.goods_gone[[1, 9]].tolist() == [30, 20]
    assert not state.reserves_added.any()


def test_a_day_begins_with_renewal_after_extraction() -> None:
    state = fresh_state(tick=48)
    state.extracted_day[:] = 999
    state.goods_flow[at.GOODS_PRODUCED, 1:8] = 5
    base = state.reserves_base
    left = state.reserves - 5

    scarcity.step(state, CONFIG)

    grown = state.reserves - left
    assert grown[:3].tolist() == [0, 0, 0]
    assert grown[3] == int(0.00286 * left[3] * (1 - left[3] / base[3]))
    assert grown[5] == int(0.0006 * base[5] * (1 - left[5] / base[5]) / 0.3)
    assert np.array_equal(state.reserves_added, grown)
    assert state.extracted_day.tolist() == [5] * 7


def test_scarce_resources_cost_more_to_extract() -> None:
    """Oil at half its base: hours a lot x 1.25, rent x 2.35, wage 20.00035."""
    state = fresh_state(tick=1)
    state.reserves[0] = state.reserves_base[0] // 2

    scarcity.step(state, CONFIG)

    hours = state.base_hours[1] * 1.25
    assert state.scarcity[0] == pytest.approx(0.5, abs=1e-6)
    assert state.multiplier[0] == pytest.approx(2.35, abs=1e-5)
    assert state.hours_q16[1] == round(hours * 65536)
    assert state.unit_cost[1] == pytest.approx(20_000_350 * hours * 2.35, rel=1e-5)
    assert state.ladder[state.cost_level[1]] <= state.unit_cost[1] < state.ladder[state.cost_level[1] + 1]


def test_depletion_rate_sets_the_quota() -> None:
    state = fresh_state(tick=1)
    fast = Config(residents=2_000, max_agents=8, order_book_max=1_024, depletion_rate=0.01)

    scarcity.step(state, CONFIG)
    slow_quota = state.quota.copy()
    scarcity.step(state, fast)

    assert state.quota == pytest.approx(10 * slow_quota, rel=0.02)


def test_nothing_is_left_of_a_quota_when_reserves_are_gone() -> None:
    state = fresh_state(tick=1)
    state.reserves[:] = 0

    scarcity.step(state, CONFIG)

    assert state.quota.tolist() == [0] * 7
    assert state.scarcity.tolist() == [1.0] * 7


@pytest.mark.parametrize("seed", range(20))
def test_step_agrees_with_its_naive_twin(seed: int) -> None:
    state = disturbed_state(seed)
    twin = NaiveMacro(state, CONFIG)

    scarcity.step(state, CONFIG)
    twin.resources()

    for name in scarcity.WRITES:
        assert getattr(state, name).tolist() == pytest.approx(getattr(twin, name), rel=1e-12), name


def test_measure_resource_agrees_with_the_phase() -> None:
    state = disturbed_state(5)
    scarcity.step(state, CONFIG)
    expected = state.scarcity.tolist(), state.multiplier.tolist()
    state.scarcity[:] = state.multiplier[:] = 0

    for resource in range(7):
        measure_resource(state, resource)

    assert (state.scarcity.tolist(), state.multiplier.tolist()) == expected


def test_the_phase_writes_exactly_what_it_says() -> None:
    states = (disturbed_state(seed) for seed in range(12))

    assert changed_arrays(scarcity.step, states, CONFIG) == set(scarcity.WRITES)
