"""Phase 2: every resident settles its order, does the hour's business, decides the next order and feels.

One fused pass over the blocks of residents, in kernels by kind of resident: _households, _producers, _traders; orders
and minds, common to all, are in _orders and _minds. Blocks touch only their own residents and sums of their thread,
so threads take ranges of blocks (of producers: of segments) and no result depends on how many they are.

Where the specification leaves a choice, these hold: memory rounds with bits 3-14 of the psychology draw; float64
expressions are evaluated in the order the kernels write them; every resident order is cut to 10^9 lots; limits given
relative to the reference level are cut to the window when max_price_change makes it smaller than they assume.
Source: ECONOMY A7, A8 (per agent), A17 phase 2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config import Config
from engine.ladder import window
from engine.layout import Layout, clocks, cuts
from engine.markets import MARKETS
from engine.phases import _households, _producers, _traders
from engine.phases._orders import stand
from engine.state import FLOWS, MOODS, SLOTS, UNEMPLOYMENT, State

WRITES = (
    "cash",
    "ord_level",
    "ord_qty",
    "sentiment",
    "fear",
    "greed",
    "confidence",
    "memory",
    "shares",
    "income_ema",
    "reserve_wage",
    "employed",
    "inventory",
    "debt",
    "out",
    "in1",
    "in2",
    "hours",
    "day_sales",
    "ask",
    "sales_ema",
    "sell_level",
    "sell_qty",
    "histogram",
    "touched",
    "flows",
    "goods_flow",
    "dividends",
    "mood_sum",
)

_GOODS_AT = FLOWS
_DIVIDENDS_AT = _GOODS_AT + 4 * MARKETS
_MOODS_AT = _DIVIDENDS_AT + MARKETS
_TOTALS = _MOODS_AT + MOODS * MARKETS


class _Pass(NamedTuple):
    """What is the same for all threads in one pass over the residents."""

    targets: NDArray[np.int64]
    """Shape (4, MARKETS): sentiment, fear, greed, confidence."""
    window_down: int
    window_up: int
    block_longest: int
    segment_longest: int


class _Sums(NamedTuple):
    """What one thread adds to."""

    histogram: NDArray[np.int64]
    touched: NDArray[np.int64]
    flows: NDArray[np.int64]
    goods_flow: NDArray[np.int64]
    dividends: NDArray[np.int64]
    mood_sum: NDArray[np.int64]


def step(state: State, config: Config) -> None:
    """Settle, work, decide and feel: all residents, at the prices and margins of this tick's auction.

    Fills the histogram of the next auction around the new reference levels (it must have been cleared), adds to
    flows, goods_flow and dividends, and sets mood_sum.
    """
    layout = state.layout
    targets = np.empty((4, MARKETS), dtype=np.int64)
    targets[0], targets[1] = state.target_sentiment, state.target_fear
    targets[2], targets[3] = state.target_greed, state.target_confidence
    whole = _Pass(
        targets,
        *window(config.max_price_change),
        layout.block_longest,
        layout.segment_longest,
    )
    household_blocks, segments, trader_blocks = _ranges(layout, state.threads)
    totals = np.zeros((state.threads, _TOTALS), dtype=np.int64)

    def work(i: int) -> None:
        sums = _Sums(state.histogram[i], state.touched[i], *_views(totals[i]))
        _run_households(state, household_blocks[i], household_blocks[i + 1], whole, sums)
        _run_producers(state, segments[i], segments[i + 1], whole, sums)
        _run_traders(state, trader_blocks[i], trader_blocks[i + 1], whole, sums)

    state.parallel(work, state.threads)
    flows, goods_flow, dividends, mood_sum = _views(totals.sum(axis=0))
    state.flows += flows
    state.goods_flow += goods_flow
    state.dividends += dividends
    state.mood_sum[:] = mood_sum


def rebuild_histogram(state: State, config: Config) -> None:
    """Refill histogram and touched from the standing orders, as step left them at the end of state.tick."""
    window_down, window_up = window(config.max_price_change)
    layout = state.layout
    state.histogram[:] = 0
    state.touched[:, :, 0] = SLOTS
    state.touched[:, :, 1] = -1
    histogram, touched = state.histogram[0], state.touched[0]
    markets = layout.markets_at(state.tick + 1)
    for b in range(layout.blocks):
        start, end, market = layout.block_start[b], layout.block_end[b], markets[b]
        if market >= 0:
            orders = state.ord_level[start:end], state.ord_qty[start:end]
            stand(*orders, market, state.level[market], window_down, window_up, histogram, touched)
    for s, market in enumerate(layout.segment_market):
        start, end = layout.segment_start[s] - layout.producer_first, layout.segment_end[s] - layout.producer_first
        offers = state.sell_level[start:end], -state.sell_qty[start:end]
        stand(*offers, market, state.level[market], window_down, window_up, histogram, touched)


def _ranges(layout: Layout, threads: int) -> tuple[list[int], list[int], list[int]]:
    """Return the borders of the threads' ranges of household blocks, producer segments and trader blocks."""
    first, last, end = layout.producer_block_first, layout.trader_block_first, layout.blocks
    return (
        cuts(first, threads),
        cuts(len(layout.segment_start), threads),
        [last + border for border in cuts(end - last, threads)],
    )


