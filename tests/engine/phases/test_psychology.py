"""Moods add up, targets follow returns, values follow costs and news: by hand, and against the naive twin."""

from __future__ import annotations

import numpy as np
import pytest

from engine import state as at
from engine.config import Config
from engine.phases import psychology
from engine.phases.psychology import (
    consol_value,
    herding_factor,
    is_extreme,
    mood_targets,
    sentiment_extremity,
    share_value,
    shock_size,
    strategy_mix,
    volatility_multiplier,
)
from engine.rng import seed_bytes, tick_keys
from tests.support.macro_states import CONFIG, changed_arrays, disturbed_state, fresh_state
from tests.support.naive_macro import NaiveMacro


def test_volatility_multiplier_weighs_its_four_parts() -> None:
    """1 + .5 x .3 + .2 x .3 + .4 x .5 + .25 x .4 = 1.51."""
    assert volatility_multiplier(0.5, 0.2, 0.4, 0.25, 0.3, 0.3, 0.4) == pytest.approx(1.51, abs=1e-12)


def test_volatility_multiplier_spans_one_to_two_and_a_half() -> None:
    assert volatility_multiplier(0.0, 0.0, 0.0, 0.0, 0.3, 0.3, 0.4) == 1.0
    assert volatility_multiplier(1.0, 1.0, 1.0, 1.0, 0.3, 0.3, 0.4) == pytest.approx(2.5)


def test_herding_factor_measures_agreement() -> None:
    """Everybody at .3 agrees: .2 / (.2 + .02); a split crowd with the same spread does not."""
    assert herding_factor(0.3, 0.2) == pytest.approx(0.2 / 0.22)
    assert herding_factor(0.5, 0.2) == 0.0
    assert herding_factor(0.0, 0.5) < 1.0


def test_extremity_is_cut_at_one() -> None:
    assert sentiment_extremity(0.5) == 0.0
    assert sentiment_extremity(0.45) == pytest.approx(0.4)
    assert sentiment_extremity(0.1) == 1.0


def test_mood_targets_after_a_loss() -> None:
    """z = -2, S_m = .4, f_m = .2, S = .45, u = .1, shock = .1."""
    sentiment, fear, greed, confidence = mood_targets(-2.0, 0.4, 0.2, 0.45, 0.1, 0.1)

    assert fear == int(32_700 * (0.04 + 0.7 + 0.3 * 0.02 + 0.1))
    assert greed == int(32_700 * 0.04)
    assert sentiment == int(32_700 * (0.5 - 0.1 - 0.035 - 0.0075 - 0.05))
    assert confidence == int(32_700 * (0.75 - 0.2 - 0.06 - 0.5 * 0.04))


def test_losses_frighten_more_than_gains_excite() -> None:
    _, fear, _, _ = mood_targets(-1.0, 0.5, 0.0, 0.5, 0.05, 0.0)
    _, _, greed, _ = mood_targets(1.0, 0.5, 0.0, 0.5, 0.05, 0.0)

    assert (fear / 32_700 - 0.04) / (greed / 32_700 - 0.04) == pytest.approx(1.75, rel=1e-3)


def test_greed_is_lower_in_a_quiet_market() -> None:
    assert mood_targets(0.49, 0.5, 0.0, 0.5, 0.05, 0.0)[2] == int(32_700 * 0.8 * (0.04 + 0.2 * 0.49))
    assert mood_targets(0.5, 0.5, 0.0, 0.5, 0.05, 0.0)[2] == int(32_700 * (0.04 + 0.1))


def test_targets_stay_in_their_range() -> None:
    for z in (-1e3, 1e3):
        for target in mood_targets(z, 1.0, 1.0, 1.0, 1.0, 2.0):
            assert 0 <= target <= 32_700


def test_shock_size_grows_with_the_multiplier_and_has_a_floor() -> None:
    assert shock_size(9.0, 1.15, 0.0, 0.3) == pytest.approx(9.0)
    assert shock_size(12.0, 1.40, 0.0, 0.3) == pytest.approx(24.0)
    assert shock_size(4.5, 0.0, 0.0, 0.3) == pytest.approx(1.35)


def test_losses_make_shocks_larger_than_gains_of_their_size() -> None:
    assert shock_size(9.0, 1.15, -0.5, 0.3) == pytest.approx(9.0 * 1.15)
    assert shock_size(9.0, 1.15, 0.5, 0.3) == pytest.approx(9.0 * 0.85)
    assert shock_size(9.0, 1.15, 5.0, 0.3) == pytest.approx(2.7)


def test_shocks_are_larger_where_more_traders_follow_the_crowd() -> None:
    assert shock_size(10.0, 1.15, 0.0, 0.8) == pytest.approx(16.0)
    assert shock_size(10.0, 1.15, 0.0, 0.05) == pytest.approx(7.0)


