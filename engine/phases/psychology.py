"""Phase 3: moods are summed up, targets set for the next tick, and the values people believe in move.

Labour has no residents of its own: its moods are published as neutral and its multiplier as 1. Markets that traders
do not visit (goods, labour) have no herding shocks and no strategy mix; theirs stay as they started.
Outside agents that used set_sentiment count in the global sums with weight min(1, wealth / mean wealth of a household
at the last day end), in units of 2^-12; they have no memory, so the global memory is the residents' alone.
A panic is announced when its conditions hold and over when one of them is clearly past: at the bare thresholds moods
cross back and forth, and a crash gave hundreds of begin and end events. The bias on sellers keeps to the bare ones.
Unit costs of resources stand in the scarcity phase, where their rent is known; all others here.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.arithmetic import exponential
from engine.config import Config
from engine.ladder import LAST_LEVEL, level_below
from engine.markets import (
    CONSOL,
    GOOD_FIRST,
    GOOD_LAST,
    INPUT_1,
    INPUT_2,
    LABOUR,
    MARKETS,
    MARKUP_BP,
    RAW_FIRST,
    RAW_LAST,
    SHARE_FIRST,
    SHARE_LAST,
    WAGE_SPREAD_BP,
    YEAR,
)
from engine.rng import STREAM_NEWS, STREAM_STRATEGY, STREAMS, draw, normal, normal_units, sub_stream
from engine.state import (
    CONFIDENCE,
    DISAGREEMENT,
    EUPHORIA_MARKETS,
    EXTREMITY,
    F64,
    FEAR,
    FLOW_EMPLOYED,
    FLOW_UNEMPLOYED,
    FLOW_WAGE_LEVELS,
    GREED,
    GROUPS,
    HERDING,
    HOUSEHOLD_WEALTH,
    I16,
    I64,
    MEMORY,
    MOOD_CONFIDENCE,
    MOOD_COUNT,
    MOOD_DEVIATION,
    MOOD_FEAR,
    MOOD_GREED,
    MOOD_MEMORY,
    MOOD_SENTIMENT,
    MOOD_SQUARE,
    MOODS,
    PANIC_MARKETS,
    POLICY_RATE,
    SENTIMENT,
    SENTIMENT_VARIANCE,
    SHOCK,
    SLOTS_USED,
    TURN_EUPHORIA,
    TURN_PANIC,
    U32,
    UNEMPLOYMENT,
    VACANCY,
    VM_Q8,
    VOLATILITY_MULTIPLIER,
    WAGE,
    WAGE_LEVEL,
    WAGE_REFERENCE,
    WAGE_STEP,
    WAGE_STEP_Q8,
    State,
)

WRITES = (
    "mood_mean",
    "market_herding",
    "market_extremity",
    "market_vm",
    "vm_q8",
    "target_sentiment",
    "target_fear",
    "target_greed",
    "target_confidence",
    "slow_level",
    "trend_fast",
    "trend_slow",
    "fundamentalists",
    "chartists_q16",
    "sigma_q4",
    "panic_bias",
    "is_panic",
    "is_euphoria",
    "group_draw",
    "unit_cost",
    "cost_level",
    "news",
    "dividend_ema",
    "fundamental",
    "turns",
    "macro",
    "counters",
)

TARGET_ONE = 32_700
"""A mind's target of 1.0."""
FEAR_SLOPE, GREED_SLOPE = 0.35, 0.20
"""Loss aversion: a loss frightens 1.75 times as much as a gain of its size excites."""
SHOCK_DECAY = 0.995
SHOCK_SLOPE, SHOCK_CALM, SHOCK_FLOOR, SHOCK_ALARM = 4.0, 1.15, 0.3, 0.3
SHOCK_CROWD, CROWD_USUAL = 1.2, 0.3
"""sigma_m = base x max(floor, 1 + slope x (VM_m - calm) - alarm x mean return of the last hours in typical sd
+ crowd x (share of chartists - usual))."""
PANIC_HERDING, PANIC_FEAR, PANIC_MOOD = 0.7, 0.35, 0.47
CALM_HERDING, CALM_FEAR, CALM_MOOD = 0.35, 0.25, 0.485
"""Where a panic (or, mirrored, a euphoria) that was announced is over."""
PANIC_SLOPE_BP = 60.0
MEMORY_TICKS = 480.0
MIX_BASE, MIX_HERDING, MIX_MISALIGNMENT, MIX_SPEED, MIX_NOISE = 0.25, 1.8, 18.0, 0.006, 0.010
"""Herding 1.8 is just below the critical 2, so the mix wanders slowly: a second source of volatility clustering.
It wanders further and for longer than with the specification's speed of .01 and noise of .008, and shocks grow with
the share of chartists: without both the memory of volatility hung on catastrophes, and a world that saw none in 20,000
ticks showed slow decay in half of its markets (docs/model-experiments.md)."""
MIX_LOW, MIX_HIGH = 0.05, 0.97
WAGE_STEP_BP, VACANCY_WEIGHT = 2.0, 4.0
DIVIDEND_MEMORY_TICKS = 4_320.0