def _views(sums: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Return one thread's flows, goods_flow, dividends and mood_sum."""
    return (
        sums[:_GOODS_AT],
        sums[_GOODS_AT:_DIVIDENDS_AT].reshape(4, MARKETS),
        sums[_DIVIDENDS_AT:_MOODS_AT],
        sums[_MOODS_AT:].reshape(MOODS, MARKETS),
    )


def _run_households(state: State, first: int, last: int, whole: _Pass, sums: _Sums) -> None:
    layout = state.layout
    _households.run(
        first,
        last,
        layout.block_start,
        layout.block_end,
        layout.block_home,
        layout.markets_at(state.tick),
        layout.markets_at(state.tick + 1),
        state.block_before,
        state.cash,
        state.ord_level,
        state.ord_qty,
        state.sentiment,
        state.fear,
        state.greed,
        state.confidence,
        state.memory,
        state.shares,
        state.income_ema,
        state.reserve_wage,
        state.skill,
        state.employed,
        state.level,
        state.price,
        state.fundamental,
        state.slow_level,
        state.income_per_lot,
        state.base_share_q15,
        state.visit_share_q16,
        state.subsistence,
        state.panic_bias,
        state.quote_shift,
        state.margin_level,
        state.margin_ration,
        state.margin_total,
        whole.targets,
        state.counters,
        state.ladder,
        state.keys,
        whole.window_down,
        whole.window_up,
        np.empty(whole.block_longest, np.int32),
        np.empty(whole.block_longest, np.uint32),
        np.empty(whole.block_longest, np.float64),
        sums.histogram,
        sums.touched,
        sums.flows,
        sums.goods_flow,
        sums.mood_sum,
    )


def _run_producers(state: State, first: int, last: int, whole: _Pass, sums: _Sums) -> None:
    layout = state.layout
    _producers.run(
        first,
        last,
        layout.producer_first,
        state.tick,
        clocks(state.tick)[1],
        clocks(state.tick + 1)[1],
        layout.segment_start,
        layout.segment_end,
        layout.segment_market,
        layout.segment_block_start,
        layout.segment_block_end,
        state.segment_before,
        layout.block_start,
        layout.block_end,
        layout.block_phase,
        state.block_before,
        state.cash,
        state.ord_level,
        state.ord_qty,
        state.sentiment,
        state.fear,
        state.greed,
        state.confidence,
        state.memory,
        state.debt,
        state.out,
        state.in1,
        state.in2,
        state.hours,
        state.day_sales,
        state.ask,
        state.sales_ema,
        state.sell_level,
        state.sell_qty,
        _producers.asked_markup(float(state.macro[UNEMPLOYMENT])),
        state.level,
        state.price,
        state.fundamental,
        state.unit_cost,
        state.cost_level,
        state.hours_q16,
        state.input1_q16,
        state.input2_q16,
        state.quota,
        state.margin_level,
        state.margin_ration,
        state.margin_total,
        whole.targets,
        state.counters,
        state.ladder,
        state.keys,
        whole.window_down,
        whole.window_up,
        np.empty((4, whole.segment_longest), np.int32),
        np.empty((2, whole.segment_longest), np.int64),
        np.empty(whole.segment_longest, np.uint32),
        sums.histogram,
        sums.touched,
        sums.flows,
        sums.goods_flow,
        sums.dividends,
        sums.mood_sum,
    )


def _run_traders(state: State, first: int, last: int, whole: _Pass, sums: _Sums) -> None:
    layout = state.layout
    _traders.run(
        first,
        last,
        layout.trader_first,
        layout.block_start,
        layout.block_end,
        layout.block_home,
        state.block_before,
        state.cash,
        state.ord_level,
        state.ord_qty,
        state.sentiment,
        state.fear,
        state.greed,
        state.confidence,
        state.memory,
        state.inventory,
        state.level,
        state.price,
        state.fundamental,
        state.income_per_lot,
        state.panic_bias - state.quote_shift,
        state.trend_fast,
        state.trend_slow,
        state.chartists_q16,
        state.vm_q8,
        state.sigma_q4,
        state.group_draw,
        state.margin_level,
        state.margin_ration,
        state.margin_total,
        whole.targets,
        state.keys,
        whole.window_down,
        whole.window_up,
        np.empty(whole.block_longest, np.int32),
        np.empty(whole.block_longest, np.uint32),
        np.empty(whole.block_longest, np.int64),
        sums.histogram,
        sums.touched,
        sums.flows,
        sums.mood_sum,
    )