def test_strategy_mix_moves_toward_its_target_and_stays_inside() -> None:
    """n_f = .5, no misalignment, g + f = .1: a = .25, target .562."""
    assert strategy_mix(0.5, 0.0, 0.1, 0.0) == pytest.approx(0.5 + 0.006 * (1 / (1 + np.exp(-0.25)) - 0.5), abs=1e-6)
    assert strategy_mix(0.97, 0.5, 0.0, 3.0) == 0.97
    assert strategy_mix(0.05, 0.0, 2.0, -3.0) == 0.05
    assert strategy_mix(0.5, 0.4, 0.1, 0.0) > strategy_mix(0.5, 0.0, 0.1, 0.0)


def test_values_discount_by_the_policy_rate() -> None:
    assert share_value(70.0, 0.04) == pytest.approx(1_000.0)
    assert share_value(70.0, 0.08) == pytest.approx(70.0 / 0.08)
    assert share_value(70.0, -1.0) == pytest.approx(70.0 / 0.04)
    assert consol_value(6.0, 0.04) == pytest.approx(100.0)
    assert consol_value(6.0, 0.06) == pytest.approx(6.0 / 0.07)


@pytest.mark.parametrize("seed", range(20))
def test_step_agrees_with_its_naive_twin(seed: int) -> None:
    state = disturbed_state(seed)
    twin = NaiveMacro(state, CONFIG)

    psychology.step(state, CONFIG)
    twin.psychology()
    twin.values()

    for name in psychology.WRITES:
        if name in NaiveMacro.CHANGED:
            assert getattr(state, name).tolist() == pytest.approx(getattr(twin, name), rel=1e-6), name
    for k in range(at.SENTIMENT, at.MEMORY + 1):
        assert state.macro[k] == pytest.approx(twin.macro[k], rel=1e-12)
    for k in (at.HERDING, at.EXTREMITY, at.VOLATILITY_MULTIPLIER, at.WAGE_LEVEL, at.VACANCY, at.SHOCK):
        assert state.macro[k] == pytest.approx(twin.macro[k], rel=1e-12)
    for k in (at.WAGE, at.WAGE_REFERENCE, at.WAGE_STEP_Q8):
        assert state.counters[k] == twin.counters[k]


def test_a_panic_needs_agreement_fear_and_low_mood_and_biases_sellers() -> None:
    state = fresh_state()
    state.sentiment[:] = 12_000
    state.fear[:] = int(0.6 * 32_768)
    psychology.count_minds(state)

    psychology.step(state, CONFIG)

    assert state.is_panic[1:].tolist() == [1] * 31
    assert state.panic_bias[1:].tolist() == [int(60 * (int(0.6 * 32_768) / 32_768 - 0.35))] * 31
    assert state.turns[at.TURN_PANIC, 1:].tolist() == [1] * 31
    assert state.counters[at.PANIC_MARKETS] == 31

    psychology.step(state, CONFIG)
    assert not state.turns[at.TURN_PANIC].any()

    state.fear[:] = int(0.3 * 32_768)
    psychology.count_minds(state)
    psychology.step(state, CONFIG)
    assert not state.panic_bias.any()
    assert not state.turns[at.TURN_PANIC].any()

    state.fear[:] = int(0.2 * 32_768)
    psychology.count_minds(state)
    psychology.step(state, CONFIG)
    assert state.turns[at.TURN_PANIC, 1:].tolist() == [-1] * 31


@pytest.mark.parametrize("values", [(0.48, 0.5, 0.4), (0.6, 0.34, 0.4), (0.6, 0.5, 0.48)])
def test_a_panic_lasts_a_little_below_where_it_begins(values: tuple[float, float, float]) -> None:
    herding, fear, mood = values

    assert not is_extreme(herding, 0.7, fear, mood, False)
    assert is_extreme(herding, 0.7, fear, mood, True)
    assert not is_extreme(0.24, 0.7, fear, mood, True)
    assert not is_extreme(herding, 0.7, 0.24, mood, True)
    assert not is_extreme(herding, 0.7, fear, 0.49, True)


def test_herding_threshold_decides_when_a_panic_begins() -> None:
    state = fresh_state()
    state.sentiment[:] = 12_000
    state.fear[:] = 20_000
    psychology.count_minds(state)

    psychology.step(state, Config(residents=2_000, max_agents=8, order_book_max=1_024, herding_threshold=2.0))

    assert not state.is_panic.any()


def test_a_euphoria_is_the_mirror_and_biases_nobody() -> None:
    state = fresh_state()
    state.sentiment[:] = 20_768
    state.greed[:] = 20_000
    psychology.count_minds(state)

    psychology.step(state, CONFIG)

    assert state.is_euphoria[1:].tolist() == [1] * 31
    assert not state.panic_bias.any()