def _by_market(labour: float, raw: float, goods: float, shares: float, consol: float) -> F64:
    values = np.full(MARKETS, labour)
    values[RAW_FIRST : RAW_LAST + 1] = raw
    values[GOOD_FIRST : GOOD_LAST + 1] = goods
    values[SHARE_FIRST : SHARE_LAST + 1] = shares
    values[CONSOL] = consol
    return values


SHOCK_BASE = _by_market(0.0, 12.0, 0.0, 9.0, 4.5)
"""Base size of a herding shock, bp units of ECONOMY A7; 0 where no traders are."""
TYPICAL_SD = _by_market(1.0, 20.0, 5.0, 18.0, 9.0)
"""Typical return of a tick, bp: what minds measure a move by."""
NEWS_SD = _by_market(0.0, 9.0, 0.0, 7.0, 7.0)
NEWS_DECAY = _by_market(1.0, 0.999, 1.0, 0.9998, 0.9998)

_INPUT_1, _INPUT_2 = np.array(INPUT_1), np.array(INPUT_2)
_KEY_STRATEGY, _KEY_NEWS = STREAMS.index(STREAM_STRATEGY), STREAMS.index(STREAM_NEWS)


def step(state: State, config: Config) -> None:
    """Aggregate moods (A8), set next tick's targets, mix and shocks, then wages, unit costs, news and values (A7).

    Source: specification 004, Market Psychology Engine; ECONOMY A8, A17 phase 3.
    """
    measure(state, config)
    _sum_up(
        state.mood_sum,
        state.mood_count,
        state.agent_has_mood,
        state.agent_mood,
        state.agent_cash,
        state.agent_escrow,
        state.agent_debt,
        state.agent_advance,
        state.agent_holdings,
        state.price,
        config.fear_weight,
        config.greed_weight,
        config.sentiment_weight,
        state.macro,
        state.counters,
    )
    _turn_minds(
        state.mood_mean,
        state.market_herding,
        state.market_vm,
        state.market_return,
        state.level,
        state.fundamental,
        state.keys,
        config.herding_threshold,
        state.vm_q8,
        state.target_sentiment,
        state.target_fear,
        state.target_greed,
        state.target_confidence,
        state.slow_level,
        state.trend_fast,
        state.trend_slow,
        state.fundamentalists,
        state.chartists_q16,
        state.sigma_q4,
        state.panic_bias,
        state.is_panic,
        state.is_euphoria,
        state.turns,
        state.group_draw,
        state.macro,
        state.counters,
    )
    _value(
        state.ladder,
        state.flows,
        state.bids_total,
        state.cleared_volume,
        state.price,
        state.hours_q16,
        state.input1_q16,
        state.input2_q16,
        state.income_per_lot,
        state.keys,
        state.unit_cost,
        state.cost_level,
        state.news,
        state.dividend_ema,
        state.fundamental,
        state.macro,
        state.counters,
    )


def measure(state: State, config: Config) -> None:
    """Write each market's mean moods, herding, extremity and volatility multiplier from the sums of its residents."""
    _measure_markets(
        state.mood_sum,
        state.mood_count,
        config.fear_weight,
        config.greed_weight,
        config.sentiment_weight,
        state.mood_mean,
        state.market_herding,
        state.market_extremity,
        state.market_vm,
    )