def test_an_outside_mood_weighs_by_wealth_at_most_as_one_resident() -> None:
    state = fresh_state()
    household = int(state.counters[at.HOUSEHOLD_WEALTH])
    psychology.step(state, CONFIG)
    alone = state.macro[at.SENTIMENT]

    def sentiment_with(wealth: int) -> float:
        state.counters[at.SLOTS_USED] = state.counters[at.MOOD_COUNT] = 1
        state.agent_has_mood[0] = 1
        state.agent_mood[0] = [32_767, 0, 0, 0]
        state.agent_cash[0], state.agent_advance[0] = wealth + 1_000, 1_000
        psychology.step(state, CONFIG)
        return float(state.macro[at.SENTIMENT])

    one = (2_000 * 16_384 + 32_767) / 2_001 / 32_768
    half = (2_000 * 16_384 + 0.5 * 32_767) / 2_000.5 / 32_768
    assert alone == 0.5
    assert sentiment_with(household * 1_000) == pytest.approx(one, rel=1e-9)
    assert sentiment_with(household // 2) == pytest.approx(half, rel=1e-6)
    assert sentiment_with(0) == 0.5


def test_an_outside_mood_counts_holdings_and_no_market() -> None:
    state = fresh_state()
    state.counters[at.SLOTS_USED] = state.counters[at.MOOD_COUNT] = 1
    state.agent_has_mood[0] = 1
    state.agent_mood[0] = [0, 32_767, 32_767, 32_767]
    state.agent_holdings[0, 24] = 10**6
    before = state.mood_sum.copy()

    psychology.step(state, CONFIG)

    assert state.macro[at.SENTIMENT] < 0.5
    assert state.macro[at.FEAR] > 1_500 / 32_768
    assert np.array_equal(state.mood_sum, before)
    assert state.mood_mean[at.MOOD_SENTIMENT, 1:].tolist() == [0.5] * 31


def test_ten_million_minds_at_an_extreme_fit_into_their_sums() -> None:
    state = fresh_state()
    state.mood_count[24] = 10_000_000
    state.mood_sum[:] = 0
    state.mood_sum[at.MOOD_DEVIATION, 24] = 10_000_000 * 16_384
    state.mood_sum[at.MOOD_SQUARE, 24] = 10_000_000 * 16_384**2
    state.mood_count[[*range(24), *range(25, 32)]] = 0
    state.counters[at.SLOTS_USED] = state.counters[at.MOOD_COUNT] = 1
    state.agent_has_mood[0], state.agent_cash[0] = 1, 10**15
    state.agent_mood[0] = [0, 32_767, 0, 0]

    psychology.step(state, CONFIG)

    assert state.macro[at.SENTIMENT] == 0.0
    assert state.macro[at.DISAGREEMENT] == pytest.approx(0.5)
    assert state.macro[at.SENTIMENT_VARIANCE] == pytest.approx(0.0, abs=1e-9)
    assert state.macro[at.FEAR] == pytest.approx(32_767 / 32_768 / 10_000_001)


def test_group_draws_are_normal_units_and_differ_by_market_and_group() -> None:
    state = fresh_state(tick=7)

    psychology.step(state, CONFIG)

    traded = [*range(1, 8), *range(24, 32)]
    draws = state.group_draw[traded].ravel()
    assert abs(draws.mean()) < 15
    assert draws.std() == pytest.approx(147.8, rel=0.06)
    assert len(np.unique(draws)) > 300
    assert not state.group_draw[8:24].any()


def test_news_comes_in_as_told_and_fades() -> None:
    """A tick adds sd x z (raw 9 bp, shares and consol 7 bp), then what is there fades by its decay."""
    state = fresh_state()
    samples = []
    for tick in range(150):
        state.news[:] = 1_000.0
        tick_keys(seed_bytes(5), tick, state.keys)
        psychology.step(state, CONFIG)
        samples.append(state.news.copy())

    news = np.array(samples)
    assert news[:, 1:8].mean() == pytest.approx(999.0, abs=1.2)
    assert news[:, 24:].mean() == pytest.approx(999.8, abs=1.0)
    assert news[:, 1:8].std() == pytest.approx(9.0, rel=0.1)
    assert news[:, 24:].std() == pytest.approx(7.0, rel=0.1)
    assert (news[:, 8:24] == 1_000.0).all()
    assert (news[:, 0] == 1_000.0).all()


def test_labour_is_published_as_neutral() -> None:
    state = fresh_state()

    psychology.step(state, CONFIG)

    assert state.mood_mean[at.MOOD_SENTIMENT, 0] == 0.5
    assert state.market_vm[0] == 1.0


def test_the_shock_fades_after_use() -> None:
    state = fresh_state()
    state.macro[at.SHOCK] = 0.6

    psychology.step(state, CONFIG)

    assert state.target_fear[24] == int(32_700 * 0.64)
    assert state.macro[at.SHOCK] == pytest.approx(0.597)


def test_the_wage_reference_rests_when_nobody_was_settled() -> None:
    state = fresh_state()
    before = float(state.macro[at.WAGE_LEVEL])

    psychology.step(state, CONFIG)

    assert state.macro[at.WAGE_LEVEL] == before
    assert state.counters[at.WAGE] == 20_000_350


def test_the_phase_writes_exactly_what_it_says() -> None:
    states = (disturbed_state(seed) for seed in range(12))

    assert changed_arrays(psychology.step, states, CONFIG) == set(psychology.WRITES)