def count_minds(state: State) -> None:
    """Count residents by home market and sum their moods, as the behaviour phase leaves them."""
    layout = state.layout
    _count_minds(
        layout.block_start,
        layout.block_end,
        layout.block_home,
        state.sentiment,
        state.fear,
        state.greed,
        state.confidence,
        state.memory,
        state.mood_count,
        state.mood_sum,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def volatility_multiplier(
    fear: float,
    greed: float,
    herding: float,
    extremity: float,
    fear_weight: float,
    greed_weight: float,
    sentiment_weight: float,
) -> float:
    """Return 1 + fear x fearWeight + greed x greedWeight + herding x .5 + extremity x sentimentWeight.

    All moods in [0, 1], so with the default weights the result is in [1, 2.5].
    Source: specification 004, Market Psychology Engine, volatility multiplier; ECONOMY A8.
    """
    return 1.0 + fear * fear_weight + greed * greed_weight + herding * 0.5 + extremity * sentiment_weight


@njit(cache=True, nogil=True, error_model="numpy")
def herding_factor(sentiment: float, disagreement: float) -> float:
    """Return |S - .5| / (mean |s - .5| + .02): agreement, from 0 to below 1. Source: specification 004; ECONOMY A8."""
    return abs(sentiment - 0.5) / (disagreement + 0.02)


@njit(cache=True, nogil=True, error_model="numpy")
def sentiment_extremity(sentiment: float) -> float:
    """Return min(1, 8 |S - .5|). Source: specification 004; ECONOMY A8."""
    return min(1.0, 8.0 * abs(sentiment - 0.5))


@njit(cache=True, nogil=True, error_model="numpy")
def mood_targets(
    z: float, sentiment: float, fear: float, global_sentiment: float, unemployment: float, shock: float
) -> tuple[int, int, int, int]:
    """Return the targets 0..32700 of sentiment, fear, greed and confidence of a market's residents.

    z: the market's return in typical sd. sentiment, fear: its means. Source: ECONOMY A8.
    """
    size = abs(z)
    afraid = 0.04 + FEAR_SLOPE * max(-z, 0.0) + 0.3 * max(0.0, unemployment - 0.08) + shock
    greedy = 0.04 + GREED_SLOPE * max(z, 0.0)
    if size < 0.5:
        greedy *= 0.8
    mood = 0.5 + 0.05 * z + 0.35 * (sentiment - 0.5) + 0.15 * (global_sentiment - 0.5) - 0.5 * shock
    sure = 0.75 - 0.1 * size - 0.3 * fear - 0.5 * max(0.0, unemployment - 0.06)
    return _target(mood), _target(afraid), _target(greedy), _target(sure)


@njit(cache=True, nogil=True, error_model="numpy")
def _target(value: float) -> int:
    return int(TARGET_ONE * min(1.0, max(0.0, value)))


@njit(cache=True, nogil=True, error_model="numpy")
def _count_minds(
    start: I64,
    end: I64,
    home: I64,
    sentiment: I16,
    fear: I16,
    greed: I16,
    confidence: I16,
    memory: I16,
    count: I64,
    sums: I64,
) -> None:
    count[:] = 0
    sums[:] = 0
    for b in range(len(start)):
        m = home[b]
        count[m] += end[b] - start[b]
        for i in range(start[b], end[b]):
            away = int(sentiment[i]) - 16_384
            sums[MOOD_SENTIMENT, m] += sentiment[i]
            sums[MOOD_FEAR, m] += fear[i]
            sums[MOOD_GREED, m] += greed[i]
            sums[MOOD_CONFIDENCE, m] += confidence[i]
            sums[MOOD_MEMORY, m] += memory[i]
            sums[MOOD_DEVIATION, m] += abs(away)
            sums[MOOD_SQUARE, m] += away * away


@njit(cache=True, nogil=True, error_model="numpy")
def _measure_markets(
    sums: I64,
    count: I64,
    fear_weight: float,
    greed_weight: float,
    sentiment_weight: float,
    mean: F64,
    herding: F64,
    extremity: F64,
    multiplier: F64,
) -> None:
    for m in range(MARKETS):
        if count[m] == 0:
            mean[:, m] = 0.0
            mean[MOOD_SENTIMENT, m] = mean[MOOD_MEMORY, m] = 0.5
            herding[m] = extremity[m] = 0.0
            multiplier[m] = 1.0
            continue
        scale = 1.0 / (count[m] * 32768.0)
        for k in range(5):
            mean[k, m] = sums[k, m] * scale
        herding[m] = herding_factor(mean[MOOD_SENTIMENT, m], sums[MOOD_DEVIATION, m] * scale)
        extremity[m] = sentiment_extremity(mean[MOOD_SENTIMENT, m])
        multiplier[m] = volatility_multiplier(
            mean[MOOD_FEAR, m], mean[MOOD_GREED, m], herding[m], extremity[m], fear_weight, greed_weight,
            sentiment_weight,
        )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_up(
    sums: I64,
    count: I64,
    has_mood: I64,
    agent_mood: I64,
    agent_cash: I64,
    agent_escrow: I64,
    agent_debt: I64,
    agent_advance: I64,
    agent_holdings: I64,
    price: I64,
    fear_weight: float,
    greed_weight: float,
    sentiment_weight: float,
    macro: F64,
    counters: I64,
) -> None:
    """Write the global moods into macro: residents and, by weight, outside agents with a mood of their own."""
    total = np.zeros(MOODS, np.int64)
    residents = 0
    for m in range(MARKETS):
        residents += count[m]
        for k in range(MOODS):
            total[k] += sums[k, m]
    outside = np.zeros(MOODS, np.int64)
    weights = 0
    if counters[MOOD_COUNT] > 0:
        for a in range(counters[SLOTS_USED]):
            if has_mood[a] == 0:
                continue
            own = agent_cash[a] + agent_escrow[a] - agent_debt[a] - agent_advance[a]
            weight = _mood_weight_q12(own, agent_holdings[a], price, counters[HOUSEHOLD_WEALTH])
            away = agent_mood[a, 0] - 16_384
            weights += weight
            outside[MOOD_SENTIMENT] += weight * agent_mood[a, 0]
            outside[MOOD_FEAR] += weight * agent_mood[a, 1]
            outside[MOOD_GREED] += weight * agent_mood[a, 2]
            outside[MOOD_CONFIDENCE] += weight * agent_mood[a, 3]
            outside[MOOD_DEVIATION] += weight * abs(away)
            outside[MOOD_SQUARE] += weight * away * away
    # together as floats: at ten million residents a square in Q12 would pass 63 bits
    scale = 1.0 / ((residents + weights / 4096.0) * 32768.0)
    means = np.empty(MOODS, np.float64)
    for k in range(MOODS):
        means[k] = (total[k] + outside[k] / 4096.0) * scale
    sentiment = means[MOOD_SENTIMENT]
    away_mean = sentiment - 0.5
    macro[SENTIMENT] = sentiment
    macro[FEAR] = means[MOOD_FEAR]
    macro[GREED] = means[MOOD_GREED]
    macro[CONFIDENCE] = means[MOOD_CONFIDENCE]
    macro[MEMORY] = total[MOOD_MEMORY] / (residents * 32768.0)
    macro[DISAGREEMENT] = means[MOOD_DEVIATION]
    macro[SENTIMENT_VARIANCE] = max(0.0, means[MOOD_SQUARE] / 32768.0 - away_mean * away_mean)
    macro[HERDING] = herding_factor(sentiment, macro[DISAGREEMENT])
    macro[EXTREMITY] = sentiment_extremity(sentiment)
    macro[VOLATILITY_MULTIPLIER] = volatility_multiplier(
        macro[FEAR], macro[GREED], macro[HERDING], macro[EXTREMITY], fear_weight, greed_weight, sentiment_weight
    )
    counters[VM_Q8] = int(macro[VOLATILITY_MULTIPLIER] * 256.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _mood_weight_q12(own: int, holdings: I64, price: I64, household: int) -> int:
    """Return min(1, wealth / household) in Q12, 0 for the indebted; own: cash and escrow less debts."""
    wealth = own
    for m in range(MARKETS):
        if wealth >= household:
            return 4_096
        wealth += holdings[m] * price[m]
    # the wealth of a household is far above 2^12 ucr, so dividing first loses nothing that counts
    return min(4_096, max(0, wealth) // max(1, household >> 12))


@njit(cache=True, nogil=True, error_model="numpy")
def _turn_minds(
    mean: F64,
    herding: F64,
    multiplier: F64,
    market_return: I64,
    level: I64,
    fundamental: I64,
    keys: U32,
    herding_threshold: float,
    vm_q8: I64,
    target_sentiment: I64,
    target_fear: I64,
    target_greed: I64,
    target_confidence: I64,
    slow_level: F64,
    trend_fast: I64,
    trend_slow: I64,
    fundamentalists: F64,
    chartists_q16: I64,
    sigma_q4: I64,
    panic_bias: I64,
    is_panic: I64,
    is_euphoria: I64,
    turns: I64,
    group_draw: I64,
    macro: F64,
    counters: I64,
) -> None:
    panics = 0
    euphorias = 0
    for m in range(1, MARKETS):
        vm_q8[m] = int(multiplier[m] * 256.0)
        sentiment, fear, greed = mean[MOOD_SENTIMENT, m], mean[MOOD_FEAR, m], mean[MOOD_GREED, m]
        target_sentiment[m], target_fear[m], target_greed[m], target_confidence[m] = mood_targets(
            market_return[m] / TYPICAL_SD[m], sentiment, fear, macro[SENTIMENT], macro[UNEMPLOYMENT], macro[SHOCK]
        )
        biased = is_extreme(herding[m], herding_threshold, fear, sentiment, False)
        panic_bias[m] = int(PANIC_SLOPE_BP * (fear - PANIC_FEAR)) if biased else 0
        panic = biased or is_extreme(herding[m], herding_threshold, fear, sentiment, is_panic[m] == 1)
        euphoria = is_extreme(herding[m], herding_threshold, greed, 1.0 - sentiment, is_euphoria[m] == 1)
        turns[TURN_PANIC, m] = int(panic) - is_panic[m]
        turns[TURN_EUPHORIA, m] = int(euphoria) - is_euphoria[m]
        is_panic[m] = int(panic)
        is_euphoria[m] = int(euphoria)
        panics += is_panic[m]
        euphorias += is_euphoria[m]
        trend_fast[m] += (16 * market_return[m] - trend_fast[m]) >> 3
        trend_slow[m] += (16 * market_return[m] - trend_slow[m]) >> 6
        if GOOD_FIRST <= m <= GOOD_LAST:
            slow_level[m] += (level[m] - slow_level[m]) / MEMORY_TICKS
            continue
        noise = normal(draw(m, keys[_KEY_STRATEGY, 0], keys[_KEY_STRATEGY, 1]))
        fundamentalists[m] = strategy_mix(fundamentalists[m], (fundamental[m] - level[m]) / 1e4, greed + fear, noise)
        chartists_q16[m] = int((1.0 - fundamentalists[m]) * 65536.0)
        drift = trend_fast[m] / (16.0 * TYPICAL_SD[m])
        sigma_q4[m] = int(shock_size(SHOCK_BASE[m], multiplier[m], drift, 1.0 - fundamentalists[m]) * 16.0)
        k0 = sub_stream(keys[_KEY_STRATEGY, 0], 1)
        for group in range(GROUPS):
            group_draw[m, group] = normal_units(draw(GROUPS * m + group, k0, keys[_KEY_STRATEGY, 1]))
    counters[PANIC_MARKETS] = panics
    counters[EUPHORIA_MARKETS] = euphorias
    macro[SHOCK] *= SHOCK_DECAY


@njit(cache=True, nogil=True, error_model="numpy")
def is_extreme(herding: float, threshold: float, unrest: float, mood: float, lasting: bool) -> bool:
    """Return whether a market is in panic, or, told greed and 1 - sentiment, in euphoria.

    threshold: herdingThreshold. unrest: mean fear. mood: mean sentiment. lasting: it was until now.
    Source: specification 004, psychology extreme events; ECONOMY A8.
    """
    if lasting:
        return herding > CALM_HERDING * threshold and unrest > CALM_FEAR and mood < CALM_MOOD
    return herding > PANIC_HERDING * threshold and unrest > PANIC_FEAR and mood < PANIC_MOOD


@njit(cache=True, nogil=True, error_model="numpy")
def strategy_mix(share: float, misalignment: float, unrest: float, noise: float) -> float:
    """Return the next share of fundamentalists of a market.

    misalignment: (F - p) / 10^4, log units. unrest: greed + fear. noise: standard normal.
    Source: ECONOMY A7 (Franke & Westerhoff 2012, herding, predisposition, misalignment).
    """
    attraction = (
        MIX_BASE + MIX_HERDING * (2.0 * share - 1.0) + MIX_MISALIGNMENT * misalignment * misalignment - (unrest - 0.1)
    )
    target = 1.0 / (1.0 + exponential(-attraction))
    return min(MIX_HIGH, max(MIX_LOW, share + MIX_SPEED * (target - share) + MIX_NOISE * noise))


@njit(cache=True, nogil=True, error_model="numpy")
def shock_size(base: float, multiplier: float, drift: float, chartists: float) -> float:
    """Return the size of a herding shock: base x max(.3, 1 + 4 (VM - 1.15) - .3 drift + 1.2 (chartists - .3)).

    drift: the market's return, EMA of 1/8, in typical sd. Crowds are louder after losses and calmer after gains of the
    same size, which is the leverage effect (Black 1976; Bouchaud, Matacz & Potters 2001): returns correlate with the
    squared returns of the next ten ticks by about -.045 instead of -.02. Fear less greed alone is too slow for it, and
    a larger pull of losses on sentiment raises volatility by half instead. A squared multiplier or a steeper slope
    makes the feedback of trader valuations supercritical (ECONOMY D).
    chartists: their share of the traders. Who follows the crowd is the crowd's ear: the slow wandering of strategies
    (MIX_SPEED) becomes one of volatility, as in Franke & Westerhoff 2012. Source: ECONOMY A8.
    """
    rumour = SHOCK_CROWD * (chartists - CROWD_USUAL)
    return base * max(SHOCK_FLOOR, 1.0 + SHOCK_SLOPE * (multiplier - SHOCK_CALM) - SHOCK_ALARM * drift + rumour)


@njit(cache=True, nogil=True, error_model="numpy")
def _value(
    ladder: I64,
    flows: I64,
    bids_total: I64,
    cleared_volume: I64,
    price: I64,
    hours_q16: I64,
    input1_q16: I64,
    input2_q16: I64,
    income_per_lot: I64,
    keys: U32,
    unit_cost: I64,
    cost_level: I64,
    news: F64,
    dividend_ema: F64,
    fundamental: I64,
    macro: F64,
    counters: I64,
) -> None:
    """Move the wage reference, unit costs of goods, news, dividend memories and fundamental levels."""
    settled = flows[FLOW_EMPLOYED] + flows[FLOW_UNEMPLOYED]
    if settled > 0:
        asked = flows[FLOW_WAGE_LEVELS] / settled + WAGE_SPREAD_BP
        macro[WAGE_LEVEL] += (asked - macro[WAGE_LEVEL]) / 24.0
    unfound = (bids_total[LABOUR] - cleared_volume[LABOUR]) / (bids_total[LABOUR] + 1.0)
    macro[VACANCY] += (unfound - macro[VACANCY]) / 120.0
    macro[WAGE_STEP] = WAGE_STEP_BP * (1.0 + VACANCY_WEIGHT * macro[VACANCY])
    counters[WAGE_STEP_Q8] = int(macro[WAGE_STEP] * 256.0)
    counters[WAGE_REFERENCE] = _on_ladder(int(macro[WAGE_LEVEL]))
    counters[WAGE] = ladder[counters[WAGE_REFERENCE]]

    rate = macro[POLICY_RATE]
    fundamental[LABOUR] = counters[WAGE_REFERENCE]
    for m in range(GOOD_FIRST, GOOD_LAST + 1):
        cost = (
            counters[WAGE] * hours_q16[m]
            + input1_q16[m] * price[_INPUT_1[m]]
            + input2_q16[m] * price[_INPUT_2[m]]
        ) >> 16  # fmt: skip
        unit_cost[m] = cost
        cost_level[m] = _on_ladder(level_below(ladder, cost))
        fundamental[m] = _on_ladder(cost_level[m] + MARKUP_BP)
    for m in range(1, MARKETS):
        if GOOD_FIRST <= m <= GOOD_LAST:
            continue
        z = normal(draw(m, keys[_KEY_NEWS, 0], keys[_KEY_NEWS, 1]))
        news[m] = (news[m] + NEWS_SD[m] * z) * NEWS_DECAY[m]
        if m <= RAW_LAST:
            worth = cost_level[m] + MARKUP_BP
        elif m < CONSOL:
            dividend_ema[m] += (YEAR * income_per_lot[m] - dividend_ema[m]) / DIVIDEND_MEMORY_TICKS
            worth = level_below(ladder, int(share_value(dividend_ema[m], rate)))
        else:
            worth = level_below(ladder, int(consol_value(float(YEAR * income_per_lot[m]), rate)))
        fundamental[m] = _on_ladder(worth + int(news[m]))


@njit(cache=True, nogil=True, error_model="numpy")
def share_value(dividend: float, rate: float) -> float:
    """Return what a share is worth, ucr: dividends a year / max(.07 + .25 (i - .04), .04). Source: ECONOMY A7."""
    return dividend / max(0.07 + 0.25 * (rate - 0.04), 0.04)


@njit(cache=True, nogil=True, error_model="numpy")
def consol_value(coupon: float, rate: float) -> float:
    """Return what a consol is worth, ucr: coupons a year / max(.06 + .5 (i - .04), .025). Source: ECONOMY A7."""
    return coupon / max(0.06 + 0.5 * (rate - 0.04), 0.025)


@njit(cache=True, nogil=True, error_model="numpy")
def _on_ladder(level: int) -> int:
    return min(LAST_LEVEL, max(0, level))
